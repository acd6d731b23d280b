//! A server behind encryption or a Unix socket, and commands that reach it there.

use rustix::process::Signal;

use crate::authority::Authority;
use crate::common::Folder;
use crate::serve::Serving;

fn stop(serving: Serving) {
    serving.signal(Signal::TERM);
    let (status, _, stderr) = serving.end();
    assert_eq!(status, Some(0), "{stderr}");
}

#[test]
fn commands_reach_a_server_that_encrypts() {
    let folder = Folder::new();
    let authority = Authority::new(&folder.path(""), "authority");
    authority.sign("server");
    authority.sign("client");
    let trusted = authority.certificate.to_str().unwrap();
    let certificates = ["--tls-cert", "server.pem", "--tls-key", "server.key"];
    let serving = Serving::start(&folder, &certificates);
    let address = serving.address().replace("127.0.0.1", "localhost");
    let list = |server: &str, args: &[&str]| folder.run(&[&["corpus", "list", "--server", server], args].concat());
    list(&address, &["--tls-ca", trusted]).succeeded();
    list(&format!("https://{address}"), &["--tls-ca", trusted]).succeeded();
    list(&address, &[]).failed(1, &["the server at localhost"]);
    list(&format!("https://{address}"), &[]).failed(1, &["no server answers", "certificate"]);
    list(&address, &["--tls-ca", "none.pem"]).failed(1, &["tls_ca", "none.pem"]);
    stop(serving);

    let serving = Serving::start(&folder, &[&certificates[..], &["--tls-ca", trusted]].concat());
    let address = serving.address().replace("127.0.0.1", "localhost");
    list(&address, &["--tls-ca", trusted]).failed(1, &["the server at localhost"]);
    let own = ["--tls-ca", trusted, "--tls-cert", "client.pem", "--tls-key", "client.key"];
    list(&address, &own).succeeded();
    serving.signal(Signal::HUP);
    list(&address, &own).succeeded();
    serving.signal(Signal::TERM);
    let (status, _, stderr) = serving.end();
    assert!(status == Some(0) && stderr.contains("the certificates are those"), "{stderr}");

    let serve = |args: &[&str]| folder.run(&[&["serve", "--listen", "127.0.0.1:0"], args].concat());
    serve(&["--tls-cert", "server.pem"]).failed(1, &["tls_key"]);
    serve(&["--tls-ca", trusted]).failed(1, &["tls_cert"]);
    serve(&["--tls-cert", "server.pem", "--tls-key", "client.key"]).failed(1, &["is not the key of"]);
}

#[test]
fn commands_reach_a_server_on_a_unix_socket() {
    let folder = Folder::new();
    let serving = Serving::start(&folder, &["--listen", "unix:megaring.sock", "--socket-mode", "660"]);
    assert_eq!(serving.address(), "unix:megaring.sock");
    folder.run(&["corpus", "list", "--server", "unix:megaring.sock"]).succeeded();
    folder
        .run(&["serve", "--data", "other", "--listen", "unix:megaring.sock"])
        .failed(1, &["unix:megaring.sock", "another program"]);
    stop(serving);
    assert!(!folder.path("megaring.sock").exists());
    folder.run(&["corpus", "list", "--server", "unix:megaring.sock"]).failed(1, &["no server answers"]);
    folder.run(&["serve", "--listen", "unix:"]).failed(2, &["a Unix socket has a path"]);
    folder.run(&["serve", "--socket-mode", "9"]).failed(2, &["octal"]);
}
