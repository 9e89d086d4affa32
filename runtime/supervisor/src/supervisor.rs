//! The child's life: starting → canary → ready → draining → dead, and from any of them but the last two to starting again.

use crate::answer::{AnswerStream, AskError, Failure, Finish, Usage};
use crate::config::{ChildConfig, ConfigError};
use crate::process::{Process, Reach};
use crate::request::Question;
use crate::{canary, http};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use thiserror::Error;
use tokio::sync::{Notify, Semaphore, watch};
use tokio::task::JoinHandle;

/// Answers in a row, with none between them that ended well, in which one child may break a rule; at the last it is started
/// again. Were they counted for ever, one client that knows how to provoke them could end it for all.
const MOST_VIOLATIONS: u32 = 3;
/// Answers in a row, with none between them that ended well, in which it may fail.
const MOST_FAILED: u32 = 8;
/// Looks at its health that may fail in a row.
const MOST_SICK: u32 = 3;
/// How long a look at its health may take.
const HEALTH_PATIENCE: Duration = Duration::from_secs(10);
/// Between looks while it starts.
const START_POLL: Duration = Duration::from_millis(100);
/// The first pause before a restart, which doubles, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// A child that was ready for as long has proven itself: failures before are forgotten.
const PROVEN: Duration = Duration::from_secs(600);

/// Where a child is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Its process starts, loads, or waits to be started again.
    Starting,
    /// It is healthy, and asked the known question.
    Canary,
    /// It answers.
    Ready,
    /// It takes no more, and finishes what is in progress.
    Draining,
    /// It has ended for good.
    Dead,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Canary => "being tried",
            Self::Ready => "ready",
            Self::Draining => "draining",
            Self::Dead => "dead",
        })
    }
}

/// What may be known of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// Its state.
    pub state: State,
    /// Processes that were started, the first included.
    pub starts: u32,
    /// Answers in progress.
    pub running: usize,
}

/// A running child, as answers see it.
pub(crate) struct Live {
    pub(crate) reach: Arc<Reach>,
    progress: Mutex<Instant>,
    violations: AtomicU32,
    failed: AtomicU32,
    /// It is to be ended, for this reason.
    broken: watch::Sender<Option<&'static str>>,
}

impl Live {
    fn new(reach: Arc<Reach>) -> Self {
        let progress = Mutex::new(Instant::now());
        Self {
            reach,
            progress,
            violations: AtomicU32::new(0),
            failed: AtomicU32::new(0),
            broken: watch::Sender::new(None),
        }
    }

    pub(crate) fn progressed(&self) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    /// What an answer's end says about the child. One answer that waits in vain may be the child's own queue; when no
    /// answer gets on either, it hangs.
    pub(crate) fn judge(&self, outcome: &Result<(Finish, Usage), Failure>, patience: Duration) {
        match outcome {
            Err(Failure::Violation(violation)) => {
                tracing::warn!(%violation, "the engine broke a rule");
                if self.violations.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_VIOLATIONS {
                    self.broken.send_replace(Some("it broke the rules too often"));
                }
            }
            Err(Failure::Status(_) | Failure::Gone) => {
                if self.failed.fetch_add(1, Ordering::Relaxed) + 1 >= MOST_FAILED {
                    self.broken.send_replace(Some("it says that it is well, and answers nothing"));
                }
            }
            Ok(_) => {
                [&self.failed, &self.violations].iter().for_each(|count| count.store(0, Ordering::Relaxed))
            }
            Err(Failure::TimedOut) => {
                let quiet = self.progress.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
                if quiet >= patience {
                    self.broken.send_replace(Some("it hangs: no answer gets on"));
                }
            }
            // What one client asks for may be refused, or long.
            Err(Failure::Refused(_) | Failure::TooLong) => {}
        }
    }

    async fn broken(&self) -> &'static str {
        let mut broken = self.broken.subscribe();
        let found = broken.wait_for(Option::is_some).await.map(|reason| reason.unwrap_or("it is broken"));
        found.unwrap_or("it is broken")
    }
}

/// How a life ended.
enum End {
    Drained,
    Failed(String),
}

type OnReady = Box<dyn Fn() + Send + Sync>;

