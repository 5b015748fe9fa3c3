//! What several sinks send by: addresses, connections, TLS, HTTP, gRPC, streams, datagrams and pipes.

mod address;
mod answer;
mod connection;
mod datagram;
#[cfg(feature = "grpc")]
mod grpc;
mod http;
mod output;
mod pipe;
mod reserve;
mod resolve;
mod stream;
mod template;
mod tls;

#[cfg(any(feature = "kafka", feature = "nats"))]
pub(super) use address::shown;
pub use address::{Address, Authority, ParseAddressError};
use connection::Connection;
pub(super) use datagram::DatagramSink;
#[cfg(feature = "grpc")]
pub(super) use grpc::GrpcSink;
pub use http::{AUTHORIZATION, HttpSettings};
pub(super) use http::{HttpError, HttpSink};
pub use output::{Output, OutputError};
pub(super) use pipe::PipeSink;
pub use stream::Framing;
pub(super) use stream::StreamSink;
pub use template::{Envelope, Template};
pub(super) use tls::Tls;
pub use tls::{TlsError, TlsSettings};
