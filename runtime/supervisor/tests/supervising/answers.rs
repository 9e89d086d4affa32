//! What answers come to, and what a child that misbehaves in the middle of one gets.

use crate::kit::{PATIENCE, config, question, ready};
use cocoon_supervisor::{
    ChildConfig, Dialect, Event, Failure, Finish, PrefixCache, Said, State, Usage, Violation,
};
use std::time::Duration;

#[tokio::test]
async fn an_honest_answer_arrives_with_its_count() {
    let kit = ready(config("honest")).await;
    let (text, outcome) = kit.ask("!honest").await;
    assert_eq!(text, "one two three four");
    let usage = Usage { prompt_tokens: 7, cached_tokens: 0, completion_tokens: 4 };
    assert_eq!(outcome, Ok((Finish::Stop, usage)));
}

#[tokio::test]
async fn the_child_gets_the_listed_fields_and_nothing_else() {
    let kit = ready(config("honest")).await;
    let (text, _) = kit.ask("!body").await;
    let body: serde_json::Value = serde_json::from_str(&text).expect("what it was sent");
    let mut names: Vec<&str> = body.as_object().expect("an object").keys().map(String::as_str).collect();
    names.sort_unstable(); // in some builds of serde_json they are in the order in which they came
    let expected = "cache_salt frequency_penalty max_tokens messages min_p model n presence_penalty repetition_penalty seed \
                    stream stream_options temperature top_k top_p";
    assert_eq!(names, expected.split_whitespace().collect::<Vec<_>>());
    assert_eq!(body["cache_salt"], "07".repeat(32));
}

#[tokio::test]
async fn each_misdeed_ends_its_answer_and_no_other() {
    for (mode, failure) in [
        ("huge usage", Failure::Violation(Violation::Usage)),
        ("huge prompt", Failure::Violation(Violation::Usage)),
        ("backwards", Failure::Violation(Violation::UsageWentBack)),
        ("garbage", Failure::Violation(Violation::Unreadable)),
        ("flood", Failure::Violation(Violation::Flood)),
        ("long line", Failure::Violation(Violation::LongLine)),
        ("cut", Failure::Violation(Violation::CutShort)),
        ("no stream", Failure::Violation(Violation::NotAStream)),
        ("refuse", Failure::Refused(400)),
        ("fail", Failure::Status(500)),
        ("aside", Failure::Violation(Violation::Aside)),
        ("endless head", Failure::Gone),
        ("more after the end", Failure::Violation(Violation::AfterEnd)),
    ] {
        let kit = ready(config("honest")).await;
        let mut slow = kit.supervisor.ask(&question("!slowly")).await.expect("ready");
        let (_, outcome) = kit.ask(&format!("!{mode}")).await;
        assert_eq!(outcome, Err(failure), "{mode}");
        let mut text = String::new();
        while let Some(event) = tokio::time::timeout(PATIENCE, slow.next()).await.expect("it goes on") {
            match event {
                Event::Piece { text: piece, .. } => text.push_str(&piece),
                Event::End(outcome) => assert!(outcome.is_ok(), "{mode}"),
            }
        }
        assert_eq!(text, "one two three four", "{mode}");
        assert_eq!(kit.supervisor.status().starts, 1, "{mode}");
    }
}

#[tokio::test]
async fn a_child_that_breaks_rules_again_and_again_is_started_again() {
    let kit = ready(config("honest")).await;
    for _ in 0..3 {
        assert!(kit.ask("!garbage").await.1.is_err());
    }
    kit.started(2).await;
    assert_eq!(kit.settled().await, State::Ready);
    assert!(kit.ask("!honest").await.1.is_ok());
}

#[tokio::test]
async fn broken_rules_with_good_answers_between_them_end_no_child() {
    let kit = ready(config("honest")).await;
    for _ in 0..4 {
        assert!(kit.ask("!garbage").await.1.is_err());
        assert!(kit.ask("!honest").await.1.is_ok());
    }
    assert_eq!((kit.supervisor.state(), kit.supervisor.status().starts), (State::Ready, 1));
}

