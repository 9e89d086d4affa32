//! `/v1/completions`: answers.

use super::logprobs;
use super::voice::{self, Said, Told, Voice};
use super::wipe::{told, wipe};
use cocoon_engine::Finish;
use cocoon_protocol::{Answer, Usage};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

pub(super) struct CompletionsVoice {
    told: Told,
    choices: Vec<Choice>,
}

/// One answer so far.
#[derive(Default)]
struct Choice {
    /// Kept where the answer is not streamed.
    text: Zeroizing<String>,
    finish: Option<&'static str>,
    /// Characters of the tokens so far: where the next one begins in the text.
    offset: usize,
    tokens: Vec<Value>,
    token_logprobs: Vec<Value>,
    top_logprobs: Vec<Value>,
    text_offset: Vec<Value>,
}

impl Drop for Choice {
    fn drop(&mut self) {
        self.tokens.iter_mut().chain(&mut self.top_logprobs).for_each(wipe);
    }
}

impl CompletionsVoice {
    /// `echoed` holds the text that each answer begins with, or nothing.
    pub(super) fn new(told: Told, echoed: Vec<String>) -> Self {
        let mut choices: Vec<Choice> = (0..told.choices).map(|_| Choice::default()).collect();
        for (choice, text) in choices.iter_mut().zip(echoed) {
            choice.text = text.into();
        }
        Self { told, choices }
    }

    fn object(&self, choices: Value) -> Value {
        let naming = &self.told.naming;
        json!({
            "id": format!("cmpl-{}", naming.id), "object": "text_completion", "created": naming.created,
            "model": naming.model, "system_fingerprint": naming.fingerprint, "choices": choices,
        })
    }

    fn chunk(&self, choice: u32, text: &str, logprobs: Value, finish: Option<&str>) -> Answer {
        let choices = json!([{"index": choice, "text": text, "logprobs": logprobs, "finish_reason": finish}]);
        let mut chunk = self.object(choices);
        if self.told.include_usage {
            chunk["usage"] = Value::Null;
        }
        told(chunk)
    }

    /// Notes how likely a token was.
    fn note(&mut self, said: &Said<'_>) {
        let (Some((token, likely)), Some(model)) = (said.token, &self.told.model) else { return };
        let tokenizer = model.tokenizer();
        let text = logprobs::text(tokenizer, token);
        let top: Map<String, Value> = likely
            .top
            .iter()
            .map(|(token, logprob)| (logprobs::text(tokenizer, *token), logprobs::number(*logprob)))
            .collect();
        let Some(choice) = self.choices.get_mut(said.choice as usize) else { return };
        choice.text_offset.push(choice.offset.into());
        choice.offset += text.chars().count();
        choice.tokens.push(text.into());
        choice.token_logprobs.push(logprobs::number(likely.logprob));
        choice.top_logprobs.push(top.into());
    }

    /// The logprobs that were noted since the last call.
    fn noted(&mut self, choice: u32) -> Value {
        let wanted = self.told.logprobs;
        match (wanted, self.choices.get_mut(choice as usize)) {
            (Some(_), Some(choice)) if !choice.tokens.is_empty() => json!({
                "tokens": std::mem::take(&mut choice.tokens),
                "token_logprobs": std::mem::take(&mut choice.token_logprobs),
                "top_logprobs": std::mem::take(&mut choice.top_logprobs),
                "text_offset": std::mem::take(&mut choice.text_offset),
            }),
            _ => Value::Null,
        }
    }
}

impl Voice for CompletionsVoice {
    fn begin(&mut self) -> Vec<Answer> {
        if !self.told.stream {
            return Vec::new();
        }
        let echo =
            |(index, choice): (usize, &Choice)| self.chunk(index as u32, &choice.text, Value::Null, None);
        let echoing = self.choices.iter().enumerate().filter(|(_, choice)| !choice.text.is_empty());
        echoing.map(echo).collect()
    }

    fn say(&mut self, said: Said<'_>) -> Vec<Answer> {
        self.note(&said);
        if self.told.stream {
            let logprobs = self.noted(said.choice);
            if said.text.is_empty() && logprobs.is_null() {
                return Vec::new();
            }
            return vec![self.chunk(said.choice, said.text, logprobs, None)];
        }
        if let Some(choice) = self.choices.get_mut(said.choice as usize) {
            choice.text.push_str(said.text);
        }
        Vec::new()
    }

    fn end(&mut self, choice: u32, finish: Finish) -> Vec<Answer> {
        let reason = voice::reason(finish);
        if self.told.stream {
            return vec![self.chunk(choice, "", Value::Null, Some(reason))];
        }
        if let Some(choice) = self.choices.get_mut(choice as usize) {
            choice.finish = Some(reason);
        }
        Vec::new()
    }

    fn close(&mut self, usage: Usage) -> Vec<Answer> {
        let mut object = if self.told.stream {
            if !self.told.include_usage {
                return Vec::new();
            }
            self.object(json!([]))
        } else {
            let mut choices = Vec::with_capacity(self.choices.len());
            for index in 0..self.told.choices {
                let logprobs = self.noted(index);
                let choice = &self.choices[index as usize];
                choices.push(json!({
                    "index": index, "text": choice.text.as_str(), "logprobs": logprobs,
                    "finish_reason": choice.finish,
                }));
            }
            self.object(choices.into())
        };
        object["usage"] = voice::usage(usage);
        vec![told(object)]
    }
}
