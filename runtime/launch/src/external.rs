//! Runs a program of others to its end, with a limit on its time and on what it may say.

use std::ffi::OsStr;
use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What a program says beyond this is read and dropped.
pub const MOST_OUTPUT: u64 = 1 << 20;
/// How often a running program is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Its exit code; `None` if a signal ended it.
    pub code: Option<i32>,
    /// What it wrote to standard output, then what it wrote to standard error.
    pub said: String,
}

/// Why a program gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// It cannot be started.
    #[error("{program} cannot be started: {source}")]
    NotStarted {
        /// Its name or path.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It ran for too long and was ended.
    #[error("{program} gave no answer within {} s and was ended", limit.as_secs())]
    TooSlow {
        /// Its name or path.
        program: String,
        /// How long it was waited for.
        limit: Duration,
    },
}

/// Runs `command` with nothing on its standard input and waits at most `limit`.
///
/// # Errors
/// If it cannot be started, or does not end in time (then it is killed).
pub fn run(command: &mut Command, limit: Duration) -> Result<Ended, NoAnswer> {
    let program = command.get_program().to_string_lossy().into_owned();
    let failed = |source| NoAnswer::NotStarted { program: program.clone(), source };
    let mut child =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().map_err(failed)?;
    let (out, err) = (listen(child.stdout.take()), listen(child.stderr.take()));
    let Some(status) = wait(&mut child, limit).map_err(failed)? else {
        return Err(NoAnswer::TooSlow { program, limit });
    };
    let said = |thread: std::thread::JoinHandle<Vec<u8>>| thread.join().unwrap_or_default();
    let said = [said(out), said(err)].concat();
    Ok(Ended { code: status.code(), said: String::from_utf8_lossy(&said).into_owned() })
}

/// Runs a program by name; see [`run`].
///
/// # Errors
/// As [`run`].
pub fn call<S: AsRef<OsStr>>(program: S, arguments: &[S], limit: Duration) -> Result<Ended, NoAnswer> {
    run(Command::new(program).args(arguments), limit)
}

fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<std::process::ExitStatus>> {
    let end = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= end {
            // It may have ended by itself just now: then there is nothing to kill, only to reap.
            let _ = child.kill();
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(LOOK);
    }
}

/// Keeps the beginning of what comes and drops the rest, so that the writer is never blocked.
fn listen(pipe: Option<impl Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        if let Some(mut pipe) = pipe {
            // A pipe that breaks has said what it had to say.
            let _ = pipe.by_ref().take(MOST_OUTPUT).read_to_end(&mut kept);
            let _ = std::io::copy(&mut pipe, &mut std::io::sink());
        }
        kept
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_streams_and_the_exit_code_are_kept() {
        let ended = call("sh", &["-c", "echo out; echo err >&2; exit 3"], Duration::from_secs(10));
        assert_eq!(ended.expect("it ends"), Ended { code: Some(3), said: "out\nerr\n".into() });
    }

    #[test]
    fn a_program_that_hangs_is_ended() {
        let begun = Instant::now();
        let error =
            call("sleep", &["30"], Duration::from_millis(100)).expect_err("it takes longer than the limit");
        assert!(matches!(error, NoAnswer::TooSlow { .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(10));
    }

    #[test]
    fn a_flood_is_cut_and_does_not_block_the_writer() {
        let ended = call("sh", &["-c", "head -c 4000000 /dev/zero"], Duration::from_secs(30));
        assert_eq!(ended.expect("it ends").said.len(), usize::try_from(MOST_OUTPUT).expect("it fits"));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = call("/no/such/program", &[], Duration::from_secs(1)).expect_err("it is not there");
        assert!(error.to_string().contains("/no/such/program"), "{error}");
    }
}
