//! The certificate of a guest: self-signed, with its bundle inside.

use cocoon_attestation::ratls::CMW_OID;
use cocoon_attestation::{Bundle, Statement};
use ring::rand::{SecureRandom, SystemRandom};
use ring::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::CannotIssue;
use crate::der::{bits, element, octets, oid, sequence};

/// The largest certificate, in bytes: rustls takes handshake messages up to 64 KiB, and the rest of the message is small.
pub const MAX_TLS_CERTIFICATE: usize = 60 * 1024;

const ECDSA_SHA256: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03, 0x02];
const EC_PUBLIC_KEY: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const PRIME_256V1: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
const KEY_USAGE: &[u8] = &[0x55, 0x1d, 0x0f];

/// A TLS key, ECDSA P-256, born here. Make it before the statement that names it.
pub struct TlsKey {
    pair: EcdsaKeyPair,
    pkcs8: PrivatePkcs8KeyDer<'static>,
}

impl TlsKey {
    /// A new key.
    ///
    /// # Errors
    /// If the system gives no randomness.
    pub fn generate() -> Result<Self, CannotIssue> {
        let random = SystemRandom::new();
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &random)?;
        let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, pkcs8.as_ref(), &random)
            .map_err(|_| CannotIssue::Cryptography)?;
        Ok(Self { pair, pkcs8: pkcs8.as_ref().to_vec().into() })
    }

    /// DER SubjectPublicKeyInfo, 91 bytes: what the statement names ([`cocoon_attestation::statement::Keys::tls`]).
    pub fn spki(&self) -> Vec<u8> {
        let algorithm = sequence(&[&oid(EC_PUBLIC_KEY), &oid(PRIME_256V1)]);
        sequence(&[&algorithm, &bits(self.pair.public_key().as_ref())])
    }
}

impl std::fmt::Debug for TlsKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsKey { .. }") // never the key
    }
}

/// What one side shows: its certificate and the key that belongs to it.
pub struct Identity {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: PrivateKeyDer<'static>,
}

impl Identity {
    /// The certificate, in DER.
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// Certificate and private key, for a TLS configuration of one's own.
    pub fn into_parts(self) -> (CertificateDer<'static>, PrivateKeyDer<'static>) {
        (self.certificate, self.key)
    }
}

impl std::fmt::Debug for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Identity {{ certificate: {} bytes, .. }}", self.certificate.len())
    }
}

/// Makes a certificate that carries this bundle and belongs to this key.
///
/// Issue a new one with each new bundle; the key stays as long as the statements name it.
///
/// # Errors
/// If the bundle's statement does not name the key, or the certificate would exceed [`MAX_TLS_CERTIFICATE`].
pub fn issue(bundle: &Bundle, key: &TlsKey) -> Result<Identity, CannotIssue> {
    let spki = key.spki();
    if Statement::decode(&bundle.statement)?.keys.tls.as_ref() != Some(&spki) {
        return Err(CannotIssue::OtherKey);
    }
    let random = SystemRandom::new();
    let mut serial = [0; 16];
    random.fill(&mut serial)?;
    serial[0] = serial[0] & 0x3f | 0x40; // positive, and of full length
    let content = content(&serial, &spki, &bundle.encode());
    let signature = key.pair.sign(&random, &content)?;
    let certificate = sequence(&[&content, &algorithm(), &bits(signature.as_ref())]);
    if certificate.len() > MAX_TLS_CERTIFICATE {
        return Err(CannotIssue::TooLarge(certificate.len()));
    }
    Ok(Identity { certificate: certificate.into(), key: PrivateKeyDer::Pkcs8(key.pkcs8.clone_key()) })
}

fn algorithm() -> Vec<u8> {
    sequence(&[&oid(ECDSA_SHA256)])
}

/// TBSCertificate (RFC 5280, 4.1.2). The dates say "no date": freshness is the statement's, and the guest has no clock to
/// trust.
fn content(serial: &[u8], spki: &[u8], bundle: &[u8]) -> Vec<u8> {
    let version = element(0xa0, &[&[0x02, 1, 2]]);
    let common_name = sequence(&[&oid(COMMON_NAME), &element(0x0c, &[b"cocoon guest"])]);
    let name = sequence(&[&element(0x31, &[&common_name])]);
    let validity = sequence(&[&element(0x17, &[b"700101000000Z"]), &element(0x18, &[b"99991231235959Z"])]);
    // Digital signatures alone, and critical.
    let usage = sequence(&[&oid(KEY_USAGE), &[0x01, 1, 0xff], &octets(&[0x03, 2, 7, 0x80])]);
    // RFC 9999: the CBOR form of a CMW is an OCTET STRING inside the extension's value.
    let evidence = sequence(&[&oid(&CMW_OID), &octets(&octets(bundle))]);
    let extensions = element(0xa3, &[&sequence(&[&usage, &evidence])]);
    let serial = element(0x02, &[serial]);
    sequence(&[&version, &serial, &algorithm(), &name, &validity, &name, spki, &extensions])
}
