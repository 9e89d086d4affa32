//! `cocoon host status`.

use std::process::ExitCode;

use cocoon_launch::control::{self, GuestStatus, HostStatus, Phase};

use super::{Which, down::failure};
use crate::error::Failure;
use crate::ui::{Screen, counted, grouped, one_line, print, ton};

#[derive(clap::Args)]
#[command(after_help = "\
Exit codes: 0 every guest serves, 3 at least one does not, 1 no host runs or it cannot be asked.")]
pub(crate) struct Arguments {
    #[command(flatten)]
    which: Which,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

/// The exit code where a guest does not serve: for monitoring, without reading a word.
const NOT_SERVING: u8 = 3;

pub(crate) async fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let folder = arguments.which.folder()?;
    let status = control::status(&folder).await.map_err(|error| failure(&error))?;
    if arguments.json {
        let text = serde_json::to_string_pretty(&status).expect("plain data encodes");
        print(&text)?;
    } else {
        show(&Screen::new(false), &status);
    }
    let serves = !status.guests.is_empty() && status.guests.iter().all(|guest| guest.phase == Phase::Serving);
    Ok(if serves { ExitCode::SUCCESS } else { ExitCode::from(NOT_SERVING) })
}

fn show(screen: &Screen, status: &HostStatus) {
    let state = if status.ending { "ending" } else { "running" };
    let time = duration(status.uptime_seconds);
    screen.line(&format!("{} {state} for {time} (process {})", screen.bold("cocoon host"), status.pid));
    if let Some(money) = &status.money {
        let control::Amounts { owed, paid, at_risk, .. } = money.total;
        let at_risk =
            if at_risk == 0 { String::new() } else { format!(", {} TON of it at risk", ton(at_risk)) };
        screen.detail("earned", &format!("{} TON owed{at_risk}, {} TON settled", ton(owed), ton(paid)));
        for of in money.channels.iter().filter(|of| of.closing && of.amounts.unsettled > 0) {
            let left = of.seconds_left.map_or_else(|| "soon".to_owned(), |left| format!("in {left} s"));
            let line = format!("{} closes {left}, {} TON to settle", of.channel, ton(of.amounts.unsettled));
            screen.detail("closing", &screen.warn(&one_line(&line)));
        }
    }
    if status.guests.is_empty() {
        screen.detail("guests", "the first one boots");
    }
    for guest in &status.guests {
        show_guest(screen, guest);
    }
}

fn show_guest(screen: &Screen, guest: &GuestStatus) {
    let phase = match guest.phase {
        Phase::Serving => screen.good("serving"),
        Phase::Booting => screen.warn("booting"),
        Phase::Waiting => screen.bad("waiting to be started again"),
        Phase::Ending => screen.warn("ending"),
    };
    screen.line(&format!("{} {} {phase}", screen.bold(&one_line(&guest.name)), one_line(&guest.kind)));
    if let Some(seconds) = guest.uptime_seconds {
        let pid = guest.pid.map_or_else(String::new, |pid| format!(" (process {pid})"));
        screen.detail("up", &format!("{}{pid}", duration(seconds)));
    }
    screen.detail("served", &counted(guest.served, "request"));
    if let Some(url) = &guest.url {
        screen.detail("at", &one_line(url));
    }
    if let Some(bytes) = guest.resident_bytes {
        screen.detail("memory", &format!("{} MiB", grouped(bytes >> 20)));
    }
    if !guest.boot.is_empty() {
        let seconds = |millis: u64| format!("{}.{:02} s", millis / 1000, millis % 1000 / 10);
        let phases =
            guest.boot.iter().map(|phase| format!("{} {}", one_line(&phase.name), seconds(phase.millis)));
        let total = seconds(guest.boot.iter().map(|phase| phase.millis).fold(0, u64::saturating_add));
        screen.detail("boot", &format!("{total}: {}", phases.collect::<Vec<_>>().join(", ")));
    }
    if guest.restarts > 0 {
        let why = guest.last_end.as_deref().unwrap_or("for a reason that was not noted");
        screen.detail("restarts", &format!("{}, the last one: {}", guest.restarts, one_line(why)));
    }
}

/// `93784` seconds are `1 d 2 h`.
fn duration(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min {} s", seconds % 60),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_two_units_that_matter() {
        for (seconds, words) in [(59, "59 s"), (61, "1 min 1 s"), (7260, "2 h 1 min"), (93_784, "1 d 2 h")] {
            assert_eq!(duration(seconds), words);
        }
    }
}
