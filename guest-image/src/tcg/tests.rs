use cocoon_attestation::EventLog;
use cocoon_attestation::eventlog::Bank;

use super::*;
use crate::manifest::Register;
use crate::measure::replay;

/// Logs of boots in QEMU 11.1.3 under emulation with a software TPM, as Linux showed them.
const OLD_LOG: &[u8] = include_bytes!("../../tests/golden/ovmf-2025.02-tpm.log");
const NEW_LOG: &[u8] = include_bytes!("../../tests/golden/ovmf-2026.08-tpm.log");
const OLD: &str = "14954040cc754ade0c625ac3470ea46d4c14318b5b1396de4ef77090203d76db";
const NEW: &str = "6a3e8f438ad7269f5dfd884647587b88391fb23965bb3aa7902b519438dba129";
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 quiet";
/// Authenticode digest of the kernel of both boots (`tests/real_files.rs` computes it from the file).
const KERNEL: &str = "92887f6f9422d0c275a3ca93";

fn hash(text: &str) -> HexBytes<32> {
    HexBytes::from_hex(text).unwrap()
}

/// The digest of the only event of that type and PCR whose data ends so.
fn digest_of(log: &EventLog<'_>, kind: EventType, tail: &[u8]) -> [u8; 48] {
    let mut events = log.events().iter().filter(|event| event.kind() == kind && event.data().ends_with(tail));
    let digest = events.next().unwrap().digest(Bank::Sha384).unwrap().try_into().unwrap();
    assert!(events.next().is_none());
    digest
}

fn check_against(bytes: &[u8], firmware: &str) {
    let log = EventLog::parse(bytes).unwrap();
    let kernel = digest_of(&log, EventType::EFI_BOOT_SERVICES_APPLICATION, &[0x7f, 0xff, 4, 0]);
    assert!(hex::encode(kernel).starts_with(KERNEL));
    let boot = Boot {
        firmware: known_firmware(hash(firmware)).unwrap(),
        kernel,
        initrd: digest_of(&log, EventType::EVENT_TAG, b"Linux initrd\0"),
        command_line: COMMAND_LINE,
        record: &Record::from_log(&log).unwrap(),
    };
    let predicted = boot.tpm_events();
    let seen: Vec<_> = log
        .events()
        .iter()
        .filter(|event| event.register() != 0 && event.kind() != EventType::NO_ACTION)
        .map(|event| {
            (event.register(), event.kind().name(), hex::encode(event.digest(Bank::Sha384).unwrap()))
        })
        .collect();
    let told: Vec<_> = predicted
        .iter()
        .map(|event| (u32::from(event.pcr.unwrap()), event.kind.as_str(), event.digest.to_string()))
        .collect();
    assert_eq!(told, seen);
}

#[test]
fn every_event_of_a_real_boot_is_predicted_in_its_order() {
    check_against(OLD_LOG, OLD);
    check_against(NEW_LOG, NEW);
}

/// The prediction written as a log in the TCG's format, and replayed by the verifier.
#[test]
fn predicted_events_replay_to_predicted_registers() {
    let record = Record::from_log(&EventLog::parse(OLD_LOG).unwrap()).unwrap();
    let firmware = known_firmware(hash(OLD)).unwrap();
    let boot =
        Boot { firmware, kernel: [1; 48], initrd: [2; 48], command_line: COMMAND_LINE, record: &record };
    for events in [boot.tpm_events(), boot.td_events(&td())] {
        let bytes = written(&events);
        let replayed = EventLog::parse(&bytes).unwrap().replay_rtmrs().unwrap();
        for (register, index) in [(Register::Rtmr0, 0), (Register::Rtmr1, 1), (Register::Rtmr2, 2)] {
            assert_eq!(replayed[index].value, replay(&events, register));
        }
        assert_eq!(replayed[3].events, [0; 0]);
    }
}

fn td() -> Td {
    Td { hand_off: [3; 48], variables: [4; 48], pci_mmio64: None }
}

/// A CCEL with these digests. The types say what was hashed, so all become one that says nothing.
fn written(events: &[Event]) -> Vec<u8> {
    let mut header = b"Spec ID Event03\0".to_vec();
    header.extend_from_slice(&[0, 0, 0, 0, 0, 2, 0, 2, 1, 0, 0, 0, 0x0c, 0, 48, 0, 0]);
    let mut log = [1_u32, 3].map(u32::to_le_bytes).concat();
    log.extend_from_slice(&[0; 20]);
    log.extend_from_slice(&(header.len() as u32).to_le_bytes());
    log.extend_from_slice(&header);
    for event in events {
        let register = match event.register {
            Register::Rtmr0 => 1_u32,
            Register::Rtmr1 => 2,
            _ => 3,
        };
        for word in [register, EventType::PLATFORM_CONFIG_FLAGS.code(), 1] {
            log.extend_from_slice(&word.to_le_bytes());
        }
        log.extend_from_slice(&[0x0c, 0]);
        log.extend_from_slice(&event.digest.0);
        log.extend_from_slice(&0_u32.to_le_bytes());
    }
    log
}

#[test]
fn newer_firmware_in_a_td_measures_what_it_takes_from_fw_cfg() {
    let record = Record::from_log(&EventLog::parse(NEW_LOG).unwrap()).unwrap();
    let of = |firmware: &str, td: &Td| {
        let firmware = known_firmware(hash(firmware)).unwrap();
        let boot = Boot { firmware, kernel: [1; 48], initrd: [2; 48], command_line: "x", record: &record };
        boot.td_events(td).into_iter().filter(|event| event.what.contains("fw_cfg")).collect::<Vec<_>>()
    };
    assert_eq!(of(OLD, &td()), []);
    assert_eq!(of(NEW, &td()).len(), 2);
    let large = of(NEW, &Td { pci_mmio64: Some(262_144), ..td() });
    assert_eq!(large[1].digest.0, sha384(&[b"262144"]));
    assert_eq!(large.len(), 3);
}

#[test]
fn the_initrds_name_stands_where_the_firmware_puts_it() {
    let line = |firmware: &str| known_firmware(hash(firmware)).unwrap().dialect.command_line("a b");
    assert_eq!(line(OLD), "a b initrd=initrd");
    assert_eq!(line(NEW), "initrd=initrd a b");
    assert_eq!(known_firmware(HexBytes([0; 32])), None);
}
