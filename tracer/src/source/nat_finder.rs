//! Finds the translations of connections in a thread of its own, so that the main loop never waits for conntrack.
//!
//! Each connection is asked for once, when it becomes established. What it is translated to does not change later.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Arc,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use rustc_hash::{FxHashMap, FxHashSet};
use tokio::sync::Notify;

use super::translations::{OPEN, Translation, Translations};
use crate::{
    kernel,
    model::{ConnId, Connection, Nat, Owner, Tuple},
};

/// The limit of the connections without an answer; more are not asked for.
const MOST_PENDING: usize = 8192;
/// For how long no connection of a namespace is asked for, after all tables on the way were empty.
const UNUSED_NS: u64 = 100_000_000;
/// For how long the end of a connection waits for the answer.
const PATIENCE_NS: u64 = 1_000_000_000;
/// The limit of the namespaces that are known to have empty tables.
const MOST_UNUSED: usize = 4096;

struct Question {
    conn: ConnId,
    sk: u64,
    netns: u32,
    pid: Option<u32>,
    tuple: Tuple,
}

type Answer = (Question, Translation);

/// The ends of the channels to and from the thread.
type Thread = (Sender<Vec<Question>>, Receiver<Vec<Answer>>);

/// A translation of the connection whose socket is at the kernel's address `sk`.
pub struct FoundNat {
    pub conn: ConnId,
    pub sk: u64,
    pub nat: Nat,
}

/// The thread, and the connections that it is asked for. `T` reports the end of a connection.
pub struct NatFinder<T> {
    thread: Option<Thread>,
    /// Not sent to the thread yet.
    questions: Vec<Question>,
    pending: FxHashSet<ConnId>,
    /// The ends of connections that wait for their answer.
    ended: FxHashMap<ConnId, T>,
    /// Since when, the oldest first.
    waiting: VecDeque<(u64, ConnId)>,
    /// Until when the tables of these namespaces count as empty.
    unused: FxHashMap<u32, u64>,
    unknown: u64,
    wake: Arc<Notify>,
}

impl<T> Default for NatFinder<T> {
    /// Finds nothing, and costs nothing.
    fn default() -> Self {
        Self {
            thread: None,
            questions: Vec::new(),
            pending: FxHashSet::default(),
            ended: FxHashMap::default(),
            waiting: VecDeque::new(),
            unused: FxHashMap::default(),
            unknown: 0,
            wake: Arc::default(),
        }
    }
}

