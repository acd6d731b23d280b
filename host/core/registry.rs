//! Reads `tools.toml` and writes it as Rust, for the build script. The test of the registry includes this file too.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Deserialize;

/// Counters of a board.
const COUNTERS: usize = 64;

/// The whole file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tool: Vec<Row>,
}

/// A row of it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: usize,
    name: String,
    handler: Handler,
    operation: Option<String>,
    counter: String,
    role: Role,
    maturity: Maturity,
    max_bytes: Option<u64>,
    cost: Cost,
}

/// One of a few words, which are the names of the variants of `megaring_core::gate` in small letters.
macro_rules! words {
    ($name:ident { $($variant:ident),* }) => {
        #[derive(Debug, Clone, Copy, Deserialize)]
        #[serde(rename_all = "lowercase")]
        enum $name { $($variant),* }
    };
}

words!(Handler { Unary, Streaming });
words!(Role { Reader, Writer, Admin });
words!(Maturity { Stable, Experimental });
words!(Cost { Read, Query, Batch, Change, Admin });

/// The Rust source of a registry: `NAMES` and `TABLE` by id, `BY_NAME` sorted by name, and `COUNTERS` by number. It
/// expects `megaring_core::gate`'s types, and `Opcode`, in scope.
///
/// # Errors
/// What is wrong with which row, in words.
pub(crate) fn generate(registry: &str) -> Result<String, String> {
    let File { tool: mut rows } = toml::from_str(registry).map_err(|error| error.to_string())?;
    rows.sort_by_key(|row| row.id);
    check(&rows)?;
    let counters = counters(&rows)?;
    let mut by_name: Vec<_> = rows.iter().map(|row| (row.name.as_str(), row.id)).collect();
    by_name.sort_unstable();
    let count = rows.len();
    let mut source = format!("pub(super) const NAMES: [&str; {count}] = [\n");
    let mut line = |text: std::fmt::Arguments<'_>| {
        // Writing to a string does not fail.
        let _ = writeln!(source, "{text}");
    };
    for row in &rows {
        line(format_args!("    {:?},", row.name));
    }
    line(format_args!("];\npub(super) const TABLE: [Tool; {count}] = ["));
    for Row { handler, operation, counter, role, maturity, max_bytes, cost, .. } in &rows {
        let opcode =
            operation.as_ref().map_or("0".to_owned(), |stem| format!("crate::Opcode::{} as u16", camel_case(stem)));
        let (counter, max_bytes) = (counters[counter.as_str()], max_bytes.unwrap_or(u64::MAX));
        line(format_args!(
            "    Tool {{ max_bytes: {max_bytes}, opcode: {opcode}, handler: Handler::{handler:?} as u8, counter: {counter}, \
             role: Role::{role:?} as u8, maturity: Maturity::{maturity:?} as u8, cost: Cost::{cost:?} as u8, reserved: 0 }},"
        ));
    }
    line(format_args!("];\npub(super) const BY_NAME: [(&str, u16); {count}] = ["));
    for (name, id) in by_name {
        line(format_args!("    ({name:?}, {id}),"));
    }
    line(format_args!("];\npub(super) const COUNTERS: [&str; {}] = {:?};", counters.len(), counters.keys()));
    Ok(source)
}

fn check(rows: &[Row]) -> Result<(), String> {
    if rows.is_empty() || rows.len() > usize::from(u16::MAX) {
        return Err(format!("{} tools; from 1 to {} can be", rows.len(), u16::MAX));
    }
    let mut names = BTreeMap::new();
    for (place, Row { id, name, max_bytes, .. }) in rows.iter().enumerate() {
        if let Some(before) = names.insert(name, id) {
            return Err(format!("{name:?} stands twice, as {before} and as {id}"));
        }
        match rows.get(place + 1) {
            Some(next) if next.id == *id => {
                return Err(format!("id {id} is given twice: to {name:?} and {:?}", next.name));
            }
            _ if *id != place => return Err(format!("there is no tool with id {place}, and there is one with {id}")),
            _ => {}
        }
        if *max_bytes == Some(0) {
            return Err(format!("{name:?}: max_bytes = 0 refuses every message"));
        }
    }
    Ok(())
}

/// The counters' numbers, in the order of their names.
fn counters(rows: &[Row]) -> Result<BTreeMap<&str, usize>, String> {
    let mut counters: BTreeMap<_, _> = rows.iter().map(|row| (row.counter.as_str(), 0)).collect();
    if counters.len() > COUNTERS {
        return Err(format!("{} counters; a board has {COUNTERS}", counters.len()));
    }
    counters.values_mut().enumerate().for_each(|(number, counter)| *counter = number);
    Ok(counters)
}

/// What an operation with this stem is called as a type.
fn camel_case(stem: &str) -> String {
    let word =
        |word: &str| word.chars().take(1).flat_map(char::to_uppercase).chain(word.chars().skip(1)).collect::<String>();
    stem.split('_').map(word).collect()
}
