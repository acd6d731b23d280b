//! Turns `tools.toml` into the table that `src/gate.rs` includes.

use std::path::Path;
use std::process::ExitCode;

#[path = "registry.rs"]
mod registry;

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("tools.toml: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    println!("cargo::rerun-if-changed=tools.toml");
    println!("cargo::rerun-if-changed=registry.rs");
    let registry = std::fs::read_to_string("tools.toml").map_err(|error| error.to_string())?;
    let out = std::env::var("OUT_DIR").map_err(|error| error.to_string())?;
    let source = registry::generate(&registry)?;
    std::fs::write(Path::new(&out).join("tools.rs"), source).map_err(|error| error.to_string())
}
