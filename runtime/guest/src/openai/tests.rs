//! What each endpoint reads and refuses, one field at a time.

use super::*;
use cocoon_engine::Sampling;

const CHAT: &str = r#""messages":[{"role":"user","content":"hi"}]"#;
const CASES: [(Endpoint, &str); 4] = [
    (Endpoint::ChatCompletions, CHAT),
    (Endpoint::Completions, r#""prompt":"hi""#),
    (Endpoint::Responses, r#""input":"hi""#),
    (Endpoint::Embeddings, r#""input":"hi""#),
];

fn ask(endpoint: Endpoint, body: &str) -> Result<Box<Call>, Refusal> {
    match read(endpoint, body.as_bytes(), 99)? {
        Asked::Text(call) => Ok(call),
        Asked::Vectors(_) => panic!("asked for text"),
    }
}

fn chat(more: &str) -> Result<Box<Call>, Refusal> {
    ask(Endpoint::ChatCompletions, &format!("{{{CHAT}{more}}}"))
}

/// A conversation as models without words for tools get it.
fn conversation(call: &Call) -> Vec<(String, String)> {
    let [Prompt::Chat(conversation)] = call.prompts.as_slice() else { panic!("one conversation") };
    conversation.plain().into_iter().map(|message| (message.role, message.content)).collect()
}

fn said(messages: &[(&str, &str)]) -> Vec<(String, String)> {
    messages.iter().map(|(role, content)| ((*role).to_owned(), (*content).to_owned())).collect()
}

#[track_caller]
fn refused(endpoint: Endpoint, body: &str, code: &str, param: &str) {
    let Err(refusal) = read(endpoint, body.as_bytes(), 0) else { panic!("{body} was accepted") };
    let error = &refusal.error.error;
    assert_eq!((refusal.status, error.kind.as_str()), (400, "invalid_request_error"), "{body}");
    assert_eq!(
        (refusal.error.code(), error.param.as_deref()),
        (code, Some(param)),
        "{body}: {}",
        error.message
    );
}

#[test]
fn a_plain_request_gets_the_defaults() {
    let Ok(call) = chat("") else { panic!("a plain request is fine") };
    let options = &call.options;
    assert!(!options.stream && !options.include_usage && options.stop.is_empty());
    assert_eq!((call.max_tokens, call.logprobs, options.choices), (None, None, 1));
    assert_eq!(options.sampling, Sampling { seed: 99, ..Sampling::default() });
    assert!(matches!(call.format, Format::Free) && call.tools.is_none());
    let Ok(call) = ask(Endpoint::Completions, r#"{"prompt":"hi"}"#) else { panic!("so is this") };
    assert_eq!(call.max_tokens, Some(16));
}

#[test]
fn every_supported_field_of_a_chat_is_read() {
    let Ok(call) = chat(
        r#","model":"any","stream":true,"stream_options":{"include_usage":true},"temperature":0,"top_p":0.5,
        "seed":-1,"max_completion_tokens":7,"stop":["a","b"],"repetition_penalty":1.2,"n":3,"tools":[],
        "tool_choice":"none","logit_bias":{"7":-100,"12":2.5},"response_format":{"type":"text"},"user":"me",
        "frequency_penalty":0.5,"presence_penalty":-2,"logprobs":true,"top_logprobs":4,"top_k":40,"min_p":0.05,
        "cache_salt":"c2VjcmV0IHNlY3JldCBzZWNyZXQ","metadata":{"a":"b"},"store":false,"modalities":["text"]"#,
    ) else {
        panic!("all of these are fine")
    };
    let expected = Sampling {
        temperature: 0.0,
        top_p: 0.5,
        top_k: 40,
        min_p: 0.05,
        repetition_penalty: 1.2,
        presence_penalty: -2.0,
        frequency_penalty: 0.5,
        seed: u64::MAX,
    };
    let options = &call.options;
    assert!(options.stream && options.include_usage);
    assert_eq!(options.sampling, expected);
    assert_eq!(options.logit_bias, [(7, -100.0), (12, 2.5)]);
    assert_eq!(options.cache_salt.as_ref().map(|salt| salt.len()), Some(27));
    assert_eq!((call.max_tokens, call.logprobs, options.choices), (Some(7), Some(4), 3));
    assert_eq!(options.stop, ["a", "b"]);
}

#[test]
fn one_wrong_field_of_a_chat_at_a_time_is_refused_by_name() {
    for (more, code, param) in [
        (r#""n":0"#, "invalid_value", "n"),
        (r#""n":17"#, "invalid_value", "n"),
        (r#""n":"2""#, "invalid_type", "n"),
        (r#""temperature":2.5"#, "invalid_value", "temperature"),
        (r#""temperature":"hot""#, "invalid_type", "temperature"),
        (r#""top_p":0"#, "invalid_value", "top_p"),
        (r#""repetition_penalty":9"#, "invalid_value", "repetition_penalty"),
        (r#""seed":1.5"#, "invalid_type", "seed"),
        (r#""max_tokens":0"#, "invalid_value", "max_tokens"),
        (r#""max_tokens":-1"#, "invalid_value", "max_tokens"),
        (r#""max_tokens":1.5"#, "invalid_type", "max_tokens"),
        (r#""max_tokens":1,"max_completion_tokens":1"#, "invalid_value", "max_tokens"),
        (r#""stop":["a","b","c","d","e"]"#, "invalid_value", "stop"),
        (r#""stop":"""#, "invalid_value", "stop"),
        (r#""stop":5"#, "invalid_type", "stop"),
        (r#""stream":"yes""#, "invalid_type", "stream"),
        (r#""stream_options":{"include_usage":true}"#, "invalid_value", "stream_options"),
        (r#""stream":true,"stream_options":{"x":1}"#, "unknown_parameter", "stream_options.x"),
        (r#""top_logprobs":3"#, "invalid_value", "top_logprobs"),
        (r#""logprobs":true,"top_logprobs":21"#, "invalid_value", "top_logprobs"),
        (r#""logprobs":3"#, "invalid_type", "logprobs"),
        (r#""logit_bias":{"1":101}"#, "invalid_value", "logit_bias"),
        (r#""logit_bias":{"one":1}"#, "invalid_value", "logit_bias"),
        (r#""logit_bias":[5]"#, "invalid_type", "logit_bias"),
        (r#""frequency_penalty":2.5"#, "invalid_value", "frequency_penalty"),
        (r#""presence_penalty":-2.5"#, "invalid_value", "presence_penalty"),
        (r#""min_p":2"#, "invalid_value", "min_p"),
        (r#""top_k":-2"#, "invalid_value", "top_k"),
        (r#""cache_salt":"guessable""#, "invalid_value", "cache_salt"),
        (r#""functions":[{}]"#, "unsupported_parameter", "functions"),
        (r#""modalities":["audio"]"#, "unsupported_parameter", "modalities"),
        (r#""store":true"#, "unsupported_parameter", "store"),
        (r#""max_tokenz":5"#, "unknown_parameter", "max_tokenz"),
        (r#""response_format":"json""#, "invalid_type", "response_format"),
        (r#""response_format":{"type":"xml"}"#, "invalid_value", "response_format.type"),
        (
            r#""response_format":{"type":"json_schema"}"#,
            "missing_required_parameter",
            "response_format.json_schema",
        ),
        (r#""tool_choice":"required""#, "invalid_value", "tool_choice"),
        (r#""tools":[{"type":"retrieval"}]"#, "invalid_value", "tools[0].type"),
        (r#""tools":[{"type":"function"}]"#, "missing_required_parameter", "tools[0].function"),
        (
            r#""tools":[{"type":"function","function":{"name":"a b"}}]"#,
            "invalid_value",
            "tools[0].function.name",
        ),
    ] {
        refused(Endpoint::ChatCompletions, &format!("{{{CHAT},{more}}}"), code, param);
    }
}

#[test]
fn strict_schemas_are_closed_and_schemas_keep_to_what_answers_can_be_held_to() {
    let schema = |strict: bool, schema: &str| {
        let format = format!(
            r#"{{"type":"json_schema","json_schema":{{"name":"n","strict":{strict},"schema":{schema}}}}}"#
        );
        chat(&format!(r#","response_format":{format}"#)).map(|_| ()).map_err(|refusal| refusal.error.error)
    };
    let closed = r#"{"type":"object","properties":{"a":{"type":"string"}},"required":["a"],"additionalProperties":false}"#;
    assert!(schema(true, closed).is_ok());
    for (wrong, why) in [
        (closed.replace(r#","additionalProperties":false"#, ""), "additionalProperties"),
        (closed.replace(r#"["a"]"#, "[]"), "\"a\" is missing"),
        (r#"{"type":"string"}"#.to_owned(), "type object"),
        (closed.replace(r#""type":"string""#, r#""allOf":[]"#), "allOf"),
        (closed.replace(r#""type":"string""#, r#""type":"string","maxLength":5000"#), "maxLength"),
    ] {
        let error = schema(true, &wrong).expect_err("refused");
        assert!(error.message.contains(why), "{}", error.message);
        assert_eq!(error.code.as_deref(), Some("invalid_json_schema"));
        assert!(error.param.expect("named").starts_with("response_format.json_schema.schema"));
    }
    assert!(schema(false, r#"{"type":"string"}"#).is_ok());
    // A tool that is not strict is taken whatever its schema: its arguments are an object then.
    let tool =
        r#","tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","not":{}}}}]"#;
    let Ok(call) = chat(tool) else { panic!("it is taken") };
    assert_eq!(call.tools.as_ref().expect("one").list[0].schema, serde_json::json!({"type": "object"}));
}

#[test]
fn messages_of_all_roles_become_what_templates_know() {
    let body = r#"{"messages":[
        {"role":"developer","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]},
        {"role":"user","content":"q","name":"me"},
        {"role":"assistant","content":null,"tool_calls":[
            {"id":"1","type":"function","function":{"name":"f","arguments":"{}"}},
            {"id":"2","type":"function","function":{"name":"g","arguments":"{\"x\": 1}"}}]},
        {"role":"tool","tool_call_id":"1","content":"r"},
        {"role":"tool","tool_call_id":"2","content":"s"}]}"#;
    let Ok(call) = ask(Endpoint::ChatCompletions, body) else { panic!("all roles are fine") };
    let calls = "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>\n<tool_call>\n{\"name\": \"g\", \
                 \"arguments\": {\"x\": 1}}\n</tool_call>";
    let result = "<tool_response>\nr\n</tool_response>\n<tool_response>\ns\n</tool_response>";
    let expected = [("system", "ab"), ("user", "q"), ("assistant", calls), ("user", result)];
    assert_eq!(conversation(&call), said(&expected));
}

#[test]
fn a_model_is_told_of_its_tools_unless_none_may_be_called() {
    let tools = r#","tools":[{"type":"function","function":{"name":"f","description":"About it."}}]"#;
    let Ok(call) = chat(tools) else { panic!("a tool is fine") };
    let said_of = conversation(&call);
    let said_of = &said_of[0];
    assert!(said_of.0 == "system" && said_of.1.contains("<tools>\n{") && said_of.1.contains("About it."));
    let Ok(call) = chat(&format!(r#"{tools},"tool_choice":"none""#)) else { panic!("none is fine") };
    assert_eq!(conversation(&call), said(&[("user", "hi")]));
}

#[test]
fn a_choice_of_tools_says_which_may_and_whether_one_must_be_called() {
    let tools = r#","tools":[{"type":"function","function":{"name":"f"}},{"type":"function","function":{"name":"g"}}]"#;
    let allowed = |mode: &str, name: &str| {
        let tool = format!(r#"{{"type":"function","function":{{"name":"{name}"}}}}"#);
        format!(r#"{{"type":"allowed_tools","allowed_tools":{{"mode":"{mode}","tools":[{tool}]}}}}"#)
    };
    let read = |choice: &str| {
        let call = chat(&format!(r#"{tools},"tool_choice":{choice}"#))?;
        let told = conversation(&call)[0].1.matches("\"function\":{").count();
        let tools = call.tools.as_ref().expect("some may be called");
        let names: Vec<String> = tools.list.iter().map(|tool| tool.name.clone()).collect();
        Ok::<_, Refusal>((names.join(" "), tools.required, tools.parallel, told))
    };
    let is = |names: &str, required, parallel| (names.to_owned(), required, parallel, 2);
    for (choice, expected) in [
        (r#""auto""#.to_owned(), is("f g", false, true)),
        (r#""required""#.to_owned(), is("f g", true, true)),
        (r#"{"type":"function","function":{"name":"g"}}"#.to_owned(), is("g", true, false)),
        (allowed("auto", "g"), is("g", false, true)),
        (allowed("required", "f"), is("f", true, true)),
    ] {
        assert_eq!(read(&choice).unwrap_or_else(|_| panic!("{choice} is fine")), expected, "{choice}");
    }
    for wrong in [
        r#""any""#.to_owned(),
        r#"{"type":"function"}"#.to_owned(),
        r#"{"type":"function","function":{"name":"h"}}"#.to_owned(),
        r#"{"type":"custom","custom":{"name":"g"}}"#.to_owned(),
        r#"{"type":"allowed_tools"}"#.to_owned(),
        allowed("sometimes", "g"),
        allowed("auto", "h"),
    ] {
        assert!(read(&wrong).is_err(), "{wrong} was taken");
    }
    let flat = r#"{"input":"q","tools":[{"type":"function","name":"f"},{"type":"function","name":"g"}],"tool_choice":
        {"type":"allowed_tools","mode":"required","tools":[{"type":"function","name":"g"}]}}"#;
    let Ok(call) = ask(Endpoint::Responses, flat) else { panic!("responses have it flat") };
    assert!(call.tools.is_some_and(|tools| tools.required && tools.list.len() == 1));
}

#[test]
fn broken_bodies_and_messages_are_refused() {
    for body in ["", "{", "[]", "{}", "null", r#"{"messages":[]}"#] {
        assert!(read(Endpoint::ChatCompletions, body.as_bytes(), 0).is_err(), "{body} was accepted");
    }
    for (message, code, param) in [
        (r#"{"role":"user"}"#, "missing_required_parameter", "messages[0].content"),
        (r#"{"content":"x"}"#, "missing_required_parameter", "messages[0].role"),
        (r#"{"role":"tool","content":"x","tool_call_id":"9"}"#, "invalid_value", "messages[0].tool_call_id"),
        (r#"{"role":"robot","content":"x"}"#, "invalid_value", "messages[0].role"),
        (r#"{"role":"user","content":5}"#, "invalid_type", "messages[0].content"),
        (
            r#"{"role":"user","content":[{"type":"image_url"}]}"#,
            "invalid_value",
            "messages[0].content[0].type",
        ),
        (r#"{"role":"user","content":"x","mood":1}"#, "unknown_parameter", "messages[0].mood"),
        (
            r#"{"role":"assistant","tool_calls":[{}]}"#,
            "missing_required_parameter",
            "messages[0].tool_calls[0].id",
        ),
    ] {
        refused(Endpoint::ChatCompletions, &format!(r#"{{"messages":[{message}]}}"#), code, param);
    }
    let deep = format!(r#"{{"messages":{}"#, "[".repeat(100_000));
    assert!(read(Endpoint::ChatCompletions, deep.as_bytes(), 0).is_err());
    let stops = format!(r#"{{{CHAT},"stop":[{}"x"]}}"#, r#""x","#.repeat(10_000));
    refused(Endpoint::ChatCompletions, &stops, "invalid_value", "stop");
}

#[test]
fn completions_take_texts_and_tokens_and_refuse_one_wrong_field_at_a_time() {
    for (prompt, count) in [(r#""a""#, 1), (r#"["a","b"]"#, 2), ("[1,2]", 1), ("[[1],[2,3]]", 2)] {
        let Ok(call) = ask(Endpoint::Completions, &format!(r#"{{"prompt":{prompt},"n":2}}"#)) else {
            panic!("{prompt} is fine")
        };
        assert_eq!(call.prompts.len(), count);
    }
    for (body, code, param) in [
        (r#"{}"#, "missing_required_parameter", "prompt"),
        (r#"{"prompt":""}"#, "invalid_value", "prompt"),
        (r#"{"prompt":[]}"#, "invalid_value", "prompt"),
        (r#"{"prompt":[1,-2]}"#, "invalid_value", "prompt"),
        (r#"{"prompt":[1,"a"]}"#, "invalid_value", "prompt"),
        (r#"{"prompt":{"a":1}}"#, "invalid_type", "prompt"),
        (r#"{"prompt":"a","suffix":"b"}"#, "unsupported_parameter", "suffix"),
        (r#"{"prompt":"a","logprobs":6}"#, "invalid_value", "logprobs"),
        (r#"{"prompt":"a","logprobs":1,"echo":true}"#, "invalid_value", "echo"),
        (r#"{"prompt":"a","best_of":2}"#, "invalid_value", "best_of"),
        (r#"{"prompt":"a","max_completion_tokens":2}"#, "unknown_parameter", "max_completion_tokens"),
    ] {
        refused(Endpoint::Completions, body, code, param);
    }
    let many = format!(r#"{{"prompt":[{}"a"],"n":16}}"#, r#""a","#.repeat(20));
    refused(Endpoint::Completions, &many, "invalid_value", "n");
}

#[test]
fn responses_read_items_and_refuse_what_needs_a_memory() {
    let body = r#"{"instructions":"be brief","input":[{"role":"user","content":"q"},
        {"type":"function_call","call_id":"1","name":"f","arguments":"{}"},
        {"type":"function_call_output","call_id":"1","output":"r"},
        {"type":"message","id":"m","status":"completed","role":"assistant",
         "content":[{"type":"output_text","text":"a","annotations":[]}]}]}"#;
    let Ok(call) = ask(Endpoint::Responses, body) else { panic!("items are fine") };
    let call_text = "<tool_call>\n{\"name\": \"f\", \"arguments\": {}}\n</tool_call>";
    let result = "<tool_response>\nr\n</tool_response>";
    let expected = [
        ("system", "be brief"),
        ("user", "q"),
        ("assistant", call_text),
        ("user", result),
        ("assistant", "a"),
    ];
    assert_eq!(conversation(&call), said(&expected));
    for (more, code, param) in [
        (r#""previous_response_id":"resp_1""#, "unsupported_parameter", "previous_response_id"),
        (r#""store":true"#, "unsupported_parameter", "store"),
        (r#""background":true"#, "unsupported_parameter", "background"),
        (r#""truncation":"auto""#, "unsupported_parameter", "truncation"),
        (r#""reasoning":{"effort":"high"}"#, "unsupported_parameter", "reasoning"),
        (r#""include":["file_search_call.results"]"#, "unsupported_parameter", "include[0]"),
        (r#""text":{"format":{"type":"xml"}}"#, "invalid_value", "text.format.type"),
        (r#""tools":[{"type":"web_search"}]"#, "invalid_value", "tools[0].type"),
        (r#""tools":[{"type":"function"}]"#, "missing_required_parameter", "tools[0].name"),
        (r#""max_tokens":5"#, "unknown_parameter", "max_tokens"),
        (r#""n":2"#, "unknown_parameter", "n"),
    ] {
        refused(Endpoint::Responses, &format!(r#"{{"input":"q",{more}}}"#), code, param);
    }
}

#[test]
fn a_response_repeats_numbers_as_they_were_asked_for() {
    let echo = |body: &str| {
        let Ok(call) = ask(Endpoint::Responses, body) else { panic!("{body} is fine") };
        let Style::Response(echo) = call.style else { panic!("a response") };
        (echo.fields["temperature"].to_string(), echo.fields["top_p"].to_string())
    };
    for (sent, told) in [("0.4", "0.4"), ("1", "1"), ("0.30000000000000004", "0.30000000000000004")] {
        let body = format!(r#"{{"input":"q","temperature":{sent},"top_p":0.9}}"#);
        assert_eq!(echo(&body), (told.to_owned(), "0.9".to_owned()));
    }
    assert_eq!(echo(r#"{"input":"q"}"#), ("0.4".to_owned(), "0.95".to_owned()), "the defaults");
}

#[test]
fn what_a_function_gave_may_come_in_parts() {
    let body = r#"{"input":[{"type":"function_call","call_id":"1","name":"f","arguments":"{}"},
        {"type":"function_call_output","call_id":"1","output":[{"type":"input_text","text":"a"},
        {"type":"input_text","text":"b"}]}]}"#;
    let Ok(call) = ask(Endpoint::Responses, body) else { panic!("parts are fine") };
    assert_eq!(conversation(&call)[1].1, "<tool_response>\nab\n</tool_response>");
}

/// `docs/api.md` says of each field whether it is supported, refused or ignored; the readers do as it says.
#[test]
fn the_documented_fields_are_what_the_readers_know() {
    let page = include_str!("../../../../docs/api.md");
    let mut checked = 0;
    for (endpoint, base) in CASES {
        let path = match endpoint {
            Endpoint::ChatCompletions => "/v1/chat/completions",
            Endpoint::Completions => "/v1/completions",
            Endpoint::Responses => "/v1/responses",
            Endpoint::Embeddings => "/v1/embeddings",
        };
        let section = page.split("\n## ").find(|section| section.starts_with(&format!("`POST {path}`")));
        for line in
            section.expect("each endpoint has a section").lines().filter(|line| line.starts_with("| `"))
        {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            for field in cells[1].split(", ").map(|name| name.trim_matches('`')) {
                // A value that no field takes: an unknown field is told apart by its code.
                let body = format!(
                    "{{{},{}}}",
                    base.replace(&format!("\"{field}\":"), "\"x\":"),
                    format_args!("\"{field}\":[7.5]")
                );
                let code = match read(endpoint, body.as_bytes(), 0) {
                    Ok(_) => "taken".to_owned(),
                    Err(refusal) if refusal.error.error.param.as_deref() == Some("x") => "own".to_owned(),
                    Err(refusal) => refusal.error.code().to_owned(),
                };
                let fits = match cells[2] {
                    "ignored" => code == "taken",
                    "refused" => code == "unsupported_parameter" || code == "invalid_type",
                    "supported" => {
                        code != "unknown_parameter" && code != "unsupported_parameter" && code != "taken"
                    }
                    other => panic!("{other} is no word for {field}"),
                };
                assert!(fits, "{path} {field}: {} in the page, {code} in fact", cells[2]);
                checked += 1;
            }
        }
    }
    assert!(checked > 60, "{checked} fields are documented");
}

/// Changed bytes give a request or a refusal, never a panic. `COCOON_FUZZ_ITERATIONS` sets how many.
#[test]
fn damaged_requests_never_panic() {
    let seeds: [(Endpoint, &str); 4] = [
        (
            Endpoint::ChatCompletions,
            r#"{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":null,
            "tool_calls":[{"id":"1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool",
            "tool_call_id":"1","content":[{"type":"text","text":"r"}]}],"stream":true,"stop":["a","b"],"seed":7,"n":2,
            "temperature":0.5,"max_tokens":5,"stream_options":{"include_usage":true},"logit_bias":{"1":2},
            "tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object","properties":{"a":
            {"type":"string","maxLength":3}}}}}],"tool_choice":"auto","response_format":{"type":"json_schema",
            "json_schema":{"name":"n","schema":{"type":"array","items":{"enum":[1,2]},"maxItems":4}}}}"#,
        ),
        (
            Endpoint::Completions,
            r#"{"prompt":["a","b"],"n":2,"echo":true,"best_of":2,"max_tokens":7,"stop":"x"}"#,
        ),
        (
            Endpoint::Responses,
            r#"{"input":[{"role":"user","content":[{"type":"input_text","text":"q"}]},{"type":
            "function_call","call_id":"1","name":"f","arguments":"{}"},{"type":"function_call_output","call_id":"1",
            "output":"r"}],"text":{"format":{"type":"json_object"}},"include":["message.output_text.logprobs"],
            "tools":[{"type":"function","name":"f"}],"instructions":"i","top_logprobs":2,"max_output_tokens":9}"#,
        ),
        (Endpoint::Embeddings, r#"{"input":["a","b"],"encoding_format":"base64","dimensions":3,"user":"u"}"#),
    ];
    let budget = std::env::var("COCOON_FUZZ_ITERATIONS").ok().and_then(|text| text.parse().ok());
    let special = b"{}[]\",:0-9.eE\\";
    let mut state = 0xC0C0_0003u64;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    for (endpoint, seed) in seeds {
        assert!(read(endpoint, seed.as_bytes(), 0).is_ok(), "{seed}");
        for _ in 0..budget.unwrap_or(10_000) {
            let mut body = seed.as_bytes().to_vec();
            for _ in 0..=below(3) {
                let at = below(body.len());
                match below(3) {
                    0 => body[at] = below(256) as u8,
                    1 => body[at] = special[below(special.len())],
                    _ => drop(body.drain(at..(at + below(9)).min(body.len()))),
                }
            }
            if let Ok(Asked::Text(call)) = read(endpoint, &body, 0) {
                assert!(!call.prompts.is_empty() && call.options.stop.len() <= options::MAX_STOPS);
                assert!(call.options.sampling.check().is_ok());
            }
        }
    }
}
