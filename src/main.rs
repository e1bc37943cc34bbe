//! The `kiln` program.

use std::process::ExitCode;

use kiln::cli::{Program, start};

fn main() -> ExitCode {
    start(Program::Kiln)
}
