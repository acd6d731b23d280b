//! The front door: encryption, certificates that change while they are served, Unix sockets, and connections that are
//! too many or say nothing.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use megaring_core::gate::Role;
use megaring_proto::v1 as pb;
use megaring_proto::v1::corpora_client::CorporaClient;
use megaring_server::{Address, ServeError, Server, ServerConfig, TlsConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::authority::Authority;
use crate::common::{Running, Wanted, engine, folder, reason, within_a_minute};
use crate::raw;
use crate::tenants::File;

fn read(file: &Path) -> String {
    std::fs::read_to_string(file).expect("it can be read")
}

/// A server that encrypts by a certificate of this authority's.
fn encrypting(by: &Authority, clients: Option<&Authority>) -> Wanted {
    let (certificate, key) = by.sign("server");
    let client_authorities = clients.map(|authority| authority.certificate.clone());
    let mut wanted = Wanted::default();
    wanted.server.tls = Some(TlsConfig { certificate, key, client_authorities });
    wanted
}

/// A new connection of a client who trusts this authority, and shows what it has.
async fn connect(
    server: &Running,
    trusts: &Authority,
    shows: Option<&Identity>,
) -> Result<CorporaClient<Channel>, tonic::transport::Error> {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(read(&trusts.certificate)));
    let tls = match shows {
        Some(identity) => tls.identity(identity.clone()),
        None => tls,
    };
    let endpoint = Channel::from_shared(format!("https://localhost:{}", server.address.port())).expect("an address");
    endpoint.tls_config(tls).expect("good certificates").connect().await.map(CorporaClient::new)
}

