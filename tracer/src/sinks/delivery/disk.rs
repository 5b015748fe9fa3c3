//! The disk behind a sink's queue: its spool, which takes what waits too long in memory.

use std::{
    io,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};

use super::{Batch, Queue, Read, Spool, SpoolError, opening::Opening};

/// How long a spool that takes nothing is left alone.
const SPOOL_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of records that are spooled at once, about.
const ENTRY: usize = 1 << 20;
/// How long the end waits for a spool that is not open yet.
const LAST_WAIT: Duration = Duration::from_secs(1);

/// The spool, if there is one, and where it is in its life.
pub(super) struct Disk {
    name: String,
    spool: Option<Spool>,
    opening: Option<Opening<Result<Spool, SpoolError>>>,
    /// It has refused something, and is left alone until then.
    paused: Option<Instant>,
}

impl Disk {
    /// With what is open.
    pub(super) fn open(name: &str, spool: Option<Spool>) -> Self {
        Self { name: name.to_owned(), spool, opening: None, paused: None }
    }

    /// With what is opened when its turn has come.
    pub(super) fn later(name: &str, opening: Option<Opening<Result<Spool, SpoolError>>>) -> Self {
        Self { opening, ..Self::open(name, None) }
    }

    /// Waits for the spool, since what is in it goes first. Where the disk, or the previous sink, does not let go of it, the
    /// collector need not wait.
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

    /// Waits until the spool is open, where it is not yet. Too late to refuse to start: without a spool the sink goes on.
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

    /// The last chance for a spool that is not open yet.
    pub(super) async fn wait_at_end(&mut self, queue: &Queue) {
        if self.opening.is_some()
            && timeout(LAST_WAIT, self.opened(queue)).await.is_err()
            && let Some(opening) = &self.opening
        {
            message!("sink {}: {}", self.name, opening.reason());
        }
    }

    /// Whether something waits in the spool, or can.
    pub(super) fn is_spooled(&self) -> bool {
        self.spool.is_some()
    }

    /// Whether what waits in the spool goes first.
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

    /// What was read last is delivered.
    pub(super) fn delivered(&mut self, queue: &Queue) {
        if let Some(spool) = &mut self.spool {
            spool.delivered();
        }
        self.measure(queue);
    }

    /// Waits until [`Disk::spill`] has something to do. A spool that is opened meanwhile counts from then on.
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

    /// Moves what waits in memory to the disk, where that is much; what the disk does not take stays.
    pub(super) fn spill(&mut self, queue: &Queue) {
        let is_paused = self.paused.is_some_and(|until| Instant::now() < until);
        let Some(spool) = self.spool.as_mut().filter(|_| !is_paused && queue.is_filling()) else { return };
        while queue.bytes() > 0 {
            let lot = queue.take(ENTRY);
            match spool.append(&lot) {
                Ok(()) => {
                    queue.settle(lot.weight());
                    queue.leave(lot.len() as u64);
                    self.paused = None;
                }
                Err(error) => {
                    queue.put_back(lot);
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

    /// Keeps `lot` for the next sink of this name, or counts it as lost.
    pub(super) fn keep(
        &mut self,
        lot: &Batch,
        queue: &Queue,
        by: impl FnOnce(&mut Spool, &Batch) -> Result<(), SpoolError>,
    ) {
        queue.leave(lot.len() as u64);
        let kept = self.spool.as_mut().map(|spool| by(spool, lot));
        if let Some(Err(error)) = &kept {
            message!("sink {}: {error}", self.name);
        }
        if matches!(kept, Some(Ok(()))) {
            queue.settle(lot.weight());
        } else {
            queue.lose_all(lot, false);
        }
        self.measure(queue);
    }

    fn measure(&self, queue: &Queue) {
        queue.status().spooled(self.bytes());
    }
}
