//! Certificates: what a server shows, and whom it lets in by theirs. The files may change while it serves; new
//! connections go by the new ones, and files that cannot be leave the last good ones in place.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use megaring_core::Error;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{self, RootCertStore, ServerConfig, crypto};

use crate::followed::{Followed, Stamp};

/// What gRPC is called where a connection's protocol is chosen.
const PROTOCOL: &[u8] = b"h2";

/// Files of certificates, in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// The server's certificate, and those between it and the authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
    /// Certificates of authorities: only clients with a certificate of theirs are let in. `None` asks clients for none.
    pub client_authorities: Option<PathBuf>,
}

/// What the files have.
pub(super) struct Certificates {
    files: TlsConfig,
    current: RwLock<(Arc<ServerConfig>, Stamp)>,
}

impl Certificates {
    /// Reads them.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the file and what is wrong with it.
    pub(super) fn open(files: TlsConfig) -> Result<Self, Error> {
        let stamp = stamp(&files);
        let read = read(&files)?;
        Ok(Self { files, current: RwLock::new((read, stamp)) })
    }

    /// What makes a connection by the certificates as they are now.
    pub(super) fn acceptor(&self) -> TlsAcceptor {
        self.current.read().unwrap_or_else(PoisonError::into_inner).0.clone().into()
    }
}

impl Followed for Certificates {
    const NAME: &'static str = "certificates";

    fn reload(&self) -> Result<(), Error> {
        // Before they are read: what is written meanwhile shows the next time.
        let stamp = stamp(&self.files);
        let read = read(&self.files);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.1 = stamp;
        current.0 = read?;
        Ok(())
    }

    fn has_changed(&self) -> bool {
        stamp(&self.files) != self.current.read().unwrap_or_else(PoisonError::into_inner).1
    }
}

fn stamp(files: &TlsConfig) -> Stamp {
    let TlsConfig { certificate, key, client_authorities } = files;
    Stamp::of([certificate, key].into_iter().chain(client_authorities))
}

fn read(files: &TlsConfig) -> Result<Arc<ServerConfig>, Error> {
    let TlsConfig { certificate, key, client_authorities } = files;
    let chain = certificates("tls_cert", certificate)?;
    let unreadable = |error| wrong("tls_key", key, &error);
    let private = PrivateKeyDer::from_pem_file(key).map_err(unreadable)?;
    let provider = Arc::new(crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder =
        builder.with_safe_default_protocol_versions().map_err(|error| wrong("tls_cert", certificate, &error))?;
    let builder = match client_authorities {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut authorities = RootCertStore::empty();
            for authority in certificates("tls_ca", file)? {
                authorities.add(authority).map_err(|error| wrong("tls_ca", file, &error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(authorities.into(), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| wrong("tls_ca", file, &error))?)
        }
    };
    let mut config = builder.with_single_cert(chain, private).map_err(|error| match error {
        rustls::Error::InconsistentKeys(_) => {
            Error::field("tls_key", format!("{} is not the key of {}", key.display(), certificate.display()))
        }
        error => wrong("tls_cert", certificate, &error),
    })?;
    config.alpn_protocols = vec![PROTOCOL.to_vec()];
    Ok(Arc::new(config))
}

fn certificates(field: &str, file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let unreadable = |error: &dyn std::fmt::Display| wrong(field, file, error);
    let found = CertificateDer::pem_file_iter(file).map_err(|error| unreadable(&error))?;
    let found: Vec<_> = found.collect::<Result<_, _>>().map_err(|error| unreadable(&error))?;
    if found.is_empty() { Err(unreadable(&"it has no certificate in PEM")) } else { Ok(found) }
}

fn wrong(field: &str, file: &Path, reason: &dyn std::fmt::Display) -> Error {
    Error::field(field, format!("{}: {reason}", file.display()))
}
