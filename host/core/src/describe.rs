//! The rules for jobs that are only described ([`Shape`]), once for the gRPC call and the command line. Fields are
//! named as `megaring.v1.ExplainRequest` has them.

use crate::error::Error;
use crate::matrix::MAX_DIM;
use crate::operation::Shape;

/// Items of the batch.
pub(crate) fn items(shape: &Shape) -> Result<u64, Error> {
    at_least_one("items", shape.items)
}

/// Answers of each query.
pub(crate) fn hits(shape: &Shape) -> Result<u64, Error> {
    match shape.k {
        0 => Err(Error::field("k", "0 answers are asked for; ask for at least 1")),
        k => Ok(k),
    }
}

/// Rows and elements of the embeddings: of the corpus that is named, or as given.
pub(crate) fn corpus_size(shape: &Shape) -> Result<(u64, u64), Error> {
    no_text(shape)?;
    if let Some(corpus) = &shape.corpus {
        refuse_size(shape)?;
        return Ok((corpus.rows() as u64, corpus.dim() as u64));
    }
    let rows = rows(shape)?;
    match shape.dim {
        dim @ 1.. if dim <= MAX_DIM as u64 => Ok((rows, dim)),
        dim => Err(Error::field("dim", format!("{dim} is not within 1 and {MAX_DIM}"))),
    }
}

/// Points in 5-D: of the corpus that is named, or as given.
pub(crate) fn points(shape: &Shape, axes: u64) -> Result<u64, Error> {
    no_text(shape)?;
    if let Some(corpus) = &shape.corpus {
        refuse_size(shape)?;
        corpus.require_coordinates()?;
        return Ok(corpus.rows() as u64);
    }
    match shape.dim {
        dim if dim == 0 || dim == axes => rows(shape),
        dim => Err(Error::field("dim", format!("{dim}; points have five dimensions, leave it out"))),
    }
}

/// Bytes of texts, which no corpus has.
pub(crate) fn text_bytes(shape: &Shape) -> Result<u64, Error> {
    if shape.corpus.is_some() {
        return Err(Error::field("corpus", "the operation reads texts, no corpus"));
    }
    for (field, number) in [("rows", shape.rows), ("dim", shape.dim)] {
        if number != 0 {
            return Err(Error::field(field, "leave it out: the operation reads texts"));
        }
    }
    at_least_one("text_bytes", shape.text_bytes)
}

fn no_text(shape: &Shape) -> Result<(), Error> {
    match shape.text_bytes {
        0 => Ok(()),
        _ => Err(Error::field("text_bytes", "leave it out: the operation reads no texts")),
    }
}

fn refuse_size(shape: &Shape) -> Result<(), Error> {
    match [("rows", shape.rows), ("dim", shape.dim)].into_iter().find(|(_, number)| *number != 0) {
        Some((field, _)) => Err(Error::field(field, "leave it out: the corpus that is named says it")),
        None => Ok(()),
    }
}

fn rows(shape: &Shape) -> Result<u64, Error> {
    if shape.rows > u64::from(u32::MAX) {
        return Err(Error::field("rows", format!("{}; rows are numbered by 32 bits", shape.rows)));
    }
    at_least_one("rows", shape.rows)
}

fn at_least_one(field: &str, number: u64) -> Result<u64, Error> {
    if number == 0 { Err(Error::field(field, "0; at least 1 is needed")) } else { Ok(number) }
}
