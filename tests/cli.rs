//! The command as a user meets it: the real binary in a fresh directory.

#![expect(clippy::unwrap_used, reason = "a test panics where it fails")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

/// A fresh directory, with a configuration in it if there is a text for one.
fn directory(config: Option<&str>) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    if let Some(text) = config {
        fs::create_dir(dir.path().join("config")).unwrap();
        fs::write(dir.path().join("config/packhorse.toml"), text).unwrap();
    }
    dir
}

fn packhorse(dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_packhorse"));
    // Nothing of the machine's own: neither its variables nor, where there is one, its configuration.
    command.current_dir(dir).env_clear().args(args);
    command.output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs with a file of this content, and gives exit code, standard output and standard error.
fn with_config(config: &str, args: &[&str]) -> (Option<i32>, String, String) {
    let dir = directory(Some(config));
    let mut all = vec!["--config", "config/packhorse.toml"];
    all.extend(args);
    let output = packhorse(dir.path(), &all);
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

const GOOD: &str = r#"
[source]
url = "mysql://chuser@localhost/ch"
[[destination]]
name = "cogentee"
url = "https://central.example/rest/"
"#;

#[test]
fn help_names_every_command_with_a_sentence() {
    let output = packhorse(directory(None).path(), &["--help"]);
    assert_eq!(output.status.code(), Some(0));
    let help = text(&output.stdout);
    let words = help.split_whitespace().collect::<Vec<_>>().join(" ");
    for line in [
        "run Run the daemon",
        "check Look at",
        "queue Look at",
        "reconcile Compare",
        "receiver Run the",
        "datagen Write sample",
        "cleardb Empty the",
        "import-legacy Turn the old",
        "completions Print",
        "man Print",
    ] {
        assert!(words.contains(line), "{line:?} is missing in:\n{help}");
    }
    assert!(
        help.contains("Exit codes: 0 done; 1 something is wrong or left; 2 usage or configuration; 3 cannot reach"),
        "{help}"
    );
}

#[test]
fn a_usage_error_is_2() {
    let dir = directory(None);
    for args in
        [&["frobnicate"][..], &[], &["run", "--deadline", "60s"], &["run", "--once", "--deadline", "60"], &["-v", "-q", "check"]]
    {
        assert_eq!(packhorse(dir.path(), args).status.code(), Some(2), "{args:?}");
    }
}

#[test]
fn a_missing_file_is_one_line_and_2() {
    let output = packhorse(directory(None).path(), &["--config", "nowhere.toml", "run"]);
    assert_eq!(output.status.code(), Some(2));
    let error = text(&output.stderr);
    assert_eq!(error, "error: cannot read the configuration nowhere.toml: No such file or directory (os error 2)\n");
}

#[test]
fn an_unknown_key_is_one_line_and_2() {
    let (code, out, error) = with_config(&format!("{GOOD}urll = \"x\"\n"), &["run"]);
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert_eq!(
        error,
        "error: the configuration config/packhorse.toml has a problem: line 7: destination.cogentee.urll: \
         there is no such key; did you mean url?\n"
    );
}

#[test]
fn several_problems_come_at_once() {
    let (code, _, error) =
        with_config("[source]\nsettle = \"soon\"\n[gateway]\nname = \"x\"\n[log]\nlevel = \"loud\"\n", &["run"]);
    assert_eq!(code, Some(2));
    let lines: Vec<&str> = error.lines().collect();
    assert_eq!(lines.len(), 5, "{error}");
    assert_eq!(lines[0], "error: the configuration config/packhorse.toml has 4 problems:");
    for (line, start) in
        lines[1..].iter().zip(["line 1: source.url", "line 2: source.settle", "line 4: gateway.name", "line 6: log.level"])
    {
        assert!(line.trim_start().starts_with(start), "{error}");
    }
}

#[test]
fn no_secret_is_printed() {
    let url = "[source]\nurl = \"mysql://chuser:hunter2@localhost/ch\"\n";
    let wrong = "[source]\nurl = \"mysql://chuser:hunter2@localhost:port/ch\"\n";
    for (config, args) in [
        (url, &["check"][..]),
        (url, &["check", "--json"]),
        (url, &["-vv", "run"]),
        (wrong, &["check", "--json"]),
        (wrong, &["run"]),
        ("", &["datagen", "--url", "mysql://chuser:hunter2@localhost:port/ch"]),
        ("", &["receiver", "--database", "postgres://chuser:hunter2@localhost/ch"]),
        ("", &["-vv", "receiver", "--database", "mysql://chuser:hunter2@127.0.0.1:1/ch", "--listen", "127.0.0.1:0"]),
        ("", &["receiver", "--database", "mysql://chuser:hunter2@h/ch?ssl-mode=DISABLED", "--listen", "127.0.0.1:0"]),
    ] {
        let (_, out, error) = with_config(config, args);
        assert!(!format!("{out}{error}").contains("hunter2"), "{args:?} printed the password: {out}{error}");
        assert!(!out.is_empty() || !error.is_empty());
    }
}

#[test]
fn check_says_what_is_configured_and_what_is_wrong() {
    let (_, out, error) = with_config(GOOD, &["check"]);
    assert!(out.starts_with("ok       config: config/packhorse.toml: gateway "), "{out}{error}");
    assert!(out.contains("source mysql://chuser@localhost/ch, destination cogentee https://central.example/rest/\n"), "{out}");

    let (code, out, _) = with_config("[source]\nurl = \"mysql://h/d\"\nsettle = \"soon\"\n", &["check"]);
    assert_eq!(code, Some(2));
    assert!(
        out.starts_with("problem  config: config/packhorse.toml: line 3: source.settle: \"soon\" is not a duration; write "),
        "{out}"
    );

    let (code, out, _) = with_config("[source]\nsettle = \"soon\"\n", &["check", "--json"]);
    assert_eq!(code, Some(2));
    let json: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((json["ok"].as_bool(), json["findings"].as_array().map(Vec::len)), (Some(false), Some(2)), "{out}");
}

#[test]
fn check_says_what_run_is_going_to_miss() {
    const SOURCE: &str = "[source]\nurl = \"mysql://chuser@127.0.0.1:1/ch\"\n";
    let destination = GOOD.split_at(GOOD.find("[[destination]]").unwrap()).1;
    let no_source = "problem  config: there is no [source], and `packhorse run` needs one; write it, with url = \"mysql://";
    let no_destination =
        "problem  config: there is no [[destination]], and `packhorse run` needs one; write one, with a name and url";
    let all_disabled =
        "problem  config: every [[destination]] is disabled, and `packhorse run` needs one that is not; set enabled = true";
    let disabled = format!("{GOOD}enabled = false\n");
    for (config, problems) in [
        ("", &[no_source, no_destination][..]),
        (SOURCE, &[no_destination]),
        (destination, &[no_source]),
        (disabled.as_str(), &[all_disabled]),
    ] {
        // `run` refuses the same with the same code.
        let (code, out, error) = with_config(config, &["check"]);
        assert_eq!((code, with_config(config, &["run"]).0), (Some(2), Some(2)), "{config}: {out}{error}");
        let of_config: Vec<&str> = out.lines().filter(|line| line.starts_with("problem  config")).collect();
        assert_eq!(of_config.len(), problems.len(), "{config}: {out}");
        for (line, problem) in of_config.iter().zip(problems) {
            assert!(line.starts_with(problem), "{config}: {out}");
        }
    }
    let (code, out, _) = with_config("[receiver]\n", &["check"]);
    assert_eq!((code, out.contains("problem")), (Some(0), false), "{out}");
}

#[test]
fn a_missing_section_is_named() {
    let (code, _, error) = with_config("[receiver]\n", &["run"]);
    assert_eq!(code, Some(2));
    assert!(
        error.starts_with("error: the configuration config/packhorse.toml has no [source] section; write it, with url"),
        "{error}"
    );
    let (code, _, error) = with_config(GOOD, &["queue", "status", "--destination", "other"]);
    assert_eq!((code, error.as_str()), (Some(2), "error: no destination is called \"other\"; there is cogentee\n"));
    let (code, _, error) = with_config(GOOD, &["receiver"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("has no [receiver] section"), "{error}");
}

#[test]
fn a_receiver_without_tokens_listens_on_loopback_alone() {
    let (code, _, error) = with_config("[receiver]\n", &["receiver", "--listen", "0.0.0.0:0", "--database", "sqlite:x.db"]);
    assert_eq!(code, Some(2));
    assert!(error.contains("0.0.0.0:0 is not a loopback address"), "{error}");
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let dir = directory(Some(GOOD));
    let script = format!(
        "{} --config config/packhorse.toml check --json | true; echo ${{PIPESTATUS[0]}}",
        env!("CARGO_BIN_EXE_packhorse")
    );
    let output = Command::new("bash").current_dir(dir.path()).args(["-c", &script]).output().unwrap();
    assert_eq!(text(&output.stderr), "");
    assert!(["0\n", "1\n"].contains(&text(&output.stdout).as_str()), "{output:?}");
}

/// The flags in a text, such as `--json`.
fn flags(text: &str) -> std::collections::BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    words.filter(|word| word.len() > 2 && word.starts_with("--") && !word[2..].starts_with('-')).map(str::to_owned).collect()
}

#[test]
fn the_documentation_has_exactly_the_flags_of_each_command() {
    let dir = directory(None);
    let docs = include_str!("../docs/cli.md");
    let global = flags("--config --verbose --quiet --log-format --help --version");
    let mut seen = 0;
    for section in docs.split("\n## ").filter(|section| section.starts_with("`packhorse ")) {
        let title = section.lines().next().unwrap();
        let mut known = std::collections::BTreeSet::new();
        for command in title.split(", ") {
            let words: Vec<&str> = command.trim_matches('`').split(' ').skip(1).chain(["--help"]).collect();
            let output = packhorse(dir.path(), &words);
            assert_eq!(output.status.code(), Some(0), "{words:?}");
            known.extend(flags(&text(&output.stdout)));
            seen += 1;
        }
        let documented: Vec<_> = flags(section).difference(&global).cloned().collect();
        let known: Vec<_> = known.difference(&global).cloned().collect();
        assert_eq!(documented, known, "{title} of docs/cli.md");
    }
    assert_eq!(seen, 25, "commands in docs/cli.md");
}
