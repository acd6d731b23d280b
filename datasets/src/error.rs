//! The one error of this crate: data that is not what its format says.

/// Data that could not be read. The message names the place (line, field or offset) and what was expected there.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A `.npy` file that this crate does not read: anything but version 1 to 3, `<f4`, C order, two dimensions, exact
    /// length.
    #[error("npy: {0}")]
    Npy(String),
    /// A line of a JSON-lines file, counted from 1, that does not hold the record expected there.
    #[error("line {line} of {file}: {reason}")]
    JsonLine {
        /// The file's name, without a folder.
        file: &'static str,
        /// The line, counted from 1.
        line: usize,
        /// What was wrong with it.
        reason: String,
    },
    /// An encoder profile that is not of the form of `lexicon.toml`.
    #[error("encoder profile: {0}")]
    Profile(String),
    /// The sample's records and its embeddings do not belong together.
    #[error("the sample has {records} records but {rows} embeddings")]
    SampleMismatch {
        /// Records in the JSON-lines file.
        records: usize,
        /// Rows of the matrix.
        rows: usize,
    },
}
