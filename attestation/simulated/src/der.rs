//! Just enough DER to write certificates and CRLs.

/// ecdsa-with-SHA256.
pub(crate) const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
/// id-ecPublicKey.
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// prime256v1.
const P256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match length {
        0..=0x7f => out.push(length as u8),
        0x80..=0xff => out.extend([0x81, length as u8]),
        0x100..=0xffff => out.extend([0x82, (length >> 8) as u8, length as u8]),
        _ => unreachable!("nothing written here exceeds 64 KiB"),
    }
    out.extend_from_slice(content);
    out
}

pub(crate) fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

pub(crate) fn set(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x31, &parts.concat())
}

/// An explicit context tag.
pub(crate) fn context(number: u8, content: &[u8]) -> Vec<u8> {
    tlv(0xa0 | number, content)
}

/// An implicit primitive context tag.
pub(crate) fn context_primitive(number: u8, content: &[u8]) -> Vec<u8> {
    tlv(0x80 | number, content)
}

pub(crate) fn oid(encoded: &[u8]) -> Vec<u8> {
    tlv(0x06, encoded)
}

pub(crate) fn boolean(value: bool) -> Vec<u8> {
    tlv(0x01, &[if value { 0xff } else { 0 }])
}

pub(crate) fn enumerated(value: u8) -> Vec<u8> {
    tlv(0x0a, &[value])
}

/// A non-negative integer from big-endian bytes.
pub(crate) fn integer(bytes: &[u8]) -> Vec<u8> {
    let significant: Vec<u8> = bytes.iter().copied().skip_while(|byte| *byte == 0).collect();
    match significant.first() {
        None => tlv(0x02, &[0]),
        Some(0x80..) => tlv(0x02, &[&[0], significant.as_slice()].concat()),
        Some(_) => tlv(0x02, &significant),
    }
}

pub(crate) fn octets(content: &[u8]) -> Vec<u8> {
    tlv(0x04, content)
}

pub(crate) fn bits(content: &[u8], unused: u8) -> Vec<u8> {
    tlv(0x03, &[&[unused], content].concat())
}

fn utf8(text: &str) -> Vec<u8> {
    tlv(0x0c, text.as_bytes())
}

/// A time: UTCTime to 2049, GeneralizedTime after, as RFC 5280 demands.
pub(crate) fn time(at: cocoon_attestation::UnixTime) -> Vec<u8> {
    let digits: String = at.to_string().chars().filter(char::is_ascii_digit).collect();
    let year: u32 = digits[..4].parse().expect("a year is four digits");
    if (1950..2050).contains(&year) {
        tlv(0x17, format!("{}Z", &digits[2..]).as_bytes())
    } else {
        tlv(0x18, format!("{digits}Z").as_bytes())
    }
}

/// A name with common name and organisation.
pub(crate) fn name(common_name: &str) -> Vec<u8> {
    let attribute = |kind: u8, value: &str| set(&[sequence(&[oid(&[0x55, 0x04, kind]), utf8(value)])]);
    sequence(&[attribute(3, common_name), attribute(10, "SIMULATED: no hardware")])
}

pub(crate) fn algorithm() -> Vec<u8> {
    sequence(&[oid(ECDSA_SHA256)])
}

/// Subject public key info of an uncompressed P-256 point.
pub(crate) fn public_key(point: &[u8]) -> Vec<u8> {
    sequence(&[sequence(&[oid(EC_PUBLIC_KEY), oid(P256)]), bits(point, 0)])
}

pub(crate) fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { boolean(true) } else { Vec::new() };
    sequence(&[oid(id), critical, octets(value)])
}
