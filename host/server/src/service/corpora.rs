//! `megaring.v1.Corpora`: the handlers that use the store. All of them touch the disk, so all run on threads for
//! blocking work.

use megaring_core::corpus::CorpusView;
use megaring_core::{Error, Violation};
use megaring_corpus::{Appender, CreateOptions, Deleted, Store};
use megaring_engine::admission::Demand;
use megaring_ledger::Kind;
use megaring_proto::v1 as pb;
use megaring_proto::v1::corpora_server::Corpora;
use megaring_proto::v1::fetch_request::Which;
use prost::Message as _;
use tonic::{Request, Response, Status, Streaming};

use super::{Caller, Service, blocking, blocking_while_wanted, received};
use crate::error::{answered, status};
use crate::reply_limit::ReplyLimit;
use crate::{reply, validate};

#[tonic::async_trait]
impl Corpora for Service {
    async fn create(&self, request: Request<pb::CreateRequest>) -> Result<Response<pb::CreateResponse>, Status> {
        let caller = Caller::of(&request).map_err(|error| status(&error))?;
        let (service, request) = (self.clone(), request.into_inner());
        let work = move || {
            service.refuse_if_draining()?;
            let id_column = Some(request.id_column).filter(|column| !column.is_empty());
            let options = CreateOptions { unique_ids: request.unique_ids, id_column };
            let row_type = validate::row_type(request.dtype, request.dim)?;
            service.engine.store().create_with(&request.name, row_type, options)
        };
        let made = answered(self.charged(&caller, blocking(work))).await?;
        Ok(Response::new(pb::CreateResponse { corpus: Some(reply::corpus(made)) }))
    }

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<pb::AppendResponse>, Status> {
        self.add(request, Store::append).await
    }

