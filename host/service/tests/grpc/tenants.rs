//! Tenants: who is let in by which token, as what, how often; a table of role and call, each cell of it asked; and a
//! file that changes while it is served.

use std::path::{Path, PathBuf};
use std::time::Duration;

use megaring_core::gate::{Reason, Role, TOOLS, tool_id};
use megaring_datasets::Matrix;
use megaring_engine::recorder::LedgerConfig;
use megaring_ledger::{Entry, Kind};
use megaring_proto::v1 as pb;
use megaring_ring::event_ring::{Read, Start};
use megaring_ring::slot::fnv1a64;
use megaring_server::tenants::Token;
use megaring_server::tenants::file::with_token;
use megaring_server::{ServeError, Server, ServerConfig};
use tonic::{Code, Request};
use tonic_types::StatusExt as _;

use crate::common::{Running, Wanted, engine, folder, reason, violation, within_a_minute};
use crate::raw;

/// A file of tenants and the tokens of those in it.
pub(crate) struct File {
    path: PathBuf,
    tokens: Vec<(String, String)>,
}

impl File {
    /// Tenants by name, role, and what else their tables say.
    pub(crate) fn new(folder: &Path, tenants: &[(&str, Role, &str)]) -> Self {
        let mut file = Self { path: folder.join(".tenants.toml"), tokens: Vec::new() };
        let mut text = String::new();
        for (name, role, more) in tenants {
            let token = Token::random().expect("random numbers");
            text = with_token(&text, name, *role, token.hash()).expect("a tenant") + more;
            file.tokens.push(((*name).to_owned(), token.text().to_owned()));
        }
        std::fs::write(&file.path, text).expect("it is written");
        file
    }

    pub(crate) fn token(&self, tenant: &str) -> &str {
        &self.tokens.iter().find(|(name, _)| name == tenant).expect("such a tenant").1
    }

    /// A request of a tenant's.
    pub(crate) fn by<T>(&self, tenant: &str, message: T) -> Request<T> {
        bearing(self.token(tenant), message)
    }

    /// A server that lets them in, and keeps a ledger.
    pub(crate) fn wanted(&self) -> Wanted {
        let server = ServerConfig { tenants: Some(self.path.clone()), ..ServerConfig::new(([127, 0, 0, 1], 0).into()) };
        let ledger = self.path.parent().map(|folder| LedgerConfig { folder: folder.join(".ledger"), segments: 0 });
        Wanted { server, ledger, ..Wanted::default() }
    }

