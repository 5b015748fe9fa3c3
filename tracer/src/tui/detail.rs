//! The view of one socket.

use ratatui::{
    style::{Modifier, Style},
    text::{Line, Span},
};

use super::{App, fit};
use crate::{
    display::{self, duration, endpoint},
    format,
    model::{Diagnosis, Role, SocketReport, State, Watch, printable},
    story::ConnHistory,
};

/// Lines of text of one width.
struct Page {
    width: usize,
    lines: Vec<Line<'static>>,
}

impl Page {
    fn title(&mut self, text: &str, style: Style) {
        self.lines.push(Line::styled(text.to_owned(), style));
    }

    fn text(&mut self, text: &str) {
        self.lines.extend(fit::wrap(&printable(text), self.width).into_iter().map(Line::raw));
    }

    fn command(&mut self, text: &str) {
        let command = display::command("  ", &printable(text), Some(self.width));
        // A word may be longer than a line.
        self.lines.extend(command.lines().flat_map(|line| wrapped(line, self.width)).map(Line::raw));
    }

    fn space(&mut self) {
        self.lines.push(Line::default());
    }
}

impl App {
    /// Holders, the reason, what to do, the states so far, and the meaning of the state, in lines of this width.
    pub(super) fn detail(&self, history: &ConnHistory, width: usize) -> Vec<Line<'static>> {
        let mut page = Page { width, lines: Vec::new() };
        self.title(history, &mut page);
        let tuple = &history.tuple;
        let (local, remote) =
            (endpoint(tuple.local, tuple.local_port), endpoint(tuple.remote, tuple.remote_port));
        let role = history.role.map_or_else(String::new, |role| format!("{}  ", Role::name(role)));
        page.text(&format!("{local} - {remote}  {role}connection {}", history.conn));
        owner(history, &mut page);
        page.space();
        let numbers = self.rates.lines(history);
        if !numbers.is_empty() {
            page.lines.extend(numbers.into_iter().map(Line::raw));
            page.space();
        }
        self.holders(history, &mut page);
        page.title(self.texts.get("top.so_far"), self.bold());
        self.path(history, &mut page);
        page.space();
        let name = history.state.name();
        page.title(self.texts.get("labels.means"), self.bold());
        page.text(self.texts.get(&format!("states.{name}.means")));
        page.text(self.texts.get(&format!("states.{name}.fault")));
        page.lines
    }

    fn title(&self, history: &ConnHistory, page: &mut Page) {
        let at_least = if history.at_least { "more than " } else { "" };
        let age = format!("  for {at_least}{}", duration(self.age_ns(history)));
        let short = self.texts.get(&format!("states.{}.short", history.state.name())).to_owned();
        let name = Span::styled(history.state.name(), self.style(history.state).add_modifier(Modifier::BOLD));
        let used = history.state.name().len() + age.len() + 2;
        let mut first = vec![name, Span::raw(age)];
        if used + fit::columns(&short) <= page.width {
            first.push(Span::raw(format!("  {short}")));
            page.lines.push(Line::from(first));
        } else {
            page.lines.push(Line::from(first));
            page.text(&short);
        }
    }

    /// Who holds the socket and why it does not move on, as far as that is known; else, that a look is under way.
    fn holders(&self, history: &ConnHistory, page: &mut Page) {
        let reported =
            || history.stuck.as_ref().filter(|_| history.is_stuck).and_then(|stuck| stuck.found.as_deref());
        let looked = self.examination.of(history);
        let found = looked.and_then(|found| found.as_deref()).or_else(reported);
        if history.is_stuck {
            page.title(self.texts.get("top.stuck"), self.alarm());
        }
        let Some((report, diagnosis)) = found else {
            if self.examination.is_pending(history) {
                page.text(self.texts.get("top.looking"));
                page.space();
            } else if looked.is_some() {
                page.text(self.texts.get("top.not_found"));
                page.space();
            }
            return;
        };
        let explains = history.is_stuck || may_be_stuck(history.state);
        if explains {
            page.text(&diagnosis.why);
        }
        facts(report, page);
        page.space();
        if explains {
            page.title(self.texts.get("top.advice"), self.bold());
            advice(diagnosis, page);
            page.space();
        }
    }

    fn path(&self, history: &ConnHistory, page: &mut Page) {
        if let Some((state, _)) = history.found {
            let style = Style::new().add_modifier(Modifier::DIM);
            page.title(&format!("  found in {}", state.name()), style);
        }
        let begin_ns = history.begin_ns();
        for step in &history.steps {
            let at = duration(u64::try_from(step.time_ns - begin_ns).unwrap_or(0));
            let time = step.in_state.map_or_else(String::new, |time| format!(" after {}", duration(time.ns)));
            let cause = step.cause.map_or_else(String::new, |cause| format!(", {}", cause.name()));
            let corrected = if step.corrected { ", corrected" } else { "" };
            page.lines.push(Line::from(vec![
                Span::raw(format!("  +{at:<8} {:<11} -> ", step.from.name())),
                Span::styled(format!("{:<11}", step.to.name()), self.style(step.to)),
                Span::raw(fit::start(&format!("{time}{cause}{corrected}"), page.width.saturating_sub(37))),
            ]));
        }
    }
}

