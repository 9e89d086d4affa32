//! From a request's bytes to what the engine is asked: read, rendered, counted, and held against every limit.

use super::embedded;
use super::refusals::draining;
use crate::Guest;
use crate::openai::{self, Asked, Call, Naming, Refusal, Voice};
use crate::record::Record;
use cocoon_engine::{Constraint, Engine, Params, Payer, Request, Salt};
use cocoon_grammar::Grammar;
use cocoon_protocol::{Endpoint, MAX_EVENT, Prompt, RequestHeader};
use zeroize::Zeroizing;

/// What is known of a request before it is read.
pub(super) struct Asking {
    pub(super) endpoint: Endpoint,
    pub(super) payer: Payer,
    pub(super) seed: u64,
    pub(super) came_ms: u64,
}

/// A request that can be run: its tokens, within the client's budget.
pub(super) struct Plan {
    /// One for each prompt.
    pub(super) requests: Vec<Request>,
    /// Of each prompt.
    pub(super) prompt_tokens: Vec<u32>,
    /// Answers to each prompt.
    pub(super) choices: u32,
    pub(super) voice: Box<dyn Voice>,
    /// What is kept for the receipt's opening, which holds one run: of one prompt, with all answers to it.
    pub(super) record: Option<Record>,
}

impl Plan {
    pub(super) fn read(
        guest: &Guest,
        header: &RequestHeader,
        prompt: Prompt,
        asked: &Asking,
    ) -> Result<Self, Refusal> {
        if guest.is_draining() {
            return Err(draining());
        }
        let read = openai::read(asked.endpoint, prompt.expose(), asked.seed)?;
        drop(prompt);
        match read {
            Asked::Text(call) => Self::make(guest, header, *call, asked),
            // A worker has one model: it writes text or makes vectors.
            Asked::Vectors(_) => {
                let name = &guest.config.model.name;
                let message =
                    format!("{name} writes text and makes no embeddings; ask for an embedding model");
                Err(Refusal::new(400, "unsupported_endpoint", message).with_param("model"))
            }
        }
    }

    fn make(guest: &Guest, header: &RequestHeader, mut call: Call, asked: &Asking) -> Result<Self, Refusal> {
        let engine = embedded(guest);
        let model = engine.model();
        call.take_form(guest.grammars.form(model));
        let prompts: Vec<Zeroizing<Vec<u32>>> =
            call.prompts.iter().map(|prompt| tokens(engine, &call, prompt)).collect::<Result<_, _>>()?;
        let prompt_tokens = within_limits(engine, header, &prompts)?;
        let max_tokens = max_tokens(engine, header, &call, &prompts)?;
        within_places(guest, &call)?;
        let naming = Naming {
            id: hex::encode(header.request_id),
            created: asked.came_ms / 1000,
            model: guest.config.model.name.clone(),
            fingerprint: guest.fingerprint.clone(),
        };
        let grammar = crate::grammar::grammar(&call);
        let voice = call.voice(naming, Some(model));
        let Call { options, logprobs, .. } = call;
        let (choices, salt) = (options.choices, options.cache_salt);
        let params = Params {
            sampling: options.sampling,
            max_tokens: max_tokens as usize,
            stop: options.stop,
            logit_bias: options.logit_bias,
            logprobs,
            ..Params::default()
        };
        let request = |prompt: Zeroizing<Vec<u32>>| {
            let constraints = constraints(guest, engine, grammar.as_ref(), choices)?;
            let request = Request::new(prompt.to_vec(), params.clone());
            let request = request.with_payer(asked.payer).with_choices(choices).with_constraints(constraints);
            Ok(match &salt {
                Some(secret) => request.with_salt(Salt::new(secret.as_bytes())),
                None => request,
            })
        };
        let requests: Vec<Request> = prompts.into_iter().map(request).collect::<Result<_, Refusal>>()?;
        let record = match requests.as_slice() {
            [request] => Some(Record::of(request, grammar.as_ref().map(|(grammar, _)| grammar))),
            _ => None,
        };
        Ok(Self { requests, prompt_tokens, choices, voice, record })
    }
}

