//! `sockstate man`.

use std::{
    io::{self, IsTerminal, Write},
    process::{Command, ExitCode, Stdio},
};

use anyhow::Result;
use clap::Args;

use super::{Failure, command};

const EXAMPLES: &str = "\
Examples:
  sockstate man
  sockstate man stuck
  sockstate man trace > sockstate-trace.1";

/// Show the manual page of sockstate, or of one of its commands.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct ManArgs {
    /// The command.
    #[arg(value_name = "COMMAND")]
    pub command: Option<String>,
}

pub(super) fn run(args: &ManArgs) -> Result<ExitCode> {
    let mut all = command();
    all.build();
    let page = match args.command.as_deref() {
        None => page(&all, "sockstate")?,
        Some(name) => {
            let found = all.find_subcommand(name).filter(|found| found.get_name() != "help");
            let found = found.ok_or_else(|| {
                Failure::usage(format!("there is no command '{name}'; `sockstate --help` lists them"))
            })?;
            page(found, &format!("sockstate-{}", found.get_name()))?
        }
    };
    if !(io::stdout().is_terminal() && shown_by_man(&page)) {
        super::print([String::from_utf8(page)?])?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows a page with man(1). False if there is no man(1), or if it cannot show the page.
fn shown_by_man(page: &[u8]) -> bool {
    let man = Command::new("man").args(["-l", "-"]).stdin(Stdio::piped()).spawn();
    let Ok(mut man) = man else { return false };
    // A reader that ends before the page does has seen enough.
    let _ = man.stdin.take().map(|mut input| input.write_all(page));
    man.wait().is_ok_and(|status| status.success())
}

/// The manual page of a command, as roff.
///
/// # Errors
/// The page cannot be rendered.
pub fn page(command: &clap::Command, name: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // clap needs names that live as long as the program.
    let name: &'static str = name.to_owned().leak();
    let command = command.clone().name(name).version(env!("CARGO_PKG_VERSION"));
    clap_mangen::Man::new(command).section("1").manual("sockstate").date("").render(&mut bytes)?;
    // Examples are lines; man must not fill them.
    let text = String::from_utf8(bytes)?.replace(".SH EXTRA\nExamples:\n", ".SH EXAMPLES\n.nf\n");
    Ok(text.replace("\n.SH VERSION", "\n.fi\n.SH VERSION").into_bytes())
}
