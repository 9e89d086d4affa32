//! `/v1/chat/completions`: requests.

use super::fields::Fields;
use super::format::Format;
use super::options::{self, Options};
use super::refusal::Refusal;
use super::tools::{self, Tools};
use super::{Call, Conversation, Prompt, Style, messages};
use cocoon_engine::MAX_TOP_LOGPROBS;

/// What OpenAI knows and this worker cannot do, with the reason.
pub(super) const REFUSED: &[(&str, &str)] = &[
    ("functions", "it is deprecated: use tools"),
    ("function_call", "it is deprecated: use tool_choice"),
    ("audio", "it writes text only"),
    ("prediction", "it has no speculative decoding"),
    ("web_search_options", "it has no network"),
    ("store", "it keeps nothing"),
    ("reasoning_effort", "its model has no such setting"),
    ("verbosity", "its model has no such setting"),
];

pub(super) fn read(body: &[u8], seed: u64) -> Result<Call, Refusal> {
    let mut fields = Fields::read(body)?;
    let messages = messages::messages(fields.list("messages")?)?;
    let options = Options::take(&mut fields, seed)?;
    let max_tokens = max_tokens(&mut fields)?;
    let logprobs = logprobs(&mut fields)?;
    let format = match fields.object("response_format")? {
        None => Format::Free,
        Some(format) => Format::chat(format)?,
    };
    let mut tools = Tools::take(&mut fields, tools::Style::Nested)?;
    modalities(&mut fields)?;
    fields.refuse(REFUSED)?;
    fields.finish()?;
    let told = tools.as_mut().map(Tools::told).unwrap_or_default();
    let (prompts, style) = (vec![Prompt::Chat(Conversation { messages, tools: told })], Style::Chat);
    Ok(Call { prompts, options, max_tokens, logprobs, format, tools, form: None, style })
}

/// The newer name and the older one, which OpenAI does not take together.
fn max_tokens(fields: &mut Fields) -> Result<Option<u32>, Refusal> {
    let newer = options::limit(fields, "max_completion_tokens", 1)?;
    let older = options::limit(fields, "max_tokens", 1)?;
    if newer.is_some() && older.is_some() {
        let message = "max_tokens is the older name of max_completion_tokens: give one of them";
        return Err(Refusal::field("max_tokens", message));
    }
    Ok(newer.or(older))
}

fn logprobs(fields: &mut Fields) -> Result<Option<u32>, Refusal> {
    let wanted = fields.boolean("logprobs")?.unwrap_or(false);
    match fields.count("top_logprobs")? {
        None => Ok(wanted.then_some(0)),
        Some(top) if top > u64::from(MAX_TOP_LOGPROBS) => {
            let message = format!("top_logprobs must be between 0 and {MAX_TOP_LOGPROBS}");
            Err(Refusal::field("top_logprobs", message))
        }
        Some(_) if !wanted => {
            Err(Refusal::field("top_logprobs", "top_logprobs is only allowed where logprobs is true"))
        }
        Some(top) => Ok(Some(top as u32)),
    }
}

fn modalities(fields: &mut Fields) -> Result<(), Refusal> {
    match fields.list("modalities")? {
        Some(kinds) if kinds.iter().any(|kind| kind != "text") => {
            Err(Refusal::unsupported("modalities", "it writes text only"))
        }
        _ => Ok(()),
    }
}
