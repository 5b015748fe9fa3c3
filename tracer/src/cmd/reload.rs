//! Applies a configuration that was read again (SIGHUP) to the streams of a running daemon.

use std::{
    collections::BTreeMap,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
};

use super::{
    reread::{News, PATIENCE, Reader, Reread},
    secrets::Secrets,
    sink_host::{SinkHost, Starter},
    sinks,
};
use crate::{
    model::{Record, RecordKind, Start},
    pipeline::{GRACE, Reload, Stream, Streams},
    restart::Resume,
    settings::{Settings, Sink},
    sinks::{Queue, Running},
};

/// What starts each sink, by name, or why the sink cannot start.
type Prepared = BTreeMap<String, Result<Starter, String>>;

/// The current settings, and the reader for new ones.
pub(super) struct Reloader {
    reader: Reader,
    news: Option<News>,
    settings: Settings,
    secrets: Secrets,
    start: Start,
    resume: Option<Resume>,
    /// Removed sinks that still deliver their remaining records.
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
    pub(super) fn new(
        path: PathBuf,
        settings: Settings,
        secrets: Secrets,
        start: Start,
        resume: Option<Resume>,
        host: SinkHost,
    ) -> Self {
        Self {
            reader: Reader::new(path, start.clone(), host),
            news: None,
            secrets,
            settings,
            start,
            resume,
            ending: Vec::new(),
        }
    }

    /// Keeps the configuration, and reopens files.
    fn go_on(&self, error: &dyn std::fmt::Display, streams: &Streams) {
        message!("{error}; going on as before");
        streams.list.iter().for_each(Stream::reopen);
    }

    /// Unchanged sinks go on, and reopen their files. Changed and removed sinks end; new and changed sinks start.
    fn reload(&mut self, read: Reread, streams: &mut Streams) {
        let Reread { settings, secrets, sinks: mut prepared } = read;
        if !self.is_same_tracer(&settings) {
            message!(
                "{}: settings outside of [sinks] have changed; restart sockstate to apply them",
                self.reader.path().display()
            );
        }
        let want_resets = |settings: &Settings| sinks::want(settings, RecordKind::Reset);
        if want_resets(&settings) && !want_resets(&self.settings) {
            message!(
                "{}: a sink wants records of resets, and no sink did at the start; restart sockstate to get them",
                self.reader.path().display()
            );
        }
        let same_labels = self.settings.labels == settings.labels;
        self.ending.retain(|(_, queue)| !queue.is_released());
        let mut old: Vec<_> = self.settings.sinks.drain(..).zip(streams.list.drain(..)).collect();
        let mut kept = Settings { sinks: Vec::new(), ..settings.clone() };
        // A new sink must not open a file of a sink that goes on.
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

    /// Ends `stream`: it gets no more records, and delivers its remaining ones.
    fn retire(&mut self, sink: &Sink, stream: &mut Stream, streams: &mut Streams) {
        stream.end(GRACE);
        if let Some(queue) = stream.queue() {
            self.ending.push((sink.clone(), queue.clone()));
            streams.retire(queue.clone());
        }
    }

    /// Starts the stream of a new or changed sink. If that fails, returns the previous stream.
    fn renew(
        &mut self,
        settings: &Settings,
        sink: &Sink,
        prepared: &mut Prepared,
        before: Option<(Sink, Stream)>,
        streams: &mut Streams,
    ) -> Option<(Sink, Stream)> {
        let sample = sink.section.common.sample;
        let same_filter = before
            .as_ref()
            .is_some_and(|(known, _)| known.filter == sink.filter && known.section.common.sample == sample);
        let ending = self.ending.iter().map(|(sink, queue)| (sink, queue));
        let previous = before.iter().filter_map(|(sink, stream)| Some((sink, stream.queue()?)));
        let others: Vec<(&Sink, &Queue)> = ending.chain(previous).collect();
        let with = |place: fn(&Sink) -> Option<PathBuf>| -> Vec<Queue> {
            let same = |other: &Sink| place(sink).is_some() && place(sink) == place(other);
            others.iter().filter(|(other, _)| same(other)).map(|(_, queue)| (*queue).clone()).collect()
        };
        let running = Running { output: with(file), spool: with(|sink| sink.section.spool_path()) };
        let started = prepared
            .remove(&sink.section.name)
            .unwrap_or_else(|| Err("its settings were not read again".to_owned()));
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
        old.keys == new.keys
            && old.filter == new.filter
            && old.stuck == new.stuck
            && old.kernel == new.kernel
            && old.kubernetes == new.kubernetes
    }
}

/// The file that a sink has open.
fn file(sink: &Sink) -> Option<PathBuf> {
    sink.section.config.file().map(Path::to_owned)
}
