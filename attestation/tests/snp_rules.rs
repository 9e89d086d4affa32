//! Every rule about an SEV-SNP guest has a good row and bad rows, each changing exactly one thing of a look-alike of AMD's
//! hardware that really signs.

mod kit;

use cocoon_attestation::snp::{KeyKind, Product};
use cocoon_attestation::{
    Evidence, Exceptions, Genuine, InvalidRoot, Refusal, RefusalKind, TrustAnchors, UnixTime, verify,
};
use kit::amd::{CrlDraft, Guest, NOW, TCB, chip_id, tcb};
use kit::der;

use KeyKind::{Vcek, Vlek};
use Product::{Genoa, Milan, Turin};
use RefusalKind::{Malformed, Rejected, Signature, Unavailable};

fn check(guest: &Guest, allow: &[&str]) -> Result<Genuine, Refusal> {
    let (report, endorsements, anchors) = guest.issue();
    let exceptions = Exceptions::parse(allow.iter().copied()).expect("known names");
    let evidence = Evidence::detect(&report).expect("1184 bytes");
    let result = verify(&evidence, &endorsements, &anchors, &exceptions, UnixTime(NOW));
    if let Err(refusal) = &result {
        assert_eq!(refusal.platform, "snp");
        assert!(!refusal.expected.is_empty() && !refusal.likely.is_empty() && !refusal.remedy.is_empty());
    }
    result
}

#[test]
fn healthy_guests_of_every_product_key_and_version_are_genuine() {
    for product in Product::ALL {
        for kind in [Vcek, Vlek] {
            for version in [2, 3, 5] {
                if (product, kind, version) == (Turin, Vlek, 2) {
                    continue; // neither processor nor chip is named there, so nothing says how to read its TCB
                }
                let guest = Guest::new(product, kind, version);
                let allow: &[&str] = if product == Milan { &["snp:milan"] } else { &[] };
                let what = format!("{} {} version {version}", product.name(), kind.name());
                let genuine = check(&guest, allow).unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
                assert!(genuine.simulated(), "{what}");
                let ids: Vec<String> = genuine.platform().ids.iter().map(ToString::to_string).collect();
                let chip = format!("chip:{}", hex::encode(chip_id(product)));
                assert_eq!(ids, if kind == Vcek { vec![chip] } else { vec![] }, "{what}");
                assert_eq!(genuine.platform().good_until, UnixTime(guest.vek.to), "{what}");
            }
        }
    }
}

