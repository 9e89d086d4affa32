//! The process between a guest and its child: this program again, so that nothing of the guest's memory is in it.
//!
//! ```text
//! guest ──control socket──► warden ──PID namespace──► stage ──exec──► the child
//! ```
//!
//! The warden makes the namespaces and the view and starts the stage, which is process 1 among the child's, gives everything
//! up and becomes the child. The warden lives as long as the control socket: when the guest ends, however it does, the socket
//! closes, the warden kills process 1, and with it the kernel ends every process that the child ever made. A warden that is
//! killed takes process 1 with it (`PR_SET_PDEATHSIG`). Inside the network namespace it also opens connections to loopback.

mod seccomp;
mod stage;
mod view;

use crate::config::{Address, ChildConfig, FIXED};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType, connect,
    sendmsg, socket_with,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, IoSlice, Read, Write};
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};

/// The warden's whole command line.
pub(crate) const WARDEN: &str = "cocoon-child-warden";
/// The stage's whole command line.
const STAGE: &str = "cocoon-child-stage";
/// Most bytes of a specification.
const MAX_SPEC: u32 = 4 << 20;
/// Most bytes of a reason.
const MAX_REASON: u64 = 1024;

/// From the warden: the child runs; the scratch folder comes along.
pub(crate) const STARTED: u8 = b'S';
/// From the warden: it does not; the reason follows, to the end.
pub(crate) const FAILED: u8 = b'E';
/// To the warden: open a connection.
pub(crate) const DIAL: u8 = b'D';
/// From the warden: here it is, not yet established.
pub(crate) const DIALLED: u8 = b'd';
/// From the warden: there are no more descriptors.
pub(crate) const NO_DIAL: u8 = b'x';

/// All that a warden is told, over its control socket: four bytes of length, then JSON.
#[derive(Serialize, Deserialize)]
pub(crate) struct Spec {
    argv: Vec<String>,
    roots: Vec<PathBuf>,
    environment: BTreeMap<String, String>,
    model: Option<PathBuf>,
    user: u32,
    port: Option<u16>,
    memory: u64,
    scratch: u64,
    processes: u64,
    /// Set by the warden: the child is user 0 of a user namespace that maps to whoever started the guest.
    mapped: bool,
}

impl Spec {
    /// The child's whole start, from its checked configuration.
    pub(crate) fn new(config: &ChildConfig, model: Option<PathBuf>) -> Self {
        let mut environment = config.environment.clone();
        environment.extend(FIXED.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let port = match config.parsed_address() {
            Some(Address::Loopback(port)) => Some(port),
            _ => None,
        };
        let limits = &config.limits;
        Self {
            argv: config.argv.clone(),
            roots: config.roots.iter().map(|root| root.path.clone()).collect(),
            environment,
            model,
            user: config.user,
            port,
            memory: limits.memory_mib << 20,
            scratch: limits.scratch_mib << 20,
            processes: limits.processes,
            mapped: false,
        }
    }
}

pub(crate) fn write_spec(mut to: impl Write, spec: &Spec) -> io::Result<()> {
    let json = serde_json::to_vec(spec).expect("strings and numbers always encode");
    let length = u32::try_from(json.len()).ok().filter(|length| *length <= MAX_SPEC);
    let length = length.ok_or_else(|| io::Error::other("the child's specification is too long"))?;
    to.write_all(&[&length.to_be_bytes(), json.as_slice()].concat())
}

fn read_spec(mut from: impl Read) -> io::Result<Spec> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let length = u32::from_be_bytes(length);
    if length > MAX_SPEC {
        return Err(io::Error::other("the child's specification is too long"));
    }
    let mut json = Vec::new();
    from.take(u64::from(length)).read_to_end(&mut json)?;
    Ok(serde_json::from_slice(&json)?)
}

/// If this process was started as a warden or a stage, lives that life to its end. A program that supervises calls it first
/// in `main`, while it has one thread.
pub fn take_over() -> Option<ExitCode> {
    let mut arguments = std::env::args_os();
    let (name, more) = (arguments.next()?, arguments.next());
    let role = match name.to_str() {
        Some(WARDEN) => warden,
        Some(STAGE) => stage::run,
        _ => return None,
    };
    if more.is_some() || std::env::vars_os().next().is_some() {
        return Some(ExitCode::FAILURE);
    }
    if let Err(error) = inherit_nothing() {
        eprintln!("{}: inherited descriptors: {error}", name.display());
        return Some(ExitCode::FAILURE);
    }
    let control = io::stdin().as_fd().try_clone_to_owned();
    Some(control.map_or(ExitCode::FAILURE, |control| role(UnixStream::from(control))))
}

