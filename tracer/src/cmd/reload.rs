//! Changes the streams of a running daemon by a configuration that was read again.

use std::{
    collections::BTreeMap,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
};

use super::{
    reread::{News, PATIENCE, Reader, Reread, Secrets},
    sinks,
};
use crate::{
    model::{Record, Start},
    pipeline::{GRACE, Reload, Stream, Streams},
    restart::Resume,
    settings::{Settings, Sink},
    sinks::{Queue, Running, SinkSettings},
};

/// What sinks are started with, or why they cannot be, by name.
type Prepared = BTreeMap<String, Result<SinkSettings, String>>;

/// What the streams were made of, and how they are made again.
pub(super) struct Reloader {
    reader: Reader,
    news: Option<News>,
    settings: Settings,
    secrets: Secrets,
    start: Start,
    resume: Option<Resume>,
    /// Sinks that are no longer wanted, and still deliver what they have.
    ending: Vec<(Sink, Queue)>,
}

impl Reload for Reloader {
    fn begin(&mut self, streams: &mut Streams) {
        if let Err(error) = self.reader.begin() {
            self.go_on(&error, streams);
        }
    }

    fn is_reading(&self) -> bool {
        self.news.is_some() || self.reader.is_reading()
    }

    fn read(&mut self) -> Pin<Box<dyn Future<Output = ()> + '_>> {
        Box::pin(async {
            if self.news.is_none() {
                self.news = Some(self.reader.news().await);
            }
        })
    }

    fn apply(&mut self, streams: &mut Streams) {
        match self.news.take() {
            Some(News::Read(read)) => match *read {
                Ok(read) => self.reload(read, streams),
                Err(error) => self.go_on(&error, streams),
            },
            Some(News::Late) => {
                let path = self.reader.path().display();
                let error = format!(
                    "{path}, or a file that it names, is not read yet: the system has not answered for {} s",
                    PATIENCE.as_secs()
                );
                self.go_on(&error, streams);
            }
            Some(News::Refused(error)) => self.go_on(&error, streams),
            None => {}
        }
        if self.reader.take_again() {
            self.begin(streams);
        }
    }
}

impl Reloader {
    pub(super) fn new(path: PathBuf, settings: Settings, start: Start, resume: Option<Resume>) -> Self {
        Self {
            reader: Reader::new(path, start.clone()),
            news: None,
            secrets: Secrets::of(&settings),
            settings,
            start,
            resume,
            ending: Vec::new(),
        }
    }

    /// Nothing changes; files are opened again.
    fn go_on(&self, error: &dyn std::fmt::Display, streams: &Streams) {
        message!("{error}; going on as before");
        streams.list.iter().for_each(Stream::reopen);
    }

    /// Sinks that are as they were go on, and open their files again; the others end, and their successors begin.
    fn reload(&mut self, read: Reread, streams: &mut Streams) {
        let Reread { settings, secrets, sinks: mut prepared } = read;
        if !self.is_same_tracer(&settings) {
            message!(
                "{}: what is above the sinks has changed: that takes a restart",
                self.reader.path().display()
            );
        }
        let same_labels = self.settings.labels == settings.labels;
        self.ending.retain(|(_, queue)| !queue.is_released());
        let mut old: Vec<_> = self.settings.sinks.drain(..).zip(streams.list.drain(..)).collect();
        let mut kept = Settings { sinks: Vec::new(), ..settings.clone() };
        // Sinks that go on keep their files: the others' successors must not open one of these.
        let (mut wanted, mut successors) = (Vec::new(), Vec::new());
        for sink in &settings.sinks {
            let before = old
                .iter()
                .position(|(known, _)| known.section.name == sink.section.name)
                .map(|at| old.swap_remove(at));
            match before {
                Some((known, stream))
                    if known == *sink && same_labels && self.secrets.same(&secrets, &sink.section.name) =>
                {
                    stream.reopen();
                    wanted.push(Some((known, stream)));
                }
                before => {
                    successors.push((wanted.len(), sink, before));
                    wanted.push(None);
                }
            }
        }
        for (sink, stream) in &mut old {
            self.retire(sink, stream, streams);
        }
        for (at, sink, before) in successors {
            let renewed = self.renew(&settings, sink, &mut prepared, before, streams);
            if let Some(place) = wanted.get_mut(at) {
                *place = renewed;
            }
        }
        for (sink, stream) in wanted.into_iter().flatten() {
            kept.sinks.push(sink);
            streams.list.push(stream);
        }
        (self.settings, self.secrets) = (kept, secrets);
    }

    /// Nothing more comes for `stream`; it delivers what it has.
    fn retire(&mut self, sink: &Sink, stream: &mut Stream, streams: &mut Streams) {
        stream.end(GRACE);
        if let Some(queue) = stream.queue() {
            self.ending.push((sink.clone(), queue.clone()));
            streams.retire(queue.clone());
        }
    }

    /// The stream of a sink of the new settings; the previous one where the new one does not start.
    fn renew(
        &mut self,
        settings: &Settings,
        sink: &Sink,
        prepared: &mut Prepared,
        before: Option<(Sink, Stream)>,
        streams: &mut Streams,
    ) -> Option<(Sink, Stream)> {
        let same_filter = before.as_ref().is_some_and(|(known, _)| known.filter == sink.filter);
        let ending = self.ending.iter().map(|(sink, queue)| (sink, queue));
        let previous = before.iter().filter_map(|(sink, stream)| Some((sink, stream.queue()?)));
        let others: Vec<(&Sink, &Queue)> = ending.chain(previous).collect();
        let with = |place: fn(&Sink) -> Option<PathBuf>| -> Vec<Queue> {
            let same = |other: &Sink| place(sink).is_some() && place(sink) == place(other);
            others.iter().filter(|(other, _)| same(other)).map(|(_, queue)| (*queue).clone()).collect()
        };
        let running = Running { output: with(file), spool: with(|sink| sink.section.spool_path()) };
        let started =
            prepared.remove(&sink.section.name).unwrap_or_else(|| Err("it was not read".to_owned()));
        let replaces = before.is_some();
        let stream = started.map_err(anyhow::Error::msg).and_then(|started| {
            let before = sinks::Before { running, replaces };
            sinks::stream(settings, sink, &started, &self.start, self.resume.as_ref(), Some(before))
        });
        match stream {
            Ok(mut stream) => {
                if let Some((known, mut before)) = before {
                    self.retire(&known, &mut before, streams);
                    stream.follow(before, same_filter);
                }
                stream.record(&Record::Start(self.start.clone()));
                Some((sink.clone(), stream))
            }
            Err(error) => {
                let what = if before.is_some() { "going on as before" } else { "going on without it" };
                message!("{error:#}; {what}");
                before
            }
        }
    }

    fn is_same_tracer(&self, new: &Settings) -> bool {
        let old = &self.settings;
        old.keys == new.keys && old.filter == new.filter && old.stuck == new.stuck && old.kernel == new.kernel
    }
}

/// The file that a sink has open.
fn file(sink: &Sink) -> Option<PathBuf> {
    sink.section.config.file().map(Path::to_owned)
}
