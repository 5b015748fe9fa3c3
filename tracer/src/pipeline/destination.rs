//! Where streams go: to an output that the pipeline itself writes to, or to the queues of sinks.

use std::{pin::Pin, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

use super::{Stream, Streams, now_ns};
use crate::{
    model::LostPlace,
    sinks::{Output, OutputError},
};

/// Large writes end at a multiple of this offset in the file: the page cache then uses large folios.
const BLOCK: usize = 64 << 10;
/// Fewer bytes than this are written at once, for people who watch.
const LITTLE: usize = BLOCK / 4;
/// From [`LITTLE`] up to this size, bytes wait for more bytes, or for the time of the next flush.
const MUCH: usize = 4 * BLOCK;
/// Bytes that a stream keeps at the end while its queue is full.
const END_BUFFER: usize = 64 << 20;
/// At the end: how often the tracer tries again to fill a full queue.
const FULL_CHECK: Duration = Duration::from_millis(5);

/// A configuration that can be read again.
pub trait Reload {
    /// Begins to read the configuration. Waits for no file.
    fn begin(&mut self, streams: &mut Streams);
    /// Whether a thread reads the configuration.
    fn is_reading(&self) -> bool;
    /// Waits until there is something to do for [`Reload::apply`]. May be cancelled.
    fn read(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>>;
    /// Changes the streams as the configuration says that was read.
    fn apply(&mut self, streams: &mut Streams);
}

/// Where the streams go.
pub enum Destination {
    /// The only stream goes to this output, and waits for a slow reader.
    Direct(Output),
    /// Each stream has a queue. The tracer waits for no sink.
    Sinks(Box<dyn Reload>),
}

impl Destination {
    /// How many of the buffered bytes should be sent now.
    pub(super) fn wanted(&self, streams: &Streams, at_once: bool) -> usize {
        let buffered = streams.buffered();
        match (self, buffered) {
            (Self::Sinks(_), 0) if at_once => usize::from(streams.has_unreported()),
            _ if at_once => buffered,
            (Self::Sinks(_), ..BLOCK) => 0,
            (Self::Sinks(_), _) | (Self::Direct(_), ..LITTLE) => buffered,
            (Self::Direct(_), LITTLE..MUCH) => 0,
            (Self::Direct(output), MUCH..) => whole_blocks(output.written(), buffered),
        }
    }

    /// Sends up to `limit` bytes to the output, or all complete records to sinks. May be cancelled: then the rest stays in the buffer.
    pub(super) async fn send(&mut self, streams: &mut Streams, limit: usize) -> Result<(), OutputError> {
        match (self, streams.list.first_mut()) {
            (Self::Direct(output), Some(stream)) => output.write(stream.buffer_mut(), limit).await,
            _ => {
                streams.hand_over(now_ns());
                Ok(())
            }
        }
    }

    /// Waits until the output's reader has gone, and returns false; or until a new configuration has been read, and returns true: then
    /// [`Destination::apply`] applies it.
    pub(super) async fn changed(&mut self) -> bool {
        match self {
            Self::Direct(output) => {
                output.closed().await;
                false
            }
            Self::Sinks(reload) if reload.is_reading() => {
                reload.read().await;
                true
            }
            Self::Sinks(_) => std::future::pending().await,
        }
    }

    /// Whether a thread reads the configuration.
    pub(super) fn is_reloading(&self) -> bool {
        matches!(self, Self::Sinks(reload) if reload.is_reading())
    }

    /// Changes the streams as the configuration says that was read.
    pub(super) fn apply(&mut self, streams: &mut Streams) {
        if let Self::Sinks(reload) = self {
            streams.hand_over(now_ns());
            reload.apply(streams);
        }
    }

    /// Handles SIGHUP. Returns false if the output cannot be opened again: then SIGHUP ends the program. Each record is whole, and in one file.
    pub(super) async fn hang_up(&mut self, streams: &mut Streams) -> Result<bool, OutputError> {
        match self {
            Self::Direct(output) if !output.can_reopen() => return Ok(false),
            Self::Direct(output) => {
                let Some(stream) = streams.list.first_mut() else { return Ok(false) };
                output.write(stream.buffer_mut(), usize::MAX).await?;
                match output.reopen() {
                    Ok(()) if output.written() == 0 => stream.header(),
                    Ok(()) => {}
                    Err(error) => message!("{error}; going on in the file that is open"),
                }
            }
            Self::Sinks(reload) => reload.begin(streams),
        }
        Ok(true)
    }

    /// Sends all records. What a full queue does not take stays in the buffer of its stream, up to [`END_BUFFER`]: no sink waits for another.
    pub(super) async fn flush(&mut self, streams: &mut Streams) -> Result<(), OutputError> {
        if let Self::Sinks(_) = self {
            streams.hand_over_ready(now_ns(), END_BUFFER);
            return Ok(());
        }
        self.send(streams, usize::MAX).await
    }

    /// Waits at the end until the sinks have delivered their records, for at most `grace`, and then for at most `margin` until they have
    /// spooled the rest. Counts the records that are neither delivered nor spooled as lost. May be cancelled, and called again with less time.
    pub(super) async fn finish(&self, streams: &mut Streams, grace: Duration, margin: Duration) {
        match self {
            // No reader takes the rest of the buffer: only the caller can still report it.
            Self::Direct(_) => {
                let left = streams.list.iter().flat_map(Stream::buffer);
                let lines = left.filter(|&&byte| byte == b'\n').count();
                if lines > 0 {
                    streams.summary.lost.insert(LostPlace::Output, lines as u64);
                }
            }
            Self::Sinks(_) => {
                let deadline = Instant::now() + grace;
                loop {
                    let left = deadline.saturating_duration_since(Instant::now());
                    streams.hand_over_where(now_ns(), |stream| left.is_zero() || stream.has_room(0));
                    streams.close_empty(left);
                    if left.is_zero() {
                        // Also the queues that were closed earlier with a longer grace.
                        streams.queues().for_each(|queue| queue.close(left));
                    }
                    if left.is_zero() || !streams.has_buffered() {
                        break;
                    }
                    sleep(FULL_CHECK).await;
                }
                for queue in streams.queues() {
                    let has_ended = timeout_at(deadline + margin, queue.finished()).await.is_ok();
                    if queue.is_broken() {
                        let lost = queue.abandon();
                        message!(error: "sink {}: {lost} records were not delivered", queue.name());
                    } else if !has_ended {
                        let lost = queue.abandon();
                        message!(
                            error: "sink {} hangs in a system call: {lost} records were not delivered",
                            queue.name()
                        );
                    }
                }
            }
        }
    }
}

/// How many of the `buffered` bytes to write, so that the file ends at the boundary of a block; `written` bytes are already in the file.
fn whole_blocks(written: usize, buffered: usize) -> usize {
    ((written + buffered) / BLOCK * BLOCK).saturating_sub(written)
}
