//! `cargo xtask demo`: megaring's own demo, built for release, with its data under `target/demo`.

use std::fs;
use std::path::PathBuf;
use std::process::{ExitCode, ExitStatus};

use crate::command::{Keep, ending, stream, tee};
use crate::workspace::Workspace;
use crate::{Result, nvcc, zig};

/// Brings the tools, builds, and runs `megaring demo` with `arguments`; the demo's exit status is xtask's.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> Result<ExitCode> {
    let status = start(workspace, &["--release", "-p", "megaring"], arguments)?;
    match status.code() {
        Some(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
        None => Err(format!("the demo ended with {}.", ending(status))),
    }
}

/// As [`run`], with cargo's flags and the status as it is.
pub(crate) fn start(workspace: &Workspace, flags: &[&str], arguments: &[String]) -> Result<ExitStatus> {
    zig::setup(workspace)?;
    eprintln!("{}", nvcc::try_setup(workspace));
    let megaring = build(workspace, flags)?;
    let data = workspace.target().join("demo");
    fs::create_dir_all(&data).map_err(|error| format!("{} could not be made: {error}.", data.display()))?;
    let mut demo = workspace.command(&megaring);
    // A person's own folder stays theirs: the demo would otherwise create and drop corpora in it.
    demo.env("MEGARING_DATA", &data).arg("demo").args(arguments);
    stream(&mut demo)
}

/// Builds the program megaring with cargo's `flags` and answers where cargo put it.
pub(crate) fn build(workspace: &Workspace, flags: &[&str]) -> Result<PathBuf> {
    let mut cargo = workspace.cargo();
    cargo.args(["build", "--bin", "megaring", "--message-format=json-render-diagnostics"]).args(flags);
    let built = tee(&mut cargo, Keep::StdoutUnseen)?;
    if !built.status.success() {
        return Err(format!("megaring could not be built (cargo's {}).", ending(built.status)));
    }
    executable(&built.output).ok_or_else(|| "cargo did not say where it put the program megaring.".into())
}

/// The last `"executable":"…"` in cargo's JSON lines; cargo knows of target folders that no environment variable tells.
fn executable(messages: &str) -> Option<PathBuf> {
    let (_, rest) = messages.rsplit_once("\"executable\":\"")?;
    let (mut path, mut characters) = (String::new(), rest.chars());
    loop {
        match characters.next()? {
            '"' => return Some(PathBuf::from(path)),
            '\\' => path.push(characters.next()?),
            character => path.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_is_read_from_cargos_messages() {
        let messages = r#"{"reason":"compiler-artifact","target":{"name":"a"},"executable":null,"fresh":true}
{"reason":"compiler-artifact","target":{"name":"megaring"},"executable":"C:\\t\\release\\mega \"ring\".exe","fresh":true}
{"reason":"build-finished","success":true}"#;
        assert_eq!(executable(messages), Some(PathBuf::from(r#"C:\t\release\mega "ring".exe"#)));
        assert_eq!(executable("{\"executable\":null}"), None);
        assert_eq!(executable("{\"executable\":\"unfinished"), None);
    }
}
