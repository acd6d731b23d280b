//! Which rows of a corpus a command is about, and what it shows of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use megaring_core::Error;
use megaring_core::corpus::CorpusView;
use megaring_corpus::import::Input;
use megaring_corpus::{Description, Filter, IdList, RoaringTreemap, Selection, Store};
use megaring_proto::v1 as pb;
use megaring_proto::v1::filter::Where;

use crate::console::Failure;
use crate::corpora::Ids;

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
            /// Refuses a line by which standard input would be read for more than one thing; `other` is a further file.
            pub(crate) fn reads_input_once(&self, other: (&str, Option<&PathBuf>)) -> Result<(), Failure> {
                reads_input_once([other, ("--allow", self.allow.as_ref()), ("--deny", self.deny.as_ref())])
            }

            /// A version of a corpus, of which those rows alone are visible.
            pub(crate) fn select(&self, store: &Store, view: &Arc<CorpusView>) -> Result<Arc<CorpusView>, Failure> {
                select(store, view, self.filter.as_deref(), self.allow.as_deref(), self.deny.as_deref())
            }

            /// The same for a server, where there is anything to say; `describe` tells of the corpus.
            pub(crate) fn message(
                &self,
                describe: impl FnOnce() -> Result<Description, Failure>,
            ) -> Result<Option<pb::Filter>, Failure> {
                message(self.filter.as_deref(), self.allow.as_deref(), self.deny.as_deref(), describe)
            }
        }
    };
}

selection_args!(SearchSelection, "MEGARING_SEARCH_FILTER", "MEGARING_SEARCH_ALLOW", "MEGARING_SEARCH_DENY");
selection_args!(NearestSelection, "MEGARING_NEAREST_FILTER", "MEGARING_NEAREST_ALLOW", "MEGARING_NEAREST_DENY");

/// Whoever came second would find nothing left.
pub(crate) fn reads_input_once<'a>(
    files: impl IntoIterator<Item = (&'a str, Option<&'a PathBuf>)>,
) -> Result<(), Failure> {
    let from_input = files.into_iter().filter(|(_, file)| file.is_some_and(|file| file.as_os_str() == "-"));
    let mut names: Vec<&str> = from_input.map(|(name, _)| name).collect();
    if names.len() < 2 {
        return Ok(());
    }
    names.dedup();
    let reason = "standard input (-) can be read once, and is given several times, as";
    Err(Failure::Usage(format!("{reason} {}; give files for the others", names.join(" and "))))
}

fn select(
    store: &Store,
    view: &Arc<CorpusView>,
    filter: Option<&str>,
    allow: Option<&Path>,
    deny: Option<&Path>,
) -> Result<Arc<CorpusView>, Failure> {
    let filter: Option<Filter> = filter.map(str::parse).transpose()?;
    let list = |file: &Path| {
        let Ids { numbers, texts } = read_ids(file, view.id_column())?;
        Ok::<_, Failure>(IdList { numbers: numbers.into_iter().collect(), texts: texts.into_iter().collect() })
    };
    let allow = allow.map(list).transpose()?;
    let deny = deny.map(list).transpose()?.unwrap_or_default();
    Ok(store.select(view, &Selection { filter, allow, deny })?.view)
}

fn message(
    filter: Option<&str>,
    allow: Option<&Path>,
    deny: Option<&Path>,
    describe: impl FnOnce() -> Result<Description, Failure>,
) -> Result<Option<pb::Filter>, Failure> {
    if filter.is_none() && allow.is_none() && deny.is_none() {
        return Ok(None);
    }
    let id_column = if allow.or(deny).is_some() { describe()?.id_column } else { None };
    let ids = |file: &Path| {
        let (Ids { numbers, texts }, mut roaring) = (read_ids(file, id_column.as_deref())?, Vec::new());
        RoaringTreemap::from_iter(numbers).serialize_into(&mut roaring).map_err(Failure::work)?;
        Ok::<_, Failure>(pb::Ids { ids: Vec::new(), roaring, texts })
    };
    let (allow, deny) = (allow.map(ids).transpose()?, deny.map(ids).transpose()?);
    Ok(Some(pb::Filter { r#where: filter.map(|text| Where::Text(text.to_owned())), allow, deny }))
}

/// The ids of a file, one a line, as the corpus has them; empty lines are passed over.
pub(crate) fn read_ids(path: &Path, id_column: Option<&str>) -> Result<Ids, Failure> {
    let mut input = Input::open(path)?;
    let (mut text, shown) = (String::new(), input.name().to_owned());
    std::io::Read::read_to_string(&mut input, &mut text)
        .map_err(|error| Error::field(shown.clone(), format!("it cannot be read: {error}")))?;
    if id_column.is_some() {
        // A text is as it stands.
        let texts = text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect();
        return Ok(Ids { texts, ..Ids::default() });
    }
    let lines = text.lines().zip(0..).map(|(line, row)| (line.trim(), row)).filter(|(line, _)| !line.is_empty());
    let id = |(line, row): (&str, u64)| {
        line.parse().map_err(|_| Error::row(shown.clone(), row, format!("{line:?} is no id; a whole number is")))
    };
    Ok(Ids { numbers: lines.map(id).collect::<Result<_, _>>()?, ..Ids::default() })
}
