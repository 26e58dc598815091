//! The unit's own parts that can be tried without a service manager.

use std::{os::unix::fs::PermissionsExt as _, process::Command};

/// A folder with programs that stand in for others.
fn stand_ins(programs: &[(&str, &str)]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in programs {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir
}

#[test]
fn each_restart_waits_longer_than_the_one_before_up_to_five_minutes() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/config/restart-pause");
    for (restarts, pause) in [("0", "0"), ("1", "10"), ("7", "70"), ("30", "300"), ("4711", "300"), ("", "0"), ("[not set]", "0")]
    {
        let answer = format!("[ \"$*\" = 'show --property=NRestarts --value packhorse.service' ] && echo '{restarts}'");
        let stand_ins = stand_ins(&[("systemctl", &answer), ("sleep", "echo \"$1\"")]);
        let output = Command::new("/bin/sh").args([script, "packhorse.service"]).env("PATH", stand_ins.path()).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), pause, "after {restarts:?} restarts");
    }
}

/// What the package says when it is removed, over a data directory, with a `packhorse` that answers so; and what it notes for a purge.
fn removed(data_dir: &std::path::Path, answer: &str) -> (String, Option<String>) {
    let script = include_str!("../../config/debian/prerm");
    assert!(script.contains("/var/lib/packhorse/unsent"));
    let script = script.replace("/var/lib/packhorse", data_dir.to_str().unwrap()).replace("/run/systemd/system", "/nowhere");
    let stand_ins = stand_ins(&[("packhorse", answer)]);
    let path = format!("{}:{}", stand_ins.path().display(), std::env::var("PATH").unwrap());
    let output = Command::new("/bin/sh").args(["-c", &script, "prerm", "remove"]).env("PATH", path).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let noted = std::fs::read_to_string(data_dir.join("unsent")).ok().map(|text| text.trim().to_owned());
    (String::from_utf8(output.stderr).unwrap(), noted)
}

#[test]
fn a_removal_of_the_package_tells_of_parked_rows_too_and_of_what_it_cannot_count() {
    let destination = |state: &str, parked: u64, pending: u64| {
        format!(
            r#"{{"destination":"d","parked":{parked},"pending":{pending},"pending_bytes":9,"state":"{state}","streams":[{{"parked":{parked},"pending":{pending},"stream":"reading"}}]}}"#
        )
    };
    let status = |destinations: &[String], unowned: &str| {
        format!(
            "echo '{{\"alarms\":[],\"destinations\":[{}],\"unowned\":[{unowned}],\"without_outbox\":[]}}'",
            destinations.join(",")
        )
    };
    let dir = tempfile::tempdir().unwrap();
    let removed = |answer: &str| removed(dir.path(), answer);

    let (said, noted) = removed(&status(&[destination("idle", 0, 0)], ""));
    assert_eq!((said.as_str(), noted), ("", None));

    let (said, noted) = removed(&status(&[destination("stopped", 5, 0), destination("stopped", 2, 30)], ""));
    assert_eq!(noted.as_deref(), Some("37"));
    assert!(said.contains("37 rows have not been delivered") && said.contains("7 of them are parked"), "{said}");

    let (said, noted) = removed(&status(&[destination("closed", 0, 0)], "\"former\",\"older\""));
    assert_eq!(noted.as_deref(), Some("at least 0"));
    assert!(said.contains("1 outboxes are damaged") && said.contains("owns the outboxes former,older"), "{said}");

    // Whoever does not answer may have anything.
    std::fs::create_dir_all(dir.path().join("central/discarded")).unwrap();
    std::fs::create_dir_all(dir.path().join("central/aside")).unwrap();
    std::fs::write(dir.path().join("central/CURRENT"), "gen-000001").unwrap();
    std::fs::write(dir.path().join("central/discarded/a.jsonl"), "{}").unwrap();
    let (said, noted) = removed("exit 3");
    assert_eq!(noted.as_deref(), Some("at least 0"));
    assert!(said.contains("does not answer") && said.contains("central/discarded holds"), "{said}");
    assert!(!said.contains("central/aside holds"), "{said}");
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit() {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        eprintln!("there is no systemd-analyze: skipped");
        return;
    }
    let unit = include_str!("../../config/packhorse.service");
    let program = env!("CARGO_BIN_EXE_packhorse");
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("packhorse.service");
    let verify = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        // Units of the machine that are not ours may be in any state.
        said.lines().filter(|line| line.contains("packhorse")).map(str::to_owned).collect::<Vec<_>>()
    };
    let good = unit.replace("/usr/bin/packhorse", program);
    let none: [String; 0] = [];
    assert_eq!(verify(&good), none);
    let misspelt = verify(&good.replace("WatchdogSec", "WatchDogSec"));
    assert!(
        misspelt.len() == 1 && misspelt[0].contains("Unknown key name 'WatchDogSec'") || misspelt[0].contains("WatchDogSec"),
        "{misspelt:?}"
    );
}
