//! The configuration as a user meets it.

use std::{fs, os::unix::fs::PermissionsExt as _, path::PathBuf, time::Duration};

use proptest::prelude::*;

use super::{keys::KEYS, *};

const SMALL: &str = r#"
[source]
url = "mysql://chuser@localhost/ch"

[[destination]]
name = "cogentee"
url = "https://central.example/rest"
"#;

fn read(text: &str) -> Config {
    read_with(text, &[])
}

fn read_with(text: &str, env: &[(&str, &str)]) -> Config {
    try_read(text, env).unwrap_or_else(|error| panic!("{error}"))
}

fn try_read(text: &str, env: &[(&str, &str)]) -> Result<Config, ConfigError> {
    Config::from_text(text, "test.toml", env.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())))
}

fn problems(text: &str) -> Vec<String> {
    problems_with(text, &[])
}

fn problems_with(text: &str, env: &[(&str, &str)]) -> Vec<String> {
    match try_read(text, env) {
        Err(ConfigError::Problems { problems, .. }) => problems.iter().map(ToString::to_string).collect(),
        Err(other) => panic!("{other}"),
        Ok(config) => panic!("no problem was found: {config:?}"),
    }
}

/// Asserts that there is one problem and that it says all of this.
fn assert_one(problems: &[String], parts: &[&str]) {
    assert_eq!(problems.len(), 1, "{problems:#?}");
    for part in parts {
        assert!(problems[0].contains(part), "{part:?} is missing in {:?}", problems[0]);
    }
}

