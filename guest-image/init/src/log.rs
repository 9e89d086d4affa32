//! Lines without content: to the host's port `cocoon.log`, and in development to the console as well.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::time::{ClockId, clock_gettime};
use std::fmt::Display;
use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;

/// Where lines go. Set once; a panic needs it wherever it happens.
static LOG: OnceLock<Vec<File>> = OnceLock::new();
/// How long the host may leave its port unread before a line is dropped: a host that does not listen must not keep the
/// guest from ending.
const PATIENCE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Opens the log. Lines written before are lost.
pub(crate) fn open(outputs: Vec<File>) {
    let _ = LOG.set(outputs); // a second call changes nothing
}

/// One line, `init: LINE`.
pub(crate) fn line(line: impl Display) {
    let text = format!("init: {line}\n");
    for mut output in LOG.get().into_iter().flatten() {
        let mut ready = [PollFd::new(output, PollFlags::OUT)];
        if poll(&mut ready, Some(&PATIENCE)).is_ok() && ready[0].revents().contains(PollFlags::OUT) {
            let _ = output.write_all(text.as_bytes()); // there is nowhere left to complain to
        }
    }
}

/// A phase of the boot has ended: `init: PHASE MILLISECONDS`, counted from the kernel's start.
pub(crate) fn phase(phase: &str) {
    let now = clock_gettime(ClockId::Boottime);
    line(format_args!("{phase} {}", now.tv_sec * 1000 + now.tv_nsec / 1_000_000));
}

/// `init: memory MemTotal MemAvailable`, in KiB, for the host's report.
pub(crate) fn memory() {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    if let (Some(total), Some(available)) = (kibibytes(&text, "MemTotal"), kibibytes(&text, "MemAvailable")) {
        line(format_args!("memory {total} {available}"));
    }
}

fn kibibytes(meminfo: &str, field: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_by_its_whole_name() {
        let text = "MemTotalX:  1 kB\nMemTotal:  497540 kB\nMemAvailable: x kB\n";
        assert_eq!(kibibytes(text, "MemTotal"), Some(497_540));
        assert_eq!(kibibytes(text, "MemAvailable"), None);
        assert_eq!(kibibytes(text, "MemFree"), None);
    }
}
