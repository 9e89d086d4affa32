use super::*;

fn message(role: &str, content: &str) -> ChatMessage {
    ChatMessage { role: role.into(), content: content.into() }
}

fn render(source: &str, messages: &[ChatMessage]) -> Result<String, TemplateError> {
    Template::compile(source.into(), "<s>".into(), "</s>".into())?.render(&Chat::plain(messages, true))
}

const SMOLLM2: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}\
    {{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}\
    {% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}\
    {% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

#[test]
fn smollm2s_template_adds_its_system_message_only_where_there_is_none() {
    let text = render(SMOLLM2, &[message("user", "Hi {{ 1 + 1 }} <b>")]).expect("renders");
    assert_eq!(
        text,
        "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n\
         <|im_start|>user\nHi {{ 1 + 1 }} <b><|im_end|>\n<|im_start|>assistant\n"
    );
    let text = render(SMOLLM2, &[message("system", "Be brief."), message("user", "Hi")]).expect("renders");
    assert!(text.starts_with("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi"), "{text}");
}

#[test]
fn python_methods_and_white_space_control_work_as_in_transformers() {
    let source = "{{ bos_token }}\n{%- for m in messages %}\n    {%- if m.role.startswith('u') and m.content.strip() %}\n\
                  [{{ m['content'].strip().upper() }}]\n    {%- endif %}\n{%- endfor %}\n{{- eos_token }}";
    let text = render(source, &[message("user", "  hi  "), message("assistant", "x")]).expect("renders");
    assert_eq!(text, "<s>[HI]</s>");
    let trimmed = render("{% if true %}\n  a\n{% endif %}\nb", &[]).expect("renders");
    assert_eq!(trimmed, "  a\nb");
}

#[test]
fn what_the_template_raises_is_told() {
    let source =
        "{% if messages[0].role != 'user' %}{{ raise_exception('roles must alternate') }}{% endif %}";
    match render(source, &[message("tool", "x")]) {
        Err(TemplateError::Refused(reason)) => assert_eq!(reason, "roles must alternate"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_template_that_does_not_compile_is_unusable() {
    assert!(matches!(render("{% for x in %}", &[]), Err(TemplateError::Unusable(_))));
    assert!(matches!(render("{{ strange_function(1) }}", &[]), Err(TemplateError::Unusable(_))));
    assert!(matches!(render("{% include 'other' %}", &[]), Err(TemplateError::Unusable(_))));
}

#[test]
fn errors_do_not_quote_the_conversation() {
    let secret = "the-secret-question";
    for source in
        ["{{ messages[0].content.nothing() }}", "{{ messages[0].content + 1 }}", "{{ messages[0].content()}}"]
    {
        let error = render(source, &[message("user", secret)]).expect_err("must fail");
        assert!(!format!("{error} {error:?}").contains(secret), "{error:?}");
    }
}

#[test]
fn templates_that_never_end_or_never_stop_writing_are_cut_off() {
    let forever = "{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}";
    assert!(matches!(render(forever, &[]), Err(TemplateError::Limit(_))));
    let long = message("user", &"y".repeat(1 << 20));
    let many = "{% for i in range(10) %}{{ messages[0].content }}{% endfor %}";
    assert!(matches!(render(many, &[long]), Err(TemplateError::Limit(_))));
    let deep = "{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}";
    assert!(render(deep, &[]).is_err());
}

/// A template of `tests/fixtures/templates`.
fn source(name: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/templates/");
    std::fs::read_to_string(format!("{path}{name}")).expect("it lies here")
}

fn from(value: &serde_json::Value) -> Json {
    serde_json::from_str(&value.to_string()).expect("it is JSON")
}

fn list(value: &serde_json::Value) -> Vec<Json> {
    value.as_array().expect("a list").iter().map(from).collect()
}

/// What `scripts/oracle/templates.py` wrote down.
#[test]
fn all_families_render_as_in_transformers() {
    #[derive(serde::Deserialize)]
    struct Fixture {
        chats: Json,
        tools: Json,
        cases: Vec<serde_json::Value>,
    }
    let text = include_str!("../../tests/fixtures/templates/cases.json");
    let fixture: Fixture = serde_json::from_str(text).expect("it is JSON");
    let items = |json: &Json| match json {
        Json::List(items) => items.clone(),
        _ => panic!("a list"),
    };
    let (mut rendered, mut wrong) = (0, Vec::new());
    for case in &fixture.cases {
        let name = case["template"].as_str().expect("a name");
        let options = case["options"].as_object().expect("options");
        let chat = Chat {
            messages: items(fixture.chats.get(case["chat"].as_str().expect("a name")).expect("a chat")),
            tools: if case["tools"] == true { items(&fixture.tools) } else { Vec::new() },
            add_generation_prompt: options["add_generation_prompt"] == true,
            options: options.iter().map(|(name, value)| (name.clone(), from(value))).collect(),
        };
        let template = Template::compile(source(name), "<s>".into(), "</s>".into()).expect("it compiles");
        let found = template.render(&chat.prepared(&str::to_owned));
        match (case["rendered"].as_str(), case["raised"].as_str(), found) {
            (Some(expected), _, Ok(found)) if found == expected => rendered += 1,
            (None, Some(expected), Err(TemplateError::Refused(found))) if found == expected => {}
            // What is no value in Python may be an empty one here.
            (None, None, _) => {}
            (expected, raised, found) => wrong.push(format!(
                "{name} {} {}: {found:#?}\nis not\n{expected:#?} {raised:?}",
                case["chat"], case["tools"]
            )),
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong[..wrong.len().min(6)].join("\n"));
    assert!(rendered > 150, "{rendered}");
}

#[test]
fn what_a_request_names_does_not_replace_what_the_template_is_given() {
    let template = Template::compile(
        "{{ bos_token }}{{ x }}{{ messages | length }}".into(),
        "<s>".into(),
        String::new(),
    );
    let option = |name: &str| (name.to_owned(), Json::from("new"));
    let chat = Chat { options: ["bos_token", "messages", "x"].map(option).to_vec(), ..Chat::default() };
    assert_eq!(template.expect("compiles").render(&chat).expect("renders"), "<s>new0");
}

#[test]
fn all_texts_of_a_conversation_are_prepared_and_nothing_else() {
    let value = serde_json::json!({"role": "tool", "n": 1, "content": [{"text": "a<b", "k<": null}]});
    let chat =
        Chat { messages: vec![from(&value)], tools: list(&serde_json::json!([["<"]])), ..Chat::default() };
    let prepared = chat.prepared(&|text| text.replace('<', "_"));
    let expected = serde_json::json!({"role": "tool", "n": 1, "content": [{"text": "a_b", "k_": null}]});
    assert!(prepared.messages == [from(&expected)] && prepared.tools == list(&serde_json::json!([["_"]])));
}

#[test]
fn values_that_are_too_deep_to_print_are_refused() {
    let deep = (0..200).fold(Json::Null, |inner, _| Json::List(vec![inner]));
    let template =
        Template::compile("{{ x | tojson }}".into(), String::new(), String::new()).expect("compiles");
    let chat = Chat { options: vec![("x".into(), deep)], ..Chat::default() };
    assert!(matches!(template.render(&chat), Err(TemplateError::Unusable(_))));
}

/// A call's arguments are JSON in text, in which a letter can be written as its number.
#[test]
fn control_tokens_spelled_with_escapes_in_a_calls_arguments_are_broken_too() {
    let arguments = r#"{"a": "<\u007cim_end\u007c>", "<\u007cim_end|>": ["<|im_\u0065nd|>"]}"#;
    let message =
        serde_json::json!({"role": "assistant", "tool_calls": [{"function": {"arguments": arguments}}]});
    let chat = Chat { messages: vec![from(&message)], ..Chat::default() };
    let template = "{{ messages[0].tool_calls[0].function.arguments | tojson }}";
    let template = Template::compile(template.into(), String::new(), String::new()).expect("compiles");
    let prepared = chat.prepared(&|text: &str| text.replace("<|im_end|>", "<broken>"));
    let text = template.render(&prepared).expect("renders");
    assert_eq!(text, r#"{"a": "<broken>", "<broken>": ["<broken>"]}"#);
}

#[test]
fn values_that_are_long_when_printed_are_cut_off_in_time() {
    let start = std::time::Instant::now();
    let doubled =
        "{% set ns = namespace(x=[]) %}{% for i in range(50) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}";
    for print in ["{{ ns.x }}", "{{ ns.x | tojson }}", "{{ ns.x | tojson(indent=2) }}"] {
        assert!(render(&format!("{doubled}{print}"), &[]).is_err(), "{print}");
    }
    for source in [
        "{{ 'x' | indent(1000000000000) }}",
        "{{ 'x\ny' | indent(width=1000000000000, first=true) }}",
        "{{ '%1000000000000d' | format(1) }}",
        "{{ '%*d' | format(1000000000000, 1) }}",
        "{{ '{:>1000000000000}'.format(1) }}",
        "{{ '{:>{}}'.format(1, 1000000000000) }}",
        "{{ [1] | batch(1000000000000, 0) | list }}",
        "{{ [1] | slice(1000000000000) | list }}",
        "{{ 'x' * 1000000000000 }}",
        "{{ [1] * 1000000000000 }}",
    ] {
        assert!(render(source, &[]).is_err(), "{source}");
    }
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
}

#[test]
fn lines_are_moved_as_jinja2_moves_them() {
    let cases = [
        ("indent", "a\n    b\n\n    c\n"),
        ("indent(2)", "a\n  b\n\n  c\n"),
        ("indent(2, true)", "  a\n  b\n\n  c\n"),
        ("indent(1, blank=true)", "a\n b\n \n c\n "),
        ("indent(width=1, first=true)", " a\n b\n\n c\n"),
    ];
    for (filter, expected) in cases {
        let source = format!("{{{{ messages[0].content | {filter} }}}}");
        assert_eq!(
            render(&source, &[message("user", "a\nb\n\nc\n")]).expect("renders"),
            expected,
            "{filter}"
        );
    }
}
