//! Serves `/metrics`, `/healthz` and `/readyz` over HTTP in a separate thread, so that a slow client delays nothing. The main thread
//! answers its questions: with the numbers, or with a sign that it works.

use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    rc::Rc,
    thread,
    time::{Duration, Instant},
};

use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::{
    io::Errno,
    net::{AddressFamily, SocketType},
};
use thiserror::Error;
use tokio::{
    sync::{Mutex, mpsc, oneshot},
    task::{JoinHandle, LocalSet, spawn_local},
    time::{sleep_until, timeout},
};

use crate::capabilities;

/// A question to the main thread: the numbers as text, or only whether it works, which needs no walk over the connections.
#[derive(Debug)]
pub enum Question {
    Numbers(oneshot::Sender<String>),
    Health(oneshot::Sender<()>),
}

/// Content type of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How long the main thread may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a request may take to arrive.
const REQUEST: Duration = Duration::from_secs(2);
/// Limit of connections. A further one ends the oldest one, so that slow clients cannot block others.
const CLIENTS: usize = 256;
/// How long an answer about health is cached.
const HEALTH: Duration = Duration::from_secs(1);
/// Shortest time from one answer with numbers to the next, because each costs the main thread a walk over the connections. A scrape
/// that comes earlier waits.
const NUMBERS: Duration = Duration::from_millis(50);

/// Why the server cannot start.
#[derive(Debug, Error)]
#[error("cannot serve metrics at {address}: {source}{}", advice(source))]
pub struct MetricsError {
    address: SocketAddr,
    source: io::Error,
}

impl MetricsError {
    /// Whether another process listens there.
    #[must_use]
    pub fn is_in_use(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
}

fn advice(error: &io::Error) -> &'static str {
    if error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error()) {
        return "; the service of this process allows it no network: set `sinks-socket`";
    }
    match error.kind() {
        io::ErrorKind::AddrInUse => "; choose another port, or end the program that listens there",
        io::ErrorKind::AddrNotAvailable => "; no interface of this host has this address",
        io::ErrorKind::PermissionDenied => "; a port below 1024 needs CAP_NET_BIND_SERVICE",
        _ => "",
    }
}

/// The thread.
#[derive(Debug)]
pub struct Server {
    questions: mpsc::Receiver<Question>,
}

impl Server {
    /// Listens at `address`.
    ///
    /// # Errors
    /// The address cannot be used, or the thread cannot be started.
    pub fn start(address: SocketAddr) -> Result<Self, MetricsError> {
        let failed = |source| MetricsError { address, source };
        let listener = listen(address)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (sender, questions) = mpsc::channel(1);
        let work = move || LocalSet::new().block_on(&runtime, serve(listener, sender));
        start_thread(work).map_err(failed)?;
        Ok(Self { questions })
    }

    /// Gets its questions from another thread than that of [`Server::start`].
    pub(super) fn asked(questions: mpsc::Receiver<Question>) -> Self {
        Self { questions }
    }

    /// Whether the address could be used. That another process listens there is not an error: it may be a running sockstate.
    ///
    /// # Errors
    /// The address cannot be used.
    pub fn verify(address: SocketAddr) -> Result<(), MetricsError> {
        let bind = || {
            let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
            let socket = rustix::net::socket(family, SocketType::STREAM, None)?;
            rustix::net::bind(&socket, &address)
        };
        match bind() {
            Ok(()) | Err(Errno::ADDRINUSE) => Ok(()),
            Err(error) => Err(MetricsError { address, source: error.into() }),
        }
    }

    /// Waits for the next question.
    pub async fn next_question(&mut self) -> Question {
        match self.questions.recv().await {
            Some(question) => question,
            None => std::future::pending().await,
        }
    }

    /// The next question, if there is one.
    pub fn try_next_question(&mut self) -> Option<Question> {
        self.questions.try_recv().ok()
    }
}

