//! Boot: read, measure, load, make keys.

use crate::serving::Serving;
use crate::vectors::VectorEngine;
use crate::{Config, ConfigError, Devices, EngineConfig, Gpus, OpenDevice, Tee, TeeError};
use cocoon_engine::{AcceleratorError, AnyModel, Engine, EngineOptions, Model, Vocabulary};
use cocoon_protocol::{ReceiptKey, ReplayGuard, SealKey};
use cocoon_supervisor::{ChildConfig, Counting};
use ring::digest::{Context, SHA256, SHA384, digest};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use thiserror::Error;
use tokio::sync::{Notify, Semaphore, watch};

/// The configuration, in the run folder.
pub const CONFIG: &str = "config.toml";
/// The model, in the run folder, a link or a file: a GGUF, or the archive of a Hugging Face folder (`cocoon_engine::pack`),
/// which its bytes tell apart.
pub const MODEL: &str = "model.gguf";
/// The emulator's socket, in the run folder.
pub const TEE_SOCKET: &str = "tee.sock";
/// The socket that the guest serves, in the run folder.
pub const GUEST_SOCKET: &str = "guest.sock";
/// SHA-384 of the configuration in hex, in the run folder of a VM: PID 1 has measured it already.
pub const MEASURED: &str = "measured";
/// The firmware's event log, in the run folder of a VM.
pub const EVENT_LOG: &str = "eventlog";
/// Most bytes of a model file.
pub const MAX_MODEL: u64 = 1 << 40;

/// Statements whose requests are still taken.
const STATEMENTS: usize = 32;
/// Requests taken under one statement; some 24 bytes of memory each.
const REQUESTS_PER_STATEMENT: usize = 1 << 16;

const WEIGHTS_DOMAIN: &[u8] = b"cocoon weights v1";
const FINGERPRINT_DOMAIN: &[u8] = b"cocoon fingerprint v1";

/// Why a guest does not start. Each says what happened, to what, and what to do.
#[derive(Debug, Error)]
pub enum BootError {
    /// A file of the run folder cannot be read.
    #[error("{path}: {source}; the run folder must hold {CONFIG}, {MODEL} and {TEE_SOCKET}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file is larger than its limit.
    #[error("{path} has more than {limit} bytes")]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Most bytes.
        limit: u64,
    },
    /// The configuration cannot be used.
    #[error("{path}: {source}")]
    Config {
        /// Which.
        path: PathBuf,
        /// Why.
        source: ConfigError,
    },
    /// The model is not the one that the configuration names.
    #[error(
        "{path} has SHA-256 {got}, but {CONFIG} says {expected}: the file was cut short or changed, or is another \
         model; fetch it again or correct model.weights"
    )]
    WrongWeights {
        /// The model file.
        path: PathBuf,
        /// In the configuration.
        expected: String,
        /// Of the file.
        got: String,
    },
    /// The model has the right digest and still cannot be used.
    #[error("{path}: {source}")]
    Model {
        /// The model file.
        path: PathBuf,
        /// Why.
        source: cocoon_engine::ModelError,
    },
    /// A child's tokens cannot be counted.
    #[error(
        "{path}: {source}; its tokens cannot be counted here: set engine.counting = \"bounds\" to take the child's word within bounds"
    )]
    Vocabulary {
        /// The model file.
        path: PathBuf,
        /// Why.
        source: cocoon_engine::ModelError,
    },
    /// The configuration is not the one that PID 1 measured.
    #[error("{path} is not the SHA-384 of {CONFIG}: the configuration was changed after it was measured")]
    OtherMeasured {
        /// The file that says what was measured.
        path: PathBuf,
    },
    /// A VM's service can start no process, and its image holds no such server.
    #[error("{CONFIG} asks for a child as the engine, which a booted image cannot start: leave [engine] out")]
    ChildInVm,
    /// There is no device that computes, or it does not do so rightly.
    #[error("{CONFIG} asks for a GPU to compute ([engine] kind = \"cuda\"), and it does not: {0}")]
    Device(#[from] AcceleratorError),
    /// The kernels are of models that write.
    #[error(
        "{CONFIG} asks for a GPU to compute, and the model makes embeddings, which are made on the CPU: leave [engine] out"
    )]
    VectorsOnDevice,
    /// The TEE does not do its part.
    #[error(transparent)]
    Tee(#[from] TeeError),
}

