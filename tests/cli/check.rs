//! `run --check` refuses what `run` refuses, and nothing else.

use std::{
    collections::BTreeMap,
    fs,
    net::{TcpListener, UdpSocket},
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink},
    path::Path,
};

use crate::{sockstate, text};

/// A directory with files that a configuration can name.
pub(crate) struct ConfigDirectory {
    directory: tempfile::TempDir,
}

impl ConfigDirectory {
    pub(crate) fn new() -> Self {
        let directory = Self { directory: tempfile::tempdir().expect("directory") };
        let root = directory.root();
        for name in ["etc", "log", "lib", "shared"] {
            fs::create_dir(root.join(name)).expect("mkdir");
        }
        fs::set_permissions(root.join("shared"), fs::Permissions::from_mode(0o777)).expect("mode");
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).expect("certificate");
        fs::write(root.join("etc/ca.pem"), made.cert.pem()).expect("certificate");
        fs::write(root.join("etc/key.pem"), made.signing_key.serialize_pem()).expect("key");
        for name in ["clickhouse", "elastic", "splunk", "secret", "nats.creds"] {
            fs::write(root.join("etc").join(name), "Bearer s3cr3t\n").expect("secret");
        }
        fs::write(root.join("etc/broken"), "Bearer s3cr3t\nX: y\n").expect("secret");
        fs::write(root.join("log/old"), "{}\n").expect("file");
        symlink("old", root.join("log/link")).expect("symlink");
        directory
    }

    pub(crate) fn root(&self) -> &Path {
        self.directory.path()
    }

    fn config(&self, config: &str) -> std::path::PathBuf {
        let path = self.root().join("c.toml");
        let config = config.replace("DIR", &self.root().display().to_string());
        fs::write(&path, config).expect("write");
        path
    }

    fn said(&self, config: &str, flags: &[&str]) -> (Option<i32>, String) {
        let path = self.config(config).display().to_string();
        let output = sockstate(&[&["run", "--config", &path], flags].concat());
        let said = text(&output.stdout) + &text(&output.stderr);
        let root = self.root().display().to_string();
        (output.status.code(), said.replace(&path, "c.toml").replace(&root, "DIR"))
    }

    /// The exit code and the output of `run --check`.
    pub(crate) fn check(&self, config: &str) -> (Option<i32>, String) {
        self.said(config, &["--check"])
    }

    /// The same of what is wrong; `run` must say it, too.
    fn refused(&self, config: &str) -> String {
        let (code, said) = self.check(config);
        assert!(matches!(code, Some(1 | 2)), "{config}: {said}");
        assert_eq!(self.said(config, &[]), (code, said.clone()), "{config}");
        said
    }

    /// All files, and when they were changed.
    fn files(&self) -> BTreeMap<String, (u64, i64, i64, u32)> {
        let mut found = BTreeMap::new();
        let mut open = vec![self.root().to_owned()];
        while let Some(path) = open.pop() {
            let metadata = fs::symlink_metadata(&path).expect("metadata");
            if metadata.is_dir() {
                open.extend(
                    fs::read_dir(&path).expect("directory").map(|entry| entry.expect("entry").path()),
                );
            }
            let name = path.display().to_string();
            found.insert(name, (metadata.len(), metadata.mtime(), metadata.mtime_nsec(), metadata.mode()));
        }
        found
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let directory = ConfigDirectory::new();
    let said = directory.refused(
        "snapshoot = true\ncount = 0\n[filter]\nport = 0\nto = \"x\"\n[labels]\nenv = 3\n\
         [sinks.a]\ntype = \"file\"\nkeep = \"many\"\nurl = \"http://x\"\n\
         [sinks.b]\ntype = \"http\"\ntemplate = \"loki\"\nqueue = \"lots\"\n[sinks.b.filter]\nfrom = \"y\"\n\
         [sinks.c]\ntype = \"file\"\npath = \"DIR/no/file\"\n[sinks.d]\n[sinks.e]\ntype = \"tape\"\n",
    );
    let places: Vec<&str> = said
        .trim_start_matches("sockstate: ")
        .lines()
        .map(|line| line.split(": ").next().unwrap_or_default())
        .collect();
    let expected = [
        "c.toml:1:1",
        "c.toml:2:9",
        "c.toml:4:8",
        "c.toml:5:6",
        "c.toml:7:7",
        "c.toml:8:1",
        "c.toml:10:8",
        "c.toml:11:1",
        "c.toml:12:1",
        "c.toml:12:1",
        "c.toml:15:9",
        "c.toml:17:8",
        "c.toml:20:8",
        "c.toml:21:1",
        "c.toml:23:8",
    ];
    assert_eq!(places, expected, "{said}");
    let said = directory.refused("a = \n[filter\nb = 3\n[sinks.a]\ntype = \"stdout\"\n");
    for at in ["c.toml:1:", "c.toml:2:"] {
        assert!(said.contains(at), "{at}: {said}");
    }
}

