use super::*;

fn piece(text: &str, more: &str) -> Vec<u8> {
    format!(r#"{{"choices":[{{"index":0,"delta":{{"content":"{text}"}},"finish_reason":null}}]{more}}}"#)
        .into_bytes()
}

fn finish(reason: &str) -> Vec<u8> {
    format!(r#"{{"choices":[{{"index":0,"delta":{{}},"finish_reason":"{reason}"}}]}}"#).into_bytes()
}

fn usage(prompt: u64, cached: u64, completion: u64) -> String {
    format!(
        r#","usage":{{"prompt_tokens":{prompt},"completion_tokens":{completion},"total_tokens":0,
        "prompt_tokens_details":{{"cached_tokens":{cached}}}}}"#
    )
}

fn tally(dialect: Dialect, prefix_cache: PrefixCache, prompt: PromptBound) -> Tally {
    let config = "argv = [\"/usr/bin/serve\"]\naddress = \"127.0.0.1:1\"\ndialect = \"vllm\"\nprefix_cache = \"salted\"\n\
                  [canary]\nprompt = \"a\"\n";
    let config: ChildConfig = toml::from_str(config).expect("it reads");
    Tally::new(&ChildConfig { dialect, prefix_cache, ..config }, 10, prompt)
}

/// Feeds an answer to a tally of ten tokens and a prompt of at most 100.
fn judge(dialect: Dialect, lines: &[Vec<u8>]) -> Result<(Finish, Usage), Violation> {
    follow(tally(dialect, PrefixCache::Salted, PromptBound::AtMost(100)), lines)
}

fn follow(mut tally: Tally, lines: &[Vec<u8>]) -> Result<(Finish, Usage), Violation> {
    for line in lines {
        tally.received(line.len())?;
        tally.take(line)?;
    }
    tally.end()
}

fn counted(prompt_tokens: u32, cached_tokens: u32, completion_tokens: u32) -> Usage {
    Usage { prompt_tokens, cached_tokens, completion_tokens }
}

#[test]
fn an_honest_answer_is_counted() {
    let lines =
        [piece("a", &usage(7, 3, 1)), piece("b", &usage(7, 3, 2)), finish("stop"), b"[DONE]".to_vec()];
    assert_eq!(judge(Dialect::Vllm, &lines), Ok((Finish::Stop, counted(7, 3, 2))));
}

#[test]
fn without_a_count_each_piece_is_a_token_and_the_prompt_is_free() {
    let lines = [piece("a", ""), piece("b", ""), finish("length"), b"[DONE]".to_vec()];
    assert_eq!(judge(Dialect::Openai, &lines), Ok((Finish::Length, counted(0, 0, 2))));
    assert_eq!(judge(Dialect::Vllm, &lines), Err(Violation::NoUsage));
}

