//! A running server in the place of this process: what commands ask of it over gRPC, in the types that they have here.
//!
//! Errors are the server's own, in its words. Where it is full, a call is made again after the time that it names, a
//! few times. The thread of a command waits for its answers; the connection has a thread of its own, so that it stays
//! alive while a command reads a pipe that is slow.

use std::error::Error as _;
use std::future::Future;
use std::path::Path;
use std::time::Duration;

use megaring_core::RowType;
use megaring_core::checksum::Checksums;
use megaring_core::encode::Encoded;
use megaring_corpus::import::unreadable;
use megaring_corpus::{CreateOptions, Description, Fetched};
use megaring_engine::Made;
use megaring_engine::router::Forecast;
use megaring_proto::v1 as pb;
use megaring_proto::v1::admin_client::AdminClient;
use megaring_proto::v1::compute_client::ComputeClient;
use megaring_proto::v1::corpora_client::CorporaClient;
use megaring_proto::v1::filter::Where;
use megaring_server::tenants::SESSION;
use tokio::runtime::Runtime;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::StatusExt as _;

use crate::config::{HTTPS, Settings, UNIX};
use crate::console::Failure;
use crate::corpora::Ids;

mod append;
mod convert;
mod export;

pub(crate) use convert::{backend, metric, queries};

/// How often a call is made again where the server is full.
const AGAIN: usize = 10;
/// How long is waited for that at most, whatever the server says.
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How often a silent server is asked whether it is still there.
const PING: Duration = Duration::from_secs(30);
/// Ids that go into one message.
const IDS: usize = 1 << 16;
/// The same of texts, which may be of 4 KiB each.
const TEXTS: usize = 1 << 8;

/// A channel on which calls say who makes them.
pub(crate) type Line = InterceptedService<Channel, Caller>;

/// Who calls: a token and a session, where there are any.
#[derive(Clone)]
pub(crate) struct Caller {
    token: Option<AsciiMetadataValue>,
    session: Option<AsciiMetadataValue>,
}

impl Caller {
    pub(crate) fn new(token: Option<&str>, session: Option<&str>) -> Result<Self, Failure> {
        let value = |name: &str, text: String| {
            text.parse().map_err(|_| Failure::Usage(format!("--{name}: printable ASCII is needed")))
        };
        // Whoever empties a variable means none.
        let (token, session) = (token.filter(|text| !text.is_empty()), session.filter(|text| !text.is_empty()));
        let token = token.map(|token| value("token", format!("Bearer {token}"))).transpose()?;
        let session = session.map(|session| value("session", session.to_owned())).transpose()?;
        Ok(Self { token, session })
    }
}

impl Interceptor for Caller {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        let Self { token, session } = self.clone();
        token.and_then(|token| request.metadata_mut().insert("authorization", token));
        session.and_then(|session| request.metadata_mut().insert(SESSION, session));
        Ok(request)
    }
}

/// A connection to a server.
pub(crate) struct Remote {
    address: String,
    runtime: Runtime,
    admin: AdminClient<Line>,
    corpora: CorporaClient<Line>,
    compute: ComputeClient<Line>,
    /// Appends that were given up: one whose end was let go would be stored. Behind the runtime, so that the connection
    /// is gone before them.
    given_up: Vec<append::Sender>,
}

/// What a deletion did.
pub(crate) struct Deletion {
    pub(crate) rows: u64,
    /// Ids that no row had: how many, and the smallest of them.
    pub(crate) missing: u64,
    pub(crate) missing_ids: Ids,
    pub(crate) total_rows: u64,
    pub(crate) generation: u64,
}

/// Columns of rows.
pub(crate) struct Rows {
    pub(crate) rows: Vec<u32>,
    pub(crate) columns: Fetched,
    /// Ids that no row has.
    pub(crate) missing: Ids,
    pub(crate) generation: u64,
}

/// The server at an address, encrypted where the address says so or there are authorities to trust.
fn endpoint(address: &str, settings: &Settings) -> Result<Endpoint, Failure> {
    let host = address.strip_prefix(HTTPS);
    if address.starts_with(UNIX) || (host.is_none() && settings.tls_ca.is_none()) {
        let uri = if address.starts_with(UNIX) { address.to_owned() } else { format!("http://{address}") };
        return Endpoint::from_shared(uri).map_err(Failure::work);
    }
    let read = |field: &str, file: &Path| {
        std::fs::read(file).map_err(|error| Failure::Work(format!("{field}: {}", unreadable(file, &error))))
    };
    let tls = match &settings.tls_ca {
        Some(file) => ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read("tls_ca", file)?)),
        None => ClientTlsConfig::new().with_native_roots(),
    };
    let tls = match settings.tls_identity()? {
        Some((cert, key)) => tls.identity(Identity::from_pem(read("tls_cert", cert)?, read("tls_key", key)?)),
        None => tls,
    };
    let endpoint = Endpoint::from_shared(format!("{HTTPS}{}", host.unwrap_or(address))).map_err(Failure::work)?;
    endpoint.tls_config(tls).map_err(|error| Failure::Work(format!("tls: {}", reasons(&error))))
}

