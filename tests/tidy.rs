//! The source tree keeps its own rules: who may name which crate, who may know whom, how long a file gets.
//!
//! Each rule is a function from files to complaints, so that its control can show it a bad sample. Code is looked at without comments and
//! the content of strings, and without the tests in it.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

/// A file of the tree.
struct File {
    /// From the root, with slashes.
    path: String,
    text: String,
}

impl File {
    fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    fn is_in(&self, places: &[&str]) -> bool {
        places.iter().any(|place| self.path.starts_with(place))
    }

    /// Numbered lines of code.
    fn code(&self) -> Vec<(usize, String)> {
        let code = bare_code(&self.text);
        let code = code.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        code.lines().enumerate().map(|(index, line)| (index + 1, line.to_owned())).collect()
    }
}

/// Where a walk through code stands.
enum Within {
    Code,
    Line,
    /// How many block comments deep.
    Block(usize),
    /// A string, raw with so many hashes.
    Text(Option<usize>),
}

/// Code with comments and the content of strings blanked, line by line.
fn bare_code(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |index: usize| chars.get(index).copied().unwrap_or('\0');
    let (mut within, mut bare, mut i) = (Within::Code, String::new(), 0);
    while i < chars.len() {
        let (c, next) = (at(i), at(i + 1));
        let mut step = 1;
        let mut keep = c == '\n';
        within = match within {
            Within::Code if c == '/' && next == '/' => Within::Line,
            Within::Code if c == '/' && next == '*' => Within::Block(1),
            Within::Code if c == '"' => Within::Text(None),
            Within::Code if c == 'r' && (next == '"' || next == '#') && !is_word_char(bare.chars().last().unwrap_or(' ')) => {
                let hashes = (i + 1..chars.len()).take_while(|&j| at(j) == '#').count();
                if at(i + 1 + hashes) == '"' {
                    step = hashes + 2;
                    Within::Text(Some(hashes))
                } else {
                    keep = true;
                    Within::Code
                }
            }
            Within::Code if c == '\'' && next == '\\' => {
                // An escaped character ends at the next quote after what is escaped.
                step = (i + 3..chars.len()).find(|&j| at(j) == '\'').map_or(1, |end| end + 1 - i);
                Within::Code
            }
            Within::Code if c == '\'' && at(i + 2) == '\'' => {
                step = 3;
                Within::Code
            }
            Within::Code => {
                keep = true;
                Within::Code
            }
            Within::Line if c == '\n' => Within::Code,
            Within::Line => Within::Line,
            Within::Block(depth) if c == '*' && next == '/' => {
                step = 2;
                if depth == 1 { Within::Code } else { Within::Block(depth - 1) }
            }
            Within::Block(depth) if c == '/' && next == '*' => {
                step = 2;
                Within::Block(depth + 1)
            }
            Within::Block(depth) => Within::Block(depth),
            Within::Text(None) if c == '\\' => {
                step = 2;
                keep = false;
                if next == '\n' {
                    bare.push('\n');
                }
                Within::Text(None)
            }
            Within::Text(None) if c == '"' => Within::Code,
            Within::Text(Some(hashes)) if c == '"' && (1..=hashes).all(|j| at(i + j) == '#') => {
                step = hashes + 1;
                Within::Code
            }
            Within::Text(raw) => Within::Text(raw),
        };
        bare.push(if keep { c } else { ' ' });
        i += step;
    }
    bare
}

fn is_word_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

/// What follows each place where a word stands alone.
fn after_word<'l>(line: &'l str, word: &'l str) -> impl Iterator<Item = &'l str> {
    line.match_indices(word).filter_map(move |(at, _)| {
        let (before, after) = (&line[..at], &line[at + word.len()..]);
        let alone = !before.ends_with(is_word_char) && !after.starts_with(is_word_char);
        alone.then_some(after)
    })
}

fn complaints(files: &[File], check: impl Fn(&File, &str) -> Option<String>) -> Vec<String> {
    let mut found = Vec::new();
    for file in files.iter().filter(|file| file.path.starts_with("src/")) {
        for (number, line) in file.code() {
            found.extend(check(file, &line).map(|text| format!("{}:{number}: {text}", file.path)));
        }
    }
    found
}

/// A crate is named only in its places.
fn crate_in_its_place(files: &[File], name: &str, places: &[&str]) -> Vec<String> {
    complaints(files, |file, line| {
        let named = !file.is_in(places) && after_word(line, name).next().is_some();
        named.then(|| format!("{name} is named here; it belongs into {} alone", places.join(", ")))
    })
}

/// Domain knows nothing of the crate but domain.
fn domain_knows_itself_alone(files: &[File]) -> Vec<String> {
    complaints(files, |file, line| {
        let beyond = after_word(line, "crate").any(|after| after.starts_with("::") && !after.starts_with("::domain"));
        (file.is_in(&["src/domain"]) && beyond).then(|| "domain uses another room; what it needs comes in as a value".to_owned())
    })
}