/// Both refuse each configuration with these words about this directory, and with nothing else.
fn check_refusals(directory: &ConfigDirectory, cases: &[(&str, &str, &str)]) {
    for (config, at, words) in cases {
        let said = directory.refused(config);
        let line = said.lines().find(|line| line.contains(words));
        let position = format!("c.toml:{at}: ");
        assert!(line.is_some_and(|line| line.contains(&position)), "{config}: {position}{words} in {said}");
        assert_eq!(said.lines().count(), 1, "{config}: {said}");
    }
}

#[test]
fn files_and_spools_that_cannot_be_used_are_refused_by_both() {
    let long = "x".repeat(300);
    let cases = [
        ("[sinks.a]\ntype = \"file\"\npath = \"DIR/no/file\"", "3:8", "cannot open DIR/no/file for writing"),
        ("[sinks.a]\ntype = \"file\"\npath = \"DIR/shared/file\"", "3:8", "by other users (mode 0777)"),
        ("[sinks.a]\ntype = \"file\"\npath = \"DIR/log/link\"", "3:8", "is a symbolic link"),
        ("[sinks.a]\ntype = \"file\"\npath = \"DIR/log\"", "3:8", "is not a regular file"),
        ("[sinks.a]\ntype = \"file\"\npath = \"DIR/etc/secret/x\"", "3:8", "Not a directory"),
        (
            "[sinks.a]\ntype = \"file\"\npath = \"/dev/null\"\nrotate-size = \"1M\"",
            "3:8",
            "it cannot be rotated",
        ),
        ("[sinks.a]\ntype = \"stdout\"\nspool = \"DIR/shared\"", "3:9", "cannot use the spool DIR/shared/a"),
        ("[sinks.a]\ntype = \"stdout\"\nspool = \"DIR/log/old\"", "3:9", "Not a directory"),
        (
            "[sinks.a]\ntype = \"stdout\"\nspool = \"DIR/etc/secret/x\"",
            "3:9",
            "cannot use the spool DIR/etc/secret/x/a",
        ),
        (&format!("[sinks.a]\ntype = \"file\"\npath = \"DIR/log/{long}\""), "3:8", "File name too long"),
    ];
    check_refusals(&ConfigDirectory::new(), &cases);
}

