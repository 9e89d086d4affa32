//! Archives against GNU tar, and against everything that is not one.

use super::*;
use crate::files::Folder;
use std::path::Path;

const NAMES: [&str; 3] = ["1_Pooling/config.json", "config.json", "model.safetensors"];

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::create_dir(folder.path().join("1_Pooling")).expect("made");
    for (name, size) in NAMES.into_iter().zip([0usize, 512, 70_001]) {
        let bytes: Vec<u8> = (0..size).map(|at| (at * 7 % 251) as u8).collect();
        std::fs::write(folder.path().join(name), bytes).expect("written");
    }
    folder
}

fn packed(folder: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    assert!(write(&Folder(folder), NAMES, &mut bytes).is_ok());
    bytes
}

fn whole(archive: &Archive, name: &str) -> Vec<u8> {
    let file = archive.open(name).expect("memory").expect("it is there");
    let mut bytes = vec![0; file.size() as usize];
    file.read(0, &mut bytes, name).expect("it has as many");
    bytes
}

#[test]
fn gnu_tar_writes_the_same_bytes_and_reads_them() {
    let folder = folder();
    let tar = |arguments: &[&str]| {
        let output = std::process::Command::new("tar").current_dir(folder.path()).args(arguments).output();
        let output = output.expect("tar is there");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let options =
        ["--format=ustar", "--blocking-factor=1", "--sort=none", "--mode=644", "--mtime=@0", "--owner=0"];
    let more = ["--group=0", "--numeric-owner", "-cf", "-"];
    let theirs = tar(&[&options[..], &more, &NAMES].concat());
    let ours = packed(folder.path());
    assert!(theirs == ours, "{} bytes of tar, {} of ours", theirs.len(), ours.len());
    std::fs::write(folder.path().join("a.tar"), ours).expect("written");
    assert_eq!(String::from_utf8(tar(&["-tf", "a.tar"])).expect("names"), NAMES.join("\n") + "\n");
}

#[test]
fn what_is_written_is_read() {
    let folder = folder();
    let bytes = packed(folder.path());
    assert!(Archive::is_one(&bytes));
    let archive = Archive::read(bytes).unwrap_or_else(|error| panic!("{error}"));
    for name in NAMES {
        assert!(whole(&archive, name) == std::fs::read(folder.path().join(name)).expect("there"), "{name}");
    }
    assert!(archive.open("tokenizer.json").expect("memory").is_none());
    let file = archive.open("config.json").expect("memory").expect("there");
    for offset in [1, 513, u64::MAX] {
        assert!(file.read(offset, &mut [0; 512], "x").is_err(), "{offset}");
    }
}

#[test]
fn every_changed_byte_outside_of_the_files_is_refused() {
    let folder = folder();
    let bytes = packed(folder.path());
    let archive = Archive::read(bytes.clone()).unwrap_or_else(|error| panic!("{error}"));
    let inside: Vec<Range<usize>> = archive.files.values().cloned().collect();
    for at in (0..bytes.len()).filter(|at| !inside.iter().any(|range| range.contains(at))) {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        let Ok(read) = Archive::read(changed) else { continue };
        panic!("byte {at} was changed, and it was read with {:?}", read.files.keys());
    }
    for length in (0..bytes.len()).step_by(97).chain([bytes.len() - 1]) {
        assert!(Archive::read(bytes[..length].to_vec()).is_err(), "{length} bytes");
    }
    assert!(Archive::read([bytes.as_slice(), &[0; BLOCK]].concat()).is_err());
}

#[test]
fn names_that_lead_elsewhere_or_stand_twice_are_refused() {
    let end = [0; 2 * BLOCK];
    let of = |names: &[&str]| {
        let headers: Vec<u8> = names.iter().flat_map(|name| header(name, 0)).collect();
        Archive::read([headers.as_slice(), &end].concat()).map(|archive| archive.files.len())
    };
    assert!(matches!(of(&["a", "b/c"]), Ok(2)));
    for names in [
        &["../a"][..],
        &["/a"],
        &["a//b"],
        &["a/"],
        &[".a"],
        &["a/../b"],
        &["a\\b"],
        &["b", "a"],
        &["a", "a"],
    ] {
        assert!(of(names).is_err(), "{names:?}");
    }
    // A length that lies is found before anything is taken for it.
    let lying = [header("a", MAX_FILE).as_slice(), &end].concat();
    assert!(Archive::read(lying).is_err());
    let folder = folder();
    std::fs::write(folder.path().join("a b"), "x").expect("written");
    assert!(write(&Folder(folder.path()), ["a b"], &mut Vec::new()).is_err());
    assert!(write(&Folder(folder.path()), ["none"], &mut Vec::new()).is_err());
}