/// A file with this content that only its owner can read.
fn secret_file(dir: &tempfile::TempDir, name: &str, content: &str) -> PathBuf {
    let path = dir.path().join(name);
    fs::write(&path, content).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

#[test]
fn what_is_not_written_has_the_documented_default() {
    let config = read(SMALL);
    assert_eq!(config.gateway.data_dir, PathBuf::from("/var/lib/packhorse"));
    assert!(!config.gateway.id.is_empty(), "the host's name is the default");
    let source = config.need_source().unwrap();
    assert_eq!(source.url.expose(), "mysql://chuser@localhost/ch");
    assert_eq!((source.poll_interval, source.settle), (Duration::from_secs(10), Duration::from_secs(2)));
    assert_eq!((source.audit_horizon, source.audit_interval), (Duration::from_hours(30 * 24), Duration::from_hours(1)));
    assert_eq!(source.disk_reserve_bytes, 64 << 20);
    let destination = &config.need_destinations().unwrap()[0];
    assert_eq!(destination.url.as_str(), "https://central.example/rest/", "the base ends in a slash");
    assert!(destination.enabled);
    assert_eq!((destination.start, &destination.auth), (Start::Beginning, &Auth::None));
    assert_eq!((destination.backoff_min, destination.backoff_max), (Duration::from_secs(1), Duration::from_mins(5)));
    assert_eq!((destination.outbox_max_bytes, destination.request_max_bytes), (256 << 20, 4 << 20));
    assert_eq!((destination.linger, destination.pushstatus_interval), (Duration::from_secs(10), Duration::from_mins(10)));
    assert_eq!(config.status.listen.to_string(), "127.0.0.1:9130");
    assert_eq!(config.status.socket, PathBuf::from("/run/packhorse/packhorse.sock"));
    assert_eq!(config.log, Log { level: LogLevel::Info, file: None });
    assert_eq!(config.receiver, None);
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn a_file_with_a_receiver_alone_is_enough_for_the_receiver() {
    let config = read("[receiver]\n");
    assert_eq!(config.need_receiver().unwrap(), &Config::default_receiver());
    assert_eq!(Config::default_receiver().database.expose(), "sqlite:///var/lib/packhorse/central.db");
    let error = config.need_source().unwrap_err().to_string();
    assert!(error.contains("test.toml has no [source] section") && error.contains("mysql://"), "{error}");
    assert!(config.need_destinations().unwrap_err().to_string().contains("[[destination]]"));
    assert!(read(SMALL).need_receiver().unwrap_err().to_string().contains("[receiver]"));
}

#[test]
fn all_problems_are_reported_at_once_in_the_order_of_the_file() {
    let text = r#"[gateway]
idd = "house-17"
[source]
poll_interval = "10 parsecs"
settle = 2
disk_reserve = "a bit"
[[destination]]
name = "../etc"
url = "ftp://central.example/"
backoff_min = "10min"
[[destination]]
name = "b"
enabled = "yes"
start = "yesterday"
[lgo]
level = "info"
"#;
    let problems = problems(text);
    let expected = [
        ("line 2: gateway.idd: there is no such key", "did you mean id?"),
        ("line 3: source.url: it is missing", "mysql://user@host/database"),
        ("line 4: source.poll_interval: \"10 parsecs\" is not a duration", "\"5min\""),
        ("line 5: source.settle: this is an integer", "in quotes"),
        ("line 6: source.disk_reserve: \"a bit\" is not a size", "\"64MiB\""),
        ("line 8: destination[1].name: \"../etc\" is not safe as a directory's name", "letters"),
        ("line 9: destination[1].url: this does not begin with https://", "https://central.example/rest/"),
        ("line 10: destination[1].backoff_min: 10m is longer than backoff_max, 5m", "shorter"),
        ("line 11: destination.b.url: it is missing", "https://"),
        ("line 13: destination.b.enabled: this is a string", "true or false"),
        ("line 14: destination.b.start: \"yesterday\" is not a start", "\"beginning\""),
        ("line 15: lgo: there is no such section", "did you mean log?"),
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (problem, (wrong, write)) in problems.iter().zip(expected) {
        assert!(problem.starts_with(wrong) && problem.contains(write), "expected {wrong:?} and {write:?} in {problem:?}");
    }
}

#[test]
fn a_destination_is_not_called_as_a_file_of_the_data_directory() {
    for name in ["lock", "source-id"] {
        let text = format!("[[destination]]\nname = \"{name}\"\nurl = \"https://central.example/\"\n");
        let problems = problems(&text);
        assert!(problems.len() == 1 && problems[0].contains("is a file of data_dir"), "{problems:#?}");
    }
}

#[test]
fn every_unknown_key_is_named_with_what_it_may_have_meant() {
    let problems = problems("[source]\nurl = \"mysql://u@h/d\"\nurll = 1\npol_interval = \"1s\"\nzzz = true\npassword = \"x\"\n");
    assert_eq!(problems.len(), 4, "{problems:#?}");
    assert!(problems[0].ends_with("did you mean url?"), "{problems:#?}");
    assert!(problems[1].ends_with("did you mean poll_interval?"), "{problems:#?}");
    assert!(problems[2].contains("known are url, password_file, poll_interval"), "{problems:#?}");
    assert!(problems[3].contains("write password_file"), "{problems:#?}");
}

#[test]
fn destinations_whose_names_look_alike_are_refused() {
    let twice = "[[destination]]\nname = \"central-2\"\nurl = \"https://a/\"\n[[destination]]\nname = \"Central_2\"\nurl = \"https://b/\"\n";
    assert_one(&problems(twice), &["line 5", "too much like an earlier", "\"central-2\""]);
}

#[test]
fn names_that_are_no_safe_directory_are_refused() {
    for name in [".", "..", "", ".hidden", "-rf", "a/b", "a b", "ä", "a\\u0000b", &"x".repeat(65)] {
        let problems = problems(&format!("[[destination]]\nurl = \"https://a/\"\nname = \"{name}\"\n"));
        assert_eq!(problems.len(), 1, "{name:?}: {problems:#?}");
    }
    for name in ["a", "cogentee", "central-2", "v0.4_x", &"x".repeat(64)] {
        read(&format!("[[destination]]\nurl = \"https://a/\"\nname = \"{name}\"\n"));
    }
}

#[test]
fn a_start_is_the_beginning_now_or_a_time() {
    let start = |text: &str| read(&format!("{SMALL}start = {text}\n")).destinations[0].start;
    let january = Start::At("2024-01-31T00:00:00".parse().unwrap());
    assert_eq!(start("\"beginning\""), Start::Beginning);
    assert_eq!(start("\"now\""), Start::Now);
    for text in ["\"2024-01-31\"", "\"2024-01-31 00:00:00\"", "2024-01-31T00:00:00", "2024-01-31T00:00:00Z", "2024-01-31"] {
        assert_eq!(start(text), january, "{text}");
    }
    assert_one(&problems(&format!("{SMALL}start = 2024-01-31T00:00:00+01:00\n")), &["is not a start", "UTC"]);
}

#[test]
fn bounds_are_held() {
    for (key, text) in [
        ("backoff_min", "\"0s\""),
        ("backoff_max", "\"2d\""),
        ("request_max", "10"),
        ("request_max", "\"2GiB\""),
        ("outbox_max", "0"),
        ("linger", "\"1d\""),
    ] {
        let problems = problems(&format!("{SMALL}{key} = {text}\n"));
        assert!(problems[0].contains("out of bounds"), "{key} = {text}: {problems:#?}");
    }
    assert_eq!(read(&format!("{SMALL}outbox_max = 65_536\n")).destinations[0].outbox_max_bytes, 65_536);
    assert_eq!(read(&format!("{SMALL}outbox_max = 0x20000\n")).destinations[0].outbox_max_bytes, 131_072);
}

#[test]
fn secrets_come_from_files_and_are_not_shown() {
    let dir = tempfile::tempdir().unwrap();
    let token = secret_file(&dir, "token", "t0ps3cret\n");
    let password = secret_file(&dir, "password", "p:w/rd@1");
    let text = format!(
        "[source]\nurl = \"mysql://chuser@localhost/ch\"\npassword_file = {password:?}\n\
         [[destination]]\nname = \"a\"\nurl = \"https://a/\"\ntoken_file = {token:?}\nproxy = \"http://me:pr0xy@squid:3128\"\n\
         [[destination]]\nname = \"b\"\nurl = \"https://b/\"\nuser = \"me\"\npassword_file = {password:?}\n"
    );
    let config = read(&text);
    assert_eq!(config.need_source().unwrap().url.expose(), "mysql://chuser:p%3Aw%2Frd%401@localhost/ch");
    assert_eq!(config.destinations[0].auth, Auth::Token(Secret::new("t0ps3cret")));
    assert_eq!(config.destinations[1].auth, Auth::Basic { user: "me".to_owned(), password: Secret::new("p:w/rd@1") });
    assert_eq!(config.destinations[0].proxy.as_ref().unwrap().expose(), "http://me:pr0xy@squid:3128/");
    assert_eq!(config.warnings, Vec::<String>::new());
    let shown = format!("{config:?} {config:#?}");
    for secret in ["t0ps3cret", "p:w/rd", "p%3Aw", "pr0xy"] {
        assert!(!shown.contains(secret), "{secret} is shown in {shown}");
    }
}

#[test]
fn a_secret_that_all_can_read_is_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let token = secret_file(&dir, "token", "t0ps3cret\n");
    fs::set_permissions(&token, fs::Permissions::from_mode(0o644)).unwrap();
    let config = read(&format!("{SMALL}token_file = {token:?}\n"));
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].contains("destination.cogentee.token_file") && config.warnings[0].contains("chmod"));

    let file = secret_file(&dir, "packhorse.toml", "[source]\nurl = \"mysql://u:hunter2@h/d\"\n");
    assert_eq!(Config::load(Some(&file), []).unwrap().warnings, Vec::<String>::new());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
    let warnings = Config::load(Some(&file), []).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].starts_with("source.url: a password stands here"), "{warnings:?}");
}

