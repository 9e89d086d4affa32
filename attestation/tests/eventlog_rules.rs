//! Made logs: one good row, and rows that each change one thing.

#[path = "common/log.rs"]
mod log;

use cocoon_attestation::EventLog;
use cocoon_attestation::eventlog::{
    Bank, Explained, MAX_ALGORITHMS, MAX_EVENT, MAX_EVENTS, MAX_LOG, NotExplained, Origin,
};
use log::{GLOBAL, Log, SHA_1, SHA_256, SHA_384, SHA_512, SM3, hash, tagged, utf16, variable};
use ring::digest::{Algorithm, SHA256, SHA384, digest};

const SEPARATOR: u32 = 4;
const EVENT_TAG: u32 = 6;
const CONFIG_FLAGS: u32 = 0xa;
const IPL: u32 = 0xd;
const DRIVER_CONFIG: u32 = 0x8000_0001;
const BOOT: u32 = 0x8000_0002;
const APPLICATION: u32 = 0x8000_0003;
const ACTION: u32 = 0x8000_0007;

/// A short boot, as TDX firmware with GRUB measures it.
fn boot(algorithms: &[u16]) -> Log {
    Log::new(algorithms)
        .measured(1, 0x8000_000b, b"\x09TdxTable\0\x01", b"the HOB list")
        .event(1, DRIVER_CONFIG, &variable(&GLOBAL, "SecureBoot", &[1]))
        .measured(1, BOOT, &variable(&GLOBAL, "BootOrder", &[1, 0]), &[1, 0])
        .event(1, SEPARATOR, &[0; 4])
        .event(2, ACTION, b"Calling EFI Application from Boot Option")
        .measured(2, APPLICATION, b"somewhere", b"a PE image")
        .measured(3, IPL, b"grub_cmd: boot\0", b"boot")
        .no_action(1, b"a note")
}

fn refusal(log: &Log) -> String {
    EventLog::parse(&log.bytes()).expect_err("must be refused").to_string()
}

#[test]
fn an_honest_log_parses_in_every_bank() {
    for algorithms in [&[SHA_384][..], &[SHA_256], &[SHA_512], &[SHA_1, SHA_256, SHA_384, SHA_512, SM3]] {
        let bytes = boot(algorithms).bytes();
        let log = EventLog::parse(&bytes).expect("honest");
        let origins: Vec<Origin> = log.events().iter().map(|event| event.origin()).collect();
        use Origin::{External, Recomputed, Unmeasured, ValueRecomputed};
        let expected =
            [External, Recomputed, ValueRecomputed, Recomputed, Recomputed, External, Recomputed, Unmeasured];
        assert_eq!(origins, expected);
        assert_eq!(log.used() + 64, bytes.len());
    }
}

