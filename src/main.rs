//! The `packhorse` command.

use std::process::ExitCode;

fn main() -> ExitCode {
    #[cfg(feature = "failpoints")]
    let _wanted = packhorse::edge::obey();
    packhorse::cli::main().into()
}
