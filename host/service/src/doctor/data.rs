//! The data folder: there, writable, with room, its corpora sound.

use std::io::ErrorKind;
use std::path::Path;

use megaring_corpus::{Access, State, Store};
use megaring_engine::machine;

use super::{Finding, fault};
use crate::config::Settings;
use crate::console::{bytes_text, counted};

/// Room below which a person should know.
const LITTLE_BYTES: u64 = 1 << 30;

pub(super) fn findings(settings: &Settings) -> Vec<Finding> {
    let folder = &settings.data;
    match std::fs::metadata(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => return vec![absent(folder)],
        Err(error) => {
            let found = format!("{} cannot be reached: {error}", folder.display());
            return vec![Finding::problem("data folder", found, "let this user in, or name another with --data")];
        }
        Ok(_) => {}
    }
    let mut findings = vec![writable(folder)];
    findings.extend(room(folder));
    match Store::open(folder, Access::ReadOnly) {
        Ok(store) => findings.push(corpora(&store)),
        Err(error) => findings.push(fault("corpora", &error, "--data or MEGARING_DATA names another folder")),
    }
    findings
}

fn absent(folder: &Path) -> Finding {
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if parent.is_dir() {
        let help = "the first `megaring corpus import NAME FILE` makes it; --data or MEGARING_DATA names another";
        return Finding::note("data folder", format!("{} does not exist yet", folder.display()), help);
    }
    let found = format!("there is no folder to make {} in", folder.display());
    Finding::problem("data folder", found, "make the folder above it, or name another with --data")
}

fn writable(folder: &Path) -> Finding {
    // A file that is removed when dropped: asking for permissions would not see a read-only mount.
    match tempfile::Builder::new().prefix(".doctor").tempfile_in(folder) {
        Ok(_) => Finding::ok("data folder", format!("{} is writable", folder.display())),
        Err(error) => {
            let found = format!("{} is not writable: {error}", folder.display());
            Finding::problem("data folder", found, "let this user write there, or name another with --data")
        }
    }
}

fn room(folder: &Path) -> Option<Finding> {
    let free = machine::free_bytes(folder)?;
    let found = format!("{} free", bytes_text(free));
    let help = "an append that finds no room fails whole and changes nothing; make room before large imports";
    Some(if free < LITTLE_BYTES { Finding::note("storage", found, help) } else { Finding::ok("storage", found) })
}

fn corpora(store: &Store) -> Finding {
    let corpora = store.list();
    let rows: u64 = corpora.iter().map(|corpus| corpus.rows as u64).sum();
    let faults = corpora.iter().filter_map(|corpus| match &corpus.state {
        State::Healthy => None,
        State::Faulty { segment, reason } => Some(format!("{} ({segment}: {reason})", corpus.name)),
    });
    let faults: Vec<String> = faults.collect();
    if faults.is_empty() {
        return Finding::ok("corpora", format!("{} with {}, all healthy", corpora.len(), counted(rows, "row", "rows")));
    }
    let help = "`megaring corpus verify` tells more; restore the corpus from a copy, or drop it and import it again";
    Finding::problem("corpora", format!("damaged: {}", faults.join("; ")), help)
}
