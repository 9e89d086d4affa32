//! A running child, from the guest's side: its warden, its log, and connections to it.

use crate::config::{Address, ChildConfig};
use crate::logs::{LogCount, drain};
use crate::warden::{DIAL, DIALLED, FAILED, STARTED, Spec, WARDEN, write_spec};
use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, openat2};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{self, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as Control;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::process::{Child, Command};

/// How long the warden may take for what it does.
const WARDEN_PATIENCE: Duration = Duration::from_secs(20);

/// A byte stream to the child.
pub(crate) trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// A child and its warden. Dropping it ends both, and whatever the child has started.
pub(crate) struct Process {
    warden: Child,
    reach: Arc<Reach>,
    count: Arc<LogCount>,
}

/// How connections to the child are made.
pub(crate) struct Reach {
    address: Address,
    scratch: OwnedFd,
    /// One order at a time.
    control: Mutex<Control>,
}

impl Process {
    /// Starts `program` as the warden of a new child.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(crate) async fn start(
        program: &Path,
        config: &ChildConfig,
        model: Option<PathBuf>,
    ) -> Result<Self, String> {
        let told = |error: io::Error| format!("the warden cannot be started: {error}");
        let (ours, theirs) = Control::pair().map_err(told)?;
        let mut warden = Command::new(program)
            .arg0(WARDEN)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(told)?;
        let count = Arc::<LogCount>::default();
        let (out, err) = (warden.stdout.take().expect("piped"), warden.stderr.take().expect("piped"));
        tokio::spawn(drain(out, count.clone(), config.development_logs));
        tokio::spawn(drain(err, count.clone(), config.development_logs));
        let spec = Spec::new(config, model);
        let started = tokio::task::spawn_blocking(move || set_up(ours, &spec)).await;
        let (control, scratch) = started.map_err(|error| format!("the warden: {error}"))??;
        let address = config.parsed_address().ok_or("engine.address cannot be read")?;
        let reach = Arc::new(Reach { address, scratch, control: Mutex::new(control) });
        Ok(Self { warden, reach, count })
    }

    pub(crate) fn reach(&self) -> Arc<Reach> {
        self.reach.clone()
    }

    /// Resolves when the child has ended.
    pub(crate) async fn ended(&mut self) {
        let _ = self.warden.wait().await; // it is our child
    }

    /// Ends the child now.
    pub(crate) async fn end(mut self) {
        // The socket is shut for all who hold it: the warden sees the end, and ends all of the child's processes.
        let _ = self.reach.lock().shutdown(std::net::Shutdown::Both);
        if tokio::time::timeout(WARDEN_PATIENCE, self.warden.wait()).await.is_err() {
            let _ = self.warden.kill().await;
        }
        let (bytes, lines) =
            (self.count.bytes.load(Ordering::Relaxed), self.count.lines.load(Ordering::Relaxed));
        tracing::info!(lines, bytes, "the engine's process ended; what it wrote was counted and not kept");
    }
}

impl Reach {
    fn lock(&self) -> std::sync::MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection to the child.
    pub(crate) async fn connect(self: &Arc<Self>) -> io::Result<Box<dyn Connection>> {
        match &self.address {
            Address::Unix(name) => {
                let socket = self.socket(name)?;
                Ok(Box::new(UnixStream::connect(format!("/proc/self/fd/{}", socket.as_raw_fd())).await?))
            }
            Address::Loopback(_) => {
                let reach = self.clone();
                let dialled =
                    tokio::task::spawn_blocking(move || reach.dial()).await.map_err(io::Error::other)??;
                let stream = TcpStream::from_std(dialled.into())?;
                stream.writable().await?;
                if let Some(error) = stream.take_error()? {
                    return Err(error);
                }
                stream.set_nodelay(true)?;
                Ok(Box::new(stream))
            }
        }
    }

    /// The child's socket itself. A link that it put there would lead through our view, to a socket that is not its own.
    fn socket(&self, name: &str) -> io::Result<OwnedFd> {
        let within = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        let socket = openat2(&self.scratch, name, flags, Mode::empty(), within)?;
        match FileType::from_raw_mode(fstat(&socket)?.st_mode) {
            FileType::Socket => Ok(socket),
            _ => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
        }
    }

    /// Asks the warden, which is in the child's network.
    fn dial(&self) -> io::Result<OwnedFd> {
        let mut control = self.lock();
        control.write_all(&[DIAL])?;
        match hear(&control)? {
            (DIALLED, Some(socket)) => Ok(socket),
            _ => Err(io::Error::from(io::ErrorKind::ConnectionRefused)),
        }
    }
}

fn set_up(mut control: Control, spec: &Spec) -> Result<(Control, OwnedFd), String> {
    let told = |error: io::Error| format!("the warden does not answer: {error}");
    control.set_read_timeout(Some(WARDEN_PATIENCE)).map_err(told)?;
    write_spec(&control, spec).map_err(told)?;
    match hear(&control).map_err(told)? {
        (STARTED, Some(scratch)) => Ok((control, scratch)),
        (FAILED, _) => {
            let mut why = String::new();
            let _ = (&mut control).take(1024).read_to_string(&mut why); // what came until then is said
            Err(why)
        }
        _ => Err("the warden ended, or said what it does not say".to_owned()),
    }
}

/// One byte, perhaps with a descriptor.
fn hear(control: &Control) -> io::Result<(u8, Option<OwnedFd>)> {
    let mut word = [0];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let got = recvmsg(control, &mut [IoSliceMut::new(&mut word)], &mut ancillary, flags)?;
    if got.bytes == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
    }
    let descriptors = ancillary.drain().filter_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    let descriptor = descriptors.last();
    Ok((word[0], descriptor))
}