#[test]
fn unusable_secret_files_are_problems() {
    let dir = tempfile::tempdir().unwrap();
    let empty = secret_file(&dir, "empty", "\n");
    let two_lines = secret_file(&dir, "two", "one\ntwo\n");
    let missing = dir.path().join("missing");
    for (path, wrong) in [
        (&empty, "does not hold one line"),
        (&two_lines, "does not hold one line"),
        (&missing, "No such file"),
        (&dir.path().into(), "regular"),
    ] {
        assert_one(&problems(&format!("{SMALL}token_file = {path:?}\n")), &["line 8: destination.cogentee.token_file", wrong]);
    }
    assert_one(&problems(&format!("{SMALL}ca_file = {two_lines:?}\n")), &["ca_file", "there is no CERTIFICATE in the file"]);
}

#[test]
fn one_way_to_authenticate_is_enough_and_half_a_way_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let file = secret_file(&dir, "secret", "s\n");
    assert_one(&problems(&format!("{SMALL}token_file = {file:?}\nuser = \"me\"\npassword_file = {file:?}\n")), &["keep one"]);
    assert_one(&problems(&format!("{SMALL}user = \"me\"\n")), &["there is no password_file"]);
    assert_one(&problems(&format!("{SMALL}password_file = {file:?}\n")), &["there is no user"]);
    let pem = secret_file(&dir, "pem", "-----BEGIN CERTIFICATE-----\n-----BEGIN PRIVATE KEY-----\n");
    assert_one(&problems(&format!("{SMALL}client_cert_file = {pem:?}\n")), &["there is no client_key_file"]);
    let whole = read(&format!("{SMALL}client_cert_file = {pem:?}\nclient_key_file = {pem:?}\nca_file = {pem:?}\n"));
    assert!(whole.destinations[0].client_identity_pem.is_some() && whole.destinations[0].ca_pem.is_some());
    let both = format!("[source]\nurl = \"mysql://u:p@h/d\"\npassword_file = {file:?}\n");
    assert_one(&problems(&both), &["source.password_file", "a password in url as well"]);
}

