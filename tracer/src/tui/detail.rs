//! The detail view of one socket.

use ratatui::{
    style::{Modifier, Style},
    text::{Line, Span},
};

use super::App;
use crate::{
    display::{duration, endpoint},
    format,
    model::{Role, Watch, printable},
    story::ConnHistory,
};

impl App {
    /// History, meaning of the state, holders, reason, and what to do.
    pub(super) fn detail(&self, history: &ConnHistory) -> Vec<Line<'static>> {
        let mut lines = vec![self.title(history)];
        let tuple = &history.tuple;
        let (local, remote) =
            (endpoint(tuple.local, tuple.local_port), endpoint(tuple.remote, tuple.remote_port));
        lines.push(Line::raw(format!(
            "{local} - {remote}  {}  connection {}",
            history.role.map_or("", Role::name),
            history.conn
        )));
        lines.extend(self.owner(history));
        lines.push(Line::default());
        self.stuck(history, &mut lines);
        lines.push(Line::styled(self.texts.get("top.so_far").to_owned(), self.bold()));
        lines.extend(self.way(history));
        lines.push(Line::default());
        let name = history.state.name();
        lines.push(Line::styled(self.texts.get("labels.means").to_owned(), self.bold()));
        lines.push(Line::raw(self.texts.get(&format!("states.{name}.means")).to_owned()));
        lines.push(Line::raw(self.texts.get(&format!("states.{name}.fault")).to_owned()));
        lines
    }

    fn title(&self, history: &ConnHistory) -> Line<'static> {
        let at_least = if history.at_least { "more than " } else { "" };
        let age = format!("  for {at_least}{}", duration(self.age_ns(history)));
        let short = self.texts.get(&format!("states.{}.short", history.state.name())).to_owned();
        let name = Span::styled(history.state.name(), self.style(history.state).add_modifier(Modifier::BOLD));
        Line::from(vec![name, Span::raw(age), Span::raw(format!("  {short}"))])
    }

    fn owner(&self, history: &ConnHistory) -> Vec<Line<'static>> {
        let subject = &history.subject;
        let mut lines = Vec::new();
        if let Some(owner) = &subject.owner {
            let exe = owner.exe.as_deref().unwrap_or("-");
            let uid = owner.uid.map(|uid| format!(", uid {uid}")).unwrap_or_default();
            let text =
                format!("{} ({}), {exe}{uid}, known by {}", owner.comm, owner.pid(), owner.source.name());
            lines.push(Line::raw(printable(&text)));
        }
        let places = [
            subject.unit.clone(),
            subject.container.as_ref().map(|container| format!("container {}", container.id)),
            subject.netns.map(|netns| format!("netns {netns}")),
        ];
        let places: Vec<String> = places.into_iter().flatten().collect();
        if !places.is_empty() {
            lines.push(Line::raw(printable(&places.join(", "))));
        }
        lines
    }

    fn stuck(&self, history: &ConnHistory, lines: &mut Vec<Line<'static>>) {
        let Some((examined, diagnosis)) =
            history.stuck.as_ref().filter(|_| history.is_stuck).and_then(|stuck| stuck.found.as_deref())
        else {
            return;
        };
        lines.push(Line::styled(self.texts.get("top.stuck").to_owned(), self.alarm()));
        lines.push(Line::raw(printable(&diagnosis.why)));
        let unread = examined.socket.unread_bytes();
        if unread > 0 {
            lines.push(Line::raw(format!("{unread} bytes that nobody has read")));
        }
        for holder in &examined.holders {
            let watch = match &holder.watch {
                Some(Watch::NoEpoll) => ", in no epoll",
                Some(Watch::Epoll(_)) => ", in an epoll",
                None => "",
            };
            let text = format!(
                "held by {} ({}), {}{watch}",
                holder.process.comm,
                holder.process.pid,
                format::held_via(holder)
            );
            lines.push(Line::raw(printable(&text)));
        }
        lines.push(Line::default());
        lines.push(Line::styled(self.texts.get("top.advice").to_owned(), self.bold()));
        lines.push(Line::raw(printable(&diagnosis.advice)));
        lines.extend(diagnosis.commands.iter().map(|command| Line::raw(format!("  {}", printable(command)))));
        lines.extend(diagnosis.cannot_destroy.iter().map(|how| Line::raw(printable(how))));
        lines.push(Line::default());
    }

    fn way(&self, history: &ConnHistory) -> Vec<Line<'static>> {
        let mut lines = Vec::new();
        if let Some((state, _)) = history.found {
            let style = Style::new().add_modifier(Modifier::DIM);
            lines.push(Line::styled(format!("  found in {}", state.name()), style));
        }
        let begin_ns = history.begin_ns();
        for step in &history.steps {
            let at = duration(u64::try_from(step.time_ns - begin_ns).unwrap_or(0));
            let time = step.in_state.map_or_else(String::new, |time| format!(" after {}", duration(time.ns)));
            let cause = step.cause.map_or_else(String::new, |cause| format!(", {}", cause.name()));
            let corrected = if step.corrected { ", corrected" } else { "" };
            lines.push(Line::from(vec![
                Span::raw(format!("  +{at:<8} {:<11} -> ", step.from.name())),
                Span::styled(format!("{:<11}", step.to.name()), self.style(step.to)),
                Span::raw(format!("{time}{cause}{corrected}")),
            ]));
        }
        lines
    }
}
