//! The `build-snapshot` program: the same as `kiln build`.

fn main() {}
