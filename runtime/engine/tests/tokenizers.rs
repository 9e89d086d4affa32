//! Tokens equal to those of `tokenizers` and of SentencePiece (`scripts/oracle/tokens.py`), on text that is hard and on
//! text that is random.

use std::path::PathBuf;

use cocoon_engine::{TextStream, Vocabulary};
use serde_json::Value;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizers").join(name)
}

fn cases() -> Value {
    serde_json::from_str(include_str!("fixtures/tokenizers/cases.json")).expect("it is JSON")
}

fn texts(cases: &Value) -> Vec<&str> {
    let texts: Vec<_> = cases["texts"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert!(texts.len() > 150, "the hard corpus");
    texts
}

fn tokenizes_as_expected(name: &str, file: &str, special: bool) {
    let (cases, vocabulary) = (cases(), Vocabulary::open(&path(file)).expect("it loads"));
    let expected = cases[name].as_array().expect("a list");
    let mut wrong = Vec::new();
    for (text, expected) in texts(&cases).into_iter().zip(expected) {
        let expected: Vec<u32> = serde_json::from_value(expected.clone()).expect("token ids");
        let found = vocabulary.tokenizer().encode(text, special);
        if found != expected {
            wrong.push(format!("{text:?}:\n  {found:?}\n  {expected:?}"));
        }
    }
    assert!(wrong.is_empty(), "{name}, {} texts:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn byte_level_tokenizers_of_all_families_are_equal() {
    for name in ["gpt2", "smollm", "llama3", "qwen2", "gpt4o"] {
        tokenizes_as_expected(name, name, true);
    }
}

#[test]
fn tokenizers_of_pieces_are_equal() {
    for name in ["llama2", "metaspace", "metasplit", "gemma"] {
        tokenizes_as_expected(name, name, true);
    }
}

#[test]
fn sentencepiece_in_gguf_is_equal_to_sentencepiece() {
    tokenizes_as_expected("sentencepiece", "sentencepiece.gguf", false);
}

#[test]
fn word_pieces_are_equal() {
    tokenizes_as_expected("bert", "bert", true);
}

#[test]
fn text_survives_pieces_and_streams() {
    let cases = cases();
    for file in ["llama2", "metasplit", "gemma", "sentencepiece.gguf"] {
        let vocabulary = Vocabulary::open(&path(file)).expect("it loads");
        for text in texts(&cases) {
            let ids = vocabulary.tokenizer().encode(text, false);
            // SentencePiece has one letter for a space.
            let mut expected = text.replace('\u{2581}', " ");
            if file == "metasplit" && expected.starts_with(' ') {
                expected.remove(0); // which is taken for the space that is put before a text
            }
            assert_eq!(String::from_utf8_lossy(&vocabulary.tokenizer().decode(&ids)), expected, "{file}");
            let (mut stream, mut out) = (TextStream::new(vocabulary.tokenizer()), String::new());
            ids.iter().for_each(|id| stream.push(*id, &mut out));
            stream.finish(&mut out);
            assert_eq!(out, expected, "{file}");
        }
    }
}

/// One change to a sound `tokenizer.json`, and what the error says of it.
fn refusal(name: &str, change: impl FnOnce(&mut Value)) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    let text = std::fs::read(path(name).join("tokenizer.json")).expect("it is there");
    let mut file: Value = serde_json::from_slice(&text).expect("it is JSON");
    change(&mut file);
    std::fs::write(folder.path().join("tokenizer.json"), file.to_string()).expect("it is written");
    Vocabulary::open(folder.path()).err().expect("it is refused").to_string()
}

#[test]
fn steps_that_are_not_known_are_refused_by_name() {
    let error = refusal("gpt2", |file| file["normalizer"] = serde_json::json!({"type": "Nmt"}));
    assert!(error.contains("Nmt"), "{error}");
    let error = refusal("llama3", |file| {
        file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = r"\p{Greek}+".into();
    });
    assert!(error.contains(r"\\p{Greek}+"), "{error}");
    let error = refusal("llama3", |file| file["pre_tokenizer"]["pretokenizers"][0]["invert"] = true.into());
    assert!(error.contains("Split, ByteLevel"), "{error}");
    let error = refusal("bert", |file| file["normalizer"] = Value::Null);
    assert!(error.contains("BertNormalizer"), "{error}");
    let error = refusal("llama2", |file| file["normalizer"] = Value::Null);
    assert!(error.contains("U+2581"), "{error}");
    let error = refusal("llama2", |file| file["model"]["type"] = "Unigram".into());
    assert!(error.contains("Unigram"), "{error}");
}

#[test]
fn vocabularies_that_lie_are_refused() {
    let error = refusal("gpt2", |file| file["model"]["vocab"]["huge"] = 4_000_000_000u32.into());
    assert!(error.contains("limit"), "{error}");
    let error = refusal("gpt2", |file| file["model"]["vocab"]["twice"] = 5.into());
    assert!(error.contains("two tokens"), "{error}");
    let error = refusal("gpt2", |file| file["model"]["merges"][0] = "one".into());
    assert!(error.contains("merge 0"), "{error}");
    let error = refusal("gpt2", |file| file["added_tokens"][0]["content"] = "".into());
    assert!(error.contains("empty") || error.contains("two tokens"), "{error}");
}

/// So long that work that grows with the square takes minutes.
const LONG: usize = 1 << 17;

/// One thing again and again, and what no merge, no rule and no table of a tokenizer likes.
#[test]
fn much_of_anything_is_encoded_in_reasonable_time() {
    let units = "a|ab| |\n|\t \n|1|12 |!|'s|'S't|A|aA|中|中A|é|e\u{301}|\u{301}|\u{301}\u{323}|👨\u{200d}|🏳\u{fe0f}|م|\u{2581}|\0|<|<|\
                 <s|\u{10ffff}|x\u{a0}|ᄀ|ㄱㅏ|\r\n|²|/|가\u{11a8}";
    let mut slowest = (std::time::Duration::ZERO, String::new());
    for name in
        ["gpt2", "smollm", "llama3", "qwen2", "gpt4o", "llama2", "metaspace", "metasplit", "gemma", "bert"]
    {
        let vocabulary = Vocabulary::open(&path(name)).expect("it loads");
        let tokenizer = vocabulary.tokenizer();
        for unit in units.split('|') {
            let text = unit.repeat(LONG / unit.len());
            let start = std::time::Instant::now();
            let tokens = tokenizer.encode(&text, true);
            let took = start.elapsed();
            assert!(took.as_secs() < 10, "{name}, {unit:?}: {took:?} for {} tokens", tokens.len());
            slowest = slowest.max((took, format!("{name}, {unit:?}")));
        }
    }
    println!("the slowest: {slowest:?}");
}

/// Gemma has more than six thousand added tokens, all of which begin alike.
#[test]
fn thousands_of_added_tokens_do_not_hold_a_text_up() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = std::fs::read(path("gemma").join("tokenizer.json")).expect("it is there");
    let mut file: Value = serde_json::from_slice(&text).expect("it is JSON");
    let first = 100_000;
    let added = file["added_tokens"].as_array_mut().expect("a list");
    added.extend((0..20_000u32).map(|number| {
        let content = format!("<unused{number}>");
        serde_json::json!({"id": first + number, "content": content, "special": number % 2 == 0})
    }));
    std::fs::write(folder.path().join("tokenizer.json"), file.to_string()).expect("it is written");
    let vocabulary = Vocabulary::open(folder.path()).expect("it loads");
    let tokenizer = vocabulary.tokenizer();
    assert_eq!(tokenizer.encode("<unused19998><unused7>", true), [first + 19_998, first + 7]);
    assert_ne!(
        tokenizer.encode("<unused4>", false)[0],
        first + 4,
        "a control token is text where none was asked for"
    );
    for unit in ["<", "<unused", "<unused1999", "<unused7> "] {
        let start = std::time::Instant::now();
        let tokens = tokenizer.encode(&unit.repeat(LONG / unit.len()), true);
        let took = start.elapsed();
        assert!(took.as_secs() < 5, "{unit:?}: {took:?} for {} tokens", tokens.len());
    }
}
