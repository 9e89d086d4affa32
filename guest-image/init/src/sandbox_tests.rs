//! The view as this machine's kernel makes it, in a process of its own, which is this test program again. Needs root.

use super::*;
use rustix::mount::mount_bind_recursive;
use std::fs::{read_dir, write};
use std::process::Command;

const CHILD: &str = "COCOON_SANDBOX_CHILD";

#[test]
fn the_service_sees_little_and_changes_nothing() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIPPED: the service's view was not made: only root can");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let program = std::env::current_exe().expect("this program");
    let arguments = ["--exact", "sandbox::tests::inside_the_view", "--nocapture"];
    let output = Command::new(program).args(arguments).env(CHILD, folder.path()).output().expect("it starts");
    let text = String::from_utf8_lossy(&output.stderr);
    if text.contains("SKIPPED") {
        eprintln!("{text}");
    }
    assert!(output.status.success(), "{text}");
}

/// Does nothing, unless it is started by the test above.
#[test]
fn inside_the_view() {
    let Some(folder) = std::env::var_os(CHILD) else { return };
    // The test's own thread has its own namespaces and, at the end, no privileges; the process ends with it.
    if let Err(error) = machine(Path::new(&folder)) {
        eprintln!("SKIPPED: the service's view was not made: no mounts: {error}");
        return;
    }
    enter(&[("/dev/full".into(), TEE_PORT.into())]).expect("the view is made");
    // Read-only even for root.
    for path in ["/x", "/dev/x", "/run/x", "/run/cocoon/x", "/sys/x", "/sys/devices/system/cpu/x", "/tmp/x"] {
        let error = write(path, "x").expect_err(path);
        assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem, "{path}");
    }
    crate::confine::drop_privileges().expect("privileges are dropped");

    assert!(rustix::thread::capabilities(None).expect("capabilities").permitted.is_empty());
    assert_eq!(std::env::current_dir().expect("a folder"), Path::new("/run/cocoon"));
    assert_eq!(names("/"), ["dev", "proc", "run", "sys", "tmp"]);
    assert_eq!(names("/sys"), ["devices"]);
    let nodes: Vec<_> = names("/dev").into_iter().filter(|name| !name.starts_with("nvidia")).collect();
    assert_eq!(nodes, ["null", "urandom", "virtio-ports", "zero"]);
    assert_eq!(names("/dev/virtio-ports"), ["cocoon.tee"]);
    assert!(std::fs::File::options().read(true).write(true).open(TEE_PORT).is_ok(), "it is the service's");
    assert!(!Path::new("/proc/1").exists(), "processes of others are seen");
    // No network but the loopback of its own, which is down.
    let refused = std::net::TcpStream::connect("127.0.0.1:9").expect_err("nothing is reached");
    assert_eq!(refused.kind(), std::io::ErrorKind::NetworkUnreachable);
}

/// PID 1's machine, as far as it matters, in `folder`; and this thread in it.
fn machine(folder: &Path) -> rustix::io::Result<()> {
    unshare(UnshareFlags::NEWNS | UnshareFlags::FS)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount("tmpfs", folder, "tmpfs", MountFlags::empty(), None)?;
    for name in ["dev", "sys", "run/cocoon", ROOT.trim_start_matches('/')] {
        create_dir_all(folder.join(name)).expect("a folder");
    }
    mount_bind_recursive("/dev", folder.join("dev"))?;
    mount_bind_recursive("/sys", folder.join("sys"))?;
    chroot(folder)?;
    chdir("/")?;
    mount("tmpfs", ROOT, "tmpfs", MountFlags::empty(), None)?;
    for name in ["proc", "sys", "dev", "run", "tmp"] {
        create_dir_all(Path::new(ROOT).join(name)).expect("a folder");
    }
    mount_remount(ROOT, MountFlags::RDONLY, c"") // as an EROFS is
}

fn names(folder: &str) -> Vec<String> {
    let entries = read_dir(folder).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut names: Vec<_> =
        entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