#[test]
fn addresses_and_certificates_that_cannot_be_used_are_refused_by_both() {
    let cases = [
        ("[sinks.a]\ntype = \"http\"\nurl = \"ftp://x\"", "3:7", "'ftp://x' is no URL"),
        ("[sinks.a]\ntype = \"otlp\"\nurl = \"http://a:b@x\"", "3:7", "has a user or a password"),
        (
            "[sinks.a]\ntype = \"http\"\nurl = \"http://x\"\nauthorization-file = \"DIR/none\"",
            "4:22",
            "sink a: cannot read DIR/none: No such file",
        ),
        (
            "[sinks.a]\ntype = \"http\"\nurl = \"http://x\"\nauthorization-file = \"DIR/etc/broken\"",
            "4:22",
            "'Authorization' cannot be a header",
        ),
        (
            "[sinks.a]\ntype = \"http\"\nurl = \"http://x\"\n[sinks.a.headers]\n\"a b\" = \"c\"",
            "4:1",
            "'a b' cannot be a header",
        ),
        (
            "[sinks.a]\ntype = \"http\"\nurl = \"https://x\"\ntls-ca = \"DIR/none\"",
            "4:10",
            "cannot use DIR/none for TLS: No such file",
        ),
        (
            "[sinks.a]\ntype = \"socket\"\naddress = \"tls://x:1\"\ntls-ca = \"DIR/etc/secret\"",
            "4:10",
            "no certificate in it",
        ),
        (
            "[sinks.a]\ntype = \"socket\"\naddress = \"tls://x:1\"\ntls-ca = \"DIR/etc/ca.pem\"\ntls-name = \"a b\"",
            "5:12",
            "'tls-name' must be a host's name or address",
        ),
    ];
    check_refusals(&ConfigDirectory::new(), &cases);
}

#[test]
fn what_the_kernel_does_not_give_is_refused_by_both() {
    let cases = [
        (
            "[filter]\nnetns = \"/dev/null\"\n[sinks.a]\ntype = \"stdout\"",
            "2:9",
            "is not a network namespace",
        ),
        ("[sinks.a]\ntype = \"stdout\"\n[sinks.a.filter]\ncgroup = \"/no/../such\"", "4:10", "cgroup"),
        ("[kernel]\nbtf = \"DIR/none\"\n[sinks.a]\ntype = \"stdout\"", "2:7", "cannot read DIR/none"),
        ("[kernel]\nbtf = \"DIR/etc/secret\"\n[sinks.a]\ntype = \"stdout\"", "2:7", "is not valid BTF"),
        ("pin = \"DIR/pins\"\n[sinks.a]\ntype = \"stdout\"", "1:7", "BPF file system"),
        ("runtime-dir = \"DIR/shared\"\n[sinks.a]\ntype = \"stdout\"", "1:15", "by other users (mode 0777)"),
        ("runtime-dir = \"DIR/etc/secret\"\n[sinks.a]\ntype = \"stdout\"", "1:15", "Not a directory"),
        (
            "[kernel]\nlock = \"DIR/shared/lock\"\n[sinks.a]\ntype = \"stdout\"",
            "2:8",
            "by other users (mode 0777)",
        ),
        (
            "[kernel]\nlock = \"DIR/no/lock\"\n[sinks.a]\ntype = \"stdout\"",
            "2:8",
            "No such file or directory",
        ),
        (
            "metrics = \"203.0.113.1:9\"\n[sinks.a]\ntype = \"stdout\"",
            "1:11",
            "cannot serve metrics at 203.0.113.1:9",
        ),
    ];
    check_refusals(&ConfigDirectory::new(), &cases);
}

#[test]
fn what_the_cluster_does_not_name_is_refused_by_both() {
    let sink = "[sinks.a]\ntype = \"stdout\"\n";
    let with = |keys: &str| format!("[kubernetes]\n{keys}{sink}");
    let (node, server) = ("node = \"a\"\n", "server = \"https://api\"\n");
    let cases = [
        (with(server), "1:1", "the name of this node is not known"),
        (with(node), "1:1", "there is no API server"),
        (with(&format!("node = \"A\"\n{server}")), "2:8", "'A' cannot be the name of a node"),
        (with(&format!("{node}server = \"api\"\n")), "3:10", "'api' is not the URL of an API server"),
        (format!("[filter]\nworkload = \"web\"\n{sink}"), "2:12", "add [kubernetes]"),
        (format!("{sink}[sinks.a.filter]\nworkload = \"web\"\n"), "4:12", "add [kubernetes]"),
    ];
    let cases: Vec<(&str, &str, &str)> =
        cases.iter().map(|(config, at, words)| (&**config, *at, *words)).collect();
    check_refusals(&ConfigDirectory::new(), &cases);
}

