//! Which columns of a file are read, and what they are called here.

use std::sync::Arc;

use arrow_schema::{Schema, SchemaRef};
use megaring_core::Error;

use crate::columns::{self, EMBEDDING};
use crate::fault::Fault;
use crate::text_ids::{WAY_OUT, check_column};

/// Which columns are read. By default all, under the names they have; one that is not read is not looked at.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    /// The names here and in the file.
    renamed: Vec<(String, String)>,
    ignored: Vec<String>,
    embeddings_only: bool,
    id_column: Option<String>,
}

/// Stands for the id column where columns are known by the names that they have in every corpus.
pub(super) const ID: &str = "the id column";

impl Columns {
    /// The embeddings, and nothing beside them.
    #[must_use]
    pub fn embeddings() -> Self {
        Self { embeddings_only: true, ..Self::default() }
    }

    /// Takes the file's column `in_file` as the column `name`. One that has that name in the file is left behind.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `column` for a name without a meaning here, or one given twice.
    pub fn rename(&mut self, name: &str, in_file: &str) -> Result<(), Error> {
        if self.embeddings_only && name != EMBEDDING {
            return Err(Error::field("column", format!("only {EMBEDDING} is read here, not {name:?}")));
        }
        if !columns::is_known(name, true) {
            let known = columns::known().collect::<Vec<_>>().join(", ");
            return Err(Error::field("column", format!("{name:?} is no column of a corpus; those are {known}")));
        }
        if let Some((name, in_file)) = self.renamed.iter().find(|(here, there)| here == name || there == in_file) {
            return Err(Error::field("column", format!("{name}={in_file} is given already")));
        }
        self.renamed.push((name.to_owned(), in_file.to_owned()));
        Ok(())
    }

    /// Has the rows' ids read, as text, from the file's column of this name. Rows without one are bad.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming `id_column` for a name that has another meaning.
    pub fn read_ids(&mut self, column: &str) -> Result<(), Error> {
        check_column(column)?;
        self.id_column = Some(column.to_owned());
        Ok(())
    }

    /// The column that has the rows' ids as text.
    pub(super) fn id_column(&self) -> Option<&str> {
        self.id_column.as_deref()
    }

    /// Which of the columns that are known here one of the file is, the id column among them.
    pub(super) fn known(&self, in_file: &str) -> Option<&'static str> {
        let name = self.name(in_file)?;
        let is_id = self.id_column() == Some(name);
        columns::known().find(|known| *known == name).or_else(|| is_id.then_some(ID))
    }

    /// Leaves the file's column `in_file` behind; it need not be there.
    pub fn ignore(&mut self, in_file: &str) {
        self.ignored.push(in_file.to_owned());
    }

    /// Whether all are read under the names they have.
    pub(super) fn are_all(&self) -> bool {
        self.renamed.is_empty() && self.ignored.is_empty() && !self.embeddings_only
    }

    /// The names here of those that were given one.
    pub(super) fn renamed(&self) -> impl Iterator<Item = &str> {
        self.renamed.iter().map(|(here, _)| here.as_str())
    }

    /// What a column of the file is called here, if it is read.
    pub(super) fn name<'a>(&'a self, in_file: &'a str) -> Option<&'a str> {
        if self.ignored.iter().any(|ignored| ignored == in_file) {
            return None;
        }
        let name = match self.renamed.iter().find(|(_, there)| there == in_file) {
            Some((here, _)) => here,
            None if self.renamed().any(|here| here == in_file) => return None,
            None => in_file,
        };
        (!self.embeddings_only || name == EMBEDDING).then_some(name)
    }

    /// What a column is called in the file.
    pub(super) fn in_file<'a>(&'a self, name: &'a str) -> &'a str {
        if let Some(column) = self.id_column().filter(|_| name == ID) {
            return column;
        }
        self.renamed.iter().find(|(here, _)| here == name).map_or(name, |(_, there)| there)
    }

    /// Whether a column is left behind only because another was given its name.
    pub(super) fn has_lost_its_name(&self, in_file: &str) -> bool {
        let is_read = self.renamed.iter().any(|(_, there)| there == in_file);
        let is_unwanted = self.embeddings_only || self.ignored.iter().any(|ignored| ignored == in_file);
        !is_read && !is_unwanted && self.renamed().any(|here| here == in_file)
    }

    /// The columns of a schema that are read: their places in it, and what remains of it, named as here.
    pub(super) fn project(&self, schema: &Schema) -> Result<(Vec<usize>, SchemaRef), Fault> {
        let missing = |name: &str| self.missing(name, schema.fields().iter().map(|field| field.name().as_str()));
        if let Some((_, in_file)) = self.renamed.iter().find(|(_, there)| schema.field_with_name(there).is_err()) {
            return Err(missing(in_file));
        }
        let read =
            schema.fields().iter().enumerate().filter_map(|(at, field)| Some((at, field, self.name(field.name())?)));
        let (places, fields): (Vec<usize>, Vec<_>) =
            read.map(|(at, field, name)| (at, Arc::new(field.as_ref().clone().with_name(name)))).unzip();
        let read = Schema::new(fields);
        if let Some(column) = self.id_column().filter(|column| read.field_with_name(column).is_err()) {
            return Err(missing(column));
        }
        match read.field_with_name(EMBEDDING) {
            Ok(_) => Ok((places, Arc::new(read))),
            Err(_) => Err(missing(EMBEDDING)),
        }
    }

    /// The array that has the vectors, of arrays with these names and numbers of axes: the one asked for, else
    /// `embedding`, else the only one of two axes.
    pub(super) fn matrix<'a>(
        &'a self,
        arrays: impl Iterator<Item = (&'a str, usize)> + Clone,
    ) -> Result<&'a str, Fault> {
        let wanted = self.in_file(EMBEDDING);
        if arrays.clone().any(|(name, _)| name == wanted) {
            return Ok(wanted);
        }
        let mut matrices = arrays.clone().filter(|(_, axes)| *axes == 2);
        match (matrices.next(), matrices.next()) {
            (Some((only, _)), None) if wanted == EMBEDDING => Ok(only),
            _ => Err(self.missing(wanted, arrays.map(|(name, _)| name))),
        }
    }

    /// The refusal of a file that lacks a column, among those `there`.
    pub(super) fn missing<'a>(&self, name: &str, there: impl Iterator<Item = &'a str>) -> Fault {
        let there = there.collect::<Vec<_>>().join(", ");
        let help = format!("`--column {EMBEDDING}=NAME` says which has the vectors");
        let help = if self.in_file(EMBEDDING) == name { format!("; {help}") } else { String::new() };
        Fault::column(name, format!("the column is missing; there are {there}{help}"))
    }
}

/// What helps where a column that happens to have a name with a meaning here is of another type.
pub(super) fn way_out(name: &str, in_file: &str) -> String {
    match name {
        ID => WAY_OUT.to_owned(),
        EMBEDDING => format!("`--column {EMBEDDING}=NAME` names another column"),
        _ => format!("`--ignore-column {in_file}` leaves it out"),
    }
}
