//! `packhorse cleardb`: empties the tables of a test database.

use std::fmt::Write as _;

use clap::Args;

use super::{CliError, Context, Exit, asked, logging, say};
use crate::{
    chain,
    config::{LogLevel, database_url, mysql_url},
    mysql::clear as mysql_clear,
    ports::SourceError,
    receiver::clear as sqlite_clear,
};

/// Flags of `cleardb`.
#[derive(Debug, Args)]
#[command(group = clap::ArgGroup::new("which").required(true))]
pub struct CleardbArgs {
    /// A gateway's database: mysql://user:password@host/database
    #[arg(long, value_name = "URL", group = "which")]
    pub source: Option<String>,
    /// A central database: mysql://user:password@host/database, or a receiver's sqlite:///path/to/file
    #[arg(long, value_name = "URL", group = "which")]
    pub central: Option<String>,
    /// The database's name (of a file: the file's name), so that none is emptied by mistake; without it, it is asked for
    #[arg(long, value_name = "DATABASE")]
    pub name: Option<String>,
}

/// Empties it.
pub fn run(args: &CleardbArgs, context: &Context) -> Result<Exit, CliError> {
    logging::start(logging::level(&context.global, LogLevel::Info), context.global.log_format);
    let (url, is_file) = match (&args.source, &args.central) {
        (Some(url), _) => (mysql_url(url).map_err(|wrong| usage("--source", &wrong))?, false),
        (None, Some(url)) => {
            let found = database_url(url).map_err(|wrong| usage("--central", &wrong))?;
            let is_file = found.expose().starts_with("sqlite:");
            (found, is_file)
        }
        (None, None) => return Err(CliError::Usage("write --source URL or --central URL".to_owned())),
    };
    let found = if is_file {
        sqlite_clear::database_name(url.expose()).map_err(|error| CliError::Usage(chain(&error)))?
    } else {
        mysql_clear::database_name(url.expose()).map_err(|error| CliError::Usage(chain(&error)))?
    };
    let name = match &args.name {
        Some(name) => name.clone(),
        None => {
            asked(&format!("This deletes every row of the cogent-house tables in {url}. Type the database's name to go on:"))?
                .ok_or_else(|| CliError::Usage(format!("nothing was deleted: give the database's name, --name {found}")))?
        }
    };
    let deleted = context.block_on(async {
        if is_file {
            sqlite_clear::clear(url.expose(), &name).await.map_err(of_file)
        } else {
            mysql_clear::clear(url.expose(), &name).await.map_err(of_server)
        }
    })?;
    let mut text = String::new();
    for (table, rows) in &deleted {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{table:14} {rows:>10} rows deleted");
    }
    let _ = writeln!(text, "{name} is empty: {} rows of {} tables", deleted.iter().map(|it| it.1).sum::<u64>(), deleted.len());
    say(&text)?;
    Ok(Exit::Done)
}

/// Never quotes the URL: it may hold a password.
fn usage(flag: &str, wrong: &str) -> CliError {
    CliError::Usage(format!("{flag}: {wrong}; write mysql://user:password@host/database"))
}

fn of_server(error: mysql_clear::ClearError) -> CliError {
    match error {
        error @ mysql_clear::ClearError::OtherName { .. } => CliError::Usage(error.to_string()),
        mysql_clear::ClearError::Database(cause @ (SourceError::Unreachable { .. } | SourceError::Denied { .. })) => {
            CliError::Unreachable { what: "nothing was deleted".to_owned(), cause: Some(Box::new(cause)) }
        }
        mysql_clear::ClearError::Database(cause) => {
            CliError::Failed { what: "nothing was deleted".to_owned(), cause: Some(Box::new(cause)) }
        }
    }
}

fn of_file(error: sqlite_clear::ClearError) -> CliError {
    match error {
        error @ (sqlite_clear::ClearError::OtherName { .. } | sqlite_clear::ClearError::NotAFile(_)) => {
            CliError::Usage(error.to_string())
        }
        error @ sqlite_clear::ClearError::Database(_) => CliError::Unreachable { what: chain(&error), cause: None },
    }
}
