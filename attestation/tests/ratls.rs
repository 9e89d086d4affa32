//! Certificates with evidence inside: every scheme is recognised, and says whether its quote names the certificate's key.

mod common;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::ratls::{KeyBinding, MAX_CERTIFICATE, RaTlsCertificate, RaTlsEvidence};
use cocoon_attestation::{Claims, Endorsements, Evidence, Exceptions, verify};
use cocoon_simulated_tee::{Draft, Td};
use common::mutate::{Random, mutate};
use common::vectors::Vectors;
use common::{NOW, Platform, registers, statement};
use ring::digest::{SHA256, SHA384, SHA512, digest};

const CMW: &[u8] = &[0x2b, 6, 1, 5, 5, 7, 1, 35];
const DICE: &[u8] = &[0x67, 0x81, 5, 5, 4, 9];
const DSTACK: [u8; 9] = [0x2b, 6, 1, 4, 1, 0x83, 0xe7, 0x3d, 1];
const CPP_COCOON: &[u8] = &[0x2b, 6, 1, 4, 1, 0xe0, 0x39, 1];
const GRAMINE: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x8a, 0x39, 6];
const INTEL_TDX: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 1, 5, 5, 1, 6];

fn der(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let length = u32::try_from(content.len()).expect("short").to_be_bytes();
    let mut out = match length {
        [0, 0, 0, short @ 0..=0x7f] => vec![tag, short],
        [0, 0, 0, a] => vec![tag, 0x81, a],
        [0, 0, a, b] => vec![tag, 0x82, a, b],
        [_, a, b, c] => vec![tag, 0x83, a, b, c],
    };
    out.extend(content);
    out
}

fn octets(content: &[u8]) -> Vec<u8> {
    der(4, &[content])
}

/// An Ed25519 key as SubjectPublicKeyInfo.
fn spki() -> Vec<u8> {
    der(0x30, &[&der(0x30, &[&der(6, &[&[0x2b, 0x65, 0x70]])]), &der(3, &[&[0], &[7; 32]])])
}

/// A certificate with these extensions (OID's content, value), in the version given; its signature is never looked at.
fn certificate_of_version(version: u8, extensions: &[(&[u8], &[u8])]) -> Vec<u8> {
    let list: Vec<Vec<u8>> =
        extensions.iter().map(|(oid, value)| der(0x30, &[&der(6, &[oid]), &octets(value)])).collect();
    let list: Vec<&[u8]> = list.iter().map(Vec::as_slice).collect();
    let (version, serial) = (der(0xa0, &[&der(2, &[&[version]])]), der(2, &[&[1]]));
    let (empty, extensions) = (der(0x30, &[]), der(0xa3, &[&der(0x30, &list)]));
    let date = |text: &str| der(0x17, &[text.as_bytes()]);
    let dates = der(0x30, &[&date("250101000000Z"), &date("450101000000Z")]);
    let content = der(0x30, &[&version, &serial, &empty, &empty, &dates, &empty, &spki(), &extensions]);
    der(0x30, &[&content, &empty, &der(3, &[&[0, 1, 2]])])
}

fn certificate(extensions: &[(&[u8], &[u8])]) -> Vec<u8> {
    certificate_of_version(2, extensions)
}

fn sha512(parts: &[&[u8]]) -> [u8; 64] {
    digest(&SHA512, &parts.concat()).as_ref().try_into().expect("64 bytes")
}