/// What a guest got from whoever started it, and does not know of, goes no further: sockets, files, a lock.
fn inherit_nothing() -> io::Result<()> {
    const FIRST: u32 = 3;
    #[expect(unsafe_code, reason = "close_range has no safe name")]
    // SAFETY: with CLOEXEC nothing is closed now; every descriptor that is in use here stays valid.
    let code = unsafe { libc::syscall(libc::SYS_close_range, FIRST, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if code == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// A reason: what was tried, and what came of it.
fn reason(what: &'static str) -> impl Fn(io::Error) -> String {
    move |error| format!("{what}: {error}")
}

fn warden(control: UnixStream) -> ExitCode {
    match set_up(&control) {
        Ok((child, port)) => watch(&control, child, port),
        Err(why) => {
            let _ = (&control).write_all(&[&[FAILED], why.as_bytes()].concat()); // else nobody is there to hear
            ExitCode::FAILURE
        }
    }
}

fn set_up(control: &UnixStream) -> Result<(Child, Option<u16>), String> {
    let mut spec = read_spec(control).map_err(reason("the specification"))?;
    spec.mapped = !rustix::process::geteuid().is_root();
    view::enter(&spec)?;
    let child = start_stage(&spec)?;
    stage::drop_privileges(&spec).map_err(|error| format!("the warden's privileges: {error}"))?;
    let scratch = view::scratch().map_err(reason(crate::config::SCRATCH))?;
    say(control, STARTED, Some(scratch.as_fd())).map_err(reason("the control socket"))?;
    Ok((child, spec.port))
}

/// The stage says nothing and closes its end by becoming the child, or says why it does not.
fn start_stage(spec: &Spec) -> Result<Child, String> {
    let (mut ours, theirs) = UnixStream::pair().map_err(reason("a pair of sockets"))?;
    let mut child = Command::new(format!("{}/proc/self/exe", view::OLD))
        .arg0(STAGE)
        .env_clear()
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .spawn()
        .map_err(reason("the stage"))?;
    let mut told = String::new();
    let heard = write_spec(&ours, spec).and_then(|()| (&mut ours).take(MAX_REASON).read_to_string(&mut told));
    match heard {
        Ok(_) if told.is_empty() => Ok(child),
        Ok(_) => {
            let _ = child.wait(); // it ended by itself
            Err(told)
        }
        Err(error) => {
            let _ = child.kill(); // it may have ended
            let _ = child.wait();
            Err(format!("the stage: {error}"))
        }
    }
}

/// Until the child ends or the guest does.
fn watch(control: &UnixStream, mut child: Child, port: Option<u16>) -> ExitCode {
    let pid = Pid::from_child(&child);
    let Ok(process) = pidfd_open(pid, PidfdFlags::empty()) else { return ExitCode::FAILURE };
    loop {
        let mut events = [PollFd::new(control, PollFlags::IN), PollFd::new(&process, PollFlags::IN)];
        match poll(&mut events, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => break,
        }
        let [asked, ended] = [0, 1].map(|index: usize| !events[index].revents().is_empty());
        if ended {
            break;
        }
        let mut order = [0];
        if asked && !((&*control).read(&mut order).is_ok_and(|count| count == 1) && order[0] == DIAL) {
            break; // the guest has ended, or says what is not said
        }
        if asked && dial(control, port).is_err() {
            break;
        }
    }
    let _ = pidfd_send_signal(&process, Signal::KILL); // it may have ended
    match child.wait() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

/// A connection that is on its way: whoever gets it waits for it.
fn dial(control: &UnixStream, port: Option<u16>) -> io::Result<()> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let (Some(port), Ok(socket)) = (port, socket_with(AddressFamily::INET, SocketType::STREAM, flags, None))
    else {
        return say(control, NO_DIAL, None);
    };
    match connect(&socket, &SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)) {
        Ok(()) | Err(rustix::io::Errno::INPROGRESS) => say(control, DIALLED, Some(socket.as_fd())),
        Err(_) => say(control, NO_DIAL, None),
    }
}

fn say(control: &UnixStream, word: u8, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors: Vec<_> = descriptor.into_iter().collect();
    if !descriptors.is_empty() {
        assert!(ancillary.push(SendAncillaryMessage::ScmRights(&descriptors)), "there is room for one");
    }
    sendmsg(control, &[IoSlice::new(&[word])], &mut ancillary, SendFlags::NOSIGNAL)?;
    Ok(())
}