#[test]
fn sinks_that_write_to_the_same_file_are_refused_by_both() {
    let cases = [
        (
            "[sinks.a]\ntype = \"file\"\npath = \"DIR/log/out\"\n[sinks.b]\ntype = \"file\"\npath = \"DIR/log/../log/out\"",
            "6:8",
            "sinks a and b write to the same file",
        ),
        (
            "[sinks.a]\ntype = \"stdout\"\n[sinks.b]\ntype = \"file\"\npath = \"/dev/stdout\"",
            "5:8",
            "sinks a and b write to the same file",
        ),
    ];
    check_refusals(&ConfigDirectory::new(), &cases);
}

#[test]
fn labels_that_a_collector_does_not_take_are_refused_by_both() {
    let cases = [
        (
            "[sinks.a]\ntype = \"http\"\ntemplate = \"loki\"\nurl = \"http://x\"",
            "1:1",
            "'labels' is missing: Loki takes no stream without labels",
        ),
        (
            "[sinks.a]\ntype = \"http\"\ntemplate = \"loki\"\nurl = \"http://x\"\n[sinks.a.labels]\n\"a.b\" = \"c\"",
            "5:10",
            "'a.b' is no name of a label for Loki",
        ),
        (
            "[sinks.a]\ntype = \"http\"\nurl = \"http://x\"\n[sinks.a.labels]\na = \"c\"",
            "4:10",
            "'labels' is for the template",
        ),
        ("[labels]\n\" \" = \"x\"\n[sinks.a]\ntype = \"stdout\"", "2:7", "a label needs a name"),
        (
            "[labels]\nenv_tier = \"x\"\n\"env.tier\" = \"y\"\n[sinks.a]\ntype = \"stdout\"\nformat = \"ecs\"",
            "2:12",
            "the labels 'env.tier' and 'env_tier' are both 'env_tier' in ECS",
        ),
        (
            "[labels]\nenv = \"x\"\n\"env.tier\" = \"y\"\n[sinks.a]\ntype = \"http\"\nurl = \"http://x\"\n\
             template = \"elasticsearch\"",
            "2:7",
            "'env' would be a text and, because of 'env.tier', also an object",
        ),
        (
            "[labels]\n\"env.\" = \"x\"\n[sinks.a]\ntype = \"http\"\nurl = \"http://x\"\ntemplate = \"elasticsearch\"",
            "2:10",
            "refuses the name 'env.'",
        ),
    ];
    check_refusals(&ConfigDirectory::new(), &cases);
}

#[test]
fn formats_that_do_not_fit_are_refused_by_both() {
    let cases = [
        ("[sinks.a]\ntype = \"stdout\"\ninterim = \"5m\"", "3:1", "add \"connections\" to 'records'"),
        ("[sinks.a]\ntype = \"stdout\"\ninterim = \"0.1s\"", "3:11", "'0.1s' is too short: use 1s or more"),
        ("[sinks.a]\ntype = \"stdout\"\nescape-formulas = true", "1:1", "is for the format \"csv\""),
        (
            "[sinks.a]\ntype = \"stdout\"\nformat = \"csv\"\naggregate = \"1s\"",
            "1:1",
            "only transitions, or only",
        ),
        (
            "[sinks.a]\ntype = \"http\"\nurl = \"http://x\"\ntemplate = \"splunk\"\nformat = \"csv\"",
            "1:1",
            "take JSON only",
        ),
    ];
    check_refusals(&ConfigDirectory::new(), &cases);
}

#[test]
fn labels_that_every_collector_takes_are_right() {
    let labels = "[labels]\nenv = \"x\"\n\"env.tier\" = \"y\"\n";
    for sink in [
        "type = \"stdout\"",
        "type = \"stdout\"\nformat = \"ecs\"",
        "type = \"http\"\nurl = \"http://x\"",
        "type = \"http\"\nurl = \"http://x\"\ntemplate = \"elasticsearch\"\nformat = \"ecs\"",
        "type = \"stdout\"\nformat = \"csv\"\nescape-formulas = true",
    ] {
        let (code, said) = ConfigDirectory::new().check(&format!("{labels}[sinks.a]\n{sink}"));
        assert_eq!(code, Some(0), "{sink}: {said}");
    }
}

