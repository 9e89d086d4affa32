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
        ("core limit", "PermissionDenied"),
        ("outlive", "PermissionDenied"),
        ("vsock", "PermissionDenied"),
        ("first to end", "1000"),
    ] {
        assert_eq!(seen[what], expected, "{what}: {seen}");
    }
    assert_ne!(seen["write"], "done");
    assert_eq!((&seen["pid"], &seen["processes"], &seen["run"]), (&1.into(), &1.into(), &0.into()), "{seen}");
    if rustix::process::geteuid().is_root() {
        assert_eq!(seen["user"], "Uid: 65533 65533 65533 65533");
    }
    let core: Vec<&str> = seen["core"].as_str().expect("a line").split_whitespace().collect();
    assert_eq!(core[4..6], ["1", "1"], "0 would let a program that core_pattern names take one");
    assert_eq!(std::fs::read(model.path()).expect("it is ours"), b"weights");
}

#[tokio::test]
async fn its_root_holds_what_it_is_shown_and_nothing_else() {
    let seen = look_around(&start(config("honest"), None)).await;
    let names = |what: &str| -> Vec<String> {
        let names = seen[what].as_array().expect("a list").iter().filter_map(Value::as_str);
        names.map(str::to_owned).collect()
    };
    let mut allowed: Vec<String> =
        [".old", "bin", "dev", "etc", "lib", "lib32", "lib64", "proc", "run", "sbin", "sys", "tmp", "usr"]
            .map(str::to_owned)
            .to_vec();
    let program = std::path::Path::new(env!("CARGO_BIN_EXE_cocoon-stand-in"));
    allowed.extend(program.iter().nth(1).map(|name| name.to_string_lossy().into_owned()));
    for name in names("root") {
        assert!(allowed.contains(&name), "{name}");
    }
    assert!(names("old").is_empty(), "the old root is still there");
    for device in names("devices") {
        let known = ["full", "null", "random", "shm", "urandom", "zero"].contains(&device.as_str());
        assert!(known || device.starts_with("nvidia"), "{device}");
    }
}

#[tokio::test]
async fn descriptors_that_the_guest_inherited_go_no_further() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    // As a parent that set no FD_CLOEXEC hands it down.
    let _inherited = rustix::io::dup(file.as_file()).expect("a descriptor");
    let seen = look_around(&start(config("honest"), None)).await;
    let open = seen["open"].to_string();
    assert!(open.contains("/dev/null") && open.contains("pipe:"), "{open}");
    assert!(!open.contains(file.path().to_str().expect("a plain path")), "{open}");
}

#[tokio::test]
async fn sockets_of_others_are_not_reached_by_it_nor_by_a_link_that_it_makes() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("other.sock");
    let listener = std::os::unix::net::UnixListener::bind(&path).expect("a fresh folder");
    for path in [folder.path(), path.as_path()] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o777)).expect("ours");
    }
    listener.set_nonblocking(true).expect("ours");
    let mut config = config("honest");
    config.limits.health_every_ms = 60_000; // it is asked before anybody looks
    let kit = start(config, None);
    assert_eq!(kit.settled().await, State::Ready);
    let path = path.to_str().expect("a plain path");
    assert_eq!(kit.ask(&format!("!knock {path}")).await.0, "NotFound");
    // Its socket is now a link to another's: whoever follows it in our view brings a prompt there.
    assert_eq!(kit.ask(&format!("!link {path}")).await.0, "done");
    assert!(kit.ask("a secret").await.1.is_err());
    let came = listener.accept().map_err(|error| error.kind());
    assert_eq!(came.err(), Some(std::io::ErrorKind::WouldBlock), "the prompt left");
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
