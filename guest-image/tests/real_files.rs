//! Predictions from the firmware and the kernel that images are made of, against other programs and against logs of real
//! machines.
//!
//! - `COCOON_BOOT_FILES`: a folder with `vmlinuz`, `OVMF.fd`, `OVMF.inteltdx.ms.fd` and `OVMF.amdsev.fd` of the lock file's
//!   packages.
//! - `COCOON_SNP_MEASURE_PYTHON`: a Python that has `sev-snp-measure`.
//! - `COCOON_BLESS=1`: writes the golden predictions anew.
//! - `COCOON_VECTORS`: the evidence vectors; by default `../shared/vectors` from the workspace's root.
//!
//! Without them these tests say SKIPPED, and so does the last line of `scripts/test`.

use std::path::PathBuf;
use std::process::Command;

use cocoon_attestation::EventLog;
use cocoon_attestation::eventlog::{Bank, EventType};
use cocoon_image::diff::word;
use cocoon_image::manifest::{Measurement, Register, Registers};
use cocoon_image::measure::{BootFiles, measure};
use cocoon_image::pe::Program;
use cocoon_image::profile::{PlatformName, Profile, Record, SnpMachine, built_in};
use cocoon_image::snp::VcpuType;
use cocoon_image::tcg::known_firmware;
use cocoon_image::{Sha256, tdvf};

const COMMAND_LINE: &str = "console=ttyS0 panic=-1 quiet";
const INITRD: &[u8] = b"an initrd";

/// A file of `COCOON_BOOT_FILES`; says SKIPPED if it is not there.
fn file(name: &str) -> Option<Vec<u8>> {
    let path = std::env::var_os("COCOON_BOOT_FILES").map(|folder| PathBuf::from(folder).join(name));
    let read = path.and_then(|path| std::fs::read(path).ok());
    if read.is_none() {
        println!("SKIPPED: COCOON_BOOT_FILES has no {name}: nothing is compared here");
    }
    read
}

fn vector(name: &str) -> Option<Vec<u8>> {
    let folder = std::env::var_os("COCOON_VECTORS").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"),
        PathBuf::from,
    );
    let read = std::fs::read(folder.join(name)).ok();
    if read.is_none() {
        println!("SKIPPED: COCOON_VECTORS has no {name}: nothing is compared here");
    }
    read
}

fn profile(name: &str) -> (Profile, Option<Record>) {
    built_in().into_iter().find(|(profile, _)| profile.name == name).expect("a profile of the crate")
}

#[test]
fn osslsigncode_finds_the_same_digest_of_the_kernel() {
    let Some(kernel) = file("vmlinuz") else { return };
    let folder = tempfile::tempdir().unwrap();
    // The last byte of the kernel's first section: the signature breaks, the digest is still told.
    for (name, flip) in [("as it is", None), ("changed", Some(0x4000))] {
        let mut kernel = kernel.clone();
        if let Some(at) = flip {
            kernel[at] ^= 1;
        }
        let path = folder.path().join("kernel");
        std::fs::write(&path, &kernel).unwrap();
        let Ok(output) = Command::new("osslsigncode").arg("verify").arg(&path).output() else {
            println!("SKIPPED: there is no osslsigncode here");
            return;
        };
        let told = String::from_utf8_lossy(&output.stdout).to_lowercase();
        let line = told.lines().find(|line| line.contains("calculated message digest"));
        let line = line.unwrap_or_else(|| panic!("osslsigncode told no digest: {told}"));
        let own = hex::encode(Program::parse(&kernel).unwrap().sha256());
        assert!(line.contains(&own), "{name}: {line}, not {own}");
    }
}

