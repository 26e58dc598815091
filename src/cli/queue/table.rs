//! Tables for people, no wider than the terminal. Pure, but for the look at the terminal.
//!
//! The one rule: a number is never cut; a text that has no room ends in an ellipsis.

use std::io::{self, IsTerminal as _};

/// How a column stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Align {
    /// Numbers.
    Right,
    /// Text; the last of these gives way when there is no room.
    Left,
}

/// A table.
#[derive(Clone, Debug, Default)]
pub struct Table {
    heads: Vec<(String, Align)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// With these heads.
    pub fn new<'h>(heads: impl IntoIterator<Item = (&'h str, Align)>) -> Self {
        Self { heads: heads.into_iter().map(|(head, align)| (head.to_owned(), align)).collect(), rows: Vec::new() }
    }

    /// One more row, with a cell for each head.
    pub fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether it has no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// As text, at most so wide.
    pub fn to_text(&self, width_max: Option<usize>) -> String {
        let width = |place: usize| {
            let cells = self.rows.iter().map(|row| row[place].chars().count());
            cells.chain([self.heads[place].0.chars().count()]).max().unwrap_or(0)
        };
        let mut widths: Vec<_> = (0..self.heads.len()).map(width).collect();
        if let Some(max) = width_max {
            let all = |widths: &[usize]| widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
            for place in (0..widths.len()).rev().filter(|place| self.heads[*place].1 == Align::Left) {
                let over = all(&widths).saturating_sub(max);
                widths[place] = widths[place].saturating_sub(over).max(self.heads[place].0.chars().count().min(widths[place]));
            }
        }
        let heads: Vec<_> = self.heads.iter().map(|(head, _)| head.clone()).collect();
        let lines = std::iter::once(&heads).chain(&self.rows);
        lines.map(|cells| self.line(cells, &widths)).collect()
    }

    fn line(&self, cells: &[String], widths: &[usize]) -> String {
        let parts = cells.iter().zip(widths).zip(&self.heads).map(|((cell, &width), (_, align))| match align {
            Align::Right => format!("{cell:>width$}"),
            Align::Left => format!("{:<width$}", cut(cell, width)),
        });
        format!("{}\n", parts.collect::<Vec<_>>().join("  ").trim_end())
    }
}

/// A text without line breaks, of at most so many characters.
pub fn cut(text: &str, width: usize) -> String {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().count() <= width {
        return text;
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// How wide the terminal is; `None` when the answer goes somewhere else, where nothing is cut.
pub fn width() -> Option<usize> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let columns = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_col));
    Some(if columns == 0 { 80 } else { columns })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> Table {
        let mut table = Table::new([("rows", Align::Right), ("stream", Align::Left), ("reason", Align::Left)]);
        table.row(vec!["12".into(), "reading".into(), "refused: a long story\nin lines".into()]);
        table.row(vec!["12345".into(), "nodestate".into(), "held".into()]);
        table
    }

    #[test]
    fn a_table_that_fits_is_as_wide_as_its_cells() {
        let text = table().to_text(None);
        assert_eq!(text, " rows  stream     reason\n   12  reading    refused: a long story in lines\n12345  nodestate  held\n");
    }

    #[test]
    fn the_last_text_gives_way_and_numbers_never_do() {
        for width in [40, 30, 25] {
            let text = table().to_text(Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
            assert!(text.contains("12345"));
        }
        assert!(table().to_text(Some(30)).contains("refused: a …"), "{}", table().to_text(Some(30)));
    }
}
