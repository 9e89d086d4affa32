//! Logs of real machines: they parse, they are told in words, and they replay to the quotes they belong to.

mod common;

use std::collections::BTreeMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

use cocoon_attestation::eventlog::{Event, EventType, Explained, NotExplained, Origin};
use cocoon_attestation::tdx::{Quote, Report};
use cocoon_attestation::{Bundle, EventLog};
use common::mutate::{Random, mutate};
use common::vectors::Vectors;

const COS113: &str = "eventlog/ccel_gcp_cos113.dat";

fn cos113_registers(vectors: &Vectors) -> [[u8; 48]; 4] {
    let bytes = vectors.read("tdx/v4_gcp_cos113_00806f05.bin");
    match Quote::parse(&bytes).expect("a real quote").report {
        Report::Td(body) => body.rtmr,
        Report::Enclave(_) => panic!("a TD's quote"),
    }
}

#[test]
fn every_real_log_parses_and_each_event_has_the_origin_it_must_have() {
    let Some(vectors) = Vectors::find() else { return };
    // Bytes used, then events by origin: recomputed, value recomputed, external, unmeasured.
    let table: [(&str, usize, [usize; 4]); 4] = [
        (COS113, 0x46b5, [28, 3, 12, 0]),
        ("eventlog/CCEL_data_gcp", 0x4f7d, [11, 3, 7, 0]),
        ("eventlog/ccel_lunal_live2.dat", 0x848, [10, 2, 8, 0]),
        ("eventlog/dstack_ccel.bin", 0x78d, [10, 2, 6, 0]),
    ];
    for (name, used, origins) in table {
        let bytes = vectors.read(name);
        let log = EventLog::parse(&bytes).unwrap_or_else(|error| panic!("{name}: {error}"));
        let count = |origin| log.events().iter().filter(|event| event.origin() == origin).count();
        let got =
            [Origin::Recomputed, Origin::ValueRecomputed, Origin::External, Origin::Unmeasured].map(count);
        assert_eq!((log.used(), got), (used, origins), "{name}");
        assert_eq!(log.events().len(), origins.iter().sum::<usize>(), "{name}");
        let unpadded = EventLog::parse(&bytes[..used]).expect("padding may be left out");
        assert_eq!(unpadded.events(), log.events(), "{name}");
    }
}

#[test]
fn the_events_of_a_real_boot_are_told_in_words() {
    let Some(vectors) = Vectors::find() else { return };
    let bytes = vectors.read(COS113);
    let log = EventLog::parse(&bytes).expect("a real log");
    for event in log.events() {
        println!("{:2} {} | {} | {}", event.index(), event.register(), event.title(), event.description());
    }
    let told: BTreeMap<usize, (String, String)> =
        log.events().iter().map(|event| (event.index(), (event.title(), event.description()))).collect();
    for (index, title, within) in [
        (1, "TD HOB list", "host"),
        (2, "Firmware volume", "131072 bytes at 0xffe00000"),
        (3, "Secure Boot is off", ""),
        (4, "Platform key (PK)", "1 certificates or hashes"),
        (7, "Barred programs (dbx)", "4 certificates or hashes, 4461 bytes"),
        (8, "Separator", ""),
        (9, "ACPI tables from the host", ""),
        (12, "Boot order", "Boot0001, Boot0000"),
        (13, "Boot variable Boot0001", "\"UEFI nvme_card-pd\" at NVMe"),
        (15, "Firmware action", "Calling EFI Application from Boot Option"),
        (17, "Partition table", "12 partitions: STATE"),
        (18, "Program started by the firmware", r"partition 12 \EFI\BOOT\BOOTX64.EFI"),
        (20, "shim: MokListX", ""),
        (21, "shim: revocation level (SBAT)", r"sbat,1,2021030218\n"),
        (25, "File read by the boot loader", "/efi/boot/grub.cfg"),
        (31, "GRUB command", "set default=2"),
        (41, "Kernel command line", "/syslinux/vmlinuz.A init=/usr/lib/systemd/systemd"),
        (43, "Firmware action", "Exit Boot Services Returned with Success"),
    ] {
        let (got, description) = &told[&index];
        assert_eq!(got, title, "event {index}");
        assert!(description.contains(within), "event {index}: {description}");
    }
    let direct = vectors.read("eventlog/ccel_lunal_live2.dat");
    let direct = EventLog::parse(&direct).expect("a real log");
    let told = |index: usize| (direct.events()[index - 1].title(), direct.events()[index - 1].description());
    assert_eq!(told(3).0, "Secure Boot is off");
    assert_eq!(told(4).1, "empty");
    assert_eq!(told(12).1, "from QEMU's command line: kernel");
    assert_eq!(told(17).0, "Kernel command line, by digest");
    assert_eq!(told(18).0, "Initial RAM disk");
}

