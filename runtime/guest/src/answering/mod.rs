//! One answer, from the opened request to the receipt. A task of its own; the engine runs many together.

mod out;
mod plan;
mod refusals;
mod run;

pub(crate) use out::Out;
pub(crate) use plan::{over_budget, within_budget};
pub(crate) use refusals::draining;

use crate::Guest;
use crate::openai::Refusal;
use crate::serving::Serving;
use crate::sink::Sink;
use cocoon_engine::{Engine, Payer};
use cocoon_protocol::{Opened, Outcome, Usage};
use plan::{Asking, Plan};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Answers one request; all that is said goes through `sink`, sealed. `payer` is the host's word for who shares this
/// worker evenly, and nothing else.
pub(crate) async fn answer(guest: Arc<Guest>, opened: Opened, payer: Payer, sink: Sink) {
    match &guest.engine {
        Serving::Child(child) => {
            return crate::child::answer(guest.clone(), child.clone(), opened, payer, sink).await;
        }
        Serving::Vectors(engine) => return crate::vectors::answer(&guest, engine, opened, payer, sink).await,
        Serving::Embedded(_) => {}
    }
    let Opened { header, endpoint, prompt, answer } = opened;
    let came_ms = now_ms();
    let seed = u64::from_le_bytes(random());
    let out = Out::new(&guest, answer, sink, crate::record::engine(guest.engine.kernels()));
    let planned = {
        let (guest, header) = (guest.clone(), header.clone());
        let asked = Asking { endpoint, payer, seed, came_ms };
        read(&out, move || Plan::read(&guest, &header, prompt, &asked)).await
    };
    let (outcome, usage) = match planned {
        Ok(plan) => plan.run(out, came_ms).await,
        Err(why) => out.not_begun(why, came_ms).await,
    };
    log(usage, outcome, came_ms);
}

/// Reads a request. Not all at once: what is read takes many times its length while it is read, and processors from those that
/// answer. And not on a thread that serves others: templates and tokenizers take their time with a long prompt. Who left
/// before it is refused nothing.
pub(crate) async fn read<T: Send + 'static>(
    out: &Out<'_>,
    plan: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Option<Refusal>> {
    let permit = tokio::select! {
        biased;
        () = out.left() => None,
        permit = out.guest.reading.clone().acquire_owned() => permit.ok(),
    };
    let permit = permit.ok_or_else(|| out.guest.is_draining().then(draining))?;
    let planned = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        plan()
    });
    let planned = planned.await.unwrap_or_else(|_| Err(Refusal::server(500, "internal", "the guest failed")));
    planned.map_err(Some)
}

fn log(usage: Usage, outcome: Outcome, came_ms: u64) {
    tracing::info!(
        prompt_tokens = usage.prompt_tokens,
        cached_tokens = usage.cached_tokens,
        completion_tokens = usage.completion_tokens,
        ?outcome,
        milliseconds = now_ms().saturating_sub(came_ms),
        "answered"
    );
}

/// The first bytes of an answer, to be sent before anything else is known.
pub(crate) fn preamble(opened: &Opened) -> Vec<u8> {
    opened.answer.preamble()
}

/// The engine that is built in: a child's answers have left long before.
fn embedded(guest: &Guest) -> &Engine {
    guest.engine.embedded().expect("a child is asked elsewhere")
}

pub(crate) fn random() -> [u8; 8] {
    use ring::rand::SecureRandom;
    let mut bytes = [0; 8];
    ring::rand::SystemRandom::new().fill(&mut bytes).expect("the system has a random generator");
    bytes
}

pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
