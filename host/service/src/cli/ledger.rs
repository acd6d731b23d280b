//! `megaring ledger`: what a server has kept, the root over it, proofs, and whether it is as it was written.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use megaring_core::gate::{Reason, Role, tool_name};
use megaring_core::{BackendKind, Opcode};
use megaring_ledger::{Entry, Error, Kind, LedgerView, Query, Record, verify, verify_inclusion};
use megaring_ring::slot::fnv1a64;
use serde_json::{Value, json};

use crate::config::{Settings, duration};
use crate::console::{Failure, Output, counted, duration_text, shown};

/// `megaring ledger`.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum LedgerCommand {
    /// The root over all records, or over the first ones: note it elsewhere, and it proves later that they are
    /// unchanged
    Root(RootArgs),
    /// The proof that a record is one of those that a root stands over
    Prove(ProveArgs),
    /// Read everything, and name what is not as it was written
    Verify,
    /// Records, all or those that are asked for
    Query(QueryArgs),
}

/// `ledger root`.
#[derive(Debug, clap::Args)]
pub(crate) struct RootArgs {
    /// Over the first N records [default: all]
    #[arg(long, env = "MEGARING_LEDGER_ROOT_SIZE", value_name = "N")]
    size: Option<u64>,
}

/// `ledger prove`.
#[derive(Debug, clap::Args)]
pub(crate) struct ProveArgs {
    /// The record, counted from 0
    record: u64,
    /// The root over the first N records [default: all]
    #[arg(long, env = "MEGARING_LEDGER_PROVE_SIZE", value_name = "N")]
    size: Option<u64>,
}

/// `ledger query`.
#[derive(Debug, clap::Args)]
pub(crate) struct QueryArgs {
    /// Of this tenant
    #[arg(long, env = "MEGARING_LEDGER_QUERY_TENANT", value_name = "NAME")]
    tenant: Option<String>,
    /// Not older than this, as in 10m
    #[arg(long, env = "MEGARING_LEDGER_QUERY_SINCE", value_name = "TIME", value_parser = duration)]
    since: Option<Duration>,
    /// Of this operation
    #[arg(long, env = "MEGARING_LEDGER_QUERY_OPERATION", value_name = "OPERATION")]
    operation: Option<Opcode>,
    /// Of this kind: answered, refused, reserved, settled, released, appended, dropped or lost
    #[arg(long, env = "MEGARING_LEDGER_QUERY_KIND", value_name = "KIND", value_parser = kind)]
    kind: Option<Kind>,
    /// The first N of them
    #[arg(long, env = "MEGARING_LEDGER_QUERY_LIMIT", value_name = "N")]
    limit: Option<usize>,
}

fn kind(name: &str) -> Result<Kind, String> {
    let known = || (1..).map_while(|number| Kind(number).name());
    let found = known().position(|known| known == name);
    let found = found.ok_or_else(|| format!("there are {}", known().collect::<Vec<_>>().join(", ")))?;
    Ok(Kind(found as u64 + 1))
}

pub(crate) fn run(command: LedgerCommand, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    let folder = settings.ledger_folder();
    if !folder.exists() {
        let help = "`megaring serve` keeps one; --data or --ledger-folder says where";
        return Err(Failure::Work(format!("there is no ledger in {}: {help}", shown(&folder))));
    }
    match command {
        LedgerCommand::Root(args) => root(&args, &open(&folder)?, output),
        LedgerCommand::Prove(args) => prove(&args, &open(&folder)?, output),
        LedgerCommand::Verify => check(folder, output),
        LedgerCommand::Query(args) => query(args, &open(&folder)?, output),
    }
}

fn open(folder: &std::path::Path) -> Result<LedgerView, Failure> {
    LedgerView::open(folder).map_err(Failure::work)
}

fn root(args: &RootArgs, ledger: &LedgerView, output: &mut Output) -> Result<(), Failure> {
    let size = args.size.unwrap_or_else(|| ledger.size());
    let root = hex(ledger.root_at(size).map_err(Failure::work)?);
    let record = json!({ "size": size, "first": ledger.first(), "root": root });
    output.answer(&record, || format!("{root} over {}", counted(size, "record", "records")))
}

fn prove(args: &ProveArgs, ledger: &LedgerView, output: &mut Output) -> Result<(), Failure> {
    let (index, size) = (args.record, args.size.unwrap_or_else(|| ledger.size()));
    let proof = ledger.inclusion(index, size).map_err(Failure::work)?;
    let root = ledger.root_at(size).map_err(Failure::work)?;
    let found = ledger.read(index..index + 1).map_err(Failure::work)?.next();
    let record = found.ok_or(Error::Beyond { wanted: index, size }).and_then(|record| record).map_err(Failure::work)?;
    let leaf = record.leaf_hash();
    if !verify_inclusion(&leaf, index, size, &proof, &root) {
        return Err(Failure::Work(format!("record {index} and its proof do not make the root over {size} records")));
    }
    let path: Vec<String> = proof.iter().map(hex).collect();
    let told = json!({
        "record": index, "size": size, "leaf": hex(leaf), "path": path, "root": hex(root), "bytes": hex(record.bytes()),
    });
    output.answer(&told, || {
        let steps = path.iter().map(|hash| format!("\n  {hash}")).collect::<String>();
        format!(
            "record {index} is one of the {size} under the root {}\nleaf {}\npath{steps}\n{}",
            hex(root),
            hex(leaf),
            text(&record)
        )
    })
}