#[test]
fn a_check_changes_nothing_and_connects_to_nothing() {
    let directory = ConfigDirectory::new();
    let pipe = directory.root().join("log/pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().expect("mkfifo").success());
    let stream = TcpListener::bind("127.0.0.1:0").expect("listener");
    let metrics = TcpListener::bind("127.0.0.1:0").expect("listener");
    let datagrams = UdpSocket::bind("127.0.0.1:0").expect("socket");
    let port = |address: std::net::SocketAddr| address.port();
    let tcp = port(stream.local_addr().expect("address"));
    let udp = port(datagrams.local_addr().expect("address"));
    let config = format!(
        "metrics = \"{}\"\n[sinks.new]\ntype = \"file\"\npath = \"DIR/log/new\"\nspool = \"DIR/lib/not/yet\"\n\
         [sinks.old]\ntype = \"file\"\npath = \"DIR/log/old\"\n[sinks.pipe]\ntype = \"file\"\npath = \"DIR/log/pipe\"\n\
         [sinks.http]\ntype = \"http\"\nurl = \"http://127.0.0.1:{tcp}\"\nauthorization-file = \"DIR/etc/secret\"\n\
         [sinks.tls]\ntype = \"socket\"\naddress = \"tls://127.0.0.1:{tcp}\"\ntls-ca = \"DIR/etc/ca.pem\"\n\
         tls-cert = \"DIR/etc/ca.pem\"\ntls-key = \"DIR/etc/key.pem\"\n\
         [sinks.udp]\ntype = \"syslog\"\naddress = \"udp://127.0.0.1:{udp}\"\n\
         [sinks.unix]\ntype = \"socket\"\naddress = \"unix:DIR/run/collector\"\n",
        metrics.local_addr().expect("address")
    );
    directory.config(&config);
    let before = directory.files();
    let (code, said) = directory.check(&config);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("c.toml: OK (sinks: http, new, old, pipe, tls, udp, unix)"), "{said}");
    assert!(said.contains("c.toml:11:8: sink pipe: no process that can be seen reads the pipe"), "{said}");
    assert!(said.contains("sink unix: DIR/run does not exist yet"), "{said}");
    let mut after = directory.files();
    let config = directory.root().join("c.toml").display().to_string();
    let root = directory.root().display().to_string();
    let mut known = before;
    // The test has written it.
    for files in [&mut known, &mut after] {
        files.remove(&config);
        files.remove(&root);
    }
    assert_eq!(after, known);
    for listener in [stream, metrics] {
        listener.set_nonblocking(true).expect("mode");
        assert!(listener.accept().is_err(), "connected");
    }
    datagrams.set_nonblocking(true).expect("mode");
    assert!(datagrams.recv(&mut [0; 9]).is_err(), "sent");
}

#[test]
fn the_reader_of_a_pipe_does_not_see_a_check() {
    let directory = ConfigDirectory::new();
    let path = directory.root().join("log/pipe");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
    assert!(fs::metadata(&path).expect("pipe").file_type().is_fifo());
    let reader =
        fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&path).expect("reader");
    let (code, said) = directory.check("[sinks.a]\ntype = \"file\"\npath = \"DIR/log/pipe\"");
    assert_eq!((code, said.as_str()), (Some(0), "c.toml: OK (sinks: a)\n"));
    let mut poll =
        libc::pollfd { fd: std::os::fd::AsRawFd::as_raw_fd(&reader), events: libc::POLLIN, revents: 0 };
    // SAFETY: `poll` is one pollfd, and outlives the call.
    assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 0) }, 0, "a writer came and went");
}

