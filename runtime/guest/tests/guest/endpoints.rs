//! Every endpoint of the OpenAI API, through the seal, on a real model; and that what is billed is what was written.

use crate::common::{Setup, header, question};
use cocoon_protocol::{Budget, Endpoint, Outcome, RequestHeader, Usage};
use serde_json::{Value, json};

const SCHEMA: &str = r#"{"type":"object","properties":{"colour":{"enum":["red","green"]}},"required":["colour"],
    "additionalProperties":false}"#;

fn told(usage: &Value) -> Usage {
    let count = |value: &Value| u32::try_from(value.as_u64().expect("a count")).expect("small");
    Usage {
        prompt_tokens: count(&usage["prompt_tokens"]),
        cached_tokens: count(&usage["prompt_tokens_details"]["cached_tokens"]),
        completion_tokens: count(&usage["completion_tokens"]),
    }
}

#[test]
fn all_choices_are_billed_and_the_prompt_once() {
    let guest = Setup::new().start();
    let peer = guest.trusted();
    let ask = |more: &str| {
        let body =
            question("Write about lists.", &format!(r#","max_tokens":9,"seed":3,"temperature":1{more}"#));
        let heard = guest.ask(&peer, &header(&peer), &body);
        let usage = heard.receipt().receipt().usage;
        (heard.chunks, usage)
    };
    let (one, single) = ask("");
    let (three, all) = ask(r#","n":3,"logprobs":true,"top_logprobs":2"#);
    assert_eq!(told(&three[0]["usage"]), all);
    assert_eq!(all.prompt_tokens, single.prompt_tokens);
    let choices = three[0]["choices"].as_array().expect("choices");
    let tokens = |choice: &Value| choice["logprobs"]["content"].as_array().expect("logprobs").len() as u32;
    assert_eq!(
        choices.iter().map(tokens).sum::<u32>(),
        all.completion_tokens,
        "every token is told and billed"
    );
    assert_eq!(choices[0]["message"], one[0]["choices"][0]["message"], "the first is the one of n = 1");
    assert_ne!(choices[0]["message"], choices[1]["message"]);
    // Streamed, it is the same three.
    let (chunks, streamed) = ask(r#","n":3,"stream":true,"stream_options":{"include_usage":true}"#);
    assert_eq!((streamed, told(&chunks.last().expect("a last")["usage"])), (all, all));
    for (index, choice) in choices.iter().enumerate() {
        let of = |chunk: &&Value| chunk["choices"][0]["index"] == index;
        let text: String =
            chunks.iter().filter(of).filter_map(|c| c["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(choice["message"]["content"], text);
    }
}

#[test]
fn a_budget_is_shared_by_all_answers() {
    let guest = Setup::new().start();
    let peer = guest.trusted();
    let with = |completion_tokens| {
        let budget = Budget { prompt_tokens: 400, completion_tokens };
        RequestHeader { budget, ..header(&peer) }
    };
    let body = question("Write about lists.", r#","n":4,"seed":3"#);
    let heard = guest.ask(&peer, &with(12), &body);
    let usage = heard.receipt().receipt().usage;
    assert!(usage.completion_tokens <= 12, "{usage:?}");
    let run = heard.receipt().opening().run.as_ref().expect("the engine ran");
    assert_eq!((run.sampling.max_tokens, run.written.len()), (3, 4));
    let heard = guest.ask(&peer, &with(3), &body);
    let (status, error) = heard.error.as_ref().expect("three tokens are not four answers");
    assert_eq!((*status, error["error"]["code"].as_str()), (400, Some("budget_exceeded")));
    assert_eq!(heard.receipt().receipt().bill(), 0);
}

#[test]
fn answers_of_schemas_and_calls_of_tools_are_held_to_them() {
    let guest = Setup::new().start();
    let peer = guest.trusted();
    let format = format!(
        r#","max_tokens":60,"response_format":{{"type":"json_schema","json_schema":{{"name":"n","strict":true,"schema":{SCHEMA}}}}}"#
    );
    let heard = guest.ask(&peer, &header(&peer), &question("Which colour?", &format));
    let text = heard.chunks[0]["choices"][0]["message"]["content"].as_str().expect("text").to_owned();
    let value: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"));
    assert!(value == json!({"colour": "red"}) || value == json!({"colour": "green"}), "{value}");

    let tools = format!(
        r#","max_tokens":90,"seed":4,"parallel_tool_calls":false,"tool_choice":"required","tools":[{{"type":"function","function":{{"name":"paint","strict":true,"parameters":{SCHEMA}}}}}]"#
    );
    let heard = guest.ask(&peer, &header(&peer), &question("Paint it.", &tools));
    let choice = &heard.chunks[0]["choices"][0];
    let function = &choice["message"]["tool_calls"][0]["function"];
    assert_eq!((&choice["finish_reason"], &function["name"]), (&json!("tool_calls"), &json!("paint")));
    assert_eq!(choice["message"]["content"], Value::Null);
    let arguments = function["arguments"].as_str().expect("text").to_owned();
    assert!(serde_json::from_str::<Value>(&arguments).expect("JSON")["colour"].is_string());

    let heard =
        guest.ask(&peer, &header(&peer), &question("Paint it.", &format!(r#"{tools},"stream":true"#)));
    let deltas: String = heard
        .chunks
        .iter()
        .filter_map(|chunk| chunk["choices"][0]["delta"]["tool_calls"][0]["function"]["arguments"].as_str())
        .collect();
    assert_eq!(deltas, arguments);
    assert!(heard.chunks.len() > 4, "the arguments come in pieces");
    assert_eq!(heard.chunks.last().expect("a last")["choices"][0]["finish_reason"], "tool_calls");
}

#[test]
fn completions_answer_each_prompt() {
    let guest = Setup::new().start();
    let peer = guest.trusted();
    let ask = |body: &str| guest.ask_at(&peer, &header(&peer), Endpoint::Completions, body);
    let heard = ask(r#"{"prompt":["The list","A tuple is"],"n":2,"max_tokens":4,"logprobs":1,"seed":1}"#);
    let object = &heard.chunks[0];
    let choices = object["choices"].as_array().expect("choices");
    assert_eq!((choices.len(), &object["object"]), (4, &json!("text_completion")));
    let usage = heard.receipt().receipt().usage;
    assert_eq!(told(&object["usage"]), usage);
    let tokens: usize =
        choices.iter().map(|c| c["logprobs"]["tokens"].as_array().expect("tokens").len()).sum();
    assert_eq!(tokens, usage.completion_tokens as usize);

    let echoed = ask(r#"{"prompt":"The list","echo":true,"max_tokens":4,"seed":1}"#);
    let text = echoed.chunks[0]["choices"][0]["text"].as_str().expect("text").to_owned();
    assert!(text.starts_with("The list"), "{text}");
    let streamed = ask(r#"{"prompt":"The list","echo":true,"max_tokens":4,"seed":1,"stream":true}"#);
    let pieces: String = streamed.chunks.iter().filter_map(|c| c["choices"][0]["text"].as_str()).collect();
    assert_eq!(pieces, text);
    let unknown = ask(r#"{"prompt":[99999999]}"#);
    assert_eq!(unknown.error.expect("no such token").0, 400);
}

#[test]
fn responses_come_whole_or_as_events() {
    let guest = Setup::new().start();
    let peer = guest.trusted();
    let ask = |more: &str| {
        let body = format!(r#"{{"input":"Write about lists.","max_output_tokens":12,"seed":2{more}}}"#);
        guest.ask_at(&peer, &header(&peer), Endpoint::Responses, &body)
    };
    let whole = ask("");
    let response = &whole.chunks[0];
    let text = response["output"][0]["content"][0]["text"].as_str().expect("text");
    let usage = whole.receipt().receipt().usage;
    assert_eq!(response["usage"]["output_tokens"], usage.completion_tokens);
    assert_eq!(response["usage"]["input_tokens"], usage.prompt_tokens);
    assert_eq!(response["store"], false);
    let events = ask(r#","stream":true"#).chunks;
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["type"].as_str()).collect();
    assert_eq!(
        kinds[..4],
        [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added"
        ]
    );
    assert_eq!(
        kinds[kinds.len() - 4..kinds.len() - 1],
        ["response.output_text.done", "response.content_part.done", "response.output_item.done"]
    );
    assert!(events.iter().enumerate().all(|(n, event)| event["sequence_number"] == n), "{kinds:?}");
    let of = |event: &&Value| event["type"] == "response.output_text.delta";
    let deltas: String = events.iter().filter(of).filter_map(|event| event["delta"].as_str()).collect();
    assert_eq!(deltas, text);
    assert_eq!(
        events.last().expect("a last")["response"]["output"][0]["content"],
        response["output"][0]["content"]
    );
}

#[test]
fn a_model_that_writes_text_makes_no_embeddings_and_says_so() {
    let guest = Setup::new().start();
    let peer = guest.trusted();
    let heard = guest.ask_at(&peer, &header(&peer), Endpoint::Embeddings, r#"{"input":"a"}"#);
    let (status, error) = heard.error.as_ref().expect("it refuses");
    assert_eq!((*status, error["error"]["code"].as_str()), (400, Some("unsupported_endpoint")));
    assert_eq!((heard.receipt().receipt().outcome, heard.receipt().receipt().bill()), (Outcome::Error, 0));
}

#[test]
fn logprobs_that_no_piece_of_an_answer_could_hold_are_refused_and_streamed_they_are_not() {
    let guest = Setup::new().start();
    let peer = guest.trusted();
    let budget = Budget { prompt_tokens: 400, completion_tokens: 6400 };
    let wide = RequestHeader { budget, ..header(&peer) };
    let more = r#","n":16,"logprobs":true,"top_logprobs":20,"max_tokens":400"#;
    let heard = guest.ask(&peer, &wide, &question("Hi", more));
    let (status, error) = heard.error.as_ref().expect("it is refused");
    assert_eq!((*status, error["error"]["param"].as_str()), (400, Some("logprobs")));
    assert_eq!(heard.receipt().receipt().bill(), 0);
    let few = guest.ask(
        &peer,
        &header(&peer),
        &question("Hi", &more.replace("400", "4").replace(r#""n":16"#, r#""n":2"#)),
    );
    assert!(few.error.is_none());
    let stream = format!(r#"{},"stream":true"#, more.replace(r#""n":16"#, r#""n":2"#));
    let heard = guest.ask(&peer, &RequestHeader { request_id: [7; 16], ..wide }, &question("Hi", &stream));
    assert!(heard.error.is_none() && heard.chunks.len() > 2);
}
