//! The child's view of the machine: a root of its own, of what it is shown and nothing else.
//!
//! | path | what |
//! | --- | --- |
//! | `/usr`, `/bin`, `/sbin`, `/lib*`, a few files of `/etc` | the system's, read-only |
//! | what `engine.roots` names | read-only, at the same paths |
//! | `/sys/{bus,class,devices,module}` | read-only: processors, memory nodes, GPUs |
//! | `/dev` | `null`, `zero`, `full`, `random`, `urandom` and NVIDIA's devices; no TEE's, no disk |
//! | `/dev/shm` | a fresh tmpfs: socket, temporary files, home; `/tmp` leads there, unless a root lies in it |
//! | `/dev/shm/model` | the model, read-only |
//! | `/proc` | its own processes (mounted by the stage) |
//!
//! A list of what is hidden would not do: a socket in any folder leads out of every network namespace, read-only mounts or
//! not, and a device answers whoever may open it.

use super::{Spec, reason};
use crate::config::{MODEL_IN_VIEW, SCRATCH, SYSTEM};
use rustix::fs::{CWD, FileType, Mode, OFlags, fstat, mkdirat, mknodat, open, readlinkat, symlinkat};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_bind_recursive, mount_change};
use rustix::net::{AddressFamily, SocketFlags, SocketType, recv, send, socket_with};
use rustix::net::{RecvFlags, SendFlags};
use rustix::process::{chdir, getgid, getuid, pivot_root, umask};
use rustix::thread::UnshareFlags;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

const REMEDY: &str = "run the guest as root, or where user namespaces are permitted";
/// Files of the system that name users, times and libraries; none holds a secret.
const FILES: [&str; 7] = [
    "/etc/alternatives",
    "/etc/group",
    "/etc/hosts",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/nsswitch.conf",
    "/etc/passwd",
];
const MACHINE: [&str; 4] = ["/sys/bus", "/sys/class", "/sys/devices", "/sys/module"];
const DEVICES: [&str; 5] = ["full", "null", "random", "urandom", "zero"];
/// Beginnings of the names of NVIDIA's devices.
const GPUS: &str = "nvidia";
/// Where the new root is put together.
const BASE: &str = SCRATCH;
/// Where the old root is, for the stage, which lets go of it.
pub(super) const OLD: &str = "/.old";
/// What is written below them goes nowhere: devices, set-user bits.
const DATA: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV);

/// Moves this process, and what comes of it, into the view; the old root stays at [`OLD`].
pub(super) fn enter(spec: &Spec) -> Result<(), String> {
    refuse_swap()?;
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
    umask(Mode::from_raw_mode(0o022)); // folders made here are the child's to walk through
    let shown = build(spec).map_err(|(what, error)| format!("{what}: {error}; {REMEDY}"))?;
    let missing = spec.roots.iter().find(|root| !shown.iter().any(|shown| root.starts_with(shown)));
    if let Some(root) = missing {
        return Err(format!("engine.roots: {} is not there; correct it, or install it", root.display()));
    }
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

type Step<T = ()> = Result<T, (String, io::Error)>;

fn step(what: impl ToString) -> impl FnOnce(rustix::io::Errno) -> (String, io::Error) {
    move |error| (what.to_string(), error.into())
}

/// Puts the new root together and makes it the root. What is shown in it, of the roots and the system.
fn build(spec: &Spec) -> Step<Vec<PathBuf>> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(step("private mounts"))?;
    // All is opened before anything lies over it.
    let model = spec.model.as_ref().map(opened).transpose().map_err(step("the model"))?;
    let sources = sources(spec);
    let devices = devices();
    let flags = DATA | MountFlags::NOEXEC;
    mount("tmpfs", BASE, "tmpfs", flags, c"mode=0755,size=4m").map_err(step("a new root"))?;
    for folder in ["/dev", "/dev/shm", "/etc", "/proc", "/run", "/sys", OLD] {
        mkdirat(CWD, inside(folder), Mode::from_raw_mode(0o755)).map_err(step(folder))?;
    }
    let mut shown = Vec::new();
    for (path, source) in sources {
        if !shown.iter().any(|above: &PathBuf| path.starts_with(above)) {
            show(&path, &source, true).map_err(|error| (path.display().to_string(), error))?;
            shown.push(path);
        }
    }
    for (path, source) in devices {
        show(&path, &Source::Mount(source), false).map_err(|error| (path.display().to_string(), error))?;
    }
    match symlinkat("dev/shm", CWD, inside("/tmp")) {
        Ok(()) | Err(rustix::io::Errno::EXIST) => {} // a root lies there
        Err(error) => return Err(step("/tmp")(error)),
    }
    attributes(BASE, RDONLY | NOSUID).map_err(|error| ("a read-only root".to_owned(), error))?;
    scratch_folder(spec)?;
    show_model(model.as_ref())?;
    chdir(BASE).map_err(step("the new root"))?;
    pivot_root(".", OLD.trim_start_matches('/')).map_err(step("the new root"))?;
    Ok(shown)
}