#[test]
fn no_error_shows_a_secret() {
    let directory = ConfigDirectory::new();
    let http = "[sinks.a]\ntype = \"http\"\nurl = \"http://x\"\n";
    let cases = [
        "[sinks.a]\ntype = \"http\"\nurl = http://user:s3cr3t@x".to_owned(),
        "[sinks.a]\ntype = \"http\"\nurl = \"http://user:s3cr3t@x".to_owned(),
        "[sinks.a]\ntype = \"http\"\nurl = 's3cr3t\nx = 1".to_owned(),
        "[sinks.a]\ntype = \"http\"\nurl = \"http://user:s3cr3t@x\"".to_owned(),
        "[sinks.a]\ntype = \"http\"\nurl = \"http://x y/?token=s3cr3t\"".to_owned(),
        "[sinks.a]\ntype = \"http\"\nurl = [\"http://x/?token=s3cr3t\", true]".to_owned(),
        "[sinks.a]\ntype = \"otlp\"\nurl = \"x/#s3cr3t\"".to_owned(),
        "[sinks.a]\ntype = \"socket\"\naddress = \"tcp://user:s3cr3t@x:1\"".to_owned(),
        "[sinks.a]\ntype = \"syslog\"\naddress = \"udp://x:1?s3cr3t\"".to_owned(),
        "[sinks.a]\ntype = \"nats\"\nurl = \"nats://a:s3cr3t@x,nats://b:s3cr3t@y\"\nkeep = 1".to_owned(),
        format!("{http}authorization = \"Bearer s3cr3t\""),
        format!("{http}authorization = Bearer s3cr3t"),
        format!("{http}password = \"s3cr3t\""),
        format!("{http}authorization-file = \"Bearer s3cr3t\""),
        format!("{http}authorization-file = Bearer s3cr3t"),
        format!("{http}authorization-file = \"DIR/etc/broken\""),
        format!("{http}tls-key = \"s3cr3t\""),
        format!("{http}[sinks.a.headers]\nAuthorization = Bearer s3cr3t"),
        format!("{http}[sinks.a.headers]\nAuthorization = \"Bearer s3cr3t\\n\""),
        format!("{http}[sinks.a.headers]\nAuthorization = [\"s3cr3t\"]"),
        format!("{http}[sinks.a.headers]\n\"X Y\" = \"s3cr3t\""),
        format!("{http}[sinks.a.headers]\nX = \"s3cr3t\"\nX = \"s3cr3t\""),
        format!("{http}[sinks.a.properties]\n\"sasl.password\" = \"s3cr3t\""),
        format!("{http}[sinks.a.properties]\n\"sasl.password\" = s3cr3t"),
        format!("{http}[sinks.a.properties]\n\"sasl.password\" = \"s3cr3t\\q\""),
        "[sinks.a]\ntype = \"nats\"\nurl = \"nats://x\"\ncredentials = \"s3cr3t\"".to_owned(),
        "[sinks.a]\ntype = \"http\"\nurl = \"https://x\"\ntls-cert = \"DIR/etc/ca.pem\"\ntls-key = \"s3cr3t\""
            .to_owned(),
        "[sinks.a]\ntype = \"http\"\nurl = \"https://x\"\ntls-cert = \"DIR/etc/ca.pem\"\ntls-key = \"DIR/etc/secret\""
            .to_owned(),
        "[labels]\ntoken = [\"s3cr3t\"]\n[sinks.a]\ntype = \"stdout\"".to_owned(),
    ];
    for config in &cases {
        let said = directory.refused(config);
        assert!(!said.contains("s3cr3t"), "{config}: {said}");
        assert!(said.contains("c.toml:"), "{config}: {said}");
    }
}

#[test]
fn a_wrong_section_hides_nothing_that_the_system_refuses() {
    let config = "snapshot = 3\n[filter]\nport = 0\n[kernel]\nring-size = \"3M\"\n[stuck]\nthreshold = \"x\"\n\
                  [sinks.a]\ntype = \"file\"\npath = \"DIR/no/file\"\n";
    let (code, said) = ConfigDirectory::new().check(config);
    assert_eq!(code, Some(2), "{said}");
    for place in ["1:12", "3:8", "5:13", "7:13", "10:8"] {
        assert!(said.contains(&format!("c.toml:{place}: ")), "{place}: {said}");
    }
    assert_eq!(said.lines().count(), 5, "{said}");
}
