//! Where gdb attaches: a TCP port or a unix socket.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// How long a debugger may take to read what it has asked for.
const WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Where to wait for gdb.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A host's name or address, and a port; port 0 is any that is free.
    Tcp(String, u16),
    /// A unix socket.
    Unix(PathBuf),
}

/// Not an address.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "`{0}` is no place for gdb to attach to; want PORT, ADDR:PORT, or the path of a socket with a / in it"
)]
pub struct ParseAddressError(String);

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        if text.contains('/') {
            return Ok(Self::Unix(text.into()));
        }
        let (host, port) = text.rsplit_once(':').unwrap_or(("", text));
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let port = port.parse().map_err(|_| ParseAddressError(text.into()))?;
        Ok(Self::Tcp(if host.is_empty() { "127.0.0.1" } else { host }.into(), port))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host, port) if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp(host, port) => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// An open [`Address`]. Dropping it removes the socket's file.
pub(super) enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

impl Listener {
    pub(super) fn bind(address: &Address) -> io::Result<Self> {
        let listener = match address {
            Address::Tcp(host, port) => Self::Tcp(TcpListener::bind((host.as_str(), *port))?),
            Address::Unix(path) => {
                remove_dead_socket(path);
                Self::Unix(UnixListener::bind(path)?, path.clone())
            }
        };
        match &listener {
            Self::Tcp(listener) => listener.set_nonblocking(true)?,
            Self::Unix(listener, _) => listener.set_nonblocking(true)?,
        }
        Ok(listener)
    }

    /// With the port that was chosen.
    pub(super) fn address(&self) -> io::Result<Address> {
        Ok(match self {
            Self::Tcp(listener) => {
                let address = listener.local_addr()?;
                Address::Tcp(address.ip().to_string(), address.port())
            }
            Self::Unix(_, path) => Address::Unix(path.clone()),
        })
    }

    /// Who wants to attach, if anybody does.
    pub(super) fn accept(&self) -> Option<Stream> {
        let stream = match self {
            Self::Tcp(listener) => {
                let (stream, _) = listener.accept().ok()?;
                stream.set_nodelay(true).ok()?;
                stream.set_nonblocking(false).ok()?;
                stream.set_write_timeout(Some(WRITE_LIMIT)).ok()?;
                Stream::Tcp(stream)
            }
            Self::Unix(listener, _) => {
                let (stream, _) = listener.accept().ok()?;
                stream.set_nonblocking(false).ok()?;
                stream.set_write_timeout(Some(WRITE_LIMIT)).ok()?;
                Stream::Unix(stream)
            }
        };
        Some(stream)
    }
}

/// A socket that nobody listens on is left over from a run that was killed. Any other file is in the way, and stays.
fn remove_dead_socket(path: &Path) {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket());
    if is_socket && UnixStream::connect(path).is_err() {
        // If that fails, so will `bind`, and say why.
        let _ = std::fs::remove_file(path);
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener, _) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

/// The connection to a debugger.
pub(super) enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Stream {
    pub(super) fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(into),
            Self::Unix(stream) => stream.read(into),
        }
    }

    pub(super) fn write_all(&mut self, from: &[u8]) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(from),
            Self::Unix(stream) => stream.write_all(from),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let tcp = |host: &str, port| Ok(Address::Tcp(host.into(), port));
        assert_eq!("1234".parse(), tcp("127.0.0.1", 1234));
        assert_eq!(":1234".parse(), tcp("127.0.0.1", 1234));
        assert_eq!("0.0.0.0:1".parse(), tcp("0.0.0.0", 1));
        assert_eq!("[::1]:1".parse(), tcp("::1", 1));
        assert_eq!("./gdb".parse(), Ok(Address::Unix("./gdb".into())));
        for text in ["", "gdb", "host:", "host:x", "65536", "-1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
