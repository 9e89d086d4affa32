//! Models whose chat template has words for tools: they are told in these, and their calls are read in these.

use crate::common::{Heard, Running, Setup, config, header, question, sha256, tiny_model};
use cocoon_attestation::Trusted;
use cocoon_engine::Model;
use serde_json::{Value, json};

const TOOLS: &str = r#","tools":[{"type":"function","function":{"name":"paint","description":"Paints it.","strict":true,
    "parameters":{"type":"object","properties":{"colour":{"enum":["red","green"]}},"required":["colour"],
    "additionalProperties":false}}}]"#;

/// The same in few tokens.
const SHORT: &str = r#","tools":[{"type":"function","function":{"name":"paint","parameters":{"type":"object","properties":
    {"c":{"type":"boolean"}},"required":["c"],"additionalProperties":false}}}]"#;

/// The tiny model with another family's template.
fn with_template(name: &str) -> Setup {
    let path = format!("{}/../engine/tests/fixtures/templates/{name}.jinja", env!("CARGO_MANIFEST_DIR"));
    let template = std::fs::read_to_string(path).expect("it lies there");
    let template = template.replace("(indent=4)", ""); // the tiny model's context is small
    let tiny = std::fs::read(tiny_model()).expect("the tiny model is in the repository");
    let model = replaced(&tiny, "tokenizer.chat_template", &template);
    let config = config(2, 4, &sha256(&model));
    Setup { config, model, ..Setup::new() }
}

/// A GGUF (version 3) with another text for one key.
fn replaced(gguf: &[u8], key: &str, text: &str) -> Vec<u8> {
    const ALIGNMENT: usize = 32;
    let u32_at = |at: usize| u32::from_le_bytes(gguf[at..at + 4].try_into().expect("four bytes")) as usize;
    let u64_at = |at: usize| u64::from_le_bytes(gguf[at..at + 8].try_into().expect("eight bytes")) as usize;
    fn value_end(gguf: &[u8], kind: usize, at: usize) -> usize {
        let u64_at =
            |at: usize| u64::from_le_bytes(gguf[at..at + 8].try_into().expect("eight bytes")) as usize;
        match kind {
            0 | 1 | 7 => at + 1,
            2 | 3 => at + 2,
            4..=6 => at + 4,
            10..=12 => at + 8,
            8 => at + 8 + u64_at(at),
            9 => {
                let kind = u32::from_le_bytes(gguf[at..at + 4].try_into().expect("four bytes")) as usize;
                (0..u64_at(at + 4)).fold(at + 12, |at, _| value_end(gguf, kind, at))
            }
            other => panic!("a value of unknown kind {other}"),
        }
    }
    let (tensors, pairs) = (u64_at(8), u64_at(16));
    let mut out = gguf[..24].to_vec();
    let (mut at, mut found) = (24, false);
    for _ in 0..pairs {
        let value = at + 8 + u64_at(at) + 4;
        let end = value_end(gguf, u32_at(value - 4), value);
        if &gguf[at + 8..value - 4] == key.as_bytes() {
            out.extend_from_slice(&gguf[at..value]);
            out.extend_from_slice(&(text.len() as u64).to_le_bytes());
            out.extend_from_slice(text.as_bytes());
            found = true;
        } else {
            out.extend_from_slice(&gguf[at..end]);
        }
        at = end;
    }
    assert!(found, "it has {key}");
    let infos = at;
    for _ in 0..tensors {
        at += 8 + u64_at(at);
        at += 4 + 8 * u32_at(at) + 4 + 8;
    }
    out.extend_from_slice(&gguf[infos..at]);
    out.resize(out.len().next_multiple_of(ALIGNMENT), 0);
    out.extend_from_slice(&gguf[at.next_multiple_of(ALIGNMENT)..]);
    out
}

struct Asked {
    guest: Running,
    peer: Trusted,
    model: Model,
}

impl Asked {
    fn new(template: &str) -> Self {
        let guest = with_template(template).start();
        let (peer, model) =
            (guest.trusted(), Model::from_bytes(guest.setup.model.clone()).expect("it loads"));
        Self { guest, peer, model }
    }

    fn ask(&self, body: &str) -> Heard {
        let heard = self.guest.ask(&self.peer, &header(&self.peer), body);
        assert!(heard.error.is_none(), "{:?}", heard.error);
        heard
    }

    /// What the engine was asked and what it wrote, as text.
    fn texts(&self, heard: &Heard) -> (String, String) {
        let run = heard.receipt().opening().run.as_ref().expect("the engine ran");
        let text =
            |tokens: &[u32]| String::from_utf8_lossy(&self.model.tokenizer().decode(tokens)).into_owned();
        (text(&run.prompt), text(&run.written[0].tokens))
    }
}

