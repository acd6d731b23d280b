//! `cargo xtask bench peers`: what users would pick instead of megaring, brought into `target/tools/peers` and measured
//! beside it by `benches/peers`.
//!
//! A peer that cannot be brought is left out, with its reason; so the command does what it can without a network, too.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::command::{Keep, ending, stream, tee};
use crate::workspace::Workspace;
use crate::{Result, demo, nvcc, python, zig};

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Bring torch, too: several gigabytes.
    pub(crate) torch: bool,
    /// Let megaring use a GPU.
    pub(crate) gpu: bool,
    /// Fewer cases, shorter.
    pub(crate) quick: bool,
    /// Where the JSON lines go.
    pub(crate) out: Option<PathBuf>,
}

/// A library from PyPI.
struct Peer {
    /// As `benches/peers` calls it.
    name: &'static str,
    /// What pip installs, `name==version` each.
    packages: &'static [&'static str],
}

/// numpy comes first: the searching ones read their data with it.
const PEERS: [Peer; 6] = [
    Peer { name: "numpy", packages: &["numpy==2.4.6"] },
    Peer { name: "faiss", packages: &["faiss-cpu==1.15.1", "packaging==26.3"] },
    Peer { name: "usearch", packages: &["usearch==2.26.6", "numkong==7.8.6", "tqdm==4.70.1"] },
    Peer { name: "numkong", packages: &["numkong==7.8.6"] },
    // What it asks for differs between systems, and is pip's to find.
    Peer { name: "torch", packages: &["torch==2.15.0"] },
    Peer { name: "hyperscan", packages: &["hyperscan==0.9.1"] },
];

/// Why a peer is left out where nothing can be fetched.
const UNREACHABLE: &str = "the package index cannot be reached";