#[test]
fn a_log_explains_the_quote_of_its_own_boot_and_no_other() {
    let Some(vectors) = Vectors::find() else { return };
    let quoted = cos113_registers(&vectors);
    let bytes = vectors.read(COS113);
    let log = EventLog::parse(&bytes).expect("a real log");
    assert_eq!(log.explains(&quoted), Ok(Explained::Everything));
    for other in ["eventlog/CCEL_data_gcp", "eventlog/ccel_lunal_live2.dat", "eventlog/dstack_ccel.bin"] {
        let bytes = vectors.read(other);
        let other = EventLog::parse(&bytes).expect("a real log").explains(&quoted);
        let Err(NotExplained::Differs(difference)) = other else {
            panic!("another machine's log: {other:?}")
        };
        assert_eq!((difference.register, difference.quoted), (0, quoted[0]), "{difference}");
    }
    for register in 0..4 {
        let mut changed = quoted;
        changed[register][47] ^= 1;
        match log.explains(&changed) {
            Err(NotExplained::Differs(difference)) => assert_eq!(difference.register, register),
            Ok(Explained::AllButRtmr3) => assert_eq!(register, 3, "only run time may go unexplained"),
            other => panic!("RTMR{register}: {other:?}"),
        }
    }
}

/// Why a changed byte may go unnoticed: what registers do not hold, a log cannot prove.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Meaningless {
    /// Platform class, errata number, UINTN size and register of the header: not extended, not shown.
    Header,
    /// The type of an event is never hashed. It may change where the new type says nothing of the digest, or the same.
    Type,
    /// Text beside a digest that is over something outside the log: shown as claimed.
    External,
    /// GUID and name of a boot variable, of which firmware hashes the value alone: shown as claimed.
    VariableName,
    /// What GRUB writes before a string it hashed: a changed prefix makes the event one of those shown as claimed.
    GrubPrefix,
}

/// Where each of these lies in the log.
fn meaningless(log: &EventLog<'_>) -> Vec<(Range<usize>, Meaningless)> {
    // Register; platform class; errata and UINTN size.
    let mut places: Vec<_> = [0..4, 48..52, 54..56].map(|range| (range, Meaningless::Header)).into();
    for event in log.events() {
        let at = event.offset();
        let data = at + 4 + 4 + 4 + 2 + 48 + 4;
        places.push((at + 4..at + 8, Meaningless::Type));
        match event.origin() {
            Origin::External => places.push((data..data + event.data().len(), Meaningless::External)),
            Origin::ValueRecomputed => {
                let name = event.data()[16] as usize * 2;
                // The lengths between GUID and name decide what is hashed: they must hold.
                places.push((data..data + 16, Meaningless::VariableName));
                places.push((data + 32..data + 32 + name, Meaningless::VariableName));
            }
            Origin::Recomputed => {
                let prefix = event.data().windows(2).position(|pair| pair == b": ").map_or(0, |at| at + 2);
                if event.kind() == EventType::IPL {
                    places.push((data..data + prefix, Meaningless::GrubPrefix));
                }
            }
            Origin::Unmeasured => {}
        }
    }
    places
}

/// Nothing is shown as recomputed that was not in the log before.
fn shows_nothing_new(before: &EventLog<'_>, after: &EventLog<'_>) -> bool {
    let same = |(old, new): (&Event<'_>, &Event<'_>)| {
        new.origin() != Origin::Recomputed
            || (old.title(), old.description()) == (new.title(), new.description())
    };
    before.events().len() == after.events().len() && before.events().iter().zip(after.events()).all(same)
}

#[test]
fn every_changed_byte_of_a_real_log_is_noticed_or_means_nothing() {
    let Some(vectors) = Vectors::find() else { return };
    let (quoted, bytes) = (cos113_registers(&vectors), vectors.read(COS113));
    let log = EventLog::parse(&bytes).expect("a real log");
    let (used, places) = (log.used(), meaningless(&log));
    let mut counts: BTreeMap<Meaningless, usize> = BTreeMap::new();
    for at in 0..used {
        let mut unnoticed = false;
        for mask in [0x01, 0x80, 1 << (at % 8)] {
            let mut changed = bytes[..used].to_vec();
            changed[at] ^= mask;
            let explained = catch_unwind(AssertUnwindSafe(|| {
                EventLog::parse(&changed).ok().filter(|log| log.explains(&quoted).is_ok())
            }));
            let explained = explained.unwrap_or_else(|_| panic!("byte {at} ^ {mask:#x} panicked"));
            let Some(after) = explained else { continue };
            unnoticed = true;
            let in_type = places.iter().any(|(range, why)| *why == Meaningless::Type && range.contains(&at));
            assert!(in_type || shows_nothing_new(&log, &after), "byte {at} ^ {mask:#x} shows a new text");
        }
        if unnoticed {
            let place = places.iter().find(|(range, _)| range.contains(&at));
            let (_, why) = place.unwrap_or_else(|| panic!("byte {at} changed, and nothing said so"));
            *counts.entry(*why).or_default() += 1;
        }
    }
    println!("{used} bytes, unnoticed: {counts:?}");
    assert!(counts[&Meaningless::Header] <= 10 && counts[&Meaningless::Type] <= 4 * log.events().len());
    assert!(counts.values().sum::<usize>() < used / 10, "{counts:?}");
}