#[test]
fn llama_3_is_told_of_tools_and_calls_them_in_its_own_words() {
    let asked = Asked::new("llama3");
    let required = format!(r#","max_tokens":90,"seed":4,"tool_choice":"required"{SHORT}"#);
    let heard = asked.ask(&question("Paint it.", &required));
    let (prompt, written) = asked.texts(&heard);
    assert!(prompt.contains("Call a function with") && prompt.contains("\"name\": \"paint\""), "{prompt}");
    assert!(!prompt.contains("tool_call"), "nobody else's words: {prompt}");
    assert!(written.starts_with(r#"{"name": "paint", "parameters": {"c": "#), "{written}");
    let message = &heard.chunks[0]["choices"][0]["message"];
    let call = &message["tool_calls"][0];
    assert_eq!((&message["content"], &call["function"]["name"]), (&Value::Null, &json!("paint")));
    let arguments = call["function"]["arguments"].as_str().expect("text");
    assert!(serde_json::from_str::<Value>(arguments).expect("JSON")["c"].is_boolean());
    assert_eq!(heard.chunks[0]["choices"][0]["finish_reason"], "tool_calls");

    // Streamed, the same call comes in pieces.
    let streamed = asked.ask(&question("Paint it.", &format!(r#"{required},"stream":true"#)));
    let of = |chunk: &Value| chunk["choices"][0]["delta"]["tool_calls"][0]["function"].clone();
    let deltas: Vec<Value> = streamed.chunks.iter().map(of).filter(|delta| !delta.is_null()).collect();
    assert_eq!(deltas[0], json!({"name": "paint", "arguments": ""}));
    let joined: String = deltas.iter().filter_map(|delta| delta["arguments"].as_str()).collect();
    assert!(joined == arguments && deltas.len() > 2, "{deltas:?}");
    assert_eq!(streamed.text(), "", "a call is no text");

    // What came of it is told as the family knows it.
    let turn = json!({"messages": [
        {"role": "user", "content": "Paint it."},
        {"role": "assistant", "content": null, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": call["id"], "content": "painted"},
    ], "max_tokens": 4});
    let (prompt, _) = asked.texts(&asked.ask(&turn.to_string()));
    assert!(prompt.contains("ipython<|end_header_id|>\n\n\"painted\"<|eot_id|>"), "{prompt}");
    assert!(
        prompt.contains(&format!(r#"{{"name": "paint", "parameters": {arguments}}}<|eot_id|>"#)),
        "{prompt}"
    );

    // Text is text, whatever it begins with.
    let auto = asked.ask(&question("Hi", &format!(r#","max_tokens":12,"seed":9{SHORT}"#)));
    let (_, written) = asked.texts(&auto);
    assert_eq!(auto.chunks[0]["choices"][0]["message"]["content"].as_str().unwrap_or_default(), written);
}

#[test]
fn qwen_is_told_in_its_own_words_too_and_writes_several_calls() {
    let asked = Asked::new("qwen3");
    let heard = asked.ask(&question(
        "Paint it.",
        &format!(r#","max_tokens":90,"seed":4,"tool_choice":"required"{TOOLS}"#),
    ));
    let (prompt, written) = asked.texts(&heard);
    let told = "Functions within <tools></tools>:\n<tools>\n{\"type\": \"function\", \"function\": {\"name\": \"paint\", \
                \"description\": \"Paints it.\", \"parameters\": {\"type\": \"object\"";
    assert!(prompt.contains(told), "{prompt}");
    assert!(
        written.starts_with("<tool_call>\n{\"name\": \"paint\", \"arguments\": {\"colour\": "),
        "{written}"
    );
    let calls = heard.chunks[0]["choices"][0]["message"]["tool_calls"].as_array().expect("calls").clone();
    assert_eq!(calls.len(), written.matches("<tool_call>").count());
}

#[test]
fn a_stop_string_inside_a_call_does_not_pass_for_a_whole_one() {
    let asked = Asked::new("qwen3");
    let cut = r#","max_tokens":90,"seed":4,"tool_choice":"required","stop":["colour"]"#;
    let heard = asked.ask(&question("Paint it.", &format!("{cut}{TOOLS}")));
    let choice = &heard.chunks[0]["choices"][0];
    assert_eq!(choice["finish_reason"], "stop", "{choice}");
    assert_eq!(choice["message"]["tool_calls"][0]["function"]["arguments"], "{\"");
}
