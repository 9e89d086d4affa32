//! The scripts when things are missing: what they say, and that they leave nothing half done.

use std::process::Command;

use cocoon_tests::root;

/// Runs a function of scripts/lib.sh.
fn library(call: &str, environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = Command::new("bash")
        .args(["-c", &format!("set -euo pipefail; . scripts/lib.sh; {call}")])
        .current_dir(root())
        .envs(environment.iter().copied())
        .output()
        .expect("bash starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn offline_the_model_is_not_fetched_and_the_remedy_is_named() {
    let cache = tempfile::tempdir().expect("a temporary folder");
    let folder = cache.path().to_str().expect("UTF-8");
    let nothing = [("XDG_CACHE_HOME", folder), ("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", folder)];
    let (code, said) = library("demo_model", &nothing);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("pip could not fetch") && said.contains("--model FILE"), "{said}");
    let models = cache.path().join("cocoon/models");
    let left = std::fs::read_dir(models).expect("the folder is there").count();
    assert_eq!(left, 0, "nothing half fetched stays");
}

#[test]
fn a_model_with_other_bytes_is_not_taken_for_the_demo_model() {
    let cache = tempfile::tempdir().expect("a temporary folder");
    let folder = cache.path().to_str().expect("UTF-8");
    let models = cache.path().join("cocoon/models");
    std::fs::create_dir_all(&models).expect("a folder");
    // The right name and size, and nothing inside.
    let file = std::fs::File::create(models.join("SmolLM2-135M-Instruct.Q4_1.gguf")).expect("a file");
    file.set_len(98_362_432).expect("it can be that long");
    let nothing = [("XDG_CACHE_HOME", folder), ("PIP_NO_INDEX", "1"), ("PIP_FIND_LINKS", folder)];
    let (code, said) = library("demo_model", &nothing);
    assert_eq!(code, Some(1), "a hollow file was taken for the model: {said}");
}

/// Runs ./scripts/demo with programs that only write down how they were called, in a cache that holds no demo model.
fn demo(arguments: &[&str]) -> Vec<String> {
    use std::os::unix::fs::PermissionsExt;
    let bench = tempfile::tempdir().expect("a temporary folder");
    let calls = bench.path().join("calls");
    for (name, folder) in [("cargo", "bin"), ("cc", "bin"), ("cocoon", "target/release")] {
        let folder = bench.path().join(folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let text = format!("#!/bin/sh\necho \"{name} $*\" >>'{}'\n", calls.display());
        std::fs::write(folder.join(name), text).expect("a file");
        let mode = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(folder.join(name), mode).expect("it is ours");
    }
    let path = format!("{}:{}", bench.path().join("bin").display(), std::env::var("PATH").expect("a PATH"));
    let output = Command::new(root().join("scripts/demo"))
        .args(arguments)
        .env("PATH", path)
        .env("CARGO_TARGET_DIR", bench.path().join("target"))
        .env("XDG_CACHE_HOME", bench.path())
        .output()
        .expect("bash starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let calls = std::fs::read_to_string(calls).expect("something was called");
    calls.lines().filter(|line| line.starts_with("cocoon ")).map(str::to_owned).collect()
}

#[test]
fn the_demo_of_a_booted_guest_builds_its_image_first_and_takes_a_small_model() {
    let tiny = "tests/models/tiny.gguf";
    assert!(root().join(tiny).is_file());
    let booted = format!("cocoon demo --model {tiny} --vm --json");
    assert_eq!(demo(&["--vm", "--json"]), ["cocoon image build", &booted]);
    assert_eq!(
        demo(&["--vm", "--model=mine.gguf"]),
        ["cocoon image build", "cocoon demo --vm --model=mine.gguf"]
    );
    assert_eq!(
        demo(&["--vm", "--image", "mine", "--model", "mine.gguf"]),
        ["cocoon demo --vm --image mine --model mine.gguf"]
    );
    assert_eq!(demo(&["--model", "mine.gguf"]), ["cocoon demo --model mine.gguf"]);
    assert_eq!(demo(&["--vm", "--help"]), ["cocoon demo --vm --help"], "help builds no image");
}