/// Adapters know neither the outbox nor each other.
fn adapters_know_neither_outbox_nor_each_other(files: &[File]) -> Vec<String> {
    complaints(files, |file, line| {
        let foreign: &[&str] = match &file.path {
            path if path.starts_with("src/rest") => &["outbox", "mysql"],
            path if path.starts_with("src/mysql") => &["outbox", "rest"],
            _ => &[],
        };
        // `rest` is a good name for a local value as well: a room is what has a path.
        let is_room = |word: &&&str| {
            after_word(line, word).any(|after| after.starts_with("::")) || line.contains(&format!("crate::{word}"))
        };
        foreign.iter().find(is_room).map(|word| format!("an adapter uses {word}; adapters know ports, wire, codec and domain"))
    })
}

/// A room's file stands beside its folder.
fn no_mod_rs(files: &[File]) -> Vec<String> {
    let found = files.iter().filter(|file| file.path.starts_with("src/") && file.path.ends_with("/mod.rs"));
    found.map(|file| format!("{}:1: name it after its room, beside the folder", file.path)).collect()
}

const LINES_MAX: usize = 700;

/// No file is too long to be read at one go.
fn no_long_file(files: &[File]) -> Vec<String> {
    let long = files
        .iter()
        .filter(|file| Path::new(&file.path).extension().is_some_and(|end| end == "rs") && file.text.lines().count() > LINES_MAX);
    long.map(|file| format!("{}:{LINES_MAX}: more than {LINES_MAX} lines; a file has one thing to say", file.path)).collect()
}

/// Nothing is left for later in code that compiles.
fn nothing_unfinished(files: &[File]) -> Vec<String> {
    complaints(files, |_, line| {
        let unfinished =
            ["todo", "unimplemented"].into_iter().find(|word| after_word(line, word).any(|after| after.starts_with('!')));
        unfinished.map(|word| format!("{word}! is left here"))
    })
}

/// Every decision can be found from the architecture.
fn decisions_are_linked(files: &[File]) -> Vec<String> {
    let architecture = files.iter().find(|file| file.path == "docs/architecture.md").map_or("", |file| &file.text);
    let decisions = files.iter().filter_map(|file| Some((file, file.path.strip_prefix("docs/")?)));
    decisions
        .filter(|(_, link)| link.starts_with("decisions/") && !architecture.contains(&format!("({link})")))
        .map(|(file, _)| format!("{}:1: docs/architecture.md has no link to it", file.path))
        .collect()
}

/// The change log knows the version that is built, or says what comes next.
fn changelog_is_up_to_date(files: &[File]) -> Vec<String> {
    let text = |path: &str| files.iter().find(|file| file.path == path).map_or("", |file| file.text.as_str());
    let version = text("Cargo.toml").lines().find_map(|line| line.strip_prefix("version = \"")?.strip_suffix('"'));
    let heads: Vec<&str> = text("CHANGELOG.md").lines().filter(|line| line.starts_with("## ")).collect();
    let known = heads
        .iter()
        .any(|head| head.contains("[Unreleased]") || version.is_some_and(|version| head.contains(&format!("[{version}]"))));
    if known { Vec::new() } else { vec![format!("CHANGELOG.md:1: neither [Unreleased] nor {version:?} has a heading")] }
}

/// The tree: sources, tests and documentation.
fn tree() -> Vec<File> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut waiting: Vec<PathBuf> =
        ["src", "tests", "benches", "docs", "Cargo.toml", "CHANGELOG.md"].map(|name| root.join(name)).into();
    let mut files = Vec::new();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if path.extension().is_some_and(|end| ["rs", "md", "toml"].iter().any(|known| end == *known)) {
            let name = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
            files.push(File { path: name, text: fs::read_to_string(&path).unwrap() });
        }
    }
    assert!(files.len() > 30, "this is not the whole tree: {} files", files.len());
    files
}

/// Fails with all complaints of a rule.
fn assert_tidy(found: &[String]) {
    let mut list = String::new();
    for complaint in found {
        writeln!(list, "  {complaint}").unwrap();
    }
    assert!(found.is_empty(), "\n{list}");
}

/// Asserts that a rule complains about this one line of a sample, and about nothing else.
fn assert_flagged(found: &[String], place: &str) {
    assert!(found.len() == 1 && found[0].starts_with(place), "expected one complaint about {place}, got {found:?}");
}

const CRATES: [(&str, &[&str]); 6] = [
    ("sled", &["src/outbox/store.rs"]),
    ("sqlx", &["src/mysql", "src/receiver"]),
    ("reqwest", &["src/rest"]),
    ("axum", &["src/receiver", "src/status"]),
    ("clap", &["src/cli", "src/main.rs"]),
    ("sd_notify", &["src/daemon/service.rs"]),
];

#[test]
fn each_outside_crate_is_named_in_its_place_alone() {
    let files = tree();
    let found: Vec<String> = CRATES.iter().flat_map(|(name, places)| crate_in_its_place(&files, name, places)).collect();
    assert_tidy(&found);
}

