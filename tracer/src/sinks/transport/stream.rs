//! Records over a connection: NDJSON, or syslog with its octets counted (RFC 6587, 3.4.1).
//!
//! Such a protocol has no acknowledgement of its own. Records count as delivered when the other side's kernel has
//! acknowledged their last byte; on a new connection what is not delivered comes again, whole. A kernel whose
//! program ends with something unread sends a reset instead of a FIN (RFC 2525, 2.17): what was acknowledged last is in doubt
//! then, and comes again, too, once. Better twice than never.

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

/// How often it is asked whether everything was acknowledged: at first, and at last.
const ASK_MIN: Duration = Duration::from_micros(200);
const ASK_MAX: Duration = Duration::from_millis(50);
/// Bytes of records that are kept for as long as they are in doubt: what receive buffers hold, mostly.
const DOUBT: usize = 4 << 20;
/// Bytes that are acknowledged before the next ones are sent: what is lost with a connection is sent again from here.
const STEP: usize = 64 << 10;
/// How long the end waits for the other side to take what is under way.
const LINGER: Duration = Duration::from_secs(2);

/// How one record is separated from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// A line each.
    Lines,
    /// Its length in front.
    Octets,
}

/// The collector, and how records are framed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamSettings {
    /// The collector.
    pub address: Address,
    /// For an address with TLS.
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
    /// What the connection's other side has acknowledged last.
    acknowledged: VecDeque<Acknowledged>,
    /// What it may not have read, of a connection that was reset.
    again: Batch,
    /// Records that were acknowledged twice, each time on a connection that was then reset.
    reset_twice: usize,
    /// Records that are written, and that nobody has acknowledged.
    unanswered: usize,
}

struct Acknowledged {
    /// Comes again after a reset; empty where it has come again already.
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

    /// First what is in doubt. It comes a second time and no third: a collector that resets again and again gets on.
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

    /// The other side's kernel has it; its program has read it when so much more has been acknowledged as receive buffers hold.
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

    /// The connection was reset: what was delivered last comes again.
    fn doubt(&mut self) {
        for part in self.acknowledged.drain(..) {
            if part.first.is_empty() {
                self.reset_twice += part.records;
            }
            self.again.append(part.first);
        }
    }

    /// Lets go of a connection that the other side has ended: it would still take bytes.
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

    /// Waits for the other side's end of the connection, which would be in CLOSE_WAIT until the next record.
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

/// How many records make a step, one at least.
fn first_few(batch: &Batch) -> usize {
    batch.frames.partition_point(|frame| frame.end <= STEP).max(1)
}

/// Writes all, and waits until the other side's kernel has it.
async fn write(connection: &mut Connection, bytes: &[u8]) -> io::Result<()> {
    connection.write_all(bytes).await?;
    connection.flush().await?;
    let mut pause = ASK_MIN;
    while connection.unacknowledged()? > 0 {
        // One that only sends nothing more may still read.
        if let Some(Err(error)) = end_now(connection).await {
            return Err(error);
        }
        // Behind that end, a reset is an error of the socket only.
        connection.take_error()?;
        sleep(pause).await;
        pause = (pause * 2).min(ASK_MAX);
    }
    Ok(())
}

/// What ended what the other side sends, if anything did. Whatever it says is no concern of ours.
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

/// Each record with its length in front, and without the line's end.
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
