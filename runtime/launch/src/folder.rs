//! A guest's run folder: one host's at a time, short paths to its sockets, and nothing left of a run that was killed.

use std::{
    fs, io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{fs::DirBuilderExt, net::UnixListener},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::plan::files;

/// Held as long as the folder is ours.
const LOCK: &str = "lock";
/// Names of processes that write their identity here.
const PROCESSES: [&str; 2] = [QEMU, SWTPM];
/// What a run makes besides.
const FILES: [&str; 9] = [
    files::QMP,
    files::LOG,
    files::TEE,
    files::TPM,
    files::CONSOLE_SOCKET,
    files::CONSOLE,
    files::CONSOLE_BEFORE,
    QEMU,
    SWTPM,
];
pub(crate) const QEMU: &str = "qemu.pid";
pub(crate) const SWTPM: &str = "swtpm.pid";
/// The software TPM's state; each run begins with a new TPM.
pub(crate) const TPM_STATE: &str = "tpm";
/// How long a process of a killed run may take to die.
const LAST_BREATH: Duration = Duration::from_secs(10);

/// Why a run folder cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// Another host has it.
    #[error(
        "another host runs in {path} (process {by}); end it with `cocoon host down`, or use another state folder"
    )]
    Taken {
        /// The folder.
        path: PathBuf,
        /// The process, as far as it is known.
        by: String,
    },
    /// A process of an earlier run does not end.
    #[error("process {pid} of an earlier run in {path} does not end; end it by hand, then start again")]
    Undying {
        /// The folder.
        path: PathBuf,
        /// The process.
        pid: i32,
    },
    /// It cannot be made or used.
    #[error(
        "the run folder {path} cannot be used: {source}; it must be on a writable disk and this user's own"
    )]
    Unusable {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A run folder that is ours until this is dropped, or this process is gone in any way: the kernel drops the lock.
#[derive(Debug)]
pub struct RunFolder {
    path: PathBuf,
    folder: OwnedFd,
    _lock: fs::File,
}

impl RunFolder {
    /// Makes the folder (for this user alone) if it is not there, takes it, ends what an earlier run left, and
    /// removes its files. Other files, such as the configuration disk, stay.
    ///
    /// # Errors
    /// [`FolderError`].
    pub fn claim(path: &Path) -> Result<Self, FolderError> {
        let failed = |source: io::Error| FolderError::Unusable { path: path.to_path_buf(), source };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed)?;
        let path = fs::canonicalize(path).map_err(failed)?;
        let lock = take(&path)?;
        let folder = OwnedFd::from(fs::File::open(&path).map_err(failed)?);
        let folder = Self { path, folder, _lock: lock };
        folder.clear()?;
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A path to a socket in it that is short however long the folder's is: a socket's has at most 107 bytes. Good in
    /// this process only.
    pub fn short(&self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/self/fd/{}/{name}", self.folder.as_raw_fd()))
    }

    /// Listens on a socket of this name, in place of any that was there.
    ///
    /// # Errors
    /// What the system says.
    pub fn listen(&self, name: &str) -> io::Result<UnixListener> {
        let socket = self.short(name);
        remove(&socket)?;
        UnixListener::bind(socket)
    }

    /// Writes down a process that must not outlive this run.
    pub(crate) fn note_process(&self, name: &str, pid: u32) -> io::Result<()> {
        let identity = Identity::of(pid.cast_signed())?;
        fs::write(self.path.join(name), format!("{} {}\n", identity.pid, identity.started))
    }

    /// Ends processes of an earlier run and removes its files.
    fn clear(&self) -> Result<(), FolderError> {
        let failed = |source: io::Error| FolderError::Unusable { path: self.path.clone(), source };
        for name in PROCESSES {
            self.end_stale(name)?;
        }
        for name in FILES {
            remove(&self.path.join(name)).map_err(failed)?;
        }
        match fs::remove_dir_all(self.path.join(TPM_STATE)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
            _ => Ok(()),
        }
    }

    /// Kills the process that a file names, if it still is that very process.
    fn end_stale(&self, name: &str) -> Result<(), FolderError> {
        let Some(written) = fs::read_to_string(self.path.join(name)).ok().and_then(|t| Identity::parse(&t))
        else {
            return Ok(());
        };
        // The descriptor is had before the look at its age, so that it is the process that is looked at.
        let Some(pid) = Pid::from_raw(written.pid) else { return Ok(()) };
        let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return Ok(()) };
        let until = Instant::now() + LAST_BREATH;
        while Identity::of(written.pid).is_ok_and(|now| now == written) {
            let _ = pidfd_send_signal(&process, Signal::KILL);
            if Instant::now() > until {
                return Err(FolderError::Undying { path: self.path.clone(), pid: written.pid });
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for RunFolder {
    fn drop(&mut self) {
        if let Err(error) = self.clear() {
            tracing::warn!(%error, "the run folder keeps some files");
        }
    }
}

fn take(path: &Path) -> Result<fs::File, FolderError> {
    let failed = |source: io::Error| FolderError::Unusable { path: path.to_path_buf(), source };
    let file = path.join(LOCK);
    let mut lock = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&file)
        .map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(fs::TryLockError::WouldBlock) => {
            let by = fs::read_to_string(&file).unwrap_or_default();
            let by = by.trim().parse::<u32>().map_or_else(|_| "unknown".to_owned(), |pid| pid.to_string());
            return Err(FolderError::Taken { path: path.to_path_buf(), by });
        }
        Err(fs::TryLockError::Error(error)) => return Err(failed(error)),
    }
    lock.set_len(0).map_err(failed)?;
    io::Write::write_all(&mut lock, format!("{}\n", std::process::id()).as_bytes()).map_err(failed)?;
    Ok(lock)
}

/// Which process: ids are used again, with another time of start.
#[derive(Debug, PartialEq, Eq)]
struct Identity {
    pid: i32,
    /// Clock ticks after boot: field 22 of `/proc/PID/stat` (proc_pid_stat(5)).
    started: u64,
}

impl Identity {
    fn of(pid: i32) -> io::Result<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The program's name comes second, in parentheses, and may hold spaces and parentheses itself.
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let mut fields = after_name.split(' ');
        let dead = matches!(fields.next(), None | Some("Z" | "X"));
        let started = fields.nth(18).and_then(|field| field.parse().ok());
        match started {
            Some(started) if !dead => Ok(Self { pid, started }),
            _ => Err(io::Error::from(io::ErrorKind::NotFound)),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        let (pid, started) = text.trim().split_once(' ')?;
        Some(Self { pid: pid.parse().ok().filter(|pid| *pid > 1)?, started: started.parse().ok()? })
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    fn sleeper() -> std::process::Child {
        Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("a program of this system")
    }

    #[test]
    fn two_hosts_on_one_folder_are_refused_and_the_first_is_named() {
        let at = tempfile::tempdir().expect("a folder");
        let first = RunFolder::claim(&at.path().join("a/b")).expect("free");
        let refused = RunFolder::claim(first.path()).expect_err("taken").to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        assert!(refused.contains("cocoon host down"), "{refused}");
        let path = first.path().to_path_buf();
        drop(first);
        assert!(RunFolder::claim(&path).is_ok());
    }

    #[test]
    fn what_a_killed_run_left_is_ended_and_removed_and_nothing_else() {
        let at = tempfile::tempdir().expect("a folder");
        let mut stale = sleeper();
        {
            let folder = RunFolder::claim(at.path()).expect("free");
            folder.note_process(QEMU, stale.id()).expect("writable");
            // As if this process had been killed: no destructor runs, and the kernel drops the lock.
            let lock = folder._lock.try_clone().expect("a descriptor");
            std::mem::forget(folder);
            lock.unlock().expect("ours");
        }
        for name in [files::QMP, files::TPM, "config.img"] {
            fs::write(at.path().join(name), "left").expect("writable");
        }
        fs::create_dir(at.path().join(TPM_STATE)).expect("writable");
        let waits = std::thread::spawn(move || stale.wait().expect("ours"));
        let folder = RunFolder::claim(at.path()).expect("cleared");
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(waits.join().expect("it ends").signal(), Some(9));
        assert!(!at.path().join(files::QMP).exists() && !at.path().join(TPM_STATE).exists());
        assert!(at.path().join("config.img").exists());
        drop(folder);
    }

    #[test]
    fn a_process_that_only_has_the_same_number_is_left_alone() {
        let at = tempfile::tempdir().expect("a folder");
        let mut other = sleeper();
        let identity = Identity::of(other.id().cast_signed()).expect("it lives");
        for text in [
            format!("{} {}", identity.pid, identity.started + 1),
            "1 0".to_owned(),
            "-1 5".to_owned(),
            String::new(),
            "\u{fffd}".to_owned(),
        ] {
            fs::write(at.path().join(QEMU), text).expect("writable");
            drop(RunFolder::claim(at.path()).expect("free"));
            assert!(!at.path().join(QEMU).exists());
        }
        assert_eq!(other.try_wait().expect("ours"), None, "it lives on");
        other.kill().and_then(|()| other.wait()).expect("ours");
    }

    #[test]
    fn sockets_of_a_folder_with_a_long_path_can_be_used() {
        let at = tempfile::tempdir().expect("a folder");
        let folder = RunFolder::claim(&at.path().join("long".repeat(50))).expect("free");
        let listener = folder.listen(files::TEE).expect("short enough");
        assert!(std::os::unix::net::UnixStream::connect(folder.short(files::TEE)).is_ok());
        drop(listener);
        assert!(folder.listen(files::TEE).is_ok(), "in place of the old one");
    }
}