/// The log that the unit tests use is of a boot of this kernel with this firmware: now everything comes from files.
#[test]
fn a_real_boot_under_emulation_measured_what_its_files_predict() {
    let (Some(firmware), Some(kernel)) = (file("OVMF.fd"), file("vmlinuz")) else { return };
    let log = EventLog::parse(include_bytes!("golden/ovmf-2025.02-tpm.log")).unwrap();
    let (profile, record) = profile("emulation-1");
    let files =
        BootFiles { firmware: &firmware, kernel: &kernel, initrd: INITRD, command_line: COMMAND_LINE };
    let measurement = measure(&files, &profile, record.as_ref()).unwrap();
    let mut told = measurement.events.iter().filter(|event| event.pcr.is_some());
    for seen in log.events().iter().filter(|e| e.register() != 0 && e.kind() != EventType::NO_ACTION) {
        let own = told.next().expect("as many as there are");
        assert_eq!(own.pcr.map(u32::from), Some(seen.register()));
        if own.what == "initrd" {
            continue; // the log's boot had another
        }
        assert_eq!(own.digest.0.as_slice(), seen.digest(Bank::Sha384).unwrap(), "{}", own.what);
    }
    assert_eq!(told.next(), None);
}

/// A machine with Intel TDX, 2 GiB and this firmware family: all of RTMR0, and the order of RTMR1 and RTMR2. Its kernel, command
/// line and initrd are not at hand.
#[test]
fn a_real_td_measured_what_is_predicted_for_its_machine() {
    let (Some(firmware), Some(kernel)) = (file("OVMF.fd"), file("vmlinuz")) else { return };
    let Some(bytes) = vector("eventlog/ccel_lunal_live2.dat") else { return };
    let log = EventLog::parse(&bytes).unwrap();
    let record = Record::from_log(&log).unwrap();
    let (cpu, _) = profile("tdx-cpu-1");
    let machine = Profile { memory_mib: 2048, ..cpu };
    let files =
        BootFiles { firmware: &firmware, kernel: &kernel, initrd: INITRD, command_line: COMMAND_LINE };
    let measurement = measure(&files, &machine, Some(&record)).unwrap();
    let Registers::Tdx(registers) = measurement.registers else { panic!("a TDX profile") };
    assert_eq!(registers.rtmr[0].0.as_slice(), log.replay_rtmrs().unwrap()[0].value);

    let place = |register: Register| match register {
        Register::Rtmr0 => 1_u32,
        Register::Rtmr1 => 2,
        _ => 3,
    };
    let told = measurement.events.iter().filter(|event| event.pcr.is_some());
    let told: Vec<_> = told.map(|event| (place(event.register), event.kind.as_str())).collect();
    let seen = log.events().iter().filter(|event| event.kind() != EventType::NO_ACTION);
    let seen: Vec<_> = seen.map(|event| (event.register(), event.kind().name())).collect();
    assert_eq!(told, seen);
}

#[test]
fn debians_tdx_firmware_is_known_once_its_variables_are_empty() {
    let (Some(tdx), Some(plain)) = (file("OVMF.inteltdx.ms.fd"), file("OVMF.fd")) else { return };
    assert_eq!(known_firmware(Sha256::of(&tdx)), None, "with Microsoft's keys it starts no kernel directly");
    let joined = tdvf::with_variables_of(&tdx, &plain).unwrap();
    assert!(known_firmware(Sha256::of(&joined)).is_some());
    let mrtd = |bytes: &[u8]| tdvf::Tdvf::parse(bytes).unwrap().mrtd();
    assert_eq!(mrtd(&joined), mrtd(&tdx), "MRTD is that of Debian's file");
    assert_ne!(mrtd(&joined), mrtd(&plain));
}

/// Registers and events, a line each, as the golden files have them.
fn lines(measurement: &Measurement) -> String {
    let mut lines = match &measurement.registers {
        Registers::Snp { launch_digest } => vec![format!("launch digest = {launch_digest}")],
        Registers::Tdx(tdx) | Registers::Emulation(tdx) => {
            let rtmrs = tdx.rtmr.iter().enumerate().map(|(index, value)| format!("RTMR{index} = {value}"));
            std::iter::once(format!("MRTD = {}", tdx.mrtd)).chain(rtmrs).collect()
        }
    };
    lines.extend(measurement.events.iter().map(|event| {
        let pcr = event.pcr.map(|pcr| format!(" PCR {pcr}")).unwrap_or_default();
        format!("{}{pcr} {} {}\n    {}", word(event.register), event.kind, event.digest, event.what)
    }));
    lines.join("\n") + "\n"
}