/// A socket for clients, which waits for none of them.
///
/// # Errors
/// The address cannot be used.
pub fn listen(address: SocketAddr) -> Result<TcpListener, MetricsError> {
    let listener = TcpListener::bind(address).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok(listener)
    });
    listener.map_err(|source| MetricsError { address, source })
}

/// Starts the thread of the server, which needs no capability.
pub(super) fn start_thread(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let work = move || {
        if capabilities::give_up_all().is_ok() {
            work();
        }
    };
    thread::Builder::new().name("metrics".into()).spawn(work).map(drop)
}

pub(super) async fn serve(listener: TcpListener, questions: mpsc::Sender<Question>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let answers = Rc::new(Answers { questions, numbers: Mutex::default(), health: Mutex::default() });
    let mut clients: VecDeque<JoinHandle<()>> = VecDeque::new();
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            // Probably out of descriptors; try again later.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let answers = Rc::clone(&answers);
        clients.retain(|client| !client.is_finished());
        if clients.len() >= CLIENTS
            && let Some(oldest) = clients.pop_front()
        {
            oldest.abort();
        }
        clients.push_back(spawn_local(async move {
            let service = service_fn(move |request| respond(request, Rc::clone(&answers)));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // A client that does not read its answer is disconnected; a client that disconnects early is not an error.
            let _ = timeout(PATIENCE + 2 * REQUEST, connection).await;
        }));
    }
}

async fn respond(
    request: Request<Incoming>,
    answers: Rc<Answers>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path();
    if !["/metrics", "/healthz", "/readyz"].contains(&path) {
        return Ok(plain(StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz\n"));
    }
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
        response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return Ok(response);
    }
    let response = match path {
        "/metrics" => answers.numbers().await.map(|text| typed(StatusCode::OK, OPEN_METRICS, text)),
        _ => answers.health().await.map(|()| plain(StatusCode::OK, "ok\n")),
    };
    Ok(response.unwrap_or_else(|| {
        plain(StatusCode::SERVICE_UNAVAILABLE, "the thread that reads records does not answer\n")
    }))
}

/// When the main thread last answered, to limit how often it is asked.
struct Answers {
    questions: mpsc::Sender<Question>,
    numbers: Mutex<Option<Instant>>,
    health: Mutex<Option<Instant>>,
}

impl Answers {
    async fn numbers(&self) -> Option<String> {
        let mut last = self.numbers.lock().await;
        if let Some(at) = *last {
            sleep_until((at + NUMBERS).into()).await;
        }
        let text = self.ask(Question::Numbers).await?;
        *last = Some(Instant::now());
        Some(text)
    }

    async fn health(&self) -> Option<()> {
        let mut last = self.health.lock().await;
        if last.is_none_or(|at| at.elapsed() >= HEALTH) {
            self.ask(Question::Health).await?;
            *last = Some(Instant::now());
        }
        Some(())
    }

    async fn ask<T>(&self, question: impl FnOnce(oneshot::Sender<T>) -> Question) -> Option<T> {
        let answer = async {
            let (sender, answer) = oneshot::channel();
            self.questions.send(question(sender)).await.ok()?;
            answer.await.ok()
        };
        timeout(PATIENCE, answer).await.ok().flatten()
    }
}

fn plain(status: StatusCode, text: &'static str) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", text.into())
}

fn typed(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_depends_on_the_cause() {
        let taken =
            TcpListener::bind("127.0.0.1:0").and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, _listener) = taken.expect("a port");
        let error = Server::start(address).expect_err("the port is in use").to_string();
        assert!(error.contains("in use") && error.contains("choose another port"), "{error}");
        // TEST-NET-1 (RFC 5737): no interface has this address.
        let foreign: SocketAddr = "192.0.2.1:9".parse().expect("an address");
        let error = Server::start(foreign).expect_err("no such address").to_string();
        assert!(error.contains("no interface") && !error.contains("port"), "{error}");
    }
}
