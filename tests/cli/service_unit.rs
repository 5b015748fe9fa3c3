//! The systemd unit and the configuration that it comes with.

use std::{fs, process::Command};

use testkit::skipping::print_skipped;

use super::{ConfigDirectory, text};

const UNIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/systemd/sockstate.service");
const CONFIG: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/systemd/sockstate.toml");

/// The highest exposure by `systemd-analyze security`, times ten.
const MAX_EXPOSURE: &str = "27";

#[test]
fn the_unit_exposes_little() {
    let analyze = |option: &str| {
        let mut command = Command::new("systemd-analyze");
        command.args(["security", "--offline=true", "--no-pager", option, UNIT]).output()
    };
    match analyze("--threshold=100") {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            return print_skipped(&format!("needs systemd 250: {}", text(&output.stderr).trim()));
        }
        Err(_) => return print_skipped("needs systemd-analyze (systemd)"),
    }
    let output = analyze(&format!("--threshold={MAX_EXPOSURE}")).expect("systemd-analyze");
    assert!(output.status.success(), "{}", text(&output.stdout));
    // A misspelt key would restrict nothing.
    assert!(!text(&output.stderr).contains("Unknown key"), "{}", text(&output.stderr));
}

#[test]
fn the_configuration_of_the_service_is_valid_and_stays_on_this_host() {
    let config = fs::read_to_string(CONFIG).expect("configuration");
    let directory = tempfile::tempdir().expect("directory");
    let logs = "/var/log/sockstate/";
    assert!(config.contains(logs), "the unit's LogsDirectory");
    let here = config.replace(logs, &format!("{}/", directory.path().display()));
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