    async fn upsert(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<pb::AppendResponse>, Status> {
        self.add(request, Store::upsert).await
    }

    async fn delete(
        &self,
        request: Request<Streaming<pb::DeleteRequest>>,
    ) -> Result<Response<pb::DeleteResponse>, Status> {
        let caller = Caller::of(&request).map_err(|error| status(&error))?;
        let mut messages = request.into_inner();
        let Some(first) = messages.message().await? else { return Err(unnamed()) };
        let pb::DeleteRequest { corpus, mut ids, mut text_ids, filter } = first;
        if corpus.is_empty() {
            return Err(status(&Error::field("corpus", FIRST_NAMES)));
        }
        let mut text_bytes = total_bytes(&text_ids);
        while let Some(more) = messages.message().await? {
            if !more.corpus.is_empty() && more.corpus != corpus {
                let reason = format!("ids are of one corpus, here {corpus:?}");
                return Err(status(&Error::field("corpus", reason)));
            }
            if ids.len() + text_ids.len() + more.ids.len() + more.text_ids.len() > MOST_IDS {
                let reason = format!("more than {MOST_IDS} ids; delete fewer at a time");
                return Err(status(&Error::field("ids", reason)));
            }
            if more.filter.is_some() {
                return Err(status(&Error::field("filter", "it belongs into the first message")));
            }
            text_bytes += total_bytes(&more.text_ids);
            if text_bytes > MOST_TEXT_BYTES {
                let reason = format!("more than {MOST_TEXT_BYTES} bytes of ids; delete fewer at a time");
                return Err(status(&Error::field("text_ids", reason)));
            }
            ids.extend(more.ids);
            text_ids.extend(more.text_ids);
        }
        if filter.is_some() && !(ids.is_empty() && text_ids.is_empty()) {
            return Err(status(&Error::field("filter", "ids are given too; send one of the two")));
        }
        // As an append's end.
        tokio::task::yield_now().await;
        let work = self.do_delete(&caller, corpus, (ids, text_ids), filter);
        let deleted = answered(self.charged(&caller, work)).await?;
        self.engine.telemetry().changed(Kind::DROPPED, caller.tenant(), caller.call(), deleted.rows as u64);
        Ok(Response::new(reply::deleted(deleted)))
    }

    async fn fetch(&self, request: Request<pb::FetchRequest>) -> Result<Response<pb::FetchResponse>, Status> {
        let caller = Caller::of(&request).map_err(|error| status(&error))?;
        let (service, request) = (self.clone(), request.into_inner());
        answered(self.charged(&caller, blocking(move || fetch(&service, request)))).await.map(Response::new)
    }

    async fn describe(&self, request: Request<pb::DescribeRequest>) -> Result<Response<pb::DescribeResponse>, Status> {
        let caller = Caller::of(&request).map_err(|error| status(&error))?;
        let (service, request) = (self.clone(), request.into_inner());
        let work = blocking(move || service.engine.store().describe(&request.name));
        let found = answered(self.charged(&caller, work)).await?;
        Ok(Response::new(pb::DescribeResponse { corpus: Some(reply::corpus(found)) }))
    }

    async fn list(&self, request: Request<pb::ListRequest>) -> Result<Response<pb::ListResponse>, Status> {
        let caller = Caller::of(&request).map_err(|error| status(&error))?;
        let service = self.clone();
        let work = blocking(move || Ok(service.engine.store().list()));
        let found = answered(self.charged(&caller, work)).await?;
        Ok(Response::new(pb::ListResponse { corpora: found.into_iter().map(reply::corpus).collect() }))
    }

    async fn drop(&self, request: Request<pb::DropRequest>) -> Result<Response<pb::DropResponse>, Status> {
        let caller = Caller::of(&request).map_err(|error| status(&error))?;
        let (service, request) = (self.clone(), request.into_inner());
        let work = move || {
            service.refuse_if_draining()?;
            let rows = service.engine.store().describe(&request.name).map_or(0, |corpus| corpus.rows);
            service.engine.store().drop_corpus(&request.name).map(|()| rows)
        };
        let rows = answered(self.charged(&caller, blocking(work))).await?;
        self.engine.telemetry().changed(Kind::DROPPED, caller.tenant(), caller.call(), rows as u64);
        Ok(Response::new(pb::DropResponse {}))
    }
}

/// Ids that one call deletes at most: they are held in memory.
const MOST_IDS: usize = 16 << 20;
/// Bytes of the texts among them.
const MOST_TEXT_BYTES: usize = 512 << 20;
/// Rows that one call fetches at most.
const MOST_FETCHED: usize = 1 << 20;
/// What the first message of a stream must do.
const FIRST_NAMES: &str = "the first message must name the corpus";

fn total_bytes(texts: &[String]) -> usize {
    texts.iter().map(String::len).sum()
}

fn unnamed() -> Status {
    status(&Error::field("corpus", "the stream ended before a message named the corpus"))
}

impl Service {
    async fn do_delete(
        &self,
        caller: &Caller,
        corpus: String,
        (ids, text_ids): (Vec<u64>, Vec<String>),
        filter: Option<pb::Filter>,
    ) -> Result<Deleted, Error> {
        self.refuse_if_draining()?;
        let engine = self.engine.clone();
        let Some(filter) = filter else {
            return blocking(move || engine.store().delete_all(&corpus, &ids, &text_ids)).await;
        };
        let permit = engine
            .filters()
            .admit(&caller.terms(None, None), Demand { bytes: 0, waiting_bytes: filter.encoded_len() })
            .await?;
        let work = blocking_while_wanted(move |wanted| {
            let _permit = permit;
            engine.store().delete_selected(&corpus, &validate::selection(Some(filter))?, wanted)
        });
        work.await
    }

