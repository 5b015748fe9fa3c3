//! The address of a collector.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use thiserror::Error;
use tokio::{net::UnixStream, time::timeout};

use super::{Connection, Tls, resolve};
use crate::sinks::delivery::DeliveryError;

/// How long connecting may take, including the TLS handshake.
const CONNECT: Duration = Duration::from_secs(10);

/// `tcp://host:port`, `tls://host:port`, `udp://host:port`, `unix:/path`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A stream without encryption.
    Tcp(Authority),
    /// A stream with TLS.
    Tls(Authority),
    /// Datagrams.
    Udp(Authority),
    /// The path of a unix socket.
    Unix(PathBuf),
}

/// A host, by name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authority {
    /// Without brackets.
    pub host: String,
    pub port: u16,
}

/// A text that is no address.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("'{}' is no address; write tcp://host:port, tls://host:port, udp://host:port or unix:/path", shown(.0))]
pub struct ParseAddressError(String);

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let wrong = || ParseAddressError(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            // unix:///path means the same.
            let path = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
            return if path.is_absolute() { Ok(Self::Unix(path)) } else { Err(wrong()) };
        }
        let (scheme, authority) = text.split_once("://").ok_or_else(wrong)?;
        let authority = Authority::parse(authority, None).ok_or_else(wrong)?;
        match scheme {
            "tcp" => Ok(Self::Tcp(authority)),
            "tls" => Ok(Self::Tls(authority)),
            "udp" => Ok(Self::Udp(authority)),
            _ => Err(wrong()),
        }
    }
}

impl Address {
    /// A message if the path of a unix socket, or its directory, does not exist.
    pub(crate) fn absent(&self) -> Option<String> {
        let Self::Unix(path) = self else { return None };
        if path.exists() {
            return None;
        }
        let missing = path.parent().filter(|parent| !parent.exists()).unwrap_or(path);
        Some(format!("{} does not exist yet", missing.display()))
    }
}

impl Authority {
    /// Parses `host:port` or `[v6]:port`; the port may be missing if there is a `default`.
    pub(crate) fn parse(text: &str, default: Option<u16>) -> Option<Self> {
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']')?;
                (host, port.strip_prefix(':'))
            }
            None => text.rsplit_once(':').map_or((text, None), |(host, port)| (host, Some(port))),
        };
        let port = match port {
            Some(port) => port.parse().ok().filter(|port| *port != 0)?,
            None => default?,
        };
        let is_v6 = text.starts_with('[');
        let is_host = !host.is_empty() && !host.contains(['/', '@', ' ']) && (is_v6 || !host.contains(':'));
        is_host.then(|| Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(authority) => write!(f, "tcp://{authority}"),
            Self::Tls(authority) => write!(f, "tls://{authority}"),
            Self::Udp(authority) => write!(f, "udp://{authority}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One or several URLs or addresses, separated by commas, as messages show them: without user and password, and
/// without the query, which may have a token.
pub(crate) fn shown(url: &str) -> String {
    let (servers, query) = url.split_once(['?', '#']).map_or((url, ""), |(servers, _)| (servers, "?..."));
    let mut text = String::new();
    let mut rest = servers;
    loop {
        // A password may contain a comma: only a comma before a scheme separates two servers.
        let next = rest.match_indices(',').map(|(at, _)| at + 1).find(|at| begins_with_scheme(&rest[*at..]));
        let (server, others) = rest.split_at(next.unwrap_or(rest.len()));
        text.push_str(&without_user(server));
        if others.is_empty() {
            return text + query;
        }
        rest = others;
    }
}

fn begins_with_scheme(text: &str) -> bool {
    let scheme = text.split_once("://").map(|(scheme, _)| scheme);
    scheme.is_some_and(|scheme| !scheme.is_empty() && scheme.chars().all(|c| c.is_ascii_alphanumeric()))
}

fn without_user(server: &str) -> String {
    let (scheme, rest) = server.split_at(server.find("://").map_or(0, |at| at + 3));
    // A slash in a password should be escaped; if it is not, the password must not be shown either.
    let host = match (rest.find('/'), rest.rfind('@')) {
        (slash, Some(at)) if slash.is_none_or(|slash| at < slash || rest[..slash].contains(':')) => {
            format!("...{}", &rest[at..])
        }
        _ => rest.to_owned(),
    };
    format!("{scheme}{host}")
}

/// Opens a stream to `authority`, encrypted if there is `tls`.
pub(crate) async fn connect(authority: &Authority, tls: Option<&Tls>) -> Result<Connection, DeliveryError> {
    let failed =
        |error: &dyn fmt::Display| DeliveryError::retry(format!("cannot connect to {authority}: {error}"));
    let open = async {
        let stream = resolve::connect(authority).await.map_err(|error| failed(&error))?;
        // Many records are written at a time; the last ones should not wait for an acknowledgement (Nagle).
        let _ = stream.set_nodelay(true);
        match tls {
            Some(tls) => tls.connect(&authority.host, stream).await.map_err(|error| failed(&error)),
            None => Ok(Connection::Tcp(stream)),
        }
    };
    match timeout(CONNECT, open).await {
        Ok(result) => result,
        Err(_) => Err(failed(&"no answer")),
    }
}

/// Opens a stream to the socket at `path`.
pub(super) async fn connect_unix(path: &std::path::Path) -> Result<Connection, DeliveryError> {
    match UnixStream::connect(path).await {
        Ok(stream) => Ok(Connection::Unix(stream)),
        Err(error) => Err(DeliveryError::retry(format!("cannot connect to {}: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_they_are_written() {
        for text in [
            "tcp://collector:6000",
            "tls://10.0.0.1:6514",
            "udp://[::1]:514",
            "unix:/dev/log",
            "tcp://[2001:db8::1]:601",
        ] {
            assert_eq!(text.parse::<Address>().expect(text).to_string(), text);
        }
        assert_eq!("unix:///run/x".parse(), Ok(Address::Unix("/run/x".into())));
        for wrong in [
            "",
            "collector",
            "collector:80",
            "tcp://collector",
            "tcp://:80",
            "tcp://a:0",
            "tcp://a:65536",
            "http://a:80",
            "unix:log",
            "tcp://::1:80",
            "tcp://a/b:80",
        ] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn messages_show_no_secrets_of_a_url() {
        for (url, expected) in [
            ("http://host:80/path", "http://host:80/path"),
            ("http://host/a@b", "http://host/a@b"),
            ("https://user:secret@host/a?token=secret", "https://...@host/a?..."),
            ("https://host/a#secret", "https://host/a?..."),
            ("http://se@cret@host", "http://...@host"),
            ("http://user:sec/ret@host/path", "http://...@host/path"),
            ("http://user:sec,ret@host", "http://...@host"),
            ("user:secret@host", "...@host"),
            ("nats://secret@host:4222,nats://host", "nats://...@host:4222,nats://host"),
            ("nats://a:secret@one,nats://b:secret@two", "nats://...@one,nats://...@two"),
            ("a:secret@one:1,b:secret@two:1", "...@two:1"),
        ] {
            assert_eq!(shown(url), expected);
        }
        let error = "tcp://user:secret@host:80".parse::<Address>().expect_err("no address").to_string();
        assert!(error.starts_with("'tcp://...@host:80' is no address"), "{error}");
    }
}