/// Any other prediction from the same files is either a mistake, or has to be explained to everybody who pinned the old one. The files
/// are those of the lock: whoever renews it blesses these anew.
#[test]
fn predictions_from_the_locked_files_stay_what_they_were() {
    let Some(kernel) = file("vmlinuz") else { return };
    let (plain, tdx) = (file("OVMF.fd"), file("OVMF.inteltdx.ms.fd"));
    let joined = tdx.zip(plain.as_ref()).map(|(tdx, plain)| tdvf::with_variables_of(&tdx, plain).unwrap());
    for (name, firmware) in
        [("emulation-1", plain), ("tdx-cpu-1", joined), ("snp-h100-1", file("OVMF.amdsev.fd"))]
    {
        let Some(firmware) = firmware else { continue };
        let (machine, record) = profile(name);
        let files =
            BootFiles { firmware: &firmware, kernel: &kernel, initrd: INITRD, command_line: COMMAND_LINE };
        let predicted = lines(&measure(&files, &machine, record.as_ref()).unwrap());
        let golden =
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/predicted-{name}.txt"));
        if std::env::var_os("COCOON_BLESS").is_some() {
            std::fs::write(&golden, &predicted).unwrap();
        }
        assert_eq!(std::fs::read_to_string(&golden).unwrap_or_default(), predicted, "{}", golden.display());
    }
}

#[test]
fn sev_snp_measure_finds_the_same_launch_digest() {
    let Some(python) = std::env::var_os("COCOON_SNP_MEASURE_PYTHON") else {
        println!("SKIPPED: COCOON_SNP_MEASURE_PYTHON is not set: nothing is compared here");
        return;
    };
    let (Some(firmware), Some(kernel)) = (file("OVMF.amdsev.fd"), file("vmlinuz")) else { return };
    let folder = std::env::var_os("COCOON_BOOT_FILES").map(PathBuf::from).expect("it was just read");
    let initrd = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(initrd.path(), INITRD).unwrap();
    let files =
        BootFiles { firmware: &firmware, kernel: &kernel, initrd: INITRD, command_line: COMMAND_LINE };
    for (vcpus, vcpu_type, guest_features) in [
        (1, VcpuType::EpycV4, 1_u64),
        (2, VcpuType::EpycMilan, 1),
        (16, VcpuType::EpycGenoa, 0x21),
        (64, VcpuType::EpycTurin, 1),
    ] {
        let output = Command::new(&python)
            .args(["-m", "sevsnpmeasure.cli", "--mode", "snp", "--append", COMMAND_LINE])
            .args(["--vcpus", &vcpus.to_string(), "--vcpu-type", vcpu_type.word()])
            .args(["--guest-features", &format!("{guest_features:#x}")])
            .arg("--ovmf")
            .arg(folder.join("OVMF.amdsev.fd"))
            .arg("--kernel")
            .arg(folder.join("vmlinuz"))
            .arg("--initrd")
            .arg(initrd.path())
            .output()
            .expect("Python starts");
        let told = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        assert_eq!(told.len(), 96, "sev-snp-measure: {}", String::from_utf8_lossy(&output.stderr));
        let (mut machine, _) = profile("snp-h100-1");
        assert_eq!(machine.platform, PlatformName::Snp);
        machine.vcpus = vcpus;
        machine.snp = Some(SnpMachine { vcpu_type, guest_features });
        let Registers::Snp { launch_digest } = measure(&files, &machine, None).unwrap().registers else {
            panic!("an SNP profile")
        };
        assert_eq!(launch_digest.to_string(), told);
    }
}