#[test]
fn urls_of_destinations_are_bases_without_credentials() {
    let with = |url: &str| format!("[[destination]]\nname = \"a\"\nurl = \"{url}\"\n");
    for (url, wrong) in [
        ("central.example/rest/", "not a URL"),
        ("https://", "not a URL"),
        ("https://me:hunter2@central.example/", "credentials"),
        ("https://central.example/rest/?x=1", "? or #"),
        ("mysql://central.example/", "does not begin with https://"),
        ("", "missing"),
    ] {
        let problems = problems(&with(url));
        assert_one(&problems, &["destination.a.url", wrong]);
        assert!(!problems[0].contains("hunter2"));
    }
    assert_eq!(read(&with("http://[::1]:6543/rest/")).destinations[0].url.as_str(), "http://[::1]:6543/rest/");
}

#[test]
fn no_problem_quotes_what_may_be_a_secret() {
    for text in [
        "[source]\nurl = \"mysql://u:hunter2@:99999999/d\"\n",
        "[source]\nurl = \"mysql:u:hunter2\"\n",
        "[source]\nurl = \"mysql://u:hunter2@h/d\n",
        "[source]\nurl = mysql://u:hunter2@h/d\n",
        "[source\nurl = \"mysql://u:hunter2@h/d\"\n",
        "[source]\nurl = [\"mysql://u:hunter2@h/d\"]\n",
        "[source]\nurl = \"mysql://u@h/d\"\npassword = \"hunter2\"\n",
        "[source]\nurl = \"mysql://u@h/d\"\npassword_file = \"hunter2\"\n",
        "[[destination]]\nname = \"a\"\nurl = \"https://h/\"\nproxy = \"socks5://u:hunter2@h\"\n",
        "[receiver]\ndatabase = \"postgres://u:hunter2@h/d\"\n",
    ] {
        let problems = problems(text).join("\n");
        assert!(!problems.contains("hunter2"), "{text}: {problems}");
    }
}