/// A booted guest: measured, with its keys. It serves nobody before it has made evidence.
pub struct Guest {
    pub(crate) config: Config,
    pub(crate) engine: Serving,
    pub(crate) grammars: crate::grammar::Grammars,
    pub(crate) tee: Box<dyn Tee>,
    pub(crate) gpus: Box<dyn Gpus>,
    pub(crate) seal: SealKey,
    pub(crate) receipt: ReceiptKey,
    pub(crate) guard: ReplayGuard,
    /// Statements issued since boot: the next one's serial number.
    pub(crate) issued: AtomicU64,
    /// SHA-256 of the configuration.
    pub(crate) configuration: [u8; 32],
    /// SHA-256 of the executable.
    pub(crate) executable: [u8; 32],
    /// The firmware's event log, for bundles.
    pub(crate) event_log: Option<Vec<u8>>,
    /// As OpenAI's `system_fingerprint`.
    pub(crate) fingerprint: String,
    /// One permit for each request that is here, running or waiting.
    pub(crate) admitted: Arc<Semaphore>,
    /// One permit for each request that is being read: what it takes meanwhile is many times its length.
    pub(crate) reading: Arc<Semaphore>,
    pub(crate) attested: AtomicBool,
    /// How far its end has come.
    pub(crate) course: watch::Sender<Course>,
    /// Somebody asked over the API that this guest ends.
    pub(crate) ending: Notify,
}

/// From serving to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Course {
    /// It takes requests.
    Open,
    /// It takes no more.
    Closing,
    /// What is in progress ends now, with receipts.
    Ending,
}

/// Boots from a run folder: measures the configuration and the model into `tee`, and makes the keys.
///
/// `executable` is the SHA-256 of the running program, see [`executable_digest`]. `gpus` are all that the engine may use;
/// every statement carries evidence of each. `devices` gives what the configuration may ask to compute on.
///
/// # Errors
/// [`BootError`]. What was measured by then stays measured.
pub fn boot(
    folder: &Path,
    tee: Box<dyn Tee>,
    gpus: Box<dyn Gpus>,
    devices: Devices<'_>,
    executable: [u8; 32],
) -> Result<Guest, BootError> {
    let config_path = folder.join(CONFIG);
    let bytes = read_limited(&config_path, crate::MAX_CONFIG as u64 + 1)?;
    // Measured before it is read: nothing acts on bytes that no register knows.
    if !measured_by_init(folder, &bytes)? {
        measure(tee.as_ref(), &[&bytes])?;
    }
    let config = Config::parse(&bytes).map_err(|source| BootError::Config { path: config_path, source })?;
    let engine = match &config.engine {
        None => load(&folder.join(MODEL), &config, None, tee.as_ref())?,
        Some(EngineConfig::Cuda(cuda)) => {
            let device = devices(cuda.device)?;
            load(&folder.join(MODEL), &config, Some(device), tee.as_ref())?
        }
        Some(EngineConfig::Child(_)) if folder.join(MEASURED).exists() => return Err(BootError::ChildInVm),
        Some(EngineConfig::Child(child)) => {
            let path = folder.join(MODEL);
            drop(measured_weights(&path, &config, tee.as_ref())?);
            let vocabulary = vocabulary(child, &path)?;
            Serving::child(child.clone(), path, vocabulary, config.max_running)
        }
    };
    let configuration = sha256(&[&bytes]);
    let admitted = config.max_running + config.max_queued;
    Ok(Guest {
        fingerprint: fingerprint(&executable, &configuration, &config.model.weights),
        admitted: Arc::new(Semaphore::new(admitted)),
        reading: Arc::new(Semaphore::new(readers())),
        config,
        engine,
        grammars: Default::default(),
        tee,
        gpus,
        seal: SealKey::generate(),
        receipt: ReceiptKey::generate(),
        guard: ReplayGuard::new(STATEMENTS, REQUESTS_PER_STATEMENT),
        issued: AtomicU64::new(0),
        configuration,
        executable,
        event_log: event_log(folder)?,
        attested: AtomicBool::new(false),
        course: watch::Sender::new(Course::Open),
        ending: Notify::new(),
    })
}

