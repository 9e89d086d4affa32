use super::*;

#[derive(Deserialize)]
struct All {
    engine: ChildConfig,
}

const GOOD: &str = r#"
[engine]
argv = ["/opt/bin/serve", "/dev/shm/model", "--uds", "/dev/shm/child.sock"]
address = "unix:/dev/shm/child.sock"
dialect = "vllm"
prefix_cache = "salted"
user = 1001
[[engine.roots]]
path = "/opt/bin"
[engine.environment]
VLLM_CACHE_ROOT = "/dev/shm/vllm"
[engine.limits]
restarts = 2
[engine.canary]
prompt = "Say hello."
"#;

fn read(text: &str) -> Result<ChildConfig, String> {
    let all: All = toml::from_str(text).map_err(|error| error.to_string())?;
    all.engine.check().map_err(|error| error.to_string())?;
    Ok(all.engine)
}

#[test]
fn the_good_configuration_is_read_with_its_defaults() {
    let config = read(GOOD).expect("good");
    assert_eq!(config.parsed_address(), Some(Address::Unix("child.sock".to_owned())));
    assert_eq!((config.limits.restarts, config.limits.between_pieces, config.canary.tokens), (2, 30, 16));
    assert!(!config.development_logs);
}

#[test]
fn one_wrong_value_at_a_time_is_refused_with_words() {
    for (good, bad, word) in [
        ("\"/opt/bin/serve\"", "\"serve\"", "absolute"),
        ("\"--uds\"", "\"--trust-remote-code\"", "not measured as code"),
        ("\"--uds\"", "\"--trust_remote_code=true\"", "not measured as code"),
        ("\"--uds\"", "\"--trust-rem\"", "not measured as code"),
        ("\"--uds\"", "\"serve --Trust-Remote-Code\"", "not measured as code"),
        ("\"--uds\"", "\"--config=/etc/options.yaml\"", "file of options"),
        ("\"--uds\"", "\"--otlp-traces-endpoint\"", "traces"),
        ("\"--uds\"", "\"--enable-log-requests\"", "logged"),
        ("\"--uds\"", "\"--middleware\"", "foreign code"),
        ("\"--uds\"", "\"--tool-parser-plugin\"", "foreign code"),
        ("\"--uds\"", "\"a\\u0000b\"", "NUL"),
        ("unix:/dev/shm/child.sock\"\nd", "unix:/tmp/child.sock\"\nd", "address"),
        ("unix:/dev/shm/child.sock\"\nd", "unix:/dev/shm/../x\"\nd", "address"),
        ("unix:/dev/shm/child.sock\"\nd", "unix:/dev/shm/model\"\nd", "address"),
        ("unix:/dev/shm/child.sock\"\nd", "127.0.0.1:0\"\nd", "address"),
        ("unix:/dev/shm/child.sock\"\nd", "10.0.0.1:80\"\nd", "address"),
        ("\"vllm\"", "\"sglang\"", "is for the dialect vllm alone"),
        ("\"salted\"", "\"off\"", "--no-enable-prefix-caching"),
        (
            "\"vllm\"\nprefix_cache = \"salted\"",
            "\"sglang\"\nprefix_cache = \"off\"",
            "--disable-radix-cache",
        ),
        ("prefix_cache = \"salted\"", "", "missing field `prefix_cache`"),
        ("\"/opt/bin\"", "\"/opt/elsewhere\"", "in none of engine.roots"),
        ("\"/opt/bin\"", "\"opt/bin\"", "roots"),
        ("\"/opt/bin\"", "\"/\"", "roots"),
        ("\"/opt/bin\"", "\"/opt/../opt/bin\"", "roots"),
        ("\"/opt/bin\"", "\"/opt/bin\"\n[[engine.roots]]\npath = \"/run/secrets\"", "roots"),
        ("\"/opt/bin\"", "\"/opt/bin\"\nsha256 = \"abab\"", "roots.sha256"),
        ("\"vllm\"", "\"ollama\"", "unknown variant"),
        ("user = 1001", "user = 0", "user"),
        ("user = 1001", "user = 1001\nhealth = \"health\"", "path"),
        ("user = 1001", "user = 1001\nshell = true", "unknown field"),
        ("VLLM_CACHE_ROOT", "LD_PRELOAD", "LD_PRELOAD"),
        ("VLLM_CACHE_ROOT", "HF_HUB_OFFLINE", "fixed"),
        ("VLLM_CACHE_ROOT", "VLLM_USAGE_STATS_SERVER", "not on the list"),
        ("VLLM_CACHE_ROOT", "VLLM_USE_MODELSCOPE", "not on the list"),
        ("VLLM_CACHE_ROOT", "HTTPS_PROXY", "not on the list"),
        ("restarts = 2", "restarts = 101", "limits.restarts"),
        ("restarts = 2", "between_pieces = 0", "limits.between_pieces"),
        ("restarts = 2", "processes = 0", "limits.processes"),
        ("\"Say hello.\"", "\"\"", "canary.prompt"),
        ("\"Say hello.\"", "\"Say hello.\"\ntokens = 0", "canary.tokens"),
        ("\"Say hello.\"", "\"Say hello.\"\nsha256 = \"abab\"", "canary.sha256"),
    ] {
        let changed = GOOD.replacen(good, bad, 1);
        assert_ne!(changed, GOOD, "{good} is not there");
        let error = read(&changed).expect_err(bad);
        assert!(error.contains(word), "{bad}: {error}");
    }
}

#[test]
fn options_that_only_sound_alike_are_taken() {
    for option in
        ["--model-config-format", "--disable-log-requests", "--no-trust", "--tokenizer-pool-size", "--port"]
    {
        assert!(read(&GOOD.replacen("--uds", option, 1)).is_ok(), "{option}");
    }
    let sglang =
        GOOD.replacen("\"vllm\"", "\"sglang\"", 1).replacen("\"--uds\"", "\"--disable-radix-cache\"", 1);
    assert!(read(&sglang.replacen("\"salted\"", "\"off\"", 1)).is_ok());
    let off = GOOD.replacen("\"salted\"", "\"off\"", 1);
    assert!(read(&off.replacen("\"--uds\"", "\"--no-enable-prefix-caching\"", 1)).is_ok());
    let llama = off.replacen("\"vllm\"", "\"llama_cpp\"", 1);
    assert_eq!(read(&llama).map(|config| config.counting), Ok(Counting::Tokens));
}