fn check(folder: PathBuf, output: &mut Output) -> Result<(), Failure> {
    let report = verify(&folder).map_err(Failure::work)?;
    let faults: Vec<String> = report.faults.iter().map(ToString::to_string).collect();
    let root = report.root.as_ref().map(hex);
    let told = json!({
        "sound": report.is_sound(), "first": report.first, "size": report.size, "root": root, "faults": faults,
    });
    output.answer(&told, || {
        let removed = if report.first > 0 { format!(", {} of them removed", report.first) } else { String::new() };
        let records = counted(report.size, "record", "records");
        let root = root.unwrap_or_else(|| "unknown".to_owned());
        let wrong: String = faults.iter().map(|fault| format!("\n{fault}")).collect();
        format!("{records}{removed}; the root over all is {root}{wrong}")
    })?;
    if report.is_sound() {
        return Ok(());
    }
    Err(Failure::Work(format!("the ledger is damaged: {}", counted(faults.len() as u64, "fault", "faults"))))
}

fn query(args: QueryArgs, ledger: &LedgerView, output: &mut Output) -> Result<(), Failure> {
    let QueryArgs { tenant, since, operation, kind, limit } = args;
    let query = Query {
        tenant: tenant.map(|name| fnv1a64(name.as_bytes())),
        since_ns: since.map(|since| nanos(now().saturating_sub(since))),
        until_ns: None,
        opcode: operation.map(|opcode| opcode as u16),
        kind,
        limit,
    };
    for record in ledger.query(query) {
        let record = record.map_err(Failure::work)?;
        output.answer(&told(&record), || text(&record))?;
    }
    output.flush()
}

/// A record for programs. What does not apply is left out.
fn told(record: &Record) -> Value {
    let entry = record.entry();
    let mut told = json!({
        "record": record.index(),
        "kind": record.kind().to_string(),
        "unix_ns": record.timestamp_ns(),
        "tenant_hash": format!("{:016x}", record.tenant()),
    });
    let mut put = |name: &str, value: Option<Value>| {
        if let (Some(value), Some(told)) = (value, told.as_object_mut()) {
            told.insert(name.to_owned(), value);
        }
    };
    put("call", call(&entry).map(Value::from));
    put("operation", operation(&entry).map(Value::from));
    put("role", Role::from_number(entry.role).map(|role| role.name().into()));
    put("reason", Reason::from_number(entry.reason).map(|reason| reason.name().into()));
    put("status", (entry.status != 0).then(|| entry.status.into()));
    put("backend", backend(&entry).map(Value::from));
    for (name, value) in [("reserved", entry.reserved), ("settled", entry.settled)] {
        put(name, (value != 0).then(|| value.into()));
    }
    if is_reservation(record) {
        put("reservation", Some(entry.reservation().id.into()));
        return told;
    }
    for (name, value) in [
        ("items", entry.items),
        ("bytes", entry.bytes),
        ("measured_ns", entry.measured_ns),
        ("predicted_ns", entry.predicted_ns),
        ("count", if is_counted(record) { entry.count } else { 0 }),
    ] {
        put(name, (value != 0).then(|| value.into()));
    }
    told
}

/// A record for people.
fn text(record: &Record) -> String {
    let entry = record.entry();
    let mut text = format!("{:>8}  {}  {:<9}", record.index(), time(record.timestamp_ns()), record.kind().to_string());
    let mut add = |part: String| text += &format!("  {part}");
    if is_reservation(record) {
        add(match record.kind() {
            Kind::SETTLED => format!("{} of {}", entry.settled, entry.reserved),
            _ => entry.reserved.to_string(),
        });
        return text;
    }
    if let Some(name) = operation(&entry).or_else(|| call(&entry)) {
        add(name.to_owned());
    }
    if let Some(reason) = Reason::from_number(entry.reason) {
        add(format!("by {reason}"));
    }
    if entry.items > 0 {
        add(counted(entry.items, "item", "items"));
    }
    if entry.measured_ns > 0 {
        let predicted = match entry.predicted_ns {
            0 => String::new(),
            ns => format!(" ({} were predicted)", duration_text(Duration::from_nanos(ns))),
        };
        let by = backend(&entry).map_or_else(String::new, |backend| format!(" on {backend}"));
        add(format!("in {}{by}{predicted}", duration_text(Duration::from_nanos(entry.measured_ns))));
    }
    if entry.settled > 0 {
        add(format!("{} charged", entry.settled));
    }
    if is_counted(record) && entry.count > 0 {
        add(format!("{} of them", entry.count));
    }
    text
}

/// Whether it tells of an amount that is set aside for a transaction.
fn is_reservation(record: &Record) -> bool {
    [Kind::RESERVED, Kind::SETTLED, Kind::RELEASED].contains(&record.kind())
}

/// Whether it tells of how many.
fn is_counted(record: &Record) -> bool {
    [Kind::APPENDED, Kind::DROPPED, Kind::LOST].contains(&record.kind())
}

fn call(entry: &Entry) -> Option<&'static str> {
    tool_name(entry.tool)
}

fn operation(entry: &Entry) -> Option<&'static str> {
    Opcode::from_u16(entry.opcode).map(Opcode::name)
}

fn backend(entry: &Entry) -> Option<&'static str> {
    BackendKind::ALL.into_iter().find(|kind| *kind as u8 == entry.backend).map(BackendKind::name)
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Unix nanoseconds as seconds, to the millisecond.
fn time(unix_ns: u64) -> String {
    format!("{:.3}", unix_ns as f64 / 1e9)
}
