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

    fn refuse(self, field: &str, bytes: usize) -> Result<(), Error> {
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
