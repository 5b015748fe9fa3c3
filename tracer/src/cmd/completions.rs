//! `sockstate completions`.

use std::process::ExitCode;

use anyhow::Result;
use clap::Args;
use clap_complete::Shell;

use super::command;

const EXAMPLES: &str = "\
Examples:
  sockstate completions bash > /etc/bash_completion.d/sockstate
  sockstate completions zsh > /usr/share/zsh/site-functions/_sockstate
  sockstate completions fish > /etc/fish/completions/sockstate.fish";

/// Print the completions for a shell.
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_name = "SHELL")]
    pub shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<ExitCode> {
    let mut bytes = Vec::new();
    clap_complete::generate(args.shell, &mut command(), "sockstate", &mut bytes);
    super::print([String::from_utf8(bytes)?])?;
    Ok(ExitCode::SUCCESS)
}
