//! Resolves host names, and connects to the first address that answers.

use std::{
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    thread,
    time::Duration,
};

use tokio::{net::TcpStream, sync::oneshot, task::JoinSet, time::sleep};

use super::Authority;

/// If an address has not answered after this time, the next one is tried, too (RFC 8305, section 5).
const ATTEMPT: Duration = Duration::from_millis(250);

/// The addresses of a host. The system's resolver blocks, so it runs in its own thread, and not in tokio's pool: if
/// that cannot start a thread, it panics.
pub(super) async fn resolve(authority: &Authority) -> io::Result<Vec<SocketAddr>> {
    let (host, port) = (authority.host.clone(), authority.port);
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![(address, port).into()]);
    }
    let (sender, receiver) = oneshot::channel();
    let ask = move || {
        let addresses = (host.as_str(), port).to_socket_addrs().map(Iterator::collect);
        // The sink may have ended in the meantime.
        let _ = sender.send(addresses);
    };
    thread::Builder::new().name("resolver".into()).spawn(ask)?;
    receiver.await.map_err(io::Error::other)?
}

/// Connects to the first address of a host that answers. The next address is tried when the ones before have failed
/// or have not answered for [`ATTEMPT`].
pub(super) async fn connect(authority: &Authority) -> io::Result<TcpStream> {
    let mut addresses = resolve(authority).await?.into_iter();
    let mut attempts = JoinSet::new();
    let mut last = io::Error::other("the name has no address");
    loop {
        let next = addresses.next();
        let is_last = next.is_none();
        if let Some(address) = next {
            attempts.spawn(TcpStream::connect(address));
        } else if attempts.is_empty() {
            return Err(last);
        }
        let answer = tokio::select! {
            answer = attempts.join_next() => answer,
            () = sleep(ATTEMPT), if !is_last => continue,
        };
        match answer {
            Some(Ok(Ok(stream))) => return Ok(stream),
            Some(Ok(Err(error))) => last = error,
            Some(Err(error)) => last = io::Error::other(error),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(flavor = "current_thread")]
    async fn a_literal_needs_no_resolver() {
        let authority = |host: &str| Authority { host: host.into(), port: 80 };
        assert_eq!(
            resolve(&authority("::1")).await.expect("address"),
            ["[::1]:80".parse().expect("address")]
        );
        assert!(resolve(&authority("127.0.0.1")).await.is_ok());
        assert!(!resolve(&authority("localhost")).await.expect("addresses").is_empty());
        assert!(resolve(&authority("no.such.host.invalid")).await.is_err());
    }
}
