//! Just enough DER to write AMD's certificates and CRLs.

use cocoon_attestation::UnixTime;

pub fn tlv(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len();
    let mut out = vec![tag];
    match length {
        0..=0x7f => out.push(length as u8),
        0x80..=0xff => out.extend([0x81, length as u8]),
        _ => out.extend([0x82, (length >> 8) as u8, length as u8]),
    }
    out.extend_from_slice(content);
    out
}

pub fn sequence(parts: &[Vec<u8>]) -> Vec<u8> {
    tlv(0x30, &parts.concat())
}

pub fn oid(encoded: &[u8]) -> Vec<u8> {
    tlv(0x06, encoded)
}

/// A non-negative integer.
pub fn integer(value: u32) -> Vec<u8> {
    let bytes: Vec<u8> = value.to_be_bytes().into_iter().skip_while(|byte| *byte == 0).collect();
    match bytes.first() {
        None => tlv(2, &[0]),
        Some(0x80..) => tlv(2, &[&[0], &bytes[..]].concat()),
        Some(_) => tlv(2, &bytes),
    }
}

pub fn bits(content: &[u8]) -> Vec<u8> {
    tlv(3, &[&[0], content].concat())
}

pub fn octets(content: &[u8]) -> Vec<u8> {
    tlv(4, content)
}

pub fn ia5(text: &str) -> Vec<u8> {
    tlv(0x16, text.as_bytes())
}

pub fn utc_time(at: u64) -> Vec<u8> {
    let digits: String = UnixTime(at).to_string().chars().filter(char::is_ascii_digit).collect();
    tlv(0x17, format!("{}Z", &digits[2..]).as_bytes())
}

/// A name with organisation and common name.
pub fn name(common_name: &str) -> Vec<u8> {
    let part = |kind: u8, value: &str| {
        tlv(0x31, &sequence(&[oid(&[0x55, 0x04, kind]), tlv(0x0c, value.as_bytes())]))
    };
    sequence(&[part(10, "SIMULATED: no hardware"), part(3, common_name)])
}

pub fn extension(id: &[u8], critical: bool, value: &[u8]) -> Vec<u8> {
    let critical = if critical { tlv(1, &[0xff]) } else { Vec::new() };
    sequence(&[oid(id), critical, octets(value)])
}

/// RSASSA-PSS with SHA-384 throughout and a salt of 48 bytes.
pub fn rsa_pss_sha384() -> Vec<u8> {
    let sha384 = sequence(&[oid(&[0x60, 0x86, 0x48, 0x01, 0x65, 3, 4, 2, 2]), tlv(5, &[])]);
    let pkcs1 = |arc: u8| oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, arc]);
    let mask = sequence(&[pkcs1(8), sha384.clone()]);
    let parameters = [tlv(0xa0, &sha384), tlv(0xa1, &mask), tlv(0xa2, &integer(48))];
    sequence(&[pkcs1(10), sequence(&parameters)])
}

/// SubjectPublicKeyInfo of an RSA key in PKCS #1.
pub fn rsa_key(pkcs1: &[u8]) -> Vec<u8> {
    let algorithm = [oid(&[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1]), tlv(5, &[])];
    sequence(&[sequence(&algorithm), bits(pkcs1)])
}

/// SubjectPublicKeyInfo of an uncompressed point on P-384.
pub fn p384_key(point: &[u8]) -> Vec<u8> {
    let algorithm = [oid(&[0x2a, 0x86, 0x48, 0xce, 0x3d, 2, 1]), oid(&[0x2b, 0x81, 0x04, 0x00, 0x22])];
    sequence(&[sequence(&algorithm), bits(point)])
}
