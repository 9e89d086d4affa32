//! The child's view of the machine: everything read-only, no network but perhaps its own loopback, one folder to write to.
//!
//! | path | what |
//! | --- | --- |
//! | `/` and all below | as the guest sees it, read-only |
//! | `/dev/shm` | a fresh tmpfs: socket, temporary files, home |
//! | `/dev/shm/model` | the model, read-only |
//! | `/run`, the guest's run folder | empty: sockets of others are in there |
//! | `/proc` | its own processes (mounted by the stage) |

use super::{Spec, reason};
use crate::config::{MODEL_IN_VIEW, SCRATCH};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, open};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind, mount_change};
use rustix::net::{AddressFamily, SocketFlags, SocketType, recv, send, socket_with};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{chdir, getgid, getuid};
use rustix::thread::UnshareFlags;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

const REMEDY: &str = "run the guest as root, or where user namespaces are permitted";
/// What is written below them goes nowhere: devices, set-user bits.
const DATA: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Moves this process, and what comes of it, into the view.
pub(super) fn enter(spec: &Spec) -> Result<(), String> {
    refuse_swap()?;
    let hidden = hidden(spec).map_err(reason("the run folder"))?;
    let (user, group) = (getuid().as_raw(), getgid().as_raw());
    let mut own = UnshareFlags::NEWNS
        | UnshareFlags::NEWNET
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWPID;
    if spec.mapped {
        own |= UnshareFlags::NEWUSER;
    }
    unshare(own).map_err(|error| format!("namespaces: {error}; {REMEDY}"))?;
    if spec.mapped {
        map_user(user, group).map_err(reason("the map of users"))?;
    }
    mount_all(spec, &hidden).map_err(|(what, error)| format!("{what}: {error}; {REMEDY}"))?;
    if spec.port.is_some() {
        loopback_up().map_err(reason("the loopback interface"))?;
    }
    chdir(SCRATCH).map_err(|error| format!("{SCRATCH}: {error}"))
}

/// What a child computes with may be written to no disk.
fn refuse_swap() -> Result<(), String> {
    let swaps = std::fs::read_to_string("/proc/swaps").unwrap_or_default(); // none without the kernel's support
    if swaps.lines().count() > 1 {
        return Err(
            "this machine swaps, which writes prompts to a disk: switch it off (swapoff -a)".to_owned()
        );
    }
    Ok(())
}

/// Folders that the child has no business in, unless its program is there.
fn hidden(spec: &Spec) -> io::Result<Vec<PathBuf>> {
    let program = Path::new(&spec.argv[0]);
    let program = program.canonicalize().unwrap_or_else(|_| program.to_path_buf());
    let folders = [std::env::current_dir()?, PathBuf::from("/run")];
    let needless = |folder: &PathBuf| folder.parent().is_some() && !program.starts_with(folder);
    Ok(folders.into_iter().filter(|folder| folder.is_dir()).filter(needless).collect())
}

