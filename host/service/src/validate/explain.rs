//! The size of a job in words: for [`Admin.Explain`](megaring_proto::v1::admin_server::Admin::explain).

use std::sync::Arc;

use megaring_core::corpus::CorpusView;
use megaring_core::job::{MAX_DIM, Shape};
use megaring_core::{Error, Opcode};
use megaring_proto::v1 as pb;

use super::{backend, hits, require_coordinates};
use crate::router::Question;

/// Elements of a point.
const POINT: usize = 5;

/// A question to the router, about `corpus` where the request names one.
///
/// # Errors
/// [`Error::Invalid`] naming the field; [`Error::Precondition`] for nearest points of a corpus that has none.
pub fn explain(request: &pb::ExplainRequest, corpus: Option<Arc<CorpusView>>) -> Result<Question, Error> {
    let opcode = operation(request.operation)?;
    let wish = backend(request.backend)?;
    let items = at_least_one("items", request.items)?;
    let k = if matches!(opcode, Opcode::Search | Opcode::Nearest) { hits(request.k)? } else { 0 };
    let (rows, dim) = match &corpus {
        Some(_) if opcode == Opcode::Encode => return Err(Error::field("corpus", "encoding reads texts, no corpus")),
        Some(view) => of_corpus(request, opcode, view)?,
        None => sizes(request, opcode)?,
    };
    // Of a corpus that is there, what devices lack now.
    let cold = request.cold || corpus.is_some();
    Ok(Question { shape: Shape { opcode, items, rows, dim, k }, wish, corpus, cold })
}

fn operation(number: i32) -> Result<Opcode, Error> {
    match pb::Operation::try_from(number) {
        Ok(pb::Operation::Search) => Ok(Opcode::Search),
        Ok(pb::Operation::Score) => Ok(Opcode::Score),
        Ok(pb::Operation::Nearest) => Ok(Opcode::Nearest),
        Ok(pb::Operation::Encode) => Ok(Opcode::Encode),
        Ok(pb::Operation::Unspecified) => Err(Error::field("operation", "search, score, nearest or encode is needed")),
        Err(_) => Err(Error::field("operation", format!("{number} is no operation"))),
    }
}

fn of_corpus(request: &pb::ExplainRequest, opcode: Opcode, view: &Arc<CorpusView>) -> Result<(usize, usize), Error> {
    for (field, is_given) in [("rows", request.rows != 0), ("dim", request.dim != 0), ("cold", request.cold)] {
        if is_given {
            return Err(Error::field(field, "leave it out: the corpus that is named says it"));
        }
    }
    if opcode == Opcode::Nearest {
        require_coordinates(view)?;
        return Ok((view.rows(), POINT));
    }
    Ok((view.rows(), view.dim()))
}

fn sizes(request: &pb::ExplainRequest, opcode: Opcode) -> Result<(usize, usize), Error> {
    match opcode {
        Opcode::Encode => Ok((at_least_one("text_bytes", request.text_bytes)?, 1)),
        Opcode::Nearest => match request.dim as usize {
            0 | POINT => Ok((rows(request)?, POINT)),
            dim => Err(Error::field("dim", format!("{dim}; points have five dimensions, leave it out"))),
        },
        _ => match request.dim as usize {
            dim @ 1..=MAX_DIM => Ok((rows(request)?, dim)),
            dim => Err(Error::field("dim", format!("{dim} is not within 1 and {MAX_DIM}"))),
        },
    }
}

fn rows(request: &pb::ExplainRequest) -> Result<usize, Error> {
    if request.rows > u64::from(u32::MAX) {
        return Err(Error::field("rows", format!("{}; rows are numbered by 32 bits", request.rows)));
    }
    at_least_one("rows", request.rows)
}

fn at_least_one(field: &str, number: u64) -> Result<usize, Error> {
    if number == 0 {
        return Err(Error::field(field, "0; at least 1 is needed"));
    }
    usize::try_from(number).map_err(|_| Error::field(field, format!("{number} is more than this machine counts")))
}
