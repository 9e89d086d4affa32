//! One answer of an embedding model: texts become vectors, one after the other, in turn with those of other payers.

use crate::Guest;
use crate::answering::{self, Out, draining, now_ms, within_budget};
use crate::openai::{self, Asked, EmbeddingsRequest, Prompt, Refusal, VectorsVoice};
use crate::record::VectorsRecord;
use crate::sink::Sink;
use cocoon_engine::{Embedder, Embedding, EmbeddingModel, EngineOptions, GenerateError, Payer, Place, Turns};
use cocoon_protocol::{AnswerEvent, Endpoint, Opened, Outcome, RequestHeader, Usage};
use std::sync::Arc;
use zeroize::Zeroizing;

/// Most tokens of a request, as many as an opening holds.
const MAX_TOKENS: usize = cocoon_protocol::MAX_RUN_TOKENS;
/// Tokens that are read without their usage being shown.
const UNSHOWN_TOKENS: u32 = 4096;

/// An embedding model that serves.
pub(crate) struct VectorEngine {
    embedder: Embedder,
    turns: Turns,
}

impl VectorEngine {
    pub(crate) fn new(model: EmbeddingModel, options: &EngineOptions) -> Self {
        Self { embedder: Embedder::new(model, options), turns: Turns::default() }
    }

    /// Texts that are read now: one at a time, by all threads.
    pub(crate) fn running(&self) -> usize {
        usize::from(self.turns.is_busy())
    }
}

/// Answers one request; all that is said goes through `sink`, sealed.
pub(crate) async fn answer(
    guest: &Arc<Guest>,
    engine: &Arc<VectorEngine>,
    opened: Opened,
    payer: Payer,
    sink: Sink,
) {
    let Opened { header, endpoint, prompt, answer } = opened;
    let came_ms = now_ms();
    let out = Out::new(guest, answer, sink, crate::record::engine(None));
    let planned = {
        let (guest, engine) = (Arc::clone(guest), Arc::clone(engine));
        answering::read(&out, move || Work::plan(&guest, &engine.embedder, &header, endpoint, &prompt)).await
    };
    let (outcome, usage) = match planned {
        Err(why) => out.not_begun(why, came_ms).await,
        Ok(work) => work.run(engine, payer, out, came_ms).await,
    };
    tracing::info!(
        prompt_tokens = usage.prompt_tokens,
        ?outcome,
        milliseconds = now_ms().saturating_sub(came_ms),
        "answered with vectors"
    );
}

/// A request that can be run: its tokens, within all limits.
struct Work {
    /// Of each input.
    inputs: Vec<Zeroizing<Vec<u32>>>,
    voice: VectorsVoice,
}

impl Work {
    fn plan(
        guest: &Guest,
        embedder: &Embedder,
        header: &RequestHeader,
        endpoint: Endpoint,
        prompt: &cocoon_protocol::Prompt,
    ) -> Result<Self, Refusal> {
        if guest.is_draining() {
            return Err(draining());
        }
        let name = &guest.config.model.name;
        if endpoint != Endpoint::Embeddings {
            let message = format!("{name} makes embeddings and writes no text; ask a model that does");
            return Err(Refusal::new(400, "unsupported_endpoint", message).with_param("model"));
        }
        let Asked::Vectors(request) = openai::read(endpoint, prompt.expose(), 0)? else {
            return Err(internal());
        };
        let voice = request.voice(name, embedder.dimensions())?;
        let inputs = tokens(embedder, header, &request)?;
        Ok(Self { inputs, voice })
    }

