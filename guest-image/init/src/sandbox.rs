//! The service's view of the machine: the verified root, read-only, over its empty folders the little that it needs, and no
//! network but the socket that it is handed.
//!
//! | path | what |
//! | --- | --- |
//! | `/` | EROFS over dm-verity |
//! | `/proc` | its own processes, and with GPUs what their libraries read; read-only |
//! | `/sys` | the CPUs; the TEE's reports and register; with GPUs their PCI devices; nothing else |
//! | `/dev` | a few nodes |
//! | `/run/cocoon` | the run folder, read-only |

use crate::USER;
use crate::devices::children;
use crate::failure::{Explain, Outcome};
use crate::{kernel::DATA, tee};
use rustix::fs::{CWD, FileType, Gid, Mode, Uid, chown, mknodat};
use rustix::mount::{
    MountFlags, MountPropagationFlags, mount, mount_bind, mount_change, mount_move, mount_remount,
};
use rustix::process::{chdir, chroot};
use rustix::thread::UnshareFlags;
use std::fs::{create_dir_all, metadata};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

/// Where PID 1 mounts the service's root.
pub(crate) const ROOT: &str = "/sysroot";
/// The model, in the service's `/dev`.
pub(crate) const WEIGHTS: &str = "/dev/cocoon-weights";
/// The emulator's port, in the service's `/dev`.
pub(crate) const TEE_PORT: &str = "/dev/virtio-ports/cocoon.tee";
const REMEDY: &str = "build the image anew";

/// Moves this process, and what comes of it, into the view. `nodes` are devices of PID 1 under their new names.
pub(crate) fn enter(nodes: &[(String, String)]) -> Outcome {
    // No network either: a socket stays where it was made, so what comes in through the listener still does.
    let own = UnshareFlags::NEWNS | UnshareFlags::NEWNET | UnshareFlags::NEWIPC | UnshareFlags::NEWUTS;
    unshare(own).explain("namespaces", "use the image's kernel")?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).explain("private mounts", "use the image's kernel")?;

    let gpus = !children(Path::new("/dev"), "nvidia")?.is_empty();
    let processes = if gpus { c"hidepid=invisible" } else { c"hidepid=invisible,subset=pid" };
    fresh("proc", "proc", DATA | MountFlags::RDONLY, processes)?;
    system(gpus)?;
    devices(nodes)?;
    bind("/run", "run", true)?;

    chdir(ROOT).explain(ROOT, REMEDY)?;
    mount_move(ROOT, "/").explain("the root cannot be moved", REMEDY)?;
    chroot(".").explain("the root cannot be changed", REMEDY)?;
    chdir("/run/cocoon").explain("/run/cocoon", REMEDY)
}

/// A bare `/sys` with the folders that the service reads; where the TEE is, it writes.
fn system(gpus: bool) -> Outcome {
    fresh("tmpfs", "sys", DATA, c"mode=0755,size=1m")?;
    let pci = if gpus { children(Path::new("/sys/devices"), "pci")? } else { Vec::new() };
    let pci = pci.iter().filter_map(|path| path.strip_prefix("/sys").ok()?.to_str());
    let read =
        ["devices/system/cpu", "devices/system/node"].into_iter().chain(gpus.then_some("bus/pci")).chain(pci);
    // Without a driver that provides reports the folder says nothing but that there could be one.
    let reports = Path::new("/sys").join(tee::REPORTS).join("cocoon").exists();
    let write = reports.then_some(tee::REPORTS).into_iter().chain([tee::REGISTERS]);
    for (folder, read_only) in read.map(|folder| (folder, true)).chain(write.map(|folder| (folder, false))) {
        let (source, target) = (format!("/sys/{folder}"), format!("sys/{folder}"));
        if Path::new(&source).exists() {
            create_dir_all(Path::new(ROOT).join(&target)).explain(&target, REMEDY)?;
            bind(&source, &target, read_only)?;
        }
    }
    seal("sys", DATA)
}

/// A bare `/dev` with the nodes that the service opens.
fn devices(nodes: &[(String, String)]) -> Outcome {
    let flags = MountFlags::NOSUID | MountFlags::NOEXEC;
    fresh("tmpfs", "dev", flags, c"mode=0755,size=1m")?;
    for name in ["null", "zero", "urandom"] {
        node(&format!("/dev/{name}"), &format!("/dev/{name}"), None)?;
    }
    for gpu in children(Path::new("/dev"), "nvidia")? {
        if metadata(&gpu).is_ok_and(|found| found.file_type().is_char_device()) {
            node(&gpu.to_string_lossy(), &gpu.to_string_lossy(), None)?;
        }
    }
    for (source, target) in nodes {
        node(source, target, Some(USER))?;
    }
    seal("dev", flags)
}

/// The same device under the new root: for everybody, or for one user.
fn node(source: &str, target: &str, owner: Option<u32>) -> Outcome {
    let found = metadata(source).explain(source, "use the image's kernel and modules")?;
    let (kind, mode) = match (found.file_type().is_block_device(), owner) {
        (true, _) => (FileType::BlockDevice, 0o400),
        (false, Some(_)) => (FileType::CharacterDevice, 0o600),
        (false, None) => (FileType::CharacterDevice, 0o666),
    };
    let path = format!("{ROOT}{target}");
    let folder = Path::new(&path).parent().expect("it starts with the root");
    create_dir_all(folder).explain(folder.display(), REMEDY)?;
    mknodat(CWD, &path, kind, Mode::from_raw_mode(mode), found.rdev()).explain(&path, REMEDY)?;
    let owner = owner.unwrap_or(0);
    chown(&path, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner))).explain(&path, REMEDY)
}

fn fresh(kind: &str, target: &str, flags: MountFlags, data: &std::ffi::CStr) -> Outcome {
    let path = Path::new(ROOT).join(target);
    mount(kind, &path, kind, flags, data).explain(format_args!("{kind} on {}", path.display()), REMEDY)
}

fn bind(source: &str, target: &str, read_only: bool) -> Outcome {
    let path = Path::new(ROOT).join(target);
    mount_bind(source, &path).explain(format_args!("{source} on {}", path.display()), REMEDY)?;
    if read_only { seal(target, DATA) } else { Ok(()) }
}

/// Makes a mount read-only; its other flags stay.
fn seal(target: &str, flags: MountFlags) -> Outcome {
    let path = Path::new(ROOT).join(target);
    mount_remount(&path, MountFlags::BIND | MountFlags::RDONLY | flags, c"").explain(path.display(), REMEDY)
}

/// Leaves namespaces of the parent.
pub(crate) fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    assert!(!flags.contains(UnshareFlags::FILES), "descriptors stay shared");
    #[expect(unsafe_code, reason = "unshare")]
    // SAFETY: the one unsafe use, of separate descriptor tables, is excluded above.
    unsafe {
        rustix::thread::unshare_unsafe(flags)
    }
}

#[cfg(test)]
#[path = "sandbox_tests.rs"]
mod tests;
