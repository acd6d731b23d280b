//! Which rows of a corpus a command is about, and what it shows of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use megaring_core::Error;
use megaring_core::corpus::CorpusView;
use megaring_corpus::import::Input;
use megaring_corpus::{Filter, RoaringTreemap, Selection, Store};
use megaring_proto::v1 as pb;
use megaring_proto::v1::filter::Where;

use crate::console::Failure;

/// Flags of the commands that look at rows of a corpus.
macro_rules! selection_args {
    ($name:ident, $filter:literal, $allow:literal, $deny:literal) => {
        /// Rows that may be answered.
        #[derive(Debug, clap::Args)]
        pub(crate) struct $name {
            /// Only rows of which this is true, as in "zone <= 1 and title like 'inbox/%'"
            #[arg(long, env = $filter, value_name = "CONDITION")]
            pub(crate) filter: Option<String>,
            /// Only rows that have an id of this file, one a line; `-` is standard input
            #[arg(long, env = $allow, value_name = "FILE")]
            pub(crate) allow: Option<PathBuf>,
            /// But for rows that have an id of this file
            #[arg(long, env = $deny, value_name = "FILE")]
            pub(crate) deny: Option<PathBuf>,
        }

        impl $name {
            /// A version of a corpus, of which those rows alone are visible.
            pub(crate) fn select(&self, store: &Store, view: &Arc<CorpusView>) -> Result<Arc<CorpusView>, Failure> {
                select(store, view, self.filter.as_deref(), self.allow.as_deref(), self.deny.as_deref())
            }

            /// The same for a server, where there is anything to say.
            pub(crate) fn message(&self) -> Result<Option<pb::Filter>, Failure> {
                message(self.filter.as_deref(), self.allow.as_deref(), self.deny.as_deref())
            }
        }
    };
}

selection_args!(SearchSelection, "MEGARING_SEARCH_FILTER", "MEGARING_SEARCH_ALLOW", "MEGARING_SEARCH_DENY");
selection_args!(NearestSelection, "MEGARING_NEAREST_FILTER", "MEGARING_NEAREST_ALLOW", "MEGARING_NEAREST_DENY");

fn select(
    store: &Store,
    view: &Arc<CorpusView>,
    filter: Option<&str>,
    allow: Option<&Path>,
    deny: Option<&Path>,
) -> Result<Arc<CorpusView>, Failure> {
    let filter: Option<Filter> = filter.map(str::parse).transpose()?;
    let allow = allow.map(treemap).transpose()?;
    let deny = deny.map(treemap).transpose()?.unwrap_or_default();
    Ok(store.select(view, &Selection { filter, allow, deny })?.view)
}

fn message(filter: Option<&str>, allow: Option<&Path>, deny: Option<&Path>) -> Result<Option<pb::Filter>, Failure> {
    if filter.is_none() && allow.is_none() && deny.is_none() {
        return Ok(None);
    }
    let ids = |file: &Path| {
        let (set, mut roaring) = (treemap(file)?, Vec::new());
        set.serialize_into(&mut roaring).map_err(Failure::work)?;
        Ok::<_, Failure>(pb::Ids { ids: Vec::new(), roaring })
    };
    let (allow, deny) = (allow.map(ids).transpose()?, deny.map(ids).transpose()?);
    Ok(Some(pb::Filter { r#where: filter.map(|text| Where::Text(text.to_owned())), allow, deny }))
}

fn treemap(file: &Path) -> Result<RoaringTreemap, Failure> {
    read_ids(file).map(|ids| ids.into_iter().collect())
}

/// The ids of a file, one a line; empty lines are passed over.
pub(crate) fn read_ids(path: &Path) -> Result<Vec<u64>, Failure> {
    let mut input = Input::open(path)?;
    let (mut text, shown) = (String::new(), input.name().to_owned());
    std::io::Read::read_to_string(&mut input, &mut text)
        .map_err(|error| Error::field(shown.clone(), format!("it cannot be read: {error}")))?;
    let lines = text.lines().zip(0..).map(|(line, row)| (line.trim(), row)).filter(|(line, _)| !line.is_empty());
    let id = |(line, row): (&str, u64)| {
        line.parse().map_err(|_| Error::row(shown.clone(), row, format!("{line:?} is no id; a whole number is")))
    };
    Ok(lines.map(id).collect::<Result<_, _>>()?)
}