    /// Takes the rows of a stream, by what `begin` begins.
    async fn add(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
        begin: fn(&Store, &str) -> Result<Appender, Error>,
    ) -> Result<Response<pb::AppendResponse>, Status> {
        let caller = Caller::of(&request).map_err(|error| status(&error))?;
        let reserved = self.reserve(&caller).map_err(|error| status(&error))?;
        let received = received(&request);
        let mut messages = request.into_inner();
        let Some(first) = messages.message().await? else { return Err(unnamed()) };
        let mut append = answered(Append::begin(self.clone(), first, begin)).await?;
        drop(received.next());
        while let Some(message) = messages.message().await? {
            append = answered(append.take(message)).await?;
            drop(received.next());
        }
        // A call that its client cancelled looks as if its messages had ended; but once the handler gives way, it is
        // dropped.
        tokio::task::yield_now().await;
        let rows = append.appender.rows() as u64;
        let appended = answered(append.commit()).await?;
        self.settle(&caller, reserved);
        self.engine.telemetry().changed(Kind::APPENDED, caller.tenant(), caller.call(), rows);
        Ok(Response::new(appended))
    }
}

fn fetch(service: &Service, request: pb::FetchRequest) -> Result<pb::FetchResponse, Error> {
    let pb::FetchRequest { corpus, which, columns } = request;
    let view = service.engine.store().view(&corpus)?;
    let (mut missing_ids, mut missing_text_ids) = (Vec::new(), Vec::new());
    let rows = match which {
        Some(Which::Rows(rows)) => validate::row_numbers("rows", rows, &view)?,
        Some(Which::Ids(ids)) => {
            let (numbers, texts) = validate::id_lists("ids", ids, MOST_FETCHED)?;
            let (mut rows, more);
            (rows, missing_ids) = megaring_corpus::find(&view, &numbers, MOST_FETCHED)?;
            (more, missing_text_ids) = megaring_corpus::find_texts(&view, &texts, MOST_FETCHED)?;
            rows.extend(more);
            rows
        }
        Some(Which::Range(range)) => stretch(&view, range, &columns, service.settings.reply_limit)?,
        None => return Err(Error::field("which", "name rows, ids or a range")),
    };
    if rows.len() > MOST_FETCHED {
        return Err(Error::field("rows", format!("{} rows; ask for at most {MOST_FETCHED}", rows.len())));
    }
    let limit = service.settings.reply_limit;
    let columns = megaring_corpus::fetch(&view, &rows, &columns, limit.0)?.to_stream()?.into();
    let rows = Some(pb::RowNumbers { numbers: rows });
    let generation = u64::from(view.generation());
    let fetched = pb::FetchResponse { rows, columns, missing_ids, generation, missing_text_ids };
    limit.check("rows", fetched)
}

/// The rows that are there of a stretch: no more than a reply could hold, which shows before they are listed.
fn stretch(view: &CorpusView, range: pb::RowRange, columns: &[String], limit: ReplyLimit) -> Result<Vec<u32>, Error> {
    let pb::RowRange { begin, end } = range;
    let end = end.map_or(view.rows(), |end| view.rows().min(end as usize));
    let runs = || view.visible_runs((begin as usize).min(end)..end);
    let with_vectors = columns.iter().any(|column| column == "embedding");
    let each = if with_vectors { view.dim() * size_of::<f32>() } else { 1 };
    limit.ensure("range", runs().map(|run| run.len()).sum(), 1, each)?;
    Ok(runs().flatten().map(|row| row as u32).collect())
}

/// An append under way. Dropped before its commit, nothing happened.
struct Append {
    corpus: String,
    appender: Appender,
    /// Messages taken.
    messages: usize,
}

impl Append {
    async fn begin(
        service: Service,
        mut first: pb::AppendRequest,
        begin: fn(&Store, &str) -> Result<Appender, Error>,
    ) -> Result<Self, Error> {
        let corpus = std::mem::take(&mut first.corpus);
        if corpus.is_empty() {
            return Err(Error::field("corpus", FIRST_NAMES));
        }
        let append = blocking(move || {
            service.refuse_if_draining()?;
            let appender = begin(service.engine.store(), &corpus)?;
            Ok(Self { corpus, appender, messages: 0 })
        });
        append.await?.take(first).await
    }

    /// Adds a message's rows.
    async fn take(mut self, message: pb::AppendRequest) -> Result<Self, Error> {
        blocking(move || {
            if !message.corpus.is_empty() && message.corpus != self.corpus {
                return Err(Error::field("corpus", format!("an append is to one corpus, here {:?}", self.corpus)));
            }
            self.messages += 1;
            let Some(rows) = message.rows else { return Ok(self) };
            let before = self.appender.rows();
            let pushed = validate::rows(rows, self.appender.row_type()).and_then(|rows| self.appender.push(rows));
            pushed.map_err(|error| located(error, self.messages, before))?;
            Ok(self)
        })
        .await
    }

    async fn commit(self) -> Result<pb::AppendResponse, Error> {
        blocking(move || {
            let committed = self.appender.commit().map_err(|error| match error {
                Error::Invalid(Violation { field, row, description }) => {
                    let description = format!("{description} (rows of all messages are counted)");
                    Error::Invalid(Violation { field: on_the_wire(&field), row, description })
                }
                other => other,
            });
            committed.map(|appended| reply::appended(&appended))
        })
        .await
    }
}

/// What a column is called in a request.
fn on_the_wire(column: &str) -> String {
    match column {
        "memory_id" => "rows.memory_ids".to_owned(),
        "rows" => "rows".to_owned(),
        known if known.starts_with("rows.") => known.to_owned(),
        other => format!("rows.{other}"),
    }
}

/// Says in which message of the stream a row is: rows are counted within their message.
fn located(error: Error, message: usize, before: usize) -> Error {
    match error {
        Error::Invalid(Violation { field, row, description }) => {
            let field = on_the_wire(&field);
            let description = format!("{description} (message {message} of the append, after {before} rows)");
            Error::Invalid(Violation { field, row, description })
        }
        other => other,
    }
}