#[test]
fn changed_padding_is_refused() {
    let Some(vectors) = Vectors::find() else { return };
    let bytes = vectors.read(COS113);
    let used = EventLog::parse(&bytes).expect("a real log").used();
    for at in [used, used + 1, used + 7, used + 8, used + 4096, bytes.len() - 1] {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(EventLog::parse(&changed).is_err(), "byte {at}");
    }
    let mut zeros = bytes.clone();
    zeros[used..].fill(0);
    assert!(EventLog::parse(&zeros).is_ok(), "some firmware fills with zeros");
}

#[test]
fn a_claimed_type_never_makes_unmeasured_text_look_recomputed() {
    let Some(vectors) = Vectors::find() else { return };
    let bytes = vectors.read(COS113);
    let log = EventLog::parse(&bytes).expect("a real log");
    let kinds = [EventType::SEPARATOR, EventType::EFI_ACTION, EventType::EFI_VARIABLE_DRIVER_CONFIG];
    for event in log.events().iter().filter(|event| event.origin() == Origin::External) {
        for kind in kinds {
            let mut changed = bytes.clone();
            changed[event.offset() + 4..event.offset() + 8].copy_from_slice(&kind.code().to_le_bytes());
            let error = EventLog::parse(&changed).expect_err("its digest is over something else").to_string();
            assert!(error.contains(kind.name()) && error.contains(&event.offset().to_string()), "{error}");
        }
    }
}

#[test]
fn damaged_logs_are_refused_or_read_without_a_panic() {
    let Some(vectors) = Vectors::find() else { return };
    let rounds: usize =
        std::env::var("COCOON_FUZZ_ITERATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(3_000);
    let mut random = Random(0x5eed_0001);
    let mut seeds = Vec::new();
    for name in [COS113, "eventlog/ccel_lunal_live2.dat", "eventlog/dstack_ccel.bin"] {
        let bytes = vectors.read(name);
        let used = EventLog::parse(&bytes).expect("a real log").used();
        seeds.push(bytes[..used + 64].to_vec());
    }
    let started = std::time::Instant::now();
    for round in 0..rounds {
        let changed = mutate(&seeds[round % seeds.len()], &mut random);
        if let Ok(log) = EventLog::parse(&changed) {
            let _ = (log.replay_rtmrs(), log.explains(&[[0; 48]; 4]));
            let shown = log.events().iter().flat_map(|event| [event.title(), event.description()]);
            assert!(shown.map(|text| text.len()).sum::<usize>() < 16 * changed.len() + 64 * 1024);
        }
    }
    let each = started.elapsed() / u32::try_from(rounds).expect("not so many");
    assert!(each.as_millis() < 50, "{each:?} each");
}

#[test]
fn a_bundle_with_another_boots_log_is_refused_by_the_check_of_its_name() {
    let platform = common::Platform::new();
    let log = common_log();
    let replayed = EventLog::parse(&log).expect("honest").replay_rtmrs().expect("SHA-384");
    let rtmr = replayed.map(|register| register.value.try_into().expect("48 bytes"));
    let with_log = |rtmr: [[u8; 48]; 4]| Bundle {
        event_log: Some(log.clone()),
        ..platform.bundle_of_td(|td| td.registers.rtmr = rtmr)
    };
    let genuine = platform.verify(&with_log(rtmr)).expect("the log explains the registers");
    let check = genuine.checks().iter().find(|check| check.id == "tdx.eventlog").expect("made");
    assert_eq!(check.status, cocoon_attestation::Status::Pass);
    for register in 0..3 {
        let mut other = rtmr;
        other[register][0] ^= 1;
        let refusal = platform.verify(&with_log(other)).expect_err("another boot");
        assert_eq!(refusal.failed().collect::<Vec<_>>(), ["tdx.eventlog"]);
        assert!(refusal.got.starts_with(&format!("RTMR{register}")), "{refusal}");
    }
    let damaged = Bundle { event_log: Some(log[..90].to_vec()), ..with_log(rtmr) };
    let refusal = platform.verify(&damaged).expect_err("cut");
    assert_eq!((refusal.check, refusal.kind.exit_code()), ("tdx.eventlog", 5));
    assert!(refusal.got.contains("at byte "), "{refusal}");
}

#[path = "common/log.rs"]
mod log;

fn common_log() -> Vec<u8> {
    log::Log::new(&[log::SHA_384])
        .event(1, 4, &[0; 4])
        .event(2, 0x8000_0007, b"Calling EFI Application from Boot Option")
        .measured(3, 0xd, b"kernel_cmdline: quiet\0", b"quiet")
        .bytes()
}
