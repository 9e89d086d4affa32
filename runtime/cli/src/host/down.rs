//! `cocoon host down`.

use std::process::ExitCode;
use std::time::Duration;

use cocoon_launch::control::{self, AskError};

use super::Which;
use crate::error::Failure;
use crate::ui::Screen;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// How long to wait for it
    #[arg(long, value_name = "SECONDS", default_value_t = 120)]
    wait: u64,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let folder = arguments.which.folder()?;
    let screen = Screen::new(false);
    screen.progress("the guests end, gateways' vouchers are settled");
    match control::down(&folder, Duration::from_secs(arguments.wait)).await {
        Ok(()) => screen.line("the host has ended"),
        // What was asked for is so; what a killed host held is not its own any more.
        Err(AskError::NoHost(_) | AskError::Killed(_)) => {
            screen.line("no host runs here");
            let config = arguments.which.config.as_deref().map(super::load).transpose()?;
            if super::gpus::give_back_left_over(&folder, config.as_ref())? {
                screen.line("the GPUs that a killed host held are given back");
            }
        }
        Err(error) => return Err(failure(&error)),
    }
    Ok(ExitCode::SUCCESS)
}

/// An error of a question to the host: its text says what to do after the semicolon.
pub(super) fn failure(error: &AskError) -> Failure {
    let text = error.to_string();
    let (what, remedy) = text.rsplit_once("; ").unwrap_or((&text, ""));
    Failure::new(what, remedy)
}
