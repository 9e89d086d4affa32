use super::*;

fn message(role: &str, content: &str) -> ChatMessage {
    ChatMessage { role: role.into(), content: content.into() }
}

fn render(source: &str, messages: &[ChatMessage]) -> Result<String, TemplateError> {
    Template::compile(source.into(), "<s>".into(), "</s>".into())?.render(messages, true)
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