    /// Puts another text in its place, and waits until it is followed: a call of this token is then answered so.
    async fn replace(&self, server: &Running, text: &str, token: &str, expected: Code) {
        let new = self.path.with_extension("new");
        std::fs::write(&new, text).expect("it is written");
        std::fs::rename(&new, &self.path).expect("it is replaced");
        within_a_minute("the new file is followed", async {
            while list(server, token).await != expected {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await;
    }
}

/// A request with a token.
fn bearing<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().expect("ASCII"));
    request
}

async fn list(server: &Running, token: &str) -> Code {
    let listed = server.corpora().await.list(bearing(token, pb::ListRequest {})).await;
    listed.err().map_or(Code::Ok, |status| status.code())
}

/// The least role of each call. It is written down here a second time, so that a slip in the registry shows.
const LEAST: [(Role, &[&str]); 3] = [
    (
        Role::Reader,
        &[
            "Compute/Search",
            "Compute/SearchStream",
            "Compute/SearchRange",
            "Compute/Join",
            "Compute/Score",
            "Compute/Encode",
            "Compute/EncodeStream",
            "Compute/Nearest",
            "Compute/Checksum",
            "Corpora/Fetch",
            "Corpora/Describe",
            "Corpora/List",
            "Admin/Backends",
            "Admin/Explain",
            "Admin/Board",
            "Ledger/Root",
            "Ledger/Inclusion",
            "Ledger/Consistency",
            "Ledger/Query",
            "Budgets/Describe",
        ],
    ),
    (
        Role::Writer,
        &[
            "Corpora/Create",
            "Corpora/Append",
            "Corpora/Upsert",
            "Corpora/Delete",
            "Corpora/Drop",
            "Budgets/Reserve",
            "Budgets/Settle",
            "Budgets/Release",
        ],
    ),
    (Role::Admin, &["Admin/Calibrate"]),
];

#[tokio::test(flavor = "multi_thread")]
async fn each_role_may_make_the_calls_that_are_its_own_and_no_others() {
    let folder = folder();
    let roles = [("r", Role::Reader, ""), ("w", Role::Writer, ""), ("a", Role::Admin, "")];
    let file = File::new(folder.path(), &roles);
    let server = Running::start(folder.path(), file.wanted()).await;
    let mut asked = 0;
    for (least, methods) in LEAST {
        for method in methods {
            for (tenant, role, _) in roles {
                let token = format!("Bearer {}", file.token(tenant));
                // Calibrating ends at the deadline; every other call ends by itself, of whatever it lacks.
                let headers = [("authorization", token.as_str()), ("grpc-timeout", "1S")];
                let reply = raw::post(server.address, method, &headers, raw::framed_bytes(&[]), true).await;
                let (code, text) = reply.status();
                // A record that is not theirs is refused by another sentence.
                let text = text.replace("%20", " ");
                let is_refused = code == Code::PermissionDenied as i32 && text.contains("the caller has the role");
                assert_eq!(is_refused, role < least, "{method} by {role}: {code} {text}");
                assert_ne!(code, Code::Unauthenticated as i32, "{method} by {role}");
                let needed = format!("the caller has the role {role}, and the call takes {least}");
                assert!(!is_refused || text.contains(&needed), "{method} by {role}: {text}");
                asked += 1;
            }
            let reply = raw::post(server.address, method, &[], raw::framed_bytes(&[]), true).await;
            assert_eq!(reply.status().0, Code::Unauthenticated as i32, "{method} without a token");
        }
    }
    assert_eq!(asked, 3 * TOOLS.len(), "the table lacks a call");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_token_that_is_known_is_not_let_in() {
    let folder = folder();
    let file = File::new(folder.path(), &[("one", Role::Reader, ""), ("two", Role::Admin, "")]);
    let server = Running::start(folder.path(), file.wanted()).await;
    let mut corpora = server.corpora().await;
    let mut events = server.engine.telemetry().ring().consumer(Start::Latest).expect("a place");
    let refused = corpora.list(pb::ListRequest {}).await.expect_err("no token");
    assert_eq!((refused.code(), reason(&refused)), (Code::Unauthenticated, "DENIED_TOKEN".into()));
    assert!(refused.message().contains("megaring tenant add"), "{refused}");
    let Read::Event(event) = events.try_read() else { panic!("it leaves an event") };
    let entry = Entry::from(&event);
    assert_eq!((event.kind(), entry.reason, entry.role), (Kind::REFUSED.0, Reason::Token as u8, 0));
    assert_eq!((Some(entry.tool), event.source()), (tool_id("megaring.v1.Corpora/List"), fnv1a64(b"")));
    let unknown = Token::random().expect("random numbers");
    let known = file.token("one");
    for authorization in [
        format!("Bearer {}", unknown.text()),
        format!("Bearer {}", unknown.hash()),
        format!("Basic {known}"),
        known.to_owned(),
        "Bearer".to_owned(),
        format!("Bearer {}0", known),
    ] {
        let mut request = Request::new(pb::ListRequest {});
        request.metadata_mut().insert("authorization", authorization.parse().expect("ASCII"));
        let refused = corpora.list(request).await.expect_err(&authorization);
        assert_eq!(refused.code(), Code::Unauthenticated, "{authorization}");
        assert!(!refused.message().contains(known), "{refused}");
    }
    let mut named = file.by("one", pb::ListRequest {});
    named.metadata_mut().insert("megaring-tenant", "two".parse().expect("ASCII"));
    let refused = corpora.list(named).await.expect_err("another's name");
    assert!(refused.code() == Code::Unauthenticated && refused.message().contains("\"one\""), "{refused}");
    let mut named = file.by("one", pb::ListRequest {});
    named.metadata_mut().insert("megaring-tenant", "one".parse().expect("ASCII"));
    corpora.list(named).await.expect("its own name may be said");
    let mut long = file.by("one", pb::ListRequest {});
    long.metadata_mut().insert("megaring-session", "s".repeat(129).parse().expect("ASCII"));
    let refused = corpora.list(long).await.expect_err("a long name");
    assert_eq!(violation(&refused).0, "megaring-session");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_has_a_rate_of_its_own() {
    let folder = folder();
    let slow = "rates = { describe = \"0.01:2\" }\n";
    let file = File::new(folder.path(), &[("slow", Role::Reader, slow), ("other", Role::Reader, "")]);
    let server = Running::start(folder.path(), file.wanted()).await;
    let mut corpora = server.corpora().await;
    for _ in 0..2 {
        corpora.list(file.by("slow", pb::ListRequest {})).await.expect("two may come at once");
    }
    let refused = corpora.list(file.by("slow", pb::ListRequest {})).await.expect_err("a third may not");
    assert_eq!((refused.code(), reason(&refused)), (Code::ResourceExhausted, "DENIED_RATE".into()));
    assert!(refused.message().contains("the tenant's calls of the kind \"describe\""), "{refused}");
    let delay = refused.get_details_retry_info().and_then(|info| info.retry_delay).expect("waiting helps");
    assert!(delay > Duration::from_secs(60) && delay <= Duration::from_secs(100), "{delay:?}");
    corpora.list(file.by("other", pb::ListRequest {})).await.expect("others are let in");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_may_change_while_it_is_served() {
    let folder = folder();
    let file = File::new(folder.path(), &[("one", Role::Reader, "rates = { describe = \"0.001:3\" }\n")]);
    let server = Running::start(folder.path(), file.wanted()).await;
    let first = std::fs::read_to_string(&file.path).expect("it is there");
    let token = Token::random().expect("random numbers");
    assert_eq!(list(&server, file.token("one")).await, Code::Ok);
    let both = with_token(&first, "two", Role::Writer, token.hash()).expect("a tenant");
    file.replace(&server, &both, token.text(), Code::Ok).await;
    // Whoever was there before is as far ahead of its rate as it was.
    assert_eq!(list(&server, file.token("one")).await, Code::Ok);
    assert_eq!(list(&server, file.token("one")).await, Code::Ok);
    assert_eq!(list(&server, file.token("one")).await, Code::ResourceExhausted);
    // A bad one changes nothing: the good one that follows it shows that it had been looked at.
    std::fs::write(&file.path, "[[tenant]]\nname = \"three\"\nrole = \"king\"\n").expect("it is written");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(list(&server, token.text()).await, Code::Ok);
    // A token that is gone opens nothing any more.
    file.replace(&server, &first, token.text(), Code::Unauthenticated).await;
    assert_eq!(list(&server, file.token("one")).await, Code::ResourceExhausted);
    std::fs::remove_file(&file.path).expect("it was there");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert_eq!(list(&server, token.text()).await, Code::Unauthenticated, "a file that is gone lets nobody in");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn budgets_want_a_ledger() {
    let folder = folder();
    let budget = "budget = { unit = \"nanoseconds\", day = 5 }\n";
    let config = File::new(folder.path(), &[("one", Role::Reader, budget)]).wanted().server;
    let refused = Server::bind(config, engine(folder.path(), &Wanted::default())).map(drop).expect_err("no ledger");
    assert!(matches!(refused, ServeError::Tenants(_)), "{refused}");
    assert!(refused.to_string().contains("\"one\" has a budget"), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_sees_its_own_records_and_an_administrator_all() {
    let folder = folder();
    let file =
        File::new(folder.path(), &[("one", Role::Writer, ""), ("two", Role::Reader, ""), ("a", Role::Admin, "")]);
    let server = Running::start(folder.path(), file.wanted()).await;
    let mut corpora = server.corpora().await;
    let create = pb::CreateRequest { name: "a".into(), dim: 2, ..Default::default() };
    corpora.create(file.by("one", create)).await.expect("it is made");
    let rows = crate::common::labelled(&Matrix::new(2, 2, vec![1.0, 0.0, 0.5, 1.0]));
    let append = tokio_stream::once(pb::AppendRequest { corpus: "a".into(), rows: Some(rows) });
    corpora.append(file.by("one", append)).await.expect("rows are added");
    server.compute().await.encode(file.by("two", pb::EncodeRequest::default())).await.expect("it is answered");
    server.engine.recorder().expect("a ledger").keep().await.expect("it is kept");
    let query = async |tenant: &str, request: pb::QueryRequest| {
        let mut records = Vec::new();
        let mut answer = server.ledger().await.query(file.by(tenant, request)).await?.into_inner();
        while let Some(message) = answer.message().await? {
            records.extend(message.records);
        }
        Ok::<_, tonic::Status>(records)
    };
    let all = query("a", pb::QueryRequest::default()).await.expect("all");
    let kinds: Vec<_> = all.iter().map(pb::Record::kind).collect();
    assert_eq!(kinds, [pb::RecordKind::Appended, pb::RecordKind::Answered]);
    assert_eq!((all[0].count, all[0].role.as_str(), all[0].tenant_hash), (2, "writer", fnv1a64(b"one")));
    assert_eq!((all[1].operation(), all[1].call.as_str()), (pb::Operation::Encode, "megaring.v1.Compute/Encode"));
    let own = query("two", pb::QueryRequest::default()).await.expect("its own");
    assert_eq!(own, all[1..]);
    for (request, count) in [
        (pb::QueryRequest { tenant: "one".into(), ..Default::default() }, 1),
        (pb::QueryRequest { operation: pb::Operation::Encode.into(), ..Default::default() }, 1),
        (pb::QueryRequest { kind: pb::RecordKind::Lost.into(), ..Default::default() }, 0),
        (pb::QueryRequest { limit: 1, ..Default::default() }, 1),
        (pb::QueryRequest { since_unix_ns: Some(all[0].unix_ns), ..Default::default() }, 2),
        (pb::QueryRequest { until_unix_ns: Some(all[0].unix_ns), ..Default::default() }, 0),
    ] {
        assert_eq!(query("a", request.clone()).await.expect("records").len(), count, "{request:?}");
    }
    let others = pb::QueryRequest { tenant: "one".into(), ..Default::default() };
    let refused = query("two", others).await.expect_err("another's");
    assert_eq!((refused.code(), reason(&refused)), (Code::PermissionDenied, "DENIED_ROLE".into()));
    let refused = query("a", pb::QueryRequest { kind: 77, ..Default::default() }).await.expect_err("no kind");
    assert_eq!(violation(&refused).0, "kind");

    let mut ledger = server.ledger().await;
    let root = ledger.root(file.by("two", pb::RootRequest { size: 2 })).await.expect("a root").into_inner();
    let hash = |bytes: &[u8]| <[u8; 32]>::try_from(bytes).expect("a hash");
    for (tenant, record, is_shown) in [("a", 0, true), ("a", 1, true), ("two", 1, true), ("two", 0, false)] {
        let asked = ledger.inclusion(file.by(tenant, pb::InclusionRequest { record, size: 2 })).await;
        let Ok(proof) = asked.inspect_err(|refused| assert_eq!(refused.code(), Code::PermissionDenied, "{refused}"))
        else {
            assert!(!is_shown, "{tenant} {record}");
            continue;
        };
        let proof = proof.into_inner();
        assert!(is_shown && proof.root == root.root, "{tenant} {record}");
        let path: Vec<_> = proof.path.iter().map(|node| hash(node)).collect();
        let bytes = proof.record.expect("the record").bytes.try_into().expect("128 bytes");
        assert_eq!(megaring_ledger::leaf_hash(&bytes).to_vec(), proof.leaf);
        assert!(megaring_ledger::verify_inclusion(&hash(&proof.leaf), record, 2, &path, &hash(&root.root)));
    }
    let sizes = pb::ConsistencyRequest { old_size: 1, new_size: 2 };
    let proof = ledger.consistency(file.by("two", sizes)).await.expect("a proof").into_inner();
    let path: Vec<_> = proof.path.iter().map(|node| hash(node)).collect();
    let (old, new) = (hash(&proof.old_root), hash(&proof.new_root));
    assert!(proof.new_root == root.root && megaring_ledger::verify_consistency(1, &old, 2, &new, &path));
    for (field, refused) in [
        ("size", ledger.root(file.by("a", pb::RootRequest { size: 99 })).await.map(drop)),
        ("record", ledger.inclusion(file.by("a", pb::InclusionRequest { record: 99, size: 0 })).await.map(drop)),
        (
            "old_size",
            ledger.consistency(file.by("a", pb::ConsistencyRequest { old_size: 2, new_size: 1 })).await.map(drop),
        ),
    ] {
        let refused = refused.expect_err(field);
        assert_eq!((refused.code(), violation(&refused).0.as_str()), (Code::InvalidArgument, field), "{refused}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_without_a_ledger_says_so() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let refused = server.ledger().await.root(pb::RootRequest::default()).await.expect_err("there is none");
    assert_eq!((refused.code(), reason(&refused)), (Code::FailedPrecondition, "WRONG_STATE".into()));
    server.stop().await;
}
