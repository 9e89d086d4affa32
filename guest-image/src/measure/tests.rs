use super::*;
use crate::testing::{firmware, program};

fn record() -> Record {
    let digest = |byte| HexBytes([byte; 48]);
    Record {
        provenance: Provenance::Hardware,
        acpi_loader: digest(1),
        acpi_rsdp: digest(2),
        acpi_tables: digest(3),
        smbios: Some(digest(4)),
    }
}

fn profile(name: &str) -> Profile {
    built_in().into_iter().find(|(profile, _)| profile.name == name).unwrap().0
}

fn known() -> &'static KnownFirmware {
    let hash = "14954040cc754ade0c625ac3470ea46d4c14318b5b1396de4ef77090203d76db";
    known_firmware(HexBytes::from_hex(hash).unwrap()).unwrap()
}

struct Parts {
    firmware: Vec<u8>,
    kernel: Vec<u8>,
    initrd: Vec<u8>,
    command_line: String,
}

impl Parts {
    fn new() -> Self {
        let command_line = format!("ro cocoon.root={}", "0a".repeat(32));
        Self { firmware: firmware(), kernel: program(), initrd: b"070701".to_vec(), command_line }
    }

    fn files(&self) -> BootFiles<'_> {
        let Self { firmware, kernel, initrd, command_line } = self;
        BootFiles { firmware, kernel, initrd, command_line }
    }

    /// MRTD, RTMR0, RTMR1, RTMR2.
    fn registers(&self, name: &str) -> [[u8; 48]; 4] {
        let (registers, _) = tdx(&self.files(), &profile(name), &record(), known()).unwrap();
        let (Registers::Tdx(tdx) | Registers::Emulation(tdx)) = registers else {
            unreachable!("no SNP profile")
        };
        let [rtmr0, rtmr1, rtmr2] = tdx.rtmr;
        [tdx.mrtd.0, rtmr0.0, rtmr1.0, rtmr2.0]
    }
}

fn moved(base: &[[u8; 48]; 4], other: &[[u8; 48]; 4]) -> Vec<usize> {
    (0..4).filter(|index| base[*index] != other[*index]).collect()
}

#[test]
fn one_byte_of_each_input_moves_exactly_its_register() {
    for name in ["emulation-1", "tdx-cpu-1"] {
        let base = Parts::new().registers(name);
        let change = |change: &dyn Fn(&mut Parts)| {
            let mut parts = Parts::new();
            change(&mut parts);
            moved(&base, &parts.registers(name))
        };
        assert_eq!(change(&|parts| parts.firmware[0x2000] ^= 1), [0], "{name}: code");
        // A TD measures the variables; a TPM machine measures what is in them, and these are not read.
        let variables: &[usize] = if name == "tdx-cpu-1" { &[1] } else { &[] };
        assert_eq!(change(&|parts| parts.firmware[0] ^= 1), variables, "{name}: variables");
        assert_eq!(change(&|parts| parts.kernel[0x250] ^= 1), [2], "{name}: kernel");
        assert_eq!(change(&|parts| parts.initrd[5] ^= 1), [3], "{name}: initrd");
        assert_eq!(change(&|parts| parts.command_line = parts.command_line.replace("ro ", "rw ")), [3]);
        let other_root = |parts: &mut Parts| parts.command_line = parts.command_line.replacen("0a", "0b", 1);
        assert_eq!(change(&other_root), [3], "{name}: root hash");
    }
}

#[test]
fn the_machine_moves_rtmr0_alone() {
    let parts = Parts::new();
    let base = parts.registers("tdx-cpu-1");
    let with = |profile: &Profile, record: &Record| {
        let (registers, _) = tdx(&parts.files(), profile, record, known()).unwrap();
        let Registers::Tdx(tdx) = registers else { unreachable!("a TDX profile") };
        let [rtmr0, rtmr1, rtmr2] = tdx.rtmr;
        moved(&base, &[tdx.mrtd.0, rtmr0.0, rtmr1.0, rtmr2.0])
    };
    let machine = profile("tdx-cpu-1");
    let more = Profile { memory_mib: machine.memory_mib + 1024, ..machine.clone() };
    assert_eq!(with(&more, &record()), [1], "the TD HOB lists memory");
    for field in 0..3 {
        let mut other = record();
        let fields = [&mut other.acpi_loader, &mut other.acpi_rsdp, &mut other.acpi_tables];
        fields.into_iter().nth(field).unwrap().0[0] ^= 1;
        assert_eq!(with(&machine, &other), [1]);
    }
}

