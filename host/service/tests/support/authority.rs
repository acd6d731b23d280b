//! An authority that signs certificates, in files.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};

/// An authority, and the folder that its files are in.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    folder: PathBuf,
    /// Its own certificate.
    pub(crate) certificate: PathBuf,
}

impl Authority {
    /// A new one, whose certificate is in `NAME.pem`.
    pub(crate) fn new(folder: &Path, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let own = params.self_signed(&key).expect("its own certificate");
        let certificate = folder.join(format!("{name}.pem"));
        std::fs::write(&certificate, own.pem()).expect("it is written");
        Self { issuer: Issuer::new(params, key), folder: folder.to_owned(), certificate }
    }

    /// Signs a new certificate for this machine: `NAME.pem`, and its key `NAME.key`.
    pub(crate) fn sign(&self, name: &str) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().expect("a key");
        let names = ["localhost", "127.0.0.1"].map(String::from);
        let signed = CertificateParams::new(names).expect("good names").signed_by(&key, &self.issuer).expect("signed");
        let (certificate, private) = (format!("{name}.pem"), format!("{name}.key"));
        let (certificate, private) = (self.folder.join(certificate), self.folder.join(private));
        std::fs::write(&certificate, signed.pem()).expect("it is written");
        std::fs::write(&private, key.serialize_pem()).expect("it is written");
        (certificate, private)
    }
}
