//! A look at the socket of the detail view. A `stuck` record comes only when the threshold has passed, which takes its time for a
//! socket that is older than the tracer: its age is a lower bound. So the view asks for a look at once.

use std::rc::Rc;

use super::{App, View};
use crate::{
    model::{ConnId, Connection, Diagnosis, InState, SocketReport, State, Stuck},
    story::ConnHistory,
};

/// The result of a look; `None` if the look did not find the socket.
type Found = Option<Box<(SocketReport, Diagnosis)>>;

/// What was asked about the socket of the detail view, and the answer.
#[derive(Debug, Default)]
pub(super) struct Examination {
    asked: Option<(ConnId, State)>,
    found: Option<Found>,
}

impl Examination {
    /// The answer about this socket in its current state.
    pub(super) fn of(&self, history: &ConnHistory) -> Option<&Found> {
        self.found.as_ref().filter(|_| self.is_about(history))
    }

    /// Whether a look at this socket is under way.
    pub(super) fn is_pending(&self, history: &ConnHistory) -> bool {
        self.found.is_none() && self.is_about(history)
    }

    fn is_about(&self, history: &ConnHistory) -> bool {
        self.asked == Some((history.conn, history.state))
    }
}

/// The connection of the detail view.
pub(super) fn connection(history: &ConnHistory) -> Connection {
    Connection {
        id: history.conn,
        role: history.role,
        tuple: history.tuple,
        nat: None,
        peer: None,
        subject: Rc::clone(&history.subject),
        mini: history.mini,
    }
}

impl App {
    /// The socket that the detail view shows, if a look at it is wanted. Each socket is asked about once per state.
    pub fn question(&mut self) -> Option<Stuck> {
        if self.view != View::Detail {
            // Opened again, the view shows a new look.
            self.examination = Examination::default();
            return None;
        }
        let history = self.selected()?;
        // A TIME_WAIT socket belongs to no process, and a frozen screen does not show the present.
        let is_wanted = !matches!(history.state, State::TimeWait | State::Close) && self.frozen.is_none();
        if !is_wanted || self.examination.is_about(history) {
            return None;
        }
        let question = Stuck {
            time_ns: self.now_ns,
            conn: connection(history),
            state: history.state,
            age: InState { ns: self.age_ns(history), at_least: history.at_least },
            times: 1,
            before_trace: false,
            found: None,
            opened: None,
        };
        self.examination = Examination { asked: Some((question.conn.id, question.state)), found: None };
        Some(question)
    }

    /// Takes the answer to a question.
    pub fn answer(&mut self, answer: Stuck) {
        if self.examination.asked == Some((answer.conn.id, answer.state)) {
            self.examination.found = Some(answer.found);
        }
    }
}
