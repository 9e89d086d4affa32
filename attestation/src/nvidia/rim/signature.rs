//! The XML signature of a RIM (W3C XML Signature 1.1), in the one shape NVIDIA writes: enveloped, over the whole document.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::c14n::canonical;
use super::xml::{Document, Element, is_space};
use crate::Malformed;
use crate::crypto::{self, Scheme};
use crate::x509::{Certificate, PublicKey};

const DSIG: &str = "http://www.w3.org/2000/09/xmldsig#";
const C14N: &str = "http://www.w3.org/2006/12/xml-c14n11";
const ENVELOPED: &str = "http://www.w3.org/2000/09/xmldsig#enveloped-signature";
const ECDSA_SHA384: &str = "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384";
const SHA384: &str = "http://www.w3.org/2001/04/xmldsig-more#sha384";
/// Most certificates beside a signature.
const MAX_CERTIFICATES: usize = 8;

/// A signature taken apart. Nothing in it is believed yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Signature {
    /// Where it stands in the document.
    at: usize,
    signed_info: usize,
    digest: Vec<u8>,
    /// r ‖ s.
    value: Vec<u8>,
    /// In DER, as they stand beside it.
    pub(super) certificates: Vec<Vec<u8>>,
}

impl Signature {
    /// Finds the one signature of a document and holds its parts against the one shape.
    pub(super) fn of(document: &Document<'_>) -> Result<Self, Malformed> {
        let signatures = |element: &&Element<'_>| element.is(DSIG, "Signature");
        let at = document.elements.iter().position(|element| element.is(DSIG, "Signature"));
        let alone = document.elements.iter().filter(signatures).count() == 1;
        let at = at
            .filter(|at| alone && document.elements[*at].parent == Some(0))
            .ok_or_else(|| shape("exactly one signature, in the root element"))?;
        let [signed_info, value, key_info] =
            parts(document, at, ["SignedInfo", "SignatureValue", "KeyInfo"])?;
        let [method, algorithm, reference] =
            parts(document, signed_info, ["CanonicalizationMethod", "SignatureMethod", "Reference"])?;
        only(document, method, "Algorithm", C14N)?;
        only(document, algorithm, "Algorithm", ECDSA_SHA384)?;
        let [transforms, digest_method, digest] =
            parts(document, reference, ["Transforms", "DigestMethod", "DigestValue"])?;
        has(document, reference, "URI", "")?;
        let [enveloped, canonicalization] = parts(document, transforms, ["Transform", "Transform"])?;
        only(document, enveloped, "Algorithm", ENVELOPED)?;
        only(document, canonicalization, "Algorithm", C14N)?;
        only(document, digest_method, "Algorithm", SHA384)?;
        let signature = Self {
            at,
            signed_info,
            digest: base64(document, digest)?,
            value: base64(document, value)?,
            certificates: certificates(document, key_info)?,
        };
        if (signature.digest.len(), signature.value.len()) != (48, 96) {
            return Err(shape("a digest of 48 bytes and a signature of 96"));
        }
        Ok(signature)
    }

    /// The whole document is the one that was signed by this certificate's key.
    pub(super) fn holds(&self, document: &Document<'_>, signer: &Certificate<'_>) -> bool {
        let digest = crypto::sha384(&[&canonical(document, 0, Some(self.at))]);
        let PublicKey::P384(key) = signer.key else { return false };
        digest == self.digest[..]
            && crypto::holds(
                Scheme::P384Fixed,
                key,
                &canonical(document, self.signed_info, None),
                &self.value,
            )
    }
}

fn shape(expected: impl Into<String>) -> Malformed {
    Malformed::at("RIM", 0, "signature", format!("not of the one shape: {}", expected.into()))
}

/// The children of an element, which must be these and no other, in this order.
fn parts<const N: usize>(
    document: &Document<'_>,
    of: usize,
    names: [&str; N],
) -> Result<[usize; N], Malformed> {
    let found = document.children(&document.elements[of]).unwrap_or_default();
    let found: [usize; N] = found.try_into().map_err(|_| shape(format!("exactly {}", names.join(", "))))?;
    if found.iter().zip(names).all(|(at, name)| document.elements[*at].is(DSIG, name)) {
        Ok(found)
    } else {
        Err(shape(format!("{} in this order", names.join(", "))))
    }
}

/// An element whose one attribute has this value.
fn has(document: &Document<'_>, at: usize, attribute: &str, value: &str) -> Result<(), Malformed> {
    let element = &document.elements[at];
    if element.attributes.len() == 1 && element.attribute(attribute) == Some(value) {
        Ok(())
    } else {
        Err(shape(format!("{} with {attribute}={value:?} and nothing else", element.name.local)))
    }
}

/// As [`has`], and with nothing in it.
fn only(document: &Document<'_>, at: usize, attribute: &str, value: &str) -> Result<(), Malformed> {
    if !document.elements[at].children.is_empty() {
        return Err(shape(format!("an empty {}", document.elements[at].name.local)));
    }
    has(document, at, attribute, value)
}

fn base64(document: &Document<'_>, at: usize) -> Result<Vec<u8>, Malformed> {
    let name = document.elements[at].name.local;
    let mut text = document.text(at).ok_or_else(|| shape(format!("text in {name}")))?;
    text.retain(|character| !u8::try_from(character).is_ok_and(is_space));
    STANDARD.decode(text).map_err(|error| shape(format!("base64 in {name}: {error}")))
}

fn certificates(document: &Document<'_>, key_info: usize) -> Result<Vec<Vec<u8>>, Malformed> {
    let [data] = parts(document, key_info, ["X509Data"])?;
    let found = document.children(&document.elements[data]).unwrap_or_default();
    let all_certificates = found.iter().all(|at| document.elements[*at].is(DSIG, "X509Certificate"));
    if !all_certificates || found.is_empty() || found.len() > MAX_CERTIFICATES {
        return Err(shape(format!("1 to {MAX_CERTIFICATES} X509Certificate")));
    }
    found.into_iter().map(|at| base64(document, at)).collect()
}
