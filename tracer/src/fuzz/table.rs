//! A history of the kernel's records: through the connection table to JSON, and back.

use std::rc::Rc;

use super::recording::write_again;
use crate::{
    decode::decode,
    model::{Identify, Owner, Subject, SubjectKey, Task, Thresholds},
    track::{Table, Update, Visibility},
    wire::Parser,
};

/// Names of nobody but the task itself.
#[derive(Default)]
struct Names(u64);

impl Identify for Names {
    fn identify(&mut self, key: SubjectKey) -> Rc<Subject> {
        self.0 += 1;
        let owner = key.owner.map(|owner| Owner {
            comm: String::from_utf8_lossy(owner.task.comm()).into_owned(),
            task: owner.task,
            exe: None,
            uid: key.uid,
            source: owner.source,
            cmdline: None,
        });
        let (cgroup, container, pod, unit) = (None, None, None, None);
        Rc::new(Subject { id: self.0, owner, netns: key.netns, cgroup, container, pod, unit })
    }

    fn forget_process(&mut self, _: &Task) {}
}

/// Each record has its length, one byte, in front.
pub(super) fn follow(mut bytes: &[u8]) {
    let mut table = Table::new(1, 0, Visibility { minis: true, resets: true, ..Visibility::default() });
    table.set_thresholds(Thresholds::default());
    let (mut names, mut parser) = (Names::default(), Parser::default());
    let (mut records, mut now_ns) = (0, 0);
    let mut out = |update: Update| {
        if let Update::Record(record) = update {
            write_again(&mut parser, &record);
        }
    };
    while let Some((len, rest)) = bytes.split_first() {
        let (record, rest) = rest.split_at(rest.len().min(usize::from(*len)));
        bytes = rest;
        let Ok(event) = decode(record) else { continue };
        records += 1;
        now_ns = event.time_ns.max(now_ns);
        table.apply(&event, &mut names).iter().cloned().for_each(&mut out);
        table.tick(now_ns, &mut names, &mut out);
        assert!(table.len() <= 2 * records && table.waiting() <= 2 * records);
    }
    // A child that was cloned and is not established yet is not shown.
    assert!(table.snapshot().count() <= table.len());
}
