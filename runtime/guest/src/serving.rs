//! What answers: the engine that is built in, for text or for vectors, or a supervised child.

use crate::turns::Turns;
use crate::vectors::VectorEngine;
use crate::{EngineConfig, Guest};
use cocoon_engine::{AcceleratorError, ChatMessage, Engine, TemplateError, Vocabulary};
use cocoon_protocol::{EngineId, EngineKind, Kernels};
use cocoon_supervisor::{ChildConfig, Setting, StartError, State, Supervisor};
use ring::digest::{Context, SHA256};
use ring::hmac;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// How often it is looked whether the engine that is built in has ended, or its device failed.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
const PROGRAM_DOMAIN: &[u8] = b"cocoon child v1";

/// Cheap to clone: all clones are one.
#[derive(Clone)]
pub(crate) enum Serving {
    Embedded(Arc<Engine>),
    Vectors(Arc<VectorEngine>),
    Child(Arc<ChildEngine>),
}

/// A child that is started when the guest serves.
pub(crate) struct ChildEngine {
    config: ChildConfig,
    model: PathBuf,
    most_running: usize,
    supervisor: OnceLock<Supervisor>,
    /// Who comes next.
    pub(crate) turns: Arc<Turns>,
    /// Counts its tokens; `None` where it is believed within bounds.
    pub(crate) vocabulary: Option<Arc<Vocabulary>>,
    /// Digest of its program, once it was started.
    program: OnceLock<[u8; 32]>,
    /// Makes salts out of clients' secrets, which themselves never reach the child.
    pub(crate) salts: hmac::Key,
}

impl Serving {
    pub(crate) fn child(
        config: ChildConfig,
        model: PathBuf,
        vocabulary: Option<Arc<Vocabulary>>,
        most_running: usize,
    ) -> Self {
        let salts = hmac::Key::generate(hmac::HMAC_SHA256, &ring::rand::SystemRandom::new());
        let salts = salts.expect("the system has a random generator");
        Self::Child(Arc::new(ChildEngine {
            turns: Turns::new(most_running, config.limits.of_payer),
            vocabulary,
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
            Self::Vectors(_) | Self::Child(_) => None,
        }
    }

    /// Answers in progress.
    pub(crate) fn running(&self) -> usize {
        match self {
            Self::Embedded(engine) => engine.status().running,
            Self::Vectors(engine) => engine.running(),
            Self::Child(child) => child.turns.running(),
        }
    }

    /// Whether a request may be taken now.
    pub(crate) fn is_ready(&self) -> bool {
        match self {
            Self::Embedded(engine) => engine.is_serving(),
            Self::Vectors(_) => true,
            Self::Child(child) => {
                child.supervisor().is_some_and(|supervisor| supervisor.state() == State::Ready)
            }
        }
    }

    /// How long answers in progress may go on when the guest is told to end. The engine that is built in cuts them at once: a
    /// client loses nothing that it paid for.
    pub(crate) fn patience(&self) -> Duration {
        match self {
            Self::Embedded(_) | Self::Vectors(_) => Duration::ZERO,
            Self::Child(child) => Duration::from_secs(child.config.limits.drain),
        }
    }

    /// Ends what answers, after its answers.
    pub(crate) async fn end(&self) {
        if let Self::Child(child) = self
            && let Some(supervisor) = child.supervisor()
        {
            supervisor.drain().await;
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
        let Self::Embedded(engine) = self else { return std::future::pending().await };
        loop {
            if let Some(failure) = engine.failure() {
                return failure;
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// Resolves when nothing will answer any more.
    pub(crate) async fn dead(&self) {
        match self {
            // A guest that would refuse everything makes room for one that does not. Of a device that failed others tell.
            Self::Embedded(engine) => {
                while engine.is_serving() || engine.failure().is_some() {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            }
            Self::Child(child) if child.supervisor().is_some() => {
                let supervisor = child.supervisor().expect("it is there");
                supervisor.reached(|state| state == State::Dead).await;
            }
            Self::Vectors(_) | Self::Child(_) => std::future::pending().await,
        }
    }
}

impl ChildEngine {
    pub(crate) fn config(&self) -> &ChildConfig {
        &self.config
    }

    /// SHA-256("cocoon child v1" ‖ the program file's ‖ the digest of each root that has one, in their order). Blocks while all
    /// of it is read.
    ///
    /// # Errors
    /// Something cannot be read, or is not what the configuration says.
    fn checked_program(&self) -> io::Result<[u8; 32]> {
        let mut context = Context::new(&SHA256);
        context.update(PROGRAM_DOMAIN);
        let program = Path::new(self.config.argv.first().map_or("", String::as_str));
        context.update(&crate::boot::file_digest(program)?);
        for root in &self.config.roots {
            let Some(expected) = root.pinned() else { continue };
            let found = cocoon_supervisor::tree::digest(&root.path)?;
            if found != expected {
                let (path, found) = (root.path.display(), hex::encode(found));
                return Err(io::Error::other(format!(
                    "{path} has the digest {found}, and engine.roots says another: it was changed; install it again, or correct the \
                     configuration"
                )));
            }
            context.update(&found);
        }
        Ok(context.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes"))
    }

    /// The canary's question as a client's would be asked.
    fn canary(&self) -> Result<Option<Vec<u32>>, TemplateError> {
        let Some(vocabulary) = &self.vocabulary else { return Ok(None) };
        let prompt = self.config.canary.prompt.clone();
        let question = [ChatMessage { role: "user".to_owned(), content: prompt }];
        Ok(Some(vocabulary.chat_tokens(&question)?.to_vec()))
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
        let started = child.clone();
        let program = tokio::task::spawn_blocking(move || started.checked_program());
        let program = program.await.map_err(io::Error::other)??;
        let _ = child.program.set(program); // it is started once
        let guest = Arc::downgrade(self);
        let setting = Setting {
            warden: PathBuf::from("/proc/self/exe"),
            model: Some(child.model.canonicalize()?),
            canary: child.canary().map_err(|why| io::Error::new(io::ErrorKind::InvalidInput, why))?,
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
