use super::*;
use crate::manifest::{Provenance, TdxRegisters};
use crate::measure::replay;

fn event(register: Register, kind: &str, digest: u8, what: &str) -> Event {
    Event {
        register,
        pcr: None,
        kind: kind.to_owned(),
        digest: HexBytes([digest; 48]),
        what: what.to_owned(),
    }
}

fn measurement() -> Measurement {
    let events = vec![
        event(Register::Mrtd, "firmware", 1, "the firmware"),
        event(Register::Rtmr0, "EV_PLATFORM_CONFIG_FLAGS", 2, "ACPI tables (etc/acpi/tables)"),
        event(Register::Rtmr1, "EV_EFI_BOOT_SERVICES_APPLICATION", 3, "the kernel"),
        event(Register::Rtmr2, "EV_EVENT_TAG", 4, "command line"),
        event(Register::Rtmr2, "EV_EVENT_TAG", 5, "initrd"),
    ];
    finished(events, 1)
}

fn finished(events: Vec<Event>, mrtd: u8) -> Measurement {
    let rtmr = [Register::Rtmr0, Register::Rtmr1, Register::Rtmr2].map(|r| HexBytes(replay(&events, r)));
    Measurement {
        profile: "emulation-1".to_owned(),
        firmware: HexBytes([9; 32]),
        qemu: "11.1".to_owned(),
        provenance: Provenance::Emulated,
        registers: Registers::Emulation(TdxRegisters { mrtd: HexBytes([mrtd; 48]), rtmr }),
        events,
    }
}

#[test]
fn what_is_equal_has_no_difference() {
    assert_eq!(measurements(&measurement(), &measurement()), []);
}

#[test]
fn a_changed_event_is_named_with_its_file() {
    for (index, register, file) in [
        (1, "RTMR0", None),
        (2, "RTMR1", Some("vmlinuz")),
        (3, "RTMR2", Some("cmdline")),
        (4, "RTMR2", Some("initrd.cpio")),
    ] {
        let mut events = measurement().events;
        events[index].digest = HexBytes([0xee; 48]);
        let list = measurements(&measurement(), &finished(events, 1));
        let subjects: Vec<&str> = list.iter().map(|difference| difference.subject.as_str()).collect();
        assert_eq!(subjects.len(), 2, "{subjects:?}");
        assert_eq!(subjects[0], register);
        assert!(subjects[1].starts_with(register) && subjects[1].contains(&measurement().events[index].what));
        assert_eq!(list[1].file, file);
        assert_eq!(list[1].found, "ee".repeat(48));
    }
}

fn manifest() -> Manifest {
    Manifest::from_json(include_bytes!("../../tests/golden/manifest.json")).expect("a real one")
}

#[test]
fn two_manifests_are_the_same_only_if_every_field_is() {
    type Change = fn(&mut Manifest);
    let changes: [(Change, &str); 8] = [
        (|m| m.name.push('x'), "manifest field name"),
        (|m| m.measurements[0].qemu = "11.2".into(), "manifest field measurements[0].qemu"),
        (|m| m.measurements[0].firmware = HexBytes([0; 32]), "manifest field measurements[0].firmware"),
        (|m| m.firmware[0].size += 1, "manifest field firmware[0].size"),
        (|m| m.programs[0].size += 1, "manifest field programs[0].size"),
        (|m| m.files.kernel.size += 1, "manifest field files.kernel.size"),
        (|m| m.measurements[0].events[0].what.push('x'), "manifest field measurements[0].events[0].what"),
        (
            |m| m.measurements[0].events[0].digest = HexBytes([0; 48]),
            "manifest field measurements[0].events[0].digest",
        ),
    ];
    assert_eq!(manifests(&manifest(), &manifest()), []);
    for (change, subject) in changes {
        let mut other = manifest();
        change(&mut other);
        for list in [manifests(&manifest(), &other), manifests(&other, &manifest())] {
            let subjects: Vec<&str> = list.iter().map(|difference| difference.subject.as_str()).collect();
            assert_eq!(subjects, [subject]);
        }
    }
}

#[test]
fn a_prediction_for_another_firmware_is_not_taken_for_the_same() {
    let mut two = manifest();
    let mut second = two.measurements[0].clone();
    second.firmware = HexBytes([0xff; 32]);
    two.measurements.insert(1, second);
    for (own, other, nothing) in [(&two, &manifest(), false), (&manifest(), &two, true)] {
        let list = manifests(own, other);
        assert_eq!((list.len(), list[0].subject.as_str()), (1, "prediction"));
        assert_eq!(list[0].expected == NOTHING, nothing);
    }
}

