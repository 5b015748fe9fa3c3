//! Finds out why connections are stuck, in a thread of its own: a look may take as long as a host has descriptors. Started
//! before privileges are dropped, it keeps those that entering namespaces and reading descriptors need.

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
    look::look,
    model::{
        ConnId, Diagnosis, InState, Owner, OwnerSource, Process, SocketInfo, SocketReport, Stuck, Transport,
        Tuple,
    },
    track::diagnose,
};

/// What a socket is known by: its namespace, its ends, and the interface that it is bound to.
type Place = (u32, Tuple);

/// What the trace knows of a socket, by its place.
type Question = HashMap<Place, Known>;

/// What the trace knows of a socket that a look does not show.
struct Known {
    age: InState,
    /// Who has connected, or listens.
    maker: Option<Arc<Process>>,
}

type Answer = HashMap<Place, (SocketReport, Diagnosis)>;

/// The thread, and what it is asked about.
#[derive(Default)]
pub struct Examiner {
    thread: Option<(Sender<Question>, Receiver<Answer>)>,
    /// Not asked about yet.
    waiting: Vec<Stuck>,
    /// Being looked at.
    asked: Vec<Stuck>,
}

impl Examiner {
    /// Starts the thread. Without it nothing is found out, and what is stuck is reported at once.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start() -> io::Result<Self> {
        let (questions, todo) = channel::<Question>();
        let (done, answers) = channel();
        thread::Builder::new().name("examiner".into()).spawn(move || {
            for question in todo {
                if done.send(examine(&question)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Self { thread: Some((questions, answers)), ..Self::default() })
    }

    /// Something is stuck: to be looked at.
    pub fn enqueue(&mut self, stuck: Stuck) {
        self.waiting.push(stuck);
    }

    /// It no longer is, and no reminder of it is to come; true where it was not reported yet.
    pub fn cancel(&mut self, conn: ConnId) -> bool {
        let mut is_unsaid = false;
        for list in [&mut self.waiting, &mut self.asked] {
            list.retain(|stuck| {
                let is_it = stuck.conn.id == conn;
                // A reminder follows other records.
                is_unsaid |= is_it && stuck.times == 1;
                !is_it
            });
        }
        is_unsaid
    }

    /// Whether answers are to come.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || !self.asked.is_empty()
    }

    /// What has been looked at; asks about what waits.
    pub fn examined(&mut self) -> Vec<Stuck> {
        let Some((questions, answers)) = &self.thread else { return self.give_up() };
        let mut said = Vec::new();
        match answers.try_recv() {
            Ok(mut answer) => {
                said = std::mem::take(&mut self.asked);
                for stuck in &mut said {
                    stuck.found = place(stuck).and_then(|place| answer.remove(&place)).map(Box::new);
                }
            }
            Err(TryRecvError::Disconnected) => return self.give_up(),
            Err(TryRecvError::Empty) => {}
        }
        if self.asked.is_empty() && !self.waiting.is_empty() {
            self.asked = std::mem::take(&mut self.waiting);
            // Where the thread is gone, the next call says it all.
            let _ = questions
                .send(self.asked.iter().filter_map(|stuck| Some((place(stuck)?, known(stuck)))).collect());
        }
        said
    }

    /// Gives back everything that was not looked at.
    pub fn give_up(&mut self) -> Vec<Stuck> {
        let mut said = std::mem::take(&mut self.asked);
        said.append(&mut self.waiting);
        said
    }
}

fn place(stuck: &Stuck) -> Option<Place> {
    Some((stuck.conn.subject.netns?, stuck.conn.tuple.of_any_socket()))
}

fn known(stuck: &Stuck) -> Known {
    // Who closes a socket, or has it open when the trace begins, need not be who made it.
    let has_made = |owner: &&Owner| {
        matches!(owner.source, OwnerSource::Connect | OwnerSource::Listen | OwnerSource::Inherited)
    };
    let maker = stuck.conn.subject.owner.as_ref().filter(has_made).map(|owner| {
        let (pid, comm, exe) = (owner.pid(), owner.comm.clone(), owner.exe.clone());
        Arc::new(Process { pid, comm, exe, ..Process::default() })
    });
    Known { age: stuck.age, maker }
}

fn examine(question: &Question) -> Answer {
    let all: HashSet<u32> = question.keys().map(|(netns, _)| *netns).collect();
    let only = match all.iter().collect::<Vec<_>>()[..] {
        [one] => Some(*one),
        _ => None,
    };
    let learn = |found: &mut SocketReport| {
        let known = asked(question, &found.socket).and_then(|(place, _)| question.get(&place));
        let Some(known) = known else { return };
        if !known.age.at_least {
            found.age = Some(known.age);
        }
        if let Some(maker) = &known.maker {
            found.learn_maker(Arc::clone(maker));
        }
    };
    let look = look(only, |socket| asked(question, socket).is_some(), learn);
    let mut answer = Answer::new();
    let mut ambiguous = HashSet::new();
    for report in look.sockets {
        let Some((place, exact)) = asked(question, &report.socket) else { continue };
        let netns = look.foreign.get(&report.socket.netns);
        let diagnosis = diagnose(&report, netns.map(std::path::PathBuf::as_path));
        if exact {
            ambiguous.remove(&place);
            answer.insert(place, (report, diagnosis));
        } else if answer.insert(place, (report, diagnosis)).is_some() {
            ambiguous.insert(place);
        }
    }
    answer.retain(|place, _| !ambiguous.contains(place));
    answer
}

/// The place that was asked about and that this socket is in, and whether just that one: where nothing tells to which
/// interface a connection is bound, one with its ends on any interface may be it.
fn asked(question: &Question, socket: &SocketInfo) -> Option<(Place, bool)> {
    // A trace is about TCP; an MPTCP socket has the ends of its first subflow.
    if socket.transport != Transport::Tcp {
        return None;
    }
    let place = (socket.netns, socket.tuple.of_any_socket());
    let on_any = (socket.netns, Tuple { interface: 0, ..place.1 });
    let exact = question.contains_key(&place).then_some((place, true));
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
        let said: Vec<(u64, u8)> =
            examiner.give_up().iter().map(|stuck| (stuck.conn.id.0, stuck.times)).collect();
        assert_eq!(said, [(3, 2)]);
    }
}