/// Reads the model once; the bytes that are hashed are the bytes that run, on the CPU or a device. They say which kind of
/// model it is.
fn load(
    path: &Path,
    config: &Config,
    device: Option<OpenDevice>,
    tee: &dyn Tee,
) -> Result<Serving, BootError> {
    let bytes = measured_weights(path, config, tee)?;
    let model = AnyModel::from_bytes(bytes)
        .map_err(|source| BootError::Model { path: path.to_path_buf(), source })?;
    Ok(match (model, device) {
        (AnyModel::Text(model), device) => {
            let options = engine_options(config, &model);
            Serving::Embedded(Arc::new(match device {
                None => Engine::new(Arc::new(model), options),
                Some(open) => Engine::accelerated(Arc::new(model), options, open)?,
            }))
        }
        (AnyModel::Vectors(_), Some(_)) => return Err(BootError::VectorsOnDevice),
        (AnyModel::Vectors(model), None) => {
            let mut options = EngineOptions::with_threads(config.threads);
            options.max_context = config.max_context;
            Serving::Vectors(Arc::new(VectorEngine::new(model, &options)))
        }
    })
}

/// What counts a child's tokens, where the guest is to do so.
fn vocabulary(child: &ChildConfig, path: &Path) -> Result<Option<Arc<Vocabulary>>, BootError> {
    if child.counting == Counting::Bounds {
        return Ok(None);
    }
    let unknown = |source| BootError::Vocabulary { path: path.to_path_buf(), source };
    Vocabulary::open(path).map(|vocabulary| Some(Arc::new(vocabulary))).map_err(unknown)
}

/// The model's bytes: those that the configuration names, and in the register.
fn measured_weights(path: &Path, config: &Config, tee: &dyn Tee) -> Result<Vec<u8>, BootError> {
    let bytes = match config.model.bytes {
        Some(length) => read_exactly(path, length)?,
        None => read_limited(path, MAX_MODEL)?,
    };
    let weights = sha256(&[&bytes]);
    if weights != config.model.weights {
        let (expected, got) = (hex::encode(config.model.weights), hex::encode(weights));
        return Err(BootError::WrongWeights { path: path.to_path_buf(), expected, got });
    }
    measure(tee, &[WEIGHTS_DOMAIN, &weights])?;
    Ok(bytes)
}

/// Requests that are read at a time: half of the processors are left to those that are answered. Two at least, so that a
/// long one is not in everybody's way.
fn readers() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| (usize::from(cores) / 2).max(2))
}

/// The engine keeps to the configuration's limits. How many requests are here is limited at the door, before they are
/// opened; a single payer may have them all while nobody else asks.
fn engine_options(config: &Config, model: &Model) -> EngineOptions {
    let mut options = EngineOptions::with_threads(config.threads);
    options.max_context = config.max_context;
    options.max_running = config.max_running;
    options.max_waiting = config.max_running + config.max_queued;
    options.max_waiting_of_payer = options.max_waiting;
    options.max_waiting_tokens = options.max_waiting_tokens.max(options.max_waiting * options.max_context);
    options.cache_bytes = match config.cache_bytes {
        Some(bytes) => usize::try_from(bytes).unwrap_or(usize::MAX),
        None => {
            let context = config.max_context.min(model.context_length());
            config.max_running.saturating_mul(EngineOptions::bytes_of_context(model, context))
        }
    };
    // A reader is given up on by the sink, which says so with a receipt.
    options.reader_patience = 2 * crate::sink::STALL;
    options
}

/// Whether PID 1 has extended the configuration already, which it does before it uses any of it. A lie here cannot help
/// anybody: the register would lack the extension, and no client would accept the quote.
fn measured_by_init(folder: &Path, configuration: &[u8]) -> Result<bool, BootError> {
    let path = folder.join(MEASURED);
    if !path.exists() {
        return Ok(false);
    }
    let said = read_limited(&path, 128)?;
    if said.trim_ascii() != hex::encode(sha384(&[configuration])).as_bytes() {
        return Err(BootError::OtherMeasured { path });
    }
    Ok(true)
}

