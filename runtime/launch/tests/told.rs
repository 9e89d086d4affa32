//! A host's configuration beside its machine, which is a folder: the TEE that is found, the image that is looked at.

mod fake_host;

use cocoon_image::manifest::{
    File, Files, Firmware, MANIFEST_VERSION, Manifest, Measurement, Provenance, Registers, Root,
    TdxRegisters, Variant, Verity,
};
use cocoon_image::{HexBytes, Sha256, verity};
use cocoon_launch::config::{ConfigError, HostConfig, TeeKind};
use cocoon_launch::doctor::{Check, Outcome, Tee, examine, question};
use cocoon_launch::gpu::Selection;
use fake_host::{
    address,
    hosts::{Host, cloud_vm, firmware, laptop, snp_h100, tdx_h100},
};

const IMAGE: &str = "/var/lib/cocoon/image";

fn config(tee: &str, guest: &str) -> HostConfig {
    let text = format!(
        "tee = \"{tee}\"\nimage = \"{IMAGE}\"\nstate = \"/var/lib/cocoon/state\"\nlisten = \"127.0.0.1:8083\"\n\
         gateways = [\"http://127.0.0.1:1\"]\n[model]\nname = \"m\"\nfile = \"/m.gguf\"\n[[guest]]\nname = \"a\"\n{guest}\n"
    );
    HostConfig::parse(&text).expect("a good configuration")
}

const PROFILE: &str = "profile = \"tdx-h100-1\"\ngpus = [\"0000:41:00.0\"]";

/// An image with one measurement, of TDX or of the emulation.
fn image(variant: Variant, profile: &str, registers: Registers) -> Manifest {
    let bytes = firmware(true, true);
    let sha256 = Sha256::of(&bytes);
    let development = if variant == Variant::Development { " cocoon.development" } else { "" };
    let command_line = format!("cocoon.root={} cocoon.root_blocks=1{development}", "04".repeat(32));
    let file = File { sha256: HexBytes([1; 32]), size: 1 };
    let data_blocks = 1;
    Manifest {
        version: MANIFEST_VERSION,
        name: "cocoon-guest".into(),
        variant,
        lock: HexBytes([2; 32]),
        files: Files {
            kernel: file,
            initrd: file,
            root: Root {
                sha256: HexBytes([3; 32]),
                size: verity::length(data_blocks).expect("a small one"),
                verity: Verity { root_hash: HexBytes([4; 32]), data_blocks },
            },
            cmdline: File::of(command_line.as_bytes()),
        },
        command_line,
        firmware: vec![Firmware { name: "OVMF.fd".into(), sha256, size: bytes.len() as u64 }],
        packages: vec![],
        programs: vec![],
        measurements: vec![Measurement {
            profile: profile.into(),
            firmware: sha256,
            qemu: "11.1".into(),
            provenance: Provenance::Emulated,
            registers,
            events: vec![],
        }],
    }
}

fn tdx() -> Registers {
    Registers::Tdx(TdxRegisters { mrtd: HexBytes([5; 48]), rtmr: [HexBytes([0; 48]); 3] })
}

/// A TDX host with a good image.
fn host() -> Host {
    let host = tdx_h100();
    host.files
        .file(&format!("{IMAGE}/manifest.json"), image(Variant::Production, "tdx-h100-1", tdx()).to_json());
    host.files.file(&format!("{IMAGE}/firmware/OVMF.fd"), firmware(true, true));
    host
}

fn check(host: &Host, config: &HostConfig, tee: Tee, id: &str) -> Check {
    let question = question(host.files.root(), config, tee);
    let report = examine(host.files.root(), host, &question);
    report.check(id).unwrap_or_else(|| panic!("there is no {id}")).clone()
}

#[test]
fn a_tee_left_to_the_machine_is_the_one_of_its_processor() {
    let auto = config("auto", PROFILE);
    assert_eq!(auto.tee(tdx_h100().files.root()), Ok(TeeKind::Tdx));
    assert_eq!(auto.tee(snp_h100().files.root()), Ok(TeeKind::Snp));
}

#[test]
fn emulation_is_never_found_only_named() {
    let auto = config("auto", PROFILE);
    for (host, words) in [(laptop(), "i7-1260P"), (cloud_vm(), "a virtual machine on AMD EPYC 9B45")] {
        let error = auto.tee(host.files.root()).expect_err("no TEE");
        assert!(matches!(error, ConfigError::NoTee { .. }));
        let text = error.to_string();
        assert!(text.contains(words) && text.contains("tee = \"emulation\""), "{text}");
    }
    let named = config("emulation", "vcpus = 1\nmemory = \"1 GiB\"");
    assert_eq!(named.tee(laptop().files.root()), Ok(TeeKind::Emulation));
    assert_eq!(
        config("snp", PROFILE).tee(laptop().files.root()),
        Ok(TeeKind::Snp),
        "the doctor says the rest"
    );
}

