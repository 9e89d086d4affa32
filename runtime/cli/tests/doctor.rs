//! `cocoon host doctor` as a program: exit codes, JSON, and that nothing is changed.

use std::path::Path;
use std::process::{Command, Output};

use cocoon_image::manifest::{File, Files, MANIFEST_VERSION, Root, Variant, Verity};
use cocoon_image::{Manifest, Sha256};

fn doctor(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cocoon"));
    command.args(["host", "doctor", "--offline"]).args(arguments).output().expect("it starts")
}

fn json(output: &Output) -> serde_json::Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// Programs that answer as QEMU and swtpm do, and a configuration that names them.
fn configuration(folder: &Path, qemu: &str) -> String {
    use std::os::unix::fs::PermissionsExt;
    let objects = "List of user creatable objects:\\n  iommufd\\n  memory-backend-ram\\n";
    for (name, script) in [
        (
            "qemu",
            format!(
                "case $1 in --version) echo 'QEMU emulator version {qemu}';; *) printf '{objects}';; esac"
            ),
        ),
        ("swtpm", "echo 'TPM emulator version 0.10.1'".to_owned()),
    ] {
        let path = folder.join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("it can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
    }
    image(&folder.join("image"));
    let path = folder.join("host.toml");
    let text = format!(
        "tee = \"emulation\"\nimage = \"{0}/image\"\nstate = \"{0}/state\"\nlisten = \"127.0.0.1:0\"\n\
         gateways = [\"http://127.0.0.1:1\"]\n[model]\nname = \"m\"\nfile = \"{0}/m.gguf\"\n\
         [tools]\nqemu = \"{0}/qemu\"\nswtpm = \"{0}/swtpm\"\n\
         [[guest]]\nname = \"a\"\nvcpus = 1\nmemory = \"256 MiB\"\n",
        folder.display()
    );
    std::fs::write(&path, text).expect("it can be written");
    path.display().to_string()
}

/// A development image that nothing is measured of, as far as the doctor reads it.
fn image(folder: &Path) {
    let root = Sha256::of(b"");
    let line = format!("cocoon.root={root} cocoon.root_blocks=1 cocoon.development");
    let file = File { sha256: Sha256::of(b""), size: 0 };
    let verity = Verity { root_hash: Sha256::of(b""), data_blocks: 1 };
    let size = cocoon_image::verity::length(1).expect("a small one");
    let root = Root { sha256: Sha256::of(b""), size, verity };
    let manifest = Manifest {
        version: MANIFEST_VERSION,
        name: "cocoon-guest".into(),
        variant: Variant::Development,
        lock: Sha256::of(b""),
        files: Files { kernel: file, initrd: file, root, cmdline: File::of(line.as_bytes()) },
        command_line: line,
        firmware: vec![],
        packages: vec![],
        programs: vec![],
        measurements: vec![],
    };
    std::fs::create_dir(folder).expect("a folder");
    std::fs::write(folder.join("manifest.json"), manifest.to_json()).expect("it can be written");
}

/// Everything but the disk, which belongs to whoever runs the tests.
fn failed(output: &Output) -> Vec<String> {
    let failed = json(output)["verdict"]["failed"].as_array().expect("a list").clone();
    let failed = failed.iter().map(|id| id.as_str().expect("text").to_owned());
    failed.filter(|id| id != "disk.free").collect()
}

#[test]
fn a_machine_with_all_that_emulation_needs_is_ready_and_nothing_is_made() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = configuration(folder.path(), "11.1.3");
    let output = doctor(&["--json", "--config", &config]);
    assert_eq!(failed(&output), [""; 0]);
    let report = json(&output);
    let ready = report["verdict"]["ready"].as_bool().expect("yes or no");
    assert_eq!(output.status.code(), Some(if ready { 0 } else { 1 }));
    assert_eq!((&report["tee"], &report["tee_choice"]), (&"emulation".into(), &"named".into()));
    assert!(!folder.path().join("state").exists(), "the doctor makes nothing");
    let lines = doctor(&["--config", &config]);
    let text = String::from_utf8(lines.stdout).expect("text");
    assert!(text.lines().last().expect("lines").contains("next: "), "{text}");
    assert!(text.contains("✓ qemu.version") && text.contains("named in the configuration"), "{text}");
    assert!(text.contains("✓ image.manifest"), "{text}");
}

#[test]
fn an_image_that_is_not_there_is_said_with_the_command_that_makes_it() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = configuration(folder.path(), "11.1.3");
    std::fs::remove_dir_all(folder.path().join("image")).expect("it was there");
    let output = doctor(&["--json", "--config", &config]);
    assert_eq!((failed(&output), output.status.code()), (vec!["image.manifest".to_owned()], Some(1)));
    let text = String::from_utf8(output.stdout).expect("text");
    assert!(text.contains("cocoon image build"), "{text}");
}

#[test]
fn an_old_qemu_ends_it_with_code_1_and_is_named_in_the_last_line() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = configuration(folder.path(), "7.2.18");
    let output = doctor(&["--json", "--config", &config]);
    assert_eq!((failed(&output), output.status.code()), (vec!["qemu.version".to_owned()], Some(1)));
    let lines = doctor(&["--config", &config]);
    let text = String::from_utf8(lines.stdout).expect("text");
    assert!(text.lines().last().expect("lines").contains("qemu.version"), "{text}");
}

#[test]
fn a_configuration_that_cannot_be_read_or_understood_is_a_plain_error() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("host.toml");
    std::fs::write(&path, "tee = \"sgx\"\n").expect("it can be written");
    let path = path.display().to_string();
    for (arguments, words) in [
        (["--config", "/no/such/file"], "/no/such/file"),
        (["--config", &path], "expected one of `auto`, `tdx`, `snp`, `emulation`"),
    ] {
        let output = doctor(&arguments);
        let error = String::from_utf8(output.stderr.clone()).expect("text");
        assert!(!output.status.success() && error.contains(words) && output.stdout.is_empty(), "{output:?}");
    }
}
