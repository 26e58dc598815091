//! `packhorse completions` and `packhorse man`: from the description of the command line itself, so that they never say anything else.

use std::{io, path::PathBuf};

use clap::{Args, Command};
use clap_complete::Shell;

use super::{CliError, Exit};

/// Flags of `completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// For this shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Flags of `man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a page for each command there; without it the main page goes to standard output
    #[arg(value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints a shell's completions.
pub fn completions(args: &CompletionsArgs, mut command: Command) -> Result<Exit, CliError> {
    // The generator panics where it cannot write.
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut command, "packhorse", &mut text);
    super::say_bytes(&text)?;
    Ok(Exit::Done)
}

/// Prints the main man page, or writes all of them into a folder.
pub fn man(args: &ManArgs, command: Command) -> Result<Exit, CliError> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        clap_mangen::Man::new(command).render(&mut page).map_err(CliError::Output)?;
        super::say_bytes(&page)?;
        return Ok(Exit::Done);
    };
    let failed = |cause: io::Error| CliError::Failed {
        what: format!("cannot write man pages into {}", dir.display()),
        cause: Some(cause.into()),
    };
    std::fs::create_dir_all(dir).and_then(|()| clap_mangen::generate_to(command, dir)).map_err(failed)?;
    Ok(Exit::Done)
}
