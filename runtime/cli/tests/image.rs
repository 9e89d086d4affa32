//! `cocoon image` where it cannot work: what is wrong, what to do, nothing left behind.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use cocoon_attestation::{Measurements, UnixTime};
use cocoon_image::Manifest;
use cocoon_image::manifest::Registers;
use cocoon_simulated_tee::{AttestationKey, Draft, SimulatedRoot, Td};

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
    assert!(!folder.path().join("cache/cocoon/images").exists());
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

#[test]
fn tools_that_cannot_be_had_are_no_tools() {
    let folder = tempfile::tempdir().expect("a folder");
    let (output, text) = cocoon(folder.path(), &["tools", "--shell", "--offline", "--link", "boot"]);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("is not in the cache"), "{text}");
    assert!(output.stdout.is_empty() && !folder.path().join("boot").exists(), "a shell would take the half");
}

#[test]
fn what_only_a_rebuild_needs_is_refused_without_one() {
    let folder = tempfile::tempdir().expect("a folder");
    for arguments in [["--programs", "."], ["--lock", "image.lock"]] {
        let (output, text) = cocoon(folder.path(), &[["verify", "manifest.json"], arguments].concat());
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("--rebuild"), "{text}");
    }
}

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../guest-image/tests/golden/manifest.json");

/// A quote of the emulator whose registers are those of the golden manifest, with these TD attributes.
fn quote(attributes: Option<u64>) -> Vec<u8> {
    let manifest = Manifest::from_json(&std::fs::read(GOLDEN).expect("it is there")).expect("a real one");
    let Registers::Emulation(tdx) = manifest.measurements[0].registers else { panic!("emulation-1") };
    let [rtmr0, rtmr1, rtmr2] = tdx.rtmr.map(|register| register.0);
    let other = [0; 48];
    let registers = Measurements {
        mrtd: tdx.mrtd.0,
        rtmr: [rtmr0, rtmr1, rtmr2, [3; 48]],
        mrconfigid: other,
        mrowner: other,
        mrownerconfig: other,
    };
    let mut td = Td::new(registers);
    td.attributes = attributes.unwrap_or(td.attributes);
    let key = AttestationKey::generate();
    let now = UnixTime::from_rfc3339("2026-01-01T00:00:00Z").expect("a time");
    SimulatedRoot::create(now).sign_quote(&Draft::honest(&td, &[0; 64], &key), &key)
}

#[test]
fn a_comparison_says_what_it_did_not_compare_and_that_debug_is_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("quote");
    let diff = |attributes, more: &[&str]| {
        std::fs::write(&path, quote(attributes)).expect("room");
        let (output, text) = cocoon(folder.path(), &[&["diff", GOLDEN, "quote"], more].concat());
        (output.status.code(), String::from_utf8(output.stdout).expect("text"), text)
    };
    let (code, out, text) = diff(None, &[]);
    assert_eq!(code, Some(0), "{out}{text}");
    assert!(out.contains("nothing differs") && !out.contains("debug"), "{out}");
    for field in ["RTMR3", "MRCONFIGID", "MROWNERCONFIG", "attributes", "XFAM", "signature"] {
        assert!(
            out.split_once("not compared").is_some_and(|(_, names)| names.contains(field)),
            "{field}: {out}"
        );
    }
    let (code, out, _) = diff(Some(1), &[]);
    assert!(code == Some(0) && out.contains("debug is on"), "{out}");
    let (_, out, _) = diff(Some(1), &["--json"]);
    let json: serde_json::Value = serde_json::from_str(&out).expect("one object");
    assert_eq!((&json["debug"], json["not_compared"].as_array().map(Vec::len)), (&true.into(), Some(8)));
    // The log of another boot than the quote's.
    let log = concat!(env!("CARGO_MANIFEST_DIR"), "/../../guest-image/tests/golden/ovmf-2025.02-tpm.log");
    let (code, out, _) = diff(None, &["--event-log", log]);
    assert!(code == Some(3) && out.contains("the log is not the quote's: RTMR"), "{out}");
}

/// The image that `scripts/test` has built, built again; and then with one byte more in one of its programs.
#[test]
fn a_manifest_is_what_the_source_gives_and_another_program_is_named() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let Some(image) = std::env::var_os("COCOON_TEST_IMAGE").map(PathBuf::from) else {
        eprintln!("SKIPPED: COCOON_TEST_IMAGE names no image: run ./scripts/test");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::copy(image.join("manifest.json"), folder.path().join("manifest.json")).expect("an image");
    for name in ["cocoon-init", "cocoon-guest"] {
        let built = format!("target/image/{name}/x86_64-unknown-linux-gnu/image/{name}");
        if std::fs::copy(root.join(built), folder.path().join(name)).is_err() {
            eprintln!("SKIPPED: {name} was not built for an image: run ./scripts/test");
            return;
        }
    }
    let rebuilt = |programs: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_cocoon"));
        command.current_dir(&root).args(["image", "verify", "--rebuild", "--json", "--programs"]);
        let output = command.arg(programs).arg(folder.path().join("manifest.json")).output();
        let output = output.expect("it starts");
        let json: serde_json::Value = serde_json::from_slice(&output.stdout).expect("one object");
        (output.status.code(), json)
    };
    let (code, same) = rebuilt(folder.path());
    assert_eq!(
        (code, &same["rebuilt"], &same["files"]),
        (Some(0), &true.into(), &false.into()),
        "{same:#}; is COCOON_TEST_IMAGE of this source?"
    );
    let init = folder.path().join("cocoon-init");
    let longer = [std::fs::read(&init).expect("copied"), vec![0]].concat();
    std::fs::write(&init, longer).expect("room");
    let (code, other) = rebuilt(folder.path());
    assert_eq!(code, Some(3));
    assert!(other["differences"].to_string().contains("/init"), "{other:#}");
}
