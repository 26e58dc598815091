//! What `check` says of the configuration and of the files that it names.

use std::{fs, io, os::unix::fs::PermissionsExt as _, path::Path};

use super::Finding;
use crate::{
    chain,
    cli::Exit,
    config::{Config, ConfigError, Problem},
};

const CONFIG: &str = "config";

/// Findings of a configuration that can be used.
pub(super) fn findings(config: &Config) -> Vec<Finding> {
    let mut parts = vec![format!("gateway {}", config.gateway.id)];
    parts.extend(config.source.as_ref().map(|source| format!("source {}", source.url)));
    for destination in &config.destinations {
        let state = if destination.enabled { "" } else { " (disabled)" };
        parts.push(format!("destination {} {}{state}", destination.name, destination.url));
    }
    parts.extend(config.receiver.as_ref().map(|receiver| format!("receiver {}", receiver.database)));
    let mut findings = vec![Finding::ok(CONFIG, format!("{}: {}", config.origin, parts.join(", ")))];
    findings.extend(config.warnings.iter().map(|warning| Finding::warning(CONFIG, warning)));
    findings.extend(unable_to_run(config));
    findings.extend(mode("the configuration", Path::new(&config.origin), Reading::Open));
    for (key, path) in &config.secret_files {
        findings.extend(mode(&format!("the file of {key}"), path, Reading::Told));
    }
    findings
}

/// What `packhorse run` refuses to start without. A configuration of the receiver alone needs none of it.
fn unable_to_run(config: &Config) -> Vec<Finding> {
    if config.receiver.is_some() && config.source.is_none() && config.destinations.is_empty() {
        return Vec::new();
    }
    let missing = [config.need_source().err(), config.need_destinations().err()].into_iter().flatten().map(|error| match error {
        ConfigError::Missing { section, write, .. } => {
            Finding::problem(CONFIG, format!("there is no {section}, and `packhorse run` needs one"), write)
        }
        other => Finding::trouble(CONFIG, chain(&other)),
    });
    let all_disabled = !config.destinations.is_empty() && config.destinations.iter().all(|destination| !destination.enabled);
    let idle = all_disabled.then(|| {
        let text = "every [[destination]] is disabled, and `packhorse run` needs one that is not";
        Finding::problem(CONFIG, text, "set enabled = true for one, or stop the service")
    });
    missing.chain(idle).map(|finding| finding.exiting(Exit::Usage)).collect()
}

/// Whether it matters that all users can read a file.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// It may be read, or the configuration's own warnings say that it may not.
    Open,
    /// It holds a secret; that all users can read it is among the configuration's warnings.
    Told,
}

/// Who may use a file.
fn mode(what: &str, path: &Path, reading: Reading) -> Option<Finding> {
    const OTHERS_READ: u32 = 0o004;
    const OTHERS_WRITE: u32 = 0o002;
    let mode = fs::metadata(path).ok()?.permissions().mode() & 0o7777;
    let shown = format!("{what}, {}, has mode {mode:04o}", path.display());
    if mode & OTHERS_WRITE != 0 {
        return Some(Finding::warning(CONFIG, format!("{shown}: every user of this machine can change it; chmod o-w it")));
    }
    let told_already = reading == Reading::Told && mode & OTHERS_READ != 0;
    (!told_already).then(|| Finding::ok(CONFIG, shown))
}

/// Findings of one that cannot.
pub(super) fn errors(error: &ConfigError) -> Vec<Finding> {
    let found: Vec<Finding> = match error {
        ConfigError::Problems { origin, problems } => {
            let finding =
                |problem: &Problem| Finding::problem(CONFIG, format!("{origin}: {}", problem.what()), problem.write.clone());
            problems.iter().map(finding).collect()
        }
        ConfigError::Unreadable { cause, .. } if cause.kind() == io::ErrorKind::PermissionDenied => {
            vec![Finding::trouble(CONFIG, chain(error))]
        }
        ConfigError::NotFound | ConfigError::Unreadable { .. } | ConfigError::Missing { .. } => {
            vec![Finding::problem(CONFIG, chain(error), "see docs/configuration.md")]
        }
    };
    found.into_iter().map(|finding| finding.exiting(Exit::Usage)).collect()
}
