//! Each case in a process of its own, which is this test program again.

use super::*;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus};

const CASE: &str = "COCOON_SECCOMP_CASE";

fn run(case: &str) -> ExitStatus {
    let program = std::env::current_exe().expect("this program");
    let arguments = ["--exact", "seccomp::tests::one_case_under_the_filter", "--nocapture"];
    let output = Command::new(program).args(arguments).env(CASE, case).output().expect("it starts");
    output.status
}

/// Does nothing, unless it is started by another test of this file.
#[test]
fn one_case_under_the_filter() {
    let Ok(case) = std::env::var(CASE) else { return };
    confine().expect("the filter is taken");
    match case.as_str() {
        "what a server does" => {
            let (mut one, mut two) = std::os::unix::net::UnixStream::pair().expect("a pair");
            let thread =
                std::thread::spawn(move || std::io::Write::write_all(&mut one, b"x").expect("it is open"));
            thread.join().expect("no panic");
            std::io::Read::read_exact(&mut two, &mut [0]).expect("one byte");
            assert!(!std::fs::read("/proc/self/exe").expect("this program").is_empty());
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        "connect" => drop(std::net::TcpStream::connect("127.0.0.1:9")),
        "listen" => drop(std::net::TcpListener::bind("127.0.0.1:0")),
        "another process" => drop(Command::new("/bin/true").spawn()),
        "mount" => drop(rustix::mount::unmount("/nowhere", rustix::mount::UnmountFlags::empty())),
        "a namespace" => drop(crate::sandbox::unshare(rustix::thread::UnshareFlags::NEWNS)),
        "write a file anew" => drop(std::fs::rename("/nowhere", "/nowhere-else")),
        other => panic!("no case {other}"),
    }
    std::process::exit(0);
}

#[test]
fn what_a_server_does_is_taken() {
    assert!(run("what a server does").success());
}

#[test]
fn anything_else_ends_the_process() {
    for case in ["connect", "listen", "another process", "mount", "a namespace", "write a file anew"] {
        assert_eq!(run(case).signal(), Some(c::SIGSYS), "{case}");
    }
}
