//! The part of an HTTP answer's body that comes in time.

use http_body_util::BodyExt;
use hyper::{
    body::{Bytes, Incoming},
    header::HeaderMap,
};
use tokio::time::{Instant, timeout_at};

/// Bytes of an answer that are kept, at most.
const MOST: usize = 4 << 20;

#[derive(Default)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    /// `bytes` is the whole body.
    pub(super) is_whole: bool,
    /// The answer has ended, so the connection can be used again.
    pub(super) has_ended: bool,
    /// The trailers, in which gRPC sends its status.
    pub(super) trailers: HeaderMap,
}

impl Answer {
    /// Reads the body; only the beginning of one that is longer than [`MOST`].
    pub(super) async fn read(body: Incoming, deadline: Instant) -> Self {
        Self::read_while(body, deadline, Self::is_cut).await
    }

    /// Reads on to the trailers, also if the body is longer than [`MOST`].
    #[cfg(feature = "grpc")]
    pub(super) async fn read_to_trailers(body: Incoming, deadline: Instant) -> Self {
        Self::read_while(body, deadline, |_| false).await
    }

    fn is_cut(&self) -> bool {
        !self.is_whole
    }

    async fn read_while(mut body: Incoming, deadline: Instant, is_enough: impl Fn(&Self) -> bool) -> Self {
        let mut answer = Self { is_whole: true, ..Self::default() };
        while !is_enough(&answer) {
            match timeout_at(deadline, body.frame()).await {
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => answer.add(&data),
                    Err(frame) => answer.trailers.extend(frame.into_trailers().unwrap_or_default()),
                },
                Ok(None) => {
                    answer.has_ended = true;
                    break;
                }
                Ok(Some(Err(_))) | Err(_) => {
                    answer.is_whole = false;
                    break;
                }
            }
        }
        answer
    }

    fn add(&mut self, data: &Bytes) {
        let fitting = data.len().min(MOST - self.bytes.len());
        self.bytes.extend_from_slice(&data[..fitting]);
        self.is_whole &= fitting == data.len();
    }
}
