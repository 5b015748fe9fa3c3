//! Records over a connection: NDJSON, or syslog with its octets counted (RFC 6587, 3.4.1).
//!
//! These protocols have no acknowledgement. Records count as delivered when the peer's kernel has acknowledged their
//! last byte (TCP) or the peer has read it (unix); the others are sent again, completely, on the next connection. If
//! a program ends before it has read everything, its kernel sends a reset instead of a FIN (RFC 2525, 2.17): then the
//! records that were acknowledged last are in doubt, and are sent again, once. So a record may come twice, but is not
//! lost.

use std::{
    collections::VecDeque,
    future::poll_fn,
    io,
    io::Write,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWriteExt, ReadBuf},
    time::sleep,
};

use super::{Address, Connection, Tls, TlsSettings, address};
use crate::sinks::delivery::{Batch, DeliveryError, OpenError, Pending, Sink, SinkBuilder};

/// The shortest and the longest pause between two questions whether everything is acknowledged.
const ASK_MIN: Duration = Duration::from_micros(200);
const ASK_MAX: Duration = Duration::from_millis(50);
/// Bytes of acknowledged records that are kept, because the peer may not have read them: mostly as much as a receive
/// buffer holds.
const DOUBT: usize = 4 << 20;
/// About this many bytes are sent at a time; the next ones are sent when these are acknowledged.
const STEP: usize = 64 << 10;
/// How long closing a connection may take.
const LINGER: Duration = Duration::from_secs(2);

/// How one record is separated from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// One line per record.
    Lines,
    /// The length of each record before it.
    Octets,
}

/// The collector, and how records are framed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSettings {
    /// The collector.
    pub address: Address,
    /// The settings for an address with TLS.
    pub tls: TlsSettings,
    /// How one record is separated from the next.
    pub framing: Framing,
}

impl StreamSettings {
    fn is_encrypted(&self) -> bool {
        matches!(self.address, Address::Tls(_))
    }
}

impl SinkBuilder for StreamSettings {
    fn open(&self, _header: Vec<u8>) -> Result<Box<dyn Sink>, OpenError> {
        let tls = self.is_encrypted().then(|| Tls::new(&self.tls)).transpose()?;
        Ok(Box::new(StreamSink::new(self.address.clone(), tls, self.framing)))
    }

    fn problems(&self) -> Vec<(&'static str, OpenError)> {
        if self.is_encrypted() { self.tls.problems() } else { Vec::new() }
    }
}

/// The sink.
struct StreamSink {
    address: Address,
    tls: Option<Tls>,
    framing: Framing,
    connection: Option<Connection>,
    /// The records that were acknowledged last.
    acknowledged: VecDeque<Acknowledged>,
    /// Records that were acknowledged on a connection that was then reset: they are sent again.
    again: Batch,
    /// Records that were acknowledged twice, each time on a connection that was then reset.
    reset_twice: usize,
    /// Records that are written and not acknowledged.
    unanswered: usize,
}

struct Acknowledged {
    /// The records, for sending them again after a reset; empty if they were sent again already.
    first: Batch,
    records: usize,
    bytes: usize,
}

impl StreamSink {
    fn new(address: Address, tls: Option<Tls>, framing: Framing) -> Self {
        Self {
            address,
            tls,
            framing,
            connection: None,
            acknowledged: VecDeque::new(),
            again: Batch::default(),
            reset_twice: 0,
            unanswered: 0,
        }
    }

