//! `megaring corpus fetch`: columns of rows, by their numbers or ids.

use megaring_corpus::{Access, fetch, find, find_texts};
use megaring_proto::v1 as pb;
use megaring_proto::v1::fetch_request::Which;
use serde_json::{Map, Value};

use crate::config::Settings;
use crate::console::{Align, Failure, Output, Table, counted, message};
use crate::corpora::Ids;
use crate::remote::{Remote, Rows};

/// `corpus fetch`.
#[derive(Debug, clap::Args)]
pub(crate) struct FetchArgs {
    /// Corpus
    name: String,
    /// Rows that have this id, a number, or a text where the corpus has an id column; may be given several times
    #[arg(long, env = "MEGARING_CORPUS_FETCH_ID", value_name = "ID")]
    id: Vec<String>,
    /// The row of this number; may be given several times
    #[arg(long, env = "MEGARING_CORPUS_FETCH_ROW", value_name = "N", value_delimiter = ',')]
    row: Vec<u32>,
    /// Columns [default: all but the embedding]
    #[arg(long, env = "MEGARING_CORPUS_FETCH_COLUMNS", value_name = "NAME", value_delimiter = ',')]
    columns: Vec<String>,
}

pub(crate) fn run(args: &FetchArgs, settings: &Settings, output: &mut Output) -> Result<(), Failure> {
    if args.id.is_empty() && args.row.is_empty() {
        return Err(Failure::Usage("rows are missing: give --id ID or --row N".into()));
    }
    let Rows { rows, columns: fetched, missing, .. } = match settings.remote()? {
        None => here(args, settings)?,
        Some(remote) => there(args, &remote)?,
    };
    let names = fetched.columns();
    if output.is_json() {
        for (at, row) in rows.iter().enumerate() {
            let mut record = Map::from_iter([("row".to_owned(), Value::from(*row))]);
            record.extend(names.iter().map(|name| (*name).to_owned()).zip(fetched.json(at)?));
            output.record(&record)?;
        }
    } else {
        let headings = names.iter().map(|name| (*name, Align::Left));
        let mut table = Table::new([("ROW", Align::Right)].into_iter().chain(headings));
        for (at, row) in rows.iter().enumerate() {
            let values = fetched.json(at)?.into_iter().map(shown);
            table.row(std::iter::once(row.to_string()).chain(values));
        }
        output.text(table)?;
    }
    if missing.is_empty() {
        return Ok(());
    }
    let ids: Vec<String> = missing.shown().take(10).collect();
    let more = if missing.len() > ids.len() { ", …" } else { "" };
    message(&format!("{} found nothing: {}{more}", counted(missing.len() as u64, "id", "ids"), ids.join(", ")));
    Ok(())
}

fn here(args: &FetchArgs, settings: &Settings) -> Result<Rows, Failure> {
    let view = settings.store(Access::ReadOnly)?.view(&args.name)?;
    let ids = Ids::of_arguments(&args.id, view.id_column())?;
    let (mut rows, numbers) = find(&view, &ids.numbers, usize::MAX)?;
    let (by_text, texts) = find_texts(&view, &ids.texts, usize::MAX)?;
    rows.extend(by_text);
    rows.extend(&args.row);
    let missing = Ids { numbers, texts };
    let columns = fetch(&view, &rows, &args.columns(), usize::MAX)?;
    Ok(Rows { rows, columns, missing, generation: view.generation().into() })
}

fn there(args: &FetchArgs, remote: &Remote) -> Result<Rows, Failure> {
    let fetch = |which| {
        remote.fetch(pb::FetchRequest { corpus: args.name.clone(), which: Some(which), columns: args.columns() })
    };
    let numbers = |numbers| Which::Rows(pb::RowNumbers { numbers });
    if args.id.is_empty() {
        return fetch(numbers(args.row.clone()));
    }
    let corpus = remote.describe(&args.name)?;
    let by_id = fetch(Which::Ids(Ids::of_arguments(&args.id, corpus.id_column.as_deref())?.message()))?;
    if args.row.is_empty() {
        return Ok(by_id);
    }
    // A call is by ids or by numbers: now that the numbers are known, by these.
    let rows = by_id.rows.iter().chain(&args.row).copied().collect();
    let all = fetch(numbers(rows))?;
    if all.generation != by_id.generation {
        return Err(Failure::Work(format!("{} changed while it was read; try again", args.name)));
    }
    Ok(Rows { missing: by_id.missing, ..all })
}

impl FetchArgs {
    fn columns(&self) -> Vec<String> {
        if self.columns.is_empty() { vec!["*".to_owned()] } else { self.columns.clone() }
    }
}

/// A value for people.
pub(crate) fn shown(value: Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text,
        other => other.to_string(),
    }
}