impl<T> NatFinder<T> {
    /// Starts the thread, which keeps the capabilities of this one that it needs.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start() -> io::Result<Self> {
        let (questions, todo) = channel::<Vec<Question>>();
        let (done, answers) = channel();
        let finder = Self { thread: Some((questions, answers)), ..Self::default() };
        let wake = Arc::clone(&finder.wake);
        thread::Builder::new().name("nat".into()).spawn(move || {
            // The main thread reports it if the kernel refuses.
            drop(kernel::keep_privileges_to_look());
            answer_all(&todo, &done, &wake);
        })?;
        Ok(finder)
    }

    /// Asks for a connection that is established, and whose socket is at the kernel's address `sk`.
    pub fn ask(&mut self, sk: u64, conn: &Connection, now_ns: u64) {
        let Some(netns) = conn.subject.netns.filter(|_| self.thread.is_some()) else { return };
        if self.unused.get(&netns).is_some_and(|until_ns| now_ns < *until_ns) {
            return;
        }
        if self.pending.len() >= MOST_PENDING {
            self.unknown += 1;
        } else if self.pending.insert(conn.id) {
            let pid = conn.subject.owner.as_ref().map(Owner::pid);
            self.questions.push(Question { conn: conn.id, sk, netns, pid, tuple: conn.tuple });
        }
    }

    /// Sends the questions to the thread, and takes the answers that have come. Waits for nothing.
    pub fn exchange(&mut self, now_ns: u64) -> Vec<FoundNat> {
        let Some((thread, answers)) = &self.thread else { return Vec::new() };
        let has_thread =
            self.questions.is_empty() || thread.send(std::mem::take(&mut self.questions)).is_ok();
        let answers: Vec<Answer> = answers.try_iter().flatten().collect();
        let found = self.take(answers, now_ns);
        if !has_thread {
            self.give_up();
        }
        found
    }

    fn take(&mut self, answers: Vec<Answer>, now_ns: u64) -> Vec<FoundNat> {
        let mut found = Vec::new();
        for (Question { conn, sk, netns, .. }, translation) in answers {
            self.pending.remove(&conn);
            match translation {
                Translation::Found(nat) => found.push(FoundNat { conn, sk, nat }),
                Translation::Unused => {
                    if self.unused.len() >= MOST_UNUSED {
                        self.unused.clear();
                    }
                    self.unused.insert(netns, now_ns + UNUSED_NS);
                }
                Translation::Unknown => self.unknown += 1,
                Translation::None => {}
            }
        }
        found
    }

    /// Whether the end of a connection at `now_ns` has to wait for the answer. Then [`Self::ended`] returns what `end` makes.
    pub fn delays(&mut self, conn: ConnId, end: impl FnOnce() -> T, now_ns: u64) -> bool {
        let is_pending = self.pending.contains(&conn);
        if is_pending {
            self.waiting.push_back((now_ns, conn));
            self.ended.insert(conn, end());
        }
        is_pending
    }

    /// Waits for the answers that are to come, for at most `patience` in all.
    pub fn finish(&mut self, patience: Duration, now_ns: u64) -> Vec<FoundNat> {
        let deadline = Instant::now() + patience;
        let mut found = self.exchange(now_ns);
        while let Some((_, answers)) = self.thread.as_ref().filter(|_| self.is_busy()) {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(answers) = answers.recv_timeout(left) else { break };
            found.extend(self.take(answers, now_ns));
        }
        self.give_up();
        found
    }

    /// What reports the ends of connections that have waited for their answer: those among `found`, and those without a
    /// translation.
    pub fn ended(&mut self, found: &[FoundNat], now_ns: u64) -> Vec<(T, Option<Nat>)> {
        if self.ended.is_empty() {
            return Vec::new();
        }
        let nats: FxHashMap<ConnId, Nat> = found.iter().map(|found| (found.conn, found.nat)).collect();
        let mut all = Vec::new();
        self.waiting.retain(|(since_ns, conn)| {
            if self.pending.contains(conn) {
                if now_ns.saturating_sub(*since_ns) < PATIENCE_NS {
                    return true;
                }
                self.pending.remove(conn);
                self.unknown += 1;
            }
            all.extend(self.ended.remove(conn).map(|end| (end, nats.get(conn).copied())));
            false
        });
        all
    }

    /// Nothing is waited for any more: all connections without an answer count as unknown.
    pub fn give_up(&mut self) {
        self.unknown += self.pending.len() as u64;
        self.pending.clear();
        self.questions.clear();
        self.thread = None;
    }

    /// Whether answers are to come.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.pending.is_empty()
    }

    /// How many connections were not asked for because too many were pending, or had no answer.
    #[must_use]
    pub fn unknown(&self) -> u64 {
        self.unknown
    }

    /// Waits until the thread has answered something.
    pub async fn answered(&self) {
        self.wake.notified().await;
    }
}

