//! `packhorse queue repair`: what `packhorse run` does with a damaged outbox, without running.

use clap::Args;

use super::{Way, steer::agreed};
use crate::{
    cli::{CliError, Context, Exit, narrowed, say},
    domain::Epoch,
    outbox::{OpenOptions, Outbox, StoreError, look},
};

/// Flags of `queue repair`.
#[derive(Debug, Args)]
pub struct RepairArgs {
    /// Only this destination
    #[arg(long, value_name = "NAME")]
    destination: Option<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Repairs each outbox that needs it.
pub fn run(args: &RepairArgs, context: &Context) -> Result<Exit, CliError> {
    let config = context.config()?;
    let destinations = narrowed(&config, args.destination.as_deref())?;
    context.start_log(&config);
    let way = Way::find(context, &config)?;
    if way.is_daemon() {
        let what =
            "packhorse runs, and repairs a damaged outbox by itself when it opens it: stop it first, or look with `queue verify`";
        return Err(CliError::Failed { what: what.to_owned(), cause: None });
    }
    let Some(data_dir) = way.data_dir() else {
        return say("nothing has ever run here: there is nothing to repair\n").map(|()| Exit::Done);
    };
    for destination in destinations {
        let (name, folder) = (&destination.name, data_dir.outbox(&destination.name));
        let damage = match Outbox::open_existing(&folder) {
            Ok(Some(_)) => {
                say(&format!("{name}: opens, and is whole as far as opening shows; `queue verify` reads every record\n"))?;
                continue;
            }
            Ok(None) if !look::has_outbox(data_dir.path(), name).unwrap_or(true) => {
                say(&format!("{name}: no outbox yet, `packhorse run` makes it\n"))?;
                continue;
            }
            Ok(None) => "it has no store in use".to_owned(),
            Err(StoreError::Damaged { what, .. }) => what,
            Err(error) => return Err(super::failed(error)),
        };
        let question = format!(
            "{name}: damaged ({damage}). Set it aside, and capture its rows from the source again at the next run? [y/N]"
        );
        if !agreed(args.yes, &question)? {
            return Ok(Exit::Left);
        }
        let options = OpenOptions { destination: name.clone(), source: data_dir.source(), epoch: Epoch(rand::random()) };
        let outbox = Outbox::open(&folder, &options).map_err(super::failed)?;
        let from = crate::status::watermarks(&outbox.snapshot());
        let from: Vec<_> = from.iter().map(ToString::to_string).collect();
        say(&format!(
            "{name}: the damaged outbox is in {}; rows are captured again from {}\n",
            folder.join("aside").display(),
            from.join(" and ")
        ))?;
    }
    Ok(Exit::Done)
}