struct Inner {
    config: Arc<ChildConfig>,
    program: PathBuf,
    model: Option<PathBuf>,
    canary: Option<Vec<u32>>,
    state: watch::Sender<State>,
    live: Mutex<Option<Arc<Live>>>,
    starts: AtomicU32,
    /// The canary's answer that every start must give.
    known: Mutex<Option<[u8; 32]>>,
    /// One permit for each answer in progress.
    running: Arc<Semaphore>,
    most: usize,
    draining: Notify,
    on_ready_again: OnReady,
}

/// Keeps a child running until it is drained, or has failed too often. Dropping it ends the child at once.
pub struct Supervisor {
    inner: Arc<Inner>,
    task: JoinHandle<()>,
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        self.task.abort(); // which drops the process
    }
}

/// What a supervisor needs besides a child's configuration.
pub struct Setting {
    /// The program that becomes the warden, by [`crate::take_over`]: this one, mostly (`/proc/self/exe`).
    pub warden: PathBuf,
    /// The model, which the child finds at [`crate::MODEL_IN_VIEW`].
    pub model: Option<PathBuf>,
    /// The canary's question in tokens, where questions are sent so.
    pub canary: Option<Vec<u32>>,
    /// Most answers in progress.
    pub most_running: usize,
    /// Called each time that another process than the first has passed its canary, before it is asked anything.
    pub on_ready_again: Box<dyn Fn() + Send + Sync>,
}

/// Why no child can be supervised.
#[derive(Debug, Error)]
pub enum StartError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

impl Supervisor {
    /// Starts the first process; [`Supervisor::settled`] says what becomes of it. Needs a tokio runtime.
    ///
    /// # Errors
    /// If the configuration breaks a rule.
    pub fn start(config: ChildConfig, setting: Setting) -> Result<Self, StartError> {
        config.check()?;
        let Setting { warden, model, canary, most_running, on_ready_again } = setting;
        let inner = Arc::new(Inner {
            known: Mutex::new(config.pinned()),
            config: Arc::new(config),
            program: warden,
            model,
            canary,
            state: watch::Sender::new(State::Starting),
            live: Mutex::new(None),
            starts: AtomicU32::new(0),
            running: Arc::new(Semaphore::new(most_running)),
            most: most_running,
            draining: Notify::new(),
            on_ready_again,
        });
        let task = tokio::spawn(inner.clone().keep());
        Ok(Self { inner, task })
    }

    /// State and counts.
    pub fn status(&self) -> Status {
        let running = self.inner.most - self.inner.running.available_permits();
        Status { state: self.state(), starts: self.inner.starts.load(Ordering::Relaxed), running }
    }

    /// Where the child is in its life.
    pub fn state(&self) -> State {
        *self.inner.state.borrow()
    }

    /// Waits until it is ready or dead.
    pub async fn settled(&self) -> State {
        self.reached(|state| matches!(state, State::Ready | State::Dead)).await
    }

    /// Waits for a state.
    pub async fn reached(&self, wanted: impl Fn(State) -> bool) -> State {
        let mut states = self.inner.state.subscribe();
        states.wait_for(|state| wanted(*state)).await.map_or(State::Dead, |state| *state)
    }

    /// Asks a question, when its turn comes.
    ///
    /// # Errors
    /// If the child is not ready, or no longer is when the turn comes.
    pub async fn ask(&self, question: &Question) -> Result<AnswerStream, AskError> {
        let mut states = self.inner.state.subscribe();
        let permit = tokio::select! {
            biased;
            _ = states.wait_for(|state| *state != State::Ready) => return Err(AskError::NotReady(self.state())),
            permit = self.inner.running.clone().acquire_owned() => permit.expect("the semaphore is never closed"),
        };
        let live = self.inner.live.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let live = live.ok_or(AskError::NotReady(self.state()))?;
        Ok(AnswerStream::start(self.inner.config.clone(), live, question, permit))
    }

    /// Takes no more questions, waits for the answers in progress within the configured time, ends the child.
    pub async fn drain(&self) {
        self.inner.draining.notify_one();
        self.reached(|state| state == State::Dead).await;
    }
}

