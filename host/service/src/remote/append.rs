//! Rows of a file as one append: messages that are made as the server takes them.

use megaring_core::{Error, RowType};
use megaring_corpus::import::{Import, Progress};
use megaring_corpus::{Appended, Mode, Rows};
use megaring_proto::v1 as pb;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

use super::{Remote, convert};
use crate::console::Failure;

/// Where the messages of an append go.
pub(super) type Sender = mpsc::Sender<pb::AppendRequest>;

/// What a message of rows takes at most, unless one row takes more.
const MESSAGE_BYTES: usize = 1 << 20;
/// Messages that are made before the server takes them.
const AHEAD: usize = 4;

impl Remote {
    /// Adds all rows of a file: all of them or, whatever fails, none.
    pub(crate) fn append(
        &mut self,
        name: &str,
        import: &mut Import,
        mode: Mode,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Appended, Failure> {
        let (sender, messages) = mpsc::channel(AHEAD);
        let (mut corpora, messages) = (self.corpora.clone(), ReceiverStream::new(messages));
        let call = self.runtime.spawn(async move {
            match mode {
                Mode::Append => corpora.append(messages).await,
                Mode::Upsert => corpora.upsert(messages).await,
            }
        });
        let sent = send_all(name, import, &sender, progress);
        if let Err(error) = sent {
            // The call goes before what it reads from, which must not end as if all had been sent.
            call.abort();
            self.given_up.push(sender);
            return Err(error.into());
        }
        drop(sender);
        let ended = self.runtime.block_on(call).map_err(Failure::work)?;
        let appended = ended.map_err(|status| self.failure(&status))?.into_inner();
        Ok(Appended {
            rows: appended.rows as usize,
            replaced: appended.replaced as usize,
            total_rows: appended.total_rows as usize,
            generation: appended.generation as u32,
            segments: appended.segments as usize,
        })
    }
}

/// Sends all rows, or as many as the server takes: who has ended the call early says why.
fn send_all(name: &str, import: &mut Import, sender: &Sender, progress: &mut dyn FnMut(Progress)) -> Result<(), Error> {
    let first = pb::AppendRequest { corpus: name.to_owned(), rows: None };
    if sender.blocking_send(first).is_err() {
        return Ok(());
    }
    while let Some(rows) = import.next() {
        if !send(&rows?, import.row_type(), sender)? {
            break;
        }
        progress(import.progress());
    }
    progress(import.progress());
    Ok(())
}

/// Whether all of these rows were taken.
fn send(rows: &Rows, row_type: RowType, sender: &Sender) -> Result<bool, Error> {
    let mut at_once = (MESSAGE_BYTES / (4 * rows.embeddings.dim.max(1))).max(1);
    let mut begin = 0;
    while begin < rows.len() {
        let end = rows.len().min(begin + at_once);
        let message =
            pb::AppendRequest { corpus: String::new(), rows: Some(convert::rows(rows, row_type, begin..end)?) };
        // Titles and further columns may be most of it.
        if message.encoded_len() > 2 * MESSAGE_BYTES && end - begin > 1 {
            at_once = (end - begin).div_ceil(2);
            continue;
        }
        if sender.blocking_send(message).is_err() {
            return Ok(false);
        }
        begin = end;
    }
    Ok(true)
}
