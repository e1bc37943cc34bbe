//! Makes cargo build anew when a shipped template changes: they are embedded, and `include_dir` alone does not notice new files.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed=templates");
}
