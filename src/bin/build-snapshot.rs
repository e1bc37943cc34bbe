//! The `build-snapshot` program: the same as `kiln build`.

use std::process::ExitCode;

use kiln::cli::{Program, start};

fn main() -> ExitCode {
    start(Program::BuildSnapshot)
}
