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
