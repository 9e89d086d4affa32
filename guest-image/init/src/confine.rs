//! The second life of this program: a child of PID 1 that gives up everything and becomes the service.
//!
//! It is started as `cocoon-init confine SOURCE TARGET…` (devices and their names in the view), with the listening
//! socket as standard input, where the service finds it, and the log as standard error. A program of its own rather than code
//! between fork and exec: so it is safe Rust, in a process with one thread and nothing inherited.

use crate::failure::{Explain, Failure, Outcome};
use crate::{USER, sandbox, seccomp};
use rustix::fs::{Gid, Mode, Uid};
use rustix::process::{Resource, Rlimit, setrlimit, umask};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, capabilities, clear_ambient_capability_set,
    remove_capability_from_bounding_set, set_capabilities_secure_bits, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use std::os::unix::process::CommandExt;
use std::process::Command;

/// The service's program in the root, and its whole command line.
const PROGRAM: &str = "/usr/bin/cocoon-guest";
const NAME: &str = "cocoon-guest";
/// Most files and sockets that are open, and most threads.
const LIMITS: [(Resource, u64); 3] =
    [(Resource::Core, 0), (Resource::Nofile, 65_536), (Resource::Nproc, 4_096)];
const REMEDY: &str = "use the image's kernel";

/// Becomes the service; comes back only if it cannot.
pub(crate) fn run(arguments: &[String]) -> Failure {
    let nodes: Vec<_> = arguments.chunks_exact(2).map(|pair| (pair[0].clone(), pair[1].clone())).collect();
    match prepare(&nodes) {
        Err(failure) => failure,
        Ok(()) => {
            let error = Command::new(PROGRAM).arg0(NAME).env_clear().exec();
            Failure::new(format!("{PROGRAM}: {error}; build the image anew"))
        }
    }
}

fn prepare(nodes: &[(String, String)]) -> Outcome {
    sandbox::enter(nodes)?;
    umask(Mode::from_raw_mode(0o077));
    for (resource, most) in LIMITS {
        let limit = Rlimit { current: Some(most), maximum: Some(most) };
        setrlimit(resource, limit).explain(format_args!("the limit of {resource:?}"), REMEDY)?;
    }
    drop_privileges().explain("privileges cannot be dropped", REMEDY)?;
    if !capabilities(None).explain("capabilities", REMEDY)?.permitted.is_empty() {
        return Err(Failure::new(format!("the service would keep capabilities; {REMEDY}")));
    }
    seccomp::confine()
}

/// For good: no capability can come back, through no file and no user.
pub(crate) fn drop_privileges() -> rustix::io::Result<()> {
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
    let (user, group) = (Uid::from_raw(USER), Gid::from_raw(USER));
    set_thread_groups(&[])?;
    set_thread_res_gid(group, group, group)?;
    set_thread_res_uid(user, user, user)?; // this process has one thread
    set_no_new_privs(true)
}
