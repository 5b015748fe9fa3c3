//! The answers of gRPC collectors: long answers, limits on sizes and rates, answers of proxies, no answer.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use futures_util::stream;
use http_body_util::{BodyExt, StreamBody};
use hyper::{
    Request, Response, StatusCode,
    body::{Bytes, Frame, Incoming},
    header::{HeaderMap, HeaderValue},
    server::conn::http2,
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use sockstate::sinks::{Envelope, GrpcSettings, HttpSettings, Template, TlsSettings};

use crate::collector::{Feeder, settings, wait_until};

/// The answer: the status of HTTP, bytes of a body, and the status of gRPC with its message.
type Reply = (StatusCode, usize, Option<(&'static str, &'static str)>);

/// A server; `reply` gets the number of the call, from 0, and how many records it has. `None`: it does not answer.
fn server(
    reply: impl Fn(usize, usize) -> Option<Reply> + Send + Sync + 'static,
) -> (Feeder, Arc<AtomicUsize>) {
    let calls = Arc::new(AtomicUsize::new(0));
    let (count, reply) = (Arc::clone(&calls), Arc::new(reply));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("listen");
    let port = listener.local_addr().expect("address").port();
    listener.set_nonblocking(true).expect("nonblocking");
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).expect("listener");
            loop {
                let (stream, _) = listener.accept().await.expect("connection");
                let (count, reply) = (Arc::clone(&count), Arc::clone(&reply));
                let service = service_fn(move |request: Request<Incoming>| {
                    let (count, reply) = (Arc::clone(&count), Arc::clone(&reply));
                    async move {
                        let body = request.into_body().collect().await.expect("body").to_bytes();
                        let records = String::from_utf8_lossy(&body).matches("\"seq\":").count();
                        match reply(count.fetch_add(1, Ordering::Relaxed), records) {
                            Some(reply) => Ok::<_, Infallible>(response(reply)),
                            None => std::future::pending().await,
                        }
                    }
                });
                let builder = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), service));
            }
        });
    });
    let settings_of = HttpSettings {
        url: format!("http://127.0.0.1:{port}/opentelemetry.proto.collector.logs.v1.LogsService/Export"),
        template: Template::OtlpProtobuf(Envelope { before: Vec::new(), behind: Vec::new() }),
        headers: BTreeMap::new(),
        timeout: Duration::from_secs(2),
        gzip: false,
        tls: TlsSettings::default(),
    };
    let target = GrpcSettings(settings_of);
    (Feeder::start(&settings(target), None), calls)
}

type Body = StreamBody<stream::Iter<std::vec::IntoIter<Result<Frame<Bytes>, Infallible>>>>;

fn response((status, length, verdict): Reply) -> Response<Body> {
    let mut frames = Vec::new();
    let mut left = length;
    while left > 0 {
        let part = left.min(16 << 10);
        frames.push(Ok(Frame::data(Bytes::from(vec![0; part]))));
        left -= part;
    }
    if let Some((code, message)) = verdict {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", HeaderValue::from_static(code));
        trailers.insert("grpc-message", HeaderValue::from_static(message));
        frames.push(Ok(Frame::trailers(trailers)));
    }
    let response = Response::builder().status(status).header("content-type", "application/grpc");
    response.body(StreamBody::new(stream::iter(frames))).expect("a response")
}

#[test]
fn a_long_answer_by_grpc_is_no_reason_to_send_again() {
    let (mut feeder, calls) = server(|_, _| Some((StatusCode::OK, 5 << 20, Some(("0", "")))));
    feeder.push(10);
    feeder.wait_until("it is over", |status| status.delivered() + status.in_doubt() == 10);
    // The part of the answer that was not kept lists the refused records.
    assert_eq!((feeder.queue.status().in_doubt(), calls.load(Ordering::Relaxed)), (10, 1));

    let (mut feeder, calls) = server(|_, _| Some((StatusCode::OK, 5 << 20, Some(("5", "no such method")))));
    feeder.push(10);
    feeder.wait_until("it is refused", |status| status.lost() == 10);
    assert_eq!(calls.load(Ordering::Relaxed), 1, "the trailers behind it were read");
}

#[test]
fn what_is_too_large_for_grpc_is_halved_and_a_rate_limit_is_waited_for() {
    for too_large in [
        (StatusCode::PAYLOAD_TOO_LARGE, 0, None),
        (StatusCode::OK, 0, Some(("8", "grpc: received message larger than max (9 vs. 4)"))),
        (StatusCode::OK, 0, Some(("11", "Error, decoded message length too large: found 9 bytes"))),
    ] {
        let (mut feeder, _) = server(move |_, records| {
            Some(if records > 5 { too_large } else { (StatusCode::OK, 5, Some(("0", ""))) })
        });
        feeder.push(20);
        feeder.wait_until("all is delivered", |status| status.delivered() == 20);
        assert_eq!(feeder.queue.status().lost(), 0);
    }
    for message in ["rate limit exceeded", "quota exceeded"] {
        let (mut feeder, calls) = server(move |at, _| {
            Some((StatusCode::OK, 5, Some(if at < 2 { ("8", message) } else { ("0", "") })))
        });
        feeder.push(20);
        feeder.wait_until("all is delivered", |status| status.delivered() == 20);
        assert_eq!((feeder.queue.status().lost(), calls.load(Ordering::Relaxed)), (0, 3), "{message}");
    }
}

#[test]
fn a_call_without_an_answer_at_the_end_is_in_doubt() {
    let (mut feeder, calls) = server(|_, _| None);
    feeder.push(10);
    wait_until("it has the call", || calls.load(Ordering::Relaxed) == 1);
    feeder.push(10);
    feeder.end(Duration::ZERO);
    let status = feeder.queue.status();
    assert_eq!((status.delivered(), status.in_doubt(), status.lost()), (0, 10, 10));
}
