//! Everything that must hold before a change lands, apart from the tests.

use anyhow::Result;

use crate::{build_ebpf, cargo, command, directions};

/// Fails at the first thing that does not hold.
pub(crate) fn all() -> Result<()> {
    command(cargo().args(["fmt", "--all", "--check"]))?;
    directions::check()?;
    command(cargo().args(["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    build_ebpf::lint()?;
    build_ebpf::verify()
}
