//! The TPM proxy with the real swtpm, and a QEMU of our own making.

#![allow(dead_code, reason = "each test file uses its part of the common module")]

mod common;

use std::{
    io::{IoSlice, Read, Write},
    mem::MaybeUninit,
    os::{fd::AsFd, unix::net::UnixStream},
    path::Path,
    time::{Duration, Instant},
};

use cocoon_launch::{
    folder::RunFolder,
    program::Program,
    swtpm::{PcrError, TpmProxy},
};
use ring::digest::{SHA384, digest};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// Set for the process that is the host to be killed.
const HOST_FOLDER: &str = "COCOON_TEST_HOST_FOLDER";

fn swtpm_or_say_skipped() -> Option<Program> {
    let tree = common::tree();
    if tree.is_none() {
        eprintln!(
            "SKIPPED: the TPM proxy: COCOON_QEMU_TREE names no tree with swtpm, and the cache has none"
        );
    }
    tree.map(|tree| Program::swtpm_in_tree(&tree))
}

/// What QEMU does with its two sockets.
struct FakeQemu {
    control: UnixStream,
    data: UnixStream,
}

impl FakeQemu {
    fn connect(proxy: &TpmProxy) -> Self {
        let control = UnixStream::connect(proxy.qemu_socket()).expect("it listens");
        let (data, theirs) = UnixStream::pair().expect("sockets");
        let mut qemu = Self { control, data };
        assert_eq!(qemu.ask(0x01, &[], 8).len(), 8, "capabilities");
        assert_eq!(qemu.ask(0x0e, &[], 4), [0; 4], "stop");
        let sizes = qemu.ask(0x11, &4096u32.to_be_bytes(), 16);
        assert_eq!(sizes[..8], [0, 0, 0, 0, 0, 0, 0x10, 0], "buffer size");
        assert_eq!(qemu.offer(&theirs), [0; 4]);
        assert_eq!(qemu.ask(0x02, &[0; 4], 4), [0; 4], "init");
        qemu
    }

    fn ask(&mut self, command: u32, payload: &[u8], reply: usize) -> Vec<u8> {
        self.control.write_all(&[&command.to_be_bytes(), payload].concat()).expect("it reads");
        let mut bytes = vec![0; reply];
        self.control.read_exact(&mut bytes).expect("it answers");
        bytes
    }

    fn offer(&mut self, socket: &UnixStream) -> [u8; 4] {
        let descriptors = [socket.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)));
        let command = 0x10u32.to_be_bytes();
        sendmsg(&self.control, &[IoSlice::new(&command)], &mut ancillary, SendFlags::NOSIGNAL)
            .expect("it reads");
        let mut result = [0; 4];
        self.control.read_exact(&mut result).expect("it answers");
        result
    }

    /// A TPM command; the response's code and what follows.
    fn tpm(&mut self, tag: u16, code: u32, body: &[u8]) -> (u32, Vec<u8>) {
        let length = u32::try_from(10 + body.len()).expect("short");
        let command = [&tag.to_be_bytes()[..], &length.to_be_bytes(), &code.to_be_bytes(), body].concat();
        self.data.write_all(&command).expect("it reads");
        let mut header = [0; 10];
        self.data.read_exact(&mut header).expect("it answers");
        let length = u32::from_be_bytes(header[2..6].try_into().expect("four")) as usize;
        let mut body = vec![0; length - 10];
        self.data.read_exact(&mut body).expect("it answers");
        (u32::from_be_bytes(header[6..10].try_into().expect("four")), body)
    }

    /// TPM2_Startup(CLEAR).
    fn start(&mut self) {
        assert_eq!(self.tpm(0x8001, 0x144, &[0, 0]).0, 0);
    }

    /// TPM2_PCR_Extend of the SHA-384 bank, with an empty password.
    fn extend(&mut self, pcr: u8, value: [u8; 48]) {
        let password = [0x40, 0, 0, 9, 0, 0, 0, 0, 0];
        let body = [&[0, 0, 0, pcr, 0, 0, 0, 9][..], &password, &[0, 0, 0, 1, 0, 0x0c], &value].concat();
        assert_eq!(self.tpm(0x8002, 0x182, &body).0, 0);
    }
}

fn extended(before: &[u8; 48], value: [u8; 48]) -> [u8; 48] {
    digest(&SHA384, &[&before[..], &value].concat()).as_ref().try_into().expect("48 bytes")
}

