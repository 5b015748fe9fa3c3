//! All scenarios at once, each in a network namespace of its own, under one tracer; then each is compared with what is
//! expected, with /proc/net/tcp at every quiet point, and with what bpftrace saw of the full sockets.

mod check;
mod scenarios;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use scenarios::Scenario;

use crate::{
    Test,
    blind::Blind,
    lab::{Story, Tracer, in_lab, sockstate},
    observer::{self, Line, wait_for_states},
    sockets::{Kind, fresh_port},
    test,
};

/// The sockets at a quiet point: a moment without packets on their way.
pub(super) struct Quiet {
    pub(super) time: String,
    pub(super) sockets: Vec<Line>,
}

/// Collects quiet points.
#[derive(Default)]
pub(super) struct Watch {
    pub(super) points: Vec<Quiet>,
    /// Why the scenario cannot run on this kernel.
    pub(super) skipped: Option<&'static str>,
}

impl Watch {
    /// Waits for these states, and notes which socket is in which.
    fn quiet(&mut self, states: &[&str]) {
        let sockets = wait_for_states(states);
        // A text, because the test compares it with the times of the records.
        self.points.push(Quiet { time: format!("{:.9}", jiff::Timestamp::now()), sockets });
    }

    fn cannot(&mut self, why: &'static str) {
        self.skipped = Some(why);
    }
}

/// The result of one scenario.
pub(super) struct Outcome {
    pub(super) netns: u64,
    pub(super) port: u16,
    pub(super) watch: Watch,
}

/// All scenarios under one tracer.
pub(super) struct Run {
    pub(super) story: Story,
    outcomes: BTreeMap<(&'static str, &'static str), Result<Outcome, String>>,
    /// Ports of connections that had transitions which this kernel hid from all BPF programs.
    pub(super) hidden: Vec<u16>,
    /// The number of events of mini-sockets' timers that the kernel hid. It is not known of which mini-sockets.
    pub(super) hidden_minis: usize,
    /// Interrupts may hide transitions: in a slow emulated machine, and from the classic tracepoint, which has no companion.
    pub(super) may_lose: bool,
    /// How many of `hidden_minis` have explained no difference yet.
    minis_left: AtomicU64,
    /// The number of hidden transitions that the tracer has reported and that have explained no difference yet.
    losses: AtomicU64,
}

impl Run {
    /// Whether a reported loss that has not explained another difference can explain this one.
    pub(super) fn excuse_a_loss(&self) -> bool {
        take_one(&self.losses)
    }

    /// Whether a hidden event of a mini-socket that has not explained another difference can explain this one.
    pub(super) fn excuse_a_mini(&self) -> bool {
        take_one(&self.minis_left)
    }
}

fn take_one(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// The tiers to test with: those that the environment names, or the best one and the estimate.
fn tiers() -> Vec<String> {
    match std::env::var("SOCKSTATE_TEST_TIER") {
        Ok(tiers) => tiers.split(',').map(str::to_owned).collect(),
        Err(_) => ["auto", "estimate", "none", "tracepoint"].map(str::to_owned).to_vec(),
    }
}

pub(crate) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for tier in tiers() {
        let run: &'static OnceLock<Option<Run>> = Box::leak(Box::default());
        for scenario in scenarios::ALL {
            for kind in Kind::ALL {
                let tier = tier.clone();
                let name = format!("lifecycle, {tier}: {}, {kind:?}", scenario.name);
                tests.push(test(name, move || {
                    // The scenario runs only once, also if it fails.
                    let play = || std::panic::catch_unwind(|| play(&tier)).ok();
                    let run = run.get_or_init(play).as_ref().expect("the scenarios were played");
                    let key = (scenario.name, kind_name(kind));
                    match &run.outcomes[&key] {
                        Ok(outcome) => check::scenario(run, scenario, kind, outcome, &tier),
                        Err(error) => panic!("{error}"),
                    }
                }));
            }
        }
        tests.push(test(format!("lifecycle, {tier}: nothing lost, nothing illegal"), move || {
            let run = run.get().and_then(Option::as_ref).expect("the scenarios were played");
            check::whole(run);
        }));
    }
    tests
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::V4 => "v4",
        Kind::V6 => "v6",
        Kind::Mapped => "mapped",
    }
}

fn play(tier: &str) -> Run {
    observer::watch();
    let mut command = sockstate();
    command.args(["trace", "--format", "json", "--alongside"]);
    command.args(["--records", "transitions,connections,resyncs,stuck,resolved"]);
    match tier {
        // The same on the classic tracepoint.
        "tracepoint" => command.args(["--hook", "tracepoint"]),
        tier => command.args(["--tier", tier]),
    };
    let tracer = Tracer::spawn(&mut command);
    // In the virtual machines, BPF programs also run in the context of process 1.
    let blind = (!observer::is_in_vm()).then(|| Blind::watch_all().expect("ftrace"));
    let outcomes = Mutex::new(BTreeMap::new());
    thread::scope(|scope| {
        for scenario in scenarios::ALL {
            for kind in Kind::ALL {
                let outcomes = &outcomes;
                let port = fresh_port();
                scope.spawn(move || {
                    let result = thread::scope(|inner| inner.spawn(|| one(scenario, kind, port)).join());
                    let result = result.map_err(|panic| {
                        let text = panic.downcast_ref::<String>().cloned();
                        text.unwrap_or_else(|| "the scenario failed".into())
                    });
                    outcomes.lock().expect("lock").insert((scenario.name, kind_name(kind)), result);
                });
            }
        }
    });
    let outcomes = outcomes.into_inner().expect("lock");
    // The records of mini-sockets that end with their namespaces are still on their way.
    thread::sleep(Duration::from_millis(50));
    let hidden_minis = blind.as_ref().map_or(0, |blind| blind.mini_timers().expect("ftrace"));
    let hidden = blind.map(|blind| blind.ports().expect("ftrace")).unwrap_or_default();
    let story = tracer.stop();
    let recursion = story.of("lost").filter(|record| record["place"] == "recursion");
    let losses = recursion.filter_map(|record| record["count"].as_u64()).sum::<u64>();
    let may_lose = observer::is_in_vm() || tier == "tracepoint";
    let losses = AtomicU64::new(if may_lose { losses } else { 0 });
    let minis_left = AtomicU64::new(hidden_minis as u64);
    Run { story, outcomes, hidden, hidden_minis, minis_left, may_lose, losses }
}

fn one(scenario: &Scenario, kind: Kind, port: u16) -> Outcome {
    in_lab(|netns| {
        let mut watch = Watch::default();
        (scenario.play)(kind, port, &mut watch);
        Outcome { netns, port, watch }
    })
}