#[test]
fn variables_override_keys() {
    let config = read_with(
        SMALL,
        &[
            ("PACKHORSE_GATEWAY_ID", "house-17"),
            ("PACKHORSE_SOURCE_POLL_INTERVAL", "1s"),
            ("PACKHORSE_DESTINATION_COGENTEE_ENABLED", "false"),
            ("PACKHORSE_DESTINATION_COGENTEE_REQUEST_MAX", "1MiB"),
            ("PACKHORSE_RECEIVER_LISTEN", "127.0.0.1:1"),
            ("PACKHORSE_LOG_LEVEL", ""),
            ("PACKHORSE_TEST_MYSQL", "mysql://root@localhost"),
            ("PACKHORSE_SHARED", "/srv"),
            ("PACKHORSE_LONG", "1"),
            ("HOME", "/root"),
        ],
    );
    assert_eq!(config.gateway.id, "house-17");
    assert_eq!(config.need_source().unwrap().poll_interval, Duration::from_secs(1));
    assert!(!config.destinations[0].enabled);
    assert_eq!(config.destinations[0].request_max_bytes, 1 << 20);
    assert_eq!(config.need_receiver().unwrap().listen.to_string(), "127.0.0.1:1");
    assert_eq!(config.log.level, LogLevel::Info, "an empty variable counts as not set");
}

#[test]
fn a_variable_reaches_the_destination_with_the_longest_name() {
    let text = "[[destination]]\nname = \"a\"\nurl = \"https://a/\"\n[[destination]]\nname = \"a-proxy\"\nurl = \"https://b/\"\n";
    let config =
        read_with(text, &[("PACKHORSE_DESTINATION_A_PROXY_URL", "https://c/"), ("PACKHORSE_DESTINATION_A_PROXY", "http://p/")]);
    assert_eq!(config.destinations[0].url.as_str(), "https://a/");
    assert_eq!(config.destinations[0].proxy.as_ref().unwrap().expose(), "http://p/");
    assert_eq!(config.destinations[1].url.as_str(), "https://c/");
}

#[test]
fn unknown_variables_of_known_sections_are_problems() {
    let set = |name| problems_with(SMALL, &[(name, "1")]);
    assert_one(
        &set("PACKHORSE_SOURCE_POL_INTERVAL"),
        &["PACKHORSE_SOURCE_POL_INTERVAL: [source] has no such key", "poll_interval"],
    );
    assert_one(&set("PACKHORSE_DESTINATION_OTHER_URL"), &["no destination has such a name and key", "COGENTEE"]);
    assert_one(&set("PACKHORSE_DESTINATION_COGENTEE_NAME"), &["no destination has such a name and key"]);
    assert_one(&set("PACKHORSE_SOURCE_SETTLE"), &["PACKHORSE_SOURCE_SETTLE: source.settle: \"1\" is not a duration"]);
    assert_one(
        &problems_with("", &[("PACKHORSE_DESTINATION_A_URL", "https://a/")]),
        &["write the [[destination]] and its name in the file"],
    );
}

#[test]
fn syntax_errors_are_told_by_line() {
    let problems = problems("[gateway]\nid = \"a\"\nid = \"b\"\n\n[source\n");
    assert!(
        problems[0].starts_with("line 3: ") && problems.iter().any(|problem| problem.starts_with("line 5: ")),
        "{problems:#?}"
    );
    assert!(problems[0].ends_with("this is not TOML, see https://toml.io"), "{problems:#?}");
}

#[test]
fn sections_of_another_shape_are_problems() {
    assert_one(&problems("[destination]\nname = \"a\"\n"), &["write [[destination]], in double brackets"]);
    assert_one(&problems("[[source]]\nurl = \"mysql://u@h/d\"\n"), &["write [source]"]);
    assert_one(&problems("data_dir = \"/tmp\"\n"), &["write it below [gateway]"]);
    assert_one(&problems("destination = [1]\n"), &["destination[1]", "[[destination]]"]);
}

#[test]
fn a_receiver_without_tokens_is_for_this_machine_alone() {
    assert_one(
        &problems("[receiver]\nlisten = \"0.0.0.0:6543\"\n"),
        &["receiver.listen", "not a loopback address", "tokens_file"],
    );
    let dir = tempfile::tempdir().unwrap();
    let tokens = secret_file(&dir, "tokens", "x\n");
    read(&format!("[receiver]\nlisten = \"0.0.0.0:6543\"\ntokens_file = {tokens:?}\n"));
    assert_eq!(
        read("[receiver]\ndatabase = \"sqlite://central.db\"\n").receiver.unwrap().database.expose(),
        "sqlite://central.db"
    );
    assert_one(&problems("[receiver]\ndatabase = \"sqlite://\"\n"), &["receiver.database"]);
}