impl Remote {
    /// Connects to the server at `address`, as whom the settings say.
    pub(crate) fn connect(address: &str, settings: &Settings) -> Result<Self, Failure> {
        let caller = Caller::new(settings.token.as_deref(), settings.session.as_deref())?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .map_err(|error| Failure::Work(format!("the system refused a thread: {error}")))?;
        let endpoint = endpoint(address, settings)?;
        let endpoint = endpoint.tcp_nodelay(true).connect_timeout(CONNECT).http2_keep_alive_interval(PING);
        let endpoint = endpoint.initial_stream_window_size(4 << 20).initial_connection_window_size(16 << 20);
        let channel = runtime
            .block_on(endpoint.connect())
            .map_err(|error| Failure::Work(format!("no server answers at {address}: {}", reasons(&error))))?;
        let channel = InterceptedService::new(channel, caller);
        // What is too large is refused by the server, whose limit it is.
        let admin = AdminClient::new(channel.clone());
        let corpora = CorporaClient::new(channel.clone()).max_decoding_message_size(usize::MAX);
        let compute = ComputeClient::new(channel).max_decoding_message_size(usize::MAX);
        Ok(Self { address: address.to_owned(), runtime, admin, corpora, compute, given_up: Vec::new() })
    }

    pub(crate) fn create(&self, name: &str, row_type: RowType, options: CreateOptions) -> Result<Description, Failure> {
        let dim = u32::try_from(row_type.dim).unwrap_or(u32::MAX);
        let dtype = convert::dtype(row_type.element);
        let CreateOptions { unique_ids, id_column } = options;
        let id_column = id_column.unwrap_or_default();
        let request = pb::CreateRequest { name: name.to_owned(), dim, dtype, unique_ids, id_column };
        let made = self.change(|mut corpora| async move { corpora.create(request).await })?;
        made.corpus.map(convert::description).ok_or_else(|| self.incomplete())
    }

    /// The server's board, once or again and again.
    pub(crate) fn board(
        &self,
        interval: Option<Duration>,
        tell: &mut dyn FnMut(pb::BoardResponse) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        let interval_ms = interval.map_or(0, |interval| u32::try_from(interval.as_millis()).unwrap_or(u32::MAX));
        let mut admin = self.admin.clone();
        let begun = self.runtime.block_on(admin.board(pb::BoardRequest { interval_ms }));
        let mut boards = begun.map_err(|status| self.failure(&status))?.into_inner();
        while let Some(board) = self.runtime.block_on(boards.message()).map_err(|status| self.failure(&status))? {
            tell(board)?;
        }
        Ok(())
    }

    pub(crate) fn list(&self) -> Result<Vec<Description>, Failure> {
        let listed = self.change(|mut corpora| async move { corpora.list(pb::ListRequest {}).await })?;
        Ok(listed.corpora.into_iter().map(convert::description).collect())
    }

    pub(crate) fn describe(&self, name: &str) -> Result<Description, Failure> {
        self.find(name)?.ok_or_else(|| self.failure(&Status::not_found(format!("no corpus named {name:?}"))))
    }

    /// The description of a corpus, if it is there.
    pub(crate) fn find(&self, name: &str) -> Result<Option<Description>, Failure> {
        let request = pb::DescribeRequest { name: name.to_owned() };
        let mut corpora = self.corpora.clone();
        match self.runtime.block_on(corpora.describe(request)) {
            Ok(found) => found.into_inner().corpus.map(convert::description).ok_or_else(|| self.incomplete()).map(Some),
            Err(status) if status.code() == Code::NotFound => Ok(None),
            Err(status) => Err(self.failure(&status)),
        }
    }

    pub(crate) fn drop_corpus(&self, name: &str) -> Result<(), Failure> {
        let request = pb::DropRequest { name: name.to_owned() };
        self.change(|mut corpora| async move { corpora.drop(request).await }).map(|_| ())
    }

