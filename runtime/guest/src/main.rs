//! `cocoon-guest`: no arguments, no environment. It reads its run folder, which is its working directory, and ends
//! when its standard input does; or serves on standard input, if that is a listening socket.

use cocoon_guest::{
    Devices, Door, GUEST_SOCKET, GpuError, Gpus, Guest, Leave, NoGpus, Nvidia, Simulated, TEE_SOCKET, Tee,
    boot, cuda, executable_digest, open_real_tee, serve, unattested,
};
use std::io::Read;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use tokio::net::UnixStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// The only command line there is; it is measured.
const COMMAND_LINE: &str = "cocoon-guest";

/// The CPU's TEE, the GPUs beside it, and which of them may compute.
type Hardware = (Box<dyn Tee>, Box<dyn Gpus>, Devices<'static>);
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    // Started by a guest as the keeper of its child, under another name.
    if let Some(code) = cocoon_guest::take_over() {
        return code;
    }
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_max_level(tracing::Level::INFO)
        .init();
    // A panic's message may quote what was being worked on; its place may not.
    std::panic::set_hook(Box::new(|panic| match panic.location() {
        Some(place) => tracing::error!(file = place.file(), line = place.line(), "panic"),
        None => tracing::error!("panic"),
    }));
    match start() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cocoon-guest: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start() -> Result<(), Failure> {
    refuse_unmeasured_inputs()?;
    let guest = Arc::new(boot_here()?);
    confine()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let result = runtime.block_on(run(guest));
    runtime.shutdown_background(); // a thread that still computes is not waited for
    result
}

/// The command line is measured and the environment is not: so the one is fixed and the other empty.
fn refuse_unmeasured_inputs() -> Result<(), Failure> {
    if !std::env::args_os().eq([COMMAND_LINE]) {
        return Err(format!(
            "the command line must be exactly `{COMMAND_LINE}`: put settings into config.toml"
        )
        .into());
    }
    if let Some((name, _)) = std::env::vars_os().next() {
        let name = name.to_string_lossy();
        return Err(
            format!("the environment must be empty, but {name} is set: start with a cleared one").into()
        );
    }
    Ok(())
}

fn boot_here() -> Result<Guest, Failure> {
    let here = Path::new(".");
    let executable = executable_digest().map_err(|error| format!("/proc/self/exe: {error}"))?;
    let (tee, gpus, devices) = hardware(here)?;
    let name = tee.name();
    let guest = boot(here, tee, gpus, devices, executable)?;
    tracing::info!(model = guest.config().model.name, "measured and loaded; the TEE is {name}");
    Ok(guest)
}

/// What the machine has decides, and nothing that a host writes: a real TEE wherever there is one, else the simulated one
/// of a development network. Beside a simulated TEE no GPU is asked: its evidence would prove nothing. Beside a real one
/// no GPU computes that is not asked.
fn hardware(here: &Path) -> Result<Hardware, Failure> {
    let Some(tee) = open_real_tee(Path::new("/"))? else {
        return Ok((Box::new(Simulated::connect(&here.join(TEE_SOCKET))?), Box::new(NoGpus), &cuda));
    };
    match Nvidia::open() {
        Ok(gpus) => Ok((tee, Box::new(gpus), &cuda)),
        Err(error @ GpuError::NoDriver(_)) => {
            tracing::info!(%error, "statements carry no GPU evidence");
            Ok((tee, Box::new(NoGpus), &unattested))
        }
        Err(error) => Err(error.into()),
    }
}

/// No core dumps, no peeking by processes of the same user, no files for others.
fn confine() -> Result<(), Failure> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit, umask};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    umask(rustix::fs::Mode::from_raw_mode(0o077));
    Ok(())
}

async fn run(guest: Arc<Guest>) -> Result<(), Failure> {
    guest.start_engine().await?;
    let handed = Door::handed_over()?;
    // A socket for standard input comes from PID 1, which outlives this service: there is no lifeline to watch.
    let (door, lifeline) = match handed {
        Some(door) => (door, None),
        None => (Door::bound(bind().await?)?, Some(lifeline())),
    };
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let bound = lifeline.is_some();
    let ended = async {
        match lifeline {
            Some(lifeline) => drop(lifeline.await),
            None => std::future::pending().await,
        }
    };
    let shutdown = async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("told to end"),
            _ = interrupt.recv() => tracing::info!("interrupted"),
            () = ended => {
                tracing::info!("standard input ended, so this guest does");
                return Leave::AtOnce; // whoever started it is gone, or waits for no more than receipts
            }
        }
        Leave::InOrder
    };
    tracing::info!("serving on {}", if bound { GUEST_SOCKET } else { "the socket that was handed over" });
    let result = serve(guest, door, shutdown).await;
    if bound {
        let _ = std::fs::remove_file(GUEST_SOCKET); // it leads nowhere now
    }
    Ok(result?)
}

/// Binds the socket; one that a dead guest left behind is replaced, a live one is not.
async fn bind() -> Result<UnixListener, Failure> {
    if UnixStream::connect(GUEST_SOCKET).await.is_ok() {
        return Err(
            format!("{GUEST_SOCKET}: another guest serves here; stop it or use another run folder").into()
        );
    }
    match std::fs::remove_file(GUEST_SOCKET) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(describe(&error)),
        _ => {}
    }
    UnixListener::bind(GUEST_SOCKET).map_err(|error| describe(&error))
}

fn describe(error: &std::io::Error) -> Failure {
    format!("{GUEST_SOCKET}: {error}; is the run folder writable?").into()
}

/// Resolves when standard input ends: whoever started this guest is gone.
fn lifeline() -> oneshot::Receiver<()> {
    let (sender, receiver) = oneshot::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        let mut input = std::io::stdin().lock();
        while let Ok(count) = input.read(&mut buffer) {
            if count == 0 {
                break;
            }
        }
        let _ = sender.send(()); // the receiver may have ended for another reason
    });
    receiver
}
