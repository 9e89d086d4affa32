//! Just enough DER to write certificates and OCSP responses.

use cocoon_attestation::UnixTime;

pub const ECDSA_SHA384: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x03];
pub const SHA384: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02];

pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).expect("short").to_be_bytes();
    let length: &[u8] = match length {
        [0, 0..=0x7f] => &length[1..],
        [0, low] => &[0x81, low],
        [high, low] => &[0x82, high, low],
    };
    [&[tag], length, content].concat()
}

pub fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

pub fn oid(encoded: &[u8]) -> Vec<u8> {
    tlv(0x06, encoded)
}

pub fn octets(content: &[u8]) -> Vec<u8> {
    tlv(0x04, content)
}

pub fn bits(content: &[u8]) -> Vec<u8> {
    tlv(0x03, &[&[0], content].concat())
}

/// A positive integer whose first bit is not set.
pub fn integer(bytes: &[u8]) -> Vec<u8> {
    tlv(0x02, bytes)
}

pub fn boolean(value: bool) -> Vec<u8> {
    tlv(0x01, &[if value { 0xff } else { 0 }])
}

pub fn name(common_name: &str) -> Vec<u8> {
    let attribute = |kind: u8, value: &str| {
        tlv(0x31, &sequence(&[oid(&[0x55, 0x04, kind]), tlv(0x0c, value.as_bytes())]))
    };
    sequence(&[attribute(10, "LOOK-ALIKE"), attribute(3, common_name)])
}

/// GeneralizedTime.
pub fn time(at: UnixTime) -> Vec<u8> {
    let digits: String = at.to_string().chars().filter(char::is_ascii_digit).collect();
    tlv(0x18, format!("{digits}Z").as_bytes())
}

pub fn algorithm() -> Vec<u8> {
    sequence(&[oid(ECDSA_SHA384)])
}

/// SubjectPublicKeyInfo of a P-384 point.
pub fn public_key(point: &[u8]) -> Vec<u8> {
    let kind =
        sequence(&[oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01]), oid(&[0x2b, 0x81, 0x04, 0x00, 0x22])]);
    sequence(&[kind, bits(point)])
}

pub fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { boolean(true) } else { Vec::new() };
    sequence(&[oid(id), critical, octets(value)])
}
