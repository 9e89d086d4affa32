//! Real SEV-SNP reports get the verdict they must get, and no changed byte of them is accepted.

mod common;

use cocoon_attestation::snp::{KeyKind, Product, amd_needs};
use cocoon_attestation::{
    Claims, Endorsements, Evidence, Exceptions, Genuine, Refusal, RefusalKind, TrustAnchors, UnixTime, verify,
};
use common::mutate::{Random, mutate};
use common::vectors::Vectors;

const AT: u64 = 1_785_000_000;

fn check(report: &[u8], certificate: &[u8], at: u64, allow: &[&str]) -> Result<Genuine, Refusal> {
    let endorsements =
        Endorsements::from_files(vec![certificate.to_vec()]).map_err(|_| ()).unwrap_or_default();
    let exceptions = Exceptions::parse(allow.iter().copied()).expect("known names");
    verify(&Evidence::detect(report)?, &endorsements, &TrustAnchors::hardware(), &exceptions, UnixTime(at))
}

/// Genuine reports, each with its certificate and the exceptions without which it is refused.
const GENUINE: [(&str, &str, &[&str], u64); 5] = [
    ("snp/ms_genoa_report.bin", "snp/ms_genoa_vcek.pem", &[], AT),
    ("snp/ms_turin_report.bin", "snp/ms_turin_vcek.pem", &[], AT),
    ("snp/ms_milan_report.bin", "snp/ms_milan_vcek.pem", &["snp:milan"], AT),
    ("snp/sev_milan_report.bin", "snp/sev_milan_vcek.der", &["snp:milan", "snp:no-alias-check"], AT),
    ("snp/trustee_vlek_report.bin", "snp/trustee_vlek.der", &["snp:milan", "snp:vmpl1"], 1_762_000_000),
];

#[test]
fn genuine_reports_of_every_product_and_key_are_genuine() {
    let Some(vectors) = Vectors::find() else { return };
    for (report, certificate, allow, at) in GENUINE {
        let genuine = check(&vectors.read(report), &vectors.read(certificate), at, allow);
        let genuine = genuine.unwrap_or_else(|refusal| panic!("{report}: {refusal}"));
        assert!(matches!(genuine.claims(), Some(Claims::Snp(_))), "{report}");
        for left_out in 0..allow.len() {
            let rest: Vec<&str> =
                allow.iter().enumerate().filter(|(at, _)| *at != left_out).map(|(_, name)| *name).collect();
            let refusal =
                check(&vectors.read(report), &vectors.read(certificate), at, &rest).expect_err(report);
            assert_eq!(
                (refusal.kind, refusal.failed().count()),
                (RefusalKind::Rejected, 1),
                "{report}: {refusal}"
            );
        }
    }
}

#[test]
fn a_log_that_nothing_is_compared_with_is_said_to_be_skipped() {
    let Some(vectors) = Vectors::find() else { return };
    let files = ["snp/ms_genoa_vcek.pem", "eventlog/ccel_gcp_cos113.dat"].map(|name| vectors.read(name));
    let endorsements = Endorsements::from_files(files).expect("a certificate and a log");
    let evidence = Evidence::detect(&vectors.read("snp/ms_genoa_report.bin")).expect("a report");
    let (anchors, none) = (TrustAnchors::hardware(), Exceptions::none());
    let genuine = verify(&evidence, &endorsements, &anchors, &none, UnixTime(AT)).expect("genuine");
    let log = genuine.checks().iter().find(|check| check.id == "eventlog").expect("it is in the list");
    assert_eq!(log.status, cocoon_attestation::Status::Skip);
}

#[test]
fn no_changed_byte_of_a_report_is_genuine() {
    let Some(vectors) = Vectors::find() else { return };
    for (report, certificate, allow, at) in GENUINE {
        let (report, certificate) = (vectors.read(report), vectors.read(certificate));
        for byte in 0..report.len() {
            for mask in [0x01, 0x80, 1 << (byte % 8)] {
                let mut changed = report.clone();
                changed[byte] ^= mask;
                assert!(check(&changed, &certificate, at, allow).is_err(), "byte {byte:#x} ^ {mask:#x}");
            }
        }
        for length in 0..report.len() {
            assert!(check(&report[..length], &certificate, at, allow).is_err(), "cut to {length}");
        }
    }
}

#[test]
fn no_changed_byte_of_a_certificate_is_genuine() {
    let Some(vectors) = Vectors::find() else { return };
    for (report, certificate, allow, at) in GENUINE {
        let (report, der) = (vectors.read(report), der(vectors.read(certificate)));
        assert!(check(&report, &der, at, allow).is_ok());
        for byte in 0..der.len() {
            let mut changed = der.clone();
            changed[byte] ^= 1 << (byte % 8);
            assert!(check(&report, &changed, at, allow).is_err(), "byte {byte}");
        }
    }
}

fn der(certificate: Vec<u8>) -> Vec<u8> {
    use base64::Engine;
    if !certificate.starts_with(b"-----") {
        return certificate;
    }
    let text = std::str::from_utf8(&certificate).expect("text");
    let base64: String = text.lines().filter(|line| !line.starts_with('-')).collect();
    base64::engine::general_purpose::STANDARD.decode(base64).expect("base64")
}

#[test]
fn mutations_never_panic_and_are_never_genuine() {
    const SEED: u64 = 0x0c0c_0057_e5ee_d111;
    let Some(vectors) = Vectors::find() else { return };
    println!("seed {SEED:#x}");
    let mut random = Random(SEED);
    for (name, certificate, allow, at) in GENUINE {
        let (report, certificate) = (vectors.read(name), der(vectors.read(certificate)));
        for round in 0..1_000 {
            let changed = mutate(&report, &mut random);
            assert!(
                check(&changed, &certificate, at, allow).is_err() || changed == report,
                "{name}, round {round}"
            );
            let changed = mutate(&certificate, &mut random);
            assert!(
                check(&report, &changed, at, allow).is_err() || changed == certificate,
                "{name}, round {round}"
            );
        }
    }
}

#[test]
fn a_report_says_what_to_fetch_from_amd() {
    let Some(vectors) = Vectors::find() else { return };
    let needs = |name: &str| amd_needs(&vectors.read(name)).expect("a report");
    let turin = needs("snp/ms_turin_report.bin");
    assert_eq!((&turin.products[..], turin.key), (&[Product::Turin][..], KeyKind::Vcek));
    assert_eq!(
        turin.vcek_path(Product::Turin).as_deref(),
        Some("/vcek/v1/Turin/59790fb1c39f35c1?fmcSPL=01&blSPL=01&teeSPL=01&snpSPL=04&ucodeSPL=81")
    );
    let genoa = needs("snp/ms_genoa_report.bin");
    let path = genoa.vcek_path(Product::Genoa).expect("a VCEK");
    assert!(
        path.starts_with("/vcek/v1/Genoa/b1e24a27")
            && path.ends_with("?blSPL=10&teeSPL=00&snpSPL=23&ucodeSPL=84"),
        "{path}"
    );
    assert_eq!(genoa.crl_path(Product::Genoa), "/vcek/v1/Genoa/crl");
    let second = needs("snp/sev_milan_report.bin");
    assert_eq!(second.products, [Product::Milan, Product::Genoa], "version 2 does not name the processor");
    let vlek = needs("snp/trustee_vlek_report.bin");
    assert_eq!(
        (vlek.key, vlek.chip_id.as_deref(), vlek.vcek_path(Product::Milan)),
        (KeyKind::Vlek, None, None)
    );
}