/// What holds each of `choices` answers to a grammar, if one does.
fn constraints(
    guest: &Guest,
    engine: &Engine,
    grammar: Option<&(Grammar, &str)>,
    choices: u32,
) -> Result<Vec<Box<dyn Constraint>>, Refusal> {
    let Some((grammar, param)) = grammar else { return Ok(Vec::new()) };
    guest.grammars.constraints(engine.model(), grammar, choices, param)
}

/// The tokens that an answer goes on from.
fn tokens(engine: &Engine, call: &Call, prompt: &openai::Prompt) -> Result<Zeroizing<Vec<u32>>, Refusal> {
    let model = engine.model();
    let tokenizer = model.tokenizer();
    Ok(Zeroizing::new(match prompt {
        openai::Prompt::Chat(conversation) => {
            let text = conversation
                .render(model.vocabulary(), call.form.as_ref())
                .map_err(|error| Refusal::from(&error))?;
            tokenizer.encode(&text, true)
        }
        openai::Prompt::Text(text) => {
            tokenizer.bos().into_iter().chain(tokenizer.encode(text, false)).collect()
        }
        openai::Prompt::Tokens(tokens) => tokens.clone(),
    }))
}

/// Tokens of each prompt: each fits the context, and all together the budget.
fn within_limits(
    engine: &Engine,
    header: &RequestHeader,
    prompts: &[Zeroizing<Vec<u32>>],
) -> Result<Vec<u32>, Refusal> {
    let context = engine.max_context();
    if let Some(long) = prompts.iter().map(|prompt| prompt.len()).find(|tokens| *tokens >= context) {
        let message =
            format!("the prompt has {long} tokens, the context holds {context}: shorten the prompt");
        return Err(Refusal::new(400, "context_length_exceeded", message));
    }
    let tokens: usize = prompts.iter().map(|prompt| prompt.len()).sum();
    within_budget(header, tokens)?;
    let each = |prompt: &Zeroizing<Vec<u32>>| u32::try_from(prompt.len()).expect("within the budget, a u32");
    Ok(prompts.iter().map(each).collect())
}

pub(crate) fn within_budget(header: &RequestHeader, tokens: usize) -> Result<(), Refusal> {
    let budget = header.budget.prompt_tokens;
    if tokens <= budget as usize {
        return Ok(());
    }
    Err(over_budget(budget, tokens))
}

pub(crate) fn over_budget(budget: u32, tokens: usize) -> Refusal {
    let message = format!("the prompt has {tokens} tokens, its budget is {budget}: allow more prompt tokens");
    Refusal::new(400, "budget_exceeded", message)
}

/// As many answers as this worker has places for, running and waiting: more would be busy for ever.
fn within_places(guest: &Guest, call: &Call) -> Result<(), Refusal> {
    let places = guest.config.max_running + guest.config.max_queued;
    let answers = (call.options.choices as usize).saturating_mul(call.prompts.len());
    if answers <= places {
        return Ok(());
    }
    let field = if call.prompts.len() > 1 { "prompt" } else { "n" };
    let message = format!(
        "{answers} answers are asked for, and this worker has places for {places}: ask in several requests"
    );
    Err(Refusal::field(field, message))
}

/// Most tokens of each answer: what was asked for, an even share of the budget, what fits the context.
fn max_tokens(
    engine: &Engine,
    header: &RequestHeader,
    call: &Call,
    prompts: &[Zeroizing<Vec<u32>>],
) -> Result<u32, Refusal> {
    let answers = call.options.choices.saturating_mul(u32::try_from(prompts.len()).unwrap_or(u32::MAX));
    let budget = header.budget.completion_tokens;
    let share = budget / answers.max(1);
    if share == 0 && budget > 0 {
        let message =
            format!("{answers} answers do not fit a budget of {budget} tokens: allow more completion tokens");
        return Err(Refusal::new(400, "budget_exceeded", message));
    }
    let longest = prompts.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
    let room = u32::try_from(engine.max_context() - longest).unwrap_or(u32::MAX);
    let tokens = call.max_tokens.unwrap_or(u32::MAX).min(share).min(room);
    if call.likelihood_bytes(answers, tokens) > MAX_EVENT {
        let message = "the logprobs of so many tokens do not fit one piece of an answer: stream it, lower the limit of \
                       tokens, or ask for fewer alternatives";
        return Err(Refusal::field("logprobs", message));
    }
    Ok(tokens)
}