/// A line, broken where it is too long.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    if fit::columns(line) <= width { vec![line.to_owned()] } else { fit::wrap(line, width) }
}

/// States in which a connection waits for somebody; in others a reason would mislead.
fn may_be_stuck(state: State) -> bool {
    !matches!(state, State::Established | State::Listen | State::TimeWait | State::Close | State::Unknown(_))
}

fn owner(history: &ConnHistory, page: &mut Page) {
    let subject = &history.subject;
    if let Some(owner) = &subject.owner {
        let exe = owner.exe.as_deref().unwrap_or("-");
        let uid = owner.uid.map(|uid| format!(", uid {uid}")).unwrap_or_default();
        page.text(&format!("{} ({}), {exe}{uid}, known by {}", owner.comm, owner.pid(), owner.source.name()));
    }
    let places = [
        subject.unit.clone(),
        subject.container.as_ref().map(|container| format!("container {}", container.shown_name())),
        subject.pod.as_ref().map(|pod| format!("pod {pod}")),
        subject.netns.map(|netns| format!("netns {netns}")),
    ];
    let places: Vec<String> = places.into_iter().flatten().collect();
    if !places.is_empty() {
        page.text(&places.join(", "));
    }
}

/// Queues and holders.
fn facts(report: &SocketReport, page: &mut Page) {
    for (bytes, what) in [
        (report.socket.unread_bytes(), "nobody has read"),
        (report.socket.unsent_bytes(), "the peer has not acknowledged"),
    ] {
        if bytes > 0 {
            page.text(&format!("{bytes} bytes that {what}"));
        }
    }
    for holder in &report.holders {
        let watch = match &holder.watch {
            Some(Watch::NoEpoll) => ", in no epoll",
            Some(Watch::Epoll(_)) => ", in an epoll",
            None => "",
        };
        let via = format::held_via(holder);
        page.text(&format!("held by {} ({}), {via}{watch}", holder.process.comm, holder.process.pid));
    }
    match (report.holders.is_empty(), report.hidden_holders, report.of_kernel) {
        (_, true, _) => {
            page.text("the descriptors of some processes could not be read: there may be more holders")
        }
        (true, _, true) => page.text("used by the kernel itself"),
        (true, false, false) => page.text("held by no process"),
        (false, false, _) => {}
    }
}

fn advice(diagnosis: &Diagnosis, page: &mut Page) {
    page.text(&diagnosis.advice);
    diagnosis.commands.iter().for_each(|command| page.command(command));
    if let Some(how) = &diagnosis.cannot_destroy {
        page.text(how);
    }
}