#[test]
fn the_registers_are_the_replay_of_the_events() {
    for name in ["emulation-1", "tdx-cpu-1"] {
        let parts = Parts::new();
        let (_, events) = tdx(&parts.files(), &profile(name), &record(), known()).unwrap();
        let [_, rtmr0, rtmr1, rtmr2] = parts.registers(name);
        let replayed = [Register::Rtmr0, Register::Rtmr1, Register::Rtmr2].map(|r| replay(&events, r));
        assert_eq!(replayed, [rtmr0, rtmr1, rtmr2]);
        assert!(events.iter().all(|event| !event.what.is_empty()), "each event has its reason");
    }
}

#[test]
fn what_cannot_be_predicted_is_said_with_what_to_do() {
    let parts = Parts::new();
    let machine = profile("emulation-1");
    let unknown = measure(&parts.files(), &machine, Some(&record())).unwrap_err();
    assert!(matches!(unknown, CannotMeasure::UnknownFirmware(_)), "{unknown}");
    let new = "6a3e8f438ad7269f5dfd884647587b88391fb23965bb3aa7902b519438dba129";
    let new = known_firmware(HexBytes::from_hex(new).unwrap()).unwrap();
    let without = Record { smbios: None, ..record() };
    let got = tdx(&parts.files(), &machine, &without, new).unwrap_err();
    assert_eq!(got, CannotMeasure::NoSmbios("emulation-1".to_owned()));
    let no_kernel = BootFiles { kernel: b"#!/bin/sh", ..parts.files() };
    assert!(matches!(tdx(&no_kernel, &machine, &record(), known()), Err(CannotMeasure::Kernel(_))));
    let no_firmware = BootFiles { firmware: b"", ..parts.files() };
    assert!(matches!(tdx(&no_firmware, &machine, &record(), known()), Err(CannotMeasure::Tdvf(_))));
}

#[test]
fn snp_needs_no_record() {
    let parts = Parts::new();
    let machine = profile("snp-h100-1");
    let measurement = measure(&parts.files(), &machine, None).unwrap();
    let Registers::Snp { launch_digest } = measurement.registers else { unreachable!("an SNP profile") };
    assert_ne!(launch_digest.0, [0; 48]);
    assert!(!measurement.is_proved() && measurement.standing().contains("documents and sources alone"));
    let vcpus = measurement.events.iter().filter(|event| event.what.contains("vCPU")).count();
    assert_eq!(vcpus, 16);
    let more = Profile { memory_mib: 262_144, ..machine };
    assert_eq!(measure(&parts.files(), &more, None).unwrap().registers, measurement.registers);
}

#[test]
fn an_image_is_predicted_for_each_machine_that_its_firmware_fits() {
    let parts = Parts::new();
    let firmware = [("OVMF.amdsev.fd", parts.firmware.as_slice())];
    let predicted = measure_all(&parts.files(), &firmware).unwrap();
    let names: Vec<&str> = predicted.measurements.iter().map(|m| m.profile.as_str()).collect();
    assert_eq!(names, ["snp-h100-1", "snp-h100-8"]);
    assert_eq!(predicted.not_recorded, [""; 0]);
    let unknown = [("OVMF.fd", parts.firmware.as_slice())];
    assert!(matches!(measure_all(&parts.files(), &unknown), Err(CannotMeasure::UnknownFirmware(_))));
    assert_eq!(measure_all(&parts.files(), &[]).unwrap().measurements, []);
}