#[test]
fn a_missing_or_endless_file_is_an_error_not_a_hang() {
    assert!(matches!(Config::load(Some(Path::new("/nonexistent/packhorse.toml")), []), Err(ConfigError::Unreadable { .. })));
    assert!(matches!(Config::load(Some(Path::new("/dev/zero")), []), Err(ConfigError::Unreadable { .. })));
}

#[test]
fn the_example_parses_and_serves_a_trial_on_one_machine() {
    let config = read(include_str!("../../config/packhorse.toml"));
    assert!(config.need_source().is_ok() && config.need_receiver().is_ok());
    let destination = &config.need_destinations().unwrap()[0];
    assert!(destination.url.as_str().contains(&config.receiver.as_ref().unwrap().listen.to_string()));
    assert_eq!(config.warnings, Vec::<String>::new());
}

#[test]
fn the_quick_start_of_the_readme_lacks_nothing_but_its_secret_files() {
    let readme = include_str!("../../README.md");
    let text = readme.split("```toml").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let secret = secret_file(&dir, "secret", "s\n").display().to_string();
    let config = read(&text.replace("/etc/packhorse/db-password", &secret).replace("/etc/packhorse/token", &secret));
    assert!(config.need_source().is_ok() && config.need_destinations().is_ok());
}

#[test]
fn the_documentation_lists_exactly_the_keys_that_exist() {
    let docs = include_str!("../../docs/configuration.md");
    let written: Vec<&str> = docs
        .lines()
        .filter(|line| Section::ALL.iter().any(|section| line.starts_with(&format!("| `{}.", section.name()))))
        .collect();
    let known: Vec<String> = KEYS.iter().map(keys::docs_row).collect();
    assert_eq!(
        written,
        known,
        "docs/configuration.md differs from src/config/keys.rs; the rows should be:\n{}",
        known.join("\n")
    );
}

use super::keys::Section;

/// Texts that look like a configuration: known and unknown keys with likely and unlikely values.
fn likely_text() -> impl Strategy<Value = String> {
    let head = prop_oneof![
        Just("[gateway]".to_owned()),
        Just("[source]".to_owned()),
        Just("[[destination]]".to_owned()),
        Just("[receiver]".to_owned()),
        Just("[log]".to_owned()),
        "\\PC{0,12}",
    ];
    let key = prop_oneof![4 => proptest::sample::select(KEYS).prop_map(|key| key.name.to_owned()), 1 => "[a-z_.\"]{1,10}"];
    let value = prop_oneof![
        "\"[a-zA-Z0-9:/@.% _-]{0,20}\"",
        "\"(mysql|http|https|sqlite)://\\PC{0,12}\"",
        "\"[0-9.]{1,25} ?[a-zA-Z]{0,4}\"",
        any::<i64>().prop_map(|number| number.to_string()),
        "-?[0-9a-fx_.]{1,12}",
        Just("true".to_owned()),
        Just("1979-05-27T07:32:00-08:00".to_owned()),
        Just("[{a = 1}]".to_owned()),
        "\\PC{0,12}",
    ];
    let line = prop_oneof![1 => head, 3 => (key, value).prop_map(|(key, value)| format!("{key} = {value}"))];
    proptest::collection::vec(line, 0..20).prop_map(|lines| lines.join("\n"))
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,200}|(?s).{0,60}") {
        let _ = try_read(&text, &[]);
    }

    #[test]
    fn no_likely_text_makes_it_panic_and_each_problem_is_one_line(text in likely_text(), variable in "PACKHORSE_(SOURCE|DESTINATION|LOG)_[A-Z_]{0,12}", value in "\\PC{0,12}") {
        if let Err(error) = try_read(&text, &[(&variable, &value)]) {
            let ConfigError::Problems { problems, .. } = error else { panic!("{error}") };
            prop_assert!(!problems.is_empty());
            for problem in problems {
                prop_assert!(!problem.to_string().contains('\n'), "{problem}");
            }
        }
    }
}
