//! A VM's boot: registers come from the firmware's log, and only if the TPM holds the same.

use cocoon_attestation::eventlog::{Bank, EventLog};
use cocoon_attestation::{UnixTime, extend};
use cocoon_simulated_tee::{BOOT_PCRS, Emulator, Pcrs, SimulatedRoot};
use ring::digest::{SHA384, digest};

const NOW: UnixTime = UnixTime(1_795_000_000);
const MRTD: [u8; 48] = [5; 48];

fn sha384(bytes: &[u8]) -> [u8; 48] {
    digest(&SHA384, bytes).as_ref().try_into().expect("SHA-384")
}

/// What firmware measures: PCR, type, data.
const EVENTS: [(u32, u32, &[u8]); 7] = [
    (0, 0x8000_000a, b"firmware"),
    (7, 0x4, &[0; 4]),
    (4, 0x8000_0007, b"Calling EFI Application from Boot Option"),
    (1, 0xa, b"ACPI DATA"),
    (9, 0x6, b"command line"),
    (9, 0x6, b"initrd"),
    (5, 0x8000_0007, b"Exit Boot Services Invocation"),
];

/// A log with SHA-1 and SHA-384 banks, as a TPM's firmware leaves it.
fn log(events: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let mut spec = b"Spec ID Event03\0".to_vec();
    spec.extend([0, 0, 0, 0, 0, 2, 0, 2, 2, 0, 0, 0, 4, 0, 20, 0, 12, 0, 48, 0, 0]);
    let mut log = [0_u32.to_le_bytes(), 3_u32.to_le_bytes()].concat();
    log.extend([0; 20]);
    log.extend((spec.len() as u32).to_le_bytes());
    log.extend(spec);
    for (pcr, kind, data) in events {
        log.extend(pcr.to_le_bytes());
        log.extend(kind.to_le_bytes());
        log.extend([2, 0, 0, 0, 4, 0]);
        log.extend([0x11; 20]);
        log.extend([12, 0]);
        log.extend(sha384(data));
        log.extend((data.len() as u32).to_le_bytes());
        log.extend(*data);
    }
    log
}

fn pcrs() -> Pcrs {
    let mut pcrs = [[0; 48]; BOOT_PCRS];
    for (pcr, _, data) in EVENTS {
        let pcr = &mut pcrs[pcr as usize];
        *pcr = extend(pcr, &sha384(data));
    }
    pcrs
}

fn power_on(pcrs: Pcrs) -> Emulator {
    Emulator::power_on(&SimulatedRoot::create(NOW), MRTD, Box::new(move || Ok(pcrs)))
}

#[test]
fn a_confirmed_boot_fills_the_registers_in_the_logs_order() {
    let mut emulator = power_on(pcrs());
    let ccel = emulator.boot(&log(&EVENTS)).expect("the TPM holds the same");
    let into =
        |digests: &[&[u8]]| digests.iter().fold([0; 48], |register, data| extend(&register, &sha384(data)));
    let registers = emulator.registers();
    assert_eq!(registers.mrtd, MRTD);
    assert_eq!(registers.rtmr[0], into(&[EVENTS[1].2, EVENTS[3].2]));
    assert_eq!(registers.rtmr[1], into(&[EVENTS[2].2, EVENTS[6].2]));
    assert_eq!(registers.rtmr[2], into(&[EVENTS[4].2, EVENTS[5].2]));
    assert_eq!(registers.rtmr[3], [0; 48]);

    let ccel = EventLog::parse(&ccel).expect("a log again");
    ccel.explains(&registers.rtmr).expect("it replays to the registers");
    assert_eq!(ccel.banks(), [Bank::Sha384]);
    assert_eq!(ccel.events().len(), EVENTS.len() - 1, "MRTD's events are not in it");
}

#[test]
fn a_log_that_the_tpm_does_not_hold_is_refused_and_changes_nothing() {
    for (what, index, data) in [
        ("another initrd", 5, b"initre".as_slice()),
        ("another firmware", 0, b"firmwarf"),
        ("another order", 4, b"initrd"),
    ] {
        let mut changed = EVENTS;
        changed[index].2 = data;
        let mut emulator = power_on(pcrs());
        let error = emulator.boot(&log(&changed)).expect_err(what);
        let pcr = format!("PCR {}", EVENTS[index].0);
        assert!(error.contains(&pcr), "{what}: {error} should name {pcr}");
        assert!(!emulator.has_booted());
        assert_eq!(emulator.registers().rtmr, [[0; 48]; 4]);
    }
    let mut emulator = power_on(pcrs());
    assert!(emulator.boot(&log(&EVENTS[..6])).expect_err("one event is missing").contains("PCR 5"));
    let more = [&EVENTS[..], &[(8, 0x6, b"more".as_slice())]].concat();
    assert!(emulator.boot(&log(&more)).expect_err("one event too many").contains("PCR 8"));
    assert!(emulator.boot(b"").is_err());
    emulator.boot(&log(&EVENTS)).expect("the true log is still taken");
}

#[test]
fn nothing_is_extended_before_the_boot_and_nothing_booted_twice() {
    let mut emulator = power_on(pcrs());
    assert!(!emulator.extend(3, &[1; 48]), "extended before the boot");
    emulator.boot(&log(&EVENTS)).expect("boots");
    assert!(emulator.extend(3, &[1; 48]));
    assert!(emulator.boot(&log(&EVENTS)).is_err(), "booted twice");
    let mut process = Emulator::launch(&SimulatedRoot::create(NOW), b"binary", &["cocoon-guest"]);
    assert!(process.boot(&log(&EVENTS)).is_err(), "a process does not boot");
}

#[test]
fn an_unreadable_tpm_is_named() {
    let unreadable = Box::new(|| Err("no answer".to_owned()));
    let mut emulator = Emulator::power_on(&SimulatedRoot::create(NOW), MRTD, unreadable);
    let error = emulator.boot(&log(&EVENTS)).expect_err("no PCRs");
    assert!(error.contains("TPM cannot be read: no answer"), "{error}");
}
