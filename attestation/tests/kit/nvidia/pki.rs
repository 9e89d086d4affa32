//! P-384 keys, and certificates of which one thing may be wrong.

use cocoon_attestation::UnixTime;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P384_SHA384_ASN1_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, KeyPair,
};

use super::der;

pub struct Key {
    asn1: EcdsaKeyPair,
    fixed: EcdsaKeyPair,
}

impl Key {
    pub fn generate() -> Self {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &random).expect("a key");
        let pair = |form| EcdsaKeyPair::from_pkcs8(form, pkcs8.as_ref(), &random).expect("the same key");
        Self { asn1: pair(&ECDSA_P384_SHA384_ASN1_SIGNING), fixed: pair(&ECDSA_P384_SHA384_FIXED_SIGNING) }
    }

    pub fn public(&self) -> &[u8] {
        self.asn1.public_key().as_ref()
    }

    /// In DER, as certificates have it.
    pub fn sign_der(&self, message: &[u8]) -> Vec<u8> {
        self.asn1.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec()
    }

    /// r ‖ s, as reports and XML signatures have it.
    pub fn sign_fixed(&self, message: &[u8]) -> Vec<u8> {
        self.fixed.sign(&SystemRandom::new(), message).expect("a signature").as_ref().to_vec()
    }
}

/// What a certificate says.
#[derive(Clone)]
pub struct CertPlan {
    pub subject: String,
    pub issuer: String,
    pub serial: Vec<u8>,
    pub from: UnixTime,
    pub until: UnixTime,
    /// The first byte of the key usage's bits.
    pub key_usage: u8,
    /// An authority, with a path length or without.
    pub authority: Option<Option<u8>>,
    pub extensions: Vec<Vec<u8>>,
    /// Changed after it was signed.
    pub forged: bool,
}

/// digitalSignature.
pub const SIGNS: u8 = 0x80;
/// keyCertSign and cRLSign.
pub const CERTIFIES: u8 = 0x06;

impl CertPlan {
    pub fn authority(subject: &str, issuer: &str, serial: u8) -> Self {
        Self {
            subject: subject.into(),
            issuer: issuer.into(),
            serial: vec![serial],
            from: UnixTime(1_600_000_000),
            until: UnixTime(250_000_000_000),
            key_usage: CERTIFIES,
            authority: Some(None),
            extensions: vec![],
            forged: false,
        }
    }

    pub fn leaf(subject: &str, issuer: &str, serial: u8) -> Self {
        Self { key_usage: SIGNS, authority: None, ..Self::authority(subject, issuer, serial) }
    }

    pub fn sign(&self, key: &Key, issuer: &Key) -> Vec<u8> {
        let mut extensions =
            vec![der::extension(&[0x55, 0x1d, 0x0f], true, &der::tlv(0x03, &[0, self.key_usage]))];
        if let Some(path_length) = self.authority {
            let length = path_length.map(|most| der::integer(&[most])).unwrap_or_default();
            let constraints = der::sequence(&[der::boolean(true), length]);
            extensions.push(der::extension(&[0x55, 0x1d, 0x13], true, &constraints));
        }
        extensions.extend(self.extensions.clone());
        let signed = der::sequence(&[
            der::tlv(0xa0, &der::integer(&[2])),
            der::integer(&self.serial),
            der::algorithm(),
            der::name(&self.issuer),
            der::sequence(&[der::time(self.from), der::time(self.until)]),
            der::name(&self.subject),
            der::public_key(key.public()),
            der::tlv(0xa3, &der::sequence(&extensions)),
        ]);
        let mut signature = issuer.sign_der(&signed);
        if self.forged {
            *signature.last_mut().expect("a signature") ^= 1;
        }
        der::sequence(&[signed, der::algorithm(), der::bits(&signature)])
    }
}

pub fn pem(certificates: &[Vec<u8>]) -> String {
    use base64::Engine;
    let block = |certificate: &Vec<u8>| {
        let text = base64::engine::general_purpose::STANDARD.encode(certificate);
        let lines: Vec<&str> =
            text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
        format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
    };
    certificates.iter().map(block).collect()
}
