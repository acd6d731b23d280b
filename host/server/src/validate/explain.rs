//! A job in numbers: for [`Admin.Explain`](megaring_proto::v1::admin_server::Admin::explain). The rules for its numbers
//! are the operation's own ([`megaring_core::Opcode::describe`]).

use std::sync::Arc;

use megaring_core::corpus::CorpusView;
use megaring_core::operation::Shape;
use megaring_core::{Error, Opcode};
use megaring_engine::router::Question;
use megaring_proto::v1 as pb;

use super::backend;

/// A question to the router, about `corpus` where the request names one.
///
/// # Errors
/// [`Error::Invalid`] naming the field; [`Error::Precondition`] for nearest points of a corpus that has none.
pub fn explain(request: &pb::ExplainRequest, corpus: Option<Arc<CorpusView>>) -> Result<Question, Error> {
    let opcode = operation(request.operation)?;
    let wish = backend(request.backend)?;
    if corpus.is_some() && request.cold {
        return Err(Error::field("cold", "leave it out: of the corpus that is named, what devices lack now counts"));
    }
    let pb::ExplainRequest { items, rows, text_bytes, .. } = *request;
    let (dim, k) = (u64::from(request.dim), u64::from(request.k));
    let description = opcode.describe(&Shape { items, rows, dim, k, text_bytes, corpus: corpus.clone() })?;
    let cold = request.cold || corpus.is_some();
    Ok(Question { opcode, description, corpus, wish, cold })
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