/// What is shown of a path.
enum Source {
    /// What is there.
    Mount(OwnedFd),
    /// A link, as the system has `/bin`.
    Link(PathBuf),
}

fn opened(path: impl AsRef<Path>) -> rustix::io::Result<OwnedFd> {
    open(path.as_ref(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// All that is there of the system and the roots: outer folders before inner ones.
fn sources(spec: &Spec) -> Vec<(PathBuf, Source)> {
    let fixed = SYSTEM.iter().chain(&FILES).chain(&MACHINE).map(PathBuf::from);
    let system = fixed.filter_map(|path| {
        let link = path.parent() == Some(Path::new("/")) && path.is_symlink();
        let target = link.then(|| readlinkat(CWD, &path, Vec::new()).ok()).flatten();
        let target = target.map(|target| PathBuf::from(target.to_string_lossy().into_owned()));
        Some((path.clone(), target.map(Source::Link).or_else(|| opened(&path).ok().map(Source::Mount))?))
    });
    let roots = spec.roots.iter().filter_map(|path| Some((path.clone(), Source::Mount(opened(path).ok()?))));
    let mut all: Vec<_> = system.chain(roots).collect();
    all.sort_by(|(one, _), (other, _)| one.cmp(other));
    all
}

fn devices() -> Vec<(PathBuf, OwnedFd)> {
    let present = std::fs::read_dir("/dev").into_iter().flatten().flatten();
    let names = present.filter_map(|entry| entry.file_name().into_string().ok());
    let wanted = names.filter(|name| DEVICES.contains(&name.as_str()) || name.starts_with(GPUS));
    wanted
        .filter_map(|name| {
            let path = Path::new("/dev").join(name);
            let device = opened(&path).ok()?;
            Some((path, device))
        })
        .collect()
}

/// A path of the new root while it is put together.
fn inside(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    Path::new(BASE).join(path.strip_prefix("/").unwrap_or(path))
}

/// Makes a place and mounts the source there.
fn show(path: &Path, source: &Source, data: bool) -> io::Result<()> {
    let place = inside(path);
    if let Some(parent) = place.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match source {
        Source::Link(target) => symlinkat(target, CWD, &place)?,
        Source::Mount(source) => {
            make_place(&place, source)?;
            mount_bind_recursive(link_to(source).as_str(), &place)?;
            if data {
                attributes(&place, NODEV)?;
            }
        }
    }
    Ok(())
}

fn make_place(place: &Path, source: &OwnedFd) -> rustix::io::Result<()> {
    match FileType::from_raw_mode(fstat(source)?.st_mode) {
        FileType::Directory => mkdirat(CWD, place, Mode::from_raw_mode(0o755)),
        _ => mknodat(CWD, place, FileType::RegularFile, Mode::from_raw_mode(0o444), 0),
    }
}

fn link_to(source: &OwnedFd) -> String {
    format!("/proc/self/fd/{}", source.as_raw_fd())
}

fn scratch_folder(spec: &Spec) -> Step {
    let user = if spec.mapped { 0 } else { spec.user };
    let options = format!("mode=0700,uid={user},gid={user},size={}", spec.scratch);
    let options = CString::new(options).expect("numbers hold no NUL");
    mount("tmpfs", inside(SCRATCH), "tmpfs", DATA, &*options).map_err(step(SCRATCH))
}

fn show_model(model: Option<&OwnedFd>) -> Step {
    let Some(model) = model else { return Ok(()) };
    let place = inside(MODEL_IN_VIEW);
    make_place(&place, model).map_err(step(MODEL_IN_VIEW))?;
    mount_bind_recursive(link_to(model).as_str(), &place).map_err(step(MODEL_IN_VIEW))?;
    attributes(&place, RDONLY | NOSUID | NODEV).map_err(|error| (MODEL_IN_VIEW.to_owned(), error))
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

/// `MOUNT_ATTR_*` of `include/uapi/linux/mount.h`.
const RDONLY: u64 = 1;
const NOSUID: u64 = 2;
const NODEV: u64 = 4;

/// `mount_setattr(2)`: sets attributes of a mount and of those below it, in one step.
fn attributes(path: impl AsRef<Path>, set: u64) -> io::Result<()> {
    /// `struct mount_attr` of `include/uapi/linux/mount.h`.
    #[repr(C)]
    struct MountAttributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attributes = MountAttributes { set, clear: 0, propagation: 0, user_namespace: 0 };
    let path = CString::new(path.as_ref().as_os_str().as_encoded_bytes()).expect("checked paths hold no NUL");
    #[expect(unsafe_code, reason = "mount_setattr has no safe name")]
    // SAFETY: path and attributes live until the call returns, and the size is theirs.
    let code = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
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