    pub(crate) fn delete(&self, name: &str, ids: &Ids) -> Result<Deletion, Failure> {
        let empty = pb::DeleteRequest::default;
        let mut messages = vec![pb::DeleteRequest { corpus: name.to_owned(), ..empty() }];
        let numbers = ids.numbers.chunks(IDS).map(|ids| pb::DeleteRequest { ids: ids.to_vec(), ..empty() });
        let texts = ids.texts.chunks(TEXTS).map(|ids| pb::DeleteRequest { text_ids: ids.to_vec(), ..empty() });
        messages.extend(numbers.chain(texts));
        self.send_deletion(messages)
    }

    pub(crate) fn delete_selected(&self, name: &str, filter: String) -> Result<Deletion, Failure> {
        let filter = Some(pb::Filter { r#where: Some(Where::Text(filter)), ..Default::default() });
        self.send_deletion(vec![pb::DeleteRequest { corpus: name.to_owned(), filter, ..Default::default() }])
    }

    fn send_deletion(&self, messages: Vec<pb::DeleteRequest>) -> Result<Deletion, Failure> {
        let deleted = self.change(|mut corpora| async move { corpora.delete(tokio_stream::iter(messages)).await })?;
        let pb::DeleteResponse { rows, missing, missing_ids, total_rows, generation, missing_text_ids } = deleted;
        let missing_ids = Ids { numbers: missing_ids, texts: missing_text_ids };
        Ok(Deletion { rows, missing, missing_ids, total_rows, generation })
    }

    pub(crate) fn fetch(&self, request: pb::FetchRequest) -> Result<Rows, Failure> {
        let fetched = self.change(|mut corpora| async move { corpora.fetch(request).await })?;
        let rows = fetched.rows.unwrap_or_default().numbers;
        let columns = Fetched::of_stream(&fetched.columns)?;
        if columns.rows() != rows.len() && !columns.columns().is_empty() {
            return Err(self.incomplete());
        }
        let missing = Ids { numbers: fetched.missing_ids, texts: fetched.missing_text_ids };
        Ok(Rows { rows, columns, missing, generation: fetched.generation })
    }

    /// The hits of all queries. Where one message cannot hold the queries, or their hits, they are sent in pieces.
    pub(crate) fn search(&self, request: &pb::SearchRequest) -> Result<Vec<pb::SearchResponse>, Failure> {
        let count = request.queries.as_ref().map_or(0, |queries| queries.rows);
        let mut answers = Vec::new();
        let (mut begin, mut at_once) = (0, count.max(1));
        loop {
            let end = count.min(begin + at_once);
            let piece = || convert::some_queries(request, begin..end);
            let call = || {
                let (mut compute, piece) = (self.compute.clone(), piece());
                async move { compute.search(piece).await }
            };
            match self.runtime.block_on(patiently(call)) {
                Err(status) if is_too_large(&status) && at_once > 1 => at_once = at_once.div_ceil(2),
                Err(status) => return Err(self.failure(&status)),
                Ok(answer) => {
                    answers.push(answer);
                    begin = end;
                    if begin >= count {
                        return Ok(answers);
                    }
                }
            }
        }
    }

    pub(crate) fn nearest(&self, request: &pb::NearestRequest) -> Result<pb::NearestResponse, Failure> {
        self.work(|mut compute| {
            let request = request.clone();
            async move { compute.nearest(request).await }
        })
        .map_err(|status| self.failure(&status))
    }

    /// Encodes memories; also the words that the bits of masks stand for.
    pub(crate) fn encode(&self, request: &pb::EncodeRequest) -> Result<(Vec<Encoded>, Vec<String>, Made), Failure> {
        let answer = self.work(|mut compute| {
            let request = request.clone();
            async move { compute.encode(request).await }
        });
        let answer = answer.map_err(|status| self.failure(&status))?;
        let encoded = convert::encoded(&answer).filter(|encoded| encoded.len() == request.memories.len());
        let made = self.made(answer.made)?;
        Ok((encoded.ok_or_else(|| self.incomplete())?, answer.words, made))
    }

    /// Checksums of byte strings. `Err` is the reason, where they are too large for the server.
    pub(crate) fn checksum(
        &self,
        request: &pb::ChecksumRequest,
    ) -> Result<Result<(Vec<Checksums>, Made), String>, Failure> {
        let answer = self.work(|mut compute| {
            let request = request.clone();
            async move { compute.checksum(request).await }
        });
        let answer = match answer {
            Ok(answer) => answer,
            Err(status) if matches!(status.code(), Code::OutOfRange | Code::InvalidArgument) => {
                return Ok(Err(status.message().to_owned()));
            }
            Err(status) => return Err(self.failure(&status)),
        };
        let pairs = answer.crc32c.iter().zip(&answer.xxhash64);
        let sums: Vec<Checksums> =
            pairs.map(|(crc32c, xxhash64)| Checksums { crc32c: *crc32c, xxhash64: *xxhash64 }).collect();
        if sums.len() != request.contents.len() {
            return Err(self.incomplete());
        }
        Ok(Ok((sums, self.made(answer.made)?)))
    }

    /// The columns of the rows of an answer, where some were asked for.
    pub(crate) fn columns_of(&self, stream: &[u8], hits: &[pb::Hits]) -> Result<Fetched, Failure> {
        let fetched = Fetched::of_stream(stream)?;
        let rows: usize = hits.iter().map(|hits| hits.rows.len()).sum();
        if fetched.columns().is_empty() || fetched.rows() == rows { Ok(fetched) } else { Err(self.incomplete()) }
    }

    /// Begins a join; [`Self::next`] gives its messages.
    pub(crate) fn join(&self, request: &pb::JoinRequest) -> Result<Streaming<pb::JoinResponse>, Failure> {
        self.work(|mut compute| {
            let request = request.clone();
            async move { compute.join(request).await }
        })
        .map_err(|status| self.failure(&status))
    }

    /// What the server would do with a job.
    pub(crate) fn explain(&self, request: pb::ExplainRequest) -> Result<Forecast, Failure> {
        let answer = self.runtime.block_on(self.admin.clone().explain(request));
        let answer = answer.map_err(|status| self.failure(&status))?.into_inner();
        convert::forecast(answer).ok_or_else(|| self.incomplete())
    }

    /// The next message of a long answer.
    pub(crate) fn next<M>(&self, messages: &mut Streaming<M>) -> Result<Option<M>, Failure> {
        self.runtime.block_on(messages.message()).map_err(|status| self.failure(&status))
    }

    /// How an answer was made.
    pub(crate) fn made(&self, made: Option<pb::Made>) -> Result<Made, Failure> {
        made.and_then(convert::made).ok_or_else(|| self.incomplete())
    }

    /// What is said of an answer that lacks something, or does not fit what was asked.
    pub(crate) fn incomplete(&self) -> Failure {
        Failure::Work(format!("the server at {} sent an answer that is not complete; it may be older", self.address))
    }

    /// A call that is made once: what was lost on the way may have been done.
    fn change<A, F>(&self, call: impl FnOnce(CorporaClient<Line>) -> F) -> Result<A, Failure>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let answer = self.runtime.block_on(call(self.corpora.clone()));
        answer.map(Response::into_inner).map_err(|status| self.failure(&status))
    }

    /// A call that is made again where there was no room.
    fn work<A, F>(&self, mut call: impl FnMut(ComputeClient<Line>) -> F) -> Result<A, Status>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        self.runtime.block_on(patiently(|| call(self.compute.clone())))
    }

