//! Held against the `sev` crate: whatever it refuses, we refuse; what it accepts and we refuse is listed.

mod common;
mod kit;

use cocoon_attestation::snp::{KeyKind, Product, Report};
use cocoon_attestation::{Endorsement, Endorsements, Evidence, Exceptions, TrustAnchors, UnixTime, verify};
use common::mutate::{Random, mutate};
use common::vectors::Vectors;
use kit::amd::{Guest, NOW, TCB, tcb};
use kit::der;
use sev::certs::snp::{Certificate, Chain, Verifiable};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;

/// ARK signs itself and ASK, ASK the VEK, the VEK the report: all that sev does.
fn sev_accepts(report: &[u8], chain: &Chain) -> bool {
    AttestationReport::from_bytes(report).is_ok_and(|report| (chain, &report).verify().is_ok())
}

fn we_accept(
    report: &[u8],
    endorsements: &Endorsements,
    anchors: &TrustAnchors,
    allow: &[&str],
    at: u64,
) -> bool {
    let exceptions = Exceptions::parse(allow.iter().copied()).expect("known names");
    Evidence::detect(report)
        .is_ok_and(|evidence| verify(&evidence, endorsements, anchors, &exceptions, UnixTime(at)).is_ok())
}

fn certificates(endorsements: &Endorsements) -> impl Iterator<Item = &[u8]> {
    endorsements.items().iter().filter_map(|item| match item {
        Endorsement::Certificate(der) => Some(&der[..]),
        _ => None,
    })
}

/// A look-alike's chain, as sev wants it: the kit gives ARK, VEK, ASK in this order.
fn chain(endorsements: &Endorsements) -> Chain {
    let all: Vec<&[u8]> = certificates(endorsements).collect();
    let [ark, vek, ask] = all[..] else { panic!("three certificates") };
    Chain::from_der(ark, ask, vek).expect("certificates")
}

fn real(vectors: &Vectors, product: &str, certificate: &str) -> (Endorsements, Chain) {
    let endorsements = Endorsements::from_files(vec![vectors.read(certificate)]).expect("one certificate");
    let vek = certificates(&endorsements).next().expect("one certificate").to_vec();
    let pem = |kind: &str| Certificate::from_pem(&vectors.read(&format!("snp/builtin_{product}_{kind}.pem")));
    let (ark, ask) = (pem("ark").expect("AMD's"), pem("ask").expect("AMD's"));
    (endorsements, Chain::from((ask, ark, Certificate::from_der(&vek).expect("a certificate"))))
}

const REAL: [(&str, &str, &str, &[&str]); 4] = [
    ("genoa", "snp/ms_genoa_report.bin", "snp/ms_genoa_vcek.pem", &[]),
    ("turin", "snp/ms_turin_report.bin", "snp/ms_turin_vcek.pem", &[]),
    ("milan", "snp/ms_milan_report.bin", "snp/ms_milan_vcek.pem", &["snp:milan"]),
    ("milan", "snp/sev_milan_report.bin", "snp/sev_milan_vcek.der", &["snp:milan", "snp:no-alias-check"]),
];

#[test]
fn nothing_that_sev_refuses_is_accepted() {
    const SEED: u64 = 0x0c0c_005e_5e5e_d222;
    let Some(vectors) = Vectors::find() else { return };
    println!("seed {SEED:#x}");
    let mut random = Random(SEED);
    for (product, report, certificate, allow) in REAL {
        let report = vectors.read(report);
        let (endorsements, chain) = real(&vectors, product, certificate);
        assert!(sev_accepts(&report, &chain), "{product}");
        let ours = |report: &[u8]| we_accept(report, &endorsements, &TrustAnchors::hardware(), allow, NOW);
        assert!(ours(&report), "{product}");
        for round in 0..250 {
            let changed = mutate(&report, &mut random);
            let (ours, theirs) = (ours(&changed), sev_accepts(&changed, &chain));
            assert!(theirs || !ours, "{product}, round {round}: we accept what sev refuses");
            assert!(!ours || changed == report, "{product}, round {round}: a changed report is accepted");
        }
    }
}

