//! A real server under the sandbox, asked as a chat: llama.cpp's. The guest's tests ask it in tokens, through the whole API.

use crate::kit::{config, question, start};
use cocoon_supervisor::{ChildConfig, Dialect, Event, Finish, PrefixCache, Root, Said, State};
use std::path::{Path, PathBuf};
use std::process::Command;

fn model() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    cache.unwrap_or_else(home).join("cocoon/models/SmolLM2-135M-Instruct.Q4_1.gguf")
}

fn real(python: &str) -> ChildConfig {
    let told = Command::new(python)
        .args(["-c", "import sys; print(sys.prefix); print(sys.base_prefix)"])
        .output()
        .expect("COCOON_LLAMA_PYTHON is a Python");
    let told = String::from_utf8(told.stdout).expect("paths");
    let launcher = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/child").canonicalize();
    let launcher = launcher.expect("it is in the repository");
    let program = launcher.join("llama_server.py").to_str().expect("a plain path").to_owned();
    let arguments = [python, program.as_str(), "/dev/shm/model", "8100", "512", "2", "1"];
    let paths = told.lines().map(PathBuf::from).chain([launcher]).filter(|path| path != Path::new("/usr"));
    let mut config = config("");
    config.argv = arguments.map(str::to_owned).to_vec();
    config.roots = paths.map(|path| Root { path, sha256: None }).collect();
    config.environment.clear();
    config.address = "127.0.0.1:8100".to_owned();
    (config.dialect, config.prefix_cache) = (Dialect::LlamaCpp, PrefixCache::Off);
    (config.limits.first_piece, config.limits.between_pieces) = (120, 60);
    (config.limits.start, config.limits.health_every_ms, config.limits.memory_mib) = (120, 1000, 16 << 10);
    config
}

/// `./scripts/test` sets `COCOON_LLAMA_PYTHON`: a Python with xllamacpp of PyPI. Says so where it is not set.
#[tokio::test]
async fn llama_cpp_is_supervised() {
    let (Ok(python), model) = (std::env::var("COCOON_LLAMA_PYTHON"), model()) else {
        eprintln!("SKIPPED: no real server was tried: set COCOON_LLAMA_PYTHON (./scripts/test does)");
        return;
    };
    assert!(model.is_file(), "{} is missing: ./scripts/test fetches it", model.display());
    let kit = start(real(&python), Some(model));
    let settled = tokio::time::timeout(std::time::Duration::from_secs(200), kit.supervisor.settled()).await;
    assert_eq!(settled, Ok(State::Ready));
    let mut asked = question("What is the capital of France? Answer with one word.");
    (asked.max_tokens, asked.temperature) = (12, 0.0);
    let (text, outcome) = kit.ask_whole(&asked).await;
    let (_, usage) = outcome.expect("an answer");
    assert!(text.contains("Paris"), "{text}");
    assert!((1..=12).contains(&usage.completion_tokens) && usage.prompt_tokens > 10, "{usage:?}");
    assert_eq!(
        kit.ask_whole(&asked).await,
        (text, Ok((Finish::Stop, usage))),
        "and nothing comes from a cache"
    );

    // Left in the middle, it stops, and answers others.
    let mut long = question("Tell a long story.");
    long.max_tokens = 400;
    let mut answer = kit.supervisor.ask(&long).await.expect("ready");
    assert!(matches!(answer.next().await, Some(Event::Piece { .. })));
    drop(answer);
    asked.said = Said::Tokens(vec![1, 2, 3].into());
    let (_, outcome) = kit.ask_whole(&asked).await;
    assert_eq!(outcome.map(|(_, usage)| usage.prompt_tokens), Ok(3), "tokens are read as tokens");
    kit.supervisor.drain().await;
    assert_eq!(kit.supervisor.state(), State::Dead);
}
