//! Transports that several sinks use: connections with TLS, HTTP, gRPC, streams, datagrams and pipes.

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

pub(crate) use address::connect;
#[cfg(any(feature = "kafka", feature = "nats"))]
pub(super) use address::shown;
pub use address::{Address, Authority, ParseAddressError};
use connection::Connection;
pub use datagram::DatagramSettings;
#[cfg(feature = "grpc")]
pub use grpc::GrpcSettings;
pub(super) use http::AUTHORIZATION;
pub use http::HttpSettings;
pub use output::{Output, OutputError};
pub(super) use pipe::PipeSink;
pub use stream::{Framing, StreamSettings};
pub use template::{Envelope, Template};
pub(crate) use tls::Tls;
pub use tls::{TlsError, TlsFiles, TlsSettings};
