//! Reports of a hunt, from finished records.
#![expect(clippy::expect_used, reason = "a test fails by panicking")]

use std::{rc::Rc, sync::Arc};

use sockstate::{
    format::{Format, HuntReport, HuntStyle},
    model::{
        Address, ConnId, Connection, Frame, InState, MissingStack, OpenedBy, Record, Resolved, Stack, State,
        Stop, Stuck, Subject, Tuple,
    },
};

fn nobody() -> Rc<Subject> {
    Rc::new(Subject { id: 0, owner: None, netns: None, cgroup: None, container: None, pod: None, unit: None })
}

fn connection(id: u64) -> Connection {
    let tuple = Tuple {
        local: Address::from_v4([10, 0, 0, 1]),
        remote: Address::from_v4([10, 0, 0, 2]),
        local_port: 80,
        remote_port: 1000,
        v6_socket: false,
        interface: 0,
    };
    Connection { id: ConnId(id), role: None, tuple, nat: None, peer: None, subject: nobody(), mini: false }
}

fn hunted(conn: u64, opened: Result<Arc<Stack>, MissingStack>) -> Stuck {
    Stuck {
        time_ns: 0,
        conn: connection(conn),
        state: State::CloseWait,
        age: InState { ns: 60_000_000_000, at_least: false },
        times: 1,
        before_trace: false,
        found: None,
        opened: Some(opened),
    }
}

fn hunt_report(style: HuntStyle, records: &[Record]) -> String {
    let mut report = HuntReport::new(style);
    let mut out = Vec::new();
    for (seq, record) in records.iter().enumerate() {
        report.record(seq as u64, record, &mut out);
    }
    let stop = Stop { time_ns: 0, reason: "signal", transitions: 0, lost: Vec::new(), illegal: 0 };
    report.record(9, &Record::Stop(stop), &mut out);
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn hunts_are_counted_by_path() {
    let frame = |function: &str, line| Frame {
        function: Some(function.to_owned()),
        file: Some("src/serve;r.c".into()),
        line: Some(line),
        module: Some("/usr/bin/server".into()),
        ..Frame::default()
    };
    let stack = |id, complete| {
        let frames = vec![frame("take;one\n", 7), frame("main", 20)];
        Ok(Arc::new(Stack { id, by: OpenedBy::Accept, comm: "server".into(), frames, complete }))
    };
    let resolved = Resolved {
        time_ns: 0,
        conn: connection(2),
        state: State::CloseWait,
        to: State::LastAck,
        age: InState { ns: 1, at_least: false },
        traffic: None,
    };
    let records = [
        Record::Stuck(hunted(1, stack(0xab, true))),
        Record::Stuck(hunted(2, stack(0xab, true))),
        Record::Stuck(hunted(3, stack(0xab, true))),
        // A reminder is not another socket.
        Record::Stuck(Stuck { times: 2, ..hunted(3, stack(0xab, true)) }),
        Record::Stuck(hunted(4, Err(MissingStack::NotSeen))),
        Record::Stuck(hunted(5, Err(MissingStack::BeforeHunt))),
        Record::Stuck(hunted(6, Err(MissingStack::BeforeHunt))),
        Record::Resolved(resolved),
    ];
    let text = hunt_report(HuntStyle::Text, &records);
    let (_, report) = text.split_once("\n\n").expect("lines, then the report");
    assert_eq!(
        report,
        "2 sockets stuck in CLOSE_WAIT, and 1 socket no longer stuck were opened here, by accept in server (path 00000000000000ab):\n    0  take;one\u{fffd} (src/serve;r.c:7)\n    1  main (src/serve;r.c:20)\n\n2 sockets stuck in CLOSE_WAIT: opened before the hunt\n\n1 socket stuck in CLOSE_WAIT: the opening was not seen\n"
    );
    let folded = hunt_report(HuntStyle::Folded, &records);
    assert_eq!(folded, "server;main;take:one\u{fffd} 3\n");
    let svg = hunt_report(HuntStyle::Svg, &records);
    assert!(svg.contains("<svg") && svg.contains("take:one") && svg.contains("3 sockets"), "{svg}");
    // Sockets without a path are a number, not a part of the picture.
    let note = "3 sockets. Not shown: 2 (opened before the hunt), 1 (the opening was not seen)";
    assert!(svg.contains(note), "{svg}");
    assert!(svg.contains("100.00%") && !svg.contains("6 sockets"), "{svg}");
    let partial = hunt_report(HuntStyle::Folded, &[Record::Stuck(hunted(1, stack(1, false)))]);
    assert_eq!(partial, "server;[not known];main;take:one\u{fffd} 1\n");
    assert_eq!(hunt_report(HuntStyle::Text, &[]), "\nnothing was stuck\n");
}

#[test]
fn sockets_without_a_path_take_no_room_in_the_flame_graph() {
    // A hundred with each reason, and one whose path is known.
    let mut records = Vec::new();
    for why in MissingStack::ALL {
        let from = records.len() as u64;
        records.extend((0..100).map(|at| Record::Stuck(hunted(from + at, Err(why)))));
    }
    let count = records.len();
    let alone = hunt_report(HuntStyle::Svg, &records);
    assert!(alone.contains("0 sockets. Not shown: "), "{alone}");
    assert!(!alone.contains("ERROR"), "{alone}");
    let stack = Stack {
        id: 1,
        by: OpenedBy::Accept,
        comm: "server".into(),
        frames: vec![Frame { function: Some("serve".into()), ..Frame::default() }],
        complete: true,
    };
    records.push(Record::Stuck(hunted(100_000, Ok(Arc::new(stack)))));
    let svg = hunt_report(HuntStyle::Svg, &records);
    // The only path has all of the width, and the heading has the number of the others, in a line that fits.
    assert!(svg.contains("serve (1 sockets, 100.00%)"), "{svg}");
    let note = svg.split("Not shown: ").nth(1).and_then(|rest| rest.split('<').next()).expect("a note");
    let numbers = note.split(", ").map(|part| part.split(' ').next().expect("a number").parse::<usize>());
    assert_eq!(numbers.map(|number| number.expect("a number")).sum::<usize>(), count, "{note}");
    assert!(note.len() < 140, "{note}");
    // Texts are black, and have a contrast of at least 4.5 to each frame.
    let fills = svg.split("fill=\"rgb(").skip(1).map(luminance);
    let fills: Vec<f64> = fills.filter(|luminance| *luminance > 0.0).collect();
    assert!(fills.len() >= 3, "{svg}");
    assert!(fills.iter().all(|luminance| (luminance + 0.05) / 0.05 >= 4.5), "{fills:?}");
    assert!((luminance("220,0,24)") + 0.05) / 0.05 < 4.5, "a colour that was once used");
}

/// The relative luminance of WCAG, of a colour such as `220,0,24)`.
fn luminance(colour: &str) -> f64 {
    let parts = colour.split(')').next().expect("a colour").split(',');
    let light = parts.map(|part| {
        let value = part.trim().parse::<f64>().expect("a number") / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    });
    light.zip([0.2126, 0.7152, 0.0722]).map(|(light, weight)| light * weight).sum()
}
