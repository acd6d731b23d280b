//! The corpora of a command: those of the data folder, or a server's.

use std::path::Path;
use std::sync::Arc;

use megaring_core::{Error, RowType};
use megaring_corpus::import::{self, Format, Import, Progress, Report};
use megaring_corpus::{Access, CreateOptions, Deleted, Description, Mode, Selection, Store};
use megaring_proto::v1 as pb;
use serde_json::Value as Json;

use crate::config::Settings;
use crate::console::Failure;
use crate::remote::{Deletion, Remote};

/// Ids: numbers, or texts of a corpus that has an id column.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Ids {
    pub(crate) numbers: Vec<u64>,
    pub(crate) texts: Vec<String>,
}

impl Ids {
    /// Those of a command line, as the corpus has them; numbers may be several, with commas between them.
    pub(crate) fn of_arguments(ids: &[String], id_column: Option<&str>) -> Result<Self, Failure> {
        if id_column.is_some() {
            return Ok(Self { texts: ids.to_vec(), ..Self::default() });
        }
        let number = |id: &str| {
            id.parse().map_err(|_| Failure::Usage(format!("{id:?} is no id of this corpus; a whole number is")))
        };
        // Texts may have commas.
        Ok(Self {
            numbers: ids.iter().flat_map(|ids| ids.split(',')).map(number).collect::<Result<_, _>>()?,
            ..Self::default()
        })
    }

    pub(crate) fn extend(&mut self, mut more: Self) {
        self.numbers.append(&mut more.numbers);
        self.texts.append(&mut more.texts);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn len(&self) -> usize {
        self.numbers.len() + self.texts.len()
    }

    /// As people read them.
    pub(crate) fn shown(&self) -> impl Iterator<Item = String> {
        self.numbers.iter().map(u64::to_string).chain(self.texts.iter().cloned())
    }

    /// As programs read them.
    pub(crate) fn json(&self) -> Vec<Json> {
        let texts = self.texts.iter().map(|text| Json::from(text.as_str()));
        self.numbers.iter().map(|number| Json::from(*number)).chain(texts).collect()
    }

    /// As a call has them.
    pub(crate) fn message(self) -> pb::Ids {
        pb::Ids { ids: self.numbers, texts: self.texts, ..pb::Ids::default() }
    }
}

/// Where corpora are.
pub(crate) enum Corpora {
    /// In a data folder.
    Here(Arc<Store>),
    /// At a server.
    There(Box<Remote>),
}

impl Settings {
    /// The corpora that the settings name. `access` is what a data folder is opened for.
    pub(crate) fn corpora(&self, access: Access) -> Result<Corpora, Failure> {
        match self.remote()? {
            Some(remote) => Ok(Corpora::There(remote)),
            None => Ok(Corpora::Here(self.store(access)?)),
        }
    }

    /// The server that is to do the work, where one is named.
    pub(crate) fn remote(&self) -> Result<Option<Box<Remote>>, Failure> {
        self.server().map(|address| Remote::connect(address, self).map(Box::new)).transpose()
    }
}

impl Corpora {
    pub(crate) fn create(&self, name: &str, row_type: RowType, options: CreateOptions) -> Result<Description, Failure> {
        match self {
            Self::Here(store) => Ok(store.create_with(name, row_type, options)?),
            Self::There(remote) => remote.create(name, row_type, options),
        }
    }

    pub(crate) fn list(&self) -> Result<Vec<Description>, Failure> {
        match self {
            Self::Here(store) => Ok(store.list()),
            Self::There(remote) => remote.list(),
        }
    }

    pub(crate) fn describe(&self, name: &str) -> Result<Description, Failure> {
        match self {
            Self::Here(store) => Ok(store.describe(name)?),
            Self::There(remote) => remote.describe(name),
        }
    }

    /// The description of a corpus, if it is there.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Description>, Failure> {
        match self {
            Self::Here(store) => match store.describe(name) {
                Ok(corpus) => Ok(Some(corpus)),
                Err(Error::CorpusNotFound { .. }) => Ok(None),
                Err(error) => Err(error.into()),
            },
            Self::There(remote) => remote.find(name),
        }
    }

    pub(crate) fn drop_corpus(&self, name: &str) -> Result<(), Failure> {
        match self {
            Self::Here(store) => Ok(store.drop_corpus(name)?),
            Self::There(remote) => remote.drop_corpus(name),
        }
    }

    pub(crate) fn delete(&self, name: &str, ids: &Ids) -> Result<Deletion, Failure> {
        match self {
            Self::Here(store) => Ok(store.delete_all(name, &ids.numbers, &ids.texts)?.into()),
            Self::There(remote) => remote.delete(name, ids),
        }
    }

    /// Deletes the rows of which a condition is true.
    pub(crate) fn delete_selected(&self, name: &str, filter: String) -> Result<Deletion, Failure> {
        match self {
            Self::Here(store) => {
                let selection = Selection { filter: Some(filter.parse()?), ..Selection::default() };
                Ok(store.delete_selected(name, &selection, &|| true)?.into())
            }
            Self::There(remote) => remote.delete_selected(name, filter),
        }
    }

    /// Writes a corpus's rows into a file that is not there yet; the number of rows comes back.
    pub(crate) fn export(&self, name: &str, path: &Path, format: Format) -> Result<usize, Failure> {
        match self {
            Self::Here(store) => Ok(store.export(name, path, format)?),
            Self::There(remote) => remote.export(name, path, format),
        }
    }

    /// Adds all rows of a file to a corpus, or none.
    pub(crate) fn add(
        &mut self,
        name: &str,
        mut file: Import,
        mode: Mode,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Report, Failure> {
        let remote = match self {
            Self::Here(store) => return Ok(import::run_as(store, name, file, mode, progress)?),
            Self::There(remote) => remote,
        };
        let appended = remote.append(name, &mut file, mode, progress)?;
        let (skipped, first_skipped) = (file.progress().skipped, file.first_skipped().cloned());
        Ok(Report { appended, format: file.format(), as_is: false, skipped, first_skipped, notes: file.notes() })
    }
}

impl From<Deleted> for Deletion {
    fn from(deleted: Deleted) -> Self {
        let missing_ids = Ids { numbers: deleted.missing, texts: deleted.missing_texts };
        Self {
            rows: deleted.rows as u64,
            missing: missing_ids.len() as u64,
            missing_ids,
            total_rows: deleted.total_rows as u64,
            generation: deleted.generation.into(),
        }
    }
}
