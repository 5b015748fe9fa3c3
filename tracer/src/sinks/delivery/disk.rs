//! A sink's spool as the worker uses it: records go to disk when more than half of the queue is used.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};

use super::{Batch, Queue, Read, Spool, SpoolError, opening::Opening};

/// The pause after the spool has not taken a record.
const SPOOL_PAUSE: Duration = Duration::from_secs(1);
/// About how many bytes of records are spooled at once.
const ENTRY: usize = 1 << 20;
/// How long the end waits for a spool that is not open yet.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The spool, if there is one, open or not yet open.
pub(super) struct Disk {
    name: String,
    spool: Option<Spool>,
    opening: Option<Opening<Result<Spool, SpoolError>>>,
    /// The spool has refused a record, and is not used until then.
    paused: Option<Instant>,
}

impl Disk {
    /// A disk with an open spool, or without a spool.
    pub(super) fn open(name: &str, spool: Option<Spool>) -> Self {
        Self { name: name.to_owned(), spool, opening: None, paused: None }
    }

    /// A disk with a spool that a thread opens.
    pub(super) fn later(name: &str, opening: Option<Opening<Result<Spool, SpoolError>>>) -> Self {
        Self { opening, ..Self::open(name, None) }
    }

    /// Waits for the spool, since its records are delivered first; not for long if the disk, or the previous sink,
    /// does not release it.
    pub(super) async fn begin(&mut self, queue: &Queue) {
        if self.spool.is_some() {
            queue.set_spools();
        }
        self.measure(queue);
        let Some(patience) = self.opening.as_ref().map(Opening::patience) else { return };
        tokio::select! {
            biased;
            () = self.opened(queue) => return,
            () = queue.overdue() => return,
            () = sleep(patience) => {}
        }
        if let Some(opening) = &self.opening {
            message!("sink {}: {}; going on without the spool until then", self.name, opening.reason());
        }
    }

    /// Waits until the spool is open. It is too late to refuse to start: if it cannot be opened, the sink goes on
    /// without it.
    async fn opened(&mut self, queue: &Queue) {
        let Some(opening) = &mut self.opening else { return std::future::pending().await };
        let opened = opening.opened().await;
        self.opening = None;
        match opened {
            Ok(spool) => {
                self.spool = Some(spool);
                queue.set_spools();
                self.measure(queue);
            }
            Err(error) => message!("sink {}: {error}; going on without it", self.name),
        }
    }

    /// Waits a last time for a spool that is not open yet.
    pub(super) async fn wait_at_end(&mut self, queue: &Queue) {
        if self.opening.is_some()
            && timeout(LAST_WAIT, self.opened(queue)).await.is_err()
            && let Some(opening) = &self.opening
        {
            message!("sink {}: {}", self.name, opening.reason());
        }
    }

    /// Whether there is an open spool.
    pub(super) fn is_spooled(&self) -> bool {
        self.spool.is_some()
    }

    /// Whether records wait in the spool; they are delivered first.
    pub(super) fn has_records(&self) -> bool {
        self.spool.as_ref().is_some_and(|spool| !spool.is_empty())
    }

    /// Bytes in the spool.
    pub(super) fn bytes(&self) -> u64 {
        self.spool.as_ref().map_or(0, Spool::bytes)
    }

    /// The next records of the spool, if there are any.
    pub(super) fn read(&mut self, most: usize, queue: &Queue) -> Option<io::Result<Read>> {
        let read = self.spool.as_mut().filter(|spool| !spool.is_empty())?.read(most);
        self.measure(queue);
        Some(read)
    }

    /// See [`Spool::give_up`].
    pub(super) fn give_up(&mut self) -> Option<u64> {
        self.spool.as_mut().and_then(Spool::give_up)
    }

    /// The records that were read last are delivered.
    pub(super) fn delivered(&mut self, queue: &Queue) {
        if let Some(spool) = &mut self.spool {
            spool.delivered();
        }
        self.measure(queue);
    }

    /// Waits until [`Disk::spill`] has records to move, or the spool has been opened.
    pub(super) async fn due(&mut self, queue: &Queue) {
        if self.opening.is_some() {
            return self.opened(queue).await;
        }
        if self.spool.is_none() {
            return std::future::pending().await;
        }
        if let Some(until) = self.paused {
            tokio::time::sleep_until(until.into()).await;
        }
        queue.filling().await;
    }

    /// Moves records from memory to the disk if there are many; records that the disk does not take stay.
    pub(super) fn spill(&mut self, queue: &Queue) {
        let is_paused = self.paused.is_some_and(|until| Instant::now() < until);
        let Some(spool) = self.spool.as_mut().filter(|_| !is_paused && queue.is_filling()) else { return };
        while queue.bytes() > 0 {
            let batch = queue.take(ENTRY);
            match spool.append(&batch) {
                Ok(()) => {
                    queue.settle(batch.weight());
                    queue.depart(batch.len() as u64);
                    self.paused = None;
                }
                Err(error) => {
                    queue.put_back(batch);
                    if self.paused.is_none() {
                        message!("sink {}: {error}", self.name);
                    }
                    self.paused = Some(Instant::now() + SPOOL_PAUSE);
                    break;
                }
            }
        }
        self.measure(queue);
    }

    /// Keeps `batch` for the next sink of this name, or counts it as lost.
    pub(super) fn keep(
        &mut self,
        batch: &Batch,
        queue: &Queue,
        by: impl FnOnce(&mut Spool, &Batch) -> Result<(), SpoolError>,
    ) {
        queue.depart(batch.len() as u64);
        let kept = self.spool.as_mut().map(|spool| by(spool, batch));
        if let Some(Err(error)) = &kept {
            message!("sink {}: {error}", self.name);
        }
        if matches!(kept, Some(Ok(()))) {
            queue.settle(batch.weight());
        } else {
            queue.lose_all(batch, false);
        }
        self.measure(queue);
    }

    fn measure(&self, queue: &Queue) {
        queue.status().spooled(self.bytes());
    }
}
