//! GPU records: one encoding, limits at their edges, and a nonce that depends on everything it should.

mod common;

use cocoon_attestation::GpuRecord;
use cocoon_attestation::statement::{Beacon, Freshness, Keys, SEAL_KEY, gpu_nonce};
use common::mutate::{Random, mutate};
use ring::digest::{SHA256, digest};
use std::collections::BTreeSet;

fn record() -> GpuRecord {
    GpuRecord { architecture: "HOPPER".into(), report: vec![0x11; 300], certificates: b"-----BEGIN".to_vec() }
}

#[test]
fn a_record_is_an_array_of_text_and_two_byte_strings() {
    let small = GpuRecord { architecture: "ADA".into(), report: vec![1, 2], certificates: vec![3] };
    let bytes = small.encode().expect("within the limits");
    assert_eq!(hex::encode(&bytes), "83634144414201024103");
    assert_eq!(GpuRecord::decode(&bytes), Ok(small));
    assert_eq!(GpuRecord::digest(&bytes), digest(&SHA256, &bytes).as_ref());
}

#[test]
fn other_encodings_of_the_same_record_are_refused() {
    for (what, other) in [
        ("a length in two bytes", "83780341444142010241 03"),
        ("an indefinite array", "9f634144414201024103ff"),
        ("a list of numbers for bytes", "8363414441820102 4103"),
        ("a fourth element", "846341444142010241 0300"),
        ("two elements", "8263414441420102"),
        ("a map", "a3006341444101420102024103"),
        ("a tag", "c183634144414201024103"),
        ("bytes behind", "8363414441420102410300"),
        ("nothing", ""),
    ] {
        let bytes = hex::decode(other.replace(' ', "")).expect("hex");
        assert!(GpuRecord::decode(&bytes).is_err(), "{what} was accepted");
    }
}

#[test]
fn each_limit_holds_on_both_sides() {
    let change = |change: &dyn Fn(&mut GpuRecord)| {
        let mut changed = record();
        change(&mut changed);
        changed
    };
    let largest = change(&|r| {
        r.architecture = "A".repeat(GpuRecord::MAX_ARCHITECTURE);
        r.report = vec![0; GpuRecord::MAX_REPORT];
        r.certificates = vec![0; GpuRecord::MAX_CERTIFICATES];
    });
    let bytes = largest.encode().expect("at the limits");
    assert!(bytes.len() <= GpuRecord::MAX);
    assert_eq!(GpuRecord::decode(&bytes), Ok(largest));
    let unknown = change(&|r| r.architecture.clear());
    assert_eq!(GpuRecord::decode(&unknown.encode().expect("may be unknown")), Ok(unknown));

    for (what, bad) in [
        ("a long architecture", change(&|r| r.architecture = "A".repeat(GpuRecord::MAX_ARCHITECTURE + 1))),
        ("a lower-case architecture", change(&|r| r.architecture = "Hopper".into())),
        ("a control character", change(&|r| r.architecture = "HOPPER\u{1b}".into())),
        ("no report", change(&|r| r.report.clear())),
        ("a large report", change(&|r| r.report = vec![0; GpuRecord::MAX_REPORT + 1])),
        ("no certificates", change(&|r| r.certificates.clear())),
        ("large certificates", change(&|r| r.certificates = vec![0; GpuRecord::MAX_CERTIFICATES + 1])),
    ] {
        assert!(bad.encode().is_err(), "{what} was encoded");
    }
    assert!(GpuRecord::decode(&vec![0x83; GpuRecord::MAX + 1]).is_err());
}

#[test]
fn damaged_records_are_refused_or_read_back_as_they_are() {
    let original = record().encode().expect("good");
    let mut random = Random(0x6770_7531);
    for round in 0..20_000 {
        let bytes = mutate(&original, &mut random);
        if let Ok(read) = GpuRecord::decode(&bytes) {
            assert_eq!(read.encode().expect("it was read"), bytes, "round {round}: two encodings");
        }
    }
}

fn keys() -> Keys {
    Keys { seal: vec![1; SEAL_KEY], receipt: [2; 32], tls: None }
}

fn freshness() -> Freshness {
    Freshness { beacon: Beacon { seqno: 3, root_hash: [4; 32] }, nonce: Some([5; 32]), serial: 6 }
}

#[test]
fn the_nonce_is_the_hash_of_the_fields_in_the_documented_order() {
    let mut input = b"cocoon gpu nonce v1".to_vec();
    input.extend([0xc0, 4, 0, 0]);
    input.extend([1; SEAL_KEY]);
    input.extend([2; 32]);
    input.extend([3, 0, 0, 0]);
    input.extend([4; 32]);
    input.push(1);
    input.extend([5; 32]);
    input.extend([6, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(gpu_nonce(&keys(), &freshness()), digest(&SHA256, &input).as_ref());
}

#[test]
fn each_field_changes_the_nonce() {
    let mut nonces = BTreeSet::from([gpu_nonce(&keys(), &freshness())]);
    let mut other = |change: &dyn Fn(&mut Keys, &mut Freshness)| {
        let (mut keys, mut freshness) = (keys(), freshness());
        change(&mut keys, &mut freshness);
        assert!(nonces.insert(gpu_nonce(&keys, &freshness)), "a field does not count");
    };
    other(&|k, _| k.seal[SEAL_KEY - 1] ^= 1);
    other(&|k, _| k.receipt[31] ^= 1);
    other(&|_, f| f.beacon.seqno = 0x0300);
    other(&|_, f| f.beacon.root_hash[31] ^= 1);
    other(&|_, f| f.nonce = None);
    other(&|_, f| f.nonce = Some([0; 32]));
    other(&|_, f| f.serial = 0x0600);
    // Bytes moved from one field to its neighbour.
    other(&|k, _| k.seal.truncate(SEAL_KEY - 1));
    other(&|_, f| (f.nonce, f.serial) = (None, u64::from_le_bytes([5; 8])));
}
