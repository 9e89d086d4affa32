//! The service's life, as PID 1 sees it.

use crate::failure::{Explain, Failure, Outcome};
use crate::log;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, WaitOptions, pidfd_open, wait};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

/// When the idle guest's memory is looked at: after a small model is loaded.
const IDLE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
const REMEDY: &str = "give the guest more memory";

/// The running service.
pub(crate) struct Service {
    process: Pid,
}

impl Service {
    /// Starts this program again, see [`crate::confine`].
    pub(crate) fn start(listener: OwnedFd, log: Option<File>, nodes: &[(String, String)]) -> Outcome<Self> {
        let child = Command::new("/proc/self/exe")
            .arg("confine")
            .args(nodes.iter().flat_map(|(source, target)| [source, target]))
            .env_clear()
            .stdin(Stdio::from(listener))
            .stdout(Stdio::null())
            .stderr(log.map_or_else(Stdio::null, Stdio::from))
            .spawn()
            .explain("the service cannot be started", REMEDY)?;
        Ok(Self { process: Pid::from_child(&child) })
    }

    /// Waits until the service ends; meanwhile reaps whatever else ends.
    ///
    /// # Errors
    /// If it did not end by itself and well: a guest that starts again must be a new guest.
    pub(crate) fn wait(self) -> Outcome {
        let process = pidfd_open(self.process, PidfdFlags::empty()).explain("the service", REMEDY)?;
        let mut ended = [PollFd::new(&process, PollFlags::IN)];
        if poll(&mut ended, Some(&IDLE)).explain("the service", REMEDY)? == 0 {
            log::memory();
        }
        loop {
            match wait(WaitOptions::empty()) {
                Ok(Some((process, status))) if process == self.process => {
                    return verdict(ExitStatus::from_raw(status.as_raw()));
                }
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error).explain("the service", REMEDY),
            }
        }
    }
}

fn verdict(status: ExitStatus) -> Outcome {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => {
            Err(Failure::new(format!("the service failed with {code}; its own lines say why")))
        }
        (_, Some(libc::SIGSYS)) => Err(Failure::new(
            "the service made a system call that it may not make; in development the kernel's messages name it",
        )),
        (_, signal) => Err(Failure::new(format!(
            "the service was ended by signal {}; give the guest more memory, or look for a bug",
            signal.unwrap_or(0)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clean_end_is_clean() {
        let verdict = |command: &str| {
            super::verdict(Command::new("/bin/sh").args(["-c", command]).status().expect("a shell"))
        };
        assert_eq!(verdict("exit 0"), Ok(()));
        for (command, word) in
            [("exit 3", "with 3"), ("kill -SYS $$", "system call"), ("kill -KILL $$", "signal 9")]
        {
            let error = verdict(command).expect_err(command).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