    async fn run(
        self,
        engine: &Arc<VectorEngine>,
        payer: Payer,
        mut out: Out<'_>,
        came_ms: u64,
    ) -> (Outcome, Usage) {
        let Self { inputs, mut voice } = self;
        let mut place = engine.turns.enter(payer);
        out.vectors = Some(VectorsRecord::default());
        let (mut started_ms, mut unshown) = (None, 0);
        for tokens in inputs {
            let count = u32::try_from(tokens.len()).expect("within the budget, a u32");
            let made = match read(engine, &mut place, tokens, &out).await {
                Some(made) => made,
                None if started_ms.is_none() && out.guest.is_draining() => {
                    return out.refuse(draining(), came_ms).await;
                }
                None => return out.end(Outcome::Cancelled, started_ms.unwrap_or(came_ms)).await,
            };
            let began_ms = *started_ms.get_or_insert_with(now_ms);
            // Reading it was the work, whoever still hears of it.
            out.usage.prompt_tokens = out.usage.prompt_tokens.saturating_add(count);
            unshown += count;
            let (tokens, embedding) = match made {
                Ok(made) => made,
                Err(refusal) => return out.refuse(refusal, began_ms).await,
            };
            voice.say(embedding.values());
            if let Some(record) = &mut out.vectors {
                record.hear(tokens, embedding.values());
            }
            if voice.is_due() || unshown >= UNSHOWN_TOKENS {
                if out.emit(AnswerEvent::Chunk(voice.take())).await.is_break() {
                    return out.end(Outcome::Cancelled, began_ms).await;
                }
                unshown = 0;
            }
        }
        let last = voice.close(out.usage);
        let outcome = match out.emit(AnswerEvent::Chunk(last)).await.is_continue() {
            true => Outcome::Stop,
            false => Outcome::Cancelled,
        };
        out.end(outcome, started_ms.unwrap_or(came_ms)).await
    }
}

/// Reads one text when it is its turn; `None` when the reader left or this worker ends before that.
async fn read(
    engine: &Arc<VectorEngine>,
    place: &mut Place,
    tokens: Zeroizing<Vec<u32>>,
    out: &Out<'_>,
) -> Option<Result<(Zeroizing<Vec<u32>>, Embedding), Refusal>> {
    let turn = tokio::select! {
        biased;
        () = out.left() => return None,
        turn = place.turn() => turn,
    };
    let (count, engine) = (tokens.len(), Arc::clone(engine));
    // It is short, and ends before the next has its turn, whoever left meanwhile.
    let made = move || engine.embedder.embed_tokens(&tokens).map(|embedding| (tokens, embedding));
    let made = tokio::task::spawn_blocking(made).await;
    turn.charge(count);
    Some(match made {
        Ok(Ok(made)) => Ok(made),
        Ok(Err(error @ GenerateError::NotANumber)) => {
            Err(Refusal::server(500, "model_damaged", error.to_string()))
        }
        Ok(Err(error)) => Err(Refusal::new(400, "invalid_value", error.to_string()).with_param("input")),
        Err(_) => Err(internal()),
    })
}

/// The tokens of each input: each fits the model, and all together the request and its budget.
fn tokens(
    embedder: &Embedder,
    header: &RequestHeader,
    request: &EmbeddingsRequest,
) -> Result<Vec<Zeroizing<Vec<u32>>>, Refusal> {
    let (most, words) = (embedder.max_tokens(), embedder.vocab_size());
    let (mut all, mut total) = (Vec::with_capacity(request.inputs.len()), 0);
    for (index, input) in request.inputs.iter().enumerate() {
        let tokens = Zeroizing::new(match input {
            Prompt::Text(text) => embedder.tokens(text),
            Prompt::Tokens(tokens) => tokens.clone(),
            Prompt::Chat(_) => return Err(internal()),
        });
        let count = tokens.len();
        if count > most {
            let message = format!(
                "input {index} has {count} tokens, and this model reads {most}: shorten it, or cut it into several"
            );
            return Err(Refusal::new(400, "context_length_exceeded", message).with_param("input"));
        }
        if let Some(token) = tokens.iter().find(|token| **token as usize >= words) {
            let message = format!(
                "input {index} has the token {token}, and this model has {words}: tokens are those of the model's own \
                 tokenizer; send the text instead"
            );
            return Err(Refusal::field("input", message));
        }
        total += count;
        if total > MAX_TOKENS {
            let message = format!(
                "the inputs have more than {MAX_TOKENS} tokens together: send them in several requests"
            );
            return Err(Refusal::new(400, "max_tokens_per_request", message).with_param("input"));
        }
        all.push(tokens);
    }
    within_budget(header, total)?;
    Ok(all)
}

fn internal() -> Refusal {
    Refusal::server(500, "internal", "the guest failed")
}
