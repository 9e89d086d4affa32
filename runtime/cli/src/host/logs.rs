//! `cocoon host logs`.

use std::process::ExitCode;
use std::time::Duration;

use cocoon_attestation::UnixTime;
use cocoon_launch::logbook::{Entry, LogReader};

use super::Which;
use crate::error::{Explain, Failure};
use crate::lifeline::Shutdown;
use crate::ui::{one_line, print};

/// Between looks for more lines.
const POLL: Duration = Duration::from_millis(250);

/// Of the year 9999: a file from elsewhere may say more.
const LAST_SECOND: u64 = 253_402_300_799;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// Go on with what comes, until interrupted
    #[arg(long, short)]
    follow: bool,
    /// How many of the last lines to show
    #[arg(long, short = 'n', value_name = "LINES", default_value_t = 200)]
    lines: usize,
    /// Lines of this guest alone; `host` names the host's own
    #[arg(long, value_name = "NAME")]
    from: Option<String>,
    /// One JSON object on a line: milliseconds after 1970, who, and the text
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let folder = arguments.which.folder()?;
    let (entries, mut reader) = LogReader::open(&folder, arguments.lines).explain(
        || format!("there is no log of a host in {}", folder.display()),
        "start one with `cocoon host up`, or name its folder with --state or --config",
    )?;
    show(arguments, &entries)?;
    if !arguments.follow {
        return Ok(ExitCode::SUCCESS);
    }
    let mut shutdown = Shutdown::listen(false)?;
    loop {
        tokio::select! {
            () = shutdown.wait() => return Ok(ExitCode::SUCCESS),
            () = tokio::time::sleep(POLL) => {}
        }
        let news = reader.news().explain(|| "the host's log cannot be read on".into(), "start this again")?;
        show(arguments, &news)?;
    }
}

fn show(arguments: &Arguments, entries: &[Entry]) -> Result<(), Failure> {
    let wanted = |entry: &&Entry| arguments.from.as_ref().is_none_or(|from| *from == entry.from);
    let mut text = String::new();
    for entry in entries.iter().filter(wanted) {
        if arguments.json {
            text.push_str(&serde_json::to_string(entry).expect("plain data encodes"));
        } else {
            let (seconds, millis) = (entry.at / 1000, entry.at % 1000);
            let time = UnixTime(seconds.min(LAST_SECOND)).to_string();
            let time = time.trim_end_matches('Z');
            text.push_str(&format!(
                "{time}.{millis:03}Z {:<10} {}",
                one_line(&entry.from),
                one_line(&entry.line)
            ));
        }
        text.push('\n');
    }
    if text.is_empty() { Ok(()) } else { print(text.trim_end()) }
}
