//! The `packhorse` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    packhorse::cli::main().into()
}
