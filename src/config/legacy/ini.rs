//! The syntax of the old files, as the library that wrote them (configobj) reads it: nested `[[sections]]`, quotes, comments.
//!
//! The one rule: nothing is skipped in silence. A line that cannot be understood is a problem with its number, and reading goes on behind it.

use super::super::problem::{Place, Problem, quoted};

/// A value as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    /// Without quotes, blanks around it, and comment.
    pub text: String,
    /// A comma outside of quotes makes it a list of several.
    pub is_list: bool,
}

/// `key = value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub line: usize,
    pub key: String,
    pub value: Value,
}

/// `[name]`, or deeper, with what stands below it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Section {
    /// The line of its head; 0 for the whole file.
    pub line: usize,
    pub name: String,
    pub entries: Vec<Entry>,
    pub sections: Vec<Section>,
}

/// Reads a whole file; the section that is given back is the file itself.
pub(super) fn parse(text: &str, problems: &mut Vec<Problem>) -> Section {
    // The open sections, from the file itself down.
    let mut open = vec![Section::default()];
    // The quotes of a value that goes over several lines, and the line where it began.
    let mut within: Option<(&str, usize)> = None;
    for (line, raw) in (1..).zip(lines(text)) {
        let trimmed = raw.trim();
        if let Some((end, _)) = within {
            within = within.filter(|_| !trimmed.contains(end));
            continue;
        }
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        let read = if trimmed.starts_with('[') { head(trimmed).map(Line::Head) } else { entry(trimmed, line).map(Line::Entry) };
        match read {
            Ok(Line::Head((depth, _))) if depth > open.len() => {
                problem(
                    problems,
                    line,
                    "this section is nested too deep",
                    "write one [ more than the section above it has, at most",
                );
            }
            Ok(Line::Head((depth, name))) => {
                close(&mut open, depth);
                open.push(Section { line, name, ..Section::default() });
            }
            Ok(Line::Entry(entry)) => {
                if let Some(section) = open.last_mut() {
                    section.entries.push(entry);
                }
            }
            Err(Unread::OverLines(end)) => {
                problem(problems, line, "a value over several lines is not understood", "write it on one line");
                within = Some((end, line));
            }
            Err(Unread::Wrong(wrong, write)) => {
                problem(problems, line, wrong, write);
                if trimmed.starts_with('[') {
                    // What follows belongs to whatever was meant: a section without a name goes when it is closed.
                    close(&mut open, 1);
                    open.push(Section { line, ..Section::default() });
                }
            }
        }
    }
    if let Some((_, line)) = within {
        problem(problems, line, "its quotes are never closed", "close them");
    }
    close(&mut open, 1);
    open.pop().unwrap_or_default()
}

enum Line {
    Head((usize, String)),
    Entry(Entry),
}

/// Why a line was not read.
enum Unread {
    /// What is wrong, and what to write.
    Wrong(&'static str, &'static str),
    /// A value begins that ends at these quotes, on a later line.
    OverLines(&'static str),
}

fn problem(problems: &mut Vec<Problem>, line: usize, wrong: &str, write: &str) {
    problems.push(Problem { place: Place::Line(line), key: String::new(), wrong: wrong.to_owned(), write: write.to_owned() });
}

/// Puts sections into those around them until so many are open.
fn close(open: &mut Vec<Section>, depth: usize) {
    while open.len() > depth.max(1) {
        let Some(done) = open.pop() else { return };
        if let Some(around) = open.last_mut()
            && !done.name.is_empty()
        {
            around.sections.push(done);
        }
    }
}

/// Lines ended by LF, CRLF or CR.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.split('\n').flat_map(|line| line.strip_suffix('\r').unwrap_or(line).split('\r'))
}

/// `[ name ]`, `[[name]] # comment`: how deep it is, and its name.
fn head(line: &str) -> Result<(usize, String), Unread> {
    let wrong = Err(Unread::Wrong("this is not the head of a section", "write [name], with as many ] as ["));
    let is_bracket = |bracket: char| move |c: char| c == bracket || c.is_whitespace();
    let inner = line.trim_start_matches(is_bracket('['));
    let depth = line[..line.len() - inner.len()].matches('[').count();
    let (name, rest) = if let Some(quote) = quote_of(inner) {
        let Some(both) = inner[1..].split_once(quote) else { return wrong };
        both
    } else {
        // A name may hold brackets: those of an IPv6 address in a URL.
        let code = inner.split(" #").next().unwrap_or(inner).trim_end();
        let name = code.trim_end_matches(']');
        let inside = (code.len() - name.len()).saturating_sub(depth);
        (code[..name.len() + inside].trim(), &code[name.len() + inside..])
    };
    let rest = rest.split('#').next().unwrap_or_default();
    let closes = rest.matches(']').count() == depth && rest.chars().all(is_bracket(']'));
    if closes && !name.trim().is_empty() { Ok((depth, name.trim().to_owned())) } else { wrong }
}