#[tokio::test]
async fn one_that_fails_at_every_answer_and_says_that_it_is_well_is_started_again() {
    let kit = ready(config("honest")).await;
    for _ in 0..8 {
        assert_eq!(kit.ask("!fail").await.1, Err(Failure::Status(500)));
    }
    kit.started(2).await;
    assert_eq!(kit.settled().await, State::Ready);
}

#[tokio::test]
async fn an_answer_that_drips_has_an_end() {
    let mut config = config("honest");
    config.limits.answer = 3;
    let kit = ready(config).await;
    let mut question = question("!drip");
    question.max_tokens = 1000; // one each half second: longer than anybody waits here
    assert_eq!(kit.ask_whole(&question).await.1, Err(Failure::TooLong));
    assert_eq!(kit.supervisor.status().starts, 1, "one client's long answer ends nobody else's");
}

#[tokio::test]
async fn tokens_are_asked_as_a_completion() {
    let kit = ready(config("honest")).await;
    let mut question = question("");
    (question.said, question.stop) = (Said::Tokens(vec![5, 6, 7].into()), vec!["!honest".to_owned()]);
    let (text, outcome) = kit.ask_whole(&question).await;
    assert_eq!(text, "one two three four");
    let usage = Usage { prompt_tokens: 3, cached_tokens: 0, completion_tokens: 4 };
    assert_eq!(outcome, Ok((Finish::Stop, usage)));
    question.stop = vec!["!another prompt".to_owned()];
    assert_eq!(kit.ask_whole(&question).await.1, Err(Failure::Violation(Violation::OtherPrompt)));
}

#[tokio::test]
async fn a_child_that_hangs_is_killed_and_started_again() {
    for mode in ["!hang", "!hang in the middle", "!comments"] {
        let kit = ready(config("honest")).await;
        assert_eq!(kit.ask(mode).await.1, Err(Failure::TimedOut), "{mode}");
        kit.started(2).await;
        assert_eq!(kit.settled().await, State::Ready, "{mode}");
    }
}

#[tokio::test]
async fn a_crash_ends_its_answers_and_the_next_process_answers() {
    let kit = ready(config("honest")).await;
    let (text, outcome) = kit.ask("!crash").await;
    assert_eq!(text, "one two ");
    assert!(matches!(outcome, Err(Failure::Gone | Failure::Violation(Violation::CutShort))), "{outcome:?}");
    kit.started(2).await;
    assert_eq!(kit.settled().await, State::Ready);
    assert!(kit.ask("!honest").await.1.is_ok());
}

#[tokio::test]
async fn letting_go_of_an_answer_closes_the_connection() {
    let kit = ready(config("honest")).await;
    let mut answer = kit.supervisor.ask(&question("!slowly")).await.expect("ready");
    assert!(matches!(answer.next().await, Some(Event::Piece { .. })));
    drop(answer);
    let mut look = question("!look around");
    look.max_tokens = 4096;
    let cancelled = async {
        loop {
            let (text, _) = kit.ask_whole(&look).await;
            let seen: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            if seen["cancelled"] == true && kit.supervisor.status().running == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, cancelled).await.expect("the child sees it, and its place is free");
}

#[tokio::test]
async fn a_reader_that_pauses_makes_no_child_hang() {
    let kit = ready(config("honest")).await;
    let mut answer = kit.supervisor.ask(&question("!honest")).await.expect("ready");
    tokio::time::sleep(Duration::from_secs(3)).await; // longer than a pause between pieces may be
    let mut last = None;
    while let Some(event) = answer.next().await {
        last = Some(event);
    }
    assert!(matches!(last, Some(Event::End(Ok(_)))));
    assert_eq!(kit.supervisor.status().starts, 1);
}

#[tokio::test]
async fn plain_servers_get_no_fields_beyond_openai() {
    let config = ChildConfig { dialect: Dialect::Openai, prefix_cache: PrefixCache::Off, ..config("honest") };
    let kit = ready(config).await;
    let (text, outcome) = kit.ask("!body").await;
    assert!(outcome.is_ok());
    for field in ["cache_salt", "top_k", "min_p", "repetition_penalty", "continuous_usage_stats"] {
        assert!(!text.contains(field), "{field}");
    }
}
