//! Another server as the engine, through all parts: a registry that allows the guest with it, a host that starts it, the official
//! client against the local endpoint, and what the host does while it is started again.

use cocoon_tests::{Network, Part, root, wait_for};
use std::path::{Path, PathBuf};
use std::process::Command;

fn model() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").filter(|value| !value.is_empty()).map(PathBuf::from);
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache");
    cache.unwrap_or_else(home).join("cocoon/models/SmolLM2-135M-Instruct.Q4_1.gguf")
}

/// An operator's file for llama.cpp's server.
fn engine_file(folder: &Path, python: &str) -> PathBuf {
    let told = Command::new(python)
        .args(["-c", "import sys; print(sys.prefix); print(sys.base_prefix)"])
        .output()
        .expect("COCOON_LLAMA_PYTHON is a Python");
    let told = String::from_utf8(told.stdout).expect("paths");
    let launcher = root().join("tests/child");
    let roots = told.lines().chain(launcher.to_str()).filter(|path| *path != "/usr");
    let roots: String = roots.map(|path| format!("[[engine.roots]]\npath = {path:?}\n")).collect();
    let text = format!(
        "[engine]\ndialect = \"llama_cpp\"\nprefix_cache = \"off\"\naddress = \"127.0.0.1:8200\"\n\
         argv = [{python:?}, {:?}, \"/dev/shm/model\", \"8200\", \"2048\", \"1\", \"1\"]\n{roots}\
         [engine.limits]\nhealth_every_ms = 200\n[engine.canary]\nprompt = \"Say hello.\"\n",
        launcher.join("llama_server.py")
    );
    let path = folder.join("engine.toml");
    std::fs::write(&path, text).expect("it is ours");
    path
}

/// The server's own process, wherever it runs.
fn server() -> Option<rustix::process::Pid> {
    let numbers = std::fs::read_dir("/proc").expect("/proc").flatten();
    let mut numbers = numbers.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let number = numbers.find(|number| {
        let line = std::fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        line.windows(5).any(|word| word == b"\x008200")
            && line.windows(15).any(|word| word == b"llama_server.py")
    })?;
    rustix::process::Pid::from_raw(number)
}

#[tokio::test]
async fn another_server_answers_the_official_client_and_is_back_soon_after_a_crash() {
    let (Ok(python), model) = (std::env::var("COCOON_LLAMA_PYTHON"), model()) else {
        eprintln!("SKIPPED: no real server was tried: set COCOON_LLAMA_PYTHON (./scripts/test does)");
        return;
    };
    assert!(model.is_file(), "{} is missing: ./scripts/test fetches it", model.display());
    let folder = tempfile::tempdir().expect("a folder");
    let network = Network::start_with_engine(&model, &engine_file(folder.path(), &python));
    let log = network.folder.path().join("proxy.log");
    let proxy = Part::start(&["proxy", "--listen", "127.0.0.1:0", "--state", network.state()], &log);
    let url = format!("{}/v1", proxy.url());
    official_client(&url);

    let killed = server().expect("the server runs");
    rustix::process::kill_process(killed, rustix::process::Signal::KILL).expect("it is ours");
    // The guest says so, the host makes new evidence at once and tells the gateway: no minute passes.
    wait_for("another process", async || server().filter(|now| *now != killed)).await;
    let asked = reqwest::Client::new();
    let body = serde_json::json!({
        "model": model.file_stem().and_then(|name| name.to_str()), "max_tokens": 4,
        "messages": [{"role": "user", "content": "Say hello."}],
    });
    let since = std::time::Instant::now();
    wait_for("an answer", async || {
        let reply = asked.post(format!("{url}/chat/completions")).json(&body).send().await.ok()?;
        reply.status().is_success().then_some(())
    })
    .await;
    assert!(since.elapsed() < std::time::Duration::from_secs(30), "{:?}", since.elapsed());
    official_client(&url);
    proxy.stop();
}

fn official_client(url: &str) {
    let python = std::env::var("COCOON_OPENAI_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let script = root().join("tests/clients/openai_client.py");
    let model = model();
    let name = model.file_stem().expect("it has a name");
    let output = Command::new(python).arg(script).arg(url).arg(name).output().expect("the client starts");
    assert!(output.status.success(), "the client failed: {}", String::from_utf8_lossy(&output.stderr));
}