/// `key = value # comment`. A colon stands for `=` after a plain word, as other readers of such files have it.
fn entry(line: &str, number: usize) -> Result<Entry, Unread> {
    let wrong = Err(Unread::Wrong("this is neither a [section] nor key = value", "correct it, or put a # in front of it"));
    let (key, value) = if let Some(quote) = quote_of(line) {
        let Some((key, rest)) = line[1..].split_once(quote) else { return wrong };
        let Some(value) = rest.trim_start().strip_prefix(['=', ':']) else { return wrong };
        (key, value)
    } else {
        let Some(at) = line.find(['=', ':']) else { return wrong };
        let (key, value) = (line[..at].trim(), &line[at + 1..]);
        let is_word = key.chars().all(|c| c.is_alphanumeric() || "-_.".contains(c));
        match (line.as_bytes()[at], is_word, line.split_once('=')) {
            // `http://h/ = 1` has its colon within the key.
            (b':', true, Some((key, rest))) if value.starts_with("//") => (key.trim(), rest),
            (b':', true, _) | (b'=', _, _) => (key, value),
            (_, _, Some((key, rest))) => (key.trim(), rest),
            (_, _, None) => return wrong,
        }
    };
    if key.is_empty() {
        return wrong;
    }
    Ok(Entry { line: number, key: key.to_owned(), value: read_value(value.trim())? })
}

fn read_value(text: &str) -> Result<Value, Unread> {
    let open =
        Err(Unread::Wrong("its quotes are not closed, or something stands behind them", "put one pair of quotes around it"));
    for quotes in ["\"\"\"", "'''"] {
        if let Some(rest) = text.strip_prefix(quotes) {
            let Some((inside, behind)) = rest.split_once(quotes) else { return Err(Unread::OverLines(quotes)) };
            return if is_comment(behind) { Ok(Value { text: inside.to_owned(), is_list: false }) } else { open };
        }
    }
    let Some(quote) = quote_of(text) else {
        let plain = text.split('#').next().unwrap_or_default().trim_end();
        return Ok(Value { text: plain.to_owned(), is_list: plain.contains(',') });
    };
    match text[1..].split_once(quote) {
        Some((inside, behind)) if is_comment(behind) => Ok(Value { text: inside.to_owned(), is_list: false }),
        Some((_, behind)) if behind.trim_start().starts_with(',') => Ok(Value { text: text.to_owned(), is_list: true }),
        Some(_) | None => open,
    }
}

/// The quotation mark that a text begins with.
fn quote_of(text: &str) -> Option<char> {
    text.chars().next().filter(|first| matches!(first, '"' | '\''))
}

fn is_comment(behind: &str) -> bool {
    let behind = behind.trim_start();
    behind.is_empty() || behind.starts_with('#')
}

/// A text from bytes: what a byte order mark says, else UTF-8, else Latin-1 (told by the second value).
pub(super) fn decode(bytes: &[u8]) -> Result<(String, bool), &'static str> {
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err("it is UTF-16; save it as UTF-8");
    }
    if bytes.contains(&0) {
        return Err("it is not a text file");
    }
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    Ok(match std::str::from_utf8(bytes) {
        Ok(text) => (text.to_owned(), false),
        Err(_) => (bytes.iter().copied().map(char::from).collect(), true),
    })
}

/// The entries of a section by their keys, whose case does not count. One that is given twice with two values is a problem: the old script
/// refused such a file, so nobody knows which is meant.
pub(super) fn unique<'s>(section: &'s Section, path: &str, problems: &mut Vec<Problem>) -> Vec<&'s Entry> {
    let mut found: Vec<&Entry> = Vec::new();
    for entry in &section.entries {
        match found.iter().find(|first| first.key.eq_ignore_ascii_case(&entry.key)) {
            None => found.push(entry),
            Some(first) if first.value == entry.value => {}
            Some(first) => problems.push(Problem {
                place: Place::Line(entry.line),
                key: path.to_owned(),
                wrong: format!("{} stands on line {} too, with another value", quoted(&entry.key), first.line),
                write: "keep one of the two".to_owned(),
            }),
        }
    }
    found
}