#[test]
fn a_configuration_asks_for_what_its_guests_need() {
    let host = host();
    let asked = question(host.files.root(), &config("tdx", PROFILE), Tee::Tdx);
    assert_eq!(asked.memory, 128 << 30, "the profile's");
    assert_eq!(asked.gpus, Some(Selection::Only(vec![address("0000:41:00.0")])));
    assert_eq!(asked.firmware, Some(format!("{IMAGE}/firmware/OVMF.fd").into()));
    assert_eq!(asked.known_firmware, [Sha256::of(&firmware(true, true)).to_string()]);
    assert_eq!((asked.ports.len(), asked.state.display().to_string().as_str()), (1, "/var/lib/cocoon/state"));
    let own = question(host.files.root(), &config("tdx", "vcpus = 2\nmemory = \"3 GiB\""), Tee::Tdx);
    assert_eq!((own.memory, own.gpus), (3 << 30, None));
}

#[test]
fn a_good_image_is_good() {
    let (host, config) = (host(), config("tdx", PROFILE));
    for id in ["image.manifest", "image.profiles", "firmware.abilities", "firmware.known"] {
        let check = check(&host, &config, Tee::Tdx, id);
        assert_eq!(check.result, Outcome::Ok, "{check:?}");
    }
}

#[test]
fn each_fault_of_an_image_is_found_with_its_remedy() {
    let manifest = format!("{IMAGE}/manifest.json");
    let firmware_file = format!("{IMAGE}/firmware/OVMF.fd");
    let development = image(Variant::Development, "tdx-h100-1", tdx()).to_json();
    let other = image(Variant::Production, "tdx-cpu-1", tdx()).to_json();
    type Fault<'f> = Box<dyn Fn(&Host) + 'f>;
    let faults: [(&str, Fault<'_>, &str, &str, &str); 6] = [
        (
            "no image",
            Box::new(|h| h.files.remove(&manifest)),
            "image.manifest",
            "manifest.json",
            "cocoon image build",
        ),
        (
            "no manifest",
            Box::new(|h| h.files.file(&manifest, "{}")),
            "image.manifest",
            "missing field",
            "cocoon image build",
        ),
        (
            "a development image",
            Box::new(|h| h.files.file(&manifest, &development)),
            "image.manifest",
            "not the image for guests with Intel TDX",
            "name the production image",
        ),
        (
            "another profile",
            Box::new(|h| h.files.file(&manifest, &other)),
            "image.profiles",
            "guest a: the manifest does not measure tdx-h100-1",
            "tdx-cpu-1",
        ),
        (
            "no firmware",
            Box::new(|h| h.files.remove(&firmware_file)),
            "image.profiles",
            "OVMF.fd",
            "make the image again",
        ),
        (
            "other firmware",
            Box::new(|h| h.files.file(&firmware_file, firmware(true, false))),
            "image.profiles",
            "not the file that the manifest lists",
            "make the image again",
        ),
    ];
    for (name, fault, id, reason, remedy) in faults {
        let host = host();
        fault(&host);
        let check = check(&host, &config("tdx", PROFILE), Tee::Tdx, id);
        assert_eq!(check.result, Outcome::Fail, "{name}: {check:?}");
        let said = check.remedy.clone().expect("a remedy");
        assert!(check.reason.contains(reason) && said.contains(remedy), "{name}: {check:?}");
    }
}

#[test]
fn a_profile_wants_as_many_gpus_as_it_was_measured_with() {
    let without = config("tdx", "profile = \"tdx-h100-1\"");
    let check = check(&host(), &without, Tee::Tdx, "image.profiles");
    assert!(check.result == Outcome::Fail && check.reason.contains("measured with 1 GPUs"), "{check:?}");
}

#[test]
fn a_profile_of_another_tee_is_not_taken_for_this_one() {
    let host = snp_h100();
    host.files
        .file(&format!("{IMAGE}/manifest.json"), image(Variant::Production, "tdx-h100-1", tdx()).to_json());
    let config = config("snp", PROFILE);
    let check = check(&host, &config, Tee::Snp, "image.profiles");
    assert!(check.result == Outcome::Fail && check.reason.contains("for AMD SEV-SNP"), "{check:?}");
}