#[test]
fn each_changed_field_is_refused_and_named() {
    type Change = fn(&mut Log);
    let table: [(&str, Change); 26] = [
        ("header register", |log| log.register = 2),
        ("header type", |log| log.kind = 4),
        ("header digest", |log| log.digest[19] = 1),
        ("header signature", |log| log.signature[14] = b'2'),
        ("specification version", |log| log.version = [2, 1]),
        ("UINTN size", |log| log.width = 4),
        ("algorithm count", |log| log.algorithms.clear()),
        ("algorithm count", |log| {
            log.algorithms = (0..=MAX_ALGORITHMS as u16).map(|id| (0x100 + id, 8)).collect()
        }),
        ("digest size", |log| log.algorithms[0].1 = 32),
        ("digest size", |log| log.algorithms.push((SM3, 0))),
        ("digest size", |log| log.algorithms.push((SM3, 65))),
        ("listed twice", |log| log.algorithms.push((SHA_384, 48))),
        ("left over", |log| log.extra.push(0)),
        ("register", |log| log.events[3].register = 24),
        ("register", |log| log.events[3].register = u32::MAX),
        ("digest count", |log| log.events[3].digests.clear()),
        ("digest count", |log| log.algorithms.push((SHA_256, 32))),
        ("not in the header", |log| log.events[3].digests[0].0 = SHA_512),
        ("EV_SEPARATOR", |log| log.events[3].data[0] = 1),
        ("EV_EFI_ACTION", |log| log.events[4].data.push(b'!')),
        ("EV_EFI_VARIABLE_DRIVER_CONFIG", |log| log.events[1].data = variable(&GLOBAL, "SecureBoot", &[0])),
        ("EV_EFI_VARIABLE_DRIVER_CONFIG", |log| log.events[1].digests[0].1 = hash(SHA_384, &[1])),
        ("EV_EFI_VARIABLE_BOOT", |log| log.events[2].data = variable(&GLOBAL, "BootOrder", &[2, 0])),
        ("EV_IPL", |log| log.events[6].data = b"grub_cmd: exit\0".to_vec()),
        ("must be zero", |log| log.events[7].digests[0].1[47] = 1),
        ("padding", |log| log.padding[63] = 0),
    ];
    EventLog::parse(&boot(&[SHA_384]).bytes()).expect("unchanged, it is honest");
    for (row, (named, change)) in table.into_iter().enumerate() {
        let mut log = boot(&[SHA_384]);
        change(&mut log);
        let error = refusal(&log);
        assert!(error.contains(named) && error.contains("at byte "), "row {row}, {named}: {error}");
    }
}

#[test]
fn grubs_string_hashed_with_its_prefix_is_refused() {
    let whole = b"kernel_cmdline: quiet\0";
    assert!(refusal(&Log::new(&[SHA_384]).event(3, IPL, whole)).contains("GRUB"));
}

#[test]
fn banks_that_disagree_about_what_was_hashed_are_refused() {
    let mut log = Log::new(&[SHA_256, SHA_384]).event(1, CONFIG_FLAGS, b"flags");
    EventLog::parse(&log.bytes()).expect("both over the data");
    log.events[0].digests[0].1[0] ^= 1;
    assert!(refusal(&log).contains("disagree") || refusal(&log).contains("something else"));
    let mut twice = Log::new(&[SHA_256, SHA_384]).event(1, CONFIG_FLAGS, b"flags");
    twice.events[0].digests[0] = twice.events[0].digests[1].clone();
    assert!(refusal(&twice).contains("twice"));
}

#[test]
fn a_log_with_sha_1_alone_is_read_and_never_believed() {
    let bytes = Log::new(&[SHA_1]).event(1, SEPARATOR, &[0; 4]).bytes();
    let log = EventLog::parse(&bytes).expect("well formed");
    assert_eq!(log.events()[0].origin(), Origin::External);
    for bank in [Bank::Sha1, Bank::Sha256, Bank::Sha384] {
        log.replay_pcrs(bank).expect_err("nothing to replay that holds");
    }
}

