//! `/v1/responses`: requests. Without a memory: each request brings its whole conversation.

use super::fields::Fields;
use super::format::Format;
use super::logprobs::decimal;
use super::options::{self, Options};
use super::refusal::Refusal;
use super::tools::{self, Tools};
use super::{Call, Conversation, Prompt, Style, responses_input};
use cocoon_engine::{MAX_TOP_LOGPROBS, Sampling};
use serde_json::{Value, json};

/// What OpenAI knows and this worker cannot do, with the reason.
pub(super) const REFUSED: &[(&str, &str)] = &[
    ("previous_response_id", "it keeps nothing: send the whole conversation in input"),
    ("conversation", "it keeps nothing: send the whole conversation in input"),
    ("store", "it keeps nothing"),
    ("background", "it keeps nothing"),
    ("prompt", "it keeps no prompts: send the text in input"),
    ("reasoning", "its model has no such setting"),
    ("max_tool_calls", "it calls no tools of its own"),
    ("context_management", "it keeps nothing"),
];

/// What a response repeats of its request.
pub(super) struct Echo {
    /// Fields of the response object, as they were asked for.
    pub(super) fields: Value,
}

pub(super) fn read(body: &[u8], seed: u64) -> Result<Call, Refusal> {
    let mut fields = Fields::read(body)?;
    let metadata = fields.take("metadata").unwrap_or_else(|| json!({}));
    let instructions = fields.text("instructions")?;
    let messages = responses_input::messages(fields.take("input"), instructions.as_deref())?;
    let (mut text, mut wanted) = (json!({"format": {"type": "text"}}), Format::Free);
    if let Some(mut given) = fields.object("text")? {
        given.refuse(&[("verbosity", "its model has no such setting")])?;
        if let Some(format) = given.take("format") {
            text = json!({"format": format});
            wanted = Format::response(Fields::of(format, "text.format")?)?;
        }
        given.finish()?;
    }
    let told_tools = fields.list("tools")?.unwrap_or_default();
    let choice = fields.take("tool_choice").unwrap_or_else(|| "auto".into());
    let parallel = fields.boolean("parallel_tool_calls")?.unwrap_or(true);
    let mut tools = {
        let given = json!({"tools": told_tools, "tool_choice": choice, "parallel_tool_calls": parallel});
        Tools::take(&mut Fields::of(given, "").map(Fields::at_top)?, tools::Style::Flat)?
    };
    let logprobs = logprobs(&mut fields)?;
    let max_tokens = options::limit(&mut fields, "max_output_tokens", 1)?;
    match fields.text("truncation")?.as_deref() {
        None | Some("disabled") => {}
        Some(_) => {
            return Err(Refusal::unsupported("truncation", "only disabled is: shorten the input yourself"));
        }
    }
    fields.refuse(REFUSED)?;
    refuse_of_chat(&mut fields)?;
    let default = Sampling::default();
    let temperature = as_given(&fields, "temperature", default.temperature);
    let top_p = as_given(&fields, "top_p", default.top_p);
    let options = Options::take(&mut fields, seed)?;
    fields.finish()?;
    let told = tools.as_mut().map(Tools::told).unwrap_or_default();
    let fields = json!({
        "instructions": instructions, "max_output_tokens": max_tokens, "metadata": metadata,
        "parallel_tool_calls": parallel, "temperature": temperature, "text": text,
        "tool_choice": choice, "tools": told_tools, "top_p": top_p, "truncation": "disabled",
        "previous_response_id": null, "reasoning": {"effort": null, "summary": null}, "store": false,
        "top_logprobs": logprobs.unwrap_or(0), "background": false,
    });
    let prompts = vec![Prompt::Chat(Conversation { messages, tools: told })];
    let style = Style::Response(Echo { fields });
    Ok(Call { prompts, options, max_tokens, logprobs, format: wanted, tools, form: None, style })
}

/// A number as the client wrote it, or what is used where it wrote none.
fn as_given(fields: &Fields, field: &str, default: f32) -> Value {
    fields.peek(field).cloned().unwrap_or_else(|| decimal(default))
}

/// Fields of the other endpoints that this one does not have.
fn refuse_of_chat(fields: &mut Fields) -> Result<(), Refusal> {
    for field in ["n", "stop", "logit_bias", "presence_penalty", "frequency_penalty"] {
        if fields.take(field).is_some() {
            return Err(Refusal::unknown(field));
        }
    }
    // Of the options only obfuscation is known, and every sealed frame is padded anyway.
    if let Some(mut options) = fields.object("stream_options")? {
        options.ignore(&["include_obfuscation"]);
        options.finish()?;
    }
    Ok(())
}

/// `include` asks for the logprobs, `top_logprobs` for alternatives.
fn logprobs(fields: &mut Fields) -> Result<Option<u32>, Refusal> {
    let mut wanted = false;
    for (index, value) in fields.list("include")?.unwrap_or_default().into_iter().enumerate() {
        let name = format!("include[{index}]");
        match value.as_str() {
            Some("message.output_text.logprobs") => wanted = true,
            // What there is none of, or what is never left out, can be asked for.
            Some("reasoning.encrypted_content") => {}
            Some(_) => return Err(Refusal::unsupported(&name, "it has message.output_text.logprobs only")),
            None => return Err(Refusal::wrong_type(&name, "a string", &value)),
        }
    }
    match fields.count("top_logprobs")? {
        Some(top) if top > u64::from(MAX_TOP_LOGPROBS) => {
            let message = format!("top_logprobs must be between 0 and {MAX_TOP_LOGPROBS}");
            Err(Refusal::field("top_logprobs", message))
        }
        Some(top) => Ok((wanted || top > 0).then_some(top as u32)),
        None => Ok(wanted.then_some(0)),
    }
}
