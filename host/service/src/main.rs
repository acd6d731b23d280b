//! The program `megaring`: everything is in the library, see [`megaring::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    megaring::cli::main(std::env::args_os())
}
