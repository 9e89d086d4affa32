//! `cocoon image` where it cannot work: what is wrong, what to do, nothing left behind.

use std::path::Path;
use std::process::{Command, Output};

/// Runs the command in a folder that is no source tree, with a cache of its own there.
fn cocoon(folder: &Path, arguments: &[&str]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cocoon"));
    command.arg("image").args(arguments).current_dir(folder).env("XDG_CACHE_HOME", folder.join("cache"));
    let output = command.env("COCOON_ARCHIVE", "http://127.0.0.1:9/debian").output().expect("it starts");
    let text = String::from_utf8(output.stderr.clone()).expect("text");
    (output, text)
}

#[test]
fn outside_of_the_source_the_programs_must_be_named() {
    let folder = tempfile::tempdir().expect("a folder");
    let (output, text) = cocoon(folder.path(), &["build"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("no source tree of Cocoon") && text.contains("--programs DIR"), "{text}");
    let (_, text) = cocoon(folder.path(), &["build", "--programs", "."]);
    assert!(text.contains("cocoon-init: there is no such program"), "{text}");
    assert!(!folder.path().join("cocoon-image").exists());
}

#[test]
fn offline_with_an_empty_cache_names_the_package_and_leaves_no_image() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["cocoon-init", "cocoon-guest"] {
        std::fs::write(folder.path().join(name), "x").expect("room");
    }
    let (output, text) = cocoon(folder.path(), &["build", "--programs", ".", "--offline", "--out", "image"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("libc6") && text.contains("what to do: run the same once without --offline"),
        "{text}"
    );
    assert!(output.stdout.is_empty() && !folder.path().join("image").exists());
}

#[test]
fn a_lock_that_is_none_is_refused_and_renewing_starts_anew() {
    let folder = tempfile::tempdir().expect("a folder");
    let broken = "version = 1\nmirror = \"x\"\n";
    std::fs::write(folder.path().join("image.lock"), broken).expect("room");
    let (output, text) = cocoon(folder.path(), &["lock", "--check", "--lock", "image.lock"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("mirror") && text.contains("what to do: renew it: cocoon image lock --update"),
        "{text}"
    );

    let (output, text) = cocoon(folder.path(), &["lock", "--update", "--lock", "image.lock"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("everything is resolved as new"));
    assert!(text.contains("cannot fetch http://127.0.0.1:9/debian/dists/"), "{text}");
    let left = std::fs::read_to_string(folder.path().join("image.lock")).expect("still there");
    assert_eq!(left, broken, "nothing was resolved, nothing is written");
    let (output, text) = cocoon(folder.path(), &["lock"]);
    assert_eq!(output.status.code(), Some(2), "one of --update and --check: {text}");
}