/// The firmware's log, if PID 1 left one.
fn event_log(folder: &Path) -> Result<Option<Vec<u8>>, BootError> {
    let path = folder.join(EVENT_LOG);
    if !path.exists() {
        return Ok(None);
    }
    read_limited(&path, cocoon_attestation::eventlog::MAX_LOG as u64).map(Some)
}

/// Extends RTMR3 with the SHA-384 of `parts`. A platform without registers has the statement for it, see
/// [`Tee::has_registers`]; one whose registers cannot be reached does not boot.
fn measure(tee: &dyn Tee, parts: &[&[u8]]) -> Result<(), TeeError> {
    if tee.has_registers() { tee.extend(&sha384(parts)) } else { Ok(()) }
}

fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>, BootError> {
    let failed = |source| BootError::File { path: path.to_path_buf(), source };
    let file = std::fs::File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length > limit {
        return Err(BootError::TooLarge { path: path.to_path_buf(), limit });
    }
    let mut bytes = Vec::with_capacity(usize::try_from(length).expect("64 bits"));
    file.take(limit + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(BootError::TooLarge { path: path.to_path_buf(), limit });
    }
    Ok(bytes)
}

/// The first `length` bytes of a disk, which has no length of its own that means anything.
fn read_exactly(path: &Path, length: u64) -> Result<Vec<u8>, BootError> {
    let failed = |source| BootError::File { path: path.to_path_buf(), source };
    if length > MAX_MODEL {
        return Err(BootError::TooLarge { path: path.to_path_buf(), limit: MAX_MODEL });
    }
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(failed)?;
    let room = usize::try_from(length).expect("64 bits");
    bytes.try_reserve_exact(room).map_err(|error| failed(std::io::Error::other(error)))?;
    file.take(length).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() != room {
        let text = format!("{} bytes, but {CONFIG} says {length}", bytes.len());
        return Err(failed(std::io::Error::new(std::io::ErrorKind::UnexpectedEof, text)));
    }
    Ok(bytes)
}

/// SHA-256 of the running program's file.
///
/// # Errors
/// If the file cannot be read.
pub fn executable_digest() -> std::io::Result<[u8; 32]> {
    file_digest(Path::new("/proc/self/exe"))
}

/// SHA-256 of a file, of any length.
pub(crate) fn file_digest(path: &Path) -> std::io::Result<[u8; 32]> {
    let mut file = std::fs::File::open(path)?;
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            count => context.update(&buffer[..count]),
        }
    }
    Ok(context.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes"))
}

/// Clients can compute it from the statement: "fp_" and ten hex digits of
/// SHA-256("cocoon fingerprint v1" ‖ engine ‖ configuration ‖ weights).
fn fingerprint(executable: &[u8; 32], configuration: &[u8; 32], weights: &[u8; 32]) -> String {
    let digest = sha256(&[FINGERPRINT_DOMAIN, executable, configuration, weights]);
    format!("fp_{}", hex::encode(&digest[..5]))
}

fn sha384(parts: &[&[u8]]) -> [u8; 48] {
    digest(&SHA384, &parts.concat()).as_ref().try_into().expect("SHA-384 gives 48 bytes")
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

impl Guest {
    /// Its configuration.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Takes nothing more; what is in progress goes on.
    pub fn close(&self) {
        self.course.send_if_modified(|course| {
            let closes = *course == Course::Open;
            *course = if closes { Course::Closing } else { *course };
            closes
        });
    }

    /// Ends what is in progress, with receipts, and takes nothing more.
    pub fn drain(&self) {
        self.course.send_replace(Course::Ending);
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.course.borrow() != Course::Open
    }

    /// Resolves when this guest takes nothing more.
    pub(crate) async fn closed(&self) {
        // It fails when the sender is gone, which is a part of this guest.
        let _ = self.course.subscribe().wait_for(|course| *course != Course::Open).await;
    }

    /// Resolves when what is in progress is to end.
    pub(crate) async fn drained(&self) {
        let _ = self.course.subscribe().wait_for(|course| *course == Course::Ending).await; // likewise
    }
}
