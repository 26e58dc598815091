//! `packhorse queue drop`: removes the outbox of a destination that is no longer configured.
//!
//! The one rule: nothing is removed before it was said what is lost, and the name was written out by whoever wants it.

use std::fmt::Write as _;

use clap::Args;

use super::{cannot_look, own, unowned};
use crate::{
    chain,
    cli::{CliError, Context, Exit, asked, say},
    config::{Config, units},
    domain::Stream,
    outbox::{DataDir, Outbox, look},
};

/// Flags of `queue drop`.
#[derive(Debug, Args)]
pub struct DropArgs {
    /// The outbox to remove, by its destination's name written out; without it, it is asked for
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// The destination whose outbox it is; the name is wanted all the same
    #[arg(long, value_name = "NAME")]
    pub destination: Option<String>,
    /// Do not ask before it is removed
    #[arg(long)]
    pub yes: bool,
}

/// Removes one outbox for good.
pub fn run(args: &DropArgs, context: &Context) -> Result<Exit, CliError> {
    let config = context.config()?;
    context.start_log(&config);
    let Some(data_dir) = own(&config)? else {
        let path = config.gateway.data_dir.display();
        return Err(CliError::Usage(format!("nothing has ever run on data_dir {path}: there is no outbox to drop")));
    };
    for name in data_dir.finish_removals().map_err(|error| failed("cannot go on with an interrupted drop", error))? {
        say(&format!("{name}: what an interrupted drop had left is removed\n"))?;
    }
    let left = unowned(&config, data_dir.path()).map_err(|cause| cannot_look(data_dir.path(), cause))?;
    let Some(name) = wanted(args, &config, &left)? else {
        say("there is no outbox that no destination owns: nothing to drop\n")?;
        return Ok(Exit::Done);
    };
    say(&context.block_on(async { Ok(what_is_lost(&data_dir, &name).await) })?)?;
    if !args.yes {
        match asked(&format!("Remove the outbox of {name} for good? [y/N]"))? {
            Some(answer) if matches!(answer.to_lowercase().as_str(), "y" | "yes") => {}
            Some(_) => {
                say("nothing was dropped\n")?;
                return Ok(Exit::Left);
            }
            None => return Err(CliError::Usage("nothing was dropped: --yes drops it without asking".to_owned())),
        }
    }
    data_dir.remove_outbox(&name).map_err(|error| failed("the outbox was not removed as a whole", error))?;
    say(&format!("{name}: its outbox is gone\n"))?;
    Ok(Exit::Done)
}

/// The name that was written out, when it is that of an outbox that nobody owns; `None` when there is none and none was named.
fn wanted(args: &DropArgs, config: &Config, left: &[String]) -> Result<Option<String>, CliError> {
    let list = left.join(", ");
    if let Some(destination) = &args.destination {
        may_be_dropped(destination, config, left)?;
    }
    let name = match (&args.name, left) {
        (Some(name), _) => name.clone(),
        (None, []) => return Ok(None),
        (None, _) => {
            let which = args.destination.as_ref().unwrap_or(&list);
            asked(&format!("No destination owns the outbox of {which}. Type the name of the one to drop:"))?
                .ok_or_else(|| CliError::Usage(format!("nothing was dropped: write --name NAME; no destination owns {which}")))?
        }
    };
    if let Some(destination) = args.destination.as_ref().filter(|destination| **destination != name) {
        return Err(CliError::Usage(format!("nothing was dropped: {name:?} is not the name of destination {destination:?}")));
    }
    may_be_dropped(&name, config, left)?;
    Ok(Some(name))
}

/// Refuses what is owned, and what is no outbox.
fn may_be_dropped(name: &str, config: &Config, left: &[String]) -> Result<(), CliError> {
    if let Some(owner) = config.destinations.iter().find(|destination| destination.name == name) {
        let disabled = if owner.enabled { "" } else { ", though disabled" };
        return Err(CliError::Usage(format!(
            "destination '{name}' is configured{disabled}: its outbox is kept; take its [[destination]] out of {} first",
            config.origin
        )));
    }
    if left.iter().any(|it| it == name) {
        return Ok(());
    }
    let there =
        if left.is_empty() { "there is none that could be dropped".to_owned() } else { format!("there is {}", left.join(", ")) };
    Err(CliError::Usage(format!("{} holds no outbox of {name:?}; {there}", config.gateway.data_dir.display())))
}

/// What goes with the outbox.
async fn what_is_lost(data_dir: &DataDir, name: &str) -> String {
    let path = data_dir.outbox(name);
    let mut text = String::new();
    // Writing to a String does not fail.
    let _ = writeln!(text, "{name}: the outbox in {}, which no destination owns", path.display());
    let opened = tokio::task::spawn_blocking(move || {
        // Closing syncs: off this thread too.
        Outbox::open_existing(&path).map(|outbox| outbox.map(|outbox| (outbox.snapshot(), outbox.disk_bytes())))
    });
    match opened.await {
        Ok(Ok(Some((snapshot, disk_bytes)))) => {
            for stream in Stream::ALL {
                let state = snapshot.stream(stream);
                let (name, waiting, parked) = (stream.plural(), state.pending(), state.parked_now());
                let _ = writeln!(text, "  {waiting} {name} wait in it and {parked} are parked; {} were delivered", state.acked);
            }
            let _ =
                writeln!(text, "  {} on the disk, {} mappings of ids", units::show_bytes(disk_bytes), snapshot.mappings.len());
            let left = snapshot.pending() + snapshot.parked();
            if left > 0 {
                let _ = writeln!(
                    text,
                    "  these {left} rows are lost for that destination; in the source they stay, as long as it keeps them"
                );
            }
        }
        Ok(Ok(None)) => text.push_str("  it was never in use\n"),
        Ok(Err(error)) => {
            let _ = writeln!(text, "  how many rows wait in it cannot be told: {}", chain(&error));
        }
        Err(defect) => {
            let _ = writeln!(text, "  how many rows wait in it cannot be told: {defect}");
        }
    }
    match look::set_aside(&data_dir.outbox(name)) {
        0 => {}
        stores => {
            let _ = writeln!(text, "  {stores} damaged stores that were set aside");
        }
    }
    match look::discarded(&data_dir.outbox(name)) {
        0 => {}
        files => {
            let _ =
                writeln!(text, "  {files} files of discarded rows, which may be nowhere else: copy them first if they matter");
        }
    }
    text
}

fn failed(what: &str, error: crate::outbox::StoreError) -> CliError {
    CliError::Failed { what: what.to_owned(), cause: Some(Box::new(error)) }
}
