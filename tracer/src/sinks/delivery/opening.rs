//! What a disk may keep waiting is opened by a thread of its own: neither the thread that reads records waits for it, nor the sink's.

use std::{io, thread, time::Duration};

use tokio::{sync::oneshot, time::sleep};

use super::{Queue, sync::Arc};

/// After this time a sink says that a file is not open yet.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same where a previous sink uses the file, which is to end within seconds.
const PREVIOUS_PATIENCE: Duration = Duration::from_secs(15);
/// How long a system that starts no thread is left alone.
const THREAD_PAUSE: Duration = Duration::from_secs(1);

/// Opens it.
pub(super) type Open<T> = Arc<dyn Fn() -> T + Send + Sync>;

/// Something that is to be opened.
pub(super) struct Opening<T> {
    /// What it is, for messages.
    what: String,
    /// The queue of the sink that it is for. A sink that takes over the file waits for the thread that opens it, too.
    queue: Queue,
    /// Sinks that still use it.
    after: Vec<Queue>,
    open: Open<T>,
    under_way: Option<oneshot::Receiver<T>>,
    /// Why no thread opens it.
    refused: Option<io::Error>,
}

impl<T: Send + 'static> Opening<T> {
    pub(super) fn new(what: String, queue: Queue, after: Vec<Queue>, open: Open<T>) -> Self {
        let mut opening = Self { what, queue, after, open, under_way: None, refused: None };
        if opening.after.is_empty() {
            // By the thread that starts the sink, whose capabilities certificates may need; the sink's own has none.
            opening.refused = opening.begin().err();
        }
        opening
    }

    /// Waits until the sinks before have let go of it, and what came of opening it. May be cancelled.
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
            // Where the sink has ended meanwhile, the file is closed before another sink may open it.
            drop(sender.send(open()));
            drop(hold);
        };
        thread::Builder::new().name("sink-open".into()).spawn(work)?;
        self.under_way = Some(receiver);
        Ok(())
    }

    /// How long it may take without a word.
    pub(super) fn patience(&self) -> Duration {
        if self.after.is_empty() { PATIENCE } else { PREVIOUS_PATIENCE }
    }

    /// Why it is not open yet.
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
