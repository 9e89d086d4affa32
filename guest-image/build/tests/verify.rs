//! An image folder held against its manifest. With SNP firmware made for tests, so that nothing has to be fetched.

use std::path::Path;

use cocoon_image::cpio::Archive;
use cocoon_image::manifest::{
    File, Files, Firmware, MANIFEST_VERSION, Manifest, Program, Root, Variant, Verity,
};
use cocoon_image::measure::{BootFiles, measure_all};
use cocoon_image::verity::Tree;
use cocoon_image::{HexBytes, Sha256};
use cocoon_image_build::{VerifyError, verify};

const FIRMWARE: &[u8] = include_bytes!("../../tests/golden/firmware.bin");
const KERNEL: &[u8] = include_bytes!("../../tests/golden/program.bin");
const INIT: &[u8] = b"PID 1";

fn initrd(init: &[u8]) -> Vec<u8> {
    let mut archive = Archive::new();
    archive.file("init", 0o755, init.to_vec()).expect("a plain path");
    archive.to_bytes()
}

/// A whole image folder whose root has two blocks of data.
fn image(folder: &Path) -> Manifest {
    let data = [7; 8192];
    let tree = Tree::of(&data).expect("there is data");
    let root = [data.as_slice(), &tree.bytes].concat();
    let command_line = format!("ro cocoon.root={} cocoon.root_blocks=2", tree.root_hash);
    let initrd = initrd(INIT);
    let files = BootFiles { firmware: &[], kernel: KERNEL, initrd: &initrd, command_line: &command_line };
    let predicted = measure_all(&files, &[("OVMF.amdsev.fd", FIRMWARE)]).expect("SNP firmware");
    let firmware =
        Firmware { name: "OVMF.amdsev.fd".into(), sha256: Sha256::of(FIRMWARE), size: FIRMWARE.len() as u64 };
    let verity = Verity { root_hash: tree.root_hash, data_blocks: tree.data_blocks };
    let manifest = Manifest {
        version: MANIFEST_VERSION,
        name: "cocoon-guest".into(),
        variant: Variant::Production,
        lock: HexBytes([0; 32]),
        files: Files {
            kernel: File::of(KERNEL),
            initrd: File::of(&initrd),
            root: Root { sha256: Sha256::of(&root), size: root.len() as u64, verity },
            cmdline: File::of(command_line.as_bytes()),
        },
        command_line: command_line.clone(),
        firmware: vec![firmware],
        packages: Vec::new(),
        programs: vec![Program { path: "/init".into(), sha256: Sha256::of(INIT), size: INIT.len() as u64 }],
        measurements: predicted.measurements,
    };
    std::fs::create_dir(folder.join("firmware")).expect("a new folder");
    for (name, bytes) in [
        ("vmlinuz", KERNEL),
        ("initrd.cpio", &initrd),
        ("root.img", &root),
        ("cmdline", command_line.as_bytes()),
        ("firmware/OVMF.amdsev.fd", FIRMWARE),
        ("manifest.json", manifest.to_json().as_bytes()),
    ] {
        std::fs::write(folder.join(name), bytes).expect("room");
    }
    manifest
}

#[test]
fn an_untouched_image_is_what_its_manifest_says() {
    let folder = tempfile::tempdir().unwrap();
    let manifest = image(folder.path());
    assert_eq!(manifest.measurements.len(), 2);
    let verified = verify(&folder.path().join("manifest.json")).unwrap();
    assert_eq!(verified.differences, []);
    assert_eq!(verified.found, manifest);
}

#[test]
fn one_byte_of_any_file_is_found_and_named() {
    for (name, at, moves) in [
        ("vmlinuz", 0x250, true),
        ("initrd.cpio", 0, true),
        ("cmdline", 0, true),
        ("root.img", 0, false),    // data: the command line still has the old root hash
        ("root.img", 8192, false), // the tree alone
        ("firmware/OVMF.amdsev.fd", 0x5000, true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        image(folder.path());
        let path = folder.path().join(name);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
        let verified = verify(&folder.path().join("manifest.json")).unwrap();
        assert_eq!(verified.differences[0].subject, format!("file {name}"), "{name} {at}");
        let digests = verified.differences.iter().filter(|d| d.subject.starts_with("launch digest")).count();
        assert_eq!(digests > 0, moves, "{name}: whether the measurement moves");
    }
}

/// All files are as listed and the measurements are theirs; only what is said of the program is not true.
#[test]
fn another_pid_1_in_the_initrd_than_the_manifest_lists_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let mut manifest = image(folder.path());
    let path = folder.path().join("manifest.json");
    manifest.programs[0].sha256 = Sha256::of(b"another");
    std::fs::write(&path, manifest.to_json()).unwrap();
    let differences = verify(&path).unwrap().differences;
    assert_eq!((differences.len(), differences[0].subject.as_str()), (1, "program /init"));
    assert_eq!(differences[0].found, Sha256::of(INIT).to_string());
    manifest.programs.clear();
    std::fs::write(&path, manifest.to_json()).unwrap();
    let differences = verify(&path).unwrap().differences;
    assert_eq!((differences.len(), differences[0].expected.as_str()), (1, "nothing"));
}

/// Whoever publishes files and manifest together can make every hash fit; but not the measured root be another than the root.
#[test]
fn a_manifest_whose_measured_root_is_another_root_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut manifest = image(folder.path());
    let root = manifest.files.root.verity.root_hash.to_string();
    let other = manifest.command_line.replace(&root, &"0a".repeat(32));
    manifest.files.cmdline = File::of(other.as_bytes());
    std::fs::write(folder.path().join("cmdline"), &other).unwrap();
    manifest.command_line = other;
    let path = folder.path().join("manifest.json");
    std::fs::write(&path, manifest.to_json()).unwrap();
    let error = verify(&path).unwrap_err().to_string();
    assert!(error.contains("the command line boots"), "{error}");
}

#[test]
fn firmware_that_cannot_be_measured_is_named_as_another_file() {
    let folder = tempfile::tempdir().unwrap();
    image(folder.path());
    std::fs::write(folder.path().join("firmware/OVMF.amdsev.fd"), b"no firmware").unwrap();
    let verified = verify(&folder.path().join("manifest.json")).unwrap();
    assert_eq!(verified.differences[0].subject, "file firmware/OVMF.amdsev.fd");
}

#[test]
fn what_is_missing_or_no_manifest_is_an_error_with_a_remedy() {
    let folder = tempfile::tempdir().unwrap();
    image(folder.path());
    let manifest = folder.path().join("manifest.json");
    std::fs::remove_file(folder.path().join("initrd.cpio")).unwrap();
    let error = verify(&manifest).unwrap_err();
    assert!(error.to_string().contains("initrd.cpio") && !error.remedy().is_empty(), "{error}");
    std::fs::write(&manifest, "{}").unwrap();
    assert!(matches!(verify(&manifest), Err(VerifyError::Manifest { .. })));
}