    /// A refusal in words.
    fn failure(&self, status: &Status) -> Failure {
        let (address, text) = (&self.address, status.message());
        let is_megaring = status.get_details_error_info().is_some();
        Failure::Work(match status.code() {
            Code::NotFound => {
                format!("the server at {address}: {text}; `megaring corpus list --server {address}` says what is there")
            }
            _ if is_megaring => format!("the server at {address}: {text}"),
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal => {
                let reasons = status.source().map(|source| format!(" ({})", reasons(source))).unwrap_or_default();
                format!("the connection to the server at {address} was lost: {text}{reasons}")
            }
            Code::Unimplemented => format!("the server at {address} does not know this call, it may be older: {text}"),
            code => format!("the server at {address} answers {code:?}: {text}"),
        })
    }
}

/// Makes a call, and again while the server says when to.
async fn patiently<A, F>(mut call: impl FnMut() -> F) -> Result<A, Status>
where
    F: Future<Output = Result<Response<A>, Status>>,
{
    for _ in 0..AGAIN {
        let status = match call().await {
            Ok(answer) => return Ok(answer.into_inner()),
            Err(status) => status,
        };
        let wait = status.get_details_retry_info().and_then(|info| info.retry_delay);
        match wait.filter(|_| status.code() == Code::ResourceExhausted) {
            Some(wait) => tokio::time::sleep(wait.min(LONGEST_WAIT)).await,
            None => return Err(status),
        }
    }
    call().await.map(Response::into_inner)
}

/// Whether fewer queries, or rows, at a time may be answered.
fn is_too_large(status: &Status) -> bool {
    match status.code() {
        Code::OutOfRange => true,
        Code::InvalidArgument => status.message().contains("at a time"),
        _ => false,
    }
}

/// An error with what is behind it.
fn reasons(error: &dyn std::error::Error) -> String {
    let (mut texts, mut next) = (Vec::new(), Some(error));
    while let Some(error) = next {
        texts.push(error.to_string());
        next = error.source();
    }
    texts.dedup();
    texts.join(": ")
}
