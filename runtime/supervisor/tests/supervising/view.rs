//! What a child sees of the machine.

use crate::kit::{Kit, config, start};
use cocoon_supervisor::State;
use serde_json::Value;

async fn look_around(kit: &Kit) -> Value {
    assert_eq!(kit.settled().await, State::Ready);
    let mut question = crate::kit::question("!look around");
    question.max_tokens = 4096;
    let (text, outcome) = kit.ask_whole(&question).await;
    assert!(outcome.is_ok(), "{outcome:?}");
    serde_json::from_str(&text).expect("JSON")
}

#[tokio::test]
async fn it_has_no_privileges_no_network_and_one_folder() {
    let model = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(model.path(), "weights").expect("it is ours");
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    std::fs::set_permissions(model.path(), readable).expect("it is ours");
    let kit = start(config("honest"), Some(model.path().to_path_buf()));
    let seen = look_around(&kit).await;
    for (what, expected) in [
        ("capabilities", "CapEff: 0000000000000000"),
        ("bounding", "CapBnd: 0000000000000000"),
        ("privileges", "NoNewPrivs: 1"),
        ("seccomp", "Seccomp: 2"),
        ("model", "weights"),
        ("folder", "/dev/shm"),
        ("scratch", "done"),
        ("write the model", "ReadOnlyFilesystem"),
        ("trace", "PermissionDenied"),
        ("connect", "NetworkUnreachable"),
        ("interfaces", "lo"),
    ] {
        assert_eq!(seen[what], expected, "{what}: {seen}");
    }
    assert_ne!(seen["write"], "done");
    assert_eq!((&seen["pid"], &seen["processes"], &seen["run"]), (&1.into(), &1.into(), &0.into()), "{seen}");
    if rustix::process::geteuid().is_root() {
        assert_eq!(seen["user"], "Uid: 65533 65533 65533 65533");
    }
    let core: Vec<&str> = seen["core"].as_str().expect("a line").split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"]);
    assert_eq!(std::fs::read(model.path()).expect("it is ours"), b"weights");
}

#[tokio::test]
async fn its_arguments_and_environment_are_the_configured_ones() {
    let config = config("honest");
    let kit = start(config.clone(), None);
    let seen = look_around(&kit).await;
    let arguments: Vec<&str> =
        seen["arguments"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    assert_eq!(arguments, config.argv);
    let mut environment: Vec<&str> =
        seen["environment"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
    environment.sort_unstable();
    let expected = [
        "DO_NOT_TRACK=1",
        "HF_DATASETS_OFFLINE=1",
        "HF_HUB_DISABLE_TELEMETRY=1",
        "HF_HUB_OFFLINE=1",
        "HOME=/dev/shm",
        "OTEL_SDK_DISABLED=true",
        "PYTHONDONTWRITEBYTECODE=1",
        "TMPDIR=/dev/shm",
        "TRANSFORMERS_OFFLINE=1",
        "VLLM_DO_NOT_TRACK=1",
        "VLLM_NO_USAGE_STATS=1",
        "VLLM_TEST=a value",
    ];
    assert_eq!(environment, expected);
}

#[tokio::test]
async fn one_that_needs_loopback_has_that_and_nothing_else() {
    let mut config = config("honest");
    config.argv[1] = "127.0.0.1:8000".to_owned();
    config.address = "127.0.0.1:8000".to_owned();
    let (one, two) = (start(config.clone(), None), start(config, None));
    // The same port twice: each has a network of its own.
    for kit in [&one, &two] {
        let seen = look_around(kit).await;
        assert_eq!((&seen["interfaces"], &seen["connect"]), (&"lo".into(), &"NetworkUnreachable".into()));
    }
    assert!(std::net::TcpStream::connect("127.0.0.1:8000").is_err(), "not in ours");
}
