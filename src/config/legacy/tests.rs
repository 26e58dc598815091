use std::fs;

use proptest::prelude::*;

use super::*;
use crate::domain::{EntityKind, LocalId, LocalRef, RemoteId};

const FIELD: &str = "\
#Configuration file for synchronisation

[general]
#localurl = mysql://root:secret@127.0.0.1/other
localurl = mysql://chuser@localhost/ch
pushlimit = 10000
  synctime=10   # minutes

[locations]
local = 1  #For testing code
cogentee = 0

[local]
resturl = http://127.0.0.1:6543/rest/
#lastupdate = 2012-01-13 10:05:21 (somewhere)

[cogentee]
resturl = \"http://cogentee.example/salford/rest\"
";

fn read(text: &str) -> Legacy {
    conf_from_text(text, "synchronise.conf").unwrap_or_else(|error| panic!("{error}"))
}

/// The problems of a text, a line each.
fn problems(text: &str) -> Vec<String> {
    match conf_from_text(text, "synchronise.conf") {
        Err(ConfigError::Problems { problems, .. }) => problems.iter().map(ToString::to_string).collect(),
        other => panic!("{text:?} has no problems: {other:?}"),
    }
}

/// A file with this line for localurl.
fn with_localurl(line: &str) -> String {
    FIELD.replace("localurl = mysql://chuser@localhost/ch", line)
}

fn url_of(line: &str) -> (String, Option<String>) {
    let source = read(&with_localurl(line)).source;
    (source.url.to_string(), source.password.map(|password| password.expose().to_owned()))
}

#[test]
fn a_file_from_the_field_is_read() {
    let old = read(FIELD);
    assert_eq!((old.source.url.as_str(), old.source.line, old.source.was_socket), ("mysql://chuser@localhost/ch", 5, true));
    assert_eq!(old.source.map_name, "localhost-ch_map.conf");
    assert_eq!((old.synctime_minutes, old.pushlimit.as_deref()), (Some(10.0), Some("10000")));
    let found: Vec<_> =
        old.locations.iter().map(|it| (it.name.as_str(), it.enabled, it.url.as_str(), it.line, it.url_line)).collect();
    assert_eq!(
        found,
        [
            ("local", true, "http://127.0.0.1:6543/rest/", 10, 14),
            ("cogentee", false, "http://cogentee.example/salford/rest/", 11, 18)
        ]
    );
    assert!(old.notes.is_empty(), "{:?}", old.notes);
}

#[test]
fn the_same_file_with_odd_ends_case_and_marks_means_the_same() {
    let odd = FIELD
        .replace("localurl", "localUrl")
        .replace("= 1 ", "= True")
        .replace("= 0", " : off")
        .replace("[local]", "[ local ] # here");
    for text in [odd.clone(), odd.replace('\n', "\r\n"), odd.replace('\n', "\r"), format!("\n\n{odd}")] {
        let old = read(&text);
        assert_eq!(old.source.url.as_str(), "mysql://chuser@localhost/ch", "{text:?}");
        assert_eq!(old.locations.iter().map(|it| it.enabled).collect::<Vec<_>>(), [true, false], "{text:?}");
    }
}

#[test]
fn flavours_of_the_database_url_are_read_and_the_password_is_taken_out() {
    for (line, url, password) in [
        ("localurl = mysql+mysqldb://u:pw@h/d?charset=utf8", "mysql://u@h/d", Some("pw")),
        ("localurl: mysql://u:pw@h:3307/d?charset=utf8&use_unicode=0", "mysql://u@h:3307/d", Some("pw")),
        ("localurl = 'mysql://u:p#w,x@h/d'", "mysql://u@h/d", Some("p#w,x")),
        ("localurl = mysql://u:p@ss/w:rd%21@h/d", "mysql://u@h/d", Some("p@ss/w:rd!")),
        ("localurl = mysql://u:100%@h/d", "mysql://u@h/d", Some("100%")),
        ("localurl = mysql://us%40er:@h/d", "mysql://us%40er@h/d", None),
        ("localurl = mysql:///d", "mysql://localhost/d", None),
        ("localurl = mysql://u@/d?unix_socket=/run/my.sock", "mysql://u@localhost/d?socket=%2Frun%2Fmy.sock", None),
        ("localurl = mariadb://u@[::1]:3306/d", "mysql://u@[::1]:3306/d", None),
    ] {
        assert_eq!(url_of(line), (url.to_owned(), password.map(str::to_owned)), "{line}");
    }
    let old = read(&with_localurl("localurl = mysql://u:a@b@h/d?charset=utf8&foo=1"));
    assert_eq!(old.source.map_name, "h-d?charset=utf8&foo=1_map.conf");
    assert!(old.notes[0].contains("\"foo\" of localurl means nothing"), "{:?}", old.notes);
}

