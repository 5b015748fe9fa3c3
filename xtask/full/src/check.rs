//! Everything that must hold before a change lands, apart from the tests.

use std::process::Command;

use anyhow::Result;

use crate::{
    arch::Arch, book, build_ebpf, cargo, circles, command, dependencies, directions, dist::FEATURES,
    generate, root, setup, sizes, testing, turn,
};

/// Fails at the first check that does not hold.
pub(crate) fn all() -> Result<()> {
    command(cargo().args(["fmt", "--all", "--check"]))?;
    directions::check()?;
    circles::check()?;
    sizes::check()?;
    turn::verify()?;
    // The profile and features of the tests, so that what both need is built once.
    let clippy = ["clippy", "--workspace", "--all-targets", "--profile", "checked", "--locked", "--features"];
    command(cargo().args(clippy).arg(testing::features()).args(["--", "-D", "warnings"]))?;
    // What `cargo install` builds: without these features.
    let plain = ["clippy", "--package", "sockstate", "--profile", "checked", "--locked"];
    command(cargo().args(plain).args(["--", "-D", "warnings"]))?;
    static_programs()?;
    rules_of_dependencies()?;
    dependencies::check()?;
    generate::verify()?;
    book::build()?;
    build_ebpf::lint()?;
    build_ebpf::verify()
}

/// Releases are linked with musl, some of whose types differ. Nothing is linked here, so any C compiler will do.
fn static_programs() -> Result<()> {
    setup::static_targets()?;
    let target = Arch::X86_64.static_target();
    let check = ["check", "--package", "sockstate", "--profile", "checked", "--locked", "--target", &target];
    let compiler = format!("CC_{}", target.replace('-', "_"));
    command(cargo().args(check).args(["--features", FEATURES]).env(compiler, "cc"))
}

/// Checks licences, banned packages and sources by deny.toml. The advisory database would need the network.
fn rules_of_dependencies() -> Result<()> {
    let Some(deny) = setup::cargo_deny() else {
        println!(
            "SKIPPED: licences and sources of dependencies: needs cargo-deny: cargo install cargo-deny --locked"
        );
        return Ok(());
    };
    command(Command::new(deny).args(["--locked", "check", "licenses", "bans", "sources"]).current_dir(root()))
}
