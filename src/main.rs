//! The `peftk` program: flags in, an exit code out.

use std::process::ExitCode;

fn main() -> ExitCode {
    peftk::cli::main(std::env::args_os())
}