/// Changes one thing of a guest.
type Change = fn(&mut Guest);
/// What is changed, how, what it is refused by, and who is to blame for the first of these.
type Row = (&'static str, Change, &'static [&'static str], RefusalKind);

/// On a Genoa with a VCEK, report version 5.
const ROWS: &[Row] = &[
    // The form of the report.
    ("version 4", |g| g.put(0, &[4]), &["snp.format"], Malformed),
    ("version 2 that names a processor", |g| g.put(0, &[2]), &["snp.format"], Malformed),
    ("version 3 with mitigation vectors", |g| g.put(0, &[3]), &["snp.format"], Malformed),
    ("a reserved byte", |g| g.put(0x29f, &[1]), &["snp.format"], Malformed),
    ("a reserved byte of a TCB", |g| g.put(0x1f2, &[1]), &["snp.format"], Malformed),
    ("a reserved bit beside SIGNING_KEY", |g| g.put(0x48, &[0x20]), &["snp.format"], Malformed),
    ("R longer than a P-384 number", |g| g.after_signing = |r| r[0x2d0] = 1, &["snp.format"], Malformed),
    ("S longer than a P-384 number", |g| g.after_signing = |r| r[0x318] = 1, &["snp.format"], Malformed),
    ("the last byte", |g| g.after_signing = |r| r[1183] = 1, &["snp.format"], Malformed),
    // The certificate of the key that signs.
    ("no certificate", |g| g.leave_out_vek = true, &["snp.vek"], Unavailable),
    ("no product name", |g| g.extensions.remove(&[2]), &["snp.vek"], Malformed),
    ("a product that is not known", |g| g.extensions.set(&[2], der::ia5("Venice")), &["snp.vek"], Malformed),
    ("no microcode", |g| g.extensions.remove(&[3, 8]), &["snp.vek"], Malformed),
    ("a level above 255", |g| g.extensions.set(&[3, 8], der::integer(256)), &["snp.vek"], Malformed),
    (
        "bytes behind a level",
        |g| g.extensions.set(&[3, 8], [der::integer(84), vec![5, 0]].concat()),
        &["snp.vek"],
        Malformed,
    ),
    ("a structure that is not known", |g| g.extensions.set(&[1], der::integer(2)), &["snp.vek"], Malformed),
    ("a short hardware id", |g| g.extensions.set(&[4], vec![1; 8]), &["snp.vek"], Malformed),
    ("hardware id and cloud", |g| g.extensions.set(&[5], der::ia5("CN=cloud")), &["snp.vek"], Malformed),
    ("neither of them", |g| g.extensions.remove(&[4]), &["snp.vek"], Malformed),
    // The signature.
    ("SIGNATURE_ALGO 2", |g| g.put(0x34, &[2]), &["snp.signature"], Signature),
    ("another key's signature", |g| g.forged_report = true, &["snp.signature"], Signature),
    ("a byte changed after signing", |g| g.after_signing = |r| r[0x90] ^= 1, &["snp.signature"], Signature),
    // Root and chain.
    ("a root that was not named", |g| g.unnamed = true, &["snp.root"], Signature),
    ("no intermediate", |g| g.leave_out_ask = true, &["snp.root"], Signature),
    ("a forged intermediate", |g| g.forged_ask = true, &["snp.chain"], Signature),
    ("a forged certificate", |g| g.forged_vek = true, &["snp.chain"], Signature),
    ("an intermediate that is no authority", |g| g.ask.extensions.clear(), &["snp.chain"], Signature),
    (
        "a critical extension nobody knows",
        |g| g.vek.extensions.push(der::extension(&[0x2a, 3], true, &[5, 0])),
        &["snp.chain"],
        Signature,
    ),
    // Dates.
    ("a certificate out of date", |g| g.vek.to = NOW - 1, &["snp.validity"], Unavailable),
    ("a certificate of tomorrow", |g| g.vek.from = NOW + 1, &["snp.validity"], Unavailable),
    ("an intermediate out of date", |g| g.ask.to = NOW - 1, &["snp.validity"], Unavailable),
    ("a root out of date", |g| g.ark.to = NOW - 1, &["snp.validity"], Unavailable),
    // Revocation.
    (
        "the intermediate revoked",
        |g| g.crls = vec![CrlDraft { revoked: vec![9, 7], ..g.crl() }],
        &["snp.crl"],
        Rejected,
    ),
    ("a forged list", |g| g.crls = vec![CrlDraft { forged: true, ..g.crl() }], &["snp.crl"], Signature),
    ("a list out of date", |g| g.crls = vec![CrlDraft { to: NOW - 1, ..g.crl() }], &["snp.crl"], Unavailable),
    (
        "a list of tomorrow",
        |g| g.crls = vec![CrlDraft { from: NOW + 1, ..g.crl() }],
        &["snp.crl"],
        Unavailable,
    ),
    (
        "revoked in an old list beside a new one",
        |g| g.crls = vec![g.crl(), CrlDraft { to: NOW - 1, revoked: vec![7], ..g.crl() }],
        &["snp.crl"],
        Rejected,
    ),
    (
        "the certificate revoked by the intermediate",
        |g| {
            g.crls =
                vec![CrlDraft { issuer: g.ask.subject.clone(), by_ask: true, revoked: vec![0], ..g.crl() }]
        },
        &["snp.crl"],
        Rejected,
    ),
    // The key.
    ("SIGNING_KEY VLEK", |g| g.put(0x48, &[1 << 2]), &["snp.signing_key"], Rejected),
    ("SIGNING_KEY none", |g| g.put(0x48, &[7 << 2]), &["snp.signing_key"], Rejected),
    ("MASK_CHIP_KEY", |g| g.put(0x48, &[2]), &["snp.signing_key"], Rejected),
    ("a VCEK by the signer of VLEKs", |g| issued_by(g, "SEV-VLEK-Genoa"), &["snp.signing_key"], Rejected),
    // The product.
    ("a Milan's processor", |g| g.put(0x188, &[0x19, 0x01]), &["snp.product", "snp.milan"], Rejected),
    ("a processor that is not known", |g| g.put(0x188, &[0x19, 0x61]), &["snp.product"], Rejected),
    (
        "a Milan's certificate",
        |g| g.extensions.set(&[2], der::ia5("Milan-B0")),
        &["snp.product", "snp.milan"],
        Rejected,
    ),
    ("a Milan's intermediate", |g| issued_by(g, "SEV-Milan"), &["snp.product"], Rejected),
    (
        "an intermediate without a product",
        |g| issued_by(g, "SEV"),
        &["snp.signing_key", "snp.product"],
        Rejected,
    ),
    // The chip.
    ("another chip", |g| g.put(0x1a0, &[0]), &["snp.chip"], Rejected),
    ("a chip that differs in its last byte", |g| g.put(0x1df, &[0]), &["snp.chip"], Rejected),
    ("a masked chip", |g| g.put(0x1a0, &[0; 64]), &["snp.chip"], Rejected),
    // The TCB.
    (
        "certificate: another boot loader",
        |g| g.extensions.set(&[3, 1], der::integer(9)),
        &["snp.tcb"],
        Rejected,
    ),
    ("certificate: another TEE", |g| g.extensions.set(&[3, 2], der::integer(1)), &["snp.tcb"], Rejected),
    ("certificate: another SNP", |g| g.extensions.set(&[3, 3], der::integer(24)), &["snp.tcb"], Rejected),
    (
        "certificate: another microcode",
        |g| g.extensions.set(&[3, 8], der::integer(85)),
        &["snp.tcb"],
        Rejected,
    ),
    ("CURRENT below REPORTED", |g| g.put(0x38, &tcb(Genoa, [1, 10, 0, 22, 84])), &["snp.tcb"], Rejected),
    ("COMMITTED above CURRENT", |g| g.put(0x1e0, &tcb(Genoa, [1, 10, 0, 23, 85])), &["snp.tcb"], Rejected),
    ("committed build above the current", |g| g.put(0x1ec, &[41]), &["snp.tcb"], Rejected),
    ("committed version above the current", |g| g.put(0x1ec, &[0, 56]), &["snp.tcb"], Rejected),
    // The guest's policy.
    ("DEBUG", |g| g.put(10, &[0x0b]), &["snp.debug"], Rejected),
    ("bit 17 clear", |g| g.put(10, &[0x01]), &["snp.policy"], Rejected),
    ("MIGRATE_MA", |g| g.put(10, &[0x07]), &["snp.policy"], Rejected),
    ("CXL_ALLOW", |g| g.put(10, &[0x23]), &["snp.policy"], Rejected),
    ("a reserved bit of the policy", |g| g.put(11, &[0x04]), &["snp.policy"], Rejected),
    ("the last bit of the policy", |g| g.put(15, &[0x80]), &["snp.policy"], Rejected),
    // The platform.
    ("no alias check", |g| g.put(0x40, &[0x05]), &["snp.platform_info"], Rejected),
    ("a reserved bit of the platform", |g| g.put(0x41, &[1]), &["snp.platform_info"], Rejected),
    // Who asked.
    ("VMPL 1", |g| g.put(0x30, &[1]), &["snp.vmpl"], Rejected),
    ("VMPL 3", |g| g.put(0x30, &[3]), &["snp.vmpl"], Rejected),
    ("VMPL 4", |g| g.put(0x30, &[4]), &["snp.vmpl"], Rejected),
    ("the host", |g| g.put(0x30, &[0xff; 4]), &["snp.vmpl"], Rejected),
];

/// The certificate is signed by an intermediate of this name.
fn issued_by(guest: &mut Guest, name: &str) {
    guest.ask.subject = name.into();
    guest.vek.issuer = name.into();
}

#[test]
fn every_rule_refuses_what_breaks_it_and_nothing_else_does() {
    for (what, change, checks, kind) in ROWS {
        let mut guest = Guest::new(Genoa, Vcek, 5);
        change(&mut guest);
        let refusal = check(&guest, &[]).expect_err(what);
        assert_eq!(refusal.failed().collect::<Vec<_>>(), *checks, "{what}: {refusal}");
        assert_eq!((refusal.check, refusal.kind), (checks[0], *kind), "{what}: {refusal}");
    }
}

/// What is changed without being wrong.
const GOOD: &[(&str, Change)] = &[
    ("a list in date", |g| g.crls = vec![g.crl()]),
    ("an old list beside a new one", |g| g.crls = vec![CrlDraft { to: NOW - 1, ..g.crl() }, g.crl()]),
    ("a list that names somebody else", |g| g.crls = vec![CrlDraft { revoked: vec![8], ..g.crl() }]),
    ("another product's list, out of date", |g| {
        g.crls = vec![CrlDraft { issuer: "ARK-Turin".into(), to: 1, ..g.crl() }]
    }),
    ("a hardware id that is wrapped", |g| g.extensions.set(&[4], der::octets(&chip_id(Genoa)))),
    ("a stepping in the product's name", |g| g.extensions.set(&[2], der::ia5("Genoa-B1"))),
    ("Bergamo", |g| g.put(0x188, &[0x19, 0xa0])),
    ("CURRENT above all others", |g| g.put(0x38, &tcb(Genoa, [0, 11, 1, 24, 85]))),
    ("LAUNCH above all others", |g| g.put(0x1f0, &tcb(Genoa, [0, 255, 255, 255, 255]))),
    ("an author's key", |g| g.put(0x48, &[1])),
    ("single socket, XTS, RAPL off, ciphertext hidden, no swap", |g| g.put(10, &[0xd3, 0x03])),
    ("TIO and the reserved bit that Turins set", |g| g.put(0x40, &[0xe5])),
    ("no SMT", |g| g.put(0x40, &[0x24])),
];

#[test]
fn what_is_not_wrong_is_genuine() {
    for (what, change) in GOOD {
        let mut guest = Guest::new(Genoa, Vcek, 5);
        change(&mut guest);
        check(&guest, &[]).unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
    }
}

#[test]
fn turin_and_vleks_have_rules_of_their_own() {
    let rows: [(&str, Product, KeyKind, Change, &[&str]); 7] = [
        ("another FMC", Turin, Vcek, |g| g.extensions.set(&[3, 9], der::integer(2)), &["snp.tcb"]),
        ("no FMC", Turin, Vcek, |g| g.extensions.remove(&[3, 9]), &["snp.vek"]),
        ("a hardware id of 64 bytes", Turin, Vcek, |g| g.extensions.set(&[4], vec![1; 64]), &["snp.vek"]),
        ("bytes behind the chip id", Turin, Vcek, |g| g.put(0x1a8, &[1]), &["snp.chip"]),
        ("the layout of others", Turin, Vcek, |g| g.put(0x180, &tcb(Genoa, TCB)), &["snp.format", "snp.tcb"]),
        ("SIGNING_KEY VCEK", Genoa, Vlek, |g| g.put(0x48, &[0]), &["snp.signing_key"]),
        ("no cloud", Genoa, Vlek, |g| g.extensions.set(&[5], der::ia5("")), &["snp.vek"]),
    ];
    for (what, product, kind, change, checks) in rows {
        let mut guest = Guest::new(product, kind, 5);
        change(&mut guest);
        let refusal = check(&guest, &[]).expect_err(what);
        assert_eq!(refusal.failed().collect::<Vec<_>>(), checks, "{what}: {refusal}");
    }
}

#[test]
fn exceptions_excuse_what_they_name_and_nothing_else() {
    let rows: [(&str, Change, &str, &str); 4] = [
        ("no alias check", |g| g.put(0x40, &[0x05]), "snp:no-alias-check", "snp.platform_info"),
        ("VMPL 1", |g| g.put(0x30, &[1]), "snp:vmpl1", "snp.vmpl"),
        ("VMPL 2", |g| g.put(0x30, &[2]), "snp:vmpl2", "snp.vmpl"),
        ("VMPL 3", |g| g.put(0x30, &[3]), "snp:vmpl3", "snp.vmpl"),
    ];
    let all: Vec<&str> = Exceptions::known().iter().map(|(name, _)| *name).collect();
    for (what, change, name, id) in rows {
        let mut guest = Guest::new(Genoa, Vcek, 3);
        change(&mut guest);
        check(&guest, &[name]).unwrap_or_else(|refusal| panic!("{what}: {refusal}"));
        let (day_left, day_over) = (format!("{name}@2026-12-31"), format!("{name}@2026-01-01"));
        assert!(check(&guest, &[&day_left]).is_ok(), "{what}");
        assert_eq!(check(&guest, &[&day_over]).expect_err(what).check, id, "an exception ends");
        let others: Vec<&str> = all.iter().copied().filter(|other| *other != name).collect();
        assert_eq!(check(&guest, &others).expect_err(what).check, id, "others do not help");
        guest.put(10, &[0x0b]);
        assert_eq!(check(&guest, &all).expect_err(what).check, "snp.debug", "nothing allows debug");
    }
    let milan = Guest::new(Milan, Vcek, 3);
    assert_eq!(check(&milan, &["snp:no-alias-check"]).expect_err("unnamed").check, "snp.milan");
    assert!(check(&milan, &["snp:milan"]).is_ok());
}

#[test]
fn a_genuine_debug_guest_is_told_from_a_forged_one() {
    let mut guest = Guest::new(Genoa, Vcek, 5);
    guest.put(10, &[0x0b]);
    let genuine = check(&guest, &[]).expect_err("debug");
    guest.forged_report = true;
    let forged = check(&guest, &[]).expect_err("debug and forged");
    assert_eq!((genuine.kind, forged.kind), (Rejected, Signature));
    assert!(genuine.simulated && forged.simulated, "both name the simulated root");
}

#[test]
fn amds_own_root_is_never_called_simulated() {
    for name in ["milan", "genoa", "turin"] {
        let path = format!("{}/roots/amd/{name}-ark.der", env!("CARGO_MANIFEST_DIR"));
        let der = std::fs::read(path).expect("pinned");
        let result = TrustAnchors::hardware().with_simulated_root(&der);
        assert_eq!(result.expect_err("AMD's"), InvalidRoot::HardwareRoot);
    }
}
