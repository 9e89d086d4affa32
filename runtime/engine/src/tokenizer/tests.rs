use super::*;

fn words(rules: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    Splitter::named(rules).expect("known rules").split(text, |word| found.push(word.to_owned()));
    assert_eq!(found.concat(), text, "nothing may be lost");
    found
}

#[test]
fn gpt2_rules_split_as_its_expression_does() {
    assert_eq!(
        words("gpt2", "I'll  go, don't 42x\n\n y"),
        ["I", "'ll", " ", " go", ",", " don", "'t", " 42", "x", "\n\n", " y"]
    );
    assert_eq!(words("gpt2", "a \u{a0}b  "), ["a", " ", "\u{a0}", "b", "  "]);
    assert_eq!(words("gpt2", " !?é\u{301} ٣"), [" !?", "é", "\u{301}", " ٣"]);
}

#[test]
fn smollm_rules_take_each_digit_alone() {
    assert_eq!(words("smollm", "in 1984 x²"), ["in", " ", "1", "9", "8", "4", " x", "²"]);
    assert_eq!(words("smollm", "a  7"), ["a", "  ", "7"]);
}

#[test]
fn llama3_rules_take_three_digits_and_lines() {
    assert_eq!(
        words("llama-bpe", "It'S 12345!\n\n  (x) \n\ty"),
        ["It", "'S", " ", "123", "45", "!\n\n", " ", " (", "x", ")", " \n", "\ty"]
    );
    assert_eq!(words("qwen2", "a12 b"), ["a", "1", "2", " b"]);
}

#[test]
fn default_rules_take_punctuation_and_threes() {
    assert_eq!(words("default", "x+=1234, y 5"), ["x", "+=", "123", "4", ",", " y", " ", "5"]);
}

#[test]
fn unknown_rules_are_named_in_the_error() {
    let error = Splitter::named("klingon").err().expect("unknown");
    assert!(error.to_string().contains("klingon"), "{error}");
}