#[test]
fn a_database_url_that_cannot_be_used_is_told_without_being_quoted() {
    for (line, word) in [
        ("localurl = sqlite:///hush.db", "\"sqlite\" is not MySQL"),
        ("localurl = chuser:hush@localhost/ch", "this is not a URL"),
        ("localurl = mysql://u:hush@h", "no database is named"),
        ("localurl = mysql://u:hush@h:port/d", "host or port"),
        ("localurl = mysql://u:hu,sh@h/d", "a comma makes it a list"),
        ("localurl = mysql://u:%(hush)s@h/d", "references to other values"),
        ("localurl = None", "it is empty"),
        ("localurl =", "it is empty"),
        ("localurl = 'mysql://u:hush@h/d", "quotes are not closed"),
        ("#localurl", "general.localurl: it is missing"),
    ] {
        let found = problems(&with_localurl(line));
        assert!(found.iter().any(|problem| problem.contains(word)), "{line}: {found:?}");
        assert!(!found.concat().contains("hush"), "{found:?}");
    }
}

#[test]
fn all_problems_come_at_once_with_their_lines() {
    let found = problems(
        "stray = 1\n[general]\nlocalurl = mysql://h\nlocalurl = mysql://g/d\nnonsense\n[[deep]]\n[locations]\na = maybe\nb = 1\nc = 1\nd = 1\n\
         [b]\nresturl = 127.0.0.1:6543/\n[c]\nurl = x\n[locations]\n[e\n",
    );
    let lines: Vec<_> = found.iter().map(|problem| problem.split(": ").next().unwrap()).collect();
    assert_eq!(
        lines,
        [
            "line 1", "line 3", "line 4", "line 5", "line 6", "line 8", "line 8", "line 11", "line 13", "line 14", "line 16",
            "line 17"
        ],
        "{found:#?}"
    );
}

#[test]
fn missing_sections_are_named_and_an_empty_file_is_not_a_configuration() {
    for text in ["", "\n# nothing\n", "\u{feff}"] {
        let found = problems(text).concat();
        assert!(found.contains("[general]") && found.contains("[locations]"), "{found}");
    }
    let found = problems("[general]\nlocalurl = mysql://h/d\n[locations]\n");
    assert!(found[0].contains("it is empty; write name = 1"), "{found:?}");
}

#[test]
fn a_server_that_is_off_and_has_no_url_is_left_out_and_told() {
    let old = read(&FIELD.replace("[cogentee]\nresturl", "[cogentee]\nurl"));
    assert_eq!(old.locations.len(), 1);
    assert!(old.notes.concat().contains("\"cogentee\" is off and there is no resturl in it"), "{:?}", old.notes);
    let old = read(&FIELD.replace("cogentee = 0\n", ""));
    assert!(old.notes.concat().contains("does not name \"cogentee\""), "{:?}", old.notes);
}

#[test]
fn names_become_safe_and_unlike_each_other() {
    let mut text = "[general]\nlocalurl = mysql://h/d\n[locations]\n".to_owned();
    let names = ["lock", "a/b", "A-B", "../..", "Gewächshaus", &"x".repeat(80), "a.b"];
    text.extend(names.map(|name| format!("\"{name}\" = 1\n")));
    text.extend(names.iter().enumerate().map(|(index, name)| format!("[\"{name}\"]\nresturl = http://h{index}/rest/\n")));
    let old = read(&text);
    let names: Vec<_> = old.locations.iter().map(|it| it.name.as_str()).collect();
    assert_eq!(names[..5], ["lock-2", "a-b", "A-B-2", "server", "Gew-chshaus"]);
    assert_eq!((names[5].len(), names[6]), (64, "a.b-3"));
    assert_eq!(old.notes.len(), 7, "{:#?}", old.notes);
}

#[test]
fn two_names_for_one_server_are_told() {
    let old = read(&FIELD.replace("http://127.0.0.1:6543/rest/", "http://cogentee.example/salford/rest/"));
    assert!(old.notes[0].contains("\"cogentee\" is the same server as \"local\""), "{:?}", old.notes);
}