/// Peers that are there, and those that are not with why.
#[derive(Debug, Default, PartialEq, Eq)]
struct Brought {
    there: Vec<&'static str>,
    left_out: Vec<(&'static str, String)>,
}

/// Brings the peers, builds megaring's side, and runs the script, whose exit status is xtask's.
pub(crate) fn run(workspace: &Workspace, wanted: &Wanted) -> Result<ExitCode> {
    if !cfg!(unix) {
        return Err("`bench peers` runs on Linux and macOS.".into());
    }
    let out = wanted.out.as_deref().map(writable).transpose()?;
    zig::setup(workspace)?;
    eprintln!("{}", nvcc::try_setup(workspace));
    let folder = workspace.tools().join("peers");
    let (python, brought) = match python::environment(workspace, &folder, &[]) {
        Ok(python) => {
            let brought = bring(wanted.torch, |peer| install(workspace, &python, &folder, peer));
            (python, brought)
        }
        // The script itself, and the aho-corasick crate, need nothing but Python.
        Err(reason) => (python::interpreter(workspace)?, bring(wanted.torch, |_| Err(reason.clone()))),
    };
    let program = demo::build_program(workspace, "megaring-peer", &["--release", "-p", "megaring-bench"])?;
    let mut script = workspace.command(&python);
    script.arg("benches/peers").arg("--program").arg(program);
    script.arg("--folder").arg(workspace.target().join("peers"));
    for name in brought.there {
        script.args(["--peer", name]);
    }
    for (name, reason) in brought.left_out {
        script.args(["--left-out", &format!("{name}={reason}")]);
    }
    script.args(wanted.quick.then_some("--quick")).args(wanted.gpu.then_some("--gpu"));
    if let Some(out) = out {
        script.arg("--out").arg(out);
    }
    let status = stream(&mut script)?;
    match status.code() {
        Some(code) => Ok(ExitCode::from(u8::try_from(code).unwrap_or(1))),
        None => Err(format!("benches/peers ended with {}.", ending(status))),
    }
}

/// The file's full path, once it is known that it can be written: before minutes of work, and not behind them.
fn writable(out: &Path) -> Result<PathBuf> {
    let opened =
        std::path::absolute(out).and_then(|out| File::options().append(true).create(true).open(&out).map(|_| out));
    opened.map_err(|error| format!("{} cannot be written: {error}.", out.display()))
}

/// Installs the peers one by one.
fn bring(torch: bool, mut install: impl FnMut(&Peer) -> Result<()>) -> Brought {
    let mut brought = Brought::default();
    for peer in PEERS {
        let needs_numpy = !matches!(peer.name, "numpy" | "hyperscan");
        let outcome = if peer.name == "torch" && !torch {
            Err("it is brought with `--with torch` alone (several gigabytes)".into())
        } else if needs_numpy && !brought.there.contains(&"numpy") {
            Err("it needs numpy, which is left out".into())
        } else {
            install(&peer)
        };
        match outcome {
            Ok(()) => brought.there.push(peer.name),
            Err(reason) => brought.left_out.push((peer.name, reason)),
        }
    }
    brought
}

/// Installs one peer into the environment in `folder`, unless it is there in its version.
fn install(workspace: &Workspace, python: &Path, folder: &Path, peer: &Peer) -> Result<()> {
    let (stamp, wanted) = (folder.join(format!("megaring-{}", peer.name)), peer.packages.join("\n"));
    let _lock = workspace.lock_tools()?;
    if fs::read_to_string(&stamp).is_ok_and(|packages| packages == wanted) {
        return Ok(());
    }
    let mut pip = python::pip_install(workspace, python);
    pip.args(["--quiet", "--retries", "1"]).args(peer.packages);
    let ended = tee(&mut pip, Keep::Both)?;
    if !ended.status.success() {
        return Err(reason(peer, &ended.output));
    }
    fs::write(&stamp, wanted).map_err(|error| format!("{} could not be written: {error}", stamp.display()))
}

/// Why pip could not install a peer, from what it wrote.
fn reason(peer: &Peer, output: &str) -> String {
    const NO_NETWORK: [&str; 4] = ["NewConnectionError", "connection broken", "ConnectTimeout", "ProxyError"];
    if NO_NETWORK.iter().any(|words| output.contains(words)) {
        return UNREACHABLE.into();
    }
    let packages = peer.packages.join(", ");
    if output.contains("No matching distribution found") {
        return format!("there is no wheel of {packages} for this Python and this system");
    }
    let said = output.lines().rev().find_map(|line| line.strip_prefix("ERROR: ")).unwrap_or("its reason stands above");
    format!("pip could not install {packages} ({said})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_brought_is_used() {
        let all = bring(true, |_| Ok(()));
        assert_eq!((all.there.len(), all.left_out.len()), (6, 0), "{all:?}");
        let usual = bring(false, |peer| if peer.name == "faiss" { Err("no wheel".into()) } else { Ok(()) });
        assert_eq!(usual.there, ["numpy", "usearch", "numkong", "hyperscan"]);
        assert!(usual.left_out[0] == ("faiss", "no wheel".into()) && usual.left_out[1].1.contains("--with torch"));
    }

    #[test]
    fn without_numpy_nobody_searches() {
        let some = bring(false, |peer| if peer.name == "numpy" { Err("no wheel".into()) } else { Ok(()) });
        assert_eq!(some.there, ["hyperscan"]);
        assert!(some.left_out[1..4].iter().all(|(_, reason)| reason.contains("needs numpy")), "{some:?}");
    }

    #[test]
    fn pips_reason_is_told() {
        let peer = &PEERS[0];
        let none =
            "ERROR: Could not find a version that satisfies numpy\nERROR: No matching distribution found for numpy";
        assert_eq!(reason(peer, none), "there is no wheel of numpy==2.4.6 for this Python and this system");
        let offline = format!("WARNING: Retrying after connection broken by 'NewConnectionError()'\n{none}");
        assert_eq!(reason(peer, &offline), UNREACHABLE);
        assert!(reason(peer, "a\nERROR: no space left\nnotice").contains("(no space left)"));
        assert!(reason(peer, "").contains("stands above"));
    }

    #[test]
    fn every_package_is_pinned() {
        let packages: Vec<&str> = PEERS.iter().flat_map(|peer| peer.packages).copied().collect();
        assert!(
            packages.iter().all(|package| package.split_once("==").is_some_and(|(_, version)| version.contains('.')))
        );
    }

    #[test]
    fn a_file_that_cannot_be_written_is_told_at_once() {
        let nowhere = std::env::temp_dir().join("megaring-no-such-folder/peers.jsonl");
        assert!(writable(&nowhere).expect_err("there is no such folder").contains("cannot be written"));
    }
}
