//! Where a server listens.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpSocket};

/// Connections that wait with the system.
const BACKLOG: u32 = 1024;

/// An address that is listened on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// One of the network; port 0 takes a free one.
    Network(SocketAddr),
    /// A Unix socket, by the path of its file. Whoever may write the file may connect.
    Unix {
        /// The file. One that a server has left behind is replaced.
        path: PathBuf,
        /// The file's permissions, such as 0o600.
        mode: u32,
    },
}

impl Address {
    /// Whether programs of this machine alone can connect.
    #[must_use]
    pub fn is_local(&self) -> bool {
        match self {
            Self::Network(address) => address.ip().is_loopback(),
            Self::Unix { .. } => true,
        }
    }

    /// The address of the network, where it is one.
    #[must_use]
    pub fn network(&self) -> Option<SocketAddr> {
        match self {
            Self::Network(address) => Some(*address),
            Self::Unix { .. } => None,
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Network(address)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(address) => address.fmt(f),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What can be read from and written to.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A socket that is listened on.
pub(super) enum Listener {
    Network(TcpListener),
    #[cfg(unix)]
    Unix(unix::Listener),
}

impl Listener {
    /// Listens.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::AddrInUse`] where another program listens there.
    pub(super) fn bind(address: &Address) -> io::Result<Self> {
        match address {
            Address::Network(address) => {
                let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
                // On Unix the port is free at once after a server has ended; elsewhere this would share it.
                socket.set_reuseaddr(cfg!(unix))?;
                socket.bind(*address)?;
                socket.listen(BACKLOG).map(Self::Network)
            }
            #[cfg(unix)]
            Address::Unix { path, mode } => unix::Listener::bind(path, *mode).map(Self::Unix),
            #[cfg(not(unix))]
            Address::Unix { .. } => Err(io::Error::new(io::ErrorKind::Unsupported, "this system has no Unix sockets")),
        }
    }

    /// Where it listens; the port is the real one.
    pub(super) fn address(&self) -> io::Result<Address> {
        match self {
            Self::Network(listener) => listener.local_addr().map(Address::Network),
            #[cfg(unix)]
            Self::Unix(listener) => Ok(listener.address()),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Box<dyn Stream>> {
        match self {
            Self::Network(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
            #[cfg(unix)]
            Self::Unix(listener) => Ok(Box::new(listener.accept().await?)),
        }
    }
}

#[cfg(unix)]
mod unix {
    use std::fs::{self, Permissions};
    use std::io;
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
    use std::os::unix::net::UnixStream;
    use std::path::{Path, PathBuf};

    use tokio::net::UnixListener;

    use super::Address;

    /// A Unix socket whose file goes with it.
    pub(in crate::server) struct Listener {
        socket: UnixListener,
        path: PathBuf,
        mode: u32,
        /// The file's, by which it is known for this socket's own.
        inode: u64,
    }

    impl Listener {
        /// Listens. The file is made under another name and gets its own with its permissions: nobody connects before.
        pub(super) fn bind(path: &Path, mode: u32) -> io::Result<Self> {
            match fs::symlink_metadata(path) {
                Ok(found) if !found.file_type().is_socket() => {
                    return Err(io::Error::new(io::ErrorKind::AlreadyExists, "the file is there, and is no socket"));
                }
                Ok(_) if UnixStream::connect(path).is_ok() => return Err(io::ErrorKind::AddrInUse.into()),
                _ => {}
            }
            let name = path.file_name().ok_or_else(|| io::Error::other("the path has no file's name"))?;
            let mut hidden = std::ffi::OsString::from(".");
            hidden.push(name);
            hidden.push(format!(".{}", std::process::id()));
            let hidden = path.with_file_name(hidden);
            // One of a process of the same number that is no more.
            let _ = fs::remove_file(&hidden);
            let socket = UnixListener::bind(&hidden)?;
            let named = || {
                fs::set_permissions(&hidden, Permissions::from_mode(mode))?;
                fs::rename(&hidden, path)?;
                fs::symlink_metadata(path).map(|file| file.ino())
            };
            let inode = named().inspect_err(|_| drop(fs::remove_file(&hidden)))?;
            Ok(Self { socket, path: path.to_owned(), mode, inode })
        }

        pub(super) fn address(&self) -> Address {
            Address::Unix { path: self.path.clone(), mode: self.mode }
        }

        pub(super) async fn accept(&self) -> io::Result<tokio::net::UnixStream> {
            self.socket.accept().await.map(|(stream, _)| stream)
        }
    }

    impl Drop for Listener {
        fn drop(&mut self) {
            // Another server may have taken the name.
            if fs::symlink_metadata(&self.path).is_ok_and(|file| file.ino() == self.inode) {
                let _ = fs::remove_file(&self.path);
            }
        }
    }
}
