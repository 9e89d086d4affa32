//! A real server, where one is installed.

use crate::kit::{config, question, start};
use cocoon_supervisor::{Dialect, State};
use std::path::PathBuf;

/// `COCOON_REAL_SERVER` is a Python that has `llama-cpp-python[server]`, `COCOON_REAL_MODEL` a GGUF file that anybody may read.
/// Says so where they are not given.
#[tokio::test]
async fn llama_cpp_python_is_supervised() {
    let (Ok(python), Ok(model)) = (std::env::var("COCOON_REAL_SERVER"), std::env::var("COCOON_REAL_MODEL"))
    else {
        eprintln!("no real server was tried: set COCOON_REAL_SERVER and COCOON_REAL_MODEL");
        return;
    };
    let mut config = config("");
    let arguments = "-m llama_cpp.server --model /dev/shm/model --host 127.0.0.1 --port 8000 --n_ctx 2048";
    config.argv = std::iter::once(python.as_str()).chain(arguments.split(' ')).map(str::to_owned).collect();
    config.environment.clear();
    config.address = "127.0.0.1:8000".to_owned();
    (config.dialect, config.health) = (Dialect::Openai, "/v1/models".to_owned());
    (config.limits.first_piece, config.limits.between_pieces) = (120, 60);
    config.limits.start = 300;
    config.limits.health_every_ms = 10_000;
    config.limits.memory_mib = 16 << 10;
    let kit = start(config, Some(PathBuf::from(model)));
    let settled = tokio::time::timeout(std::time::Duration::from_secs(400), kit.supervisor.settled()).await;
    assert_eq!(settled, Ok(State::Ready));
    let mut question = question("What is the capital of France? Answer with one word.");
    question.max_tokens = 12;
    question.temperature = 0.0;
    let (text, outcome) = kit.ask_whole(&question).await;
    let (_, usage) = outcome.expect("an answer");
    assert!(!text.trim().is_empty());
    assert!((1..=12).contains(&usage.completion_tokens), "{usage:?}");
    eprintln!("the real server answered with {} tokens", usage.completion_tokens);
    kit.supervisor.drain().await;
    assert_eq!(kit.supervisor.state(), State::Dead);
}
