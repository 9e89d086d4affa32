//! Process 1 of the child's namespace, until it becomes the child: gives everything up, for good.

use super::{Spec, read_spec, seccomp, view};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Gid, Mode, Uid};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use rustix::process::{
    Resource, Rlimit, Signal, getrlimit, set_parent_process_death_signal, setrlimit, setsid, umask,
};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities_secure_bits, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};

/// Most files and sockets that are open.
const FILES: u64 = 65_536;
/// A limit of 0 keeps no core dump from a program that `core_pattern` names; this one does (`fs/coredump.c`), and is too
/// little for a file.
const NO_CORE: u64 = 1;

pub(super) fn run(warden: UnixStream) -> ExitCode {
    let why = match read_spec(&warden)
        .map_err(|error| error.to_string())
        .and_then(|spec| prepare(&spec, &warden).map(|()| spec))
    {
        Err(why) => why,
        Ok(spec) => {
            let error = Command::new(&spec.argv[0])
                .args(&spec.argv[1..])
                .env_clear()
                .envs(&spec.environment)
                .stdin(Stdio::null())
                .exec();
            let program = &spec.argv[0];
            format!("{program}: {error}; correct engine.argv, or name what it needs in engine.roots")
        }
    };
    let _ = (&warden).write_all(why.as_bytes()); // else nobody is there to hear
    ExitCode::FAILURE
}

/// Of the old root, seen from its `/proc`: the first to end where memory runs out, before the guest and its warden.
const FIRST_TO_END: &str = "/proc/self/oom_score_adj";

fn prepare(spec: &Spec, warden: &UnixStream) -> Result<(), String> {
    let told = |what: &'static str| move |error: rustix::io::Errno| format!("{what}: {error}");
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(told("the signal of the parent's end"))?;
    std::fs::write(format!("{}{FIRST_TO_END}", view::OLD), "1000")
        .map_err(|error| format!("{FIRST_TO_END}: {error}"))?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC | MountFlags::RDONLY;
    mount("proc", "/proc", "proc", flags, c"").map_err(told("/proc"))?;
    unmount(view::OLD, UnmountFlags::DETACH).map_err(told("the old root"))?;
    setsid().map_err(told("a session"))?;
    umask(Mode::from_raw_mode(0o077));
    let limits = [
        (Resource::Core, NO_CORE),
        (Resource::Nofile, FILES),
        (Resource::Nproc, spec.processes),
        (Resource::Data, spec.memory),
        (Resource::Fsize, spec.scratch),
    ];
    for (resource, most) in limits {
        // Whoever started the guest may have set a lower one.
        let most = getrlimit(resource).maximum.map_or(most, |before| before.min(most));
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).map_err(told("a limit"))?;
    }
    drop_privileges(spec).map_err(told("privileges"))?;
    // It was forgotten with the user. A warden that ended before is seen by its socket.
    set_parent_process_death_signal(Some(Signal::KILL)).map_err(told("the signal of the parent's end"))?;
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    let mut events = [PollFd::new(warden, PollFlags::RDHUP)];
    poll(&mut events, Some(&at_once)).map_err(told("the warden"))?;
    if !events[0].revents().is_empty() {
        return Err("the warden has ended".to_owned());
    }
    if !capabilities(None).map_err(told("capabilities"))?.permitted.is_empty() {
        return Err("the child would keep capabilities".to_owned());
    }
    seccomp::confine()
}

/// No capability can come back, through no file and no user.
pub(super) fn drop_privileges(spec: &Spec) -> rustix::io::Result<()> {
    for bit in 0..u64::BITS {
        match remove_capability_from_bounding_set(CapabilitySet::from_bits_retain(1 << bit)) {
            Err(rustix::io::Errno::INVAL) if bit > 0 => break, // the kernel's last one was before
            result => result?,
        }
    }
    clear_ambient_capability_set()?;
    use CapabilitiesSecureBits as Bits;
    set_capabilities_secure_bits(
        Bits::NO_ROOT
            | Bits::NO_ROOT_LOCKED
            | Bits::NO_SETUID_FIXUP_LOCKED
            | Bits::KEEP_CAPS_LOCKED
            | Bits::NO_CAP_AMBIENT_RAISE
            | Bits::NO_CAP_AMBIENT_RAISE_LOCKED,
    )?;
    if spec.mapped {
        // There is one user here. What it may do goes with the capabilities.
        let none = rustix::thread::CapabilitySets {
            effective: CapabilitySet::empty(),
            permitted: CapabilitySet::empty(),
            inheritable: CapabilitySet::empty(),
        };
        rustix::thread::set_capabilities(None, none)?;
    } else {
        let (user, group) = (Uid::from_raw(spec.user), Gid::from_raw(spec.user));
        set_thread_groups(&[])?;
        set_thread_res_gid(group, group, group)?;
        set_thread_res_uid(user, user, user)?; // this process has one thread
    }
    set_no_new_privs(true)
}
