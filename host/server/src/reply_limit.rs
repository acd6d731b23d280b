//! The largest reply: what would exceed it is refused, where that shows before the work is done, and otherwise as soon
//! as it shows.

use megaring_core::Error;
use prost::Message;

/// Bytes of the largest message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ReplyLimit(pub usize);

impl ReplyLimit {
    /// Refuses work whose answer could not be sent. `field` holds the items to send fewer of; `each` is the least that
    /// one of `items * answers` takes, in bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field.
    pub fn ensure(self, field: &str, items: usize, answers: usize, each: usize) -> Result<(), Error> {
        self.refuse(field, items.saturating_mul(answers).saturating_mul(each))
    }

    /// How many answers of `each` bytes fit, where it shows only as they are found how many there are.
    #[must_use]
    pub fn answers(self, each: usize) -> usize {
        self.0 / each
    }

    /// Lets a reply pass that fits.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field.
    pub fn check<M: Message>(self, field: &str, message: M) -> Result<M, Error> {
        self.refuse(field, message.encoded_len()).map(|()| message)
    }

    /// Refuses a reply of more bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the field.
    pub fn refuse(self, field: &str, bytes: usize) -> Result<(), Error> {
        if bytes <= self.0 {
            return Ok(());
        }
        let text = format!(
            "the reply would be {bytes} bytes or more, and a message is at most {}; send fewer at a time",
            self.0
        );
        Err(Error::field(field, text))
    }
}

#[cfg(test)]
mod tests {
    use megaring_proto::v1 as pb;

    use super::*;

    #[test]
    fn exactly_what_fits_passes_and_a_byte_more_does_not() {
        let limit = ReplyLimit(600);
        assert!(limit.ensure("queries", 10, 10, 6).is_ok());
        let refused = limit.ensure("queries", 10, 10, 7).map_err(|error| error.to_string());
        let says = |text: &str| refused.as_ref().is_err_and(|error| error.contains(text));
        assert!(says("queries") && says("700 bytes") && says("at most 600"), "{refused:?}");
        assert!(limit.ensure("queries", usize::MAX, 2, 1).is_err(), "no product wraps");
        assert_eq!((limit.answers(6), limit.answers(7)), (100, 85));
        let reply = pb::EncodeResponse { profile: "p".repeat(50), ..pb::EncodeResponse::default() };
        let bytes = reply.encoded_len();
        assert!(ReplyLimit(bytes).check("memories", reply.clone()).is_ok());
        assert!(ReplyLimit(bytes - 1).check("memories", reply).is_err());
    }
}
