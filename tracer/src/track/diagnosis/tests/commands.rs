//! The commands that an answer names, and the one that ends a socket.

use std::path::Path;

use super::{close_wait, diagnose, socket};
use crate::model::{Destroy, SocketInfo, SocketReport, State};

/// The last command, if that is one that ends the socket.
fn kill(found: &SocketReport) -> Option<String> {
    diagnose(found, None).commands.pop().filter(|command| command.contains("ss -K"))
}

#[test]
fn what_ends_a_socket() {
    let with = |destroy| close_wait(move |found| found.destroy = destroy);
    let works = diagnose(&with(Destroy::Works), None);
    assert!(works.cannot_destroy.is_none() && !works.advice.contains("CAP_NET_ADMIN"), "{works:?}");
    assert!(kill(&with(Destroy::Works)).is_some());

    let privileged = diagnose(&with(Destroy::NeedsNetAdmin), None);
    assert!(privileged.advice.ends_with("; `ss -K` needs CAP_NET_ADMIN"), "{privileged:?}");
    assert!(privileged.cannot_destroy.is_none() && kill(&with(Destroy::NeedsNetAdmin)).is_some());

    for (destroy, says) in
        [(Destroy::NotSupported, "CONFIG_INET_DIAG_DESTROY"), (Destroy::Unknown, "not known")]
    {
        let found = with(destroy);
        assert_eq!(kill(&found), None, "{destroy:?}");
        let how = diagnose(&found, None).cannot_destroy.expect("another way");
        assert!(how.contains(says) && how.contains("srv (10)"), "{how}");
    }
    let never_accepted = close_wait(|found| {
        found.destroy = Destroy::NotSupported;
        found.holders.clear();
        found.socket.inode = 0;
    });
    let how = diagnose(&never_accepted, None).cannot_destroy.expect("another way");
    assert!(how.contains("srv (10) accepts"), "{how}");
    let of_kernel = close_wait(|found| {
        (found.destroy, found.of_kernel) = (Destroy::NotSupported, true);
        found.holders.clear();
    });
    let how = diagnose(&of_kernel, None).cannot_destroy.expect("another way");
    assert!(how.contains("mount"), "{how}");
    let mut orphan = socket(State::FinWait2);
    (orphan.destroy, orphan.socket.inode) = (Destroy::NotSupported, 0);
    let how = diagnose(&orphan, None).cannot_destroy.expect("another way");
    assert!(how.contains("timers"), "{how}");
}

#[test]
fn no_command_ends_an_orphan() {
    for state in [State::FinWait1, State::FinWait2, State::Closing, State::LastAck] {
        let mut orphan = socket(state);
        (orphan.destroy, orphan.socket.inode) = (Destroy::NeedsNetAdmin, 0);
        let answer = diagnose(&orphan, None);
        assert_eq!(kill(&orphan), None, "{state:?}");
        assert!(!answer.advice.contains("CAP_NET_ADMIN"), "{state:?}: {answer:?}");
        let how = answer.cannot_destroy.expect("another way");
        assert!(how.contains("before 6.11") && how.contains("timers"), "{state:?}: {how}");
        // A file, or a file of the kernel, holds these: they keep their timers.
        let held =
            SocketReport { socket: SocketInfo { inode: 7, ..orphan.socket.clone() }, ..orphan.clone() };
        assert!(kill(&held).is_some(), "{state:?}");
        let of_kernel = SocketReport { of_kernel: true, ..orphan };
        assert!(kill(&of_kernel).is_some(), "{state:?}");
    }
    // No process has accepted this connection. It is not an orphan, because its listener holds it.
    let mut never_accepted = close_wait(|found| found.destroy = Destroy::Works);
    (never_accepted.holders, never_accepted.socket.inode) = (Vec::new(), 0);
    assert!(kill(&never_accepted).is_some());
}

#[test]
fn a_command_ends_one_socket_only() {
    let with = |interface, has_bound_twin| {
        let found = close_wait(move |found| {
            (found.destroy, found.has_bound_twin) = (Destroy::Works, has_bound_twin);
            found.socket.tuple.interface = interface;
        });
        kill(&found).expect("a command")
    };
    assert!(with(0, false).ends_with(":5'"));
    assert!(with(0, true).ends_with(":5 and dev 0'"));
    assert!(with(3, false).ends_with(":5 and dev 3'"));
}

#[test]
fn a_path_of_others_is_one_word_of_a_command() {
    let mut found = socket(State::CloseWait);
    found.destroy = Destroy::Works;
    let command = |path: &str| diagnose(&found, Some(Path::new(path))).commands.pop();
    let begins = |path: &str, word: &str| {
        let command = command(path).expect("a command");
        assert!(command.starts_with(&format!("nsenter --net={word} ss -K -t")), "{command}");
    };
    begins("/proc/77/ns/net", "/proc/77/ns/net");
    begins("/tmp/a b;$(c)'d", r"'/tmp/a b;$(c)'\''d'");
    // A part of a command would be another one.
    let long = diagnose(&found, Some(Path::new(&"/x".repeat(400))));
    assert!(long.commands.iter().all(|command| !command.contains("nsenter")), "{:?}", long.commands);
    assert_eq!(long.more_commands, 1);
}
