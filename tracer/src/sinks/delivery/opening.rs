//! A thread of its own opens what a disk may keep waiting: neither the thread that reads records waits, nor the sink's.

use std::{io, thread, time::Duration};

use tokio::{sync::oneshot, time::sleep};

use super::{Queue, sync::Arc};

/// After this time a sink says that a file is not open yet.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same time if a previous sink, which ends within seconds, still uses the file.
const PREVIOUS_PATIENCE: Duration = Duration::from_secs(15);
/// The pause after the system has started no thread.
const THREAD_PAUSE: Duration = Duration::from_secs(1);

/// Opens a file, a sink or a spool.
pub(super) type Open<T> = Arc<dyn Fn() -> T + Send + Sync>;

/// A file, a sink or a spool that is being opened.
pub(super) struct Opening<T> {
    /// What is opened, for messages.
    what: String,
    /// The queue of its sink. A sink that takes over the file also waits for the thread that opens it.
    queue: Queue,
    /// Sinks that still use the file.
    after: Vec<Queue>,
    open: Open<T>,
    under_way: Option<oneshot::Receiver<T>>,
    /// Why no thread could be started.
    refused: Option<io::Error>,
}

impl<T: Send + 'static> Opening<T> {
    pub(super) fn new(what: String, queue: Queue, after: Vec<Queue>, open: Open<T>) -> Self {
        let mut opening = Self { what, queue, after, open, under_way: None, refused: None };
        if opening.after.is_empty() {
            // By the thread that starts the sink, since certificates may need its capabilities: the sink's thread has none.
            opening.refused = opening.begin().err();
        }
        opening
    }

    /// Waits until the previous sinks have released the file and it has been opened. May be cancelled.
    pub(super) async fn opened(&mut self) -> T {
        loop {
            while let Some(before) = self.after.last() {
                before.released().await;
                self.after.pop();
            }
            match &mut self.under_way {
                None => match self.begin() {
                    Ok(()) => self.refused = None,
                    Err(error) => {
                        self.refused = Some(error);
                        sleep(THREAD_PAUSE).await;
                    }
                },
                Some(result) => {
                    let result = result.await;
                    self.under_way = None;
                    if let Ok(result) = result {
                        return result;
                    }
                }
            }
        }
    }

    fn begin(&mut self) -> io::Result<()> {
        let (sender, receiver) = oneshot::channel();
        let (open, hold) = (Arc::clone(&self.open), self.queue.hold());
        let work = move || {
            // If the sink has ended meanwhile, the file is closed before another sink may open it.
            drop(sender.send(open()));
            drop(hold);
        };
        thread::Builder::new().name("sink-open".into()).spawn(work)?;
        self.under_way = Some(receiver);
        Ok(())
    }

    /// How long opening may take without a message.
    pub(super) fn patience(&self) -> Duration {
        if self.after.is_empty() { PATIENCE } else { PREVIOUS_PATIENCE }
    }

    /// Why the file is not open yet.
    pub(super) fn reason(&self) -> String {
        let what = &self.what;
        match (self.after.last(), &self.refused) {
            (Some(before), _) => {
                format!(
                    "cannot open {what} yet: the previous sink {} waits for the system with it",
                    before.name()
                )
            }
            (None, Some(error)) => format!("cannot open {what}: cannot start a thread: {error}"),
            (None, None) => {
                format!("cannot open {what}: the system has not answered for {} s", PATIENCE.as_secs())
            }
        }
    }
}
