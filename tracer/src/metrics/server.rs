//! `/metrics`, `/healthz`, `/readyz` over HTTP, in a thread of its own: a slow client holds up nobody. What they say comes from
//! the thread that reads records, so an answer also shows that it works.

use std::{
    convert::Infallible,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread,
    time::Duration,
};

use caps::CapSet;
use http_body_util::Full;
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    header::{ALLOW, CONTENT_TYPE},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use thiserror::Error;
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    time::timeout,
};

/// Somebody who wants the numbers, as text.
pub type Question = oneshot::Sender<String>;

/// Content type of OpenMetrics.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// How long whoever reads records may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a request may take to come.
const REQUEST: Duration = Duration::from_secs(5);
/// Clients at a time; more wait.
const CLIENTS: usize = 8;

/// Why there are no metrics.
#[derive(Debug, Error)]
#[error("cannot serve metrics at {address}: {source}; is the port in use?")]
pub struct MetricsError {
    address: SocketAddr,
    source: io::Error,
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
    /// It cannot listen there, or no thread can be started.
    pub fn start(address: SocketAddr) -> Result<Self, MetricsError> {
        let failed = |source| MetricsError { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let (sender, questions) = mpsc::channel(1);
        let work = move || {
            // It listens already, and whoever talks to it gets nothing else from it.
            for set in [CapSet::Effective, CapSet::Permitted, CapSet::Inheritable] {
                if caps::clear(None, set).is_err() {
                    return;
                }
            }
            runtime.block_on(serve(listener, sender));
        };
        thread::Builder::new().name("metrics".into()).spawn(work).map_err(failed)?;
        Ok(Self { questions })
    }

    /// The next that waits for an answer.
    pub async fn asked(&mut self) -> Question {
        match self.questions.recv().await {
            Some(question) => question,
            None => std::future::pending().await,
        }
    }

    /// The same, if there is one now.
    pub fn asked_now(&mut self) -> Option<Question> {
        self.questions.try_recv().ok()
    }
}

async fn serve(listener: TcpListener, questions: mpsc::Sender<Question>) {
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    let room = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let Ok(seat) = Arc::clone(&room).acquire_owned().await else { return };
        let Ok((stream, _)) = listener.accept().await else {
            // Out of descriptors, most likely: some will come back.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let questions = questions.clone();
        tokio::spawn(async move {
            let _seat = seat;
            let service = service_fn(move |request| respond(request, questions.clone()));
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(REQUEST)
                .keep_alive(false)
                .serve_connection(TokioIo::new(stream), service);
            // One that never reads its answer is cut off; whoever goes away early is no failure of ours.
            let _ = timeout(PATIENCE + 2 * REQUEST, connection).await;
        });
    }
}

async fn respond(
    request: Request<Incoming>,
    questions: mpsc::Sender<Question>,
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
    let Some(text) = ask(&questions).await else {
        return Ok(plain(StatusCode::SERVICE_UNAVAILABLE, "the thread that reads records does not answer\n"));
    };
    Ok(match path {
        "/metrics" => typed(StatusCode::OK, OPEN_METRICS, text),
        _ => plain(StatusCode::OK, "ok\n"),
    })
}

async fn ask(questions: &mpsc::Sender<Question>) -> Option<String> {
    let answer = async {
        let (question, answer) = oneshot::channel();
        questions.send(question).await.ok()?;
        answer.await.ok()
    };
    timeout(PATIENCE, answer).await.ok().flatten()
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
