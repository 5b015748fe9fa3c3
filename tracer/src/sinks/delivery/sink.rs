//! The interface between the worker and a sink of any type.

use std::{future::Future, pin::Pin};

use tokio::time::timeout;

use super::{Batch, DeliveryError, Opening};

/// What a sink's method waits for.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + 'a>>;

/// An open sink. Only [`Sink::deliver`] must be written; a file and a connection have more to do.
pub trait Sink: Send {
    /// Delivers the records, and removes from `batch` those that are delivered. Returns when all are, or says why the
    /// next one is not. May be cancelled.
    ///
    /// # Errors
    /// The next record is not delivered; the error says what becomes of it.
    fn deliver<'a>(&'a mut self, batch: &'a mut Batch) -> Pending<'a, Result<(), DeliveryError>>;

    /// Does what must be done while there is nothing to deliver. May be cancelled.
    fn idle(&mut self) -> Pending<'_, ()> {
        Box::pin(std::future::pending())
    }

    /// Whether [`Sink::deliver`] must be called without a record: the sink is not open yet, or delivered records must be
    /// sent again.
    fn must_deliver(&self) -> bool {
        false
    }

    /// Records that were delivered on a connection that was reset, and were not sent again.
    fn doubtful(&self) -> u64 {
        0
    }

    /// How many of the first records that are left were sent to the collector, which has not answered.
    fn unanswered(&self) -> usize {
        0
    }

    /// Opens the file again before the next record.
    fn reopen(&mut self) {}

    /// Ends the connection, or whatever the sink has open.
    fn close(&mut self) -> Pending<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

/// Why a sink cannot be opened.
pub type OpenError = Box<dyn std::error::Error + Send + Sync>;

/// Opens a sink of one kind with the settings that it was given; again where that failed.
pub trait SinkBuilder: Send + Sync {
    /// Opens the sink; `header` stands at the beginning of its files. That a collector does not answer is no error.
    ///
    /// # Errors
    /// The file or the certificates of the sink cannot be used.
    fn open(&self, header: Vec<u8>) -> Result<Box<dyn Sink>, OpenError>;

    /// Everything that would make [`SinkBuilder::open`] fail, each with the key that it is about. Changes nothing, and
    /// connects to nothing.
    fn problems(&self) -> Vec<(&'static str, OpenError)> {
        Vec::new()
    }

    /// What is opened, for messages.
    fn resource(&self) -> String {
        "what its connections need".to_owned()
    }
}

/// A sink that another thread opens.
pub(super) struct LateSink {
    opening: Opening<Result<Box<dyn Sink>, OpenError>>,
    sink: Option<Box<dyn Sink>>,
}

impl LateSink {
    pub(super) fn new(opening: Opening<Result<Box<dyn Sink>, OpenError>>) -> Self {
        Self { opening, sink: None }
    }

    /// The sink, when it is open. A sink that waits too long says so, and goes on waiting.
    async fn opened(&mut self) -> Result<&mut Box<dyn Sink>, DeliveryError> {
        let sink = match self.sink.take() {
            Some(sink) => sink,
            None => match timeout(self.opening.patience(), self.opening.opened()).await {
                Ok(opened) => opened.map_err(DeliveryError::retry)?,
                Err(_) => return Err(DeliveryError::retry(self.opening.reason())),
            },
        };
        Ok(self.sink.insert(sink))
    }
}

impl Sink for LateSink {
    fn deliver<'a>(&'a mut self, batch: &'a mut Batch) -> Pending<'a, Result<(), DeliveryError>> {
        Box::pin(async { self.opened().await?.deliver(batch).await })
    }

    fn idle(&mut self) -> Pending<'_, ()> {
        match &mut self.sink {
            Some(sink) => sink.idle(),
            // The worker calls `deliver` first.
            None => Box::pin(std::future::ready(())),
        }
    }

    fn must_deliver(&self) -> bool {
        self.sink.as_ref().is_none_or(|sink| sink.must_deliver())
    }

    fn doubtful(&self) -> u64 {
        self.sink.as_ref().map_or(0, |sink| sink.doubtful())
    }

    fn unanswered(&self) -> usize {
        self.sink.as_ref().map_or(0, |sink| sink.unanswered())
    }

    fn reopen(&mut self) {
        if let Some(sink) = &mut self.sink {
            sink.reopen();
        }
    }

    fn close(&mut self) -> Pending<'_, ()> {
        match &mut self.sink {
            Some(sink) => sink.close(),
            None => Box::pin(std::future::ready(())),
        }
    }
}