/// Answers until nobody asks any more.
fn answer_all(todo: &Receiver<Vec<Question>>, done: &Sender<Vec<Answer>>, wake: &Notify) {
    let mut tables = Translations::default();
    let mut some_are_open = false;
    loop {
        let asked = if some_are_open {
            todo.recv_timeout(OPEN)
        } else {
            todo.recv().map_err(|_| RecvTimeoutError::Disconnected)
        };
        match asked {
            Ok(questions) => {
                let answer = |question: Question| {
                    let translation = tables.find(question.netns, question.pid, &question.tuple);
                    (question, translation)
                };
                if done.send(questions.into_iter().map(answer).collect()).is_err() {
                    return;
                }
                wake.notify_one();
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
        some_are_open = tables.close_old();
    }
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::model::Subject;

    /// A finder, and the ends of its channels that the thread would have.
    fn finder() -> (NatFinder<&'static str>, Receiver<Vec<Question>>, Sender<Vec<Answer>>) {
        let (questions, todo) = channel();
        let (done, answers) = channel();
        (NatFinder { thread: Some((questions, answers)), ..NatFinder::default() }, todo, done)
    }

    fn connection(id: u64) -> Connection {
        let example = Connection::example();
        let subject = Subject { netns: Some(7), ..(*example.subject).clone() };
        Connection { id: ConnId(id), subject: Rc::new(subject), ..example }
    }

    /// Answers all questions that were sent.
    fn answer(todo: &Receiver<Vec<Question>>, done: &Sender<Vec<Answer>>, translation: Translation) {
        let asked = todo.try_iter().flatten().map(|question| (question, translation)).collect();
        done.send(asked).expect("the finder listens");
    }

    fn nat() -> Nat {
        Nat::of(&Tuple::example())
    }

    #[test]
    fn an_end_waits_for_its_answer_and_no_other_end_does() {
        let (mut finder, todo, done) = finder();
        for id in [1, 2] {
            finder.ask(id, &connection(id), 0);
        }
        assert!(finder.exchange(0).is_empty() && finder.is_busy());
        assert!(!finder.delays(ConnId(3), || "another", 0));
        assert!(finder.delays(ConnId(1), || "one", 0));
        assert!(finder.ended(&[], 0).is_empty());
        answer(&todo, &done, Translation::Found(nat()));
        let found = finder.exchange(0);
        assert_eq!(
            found.iter().map(|found| (found.conn, found.sk)).collect::<Vec<_>>(),
            [(ConnId(1), 1), (ConnId(2), 2)]
        );
        assert_eq!(finder.ended(&found, 0), [("one", Some(nat()))]);
        assert!(!finder.delays(ConnId(2), || "two", 0));
        assert_eq!((finder.is_busy(), finder.unknown()), (false, 0));
    }

    #[test]
    fn an_end_does_not_wait_for_ever() {
        let (mut finder, todo, done) = finder();
        finder.ask(1, &connection(1), 0);
        finder.exchange(0);
        assert!(finder.delays(ConnId(1), || "one", 5));
        assert!(finder.ended(&[], PATIENCE_NS).is_empty());
        assert_eq!(finder.ended(&[], 5 + PATIENCE_NS), [("one", None)]);
        answer(&todo, &done, Translation::Found(nat()));
        let found = finder.exchange(0);
        assert!(finder.ended(&found, 0).is_empty());
        assert_eq!(finder.unknown(), 1);
        // The thread has ended.
        finder.ask(2, &connection(2), 0);
        drop(todo);
        assert!(finder.delays(ConnId(2), || "two", 0));
        finder.exchange(0);
        assert_eq!(finder.ended(&[], 0), [("two", None)]);
        assert_eq!(finder.unknown(), 2);
    }

    #[test]
    fn a_flood_of_connections_is_counted() {
        let (mut finder, _todo, _done) = finder();
        for id in 0..MOST_PENDING as u64 + 9 {
            finder.ask(id, &connection(id), 0);
            finder.exchange(0);
        }
        assert_eq!((finder.pending.len(), finder.unknown()), (MOST_PENDING, 9));
    }

    #[test]
    fn a_namespace_with_empty_tables_is_asked_again_later() {
        let (mut finder, todo, done) = finder();
        finder.ask(1, &connection(1), 0);
        finder.exchange(0);
        answer(&todo, &done, Translation::Unused);
        finder.exchange(10);
        finder.ask(2, &connection(2), 9 + UNUSED_NS);
        assert!(!finder.is_busy());
        finder.ask(3, &connection(3), 10 + UNUSED_NS);
        assert!(finder.is_busy());
    }
}
