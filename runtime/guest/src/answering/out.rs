//! What is said of an answer: sealed, counted, handed to the connection, and ended with its receipt.

use super::{now_ms, refusals};
use crate::Guest;
use crate::openai::Refusal;
use crate::record::{Record, VectorsRecord};
use crate::sink::{Gone, Sink};
use cocoon_protocol::{Answer, AnswerEvent, AnswerSealer, Ending, EngineId, Outcome, Usage};
use std::ops::ControlFlow;

/// What has been said, and how much it is worth.
pub(crate) struct Out<'a> {
    pub(crate) guest: &'a Guest,
    sealer: AnswerSealer,
    sink: Sink,
    pub(crate) usage: Usage,
    /// Completion tokens in the last frame sent.
    shown: u32,
    /// What the engine was asked and what it wrote, for the receipt's opening.
    pub(super) record: Option<Record>,
    /// The same where texts become vectors.
    pub(crate) vectors: Option<VectorsRecord>,
    /// What answers.
    engine: EngineId,
    /// Sealed, and not taken by the reader: frames have numbers, so none may be missing before the last.
    unsent: Vec<u8>,
    /// Why nothing more can be said, once that is so.
    broken: Option<fn() -> Refusal>,
}

impl<'a> Out<'a> {
    pub(crate) fn new(guest: &'a Guest, sealer: AnswerSealer, sink: Sink, engine: EngineId) -> Self {
        let (usage, unsent) = (Usage::default(), Vec::new());
        Self {
            guest,
            sealer,
            sink,
            usage,
            shown: 0,
            record: None,
            vectors: None,
            engine,
            unsent,
            broken: None,
        }
    }
}

impl Out<'_> {
    /// Resolves when the reader left or this worker ends.
    pub(crate) async fn left(&self) {
        tokio::select! {
            () = self.sink.abandoned() => {}
            () = self.guest.drained() => {}
        }
    }

    /// A prompt is charged before it is read: reading it is the work.
    pub(super) fn charge(&mut self, prompt_tokens: u32, cached_tokens: usize) {
        let usage = &mut self.usage;
        usage.prompt_tokens = usage.prompt_tokens.saturating_add(prompt_tokens);
        usage.cached_tokens = usage.cached_tokens.saturating_add(u32::try_from(cached_tokens).unwrap_or(0));
    }

    /// Seals what there is to say; where there is nothing, shows the usage once enough was used.
    pub(crate) async fn tell(&mut self, said: Vec<Answer>) -> ControlFlow<()> {
        if said.is_empty() {
            return self.tick().await;
        }
        for answer in said {
            if self.emit(AnswerEvent::Chunk(answer)).await.is_break() {
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    pub(crate) async fn emit(&mut self, event: AnswerEvent) -> ControlFlow<()> {
        let wire = match self.sealer.seal(&event, self.usage) {
            Ok(wire) => wire,
            Err(error) => {
                tracing::error!(%error, "an event could not be sealed");
                self.broken = Some(refusals::too_long);
                return ControlFlow::Break(());
            }
        };
        self.shown = self.usage.completion_tokens;
        match self.sink.send(wire).await {
            Ok(()) => ControlFlow::Continue(()),
            Err(Gone::Left) => ControlFlow::Break(()),
            Err(Gone::Stalled(wire)) => {
                self.unsent = wire;
                self.broken = Some(refusals::slow_reader);
                ControlFlow::Break(())
            }
        }
    }

    async fn tick(&mut self) -> ControlFlow<()> {
        if self.usage.completion_tokens - self.shown < self.guest.config.tick_tokens {
            return ControlFlow::Continue(());
        }
        self.emit(AnswerEvent::Tick).await
    }

    /// Ends what was not read: it is refused, or its reader left before that.
    pub(crate) async fn not_begun(self, why: Option<Refusal>, came_ms: u64) -> (Outcome, Usage) {
        match why {
            Some(refusal) => self.refuse(refusal, came_ms).await,
            None => self.end(Outcome::Cancelled, came_ms).await,
        }
    }

    /// Ends without an answer. Whether the reader is still there or not, it ends here.
    pub(crate) async fn refuse(mut self, refusal: Refusal, started_ms: u64) -> (Outcome, Usage) {
        self.broken = None;
        self.say(&refusal);
        (self.record, self.vectors) = (None, None);
        self.end(Outcome::Error, started_ms).await
    }

    /// Ends with the receipt. An answer that is broken off says why, if anybody is there to hear it: its reader must not
    /// take it for a whole one.
    pub(crate) async fn end(mut self, outcome: Outcome, started_ms: u64) -> (Outcome, Usage) {
        if outcome == Outcome::Cancelled {
            let draining = || self.guest.is_draining().then_some(refusals::broken_off as fn() -> Refusal);
            if let Some(why) = self.broken.or_else(draining) {
                self.say(&why());
            }
        }
        let usage = self.usage;
        let run = self.record.filter(|_| usage.prompt_tokens > 0).map(Record::finish);
        let vectors = self.vectors.and_then(VectorsRecord::finish);
        let (finished_ms, engine) = (now_ms(), self.engine);
        let ending = Ending { usage, started_ms, finished_ms, outcome, engine, run, vectors };
        match self.sealer.finish(ending, &self.guest.receipt) {
            Ok(wire) => self.unsent.extend(wire),
            Err(error) => tracing::error!(%error, "the answer could not be ended"),
        }
        self.sink.last(self.unsent);
        (outcome, usage)
    }

    /// Seals an error, to be sent with the end.
    fn say(&mut self, refusal: &Refusal) {
        let body = serde_json::to_vec(&refusal.error).expect("strings always encode");
        let event = AnswerEvent::Error { status: refusal.status, body: Answer::new(body) };
        match self.sealer.seal(&event, self.usage) {
            Ok(wire) => self.unsent.extend(wire),
            Err(error) => tracing::error!(%error, "an error could not be sealed"),
        }
    }
}
