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

/// The wire's operations are named after the stems.
fn operation(number: i32) -> Result<Opcode, Error> {
    let Ok(operation) = pb::Operation::try_from(number) else {
        return Err(Error::field("operation", format!("{number} is no operation")));
    };
    let explained = |opcode: &&Opcode| pb::Operation::from_str_name(&operation_name(**opcode)).is_some();
    let found = Opcode::ALL.iter().filter(explained).find(|opcode| operation_name(**opcode) == operation.as_str_name());
    found.copied().ok_or_else(|| {
        let names: Vec<_> = Opcode::ALL.iter().filter(explained).map(|opcode| opcode.name()).collect();
        Error::field("operation", format!("one is needed: {}", names.join(", ")))
    })
}

/// An operation, or none where it is unspecified.
///
/// # Errors
/// [`Error::Invalid`] for a number that is no operation.
pub(crate) fn any_operation(number: i32) -> Result<Option<Opcode>, Error> {
    if number == pb::Operation::Unspecified as i32 { Ok(None) } else { operation(number).map(Some) }
}

/// What the wire calls an operation.
pub(crate) fn operation_name(opcode: Opcode) -> String {
    format!("OPERATION_{}", opcode.name().to_ascii_uppercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_but_nop_can_be_asked_about() {
        for opcode in Opcode::ALL {
            let number = pb::Operation::from_str_name(&operation_name(opcode)).map(i32::from);
            assert_eq!(number.is_some(), opcode != Opcode::Nop, "{opcode}");
            assert!(number.is_none_or(|number| operation(number).is_ok_and(|found| found == opcode)), "{opcode}");
        }
        for number in 1..=64 {
            assert!(operation(number).is_ok() == pb::Operation::try_from(number).is_ok(), "{number}");
        }
        assert!(operation(0).is_err_and(|error| error.to_string().contains("search, score, encode, nearest")));
    }
}