#[test]
fn credentials_of_a_server_are_taken_out_of_its_url() {
    let old = read(&FIELD.replace("http://127.0.0.1", "http://u:h%40sh@127.0.0.1"));
    let (user, password) = old.locations[0].login.as_ref().unwrap();
    assert_eq!((user.as_str(), password.expose(), old.locations[0].url.as_str()), ("u", "h@sh", "http://127.0.0.1:6543/rest/"));
    let found = problems(&FIELD.replace("http://127.0.0.1", "http://hush@127.0.0.1")).concat();
    assert!(found.contains("not a user and a password") && !found.contains("hush"), "{found}");
}

#[test]
fn files_that_are_none_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let error = |path: &Path| crate::chain(&load_conf(path).unwrap_err());
    assert!(error(&dir.path().join("nowhere")).contains("No such file"));
    assert!(error(dir.path()).contains("directory"));
    let file = dir.path().join("file");
    for (bytes, word) in [(&b"\x7fELF\0\x01"[..], "not a text file"), (b"\xff\xfe[\0g\0", "UTF-16"), (b"", "[general]")] {
        fs::write(&file, bytes).unwrap();
        assert!(error(&file).contains(word), "{}", error(&file));
    }
    assert!(error(Path::new("/dev/zero")).contains("not a regular file"));
    fs::write(
        &file,
        b"\xef\xbb\xbf[general]\nlocalurl = mysql://u:caf\xe9@h/d\n[locations]\na = 1\n[a]\nresturl = http://h/rest/\n",
    )
    .unwrap();
    let old = load_conf(&file).unwrap();
    assert_eq!(old.source.password.unwrap().expose(), "café");
    assert!(old.notes[0].contains("Latin-1"), "{:?}", old.notes);
}

const MAP: &str = "\
# This file holds details of mappings between local and remote objects

[http://127.0.0.1:6543/rest/]
[[lastupdate]]
207 = 2015-09-01 00:05:00
[[deployment]]
41 = 2
[[house]]
207 = 7
203 = None
[[room]]
31 = 31
x = 5
37 = 1
37 = 2
33 = 3
33 = 3
[[location]]
509 = 60, 61
\"503\" = '62'
[[sensor]]
[\"http://[::1]/rest\"]
[http://other.example/rest/]
[[house]]
1 = 1
";

#[test]
fn a_map_is_read_and_what_means_nothing_is_told() {
    let map = map_from_text(MAP, "map").unwrap();
    assert_eq!(map.sections.len(), 3);
    let section = map.section(&Url::parse("http://127.0.0.1:6543/rest").unwrap()).unwrap();
    let pair = |kind, id, to| (LocalRef { kind, id: LocalId(id) }, RemoteId(to));
    assert_eq!(
        section.pairs,
        [
            pair(EntityKind::Deployment, 41, 2),
            pair(EntityKind::House, 207, 7),
            pair(EntityKind::Room, 31, 31),
            pair(EntityKind::Room, 33, 3),
            pair(EntityKind::Location, 503, 62)
        ]
    );
    let lines: Vec<_> = map.notes.iter().map(|note| note.split(':').next().unwrap()).collect();
    assert_eq!(lines, ["line 10", "line 13", "line 15", "line 19", "line 21"], "{:?}", map.notes);
    assert!(map.section(&Url::parse("http://[::1]/rest/").unwrap()).is_some());
    assert!(map.section(&Url::parse("http://third/rest/").unwrap()).is_none());
}

#[test]
fn a_map_without_sections_is_none() {
    for text in ["", "1 = 2\n", "hello\n"] {
        assert!(map_from_text(text, "map").unwrap_err().to_string().contains("no section"), "{text:?}");
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        if let Ok((text, _)) = ini::decode(&bytes) {
            let _ = conf_from_text(&text, "x");
            let _ = map_from_text(&text, "x");
        }
    }

    #[test]
    fn no_lines_of_its_own_kind_make_it_panic(lines in proptest::collection::vec(
        "(\\[{0,3}[ ]?\"?(general|locations|a|http://h/)?\"?[ ]?\\]{0,3})|((localurl|resturl|a|'a'|) ?[=:] ?(mysql://|['\"]{0,3})[a-zé@:/%#,?=\\[\\]]{0,12}['\"]{0,3})", 0..12)) {
        let text = lines.join("\n");
        let _ = conf_from_text(&text, "x");
        let _ = map_from_text(&text, "x");
    }
}
