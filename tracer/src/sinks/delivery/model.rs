//! The queue and the ledger's counts in every order that their threads can run in, within bounds: the same sources,
//! with loom's locks and numbers.

use std::time::Duration;

use loom::{model::Builder, thread};

use super::{Batch, Frame};

/// How often a thread is preempted, at most.
const PREEMPTIONS: usize = 3;

mod sync {
    pub(super) use loom::sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicI64, AtomicU64, Ordering},
    };
}

#[expect(
    clippy::duplicate_mod,
    dead_code,
    unreachable_pub,
    reason = "the model has its own, and takes a part"
)]
#[path = "../../restart/progress.rs"]
mod progress;
#[expect(
    clippy::duplicate_mod,
    dead_code,
    unreachable_pub,
    reason = "the model has its own, and takes a part"
)]
#[path = "queue.rs"]
mod queue;
#[expect(
    clippy::duplicate_mod,
    dead_code,
    unreachable_pub,
    reason = "the model has its own, and takes a part"
)]
#[path = "status.rs"]
mod status;

use progress::{Apart, Counts, ResumePoint};
use queue::Queue;
use sync::{Arc, AtomicU64};

/// The counts of one sink in a ledger.
#[derive(Clone)]
pub(super) struct SinkProgress(Arc<[AtomicU64; 5]>);

impl SinkProgress {
    fn new() -> Self {
        Self(Arc::new([(); 5].map(|()| AtomicU64::new(0))))
    }

    fn counts(&self) -> Counts<'_> {
        let [instance, numbered, settled, held, in_doubt] = &*self.0;
        Counts { instance, numbered, settled, held, in_doubt }
    }

    fn settle(&self, records: i64) {
        self.counts().settle(records);
    }

    fn doubt(&self, records: i64) {
        self.counts().doubt(records);
    }
}

fn every_order(run: impl Fn() + Sync + Send + 'static) {
    let mut model = Builder::new();
    model.preemption_bound = Some(PREEMPTIONS);
    model.check(run);
}

/// One record of a byte, which may report lost ones.
fn record(seq: u64, reported_lost: u64) -> Batch {
    Batch {
        bytes: vec![b'x'],
        frames: vec![Frame { end: 1, seq, time_ns: 0, reported_lost, reported_in_doubt: 0 }],
    }
}

/// A stream of records: they are pushed if the queue takes them, and counted as overflow otherwise.
fn push(queue: &Queue, seqs: std::ops::RangeInclusive<u64>) {
    for seq in seqs {
        if queue.has_room(1) {
            queue.push(record(seq, 0));
        } else {
            queue.count_overflow(1);
        }
    }
}

#[test]
fn each_record_is_delivered_lost_or_left() {
    every_order(|| {
        let queue = Queue::new("any", 2, None);
        let sink = {
            let queue = queue.clone();
            thread::spawn(move || {
                // The first try succeeds, the second is refused, the third is put back.
                let delivered = queue.take(1);
                queue.status().deliver(delivered.len(), delivered.bytes.len());
                queue.depart(delivered.len() as u64);
                let refused = queue.take(1);
                queue.lose(refused.len() as u64, refused.reported_lost(), Some(1), false);
                queue.depart(refused.len() as u64);
                queue.put_back(queue.take(1));
                refused.len() as u64
            })
        };
        push(&queue, 1..=3);
        queue.close(Duration::ZERO);
        // Each lost record is reported once.
        let reported = queue.take_lost();
        let refused = sink.join().expect("the sink");
        assert_eq!(reported + queue.take_lost(), refused);
        let left = queue.take(usize::MAX).len() as u64;
        let status = queue.status();
        assert_eq!(status.delivered() + status.lost() + left, 3);
        assert_eq!(queue.bytes(), 0);
    });
}

/// A sink that hangs may continue at any moment, also while it is abandoned.
#[test]
fn what_a_hung_sink_holds_is_counted() {
    every_order(|| {
        let queue = Queue::new("any", 3, None);
        push(&queue, 1..=3);
        let sink = {
            let queue = queue.clone();
            thread::spawn(move || {
                let batch = queue.take(1);
                queue.status().deliver(batch.len(), batch.bytes.len());
                queue.depart(batch.len() as u64);
            })
        };
        let lost = queue.abandon();
        sink.join().expect("the sink");
        let delivered = queue.status().delivered();
        assert_eq!(queue.status().lost(), lost);
        assert!((3 - delivered..=3).contains(&lost), "{delivered} delivered, {lost} counted");
    });
}

/// Both threads are killed after some of their steps: what the next process finds.
fn killed(steps_of_stream: usize, steps_of_sink: usize) {
    every_order(move || {
        let progress = SinkProgress::new();
        progress.counts().resume(7, 0, Apart::default());
        let queue = Queue::new("any", 1, Some(progress.clone()));
        let sink = {
            let queue = queue.clone();
            thread::spawn(move || deliver(&queue, steps_of_sink))
        };
        let numbered = number(&queue, &progress, steps_of_stream);
        let (delivered, last) = sink.join().expect("the sink");
        let ResumePoint { seq, unsettled, .. } = progress.counts().resume(7, 0, Apart::default());
        assert!(seq >= last && seq >= numbered, "{seq} would be given again");
        assert!(delivered + unsettled >= seq, "{delivered} of {seq} delivered, {unsettled} counted");
        assert!(unsettled <= seq, "no more than there were");
        assert_eq!(
            progress.counts().resume(7, 0, Apart::default()),
            ResumePoint { seq, unsettled, in_doubt: 0 },
            "until it has been reported"
        );
    });
}

/// Numbers and pushes records as a stream does; the last number that was given.
fn number(queue: &Queue, progress: &SinkProgress, steps: usize) -> u64 {
    let (mut seq, mut unreported) = (0, 0);
    let mut left = steps;
    let mut goes_on = || left.checked_sub(1).map(|fewer| left = fewer).is_some();
    while goes_on() {
        seq += 1;
        progress.counts().number(seq);
        if !goes_on() {
            break;
        }
        if queue.has_room(1) {
            queue.push(record(seq, std::mem::take(&mut unreported)));
        } else {
            queue.count_overflow(1);
            unreported += 1;
        }
    }
    seq
}

/// Delivers and settles as a sink does; how many records are delivered or reported as lost, and the last one's number.
fn deliver(queue: &Queue, steps: usize) -> (u64, u64) {
    let (mut delivered, mut last) = (0, 0);
    for step in 0..steps {
        if step % 2 == 0 {
            continue;
        }
        let batch = queue.take(1);
        delivered += batch.weight().cast_unsigned();
        last = batch.frames.last().map_or(last, |frame| frame.seq);
        // Delivered, and killed before that is noted.
        if step + 1 < steps {
            queue.settle(batch.weight());
        }
    }
    (delivered, last)
}

#[test]
fn whenever_it_is_killed_no_number_comes_twice_and_all_are_counted() {
    for steps_of_stream in 0..=6 {
        for steps_of_sink in 0..=4 {
            killed(steps_of_stream, steps_of_sink);
        }
    }
}
