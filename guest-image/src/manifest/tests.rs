use super::*;
use crate::hex_bytes::HexBytes;

fn command_line() -> String {
    format!("console=ttyS0 ro cocoon.root={} cocoon.root_blocks=129 cocoon.development", "08".repeat(32))
}

fn sample() -> Manifest {
    let firmware = HexBytes([5; 32]);
    let event = Event {
        register: Register::Rtmr1,
        pcr: Some(4),
        kind: "EV_SEPARATOR".into(),
        digest: HexBytes([9; 48]),
        what: "end of the firmware's own events".into(),
    };
    let events = vec![event];
    let rtmr = [Register::Rtmr0, Register::Rtmr1, Register::Rtmr2];
    let rtmr = rtmr.map(|register| HexBytes(crate::measure::replay(&events, register)));
    let tdx = TdxRegisters { mrtd: HexBytes([1; 48]), rtmr };
    let command_line = command_line();
    let measurement = |profile: &str, registers, events| Measurement {
        profile: profile.into(),
        firmware,
        qemu: "11.1".into(),
        provenance: Provenance::Emulated,
        registers,
        events,
    };
    Manifest {
        version: MANIFEST_VERSION,
        name: "cocoon-guest".into(),
        variant: Variant::Development,
        lock: HexBytes([6; 32]),
        command_line: command_line.clone(),
        files: Files {
            kernel: File::of(b"kernel"),
            initrd: File::of(b"initrd"),
            root: Root {
                sha256: HexBytes([7; 32]),
                size: 132 * 4096,
                verity: Verity { root_hash: HexBytes([8; 32]), data_blocks: 129 },
            },
            cmdline: File::of(command_line.as_bytes()),
        },
        firmware: vec![Firmware { name: "OVMF.fd".into(), sha256: firmware, size: 4 << 20 }],
        packages: vec![Package {
            name: "libc6".into(),
            version: "2.41-12".into(),
            sha256: HexBytes([1; 32]),
        }],
        programs: vec![Program { path: "/init".into(), sha256: HexBytes([2; 32]), size: 7 }],
        measurements: vec![
            measurement("emulation-2", Registers::Emulation(tdx), events.clone()),
            measurement("snp-2", Registers::Snp { launch_digest: HexBytes([3; 48]) }, vec![]),
            measurement("tdx-2", Registers::Tdx(tdx), events),
        ],
    }
}

fn refused(json: &str) -> String {
    Manifest::from_json(json.as_bytes()).expect_err("refused").to_string()
}

#[test]
fn a_manifest_survives_its_bytes() {
    let json = sample().to_json();
    assert_eq!(Manifest::from_json(json.as_bytes()).expect("canonical"), sample());
    assert_eq!(sample().digest(), Sha256::of(json.as_bytes()));
    // The shape that others read.
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(value["measurements"][0]["platform"], "emulation");
    assert_eq!(value["measurements"][0]["rtmr2"], "00".repeat(48));
    assert_eq!(value["measurements"][0]["events"][0]["type"], "EV_SEPARATOR");
    assert_eq!(value["measurements"][1]["launch_digest"], "03".repeat(48));
    assert_eq!(value["measurements"][1].get("mrtd"), None);
    assert_eq!(value["files"]["root"]["verity"]["data_blocks"], 129);
}

#[test]
fn another_spelling_is_refused() {
    let json = sample().to_json();
    assert_eq!(refused(json.trim_end()), ManifestError::NotCanonical.to_string());
    assert_eq!(refused(&json.replace("\": ", "\" : ")), ManifestError::NotCanonical.to_string());
    assert!(refused(&json.replacen("0606", "060G", 1)).contains("64 lower-case hex digits"));
    assert!(
        refused(&json.replacen("\"name\"", "\"extra\": 1,\n  \"name\"", 1)).contains("unknown field `extra`")
    );
}

