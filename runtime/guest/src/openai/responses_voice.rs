//! `/v1/responses`: answers, whole or as events.

use super::calls::{Calls, Piece};
use super::responses::Echo;
use super::voice::{self, Said, Told, Voice};
use super::wipe::{told, wipe};
use cocoon_engine::Finish;
use cocoon_protocol::{Answer, Usage};
use serde_json::{Value, json};
use zeroize::Zeroizing;

pub(super) struct ResponsesVoice {
    told: Told,
    echo: Echo,
    reader: Option<Calls>,
    /// Items that are whole.
    items: Vec<Value>,
    open: Option<Open>,
    /// Logprobs of tokens whose text was not told yet.
    likelihoods: Vec<Value>,
    sequence: u64,
    finish: Option<Finish>,
}

/// The item that is being written.
struct Open {
    id: String,
    /// The name of the tool, for a call.
    call: Option<Zeroizing<String>>,
    text: Zeroizing<String>,
    logprobs: Vec<Value>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.logprobs.iter_mut().for_each(wipe);
    }
}

impl Drop for ResponsesVoice {
    fn drop(&mut self) {
        self.items.iter_mut().chain(&mut self.likelihoods).for_each(wipe);
        wipe(&mut self.echo.fields);
    }
}

impl ResponsesVoice {
    pub(super) fn new(told: Told, echo: Echo) -> Self {
        let reader = told.reader();
        let (items, likelihoods) = (Vec::new(), Vec::new());
        Self { told, echo, reader, items, open: None, likelihoods, sequence: 0, finish: None }
    }

    /// The response object as of now.
    fn response(&self, status: &str, usage: Option<Usage>) -> Value {
        let naming = &self.told.naming;
        let mut response = json!({
            "id": format!("resp_{}", naming.id), "object": "response", "created_at": naming.created,
            "status": status, "model": naming.model, "output": self.items, "error": null,
            "incomplete_details": null, "usage": usage.map(usage_json),
        });
        if status == "incomplete" {
            response["incomplete_details"] = json!({"reason": "max_output_tokens"});
        }
        if let (Some(response), Some(echo)) = (response.as_object_mut(), self.echo.fields.as_object()) {
            response.extend(echo.iter().map(|(name, value)| (name.clone(), value.clone())));
        }
        response
    }

    /// One event of a stream; nothing where the answer is whole.
    fn event(&mut self, out: &mut Vec<Answer>, kind: &str, mut event: Value) {
        if !self.told.stream {
            return wipe(&mut event);
        }
        event["type"] = kind.into();
        event["sequence_number"] = self.sequence.into();
        self.sequence += 1;
        out.push(told(event));
    }

    fn open(&mut self, out: &mut Vec<Answer>, call: Option<Zeroizing<String>>) {
        self.shut(out, "completed");
        let prefix = if call.is_some() { "fc" } else { "msg" };
        let id = format!("{prefix}_{}_{}", self.told.naming.id, self.items.len());
        let open = Open { id, call, text: Zeroizing::default(), logprobs: Vec::new() };
        let (at, id, is_call) = (self.items.len(), open.id.clone(), open.call.is_some());
        let mut item = self.item(&open, "in_progress");
        if !is_call {
            item["content"] = json!([]);
        }
        self.open = Some(open);
        self.event(out, "response.output_item.added", json!({"output_index": at, "item": item}));
        if !is_call {
            let part = json!({"type": "output_text", "text": "", "annotations": [], "logprobs": []});
            let event = json!({"item_id": id, "output_index": at, "content_index": 0, "part": part});
            self.event(out, "response.content_part.added", event);
        }
    }

    /// The item as JSON.
    fn item(&self, open: &Open, status: &str) -> Value {
        match &open.call {
            Some(name) => json!({
                "id": open.id, "type": "function_call", "status": status, "name": name.as_str(),
                "call_id": format!("call_{}_{}", self.told.naming.id, self.items.len()),
                "arguments": open.text.as_str(),
            }),
            None => json!({
                "id": open.id, "type": "message", "status": status, "role": "assistant",
                "content": [part(open)],
            }),
        }
    }

