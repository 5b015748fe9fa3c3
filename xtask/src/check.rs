//! Everything that must hold before a change lands, apart from the tests.

use anyhow::Result;

use crate::{build_ebpf, cargo, command, directions, generate, setup, turn};

/// Fails at the first thing that does not hold.
pub(crate) fn all() -> Result<()> {
    command(cargo().args(["fmt", "--all", "--check"]))?;
    directions::check()?;
    turn::verify()?;
    // Kafka's needs OpenSSL's headers, which this machine may lack.
    let features =
        if setup::has_kafka() { "tracer/grpc,tracer/nats,tracer/kafka" } else { "tracer/grpc,tracer/nats" };
    let clippy = ["clippy", "--workspace", "--all-targets", "--locked", "--features", features];
    command(cargo().args(clippy).args(["--", "-D", "warnings"]))?;
    generate::verify()?;
    build_ebpf::lint()?;
    build_ebpf::verify()
}
