//! An image folder held against its manifest. With SNP firmware made for tests, so that nothing has to be fetched.

use std::path::Path;

use cocoon_image::manifest::{File, Files, Firmware, MANIFEST_VERSION, Manifest, Root, Variant, Verity};
use cocoon_image::measure::{BootFiles, measure_all};
use cocoon_image::verity::Tree;
use cocoon_image::{HexBytes, Sha256};
use cocoon_image_build::{VerifyError, verify};

const FIRMWARE: &[u8] = include_bytes!("../../tests/golden/firmware.bin");
const KERNEL: &[u8] = include_bytes!("../../tests/golden/program.bin");
const INITRD: &[u8] = b"070701";

/// A whole image folder whose root has two blocks of data.
fn image(folder: &Path) -> Manifest {
    let data = [7; 8192];
    let tree = Tree::of(&data).expect("there is data");
    let root = [data.as_slice(), &tree.bytes].concat();
    let command_line = format!("ro cocoon.root={}", tree.root_hash);
    let files = BootFiles { firmware: &[], kernel: KERNEL, initrd: INITRD, command_line: &command_line };
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
            initrd: File::of(INITRD),
            root: Root { sha256: Sha256::of(&root), size: root.len() as u64, verity },
            cmdline: File::of(command_line.as_bytes()),
        },
        command_line: command_line.clone(),
        firmware: vec![firmware],
        packages: Vec::new(),
        programs: Vec::new(),
        measurements: predicted.measurements,
    };
    std::fs::create_dir(folder.join("firmware")).expect("a new folder");
    for (name, bytes) in [
        ("vmlinuz", KERNEL),
        ("initrd.cpio", INITRD),
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
