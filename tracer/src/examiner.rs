//! Finds out why connections are stuck, in its own thread, because a look at all descriptors of a host may take long. The thread
//! starts before capabilities are dropped: it keeps those that namespaces and descriptors need.

use std::{
    collections::{HashMap, HashSet},
    io,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    thread,
};

use crate::{
    kernel,
    look::look,
    model::{
        ConnId, Diagnosis, InState, Owner, OwnerSource, Process, SocketInfo, SocketReport, Stuck, Transport,
        Tuple,
    },
    track::diagnose,
};

/// The key of a socket: its network namespace, and its tuple with the interface.
type NetnsTuple = (u32, Tuple);

/// The sockets to examine.
type Question = HashMap<NetnsTuple, Known>;

/// Facts about a socket that the trace knows and a look does not show.
struct Known {
    age: InState,
    /// The process that called connect(), or the owner of the listener; not necessarily the process that called accept().
    opener: Option<Arc<Process>>,
}

type Answer = HashMap<NetnsTuple, (SocketReport, Diagnosis)>;

/// The thread, and the stuck connections that it examines.
#[derive(Default)]
pub struct Examiner {
    thread: Option<(Sender<Question>, Receiver<Answer>)>,
    /// Not sent to the thread yet.
    waiting: Vec<Stuck>,
    /// The thread examines these.
    examining: Vec<Stuck>,
}

impl Examiner {
    /// Starts the thread. Without a thread, stuck connections are reported at once, and without a reason.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start() -> io::Result<Self> {
        let (questions, todo) = channel::<Question>();
        let (done, answers) = channel();
        thread::Builder::new().name("examiner".into()).spawn(move || {
            // The main thread reports it if the kernel refuses.
            drop(kernel::keep_privileges_to_look());
            for question in todo {
                if done.send(examine(&question)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { thread: Some((questions, answers)), ..Self::default() })
    }

    /// Adds a stuck connection, which is examined next.
    pub fn enqueue(&mut self, stuck: Stuck) {
        self.waiting.push(stuck);
    }

    /// Removes a connection that is no longer stuck. True if it was not reported yet.
    pub fn cancel(&mut self, conn: ConnId) -> bool {
        let mut is_unreported = false;
        for list in [&mut self.waiting, &mut self.examining] {
            list.retain(|stuck| {
                let is_same = stuck.conn.id == conn;
                // A reminder (`times` > 1) means that the connection was reported before.
                is_unreported |= is_same && stuck.times == 1;
                !is_same
            });
        }
        is_unreported
    }

    /// Whether answers are pending.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || !self.examining.is_empty()
    }

    /// Takes the connections that were examined, and sends the waiting ones to the thread.
    pub fn examined(&mut self) -> Vec<Stuck> {
        let Some((questions, answers)) = &self.thread else { return self.give_up() };
        let mut reported = Vec::new();
        match answers.try_recv() {
            Ok(mut answer) => {
                reported = std::mem::take(&mut self.examining);
                for stuck in &mut reported {
                    stuck.found = key(stuck).and_then(|key| answer.remove(&key)).map(Box::new);
                }
            }
            Err(TryRecvError::Disconnected) => return self.give_up(),
            Err(TryRecvError::Empty) => {}
        }
        if self.examining.is_empty() && !self.waiting.is_empty() {
            self.examining = std::mem::take(&mut self.waiting);
            // If the thread has ended, the next call returns all connections.
            let _ = questions
                .send(self.examining.iter().filter_map(|stuck| Some((key(stuck)?, known(stuck)))).collect());
        }
        reported
    }

    /// Takes all connections that were not examined.
    pub fn give_up(&mut self) -> Vec<Stuck> {
        let mut reported = std::mem::take(&mut self.examining);
        reported.append(&mut self.waiting);
        reported
    }
}

fn key(stuck: &Stuck) -> Option<NetnsTuple> {
    Some((stuck.conn.subject.netns?, stuck.conn.tuple.of_any_socket()))
}

fn known(stuck: &Stuck) -> Known {
    // A process that closes a socket, or holds it at the start of the trace, need not have opened it.
    let has_made = |owner: &&Owner| {
        matches!(owner.source, OwnerSource::Connect | OwnerSource::Listen | OwnerSource::Inherited)
    };
    let opener = stuck.conn.subject.owner.as_ref().filter(has_made).map(|owner| {
        let (pid, comm, exe) = (owner.pid(), owner.comm.clone(), owner.exe.clone());
        Arc::new(Process { pid, comm, exe, ..Process::default() })
    });
    Known { age: stuck.age, opener }
}

fn examine(question: &Question) -> Answer {
    let all: HashSet<u32> = question.keys().map(|(netns, _)| *netns).collect();
    let only = match all.iter().collect::<Vec<_>>()[..] {
        [one] => Some(*one),
        _ => None,
    };
    let learn = |found: &mut SocketReport| {
        let known = find_key(question, &found.socket).and_then(|(key, _)| question.get(&key));
        let Some(known) = known else { return };
        if !known.age.at_least {
            found.age = Some(known.age);
        }
        if let Some(opener) = &known.opener {
            found.learn_opener(Arc::clone(opener));
        }
    };
    let look = look(only, |socket| find_key(question, socket).is_some(), learn);
    let mut answer = Answer::new();
    let mut ambiguous = HashSet::new();
    for report in look.sockets {
        let Some((key, exact)) = find_key(question, &report.socket) else { continue };
        let netns = look.foreign.get(&report.socket.netns);
        let diagnosis = diagnose(&report, netns.map(std::path::PathBuf::as_path));
        if exact {
            ambiguous.remove(&key);
            answer.insert(key, (report, diagnosis));
        } else if answer.insert(key, (report, diagnosis)).is_some() {
            ambiguous.insert(key);
        }
    }
    answer.retain(|key, _| !ambiguous.contains(key));
    answer
}

/// The key in the question that fits this socket, and whether the interface is equal: a connection whose interface the trace does
/// not know may be any socket with the same ends.
fn find_key(question: &Question, socket: &SocketInfo) -> Option<(NetnsTuple, bool)> {
    // The trace knows TCP sockets only; an MPTCP socket has the ends of its first subflow.
    if socket.transport != Transport::Tcp {
        return None;
    }
    let key = (socket.netns, socket.tuple.of_any_socket());
    let on_any = (socket.netns, Tuple { interface: 0, ..key.1 });
    let exact = question.contains_key(&key).then_some((key, true));
    exact.or_else(|| question.contains_key(&on_any).then_some((on_any, false)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Connection, State};

    fn stuck(conn: u64, times: u8) -> Stuck {
        Stuck {
            time_ns: 0,
            conn: Connection { id: ConnId(conn), ..Connection::example() },
            state: State::CloseWait,
            age: InState { ns: 1, at_least: false },
            times,
            before_trace: false,
            found: None,
            opened: None,
        }
    }

    /// While a look takes long, one connection that was reported before, and one that was not, move on.
    #[test]
    fn what_moves_on_is_not_reported_afterwards() {
        let mut examiner = Examiner::default();
        for (conn, times) in [(1, 2), (2, 1), (2, 2), (3, 2)] {
            examiner.enqueue(stuck(conn, times));
        }
        assert!(!examiner.cancel(ConnId(1)), "its end is to be reported");
        assert!(examiner.cancel(ConnId(2)), "neither its beginning nor its end is");
        let reported: Vec<(u64, u8)> =
            examiner.give_up().iter().map(|stuck| (stuck.conn.id.0, stuck.times)).collect();
        assert_eq!(reported, [(3, 2)]);
    }
}