impl Inner {
    async fn keep(self: Arc<Self>) {
        let (mut failures, mut pause) = (0, PAUSES.0);
        loop {
            let (end, ready_for) = self.life().await;
            match end {
                End::Drained => break,
                End::Failed(why) => {
                    if ready_for >= PROVEN {
                        (failures, pause) = (0, PAUSES.0);
                    }
                    failures += 1;
                    if failures > self.config.limits.restarts {
                        tracing::error!(
                            "the engine: {why}; it failed {failures} times, and is not started again"
                        );
                        break;
                    }
                    tracing::error!("the engine: {why}; it is started again in {pause:?}");
                }
            }
            self.state.send_replace(State::Starting);
            tokio::select! {
                () = self.draining.notified() => break,
                () = tokio::time::sleep(pause) => pause = (2 * pause).min(PAUSES.1),
            }
        }
        self.state.send_replace(State::Dead);
    }

    /// One process, from its start to its end, and for how long it was ready.
    async fn life(&self) -> (End, Duration) {
        self.starts.fetch_add(1, Ordering::Relaxed);
        let mut process = match Process::start(&self.program, &self.config, self.model.clone()).await {
            Ok(process) => process,
            Err(why) => return (End::Failed(format!("it cannot be started: {why}")), Duration::ZERO),
        };
        let live = Arc::new(Live::new(process.reach()));
        let tried = tokio::select! {
            () = process.ended() => Err(End::Failed("it ended before it was ready".to_owned())),
            () = self.draining.notified() => Err(End::Drained),
            tried = self.tried(&live) => tried.map_err(End::Failed),
        };
        let (end, ready_for) = match tried {
            Err(end) => (end, Duration::ZERO),
            Ok(()) => self.serve(&mut process, &live).await,
        };
        // Before it ends: whoever asks now is told at once.
        self.state.send_if_modified(|state| {
            let changes = *state == State::Ready || *state == State::Canary;
            *state = if changes { State::Starting } else { *state };
            changes
        });
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = None;
        process.end().await;
        (end, ready_for)
    }

    /// Waits until it is healthy, then holds its canary against the known one.
    async fn tried(&self, live: &Arc<Live>) -> Result<(), String> {
        let limit = Duration::from_secs(self.config.limits.start);
        let healthy = async {
            while !self.is_healthy(live).await {
                tokio::time::sleep(START_POLL).await;
            }
        };
        tokio::time::timeout(limit, healthy)
            .await
            .map_err(|_| format!("it is not healthy after {limit:?}"))?;
        self.state.send_replace(State::Canary);
        let answer = canary::ask(&self.config, live, self.canary.as_deref()).await?;
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if *known.get_or_insert(answer) == answer {
            return Ok(());
        }
        let answer = hex::encode(answer);
        Err(format!(
            "the canary's answer has SHA-256 {answer}, not the known one: wrong weights, or it computes wrongly"
        ))
    }

    async fn is_healthy(&self, live: &Arc<Live>) -> bool {
        let look = http::status(&live.reach, &self.config.health);
        matches!(tokio::time::timeout(HEALTH_PATIENCE, look).await, Ok(Ok(status)) if status == 200)
    }

    async fn serve(&self, process: &mut Process, live: &Arc<Live>) -> (End, Duration) {
        if self.starts.load(Ordering::Relaxed) > 1 {
            (self.on_ready_again)();
        }
        *self.live.lock().unwrap_or_else(PoisonError::into_inner) = Some(live.clone());
        self.state.send_replace(State::Ready);
        let since = Instant::now();
        tracing::info!("the engine is ready");
        let end = tokio::select! {
            () = process.ended() => End::Failed("its process ended".to_owned()),
            why = live.broken() => End::Failed(why.to_owned()),
            () = self.sick(live) => End::Failed("it is not healthy any more".to_owned()),
            () = self.draining.notified() => {
                self.state.send_replace(State::Draining);
                let all = u32::try_from(self.most).unwrap_or(u32::MAX);
                let idle = self.running.acquire_many(all);
                let limit = Duration::from_secs(self.config.limits.drain);
                // What does not end in time ends with the child.
                let _ = tokio::time::timeout(limit, idle).await;
                End::Drained
            }
        };
        (end, since.elapsed())
    }

    /// Resolves when it was not healthy a few times in a row.
    async fn sick(&self, live: &Arc<Live>) {
        let mut failures = 0;
        while failures < MOST_SICK {
            tokio::time::sleep(Duration::from_millis(self.config.limits.health_every_ms)).await;
            failures = if self.is_healthy(live).await { 0 } else { failures + 1 };
        }
    }
}