#[test]
fn parts_that_contradict_each_other_are_refused() {
    type Change = fn(&mut Manifest);
    let changes: [(Change, &str); 9] = [
        (|m| m.version = 2, "version 2"),
        (|m| m.name = "../x".into(), "its name"),
        (|m| m.command_line.push(' '), "command line"),
        (|m| m.files.root.size += 4096, "root's length"),
        (|m| m.files.root.verity.data_blocks = 0, "root's length"),
        (|m| m.firmware[0].name = "../OVMF.fd".into(), "no plain file name"),
        (|m| m.packages.push(m.packages[0].clone()), "names something twice"),
        (|m| m.measurements.swap(0, 1), "not sorted"),
        (|m| m.measurements[0].firmware = HexBytes([0; 32]), "firmware that it does not list"),
    ];
    for (change, says) in changes {
        let mut manifest = sample();
        change(&mut manifest);
        let why = refused(&manifest.to_json());
        assert!(why.contains(says), "{says}: {why}");
    }
}

#[test]
fn a_command_line_that_boots_another_root_or_variant_is_refused() {
    let line = command_line();
    let root = format!("cocoon.root={}", "08".repeat(32));
    for other in [
        line.replace(&root, &format!("cocoon.root={}", "09".repeat(32))),
        line.replace("root_blocks=129", "root_blocks=128"),
        line.replace("root_blocks=129", "root_blocks=0129"),
        line.replace(&root, ""),
        format!("{line} {root}"),
        format!("{line} cocoon.log=all"),
        line.replace(" cocoon.development", ""),
    ] {
        let mut manifest = sample();
        manifest.files.cmdline = File::of(other.as_bytes());
        manifest.command_line = other;
        let why = refused(&manifest.to_json());
        assert!(why.contains("the command line boots `"), "{}: {why}", manifest.command_line);
    }
    let production = Manifest { variant: Variant::Production, ..sample() };
    let why = refused(&production.to_json());
    assert!(why.contains("(production)") && why.contains("cocoon.development"), "{why}");
}

#[test]
fn registers_that_their_events_do_not_give_are_refused() {
    for index in 0..3 {
        let mut manifest = sample();
        let Registers::Tdx(tdx) = &mut manifest.measurements[2].registers else {
            unreachable!("it is made so")
        };
        tdx.rtmr[index].0[0] ^= 1;
        let why = refused(&manifest.to_json());
        assert!(why.contains("the events of tdx-2") && why.contains(&format!("in RTMR{index}")), "{why}");
    }
    let mut manifest = sample();
    manifest.measurements[0].events[0].digest.0[0] ^= 1;
    assert!(refused(&manifest.to_json()).contains("in RTMR1"));
    for (index, register) in [(0, Register::LaunchDigest), (1, Register::Rtmr0)] {
        let mut manifest = sample();
        let event = Event { register, ..manifest.measurements[0].events[0].clone() };
        manifest.measurements[index].events.push(event);
        assert!(refused(&manifest.to_json()).contains("another platform's register"), "{register:?}");
    }
}

#[test]
fn a_measurement_has_the_registers_of_its_platform_and_no_others() {
    let json = sample().to_json();
    let snp_as_tdx = json.replacen("\"platform\": \"snp\"", "\"platform\": \"tdx\"", 1);
    assert!(refused(&snp_as_tdx).contains("not the registers of its platform"));
    let without_rtmr0 = format!("      \"rtmr0\": \"{}\",\n", "00".repeat(48));
    assert!(json.contains(&without_rtmr0));
    assert!(refused(&json.replacen(&without_rtmr0, "", 1)).contains("but not all"));
}

#[test]
fn a_measurement_says_how_far_it_is_proved() {
    let manifest = sample();
    let [emulation, snp, tdx] = manifest.measurements.as_slice() else { unreachable!("it is made so") };
    assert!(emulation.is_proved() && !emulation.standing().contains("NOT"));
    assert!([snp, tdx].into_iter().all(|own| !own.is_proved() && own.standing().contains("NOT COMPARED")));
    let hardware = Measurement { provenance: Provenance::Hardware, ..tdx.clone() };
    assert!(hardware.is_proved() && !hardware.standing().contains("NOT"));
    let field = "      \"provenance\": \"emulated\",\n";
    assert!(refused(&manifest.to_json().replacen(field, "", 1)).contains("missing field `provenance`"));
}

#[test]
fn a_manifest_of_any_length_is_not_read() {
    let error = Manifest::from_json(&vec![b' '; MANIFEST_MAX + 1]).expect_err("too long");
    assert!(matches!(error, ManifestError::TooLong(length) if length == MANIFEST_MAX + 1));
}