type Step<T = ()> = Result<T, (&'static str, io::Error)>;

fn mount_all(spec: &Spec, hidden: &[PathBuf]) -> Step {
    let step = |what| move |error: rustix::io::Errno| (what, io::Error::from(error));
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(step("private mounts"))?;
    // Opened in this view, of which it shall be a part, and before anything lies over it.
    let opened = |path: &PathBuf| open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    let model = spec.model.as_ref().map(opened).transpose().map_err(step("the model"))?;
    read_only("/", true).map_err(|error| ("a read-only view", error))?;
    for folder in hidden {
        let flags = DATA | MountFlags::NOEXEC | MountFlags::RDONLY;
        mount("tmpfs", folder, "tmpfs", flags, c"mode=0555,size=4k").map_err(step("an empty folder"))?;
    }
    let user = if spec.mapped { 0 } else { spec.user };
    let options = format!("mode=0700,uid={user},gid={user},size={}", spec.scratch);
    let options = CString::new(options).expect("numbers hold no NUL");
    mount("tmpfs", SCRATCH, "tmpfs", DATA, &*options).map_err(step(SCRATCH))?;
    let Some(model) = &model else { return Ok(()) };
    let folder =
        FileType::from_raw_mode(fstat(model).map_err(step("the model"))?.st_mode) == FileType::Directory;
    let target = if folder {
        rustix::fs::mkdirat(CWD, MODEL_IN_VIEW, Mode::from_raw_mode(0o555))
    } else {
        rustix::fs::mknodat(CWD, MODEL_IN_VIEW, FileType::RegularFile, Mode::from_raw_mode(0o444), 0)
    };
    target.map_err(step(MODEL_IN_VIEW))?;
    let source = format!("/proc/self/fd/{}", model.as_raw_fd());
    mount_bind(source.as_str(), MODEL_IN_VIEW).map_err(step(MODEL_IN_VIEW))?;
    read_only(MODEL_IN_VIEW, true).map_err(|error| (MODEL_IN_VIEW, error))
}

/// The scratch folder, for whoever shall reach into it from another view.
pub(super) fn scratch() -> io::Result<OwnedFd> {
    Ok(open(SCRATCH, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// One user and one group inside, which are the caller's outside.
fn map_user(user: u32, group: u32) -> io::Result<()> {
    std::fs::write("/proc/self/setgroups", "deny")?;
    std::fs::write("/proc/self/uid_map", format!("0 {user} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {group} 1"))
}

/// `mount_setattr(2)` with `MOUNT_ATTR_RDONLY`: the mounts below too, in one step.
fn read_only(path: &str, recursive: bool) -> io::Result<()> {
    /// `struct mount_attr` of `include/uapi/linux/mount.h`.
    #[repr(C)]
    struct MountAttributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    const RDONLY: u64 = 1;
    const NOSUID: u64 = 2;
    let attributes = MountAttributes { set: RDONLY | NOSUID, clear: 0, propagation: 0, user_namespace: 0 };
    let path = CString::new(path).expect("our own paths hold no NUL");
    let flags = if recursive { libc::AT_RECURSIVE } else { 0 };
    #[expect(unsafe_code, reason = "mount_setattr has no safe name")]
    // SAFETY: path and attributes live until the call returns, and the size is theirs.
    let code = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn unshare(flags: UnshareFlags) -> rustix::io::Result<()> {
    assert!(!flags.contains(UnshareFlags::FILES), "descriptors stay shared");
    #[expect(unsafe_code, reason = "unshare")]
    // SAFETY: the one unsafe use, of separate descriptor tables, is excluded above.
    unsafe {
        rustix::thread::unshare_unsafe(flags)
    }
}

/// `RTM_NEWLINK` for interface 1, which loopback is in every network namespace: flag `IFF_UP` (rtnetlink(7)).
fn loopback_up() -> io::Result<()> {
    const NEWLINK: u16 = 16;
    const REQUEST_ACK: u16 = 5;
    const UP: u32 = 1;
    let mut message = 32u32.to_ne_bytes().to_vec();
    message.extend([NEWLINK.to_ne_bytes(), REQUEST_ACK.to_ne_bytes()].concat());
    message.extend([0; 8]); // sequence number, sender
    message.extend([0; 4]); // family, type
    message.extend([1u32.to_ne_bytes(), UP.to_ne_bytes(), UP.to_ne_bytes()].concat());
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0; 256];
    let (count, _) = recv(&socket, &mut answer, RecvFlags::empty())?;
    let code =
        answer[..count].get(16..20).map(|code| i32::from_ne_bytes(code.try_into().expect("four bytes")));
    match code {
        Some(0) => Ok(()),
        Some(code) => Err(io::Error::from_raw_os_error(-code)),
        None => Err(io::Error::other("the kernel's answer is too short")),
    }
}