/// sev takes a report apart and puts it together again before it hashes it, so that bytes it does not keep may be changed,
/// inside what is signed and in the signature's field.
/// Turin's TCB versions have one reserved byte less, four times.
#[test]
fn bytes_that_sev_does_not_look_at_are_known_by_number() {
    let Some(vectors) = Vectors::find() else { return };
    for ((product, report, certificate, allow), known) in
        REAL.into_iter().zip([[16, 416], [12, 416], [16, 416], [16, 416]])
    {
        let report = vectors.read(report);
        let (endorsements, chain) = real(&vectors, product, certificate);
        let vek = &chain.vek;
        let mut accepted = [0, 0];
        for byte in 0..report.len() {
            let mut changed = report.clone();
            changed[byte] ^= 1;
            let theirs =
                AttestationReport::from_bytes(&changed).is_ok_and(|report| (vek, &report).verify().is_ok());
            if theirs {
                accepted[usize::from(byte >= 0x2a0)] += 1;
                assert!(
                    !we_accept(&changed, &endorsements, &TrustAnchors::hardware(), allow, NOW),
                    "byte {byte:#x}"
                );
                assert!(Report::parse(&changed).is_err(), "byte {byte:#x} is reserved");
            }
        }
        assert_eq!(accepted, known, "{product}: before and in the signature's field");
    }
}

/// What sev accepts of a look-alike and we refuse, each with the check that refuses it.
#[test]
fn sev_alone_accepts_what_we_refuse() {
    type Row = (&'static str, fn(&mut Guest), &'static str);
    let rows: [Row; 16] = [
        ("a root that nobody named", |g| g.unnamed = true, "snp.root"),
        ("a certificate out of date", |g| g.vek.to = NOW - 1, "snp.validity"),
        ("a root out of date", |g| g.ark.to = NOW - 1, "snp.validity"),
        ("an intermediate that is no authority", |g| g.ask.extensions.clear(), "snp.chain"),
        ("another issuer's name", |g| g.vek.issuer = "ARK-Genoa".into(), "snp.chain"),
        ("another chip's certificate", |g| g.extensions.set(&[4], vec![1; 64]), "snp.chip"),
        ("another TCB's certificate", |g| g.extensions.set(&[3, 3], der::integer(24)), "snp.tcb"),
        ("another product's certificate", |g| g.extensions.set(&[2], der::ia5("Turin")), "snp.vek"),
        ("a certificate without any of it", |g| g.extensions.0.clear(), "snp.vek"),
        ("SIGNING_KEY VLEK", |g| g.put(0x48, &[4]), "snp.signing_key"),
        ("SIGNATURE_ALGO 2", |g| g.put(0x34, &[2]), "snp.signature"),
        (
            "CURRENT below REPORTED",
            |g| g.put(0x38, &tcb(Product::Genoa, [0, TCB[1], 0, 22, TCB[4]])),
            "snp.tcb",
        ),
        ("DEBUG", |g| g.put(10, &[0x0b]), "snp.debug"),
        ("MIGRATE_MA", |g| g.put(10, &[0x07]), "snp.policy"),
        ("no alias check", |g| g.put(0x40, &[0x05]), "snp.platform_info"),
        ("the host asked", |g| g.put(0x30, &[0xff; 4]), "snp.vmpl"),
    ];
    for (what, change, id) in rows {
        let mut guest = Guest::new(Product::Genoa, KeyKind::Vcek, 3);
        change(&mut guest);
        let (report, endorsements, anchors) = guest.issue();
        assert!(sev_accepts(&report, &chain(&endorsements)), "{what}");
        let evidence = Evidence::detect(&report).expect("a report");
        let refusal = verify(&evidence, &endorsements, &anchors, &Exceptions::none(), UnixTime(NOW));
        assert_eq!(refusal.expect_err(what).check, id, "{what}");
    }
}
