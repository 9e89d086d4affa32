//! What the whole path adds: sealed through gateway and host, against the same engine called in process. Both take turns
//! on the same prompt and seed; medians and their ratios are printed.
//!
//! `cargo run --release -p xtask -- bench path`

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cocoon_client::proxy::budget_for;
use cocoon_client::{Client, Event, Peer};
use cocoon_engine::{ChatMessage, Engine, EngineOptions, Model, Params, Sampling};
use cocoon_protocol::Prompt;
use cocoon_tests::{Network, tiny_model};

const ROUNDS: usize = 9;
const TOKENS: u32 = 64;
const PROMPT: &str = "Write about the history of the sea, and of the people who crossed it.";

/// Time to the first token, and time for each one after it.
#[derive(Clone, Copy)]
struct Sample {
    first: Duration,
    each: Duration,
}

impl Sample {
    fn of(started: Instant, marks: &[Instant]) -> Self {
        let (first, last) = (marks[0], marks[marks.len() - 1]);
        Self { first: first - started, each: (last - first) / (marks.len() as u32 - 1).max(1) }
    }
}

#[tokio::main]
async fn main() {
    let model = demo_model();
    println!("model {}, {ROUNDS} rounds of {TOKENS} tokens, taking turns", model.display());
    let engine =
        Engine::new(Arc::new(Model::open(&model).expect("the model opens")), EngineOptions::default());
    let network = Network::start(&model);
    let client = network.client("bench", &network.gateway_url(), 1_000_000_000).await;
    let peer = client.find(None).await.expect("the worker is acceptable");
    sealed(&client, &peer).await; // opens the channel, warms both
    in_process(&engine);
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        direct.push(in_process(&engine));
        through.push(sealed(&client, &peer).await);
    }
    report("first token", &direct, &through, |sample| sample.first);
    report("each token", &direct, &through, |sample| sample.each);
}

fn demo_model() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let demo = cache.or_else(home).map(|c| c.join("cocoon/models/SmolLM2-135M-Instruct.Q4_1.gguf"));
    demo.filter(|path| path.is_file()).unwrap_or_else(tiny_model)
}

fn in_process(engine: &Engine) -> Sample {
    let started = Instant::now();
    let message = [ChatMessage { role: "user".into(), content: PROMPT.into() }];
    let model = engine.model();
    let prompt =
        model.tokenizer().encode(&model.render_chat(&message, true).expect("the template renders"), true);
    let sampling = Sampling { seed: 1, ..Sampling::greedy() };
    let params = Params { sampling, max_tokens: TOKENS as usize, ..Params::default() };
    let mut marks = Vec::new();
    engine
        .generate(&prompt, &params, |step| {
            if step.token.is_some() {
                marks.push(Instant::now());
            }
            ControlFlow::Continue(())
        })
        .expect("it generates");
    Sample::of(started, &marks)
}

async fn sealed(client: &Client, peer: &Peer) -> Sample {
    let body = serde_json::json!({
        "model": peer.model(), "stream": true, "max_tokens": TOKENS, "seed": 1,
        "temperature": 0.0, "top_p": 1.0, "repetition_penalty": 1.0,
        "messages": [{"role": "user", "content": PROMPT}],
    });
    let body = body.to_string().into_bytes();
    let budget = budget_for(&body, Some(TOKENS));
    let started = Instant::now();
    let mut answering = client.ask(peer, Prompt::new(body), budget).await.expect("it is sent");
    let (mut marks, mut tokens) = (Vec::new(), 0);
    while let Some(event) = answering.next().await.expect("it streams") {
        if matches!(event, Event::Finished(_)) {
            break;
        }
        let counted = answering.usage().completion_tokens;
        if counted > tokens {
            tokens = counted;
            marks.push(Instant::now());
        }
    }
    Sample::of(started, &marks)
}

fn report(what: &str, direct: &[Sample], through: &[Sample], part: impl Fn(&Sample) -> Duration) {
    let median = |samples: &[Sample]| {
        let mut times: Vec<Duration> = samples.iter().map(&part).collect();
        times.sort_unstable();
        times[times.len() / 2]
    };
    let (direct, through) = (median(direct), median(through));
    println!(
        "{what:<12} in process {:>9.3} ms   sealed through gateway {:>9.3} ms   added {:>8.3} ms   ratio {:.3}",
        direct.as_secs_f64() * 1e3,
        through.as_secs_f64() * 1e3,
        through.as_secs_f64() * 1e3 - direct.as_secs_f64() * 1e3,
        through.as_secs_f64() / direct.as_secs_f64(),
    );
}
