//! The kernel, made ready: file systems, settings, the closed list of modules, lockdown.

use crate::devices::children;
use crate::failure::{Explain, Failure, Outcome};
use crate::log;
use rustix::fs::Mode;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit, setrlimit, umask};
use std::ffi::CStr;
use std::fs::{File, create_dir_all, read_to_string, write};
use std::path::Path;

/// Nothing to run, no devices, no privileges.
pub(crate) const DATA: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
/// As [`DATA`], for devices.
const DEVICES: MountFlags = MountFlags::NOSUID.union(MountFlags::NOEXEC);
const REMEDY: &str = "use the image's kernel and modules";

/// Mounts what PID 1 works with; configfs is a module, see [`mount_configfs`].
pub(crate) fn mount_filesystems() -> Outcome {
    umask(Mode::from_raw_mode(0o022));
    let nothing = Rlimit { current: Some(0), maximum: Some(0) };
    setrlimit(Resource::Core, nothing).explain("core dumps cannot be turned off", REMEDY)?;
    mount_one("proc", "/proc", DATA, None)?;
    mount_one("sysfs", "/sys", DATA, None)?;
    mount_one("devtmpfs", "/dev", DEVICES, Some(c"mode=0755"))?;
    mount_one("securityfs", "/sys/kernel/security", DATA, None)?;
    mount_one("tmpfs", "/run", DATA, Some(c"mode=0755,size=8m"))
}

/// The folder through which a TEE is asked for reports.
pub(crate) fn mount_configfs() -> Outcome {
    mount_one("configfs", "/sys/kernel/config", DATA, None)
}

fn mount_one(kind: &str, target: &str, flags: MountFlags, data: Option<&CStr>) -> Outcome {
    create_dir_all(target).explain(format_args!("the folder {target}"), "build the image anew")?;
    mount(kind, target, kind, flags, data)
        .explain(format_args!("{kind} cannot be mounted on {target}"), REMEDY)
}

/// Settings, each with its reason. One that the kernel does not have ends the boot: then it is not our kernel.
const SETTINGS: [(&str, &str); 15] = [
    ("kernel/core_pattern", ""),         // no dumps of memory, whatever a limit says
    ("fs/suid_dumpable", "0"),           // nor of processes that changed their user
    ("kernel/kptr_restrict", "2"),       // no addresses of the kernel for anyone
    ("kernel/dmesg_restrict", "1"),      // nor its messages for the service
    ("kernel/sysrq", "0"),               // the host's keyboard commands nothing
    ("kernel/kexec_load_disabled", "1"), // the measured kernel stays
    ("kernel/yama/ptrace_scope", "3"),   // no process looks into another
    ("kernel/perf_event_paranoid", "3"), // nor times it
    ("kernel/unprivileged_bpf_disabled", "1"), // for the rest: parts of the kernel that the service does not need
    ("kernel/io_uring_disabled", "2"),
    ("user/max_user_namespaces", "0"),
    ("vm/unprivileged_userfaultfd", "0"),
    ("dev/tty/ldisc_autoload", "0"),
    ("net/ipv6/conf/all/disable_ipv6", "1"), // nothing speaks it, so nothing listens
    ("net/ipv6/conf/default/disable_ipv6", "1"),
];

/// Applies [`SETTINGS`].
pub(crate) fn harden() -> Outcome {
    SETTINGS.into_iter().try_for_each(|(name, value)| set(name, value))
}

fn set(name: &str, value: &str) -> Outcome {
    let path = Path::new("/proc/sys").join(name);
    write(&path, format!("{value}\n")).explain(path.display(), REMEDY)
}

/// Drivers of hardware that this machine may not have. Every other module must load.
const OPTIONAL: [&str; 2] = ["tdx-guest", "sev-guest"];

/// Loads `/modules/NN-name.ko` in order of their names, and then lets nobody load another.
pub(crate) fn load_modules() -> Outcome {
    for path in children(Path::new("/modules"), "")? {
        let name = module_name(&path)?;
        let file = File::open(&path).explain(path.display(), "build the image anew")?;
        match rustix::system::finit_module(&file, c"", 0) {
            Ok(()) => {}
            Err(error) if OPTIONAL.contains(&name) => {
                log::line(format_args!("module {name} is not used: {error}"))
            }
            Err(error) => return Err(error).explain(format_args!("the module {name} does not load"), REMEDY),
        }
    }
    set("kernel/modules_disabled", "1")
}

/// `name` of `NN-name.ko`.
fn module_name(path: &Path) -> Outcome<&str> {
    let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".ko"));
    name.and_then(|name| name.split_once('-'))
        .filter(|(number, name)| {
            !name.is_empty() && number.len() == 2 && number.bytes().all(|c| c.is_ascii_digit())
        })
        .map(|(_, name)| name)
        .ok_or_else(|| {
            Failure::new(format!("{} is not named NN-name.ko; build the image anew", path.display()))
        })
}

/// Refuses a kernel that root could read or change.
pub(crate) fn require_lockdown() -> Outcome {
    let path = "/sys/kernel/security/lockdown";
    locked_down(&read_to_string(path).explain(path, REMEDY)?)
}

fn locked_down(text: &str) -> Outcome {
    if text.split_ascii_whitespace().any(|word| word == "[confidentiality]") {
        return Ok(());
    }
    let text = text.trim_end();
    Err(Failure::new(format!(
        "the kernel's lockdown is {text:?}; boot with lockdown=confidentiality, as the image does"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_strictest_lockdown_will_do() {
        assert_eq!(locked_down("none integrity [confidentiality]\n"), Ok(()));
        for text in [
            "none [integrity] confidentiality\n",
            "[none] integrity confidentiality\n",
            "confidentiality",
            "",
        ] {
            assert!(locked_down(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_module_is_named_by_what_follows_its_number() {
        assert_eq!(module_name(Path::new("/modules/08-tdx-guest.ko")), Ok("tdx-guest"));
        for name in ["tdx-guest.ko", "8-tdx-guest.ko", "08-.ko", "08-x", "08x.ko", ""] {
            assert!(module_name(Path::new(name)).is_err(), "{name}");
        }
    }
}