    /// Ends the item that is being written.
    fn shut(&mut self, out: &mut Vec<Answer>, status: &str) {
        let Some(mut open) = self.open.take() else { return };
        match open.call {
            // Of tokens whose text was held back, and became none.
            None => open.logprobs.append(&mut self.likelihoods),
            Some(_) => self.forget_likelihoods(),
        }
        let at = self.items.len();
        let item = self.item(&open, status);
        let place = |more: Value| {
            let mut event = json!({"item_id": open.id, "output_index": at});
            if let (Some(event), Value::Object(more)) = (event.as_object_mut(), more) {
                event.extend(more);
            }
            event
        };
        match &open.call {
            Some(name) => {
                let done = place(json!({"name": name.as_str(), "arguments": open.text.as_str()}));
                self.event(out, "response.function_call_arguments.done", done);
            }
            None => {
                let done =
                    place(json!({"content_index": 0, "text": open.text.as_str(), "logprobs": open.logprobs}));
                self.event(out, "response.output_text.done", done);
                let done = place(json!({"content_index": 0, "part": part(&open)}));
                self.event(out, "response.content_part.done", done);
            }
        }
        self.items.push(item.clone());
        self.event(out, "response.output_item.done", json!({"output_index": at, "item": item}));
    }

    /// Of tokens of a call, which has no place for them.
    fn forget_likelihoods(&mut self) {
        self.likelihoods.drain(..).for_each(|mut likelihood| wipe(&mut likelihood));
    }

    fn take(&mut self, out: &mut Vec<Answer>, piece: Piece) {
        let at = self.items.len();
        match piece {
            Piece::Text(text) => {
                if self.open.as_ref().is_none_or(|open| open.call.is_some()) {
                    self.open(out, None);
                }
                let at = self.items.len();
                let logprobs = std::mem::take(&mut self.likelihoods);
                let Some(open) = &mut self.open else { return };
                open.text.push_str(&text);
                open.logprobs.extend(logprobs.iter().cloned());
                let event = json!({
                    "item_id": open.id, "output_index": at, "content_index": 0, "delta": text.as_str(),
                    "logprobs": logprobs,
                });
                self.event(out, "response.output_text.delta", event);
            }
            Piece::Call(name) => {
                self.forget_likelihoods();
                self.open(out, Some(name));
            }
            Piece::Arguments(text) => {
                self.forget_likelihoods();
                let Some(open) = &mut self.open else { return };
                open.text.push_str(&text);
                let event = json!({"item_id": open.id, "output_index": at, "delta": text.as_str()});
                self.event(out, "response.function_call_arguments.delta", event);
            }
            Piece::End => self.shut(out, "completed"),
        }
    }
}

fn part(open: &Open) -> Value {
    json!({"type": "output_text", "text": open.text.as_str(), "annotations": [], "logprobs": open.logprobs})
}

fn usage_json(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": voice::total(usage),
    })
}

impl Voice for ResponsesVoice {
    fn begin(&mut self) -> Vec<Answer> {
        let mut out = Vec::new();
        for kind in ["response.created", "response.in_progress"] {
            let response = self.response("in_progress", None);
            self.event(&mut out, kind, json!({"response": response}));
        }
        out
    }

    fn say(&mut self, said: Said<'_>) -> Vec<Answer> {
        if let Some((token, likely)) = said.token {
            let likelihood = self.told.likelihood(token, likely);
            self.likelihoods.push(likelihood);
        }
        let pieces = match &mut self.reader {
            Some(reader) => reader.push(said.text),
            None if said.text.is_empty() => Vec::new(),
            None => vec![Piece::Text(Zeroizing::new(said.text.to_owned()))],
        };
        let mut out = Vec::new();
        pieces.into_iter().for_each(|piece| self.take(&mut out, piece));
        out
    }

    fn end(&mut self, _choice: u32, finish: Finish) -> Vec<Answer> {
        let mut out = Vec::new();
        let rest = self.reader.as_mut().map(Calls::finish).unwrap_or_default();
        rest.into_iter().for_each(|piece| self.take(&mut out, piece));
        if self.items.is_empty() && self.open.is_none() {
            self.open(&mut out, None); // an answer of no text is a message without any
        }
        let inside = self.reader.as_ref().is_some_and(Calls::is_inside);
        let status = if finish == Finish::Length || inside { "incomplete" } else { "completed" };
        self.shut(&mut out, status);
        self.finish = Some(finish);
        out
    }

    fn close(&mut self, usage: Usage) -> Vec<Answer> {
        let status = if self.finish == Some(Finish::Length) { "incomplete" } else { "completed" };
        let response = self.response(status, Some(usage));
        if !self.told.stream {
            return vec![told(response)];
        }
        let mut out = Vec::new();
        self.event(&mut out, &format!("response.{status}"), json!({"response": response}));
        out
    }
}
