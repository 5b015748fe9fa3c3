//! A thread that reads names for the main thread. A disk or a network file system may be slow, and the main thread must read
//! the ring: it waits for a short time only, and takes a late answer for a later connection.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel},
    thread,
    time::{Duration, Instant},
};

use rustc_hash::FxBuildHasher;

use super::{Catalog, WorkloadIds, WorkloadNames};

/// Limit of workloads that are kept; with more, all are forgotten.
const MOST_WORKLOADS: usize = 4096;
/// Limit of questions that wait for the thread.
const MOST_QUESTIONS: usize = 256;
/// The longest wait for one answer.
const MOST_WAIT: Duration = Duration::from_millis(20);
/// The main thread waits for all answers together at most this long, and after that for one part in `SHARE` of the time:
/// a user who makes a cgroup a millisecond with the id of a container cannot stop the trace.
const MOST_WAITS: Duration = Duration::from_millis(500);
const SHARE: u32 = 20;
/// When to look at a late answer.
const SOON: Duration = Duration::from_millis(10);
/// When to ask again if something was not found; the time doubles up to the second one.
const AGAIN: Duration = Duration::from_secs(1);
const AGAIN_AT_MOST: Duration = Duration::from_secs(256);

type Answer = (WorkloadIds, WorkloadNames);

/// What is known about a workload.
struct Known {
    names: WorkloadNames,
    is_asked: bool,
    /// When to ask again; `None` if the names are complete.
    again: Option<Instant>,
    wait: Duration,
}

/// The thread, and what it has answered.
pub(crate) struct NamesThread {
    questions: SyncSender<WorkloadIds>,
    answers: Receiver<Answer>,
    known: HashMap<WorkloadIds, Known, FxBuildHasher>,
    /// How long the main thread may still wait, as of `counted`.
    left: Duration,
    counted: Instant,
}

impl NamesThread {
    /// Starts the thread. `prepare` is called in it first.
    pub(crate) fn start(root: PathBuf, prepare: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        Self::with(move || {
            prepare();
            let mut catalog = Catalog::new(&root);
            move |ids: &WorkloadIds| catalog.find(ids)
        })
    }

    /// Starts a thread that answers with the function that `make` makes in it.
    pub(super) fn with<Find: FnMut(&WorkloadIds) -> WorkloadNames>(
        make: impl FnOnce() -> Find + Send + 'static,
    ) -> std::io::Result<Self> {
        let (questions, todo) = sync_channel::<WorkloadIds>(MOST_QUESTIONS);
        // The main thread takes all answers before it asks, so there is always room for an answer in the end.
        let (done, answers) = sync_channel(MOST_QUESTIONS + 1);
        thread::Builder::new().name("names".into()).spawn(move || {
            let mut find = make();
            for ids in todo {
                let names = find(&ids);
                if done.send((ids, names)).is_err() {
                    break;
                }
            }
        })?;
        let known = HashMap::default();
        Ok(Self { questions, answers, known, left: MOST_WAITS, counted: Instant::now() })
    }

    /// The names of a workload as far as they are known, and when there may be more.
    pub(crate) fn find(&mut self, ids: &WorkloadIds) -> (WorkloadNames, Option<Instant>) {
        let now = Instant::now();
        while let Ok(answer) = self.answers.try_recv() {
            self.learn(answer, now);
        }
        match self.known.get(ids) {
            Some(known) if !known.is_asked && known.again.is_some_and(|again| again <= now) => {
                self.ask(ids, now);
            }
            Some(_) => {}
            None => {
                if self.known.len() == MOST_WORKLOADS {
                    self.known.clear();
                }
                if self.ask(ids, now) {
                    self.wait(ids, now);
                }
            }
        }
        let Some(known) = self.known.get(ids) else { return (WorkloadNames::default(), Some(now + AGAIN)) };
        (known.names.clone(), if known.is_asked { Some(now + SOON) } else { known.again })
    }

    /// Whether the thread has taken the question.
    fn ask(&mut self, ids: &WorkloadIds, now: Instant) -> bool {
        if let Err(error) = self.questions.try_send(ids.clone()) {
            let wait = if matches!(error, TrySendError::Full(_)) { AGAIN } else { AGAIN_AT_MOST };
            if let Some(known) = self.known.get_mut(ids) {
                known.again = Some(now + wait);
            }
            return false;
        }
        let known = || Known { names: WorkloadNames::default(), is_asked: false, again: None, wait: AGAIN };
        self.known.entry(ids.clone()).or_insert_with(known).is_asked = true;
        true
    }

    fn wait(&mut self, ids: &WorkloadIds, began: Instant) {
        self.left = MOST_WAITS.min(self.left + began.duration_since(self.counted) / SHARE);
        let deadline = began + MOST_WAIT.min(self.left);
        let is_missing = |known: &HashMap<_, Known, _>| known.get(ids).is_some_and(|known| known.is_asked);
        while is_missing(&self.known) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left) {
                Ok(answer) => self.learn(answer, Instant::now()),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
        }
        self.counted = Instant::now();
        self.left = self.left.saturating_sub(self.counted.duration_since(began));
    }

    fn learn(&mut self, (ids, names): Answer, now: Instant) {
        let Some(known) = self.known.get_mut(&ids) else { return };
        known.again = (!names.is_complete(&ids)).then(|| now + known.wait);
        known.wait = AGAIN_AT_MOST.min(known.wait * 2);
        known.is_asked = false;
        known.names = names;
    }
}