#[test]
fn a_step_too_many_is_told_as_another_way_of_booting() {
    let mut events = measurement().events;
    events.insert(2, event(Register::Rtmr1, "EV_EFI_BOOT_SERVICES_DRIVER", 7, "a ROM"));
    let list = measurements(&measurement(), &finished(events, 1));
    assert_eq!(list.len(), 2);
    assert_eq!(list[1].meaning, cause::ORDER.meaning);
    assert!(list[1].found.contains("a ROM"), "{}", list[1].found);
}

#[test]
fn a_quote_without_a_log_names_the_register_and_what_it_may_be() {
    let Registers::Emulation(registers) = measurement().registers else { unreachable!("it is made so") };
    let mut quoted = Measurements {
        mrtd: [8; 48],
        rtmr: [registers.rtmr[0].0, registers.rtmr[1].0, registers.rtmr[2].0, [6; 48]],
        mrconfigid: [0; 48],
        mrowner: [0; 48],
        mrownerconfig: [0; 48],
    };
    let list = quote(&measurement(), &quoted, None);
    assert_eq!(list.len(), 1);
    assert_eq!((list[0].subject.as_str(), list[0].file), ("MRTD", Some("firmware")));
    quoted.mrtd = registers.mrtd.0;
    assert_eq!(quote(&measurement(), &quoted, None), [], "RTMR3 is not the image's");
}

#[test]
fn a_log_that_is_not_the_quotes_is_the_first_difference_and_explains_nothing() {
    let own = measurement();
    let Registers::Emulation(registers) = own.registers else { unreachable!("it is made so") };
    let quoted = |mrtd| Measurements {
        mrtd,
        rtmr: [registers.rtmr[0].0, registers.rtmr[1].0, registers.rtmr[2].0, [6; 48]],
        mrconfigid: [0; 48],
        mrowner: [0; 48],
        mrownerconfig: [0; 48],
    };
    let seen = own.events.iter().filter(|event| event.register != Register::Mrtd).map(|event| Observed {
        register: event.register,
        kind: event.kind.clone(),
        digest: event.digest,
        title: event.what.clone(),
    });
    let mut log: Vec<Observed> = seen.collect();
    assert_eq!(quote(&own, &quoted(registers.mrtd.0), Some(&log)), []);
    log[1].digest = HexBytes([0xee; 48]);
    let list = quote(&own, &quoted([8; 48]), Some(&log));
    let subjects: Vec<&str> = list.iter().map(|difference| difference.subject.as_str()).collect();
    assert_eq!(subjects, ["the log is not the quote's: RTMR1", "MRTD"]);
    assert_eq!(quote(&own, &quoted(registers.mrtd.0), Some(&[])).len(), 3, "an empty log is of no boot");
}

#[test]
fn json_and_words_say_the_same() {
    let mut events = measurement().events;
    events[2].digest = HexBytes([0xee; 48]);
    let list = measurements(&measurement(), &finished(events, 1));
    let json = serde_json::to_value(&list[1]).unwrap();
    let words = list[1].to_string();
    for field in ["subject", "profile", "expected", "found", "file", "meaning", "remedy"] {
        assert!(words.contains(json[field].as_str().unwrap()), "{field}: {words}");
    }
}

/// The boot that the log is from had another initrd than nothing, and nothing else differs.
#[test]
fn a_log_is_held_against_a_prediction() {
    let bytes = include_bytes!("../../tests/golden/ovmf-2025.02-tpm.log");
    let parsed = EventLog::parse(bytes).unwrap();
    assert_eq!(LogKind::of(&parsed), LogKind::Tpm);
    let seen = observed(&parsed, LogKind::Tpm);
    let events: Vec<Event> = seen
        .iter()
        .map(|event| Event {
            register: event.register,
            pcr: None,
            kind: event.kind.clone(),
            digest: event.digest,
            what: event.title.clone(),
        })
        .collect();
    let mut expected = finished(events, 1);
    assert_eq!(log(&expected, &seen), []);
    let last = expected.events.iter_mut().rfind(|event| event.register == Register::Rtmr2).unwrap();
    (last.digest, last.what) = (HexBytes([0; 48]), "initrd".to_owned());
    let list = log(&expected, &seen);
    assert_eq!(list.len(), 1);
    assert_eq!(list[0].file, Some("initrd.cpio"));
}
