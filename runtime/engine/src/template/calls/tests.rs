use super::*;
use crate::{container::FileSource, gguf, tokenizer::Tokenizer};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// The tiny model's tokenizer with another template.
fn vocabulary(template: &str) -> Vocabulary {
    let path = format!("{ROOT}/../../tests/models/tiny.gguf");
    let source = FileSource::open(path.as_ref()).expect("the tiny model is in the repository");
    let header = gguf::read(&source).expect("it is GGUF");
    Vocabulary::new(Tokenizer::read(&header).expect("it has one"), Some(template.to_owned()))
}

fn of(template: &str) -> Option<CallForm> {
    CallForm::of(&vocabulary(template))
}

fn of_file(name: &str) -> Option<CallForm> {
    of(&std::fs::read_to_string(format!("{ROOT}/tests/fixtures/templates/{name}")).expect("it lies here"))
}

#[test]
fn each_familys_form_is_found_in_its_template() {
    assert_eq!(of_file("qwen3.jinja"), Some(CallForm::hermes()));
    let llama = CallForm {
        mark: "{\"name\": \"".into(),
        head: String::new(),
        middle: "\", \"parameters\": ".into(),
        end: "}".into(),
        between: None, // its template raises for two calls
        anywhere: false,
    };
    assert_eq!(of_file("llama3.jinja"), Some(llama.clone()));
    assert_eq!(llama.write("f", "{}"), r#"{"name": "f", "parameters": {}}"#);
    for without in ["chatml.jinja", "gemma.jinja", "llama2.jinja", "phi3.jinja"] {
        assert_eq!(of_file(without), None, "{without} knows no tools");
    }
}

/// A template that writes calls as `body` says, joined by `between`.
fn template(body: &str, between: &str) -> String {
    format!(
        "{{%- for t in tools or [] %}}{{{{ t | tojson }}}}{{%- endfor %}}{{%- for m in messages %}}[{{{{ m.role }}}}]\
         {{%- for c in m.tool_calls or [] %}}{{%- if not loop.first %}}{{{{ {between:?} }}}}{{%- endif %}}\
         {{%- set f = c.function %}}{body}{{%- else %}}{{{{ m.content }}}}{{%- endfor %}}[/]{{%- endfor %}}"
    )
}

#[test]
fn other_forms_are_found_too() {
    let form = of(&template("<function={{ f.name }}>{{ f.arguments | tojson }}</function>", " "));
    let form = form.expect("it is a form");
    assert_eq!((form.mark.as_str(), form.head.as_str(), form.middle.as_str()), ("<function=", "", ">"));
    assert_eq!((form.end.as_str(), form.between.as_deref(), form.anywhere), ("</function>", Some(" "), true));
    let react =
        of(&template("Action: {{ f.name }}\nInput: {{ f.arguments | tojson }}", "; ")).expect("a form");
    assert_eq!((react.mark.as_str(), react.end.as_str()), ("Action: ", ""));
    assert_eq!(react.between, None, "what stands between is more than white space");
}

#[test]
fn what_could_not_be_read_back_is_no_form() {
    for body in [
        // Arguments that are no JSON.
        "<call>{{ f.name }}{% for k, v in f.arguments.items() %}<{{ k }}>{{ v }}</{{ k }}>{% endfor %}</call>",
        // A control token of this vocabulary.
        "<|im_start|>{{ f.name }}: {{ f.arguments | tojson }}",
        // The name behind the arguments.
        "{{ f.arguments | tojson }} for {{ f.name }}",
        // Nothing to know it by, or nothing between.
        "{{ f.name }}: {{ f.arguments | tojson }}",
        "call {{ f.name }}{{ f.arguments | tojson }}",
        // It raises.
        "{{ raise_exception('no calls') }}",
    ] {
        assert_eq!(of(&template(body, "\n")), None, "{body}");
    }
    // A template that writes calls and never says which tools there are.
    let silent = template("<c>{{ f.name }} {{ f.arguments | tojson }}</c>", "\n").replace("t | tojson", "''");
    assert_eq!(of(&silent), None);
}
