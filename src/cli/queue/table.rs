//! Tables for people, no wider than the terminal. Pure, but for the look at the terminal.
//!
//! The one rule: a number is never cut; a text that has no room ends in an ellipsis. Where that leaves too little, the cells of a row stand one
//! below the other.

use std::io::{self, IsTerminal as _};

/// A text is not cut to less than this.
const TEXT_MIN: usize = 12;

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
        match self.widths(width_max) {
            Some(widths) => {
                let heads: Vec<_> = self.heads.iter().map(|(head, _)| head.clone()).collect();
                self.line(&heads, &widths) + &self.lines(&widths)
            }
            None => self.stacked(width_max),
        }
    }

    /// The same without its heads: it goes on below one that has them.
    pub fn to_more_text(&self, width_max: Option<usize>) -> String {
        match self.widths(width_max) {
            Some(widths) => self.lines(&widths),
            None => self.stacked(width_max),
        }
    }

    /// How wide each column is; `None` where they do not fit beside each other.
    fn widths(&self, width_max: Option<usize>) -> Option<Vec<usize>> {
        let width = |place: usize| {
            let cells = self.rows.iter().map(|row| row[place].chars().count());
            cells.chain([self.heads[place].0.chars().count()]).max().unwrap_or(0)
        };
        let mut widths: Vec<_> = (0..self.heads.len()).map(width).collect();
        let Some(max) = width_max else { return Some(widths) };
        let all = |widths: &[usize]| widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1);
        for place in (0..widths.len()).rev().filter(|place| self.heads[*place].1 == Align::Left) {
            let over = all(&widths).saturating_sub(max);
            let least = self.heads[place].0.chars().count().max(TEXT_MIN).min(widths[place]);
            widths[place] = widths[place].saturating_sub(over).max(least);
        }
        (all(&widths) <= max).then_some(widths)
    }

    fn lines(&self, widths: &[usize]) -> String {
        self.rows.iter().map(|cells| self.line(cells, widths)).collect()
    }

    /// Each cell behind its head, rows apart by an empty line.
    fn stacked(&self, width_max: Option<usize>) -> String {
        let indent = self.heads.iter().map(|(head, _)| head.chars().count()).max().unwrap_or(0) + 2;
        let mut text = String::new();
        for row in &self.rows {
            for ((head, _), cell) in self.heads.iter().zip(row) {
                let cell = cut(cell, usize::MAX);
                text += &folded(&format!("{head:indent$}{cell}"), width_max.unwrap_or(usize::MAX), indent);
            }
            text.push('\n');
        }
        text
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

/// Folds lines that are wider than the terminal, at blanks where there are any; what is folded stands under the value, as far in as `indent`.
pub fn folded(text: &str, width: usize, indent: usize) -> String {
    let width = width.max(indent + 10);
    let mut out = String::new();
    for line in text.lines() {
        let (mut rest, mut room) = (line, width);
        while rest.chars().count() > room {
            let (end, _) = rest.char_indices().nth(room).unwrap_or((rest.len(), ' '));
            // Not before the line's own words begin.
            let begins = rest.len() - rest.trim_start().len();
            let at = rest[..end].rfind(' ').filter(|at| *at > begins).unwrap_or(end);
            out.push_str(rest[..at].trim_end());
            out.push('\n');
            out.push_str(&" ".repeat(indent));
            rest = rest[at..].trim_start();
            room = width - indent;
        }
        out.push_str(rest);
        out.push('\n');
    }
    out
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
    fn a_long_line_is_folded_and_nothing_of_it_is_lost() {
        let text = "central\n  state         waiting for the link since 14:02, next try in 35 s\n  url           https://central.example/rest/and/so/on\n";
        for width in [26, 40, 60, 200] {
            let folded = folded(text, width, 16);
            assert!(folded.lines().all(|line| line.chars().count() <= width), "{width}:\n{folded}");
            let words = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(words(&folded), words(text));
        }
        assert_eq!(folded(text, 200, 16), text);
        assert_eq!(folded("  state         waiting for ever\n", 29, 16), "  state         waiting for\n                ever\n");
    }

    #[test]
    fn the_last_text_gives_way_and_numbers_never_do() {
        for width in [60, 40, 32, 20] {
            let text = table().to_text(Some(width));
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}:\n{text}");
            assert!(text.contains("12345"));
        }
        assert!(table().to_text(Some(32)).contains("refused: a lo…"), "{}", table().to_text(Some(32)));
    }

    #[test]
    fn what_does_not_fit_beside_each_other_stands_below_each_other_and_nothing_is_lost() {
        let text = table().to_text(Some(20));
        assert_eq!(text.lines().next(), Some("rows    12"));
        let words = |text: &str| text.split_whitespace().collect::<String>();
        assert!(words(&text).contains("reasonrefused:alongstoryinlines"), "{text}");
        assert_eq!(table().to_more_text(Some(20)), text);
        assert_eq!(table().to_more_text(Some(80)).lines().count(), 2);
    }
}
