//! `megaring.v1.Corpora`: the handlers that use the store. All of them touch the disk, so all run on threads for
//! blocking work.

use megaring_core::{Error, Violation};
use megaring_corpus::Appender;
use megaring_proto::v1 as pb;
use megaring_proto::v1::corpora_server::Corpora;
use tonic::{Request, Response, Status, Streaming};

use super::{Service, blocking};
use crate::error::{answered, status};
use crate::{reply, validate};

#[tonic::async_trait]
impl Corpora for Service {
    async fn create(&self, request: Request<pb::CreateRequest>) -> Result<Response<pb::CreateResponse>, Status> {
        let (service, request) = (self.clone(), request.into_inner());
        let work = move || {
            service.refuse_if_draining()?;
            service.engine.store().create(&request.name, request.dim as usize)
        };
        let made = answered(blocking(work)).await?;
        Ok(Response::new(pb::CreateResponse { corpus: Some(reply::corpus(made)) }))
    }

    async fn append(
        &self,
        request: Request<Streaming<pb::AppendRequest>>,
    ) -> Result<Response<pb::AppendResponse>, Status> {
        let mut messages = request.into_inner();
        let Some(first) = messages.message().await? else {
            return Err(status(&Error::field("corpus", "the stream ended before a message named the corpus")));
        };
        let mut append = answered(Append::begin(self.clone(), first)).await?;
        while let Some(message) = messages.message().await? {
            append = answered(append.take(message)).await?;
        }
        // A call that its client cancelled looks as if its messages had ended; but once the handler gives way, it is
        // dropped.
        tokio::task::yield_now().await;
        answered(append.commit()).await.map(Response::new)
    }

    async fn describe(&self, request: Request<pb::DescribeRequest>) -> Result<Response<pb::DescribeResponse>, Status> {
        let (service, request) = (self.clone(), request.into_inner());
        let found = answered(blocking(move || service.engine.store().describe(&request.name))).await?;
        Ok(Response::new(pb::DescribeResponse { corpus: Some(reply::corpus(found)) }))
    }

    async fn list(&self, _: Request<pb::ListRequest>) -> Result<Response<pb::ListResponse>, Status> {
        let service = self.clone();
        let found = answered(blocking(move || Ok(service.engine.store().list()))).await?;
        Ok(Response::new(pb::ListResponse { corpora: found.into_iter().map(reply::corpus).collect() }))
    }

    async fn drop(&self, request: Request<pb::DropRequest>) -> Result<Response<pb::DropResponse>, Status> {
        let (service, request) = (self.clone(), request.into_inner());
        let work = move || {
            service.refuse_if_draining()?;
            service.engine.store().drop_corpus(&request.name)
        };
        answered(blocking(work)).await?;
        Ok(Response::new(pb::DropResponse {}))
    }
}

/// An append under way. Dropped before its commit, nothing happened.
struct Append {
    corpus: String,
    appender: Appender,
    /// Messages taken.
    messages: usize,
}

impl Append {
    async fn begin(service: Service, mut first: pb::AppendRequest) -> Result<Self, Error> {
        let corpus = std::mem::take(&mut first.corpus);
        if corpus.is_empty() {
            return Err(Error::field("corpus", "the first message must name the corpus"));
        }
        let append = blocking(move || {
            service.refuse_if_draining()?;
            let appender = service.engine.store().append(&corpus)?;
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
            let pushed = validate::rows(rows, self.appender.dim()).and_then(|rows| self.appender.push(rows));
            pushed.map_err(|error| located(error, self.messages, before))?;
            Ok(self)
        })
        .await
    }

    async fn commit(self) -> Result<pb::AppendResponse, Error> {
        blocking(move || self.appender.commit().map(|appended| reply::appended(&appended))).await
    }
}

/// Says in which message of the stream a row is: rows are counted within their message.
fn located(error: Error, message: usize, before: usize) -> Error {
    match error {
        Error::Invalid(Violation { field, row, description }) => {
            let field = if field.starts_with("rows.") { field } else { format!("rows.{field}") };
            let description = format!("{description} (message {message} of the append, after {before} rows)");
            Error::Invalid(Violation { field, row, description })
        }
        other => other,
    }
}