fn lives(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

fn folder(at: &Path) -> RunFolder {
    RunFolder::claim(&at.join("run, with a comma")).expect("free")
}

#[test]
fn the_host_reads_what_the_guest_measured() {
    let Some(swtpm) = swtpm_or_say_skipped() else { return };
    let at = tempfile::tempdir().expect("a folder");
    let folder = folder(at.path());
    let proxy = TpmProxy::start(&swtpm, &folder).expect("it starts");
    assert!(matches!(proxy.read_pcrs(&[0]), Err(PcrError::NotStarted)), "nobody has connected");
    let mut qemu = FakeQemu::connect(&proxy);
    assert!(matches!(proxy.read_pcrs(&[0]), Err(PcrError::NotStarted)), "no firmware has run");
    qemu.start();
    let all: Vec<u8> = (0..24).collect();
    let fresh = proxy.read_pcrs(&all).expect("started");
    assert_eq!(fresh.value(4), Some(&[0; 48]));
    assert_eq!(fresh.value(17), Some(&[0xff; 48]), "what only a dynamic launch resets");
    qemu.extend(4, [7; 48]);
    qemu.extend(23, [8; 48]);
    let now = proxy.read_pcrs(&all).expect("started");
    assert_eq!(now.value(4), Some(&extended(&[0; 48], [7; 48])));
    assert_eq!(now.value(23), Some(&extended(&[0; 48], [8; 48])));
    assert_eq!(now.value(5), Some(&[0; 48]));
    assert_ne!(now.update_counter(), fresh.update_counter());
}

#[test]
fn reading_never_mixes_with_the_guests_own_commands() {
    let Some(swtpm) = swtpm_or_say_skipped() else { return };
    let at = tempfile::tempdir().expect("a folder");
    let folder = folder(at.path());
    let proxy = TpmProxy::start(&swtpm, &folder).expect("it starts");
    let mut qemu = FakeQemu::connect(&proxy);
    qemu.start();
    let mut chain = vec![[0; 48]];
    for n in 0..200u8 {
        chain.push(extended(chain.last().expect("one"), [n; 48]));
    }
    std::thread::scope(|scope| {
        scope.spawn(|| (0..200u8).for_each(|n| qemu.extend(9, [n; 48])));
        let mut last = 0;
        while last < 200 {
            let pcrs = proxy.read_pcrs(&[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]).expect("started");
            let at =
                chain.iter().position(|value| Some(value) == pcrs.value(9)).expect("a value of the chain");
            assert!(at >= last, "a register never goes back");
            last = at;
        }
    });
}

#[test]
fn a_second_data_socket_and_unknown_commands_are_refused() {
    let Some(swtpm) = swtpm_or_say_skipped() else { return };
    let at = tempfile::tempdir().expect("a folder");
    let folder = folder(at.path());
    let proxy = TpmProxy::start(&swtpm, &folder).expect("it starts");
    let mut qemu = FakeQemu::connect(&proxy);
    let (_mine, theirs) = UnixStream::pair().expect("sockets");
    assert_ne!(qemu.offer(&theirs), [0; 4]);
    assert_ne!(qemu.ask(0x10, &[], 4), [0; 4], "no descriptor at all");
    qemu.control.write_all(&0x0du32.to_be_bytes()).expect("it reads"); // SET_STATEBLOB: another TPM's state
    assert_eq!(qemu.control.read(&mut [0; 4]).expect("it closes"), 0);
}

#[test]
fn nothing_is_left_when_the_proxy_goes() {
    let Some(swtpm) = swtpm_or_say_skipped() else { return };
    let at = tempfile::tempdir().expect("a folder");
    let folder = folder(at.path());
    for connected in [false, true] {
        let proxy = TpmProxy::start(&swtpm, &folder).expect("it starts");
        let pid = proxy.id();
        let qemu = connected.then(|| FakeQemu::connect(&proxy));
        assert!(lives(pid));
        drop(proxy);
        assert!(!lives(pid));
        assert!(!folder.path().join("tpm").exists() && !folder.path().join("tpm.sock").exists());
        if let Some(mut qemu) = qemu {
            assert_eq!(qemu.data.read(&mut [0; 4]).unwrap_or_default(), 0);
        }
    }
}

/// Not a test of its own: the host that the next one kills.
#[test]
fn a_host_to_be_killed() {
    let Some(at) = std::env::var_os(HOST_FOLDER) else { return };
    let swtpm = swtpm_or_say_skipped().expect("the test looked");
    let folder = folder(Path::new(&at));
    let _proxy = TpmProxy::start(&swtpm, &folder).expect("it starts");
    std::thread::sleep(Duration::from_secs(60));
}

#[test]
fn swtpm_ends_when_its_host_is_killed() {
    if swtpm_or_say_skipped().is_none() {
        return;
    }
    let at = tempfile::tempdir().expect("a folder");
    let mut host = std::process::Command::new(std::env::current_exe().expect("we are one"))
        .args(["--exact", "a_host_to_be_killed"])
        .env(HOST_FOLDER, at.path())
        .spawn()
        .expect("it starts");
    let pid_file = at.path().join("run, with a comma/swtpm.pid");
    let within = |what: &str, holds: &dyn Fn() -> bool| {
        let until = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < until, "{what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let pid = || -> Option<u32> { std::fs::read_to_string(&pid_file).ok()?.split(' ').next()?.parse().ok() };
    within("swtpm starts", &|| pid().is_some_and(lives));
    let pid = pid().expect("it is there");
    host.kill().and_then(|()| host.wait()).expect("ours");
    within("swtpm ends by itself", &|| !lives(pid));
}
