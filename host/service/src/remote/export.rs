//! An export: a corpus's rows by stretches of their numbers, all of one version.

use std::path::Path;

use megaring_corpus::import::Format;
use megaring_corpus::{Description, ExportFile, Fetched};
use megaring_proto::v1 as pb;
use megaring_proto::v1::fetch_request::Which;
use tonic::Code;

use super::{Remote, is_too_large};
use crate::console::{Failure, message};

/// Vectors that are asked for at a time, in bytes.
const PAGE_BYTES: usize = 8 << 20;
/// How often an export is begun.
const BEGINNINGS: usize = 5;

impl Remote {
    /// Writes a corpus's rows into a file that is not there yet; the number of rows comes back.
    pub(crate) fn export(&self, name: &str, path: &Path, format: Format) -> Result<usize, Failure> {
        for _ in 0..BEGINNINGS {
            let corpus = self.describe(name)?;
            let file = ExportFile::create(path, format, corpus.rows, corpus.row_type)?;
            if self.write(&corpus, format, file)? {
                return Ok(corpus.rows);
            }
            message(&format!("{name} changed while it was read; the export begins anew"));
        }
        Err(Failure::Work(format!("{name} changed each of {BEGINNINGS} times that it was read; nothing is written")))
    }

    /// Whether the file is written: not where the corpus changes meanwhile.
    fn write(&self, corpus: &Description, format: Format, mut file: ExportFile) -> Result<bool, Failure> {
        let columns = match format {
            Format::ArrowFile | Format::Parquet => self.columns(corpus)?,
            _ => vec!["embedding".to_owned()],
        };
        let numbers = (corpus.rows + corpus.deleted_rows) as u32;
        let mut at_once = (PAGE_BYTES / (4 * corpus.row_type.width().max(1))).max(1) as u32;
        let mut begin = 0;
        while begin < numbers {
            let end = numbers.min(begin.saturating_add(at_once));
            let range = pb::RowRange { begin, end: Some(end) };
            let mut corpora = self.corpora.clone();
            let page = match self.runtime.block_on(corpora.fetch(request(corpus, range, columns.clone()))) {
                Ok(page) => page.into_inner(),
                Err(status) if is_too_large(&status) && at_once > 1 => {
                    at_once = at_once.div_ceil(2);
                    continue;
                }
                Err(status) => return Err(self.failure(&status)),
            };
            if page.generation != u64::from(corpus.generation) {
                return Ok(false);
            }
            if !page.rows.unwrap_or_default().numbers.is_empty() {
                file.push(&Fetched::of_stream(&page.columns)?)?;
            }
            begin = end;
        }
        file.finish()?;
        Ok(true)
    }

    /// The columns that all rows have, with one type.
    fn columns(&self, corpus: &Description) -> Result<Vec<String>, Failure> {
        let mut columns = Vec::new();
        for column in &corpus.columns {
            let none = pb::RowRange { begin: 0, end: Some(0) };
            let mut corpora = self.corpora.clone();
            match self.runtime.block_on(corpora.fetch(request(corpus, none, vec![column.clone()]))) {
                Ok(_) => columns.push(column.clone()),
                Err(status) if status.code() == Code::InvalidArgument => {}
                Err(status) => return Err(self.failure(&status)),
            }
        }
        Ok(columns)
    }
}

fn request(corpus: &Description, range: pb::RowRange, columns: Vec<String>) -> pb::FetchRequest {
    pb::FetchRequest { corpus: corpus.name.clone(), which: Some(Which::Range(range)), columns }
}