#[test]
fn every_way_to_hash_a_text_is_found() {
    let section = utf16(".linux\0");
    let command_line = utf16("quiet splash\0");
    let agent = tagged(0x4141_454c, b"domain operation content");
    type Row = (&'static str, Vec<u8>, Vec<u8>, u32, Origin);
    let table: [Row; 7] = [
        ("GRUB", b"module_cmdline: x".to_vec(), b"x".to_vec(), IPL, Origin::Recomputed),
        ("name of a section", section.clone(), b".linux\0".to_vec(), IPL, Origin::Recomputed),
        ("contents of a section", section, b"a kernel".to_vec(), IPL, Origin::External),
        ("systemd-stub's command line", command_line.clone(), command_line, IPL, Origin::Recomputed),
        ("attestation agent", agent, b"domain operation content".to_vec(), EVENT_TAG, Origin::Recomputed),
        ("Linux", tagged(0x8f3b_22ec, b"Linux initrd\0"), b"cpio".to_vec(), EVENT_TAG, Origin::External),
        ("unknown type", b"data".to_vec(), b"data".to_vec(), 0x1234_5678, Origin::Recomputed),
    ];
    for (what, data, hashed, kind, origin) in table {
        let bytes = Log::new(&[SHA_384]).measured(3, kind, &data, &hashed).bytes();
        let log = EventLog::parse(&bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!(log.events()[0].origin(), origin, "{what}");
    }
}

#[test]
fn limits_hold_before_memory_is_taken() {
    let mut huge = boot(&[SHA_384]);
    huge.padding = vec![0xff; MAX_LOG];
    assert!(refusal(&huge).contains("at most"));
    let mut many = Log::new(&[SHA_1]);
    for _ in 0..=MAX_EVENTS {
        many = many.event(1, CONFIG_FLAGS, b"x");
    }
    assert!(refusal(&many).contains("more than"));
    many.events.pop();
    EventLog::parse(&many.bytes()).expect("as many as there may be");
    let large = Log::new(&[SHA_1]).event(1, CONFIG_FLAGS, &vec![0; MAX_EVENT + 1]);
    assert!(refusal(&large).contains("event size"));
    let mut lying = boot(&[SHA_384]).bytes();
    lying[0x41 + 4 + 4 + 4 + 2 + 48..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(EventLog::parse(&lying).is_err());
    let mut cut = boot(&[SHA_384]);
    cut.padding.clear();
    let (bytes, mut whole) = (cut.bytes(), 0);
    for length in 0..bytes.len() {
        // A log cut between two events is a shorter log: only the quote's registers can tell.
        whole += usize::from(EventLog::parse(&bytes[..length]).is_ok());
    }
    assert_eq!(whole, cut.events.len(), "cut within an event it is refused");
}

/// register ‖ digest, hashed.
fn extended(algorithm: &'static Algorithm, register: &[u8], measured: &[u8]) -> Vec<u8> {
    let inner = digest(algorithm, measured);
    digest(algorithm, &[register, inner.as_ref()].concat()).as_ref().to_vec()
}

#[test]
fn replay_follows_the_order_and_leaves_out_what_is_not_extended() {
    let bytes = boot(&[SHA_384]).bytes();
    let [r0, r1, r2, r3] = EventLog::parse(&bytes).expect("honest").replay_rtmrs().expect("SHA-384");
    assert_eq!([r0.events, r1.events], [vec![1, 2, 3, 4], vec![5, 6]]);
    assert_eq!(r2.value, extended(&SHA384, &[0; 48], b"boot"));
    assert_eq!((r3.value, r3.events), (vec![0; 48], vec![]));
    let action = extended(&SHA384, &[0; 48], b"Calling EFI Application from Boot Option");
    assert_eq!(r1.value, extended(&SHA384, &action, b"a PE image"));
}

#[test]
fn a_td_cannot_extend_mrtd_nor_a_fifth_register() {
    for register in [0, 5, 23] {
        let bytes = Log::new(&[SHA_384]).event(register, SEPARATOR, &[0; 4]).bytes();
        let error = EventLog::parse(&bytes).expect("a TPM's log may").replay_rtmrs().expect_err("a TD");
        assert!(error.to_string().contains("register"), "{error}");
    }
}

#[test]
fn pcr_0_starts_with_the_locality() {
    let said = |locality: u8| [b"StartupLocality\0".as_slice(), &[locality]].concat();
    let start = |last: u8| [vec![0; 31], vec![last]].concat();
    for (log, first) in [
        (Log::new(&[SHA_256]), 0),
        (Log::new(&[SHA_256]).no_action(0, &said(0)), 0),
        (Log::new(&[SHA_256]).no_action(0, &said(3)), 3),
        (Log::new(&[SHA_256]).no_action(0, &said(4)), 4),
    ] {
        let bytes = log.event(7, SEPARATOR, &[0; 4]).event(0, SEPARATOR, &[0; 4]).bytes();
        let pcrs = EventLog::parse(&bytes).expect("honest").replay_pcrs(Bank::Sha256).expect("SHA-256");
        assert_eq!([pcrs[0].index, pcrs[1].index], [0, 7]);
        assert_eq!(pcrs[0].value, extended(&SHA256, &start(first), &[0; 4]));
        assert_eq!(pcrs[1].value, extended(&SHA256, &start(0), &[0; 4]));
    }
    for (what, log) in [
        ("unknown", Log::new(&[SHA_256]).no_action(0, &said(1))),
        ("twice", Log::new(&[SHA_256]).no_action(0, &said(3)).no_action(0, &said(3))),
        ("another PCR", Log::new(&[SHA_256]).no_action(1, &said(3))),
        ("too late", Log::new(&[SHA_256]).event(0, SEPARATOR, &[0; 4]).no_action(0, &said(3))),
        ("a dynamic launch", Log::new(&[SHA_256]).event(17, SEPARATOR, &[0; 4])),
    ] {
        let bytes = log.bytes();
        assert!(EventLog::parse(&bytes).expect("well formed").replay_pcrs(Bank::Sha256).is_err(), "{what}");
    }
}

#[test]
fn a_difference_names_the_register_and_where_it_begins() {
    let bytes = boot(&[SHA_384]).bytes();
    let log = EventLog::parse(&bytes).expect("honest");
    let registers = log.replay_rtmrs().expect("SHA-384");
    let quoted = registers.map(|register| <[u8; 48]>::try_from(register.value).expect("48 bytes"));
    assert_eq!(log.explains(&quoted), Ok(Explained::Everything));

    let mut run_time = quoted;
    run_time[3] = [9; 48];
    assert_eq!(log.explains(&run_time), Ok(Explained::AllButRtmr3));
    let with_event = boot(&[SHA_384]).event(4, SEPARATOR, &[0; 4]).bytes();
    let with_event = EventLog::parse(&with_event).expect("honest");
    assert!(with_event.explains(&run_time).is_err(), "a log that speaks of RTMR3 must explain it");

    let mut added = boot(&[SHA_384]).measured(2, APPLICATION, b"added", b"never ran");
    let more = added.bytes();
    let Err(NotExplained::Differs(difference)) =
        EventLog::parse(&more).expect("well formed").explains(&quoted)
    else {
        panic!("an event that was never measured")
    };
    assert_eq!((difference.register, difference.events, difference.agrees_until), (1, 3, Some(6)));
    assert_eq!(difference.last.as_ref().map(|(index, _)| *index), Some(9));
    assert!(difference.to_string().contains("agree until event 6"), "{difference}");

    added.events.remove(6);
    let fewer = added.bytes();
    let fewer = EventLog::parse(&fewer).expect("well formed").explains(&quoted);
    assert!(matches!(fewer, Err(NotExplained::Differs(difference)) if difference.register == 1));
    added.events.swap(4, 5);
    assert!(EventLog::parse(&added.bytes()).expect("well formed").explains(&quoted).is_err(), "order counts");
}

#[test]
fn hostile_text_is_escaped() {
    let bytes = Log::new(&[SHA_384]).event(2, ACTION, b"ok\x1b[2J\n\xe2\x80\xae<b>").bytes();
    let log = EventLog::parse(&bytes).expect("honest");
    let text = log.events()[0].description();
    assert!(text.is_ascii() && !text.contains(['\x1b', '\n']), "{text}");
    let name = variable(&GLOBAL, "Boot\u{202e}0001", &[]);
    let bytes = Log::new(&[SHA_384]).event(1, DRIVER_CONFIG, &name).bytes();
    let log = EventLog::parse(&bytes).expect("honest");
    assert_eq!(log.events()[0].title(), r"Variable Boot\u{202e}0001");
}