#[test]
fn a_completion_is_read_as_a_chat_is() {
    let text = |text: &str| {
        format!(r#"{{"choices":[{{"index":0,"text":"{text}"}}],"usage":{{"prompt_tokens":7,"completion_tokens":1}}}}"#)
            .into_bytes()
    };
    let lines = [text("a"), finish("length"), b"[DONE]".to_vec()];
    assert_eq!(judge(Dialect::LlamaCpp, &lines), Ok((Finish::Length, counted(7, 0, 1))));
}

#[test]
fn a_prompt_that_was_sent_in_tokens_has_exactly_those() {
    for (told, expected) in [
        (7, Ok((Finish::Stop, counted(7, 0, 1)))),
        (6, Err(Violation::OtherPrompt)),
        (8, Err(Violation::OtherPrompt)),
    ] {
        let lines = [piece("a", &usage(told, 0, 1)), finish("stop"), b"[DONE]".to_vec()];
        let tally = tally(Dialect::Vllm, PrefixCache::Salted, PromptBound::Exactly(7));
        assert_eq!(follow(tally, &lines), expected);
    }
}

#[test]
fn a_cache_that_is_said_to_be_off_meets_nothing() {
    for (cached, expected) in [(0, Ok((Finish::Stop, counted(7, 0, 1)))), (1, Err(Violation::Cached))] {
        let lines = [piece("a", &usage(7, cached, 1)), finish("stop"), b"[DONE]".to_vec()];
        let tally = tally(Dialect::Vllm, PrefixCache::Off, PromptBound::AtMost(100));
        assert_eq!(follow(tally, &lines), expected);
    }
}

#[test]
fn what_is_said_beside_the_answer_is_not_sold() {
    for delta in [
        r#"{"reasoning_content":"hm"}"#,
        r#"{"reasoning":"hm"}"#,
        r#"{"content":null,"tool_calls":[{"index":0}]}"#,
    ] {
        let line = format!(r#"{{"choices":[{{"index":0,"delta":{delta}}}]}}"#).into_bytes();
        assert_eq!(judge(Dialect::Vllm, &[line]), Err(Violation::Aside));
    }
    let nothing = br#"{"choices":[{"index":0,"delta":{"reasoning_content":null,"tool_calls":[]}}]}"#.to_vec();
    assert_eq!(judge(Dialect::Vllm, &[nothing]), Err(Violation::CutShort));
}

#[test]
fn one_broken_rule_at_a_time_is_found() {
    let (done, stop) = (b"[DONE]".to_vec(), finish("stop"));
    let many: Vec<_> = (0..19).map(|_| piece("a", &usage(7, 0, 10))).collect();
    for (lines, violation) in [
        (vec![piece("a", &usage(7, 0, 1)), stop.clone()], Violation::CutShort),
        (vec![piece("a", &usage(7, 0, 1)), done.clone()], Violation::CutShort),
        (vec![piece("a", &usage(7, 0, 11)), stop.clone(), done.clone()], Violation::Usage),
        (vec![piece("a", &usage(101, 0, 1)), stop.clone(), done.clone()], Violation::Usage),
        (vec![piece("a", &usage(7, 8, 1)), stop.clone(), done.clone()], Violation::Usage),
        (vec![piece("a", &usage(7, 0, 2)), piece("a", &usage(7, 0, 1))], Violation::UsageWentBack),
        (vec![piece("a", &usage(7, 0, 1)), piece("a", &usage(8, 0, 2))], Violation::UsageWentBack),
        (vec![piece("a", &usage(0, 0, 1)), stop.clone(), done.clone()], Violation::Undercount),
        (vec![stop.clone(), piece("a", "")], Violation::AfterEnd),
        (vec![stop.clone(), done.clone(), stop.clone()], Violation::AfterEnd),
        (vec![piece(&"a".repeat(9300), "")], Violation::Flood),
        (vec![b" ".repeat(200_000)], Violation::Flood),
        (many, Violation::TooManyPieces),
        (vec![b"{".to_vec()], Violation::Unreadable),
        (vec![b"[]".to_vec()], Violation::Unreadable),
        (vec![br#"{"error":{"message":"no"}}"#.to_vec()], Violation::Reported),
        (vec![br#"{"choices":[{"index":1,"delta":{"content":"a"}}]}"#.to_vec()], Violation::AfterEnd),
    ] {
        assert_eq!(judge(Dialect::Vllm, &lines), Err(violation));
    }
    let mut lines: Vec<_> = (0..10).map(|_| piece("a", "")).collect();
    lines.extend([piece("", &usage(7, 0, 1)), stop, done]);
    assert_eq!(judge(Dialect::Openai, &lines), Err(Violation::Undercount));
}

#[test]
fn mutated_chunks_are_read_or_refused() {
    let mut state = 0xC0C0_0008u64;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % bound
    };
    let budget = std::env::var("COCOON_FUZZ_ITERATIONS").ok().and_then(|text| text.parse().ok());
    for _ in 0..budget.unwrap_or(20_000) {
        let mut line = piece("text", &usage(7, 3, 2));
        for _ in 0..=below(3) {
            let at = below(line.len());
            match below(2) {
                0 => line[at] = below(256) as u8,
                _ => drop(line.drain(at..(at + below(9)).min(line.len()))),
            }
        }
        let mut tally = tally(Dialect::Vllm, PrefixCache::Salted, PromptBound::AtMost(100));
        if let Ok(Some(Event::Piece { usage, .. })) = tally.take(&line) {
            assert!(usage.prompt_tokens <= 100 && usage.completion_tokens <= 10);
        }
    }
}
