//! What a comparison is going to cost, before anything is asked. Pure.
//!
//! The one rule: `most` is exceeded only by rows that the destination alone has, and by questions that got no answer at first.

use super::search::Hour;

/// Bytes of a count: both heads (200 and 150 to 200 bytes), and what TCP/IP adds to them. There is hardly a body.
pub const REQUEST_BYTES: u64 = 550;
/// Bytes of a row in a list.
pub const ROW_BYTES: u64 = 117;

/// Requests and the bytes that they take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// Requests.
    pub requests: u64,
    /// Bytes, both ways.
    pub bytes: u64,
}

impl Cost {
    fn of(requests: u64, rows: u64) -> Self {
        Self { requests, bytes: requests * REQUEST_BYTES + rows * ROW_BYTES }
    }

    /// Both together.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self { requests: self.requests + other.requests, bytes: self.bytes + other.bytes }
    }
}

/// What to expect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quote {
    /// When both sides are equal.
    pub equal: Cost,
    /// For each hour of a node that differs, at most, beside that.
    pub each_gap: Cost,
    /// When every hour differs.
    pub most: Cost,
}

impl Quote {
    /// For one node's rows of one stream, whose hours lie in a range of so many.
    pub fn of_node(range_hours: u64, hours: &[Hour]) -> Self {
        let rows: u64 = hours.iter().map(|hour| hour.rows).sum();
        let steps = u64::from(range_hours.max(1).next_power_of_two().trailing_zeros());
        let splits = range_hours.saturating_sub(1).min(steps * hours.len() as u64);
        let busiest = hours.iter().map(|hour| hour.rows).max().unwrap_or(0);
        Self {
            equal: Cost::of(1, 0),
            each_gap: Cost::of(steps + lists(busiest), busiest),
            most: Cost::of(1 + splits + hours.iter().map(|hour| lists(hour.rows)).sum::<u64>(), rows),
        }
    }

    /// For both.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        let each_gap = if other.each_gap.bytes > self.each_gap.bytes { other.each_gap } else { self.each_gap };
        Self { equal: self.equal.plus(other.equal), each_gap, most: self.most.plus(other.most) }
    }
}

/// Lists that the rows of an hour are spread over.
fn lists(rows: u64) -> u64 {
    rows.div_ceil(500)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hours(count: i64, rows: u64) -> Vec<Hour> {
        (0..count).map(|hour| Hour { hour, rows, queued: 0 }).collect()
    }

    #[test]
    fn equal_sides_cost_one_request_a_node_and_a_gap_the_bits_of_its_range() {
        let quote = Quote::of_node(8_760, &hours(8_760, 72));
        assert_eq!(quote.equal, Cost { requests: 1, bytes: REQUEST_BYTES });
        assert_eq!(quote.each_gap, Cost { requests: 15, bytes: 15 * REQUEST_BYTES + 72 * ROW_BYTES });
        assert_eq!(quote.most.requests, 1 + 8_759 + 8_760);
        assert_eq!(quote.plus(quote).equal.requests, 2);
        assert_eq!(quote.plus(quote).each_gap, quote.each_gap);
    }

    #[test]
    fn few_hours_in_a_long_range_cost_little() {
        let quote = Quote::of_node(1 << 20, &hours(3, 1));
        assert_eq!(quote.most.requests, 1 + 3 * 20 + 3);
        assert_eq!(Quote::of_node(1, &hours(1, 5)).most.requests, 2);
        assert_eq!(Quote::of_node(0, &[]).most.requests, 1);
    }
}
