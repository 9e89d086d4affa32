//! `cocoon policy`: what a policy accepts, in words.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::error::Failure;
use crate::ui::{Screen, one_line, wrap};
use crate::verify::read_policies;

#[derive(clap::Subcommand)]
pub(crate) enum Commands {
    /// Say in words what is accepted; of several policies and releases together, only what each accepts
    Explain(Explain),
}

#[derive(clap::Args)]
pub(crate) struct Explain {
    /// Policies (TOML), as for `cocoon verify --policy`
    #[arg(required = true, value_name = "FILE")]
    policy: Vec<PathBuf>,
    /// A release (TOML) or an image's manifest.json, as for `cocoon verify --release`
    #[arg(long, value_name = "FILE")]
    release: Vec<PathBuf>,
}

/// Columns in front of each line.
const INDENT: usize = 2;

pub(crate) fn run(Commands::Explain(arguments): &Commands) -> Result<ExitCode, Failure> {
    let policy = read_policies(&arguments.policy, &arguments.release)?
        .expect("the command line asks for at least one policy");
    let screen = Screen::new(false);
    let room = screen.columns().map_or(usize::MAX, |columns| columns.saturating_sub(2 * INDENT));
    for (at, paragraph) in policy.explain().into_iter().enumerate() {
        if at > 0 {
            screen.line("");
        }
        screen.line(&screen.bold(&one_line(&paragraph.heading)));
        for line in &paragraph.lines {
            let mut indent = INDENT;
            for row in wrap(&one_line(line), room) {
                screen.line(&format!("{:indent$}{row}", ""));
                indent = 2 * INDENT;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
