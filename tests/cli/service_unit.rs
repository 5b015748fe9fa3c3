//! The systemd unit and the configuration that it comes with.

use std::{fs, process::Command};

use testkit::skipping::print_skipped;

use super::{ConfigDirectory, text};

const DIRECTORY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/systemd");
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/systemd/sockstate.toml");

/// The highest exposure of each unit by `systemd-analyze security`, times ten.
const MAX_EXPOSURE: [(&str, &str); 2] = [("sockstate.service", "23"), ("sockstate-sinks@.service", "13")];

#[test]
fn the_units_expose_little() {
    for (unit, most) in MAX_EXPOSURE {
        let analyze = |option: &str| {
            let mut command = Command::new("systemd-analyze");
            command
                .args(["security", "--offline=true", "--no-pager", option])
                .arg(format!("{DIRECTORY}/{unit}"));
            command.output()
        };
        match analyze("--threshold=100") {
            Ok(output) if output.status.success() => {}
            Ok(output) => {
                return print_skipped(&format!("needs systemd 250: {}", text(&output.stderr).trim()));
            }
            Err(_) => return print_skipped("needs systemd-analyze (systemd)"),
        }
        let output = analyze(&format!("--threshold={most}")).expect("systemd-analyze");
        assert!(output.status.success(), "{unit}: {}", text(&output.stdout));
        // A misspelt key would restrict nothing.
        let said = text(&output.stderr);
        assert!(!said.contains("Unknown") && !said.contains("ignoring"), "{unit}: {said}");
    }
}

/// The value of a key of a unit.
fn value(unit: &str, key: &str) -> String {
    let unit = fs::read_to_string(format!("{DIRECTORY}/{unit}")).expect("a unit");
    let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    line.expect("a line with this key").to_owned()
}

#[test]
fn the_tracer_and_its_sinks_find_each_other() {
    let config: toml::Table = fs::read_to_string(CONFIG).expect("configuration").parse().expect("TOML");
    let socket = value("sockstate-sinks.socket", "ListenStream");
    assert_eq!(config["sinks-socket"].as_str(), Some(&*socket));
    assert_eq!(value("sockstate.service", "Wants"), "sockstate-sinks.socket");
    let start = value("sockstate-sinks@.service", "ExecStart");
    assert_eq!(start, format!("/usr/bin/sockstate {}", sockstate::sinks::process::ARGUMENT));
    let users = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/sysusers.d/sockstate.conf");
    let user = value("sockstate-sinks@.service", "User");
    assert!(fs::read_to_string(users).expect("users").contains(&format!("\nu {user} ")));
    // Notes of files are in the runtime directory with `-sinks` behind its name.
    let [tracer, sinks] =
        ["sockstate.service", "sockstate-sinks@.service"].map(|unit| value(unit, "RuntimeDirectory"));
    assert_eq!(sinks, format!("{tracer}-sinks"));
}

#[test]
fn the_configuration_of_the_service_is_valid_and_stays_on_this_host() {
    let config = fs::read_to_string(CONFIG).expect("configuration");
    let directory = tempfile::tempdir().expect("directory");
    let logs = "/var/log/sockstate/";
    assert!(config.contains(logs), "the LogsDirectory of the sinks");
    let here = config.replace(logs, &format!("{}/", directory.path().display()));
    // No service manager listens there.
    let here = here.replace("sinks-socket =", "# sinks-socket =");
    let (code, said) = ConfigDirectory::new().check(&here);
    assert_eq!(code, Some(0), "{said}");
    let keys: toml::Table = config.parse().expect("TOML");
    let sinks = keys["sinks"].as_table().expect("sinks");
    for (name, sink) in sinks {
        assert_eq!(sink["type"].as_str(), Some("file"), "{name} stays on this host");
        assert!(sink.get("rotate-size").is_some() && sink.get("keep").is_some(), "{name} is bounded");
    }
    assert!(keys["metrics"].as_str().is_some_and(|address| address.starts_with("127.0.0.1:")));
}