fn sha256_and_zeros(bytes: &[u8]) -> [u8; 64] {
    let mut out = [0; 64];
    out[..32].copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

fn cbor_bytes(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("short").to_be_bytes();
    [&[0x59][..], &length, bytes].concat()
}

/// {"pubkey-hash": [algorithm, hash]}, with the array in a byte string or not.
fn claims(algorithm: u8, hash: &[u8], wrapped: bool) -> Vec<u8> {
    let array = [vec![0x82, algorithm], cbor_bytes(hash)].concat();
    let value = if wrapped { cbor_bytes(&array) } else { array };
    [&[0xa1, 0x6b][..], b"pubkey-hash", &value].concat()
}

fn dice(quote: &[u8], claims: &[u8]) -> Vec<u8> {
    [vec![0xd9, 0xea, 0x60, 0x82], cbor_bytes(quote), cbor_bytes(claims)].concat()
}

struct Simulated(Platform);

impl Simulated {
    fn quote(&self, report_data: &[u8; 64]) -> Vec<u8> {
        let draft = Draft::honest(&Td::new(registers()), report_data, &self.0.key);
        self.0.root.sign_quote(&draft, &self.0.key)
    }

    /// The certificate as a verifier gets it: its quote is genuine, and names the certificate's key. Another failure than
    /// the binding's is none of these tests'.
    fn bound(&self, der: &[u8]) -> bool {
        let read = RaTlsCertificate::parse(der).expect("a certificate of a known scheme");
        assert_eq!(read.spki, spki());
        let own = Endorsements::from_files(vec![self.0.root.collateral(NOW)]).expect("one small file");
        let evidence = Evidence::detect(der).expect("a certificate with a quote");
        match verify(&evidence, &own, &self.0.anchors(), &Exceptions::none(), NOW) {
            Ok(genuine) => {
                assert!(read.binds(genuine.claims().and_then(Claims::report_data).expect("a TD")));
                true
            }
            Err(refusal) => {
                assert_eq!(refusal.check, "binding.tls_key", "{refusal}");
                false
            }
        }
    }
}

#[test]
fn each_scheme_is_recognised_and_its_binding_is_judged() {
    let platform = Simulated(Platform::new());
    let key = spki();
    let (dstack_1, dstack_8) = ([&DSTACK[..], &[1]].concat(), [&DSTACK[..], &[8]].concat());
    let dstack = sha512(&[b"ratls-cert:", &key]);
    let raw = |quote: &[u8]| quote.to_vec();
    let wrapped = |quote: &[u8]| octets(quote);
    let scale = |quote: &[u8]| octets(&[&[0, 0, 0x51, 0x4e][..], quote, b"log and configuration"].concat());
    type Wrap<'a> = &'a dyn Fn(&[u8]) -> Vec<u8>;
    let table: [(&str, &[u8], [u8; 64], Wrap<'_>); 8] = [
        ("dstack", &dstack_1, dstack, &wrapped),
        ("dstack's envelope", &dstack_8, dstack, &scale),
        ("C++, whole key", CPP_COCOON, sha512(&[&key]), &raw),
        ("C++, key alone", CPP_COCOON, sha512(&[&[7; 32]]), &wrapped),
        ("Gramine", GRAMINE, sha256_and_zeros(&key), &raw),
        ("DICE, SHA-256", DICE, [0; 64], &|_| vec![]),
        ("DICE, SHA-384", DICE, [1; 64], &|_| vec![]),
        ("DICE, SHA-512", DICE, [2; 64], &|_| vec![]),
    ];
    for (what, oid, report_data, wrap) in table {
        let value = if oid == DICE {
            let claims = match report_data[0] {
                0 => claims(1, digest(&SHA256, &key).as_ref(), true),
                1 => claims(7, digest(&SHA384, &key).as_ref(), false),
                _ => claims(8, digest(&SHA512, &key).as_ref(), true),
            };
            dice(&platform.quote(&sha256_and_zeros(&claims)), &claims)
        } else {
            wrap(&platform.quote(&report_data))
        };
        assert!(platform.bound(&certificate(&[(oid, &value)])), "{what}");
    }
}

#[test]
fn evidence_that_names_another_key_does_not_bind() {
    let platform = Simulated(Platform::new());
    let key = spki();
    let mut high = sha256_and_zeros(&key);
    high[63] = 1;
    let table: [(&str, &[u8], [u8; 64]); 6] = [
        ("another key", CPP_COCOON, sha512(&[&[8; 32]])),
        ("dstack's rule under another scheme", CPP_COCOON, sha512(&[b"ratls-cert:", &key])),
        ("no prefix", &[&DSTACK[..], &[1]].concat(), sha512(&[&key])),
        ("the other half is not zero", GRAMINE, high),
        ("no rule is known", INTEL_TDX, sha512(&[&key])),
        ("zeros", GRAMINE, [0; 64]),
    ];
    for (what, oid, report_data) in table {
        let value = octets(&platform.quote(&report_data));
        assert!(!platform.bound(&certificate(&[(oid, &value)])), "{what}");
    }
    let hash = digest(&SHA256, &key);
    let good = claims(1, hash.as_ref(), true);
    for (what, shown, quoted) in [
        ("claims that the quote does not have", good.clone(), claims(1, &[0; 32], true)),
        ("claims of another key", claims(1, &[0; 32], true), claims(1, &[0; 32], true)),
        (
            "an algorithm that is not the hash's",
            claims(7, hash.as_ref(), true),
            claims(7, hash.as_ref(), true),
        ),
        ("an unknown algorithm", claims(0, hash.as_ref(), false), claims(0, hash.as_ref(), false)),
        ("no claims", vec![0xa0], vec![0xa0]),
        ("rubbish", vec![0xff], vec![0xff]),
    ] {
        let value = dice(&platform.quote(&sha256_and_zeros(&quoted)), &shown);
        assert!(!platform.bound(&certificate(&[(DICE, &value)])), "{what}");
    }
}

#[test]
fn our_bundle_comes_out_as_it_went_in_and_is_bound_by_its_statement() {
    let platform = Platform::new();
    for (tls, bound) in [(Some(spki()), true), (Some(vec![9; 44]), false), (None, false)] {
        let mut statement = statement();
        statement.keys.tls = tls;
        let bundle = platform.bundle_of(&statement);
        let read = RaTlsCertificate::parse(&certificate(&[(CMW, &octets(&bundle.encode()))])).expect("ours");
        assert!(!read.binds(&[0; 64]), "our own rule is the statement's");
        let RaTlsEvidence::Bundle(carried) = read.evidence else { panic!("{:?}", read.evidence) };
        assert_eq!(*carried, bundle);
        let genuine = platform.verify(&carried).expect("genuine");
        let judged = genuine.with_tls_key(&read.spki);
        assert_eq!(judged.is_ok(), bound);
        match judged {
            Ok(genuine) => assert_eq!(genuine.checks().last().map(|check| check.id), Some("binding.tls_key")),
            Err(refusal) => assert_eq!((refusal.check, refusal.kind.exit_code()), ("binding.tls_key", 4)),
        }
    }
}

#[test]
fn other_message_wrappers_are_recognised_and_not_judged() {
    let json = der(0x0c, &[br#"["application/eat+jwt","aGk"]"#]);
    let record = octets(&[0x82, 0x61, b'x', 0x41, 1]);
    let tag = octets(&[0xda, 0x63, 0x74, 0x76, 0x32, 0x41, 1]);
    for (value, expected) in [(&json, "JSON"), (&record, "CBOR"), (&tag, "CBOR")] {
        let read = RaTlsCertificate::parse(&certificate(&[(CMW, value)])).expect("a wrapper");
        assert_eq!(read.evidence, RaTlsEvidence::OtherCmw { encoding: expected });
    }
    for value in [der(0x0c, &[b"{"]), der(0x0c, &[b"7"]), octets(&[0x01]), octets(&[]), vec![0xa0], vec![]] {
        assert!(RaTlsCertificate::parse(&certificate(&[(CMW, &value)])).is_err(), "{value:?}");
    }
    let Some(vectors) = Vectors::find() else { return };
    let real =
        RaTlsCertificate::parse(&vectors.read("corim/cmw_x509-cert+cbor-cmw.der")).expect("a certificate");
    assert_eq!(real.evidence, RaTlsEvidence::OtherCmw { encoding: "CBOR" });
    assert!(!real.binds(&[0; 64]));
}

#[test]
fn dstacks_event_log_comes_along_and_an_envelope_holds_one_quote() {
    let platform = Simulated(Platform::new());
    let quote = platform.quote(&[3; 64]);
    let oid = |last| [&DSTACK[..], &[last]].concat();
    let log = octets(b"[]");
    let both = certificate(&[(&oid(1), &octets(&quote)), (&oid(2), &log)]);
    let read = RaTlsCertificate::parse(&both).expect("dstack's").evidence;
    let expected = RaTlsEvidence::Quote {
        scheme: "dstack",
        quote: quote.clone(),
        event_log: Some(b"[]".to_vec()),
        binding: KeyBinding::Dstack,
    };
    assert_eq!(read, expected);
    for envelope in [vec![], quote[..2_000].to_vec(), quote[28..].to_vec(), [&quote[..], &quote].concat()] {
        assert!(RaTlsCertificate::parse(&certificate(&[(&oid(8), &octets(&envelope))])).is_err());
    }
}

#[test]
fn what_is_not_a_certificate_with_evidence_is_refused_with_its_place() {
    let value = octets(&[1]);
    let good = certificate(&[(GRAMINE, &value)]);
    RaTlsCertificate::parse(&good).expect("unchanged, it is read");
    let mut indefinite = good.clone();
    indefinite[1] = 0x80;
    let many: Vec<(Vec<u8>, Vec<u8>)> = (0..33).map(|i| (vec![0x55, i], vec![])).collect();
    let many: Vec<(&[u8], &[u8])> = many.iter().map(|(oid, value)| (&oid[..], &value[..])).collect();
    for (what, bytes) in [
        ("no element with a minimal, definite length", indefinite),
        ("must be 3", certificate_of_version(0, &[(GRAMINE, &value)])),
        ("an extension twice", certificate(&[(GRAMINE, &value), (GRAMINE, &value)])),
        ("or more than", certificate(&many)),
        ("no extension with evidence", certificate(&[])),
        ("bytes too many", [&good[..], &[0]].concat()),
        ("announced", good[..good.len() - 1].to_vec()),
        ("at most", vec![0x30; MAX_CERTIFICATE + 1]),
        ("missing", vec![]),
        ("tag 60000", certificate(&[(DICE, &[0x82, 0x40, 0x40])])),
        ("not base64", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n".to_vec()),
        ("ends inside a block", b"-----BEGIN CERTIFICATE-----\nAA".to_vec()),
    ] {
        let error = RaTlsCertificate::parse(&bytes).expect_err(what);
        assert!(error.reason.contains(what), "{what}: {error}");
    }
    for length in 0..good.len() {
        assert!(RaTlsCertificate::parse(&good[..length]).is_err(), "cut to {length}");
    }
}

#[test]
fn pem_is_read_like_der() {
    let der = certificate(&[(GRAMINE, &octets(&[1]))]);
    let body = STANDARD.encode(&der);
    let (first, second) = body.split_at(64);
    let pem = format!("-----BEGIN CERTIFICATE-----\n{first}\n{second}\n-----END CERTIFICATE-----\n");
    assert_eq!(RaTlsCertificate::parse(pem.as_bytes()), RaTlsCertificate::parse(&der));
    assert!(RaTlsCertificate::parse(pem.repeat(2).as_bytes()).is_err(), "one certificate, not a chain");
}

#[test]
fn damaged_certificates_get_an_answer() {
    let platform = Platform::new();
    let simulated = Simulated(Platform::new());
    let quote = simulated.quote(&[3; 64]);
    let seeds = [
        certificate(&[(CMW, &octets(&platform.bundle().encode()))]),
        certificate(&[(DICE, &dice(&quote, &claims(1, &[0; 32], true)))]),
        certificate(&[(&[&DSTACK[..], &[8]].concat(), &octets(&quote))]),
    ];
    let rounds: usize =
        std::env::var("COCOON_FUZZ_ITERATIONS").ok().and_then(|text| text.parse().ok()).unwrap_or(3_000);
    let mut random = Random(0x5eed_0002);
    for round in 0..rounds {
        if let Ok(read) = RaTlsCertificate::parse(&mutate(&seeds[round % seeds.len()], &mut random)) {
            let _ = read.binds(&[3; 64]);
        }
    }
}
