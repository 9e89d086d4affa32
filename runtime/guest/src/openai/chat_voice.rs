//! `/v1/chat/completions`: answers.

use super::calls::{Calls, Piece};
use super::voice::{self, Said, Told, Voice};
use super::wipe::{told, wipe};
use cocoon_engine::Finish;
use cocoon_protocol::{Answer, Usage};
use serde_json::{Value, json};
use zeroize::Zeroizing;

pub(super) struct ChatVoice {
    told: Told,
    choices: Vec<Choice>,
}

/// One answer so far.
struct Choice {
    /// Where tools may be called.
    reader: Option<Calls>,
    calls: Vec<Call>,
    /// Kept where the answer is not streamed.
    content: Zeroizing<String>,
    logprobs: Vec<Value>,
    finish: Option<&'static str>,
}

impl Drop for Choice {
    fn drop(&mut self) {
        self.logprobs.iter_mut().for_each(wipe);
    }
}

/// A call of a tool so far.
struct Call {
    id: String,
    name: Zeroizing<String>,
    arguments: Zeroizing<String>,
}

impl ChatVoice {
    pub(super) fn new(told: Told) -> Self {
        let choice = |_| Choice {
            reader: told.reader(),
            calls: Vec::new(),
            content: Zeroizing::default(),
            logprobs: Vec::new(),
            finish: None,
        };
        Self { choices: (0..told.choices).map(choice).collect(), told }
    }

    fn object(&self, kind: &str, choices: Value) -> Value {
        let naming = &self.told.naming;
        json!({
            "id": format!("chatcmpl-{}", naming.id), "object": kind, "created": naming.created,
            "model": naming.model, "system_fingerprint": naming.fingerprint, "choices": choices,
        })
    }

    fn chunk(&self, choice: u32, delta: Value, logprobs: Value, finish: Option<&str>) -> Answer {
        let choices =
            json!([{"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": finish}]);
        let mut chunk = self.object("chat.completion.chunk", choices);
        if self.told.include_usage {
            chunk["usage"] = Value::Null; // in all chunks but the last
        }
        told(chunk)
    }

    /// Takes pieces in; gives the deltas that tell of them, where the answer is streamed.
    fn take(&mut self, choice: u32, pieces: Vec<Piece>) -> Vec<Value> {
        let stream = self.told.stream;
        let id = &self.told.naming.id;
        let Some(state) = self.choices.get_mut(choice as usize) else { return Vec::new() };
        let mut deltas = Vec::new();
        for piece in pieces {
            let delta = match piece {
                Piece::Text(text) if stream => json!({"content": text.as_str()}),
                Piece::Text(text) => {
                    state.content.push_str(&text);
                    continue;
                }
                Piece::Call(name) => {
                    let call = format!("call_{id}_{choice}_{}", state.calls.len());
                    let function = json!({"name": name.as_str(), "arguments": ""});
                    let delta = json!({"tool_calls": [{
                        "index": state.calls.len(), "id": call, "type": "function", "function": function,
                    }]});
                    state.calls.push(Call { id: call, name, arguments: Zeroizing::default() });
                    delta
                }
                Piece::Arguments(text) => {
                    let index = state.calls.len().saturating_sub(1);
                    if let Some(call) = state.calls.last_mut().filter(|_| !stream) {
                        call.arguments.push_str(&text);
                    }
                    json!({"tool_calls": [{"index": index, "function": {"arguments": text.as_str()}}]})
                }
                Piece::End => continue,
            };
            deltas.push(delta);
        }
        if stream { deltas } else { Vec::new() }
    }

    fn whole_choice(&self, index: usize, choice: &Choice) -> Value {
        let calls: Vec<Value> = choice.calls.iter().map(whole_call).collect();
        let content = if choice.content.is_empty() && !calls.is_empty() {
            Value::Null
        } else {
            choice.content.as_str().into()
        };
        let mut message = json!({"role": "assistant", "content": content, "refusal": null});
        if !calls.is_empty() {
            message["tool_calls"] = calls.into();
        }
        let logprobs = match self.told.logprobs {
            None => Value::Null,
            Some(_) => json!({"content": choice.logprobs, "refusal": null}),
        };
        json!({"index": index, "message": message, "logprobs": logprobs, "finish_reason": choice.finish})
    }
}

fn whole_call(call: &Call) -> Value {
    let function = json!({"name": call.name.as_str(), "arguments": call.arguments.as_str()});
    json!({"id": call.id, "type": "function", "function": function})
}

impl Voice for ChatVoice {
    fn begin(&mut self) -> Vec<Answer> {
        if !self.told.stream {
            return Vec::new();
        }
        let role =
            |choice| self.chunk(choice, json!({"role": "assistant", "content": ""}), Value::Null, None);
        (0..self.told.choices).map(role).collect()
    }

    fn say(&mut self, said: Said<'_>) -> Vec<Answer> {
        let likelihood = said.token.map(|(token, likely)| self.told.likelihood(token, likely));
        let Some(state) = self.choices.get_mut(said.choice as usize) else { return Vec::new() };
        let pieces = match &mut state.reader {
            Some(reader) => reader.push(said.text),
            None if said.text.is_empty() => Vec::new(),
            None => vec![Piece::Text(Zeroizing::new(said.text.to_owned()))],
        };
        let mut likelihood = match likelihood {
            Some(likelihood) if !self.told.stream => {
                state.logprobs.push(likelihood);
                None
            }
            other => other,
        };
        let mut deltas = self.take(said.choice, pieces);
        if likelihood.is_some() && deltas.is_empty() {
            deltas.push(json!({"content": ""})); // each token is told of, though its text is held back
        }
        let mut chunks = Vec::with_capacity(deltas.len());
        for delta in deltas {
            let logprobs = match likelihood.take() {
                None => Value::Null,
                Some(likelihood) => json!({"content": [likelihood], "refusal": null}),
            };
            chunks.push(self.chunk(said.choice, delta, logprobs, None));
        }
        chunks
    }

    fn end(&mut self, choice: u32, finish: Finish) -> Vec<Answer> {
        let Some(state) = self.choices.get_mut(choice as usize) else { return Vec::new() };
        let rest = state.reader.as_mut().map(Calls::finish).unwrap_or_default();
        // A stop string may end an answer in the middle of a call: whoever reads `tool_calls` parses it.
        let whole = state.reader.as_ref().is_some_and(|reader| !reader.is_inside());
        let called = whole && !state.calls.is_empty() && finish == Finish::Stop;
        let reason = if called { "tool_calls" } else { voice::reason(finish) };
        state.finish = Some(reason);
        let deltas = self.take(choice, rest);
        if !self.told.stream {
            return Vec::new();
        }
        let mut chunks: Vec<Answer> =
            deltas.into_iter().map(|delta| self.chunk(choice, delta, Value::Null, None)).collect();
        chunks.push(self.chunk(choice, json!({}), Value::Null, Some(reason)));
        chunks
    }

    fn close(&mut self, usage: Usage) -> Vec<Answer> {
        let mut object = if self.told.stream {
            if !self.told.include_usage {
                return Vec::new();
            }
            self.object("chat.completion.chunk", json!([]))
        } else {
            let each = |(index, choice)| self.whole_choice(index, choice);
            self.object("chat.completion", self.choices.iter().enumerate().map(each).collect())
        };
        object["usage"] = voice::usage(usage);
        vec![told(object)]
    }
}
