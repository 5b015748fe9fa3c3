//! Whether `ss -K` works: the answer of the kernel agrees with what `ss -K` does.

use std::{io, os::unix::process::CommandExt, process};

use serde_json::Value;
use socket2::Socket;

use crate::{
    Test,
    lab::{in_lab, sockstate, wait_until},
    look_test,
    observer::proc_net_tcp,
    schema,
    sockets::{Endpoints, Kind, fresh_port},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        look_test("destroy: what doctor says of ss -K is what the kernel does", as_doctor_says),
        look_test("destroy: without CAP_NET_ADMIN the advice says what ss -K takes", unprivileged),
    ]
}

fn doctor() -> Value {
    let output = sockstate().args(["doctor", "--format", "json"]).output().expect("doctor");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

fn close_waits(netns: u64) -> Vec<Value> {
    let output = sockstate()
        .args(["close-wait", "--older-than", "0", "--format", "json", "--netns", &netns.to_string()])
        .output()
        .expect("sockstate");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let records: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    records.iter().for_each(schema::check);
    records.into_iter().filter(|record| record["kind"] == "stuck").collect()
}

fn leak(port: u16) -> (Socket, Socket) {
    let (listener, client, server) = Kind::V4.pair(port);
    drop(client);
    wait_until("CLOSE_WAIT", || proc_net_tcp().iter().any(|line| line.2 == "CLOSE_WAIT"));
    (listener, server)
}

fn as_doctor_says() {
    in_lab(|netns| {
        let (listener, server) = leak(fresh_port());
        let before = proc_net_tcp().len();
        let said = doctor()["destroy"]["works"].clone();
        let looked = close_waits(netns);
        assert_eq!(proc_net_tcp().len(), before, "asking has destroyed nothing");
        assert_eq!(looked.len(), 1, "{looked:#?}");
        let is_printed = looked[0]["commands"].to_string().contains("ss -K");
        match Endpoints::of(&server).kill() {
            Ok(()) => {
                assert_eq!((&said, is_printed), (&true.into(), true), "{looked:#?}");
                assert!(looked[0]["cannot_destroy"].is_null(), "{looked:#?}");
                assert_eq!(close_waits(netns).len(), 0, "it is destroyed");
            }
            Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                assert_eq!((&said, is_printed), (&false.into(), false), "{looked:#?}");
                let way = looked[0]["cannot_destroy"].as_str().expect("another way");
                assert!(way.contains("CONFIG_INET_DIAG_DESTROY"), "{way}");
                assert!(way.contains(&format!("({})", process::id())), "who ends it: {way}");
            }
            Err(error) => panic!("{error}"),
        }
        drop((listener, server));
    });
}

fn unprivileged() {
    in_lab(|netns| {
        let works = doctor()["destroy"]["works"] == true;
        let (listener, server) = leak(fresh_port());
        let advice = |keep: bool| {
            let mut command = sockstate();
            command.args([
                "close-wait",
                "--older-than",
                "0",
                "--format",
                "json",
                "--netns",
                &netns.to_string(),
            ]);
            if !keep {
                // SAFETY: prctl only, which is safe between fork and exec.
                unsafe { command.pre_exec(drop_net_admin) };
            }
            let output = command.output().expect("sockstate");
            let line = String::from_utf8(output.stdout).expect("UTF-8");
            let record: Value = serde_json::from_str(line.lines().next().expect("a line")).expect("JSON");
            assert_eq!(record["commands"].to_string().contains("ss -K"), works, "{record}");
            record["advice"].as_str().expect("advice").to_owned()
        };
        assert!(!advice(true).contains("CAP_NET_ADMIN"), "{}", advice(true));
        assert_eq!(advice(false).contains("`ss -K` needs CAP_NET_ADMIN"), works, "{}", advice(false));
        drop((listener, server));
    });
}

/// After its exec, a process of root has the capabilities that are in the bounding set.
fn drop_net_admin() -> io::Result<()> {
    const CAP_NET_ADMIN: libc::c_ulong = 12;
    // SAFETY: takes numbers.
    match unsafe { libc::prctl(libc::PR_CAPBSET_DROP, CAP_NET_ADMIN, 0, 0, 0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