#[test]
fn control_a_crate_out_of_its_place_is_flagged() {
    let good = "//! sled is spoken of here.\nlet sledge = \"sled::open\"; /* sled */ let c = '\"'; // sled\n#[cfg(test)]\nmod tests {\n use sled::Db;\n}\n";
    let bad = "let quoted = \"a \\\" b\";\nfn open() -> sled::Db {}\n";
    let files = [File::new("src/outbox/store.rs", bad), File::new("src/sender.rs", good), File::new("src/capture.rs", bad)];
    assert_flagged(&crate_in_its_place(&files, "sled", &["src/outbox/store.rs"]), "src/capture.rs:2: sled");
    for (name, places) in CRATES {
        let bad = format!("let x = r#\"\n\"#;\nuse {name}::*;\n");
        assert_flagged(
            &crate_in_its_place(&[File::new("src/daemon.rs", &bad)], name, places),
            &format!("src/daemon.rs:3: {name}"),
        );
    }
}

#[test]
fn domain_uses_no_other_room() {
    assert_tidy(&domain_knows_itself_alone(&tree()));
}

#[test]
fn control_domain_that_uses_another_room_is_flagged() {
    let good = File::new("src/domain/rows.rs", "use crate::domain::Seq;\nuse super::Stream;\n");
    let other = File::new("src/capture.rs", "use crate::outbox::Outbox;\n");
    let bad = File::new("src/domain/ids.rs", "\nuse crate::{domain::Seq, ports::Sink};\n");
    assert_flagged(&domain_knows_itself_alone(&[good, other, bad]), "src/domain/ids.rs:2:");
}

#[test]
fn adapters_use_neither_the_outbox_nor_each_other() {
    assert_tidy(&adapters_know_neither_outbox_nor_each_other(&tree()));
}

#[test]
fn control_an_adapter_that_uses_the_outbox_or_another_adapter_is_flagged() {
    let check = |path, text| adapters_know_neither_outbox_nor_each_other(&[File::new(path, text)]);
    assert_flagged(&check("src/rest/bulk.rs", "use crate::outbox::Lease;\n"), "src/rest/bulk.rs:1: an adapter uses outbox");
    assert_flagged(&check("src/rest.rs", "\nuse crate::{domain::Seq, mysql::Page};\n"), "src/rest.rs:2: an adapter uses mysql");
    assert_flagged(&check("src/mysql/page.rs", "use crate::rest;\n"), "src/mysql/page.rs:1: an adapter uses rest");
    assert_tidy(&check("src/mysql/page.rs", "let rest = text.split_off(1); // the outbox keeps it\n"));
}

#[test]
fn no_room_hides_in_a_mod_rs() {
    assert_tidy(&no_mod_rs(&tree()));
}

#[test]
fn control_a_mod_rs_is_flagged() {
    let files = [File::new("src/rest/mod.rs", ""), File::new("tests/support/mod.rs", ""), File::new("src/rest/amod.rs", "")];
    assert_flagged(&no_mod_rs(&files), "src/rest/mod.rs:1:");
}

#[test]
fn every_file_can_be_read_at_one_go() {
    assert_tidy(&no_long_file(&tree()));
}

#[test]
fn control_a_long_file_is_flagged() {
    let files = [File::new("src/a.rs", &"\n".repeat(LINES_MAX)), File::new("src/b.rs", &"\n".repeat(LINES_MAX + 1))];
    assert_flagged(&no_long_file(&files), "src/b.rs:");
}

#[test]
fn nothing_is_left_unfinished() {
    assert_tidy(&nothing_unfinished(&tree()));
}

#[test]
fn control_an_unfinished_place_is_flagged() {
    let bad = "fn a() -> &'static str {\n    todo!()\n}\n// todo!\n";
    assert_flagged(&nothing_unfinished(&[File::new("src/a.rs", bad)]), "src/a.rs:2: todo!");
    assert_flagged(&nothing_unfinished(&[File::new("src/a.rs", "unimplemented!(\"x\")")]), "src/a.rs:1: unimplemented!");
}

#[test]
fn every_decision_is_linked_from_the_architecture() {
    let files = tree();
    assert!(files.iter().any(|file| file.path.starts_with("docs/decisions/")), "there are no decisions");
    assert_tidy(&decisions_are_linked(&files));
}

#[test]
fn control_a_decision_without_a_link_is_flagged() {
    let files = [
        File::new("docs/architecture.md", "see [one](decisions/0001-one.md)"),
        File::new("docs/decisions/0001-one.md", ""),
        File::new("docs/decisions/0002-two.md", ""),
    ];
    assert_flagged(&decisions_are_linked(&files), "docs/decisions/0002-two.md:1:");
}

#[test]
fn the_change_log_knows_this_version() {
    assert_tidy(&changelog_is_up_to_date(&tree()));
}

#[test]
fn control_a_change_log_that_is_behind_is_flagged() {
    let with = |changes| {
        changelog_is_up_to_date(&[File::new("Cargo.toml", "version = \"0.2.0\"\n"), File::new("CHANGELOG.md", changes)])
    };
    assert_flagged(&with("## [0.1.0]\n[Unreleased] comes\n"), "CHANGELOG.md:1:");
    assert_tidy(&with("## [0.2.0] - 2026-01-01\n"));
    assert_tidy(&with("## [Unreleased]\n"));
}
