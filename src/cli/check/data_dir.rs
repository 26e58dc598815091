//! What `check` says of the data directory: whether it can be used, who uses it, the disk under it, and the outboxes in it.

use std::{io, path::Path, time::Duration};

use super::Finding;
use crate::{
    chain,
    cli::queue,
    config::{Config, units},
    outbox::look,
};

const DATA_DIR: &str = "data_dir";
/// A file system that does not answer is a finding.
const DEADLINE: Duration = Duration::from_secs(10);
/// Outboxes and their stores are a few files each; with fewer left something else has eaten them.
const FREE_INODES_MIN: u64 = 100;
const FREE_INODES_WARNING: u64 = 1_000;

pub(super) async fn findings(config: &Config) -> Vec<Finding> {
    let of_thread = config.clone();
    let looked = tokio::task::spawn_blocking(move || look_at(&of_thread));
    match tokio::time::timeout(DEADLINE, looked).await {
        Ok(Ok(findings)) => findings,
        Ok(Err(defect)) => vec![Finding::problem(DATA_DIR, format!("looking at it failed: {defect}"), "report this defect")],
        Err(_) => {
            let text = format!("{} gave no answer within {} s", config.gateway.data_dir.display(), DEADLINE.as_secs());
            vec![Finding::problem(DATA_DIR, text, "look at the disk or network file system under it")]
        }
    }
}

fn look_at(config: &Config) -> Vec<Finding> {
    let path = &config.gateway.data_dir;
    match std::fs::metadata(path) {
        Ok(meta) if !meta.is_dir() => vec![unusable(path, &io::ErrorKind::NotADirectory.into())],
        Ok(_) => existing(config, path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => missing(config, path),
        Err(error) => vec![unusable(path, &error)],
    }
}

fn unusable(path: &Path, error: &io::Error) -> Finding {
    let advice = "give packhorse's user the right to write there, or set gateway.data_dir";
    Finding::problem(DATA_DIR, format!("{} cannot be used ({error})", path.display()), advice)
}

fn missing(config: &Config, path: &Path) -> Vec<Finding> {
    match look::maker(path) {
        Ok(above) => {
            let text = format!("{} is not there yet: packhorse run makes it in {}", path.display(), above.display());
            let mut findings = vec![Finding::ok(DATA_DIR, text)];
            findings.extend(disk(config, &above));
            findings
        }
        Err((above, error)) => {
            let text = format!("{} is not there and cannot be made in {} ({error})", path.display(), above.display());
            vec![Finding::problem(DATA_DIR, text, "make it for packhorse's user, or set gateway.data_dir")]
        }
    }
}

fn existing(config: &Config, path: &Path) -> Vec<Finding> {
    let mut findings = match look::probe(path) {
        Ok(()) => vec![Finding::ok(DATA_DIR, format!("{} can be written", path.display()))],
        // Whoever may not look into it finds the same in whatever else is asked.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && std::fs::read_dir(path).is_err() => {
            let advice = "run check as root or as the user that packhorse runs as, or give that user the right to write there";
            return vec![Finding::problem(DATA_DIR, format!("{} cannot be used ({error})", path.display()), advice)];
        }
        Err(error) => vec![unusable(path, &error)],
    };
    findings.push(match look::owner(path) {
        Ok(Some(holder)) => Finding::ok(DATA_DIR, format!("in use by a running packhorse (process {holder})")),
        Ok(None) => Finding::ok(DATA_DIR, "no packhorse runs on it now"),
        Err(error) => Finding::problem(
            DATA_DIR,
            format!("its lock cannot be looked at ({error})"),
            "run check as the user that packhorse runs as",
        ),
    });
    if let Err(error) = look::source_id(path) {
        findings.push(Finding::trouble(DATA_DIR, chain(&error).replacen(": ", "; ", 1)));
    }
    findings.extend(disk(config, path));
    findings.extend(outboxes(config, path));
    findings
}

fn disk(config: &Config, path: &Path) -> Vec<Finding> {
    let disk = match look::disk(path) {
        Ok(disk) => disk,
        Err(error) => return vec![Finding::warning(DATA_DIR, format!("the disk does not say how much is free ({error})"))],
    };
    let free = format!("{} free on its disk", units::show_bytes(disk.free_bytes));
    let reserve = config.source.as_ref().map_or(0, |source| source.disk_reserve_bytes);
    let of_reserve = format!("source.disk_reserve, {}", units::show_bytes(reserve));
    let mut findings = vec![if disk.free_bytes < reserve {
        let advice = "capture pauses until there is room: free some, or set a smaller disk_reserve";
        Finding::problem(DATA_DIR, format!("{free}, less than {of_reserve}"), advice)
    } else if disk.free_bytes < reserve.saturating_mul(2) {
        let advice = "below it capture pauses: free some, or set a smaller disk_reserve";
        Finding::warning(DATA_DIR, format!("{free}, little more than {of_reserve}; {advice}"))
    } else {
        Finding::ok(DATA_DIR, format!("{free}, enough for {of_reserve}"))
    }];
    let advice = "find what makes so many small files there: df -i, du --inodes";
    match disk.free_inodes {
        Some(free) if free < FREE_INODES_MIN => {
            findings.push(Finding::problem(DATA_DIR, format!("only {free} inodes are free on its disk"), advice));
        }
        Some(free) if free < FREE_INODES_WARNING => {
            findings.push(Finding::warning(DATA_DIR, format!("only {free} inodes are free on its disk; {advice}")));
        }
        Some(free) => findings.push(Finding::ok(DATA_DIR, format!("{free} inodes free on its disk"))),
        None => {}
    }
    findings
}

fn outboxes(config: &Config, path: &Path) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in config.destinations.iter().map(|destination| destination.name.as_str()) {
        findings.push(match look::has_outbox(path, name) {
            Ok(true) => Finding::ok(DATA_DIR, format!("destination {name} has an outbox")),
            Ok(false) => Finding::ok(DATA_DIR, format!("destination {name} has no outbox yet: packhorse run makes it")),
            Err(error) => Finding::trouble(DATA_DIR, chain(&error)),
        });
    }
    match queue::unowned(config, path) {
        Ok(left) => findings.extend(left.iter().map(|name| {
            Finding::warning(
                DATA_DIR,
                format!(
                    "there is an outbox of {name}, which is no destination now; rows in it wait for ever: configure it again \
                     (enabled = false keeps it), or remove it: packhorse queue drop --name {name}"
                ),
            )
        })),
        Err(error) => findings.push(unusable(path, &error)),
    }
    for name in look::interrupted_removals(path).unwrap_or_default() {
        let text = format!("removing the outbox of {name} was interrupted: packhorse queue drop goes on with it");
        findings.push(Finding::warning(DATA_DIR, text));
    }
    findings
}