/// Whether a call of such a client is answered.
async fn is_answered(server: &Running, trusts: &Authority, shows: Option<&Identity>) -> bool {
    match connect(server, trusts, shows).await {
        // With TLS 1.3 a client learns only by its first call that it is not let in.
        Ok(mut corpora) => corpora.list(pb::ListRequest {}).await.is_ok(),
        Err(_) => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_encrypted_by_the_certificates_as_they_are() {
    let folder = folder();
    let (old, new) = (Authority::new(folder.path(), "old"), Authority::new(folder.path(), "new"));
    let server = Running::start(folder.path(), encrypting(&old, None)).await;
    assert!(is_answered(&server, &old, None).await);
    assert!(!is_answered(&server, &new, None).await, "a client does not trust it");
    let plain = Channel::from_shared(format!("http://{}", server.address)).expect("an address").connect().await;
    let listed = match plain {
        Ok(channel) => CorporaClient::new(channel).list(pb::ListRequest {}).await.is_ok(),
        Err(_) => false,
    };
    assert!(!listed, "nothing goes without encryption");
    let mut held = connect(&server, &old, None).await.expect("it is let in");

    // Files that cannot be change nothing.
    std::fs::write(folder.path().join("server.pem"), "none").expect("it is written");
    tokio::time::sleep(Duration::from_millis(1500)).await;
    assert!(is_answered(&server, &old, None).await);
    new.sign("server");
    within_a_minute("the new certificate is shown", async {
        while !is_answered(&server, &new, None).await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(!is_answered(&server, &old, None).await);
    held.list(pb::ListRequest {}).await.expect("a connection goes on as it began");
    drop(held);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_clients_with_a_certificate_are_let_in_where_that_is_wanted() {
    let folder = folder();
    let authority = Authority::new(folder.path(), "authority");
    let (clients, strangers) = (Authority::new(folder.path(), "clients"), Authority::new(folder.path(), "strangers"));
    let identity = |by: &Authority| {
        let (certificate, key) = by.sign("client");
        Identity::from_pem(read(&certificate), read(&key))
    };
    let (known, unknown) = (identity(&clients), identity(&strangers));
    let server = Running::start(folder.path(), encrypting(&authority, Some(&clients))).await;
    assert!(is_answered(&server, &authority, Some(&known)).await);
    assert!(!is_answered(&server, &authority, Some(&unknown)).await);
    assert!(!is_answered(&server, &authority, None).await);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_cannot_be_are_refused_with_their_names() {
    let folder = folder();
    let authority = Authority::new(folder.path(), "authority");
    let ((certificate, key), (_, other)) = (authority.sign("server"), authority.sign("other"));
    let (none, empty) = (folder.path().join("none.pem"), folder.path().join("empty.pem"));
    std::fs::write(&empty, "").expect("it is written");
    let good = TlsConfig { certificate, key, client_authorities: None };
    let running = engine(folder.path(), &Wanted::default());
    for (tls, words) in [
        (TlsConfig { certificate: none.clone(), ..good.clone() }, ["tls_cert", "none.pem"]),
        (TlsConfig { certificate: empty.clone(), ..good.clone() }, ["empty.pem", "has no certificate"]),
        (TlsConfig { key: empty.clone(), ..good.clone() }, ["tls_key", "empty.pem"]),
        (TlsConfig { key: other, ..good.clone() }, ["other.key", "is not the key of"]),
        (TlsConfig { client_authorities: Some(none), ..good.clone() }, ["tls_ca", "none.pem"]),
        (TlsConfig { client_authorities: Some(empty), ..good.clone() }, ["tls_ca", "has no certificate"]),
    ] {
        let config = ServerConfig { tls: Some(tls), ..ServerConfig::new(([127, 0, 0, 1], 0).into()) };
        let refused = Server::bind(config, running.clone()).map(drop).expect_err(words[1]);
        assert!(matches!(refused, ServeError::Tls(_)), "{refused}");
        assert!(words.iter().all(|word| refused.to_string().contains(word)), "{words:?}: {refused}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn others_are_let_in_only_with_tenants_and_certificates_or_knowingly() {
    let folder = folder();
    let running = engine(folder.path(), &Wanted::default());
    let bind = |config: ServerConfig| Server::bind(config, running.clone()).map(drop);
    let open = ServerConfig::new(([0, 0, 0, 0], 0).into());
    let refused = bind(open.clone()).expect_err("nobody is asked who they are");
    assert!(matches!(refused, ServeError::NoTenants(_)) && refused.to_string().contains("tenant add"), "{refused}");
    bind(ServerConfig { is_insecure: true, ..open.clone() }).expect("it is wanted so");
    let tls = encrypting(&Authority::new(folder.path(), "authority"), None).server.tls;
    let refused = bind(ServerConfig { tls: tls.clone(), ..open.clone() }).expect_err("nobody is asked who they are");
    assert!(matches!(refused, ServeError::NoTenants(_)), "{refused}");
    let tenants = File::new(folder.path(), &[("one", Role::Reader, "")]).wanted().server.tenants;
    let refused = bind(ServerConfig { tenants: tenants.clone(), ..open.clone() }).expect_err("tokens can be read");
    assert!(matches!(refused, ServeError::NoTls(_)) && refused.to_string().contains("--tls-cert"), "{refused}");
    bind(ServerConfig { tenants, tls, ..open }).expect("both are there");
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_unix_socket_is_there_for_its_owner_as_long_as_its_server_is() {
    use std::os::unix::fs::PermissionsExt as _;

    let folder = folder();
    let path = folder.path().join("socket");
    let address = Address::Unix { path: path.clone(), mode: 0o640 };
    let config = ServerConfig { address: address.clone(), ..ServerConfig::new(([127, 0, 0, 1], 0).into()) };
    let running = engine(folder.path(), &Wanted::default());
    std::fs::write(&path, "ours").expect("it is written");
    let refused = Server::bind(config.clone(), running.clone()).map(drop).expect_err("the file is no socket");
    assert!(refused.to_string().contains("no socket") && read(&path) == "ours", "{refused}");
    std::fs::remove_file(&path).expect("it is removed");
    // One that was left behind by a server that is no more.
    drop(std::os::unix::net::UnixListener::bind(&path).expect("a free name"));

    let server = Server::bind(config.clone(), running.clone()).expect("nobody listens there");
    assert_eq!(server.address(), &address);
    assert_eq!(address.to_string(), format!("unix:{}", path.display()));
    let mode = std::fs::metadata(&path).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o640);
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve(async { drop(stopped.await) }));
    let channel = Endpoint::from_shared(address.to_string()).expect("an address").connect().await.expect("it listens");
    CorporaClient::new(channel).list(pb::ListRequest {}).await.expect("it is let in");
    let refused = Server::bind(config, running).map(drop).expect_err("a server listens there");
    assert!(matches!(&refused, ServeError::InUse(at) if *at == address), "{refused}");
    drop(stop);
    serving.await.expect("no panic").expect("it serves to the end");
    assert!(!path.exists(), "the socket has gone with its server");
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("the folder").flatten().collect();
    assert!(left.iter().all(|entry| !entry.file_name().to_string_lossy().contains("socket")), "{left:?}");
}

/// A connection on which a client has begun, and the server with it.
async fn begun(server: &Running) -> TcpStream {
    let mut connection = TcpStream::connect(server.address).await.expect("it connects");
    connection.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("it is sent");
    connection.read_exact(&mut [0]).await.expect("the server answers");
    connection
}

/// Waits until the server closes a connection.
async fn closed(mut connection: TcpStream) {
    let ended = async {
        let mut bytes = [0; 1024];
        while connection.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
    };
    within_a_minute("it is closed", ended).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_beyond_the_limit_wait() {
    let folder = folder();
    let mut wanted = Wanted::default();
    wanted.server.connections = 2;
    let server = Running::start(folder.path(), wanted).await;
    let (first, second) = (begun(&server).await, begun(&server).await);
    let mut corpora = server.corpora().await;
    let list = corpora.list(pb::ListRequest {});
    tokio::pin!(list);
    tokio::time::timeout(Duration::from_millis(500), &mut list).await.expect_err("there is no room for a third");
    drop(first);
    within_a_minute("there is room", list).await.expect("it is let in");
    drop(second);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_nobody_uses_end() {
    let folder = folder();
    let mut wanted = Wanted::default();
    wanted.server.idle = Duration::from_millis(500);
    let server = Running::start(folder.path(), wanted).await;
    // A call keeps its connection as long as it is under way, also where nothing is sent.
    let (sender, receiver) = tokio::sync::mpsc::channel(1);
    let mut compute = server.compute().await;
    let requests = tokio_stream::wrappers::ReceiverStream::new(receiver);
    let mut replies = compute.encode_stream(requests).await.expect("it begins").into_inner();
    for request_id in 0..2 {
        let request = pb::EncodeStreamRequest { request_id, encode: Some(pb::EncodeRequest::default()) };
        sender.send(request).await.expect("it is read");
        let reply = within_a_minute("a reply", replies.message()).await.expect("it goes on").expect("a reply");
        assert_eq!(reply.request_id, request_id);
        tokio::time::sleep(Duration::from_millis(1500)).await;
    }
    drop(sender);
    let silent = TcpStream::connect(server.address).await.expect("it connects");
    closed(begun(&server).await).await;
    closed(silent).await;
    server.corpora().await.list(pb::ListRequest {}).await.expect("the server goes on");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_bounded() {
    let folder = folder();
    let server = Running::start(folder.path(), Wanted::default()).await;
    let mut request = tonic::Request::new(pb::ListRequest {});
    request.metadata_mut().insert("long", "x".repeat(100_000).parse().expect("ASCII"));
    server.corpora().await.list(request).await.expect_err("nobody needs so much");
    server.corpora().await.list(pb::ListRequest {}).await.expect("the server goes on");
    server.stop().await;
}

/// Two calls, each with a message of 60,000 bytes of which the rest is to come.
struct Held {
    server: SocketAddr,
    calls: Vec<JoinHandle<i32>>,
}

impl Held {
    /// How a call is refused for which they leave no room. They come at their own time, and may find none themselves
    /// while such a call is under way; then they come again.
    async fn refuses(&mut self, call: impl AsyncFn() -> Result<(), Status>) -> Status {
        within_a_minute("there is no room for a third", async {
            loop {
                self.calls.retain(|held| !held.is_finished());
                while self.calls.len() < 2 {
                    let (server, prefix) = (self.server, raw::framed_bytes(&[0; 60_000]).slice(..5));
                    let held = async move { raw::post(server, "Compute/Encode", &[], prefix, false).await.status().0 };
                    self.calls.push(tokio::spawn(held));
                }
                if let Err(refused) = call().await {
                    return refused;
                }
            }
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_beyond_the_memory_are_refused_until_others_are_answered() {
    let folder = folder();
    let mut wanted = Wanted::default();
    (wanted.server.max_message_bytes, wanted.server.message_memory) = (100_000, 150_000);
    let server = Running::start(folder.path(), wanted).await;
    let content = "x".repeat(60_000);
    let memories = vec![pb::Memory { content, ..Default::default() }];
    let encode = || pb::EncodeRequest { memories: memories.clone(), ..Default::default() };
    let mut compute = server.compute().await;
    compute.encode(encode()).await.expect("there is room");
    let mut held = Held { server: server.address, calls: Vec::new() };
    let refused = held.refuses(async || compute.clone().encode(encode()).await.map(drop)).await;
    assert_eq!((refused.code(), reason(&refused)), (Code::ResourceExhausted, "FULL".into()), "{refused}");
    assert!(refused.message().contains("the memory for messages"), "{refused}");
    assert!(refused.get_details_retry_info().is_some_and(|info| info.retry_delay.is_some()), "waiting helps");
    let stream = async || {
        let request = pb::EncodeStreamRequest { request_id: 1, encode: Some(encode()) };
        compute.clone().encode_stream(tokio_stream::iter([request])).await?.into_inner().message().await.map(drop)
    };
    assert_eq!(held.refuses(stream).await.code(), Code::ResourceExhausted);
    let (first, second) = (held.calls.remove(0), held.calls.remove(0));
    first.abort();
    within_a_minute("there is room again", async { while compute.encode(encode()).await.is_err() {} }).await;
    // One that does not go on is given up.
    assert_eq!(second.await.expect("no panic"), Code::DeadlineExceeded as i32);
    let requests = (0..50).map(|request_id| pb::EncodeStreamRequest { request_id, encode: Some(encode()) });
    let requests: Vec<_> = requests.collect();
    let mut stream = compute.encode_stream(tokio_stream::iter(requests)).await.expect("it begins").into_inner();
    let mut answered = 0;
    while let Some(reply) = within_a_minute("a reply", stream.message()).await.expect("they wait for each other") {
        assert_eq!(reply.request_id, answered);
        answered += 1;
    }
    assert_eq!(answered, 50);
    server.stop().await;
}