    /// Delivers the records, and removes those that are delivered.
    async fn send_batch(&mut self, batch: &mut Batch) -> Result<(), DeliveryError> {
        self.end_ended().await;
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect().await?,
        };
        if let Err(error) = self.write_all(&mut connection, batch).await {
            self.doubt();
            return Err(DeliveryError::retry(format!("{}: {error}", self.address)));
        }
        self.connection = Some(connection);
        Ok(())
    }

    /// Writes the records in doubt first. They are sent only twice, so that a collector that resets each connection
    /// does not get the same records for ever.
    async fn write_all(&mut self, connection: &mut Connection, batch: &mut Batch) -> io::Result<()> {
        while !self.again.is_empty() {
            let part = self.again.first(first_few(&self.again));
            self.write(connection, &part).await?;
            self.again.drop_first(part.len());
            let (records, bytes) = (part.len(), part.bytes.len());
            self.remember(Acknowledged { first: Batch::default(), records, bytes });
        }
        while !batch.is_empty() {
            let count = first_few(batch);
            self.unanswered = self.unanswered.max(count);
            self.write(connection, &batch.first(count)).await?;
            self.unanswered = 0;
            let first = batch.take_first(count);
            let (records, bytes) = (first.len(), first.bytes.len());
            self.remember(Acknowledged { first, records, bytes });
        }
        Ok(())
    }

    /// Remembers records that are acknowledged, until the peer must have read them: when more bytes have been
    /// acknowledged than a receive buffer holds.
    fn remember(&mut self, acknowledged: Acknowledged) {
        self.acknowledged.push_back(acknowledged);
        while self.acknowledged.iter().map(|part| part.bytes).sum::<usize>() > DOUBT {
            self.acknowledged.pop_front();
        }
    }

    async fn write(&self, connection: &mut Connection, part: &Batch) -> io::Result<()> {
        match self.framing {
            Framing::Lines => write(connection, &part.bytes).await,
            Framing::Octets => write(connection, &octets(part)).await,
        }
    }

    /// The connection was reset: the records that were acknowledged last must be sent again, unless they were already.
    fn doubt(&mut self) {
        for part in self.acknowledged.drain(..) {
            if part.first.is_empty() {
                self.reset_twice += part.records;
            }
            self.again.append(part.first);
        }
    }

    /// Closes a connection that the peer has closed: writing to it would still succeed.
    async fn end_ended(&mut self) {
        let Some(connection) = &mut self.connection else { return };
        if let Some(end) = end_now(connection).await {
            self.ended(end).await;
        }
    }

    async fn ended(&mut self, end: io::Result<()>) {
        if end.is_err() {
            self.doubt();
        }
        self.end().await;
    }

    async fn connect(&self) -> Result<Connection, DeliveryError> {
        match &self.address {
            Address::Unix(path) => address::connect_unix(path).await,
            Address::Tcp(authority) | Address::Tls(authority) | Address::Udp(authority) => {
                address::connect(authority, self.tls.as_ref()).await
            }
        }
    }

    /// Waits until the peer closes the connection, and closes it, too: otherwise it would be in CLOSE_WAIT until the
    /// next record.
    async fn await_end(&mut self) {
        let Some(connection) = &mut self.connection else { return std::future::pending().await };
        let end = poll_fn(|context| poll_end(connection, context)).await;
        self.ended(end).await;
    }

    async fn end(&mut self) {
        if let Some(mut connection) = self.connection.take() {
            let was_reset = matches!(end_now(&mut connection).await, Some(Err(_)));
            if was_reset || connection.take_error().is_err() {
                self.doubt();
            }
            let _ = tokio::time::timeout(LINGER, connection.shutdown()).await;
        }
        self.acknowledged.clear();
    }
}

impl Sink for StreamSink {
    fn deliver<'a>(&'a mut self, batch: &'a mut Batch) -> Pending<'a, Result<(), DeliveryError>> {
        Box::pin(self.send_batch(batch))
    }

    fn idle(&mut self) -> Pending<'_, ()> {
        Box::pin(self.await_end())
    }

    fn must_deliver(&self) -> bool {
        !self.again.is_empty()
    }

    fn doubtful(&self) -> u64 {
        (self.again.len() + self.reset_twice) as u64
    }

    fn unanswered(&self) -> usize {
        self.unanswered
    }

    fn close(&mut self) -> Pending<'_, ()> {
        Box::pin(self.end())
    }
}

/// The number of records for one [`STEP`], at least one.
fn first_few(batch: &Batch) -> usize {
    batch.frames.partition_point(|frame| frame.end <= STEP).max(1)
}

/// Writes `bytes`, and waits until all of them are acknowledged.
async fn write(connection: &mut Connection, bytes: &[u8]) -> io::Result<()> {
    connection.write_all(bytes).await?;
    connection.flush().await?;
    let mut pause = ASK_MIN;
    while connection.unacknowledged()? > 0 {
        // A peer that has only shut down its sending side may still read.
        if let Some(Err(error)) = end_now(connection).await {
            return Err(error);
        }
        // After that, a reset only shows as the error of the socket.
        connection.take_error()?;
        sleep(pause).await;
        pause = (pause * 2).min(ASK_MAX);
    }
    Ok(())
}

/// Ready when the peer has closed or reset the connection. Discards what the peer sends.
fn poll_end(connection: &mut Connection, context: &mut Context<'_>) -> Poll<io::Result<()>> {
    let mut buffer = [0; 512];
    loop {
        let mut buffer = ReadBuf::new(&mut buffer);
        match Pin::new(&mut *connection).poll_read(context, &mut buffer) {
            Poll::Ready(Ok(())) if !buffer.filled().is_empty() => {}
            ended => return ended,
        }
    }
}

async fn end_now(connection: &mut Connection) -> Option<io::Result<()>> {
    poll_fn(|context| {
        Poll::Ready(match poll_end(connection, context) {
            Poll::Ready(end) => Some(end),
            Poll::Pending => None,
        })
    })
    .await
}

/// Each record with its length before it, and without its newline.
fn octets(batch: &Batch) -> Vec<u8> {
    let mut framed = Vec::with_capacity(batch.bytes.len() + 6 * batch.len());
    for (bytes, _) in batch.records() {
        let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
        // Writing to a vector does not fail.
        let _ = write!(framed, "{} ", bytes.len());
        framed.extend_from_slice(bytes);
    }
    framed
}
