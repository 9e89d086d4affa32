//! What answers: the engine that is built in, or a supervised child.

use crate::{EngineConfig, Guest};
use cocoon_engine::{AcceleratorError, Engine};
use cocoon_protocol::{EngineId, EngineKind, Kernels};
use cocoon_supervisor::{ChildConfig, Setting, StartError, State, Supervisor};
use ring::hmac;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How often a device is looked after.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Cheap to clone: all clones are one.
#[derive(Clone)]
pub(crate) enum Serving {
    Embedded(Arc<Engine>),
    Child(Arc<ChildEngine>),
}

/// A child that is started when the guest serves.
pub(crate) struct ChildEngine {
    config: ChildConfig,
    model: PathBuf,
    most_running: usize,
    supervisor: OnceLock<Supervisor>,
    /// SHA-256 of the program, once it was started.
    program: OnceLock<[u8; 32]>,
    /// Makes salts out of clients' secrets, which themselves never reach the child.
    pub(crate) salts: hmac::Key,
}

impl Serving {
    pub(crate) fn child(config: ChildConfig, model: PathBuf, most_running: usize) -> Self {
        let salts = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new());
        let salts = salts.expect("the system has a random generator");
        Self::Child(Arc::new(ChildEngine {
            config,
            model,
            most_running,
            supervisor: OnceLock::new(),
            program: OnceLock::new(),
            salts,
        }))
    }

    pub(crate) fn embedded(&self) -> Option<&Engine> {
        match self {
            Self::Embedded(engine) => Some(engine),
            Self::Child(_) => None,
        }
    }

    /// Answers in progress.
    pub(crate) fn running(&self) -> usize {
        match self {
            Self::Embedded(engine) => engine.status().running,
            Self::Child(child) => child.supervisor().map_or(0, |supervisor| supervisor.status().running),
        }
    }

    /// Whether a request may be taken now.
    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Self::Embedded(engine) => engine.is_serving(),
            Self::Child(child) => {
                child.supervisor().is_some_and(|supervisor| supervisor.state() == State::Ready)
            }
        }
    }

    /// Digest of the kernels of the device that computes, if one does.
    pub(crate) fn kernels(&self) -> Option<[u8; 32]> {
        self.embedded().and_then(Engine::kernels)
    }

    /// Whether the device that computes failed: then nothing is answered any more.
    pub(crate) fn has_failed(&self) -> bool {
        self.embedded().is_some_and(|engine| engine.failure().is_some())
    }

    /// Resolves with what happened when the device that computes has failed.
    pub(crate) async fn device_failure(&self) -> AcceleratorError {
        loop {
            if let Some(failure) = self.embedded().and_then(Engine::failure) {
                return failure;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Resolves when nothing will answer any more.
    pub(crate) async fn dead(&self) {
        match self {
            Self::Child(child) if child.supervisor().is_some() => {
                let supervisor = child.supervisor().expect("it is there");
                supervisor.reached(|state| state == State::Dead).await;
            }
            _ => std::future::pending().await,
        }
    }
}

impl ChildEngine {
    pub(crate) fn config(&self) -> &ChildConfig {
        &self.config
    }

    /// What receipts say of it. Another server's release is not known here.
    pub(crate) fn identity(&self) -> EngineId {
        let digest = self.program.get().copied().unwrap_or_default();
        EngineId { kind: EngineKind::Child, version: [0; 3], digest, kernels: Kernels::Cpu }
    }

    pub(crate) fn supervisor(&self) -> Option<&Supervisor> {
        self.supervisor.get()
    }
}

impl Guest {
    /// Starts what answers, and waits until it does. The engine that is built in is there already. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the child is dead before it was ready; its supervisor has said why.
    pub async fn start_engine(self: &Arc<Self>) -> io::Result<()> {
        let Serving::Child(child) = &self.engine else { return Ok(()) };
        let Some(EngineConfig::Child(_)) = &self.config.engine else { return Ok(()) };
        let program = child.config.argv.first().map(|program| crate::boot::file_digest(program.as_ref()));
        let _ = child.program.set(program.transpose()?.unwrap_or_default()); // it is started once
        let guest = Arc::downgrade(self);
        let setting = Setting {
            warden: PathBuf::from("/proc/self/exe"),
            model: Some(child.model.canonicalize()?),
            most_running: child.most_running,
            // A process that answers anew is spoken of by new evidence alone.
            on_ready_again: Box::new(move || {
                if let Some(guest) = guest.upgrade() {
                    guest.guard.forget();
                    guest.attested.store(false, Ordering::Relaxed);
                }
            }),
        };
        let started = Supervisor::start(child.config.clone(), setting)
            .map_err(|StartError::Config(error)| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        let state = started.settled().await;
        let _ = child.supervisor.set(started); // it is started once
        if state == State::Ready {
            Ok(())
        } else {
            Err(io::Error::other("the engine does not get ready; its lines say why"))
        }
    }
}
