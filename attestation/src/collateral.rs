//! Intel's collateral: what Intel signed about a platform, its TCB, and what is revoked.
//!
//! One JSON object with the fields of Intel's `sgx_ql_qve_collateral_t` (Intel TDX DCAP Quoting Library API, appendix on
//! quote verification collateral), as DCAP, PCCS clients and other verifiers write it. The same thing stands under several
//! names and forms; all of these are read where the caller brings the file:
//!
//! | field | forms |
//! | --- | --- |
//! | names | `tcb_info` or `tcbInfo`, and so on |
//! | `tcb_info`, `qe_identity` | the signed text as a string, its signature (r ‖ s in hex) in `…_signature`; or the answer of Intel's PCS, `{"tcbInfo": …, "signature": …}`, as a string or as it is |
//! | `root_ca_crl`, `pck_crl` | DER in hex or base64, or PEM |
//! | chains | PEM, leaf first; lines end in LF or CR LF |
//! | anything else | passed over: Intel's structure also has version numbers |
//!
//! A bundle carries one form only: see [`canonical_collateral`].

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;

use crate::bundle::MAX_BUNDLE;
use crate::json::Reader;
use crate::{Malformed, pem};

const WHAT: &str = "Intel collateral";

/// Collateral taken apart. Nothing in it is believed yet.
pub(crate) struct Collateral<'a> {
    /// PEM: PCK CA, root.
    pub(crate) pck_crl_issuer_chain: Cow<'a, str>,
    /// DER; empty if there is none.
    pub(crate) root_ca_crl: Vec<u8>,
    /// DER; empty if there is none.
    pub(crate) pck_crl: Vec<u8>,
    /// PEM: TCB signer, root.
    pub(crate) tcb_info_issuer_chain: Cow<'a, str>,
    pub(crate) tcb_info: Signed<'a>,
    /// PEM: TCB signer, root.
    pub(crate) qe_identity_issuer_chain: Cow<'a, str>,
    pub(crate) qe_identity: Signed<'a>,
    /// PEM: the chain that is in the quote, too.
    pub(crate) pck_certificate_chain: Option<Cow<'a, str>>,
}

/// A document that Intel signed: its text, byte for byte, and the signature over it.
pub(crate) struct Signed<'a> {
    pub(crate) text: Cow<'a, str>,
    /// r ‖ s.
    pub(crate) signature: [u8; 64],
}

/// Names of a document's fields: in the collateral, and in the answer of Intel's PCS.
struct Names {
    document: &'static str,
    signature: &'static str,
    wrapped: &'static str,
}

/// One of the two documents that Intel's PCS answers with beside its signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    TcbInfo,
    QeIdentity,
}

/// The text that was signed, of an answer of Intel's PCS. The signature is not looked at.
pub(crate) fn signed_part(answer: &[u8], part: Part) -> Result<&str, Malformed> {
    let text = std::str::from_utf8(answer)
        .map_err(|error| Malformed::at(WHAT, error.valid_up_to(), "text", "not UTF-8"))?;
    let names = match part {
        Part::TcbInfo => &TCB_INFO,
        Part::QeIdentity => &QE_IDENTITY,
    };
    unwrapped(text, names).map(|(text, _)| text)
}

const TCB_INFO: Names = Names { document: "tcb_info", signature: "tcb_info_signature", wrapped: "tcbInfo" };
const QE_IDENTITY: Names =
    Names { document: "qe_identity", signature: "qe_identity_signature", wrapped: "enclaveIdentity" };

impl<'a> Collateral<'a> {
    /// Parses collateral. From a bundle it must be `canonical`: exactly what [`canonical_collateral`] gives.
    pub(crate) fn parse(json: &'a [u8], canonical: bool) -> Result<Self, Malformed> {
        if json.len() > MAX_BUNDLE {
            return Err(Malformed::at(
                WHAT,
                0,
                "length",
                format!("{} bytes, at most {MAX_BUNDLE}", json.len()),
            ));
        }
        let text = std::str::from_utf8(json)
            .map_err(|error| Malformed::at(WHAT, error.valid_up_to(), "text", "not UTF-8"))?;
        let collateral = Fields::read(text)?.finish()?;
        if canonical && collateral.to_canonical() != json {
            return Err(Malformed::new(WHAT, "not in canonical form"));
        }
        Ok(collateral)
    }

    fn to_canonical(&self) -> Vec<u8> {
        let text = Text {
            pck_crl_issuer_chain: &self.pck_crl_issuer_chain,
            root_ca_crl: hex::encode(&self.root_ca_crl),
            pck_crl: hex::encode(&self.pck_crl),
            tcb_info_issuer_chain: &self.tcb_info_issuer_chain,
            tcb_info: &self.tcb_info.text,
            tcb_info_signature: hex::encode(self.tcb_info.signature),
            qe_identity_issuer_chain: &self.qe_identity_issuer_chain,
            qe_identity: &self.qe_identity.text,
            qe_identity_signature: hex::encode(self.qe_identity.signature),
            pck_certificate_chain: self.pck_certificate_chain.as_deref(),
        };
        serde_json::to_vec(&text).expect("strings always encode")
    }
}

/// Intel's collateral in the one form a bundle may carry: these fields only, in order, hex in lower case, no white space.
/// What Intel signed is inside as text and is not touched.
///
/// # Errors
/// If `json` is not Intel's collateral; the error has the offset and the field.
pub fn canonical_collateral(json: &[u8]) -> Result<Vec<u8>, Malformed> {
    Collateral::parse(json, false).map(|collateral| collateral.to_canonical())
}

/// The canonical form, field by field.
#[derive(Serialize)]
struct Text<'a> {
    pck_crl_issuer_chain: &'a str,
    root_ca_crl: String,
    pck_crl: String,
    tcb_info_issuer_chain: &'a str,
    tcb_info: &'a str,
    tcb_info_signature: String,
    qe_identity_issuer_chain: &'a str,
    qe_identity: &'a str,
    qe_identity_signature: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pck_certificate_chain: Option<&'a str>,
}

/// The fields as they stand in the file.
#[derive(Default)]
struct Fields<'a> {
    pck_crl_issuer_chain: Option<Cow<'a, str>>,
    root_ca_crl: Option<Vec<u8>>,
    pck_crl: Option<Vec<u8>>,
    tcb_info_issuer_chain: Option<Cow<'a, str>>,
    tcb_info: Option<Cow<'a, str>>,
    tcb_info_signature: Option<[u8; 64]>,
    qe_identity_issuer_chain: Option<Cow<'a, str>>,
    qe_identity: Option<Cow<'a, str>>,
    qe_identity_signature: Option<[u8; 64]>,
    pck_certificate_chain: Option<Option<Cow<'a, str>>>,
}

impl<'a> Fields<'a> {
    fn read(text: &'a str) -> Result<Self, Malformed> {
        let mut f = Self::default();
        let mut reader = Reader::new(text, WHAT);
        reader.object("collateral", |r, name| match name {
            "pck_crl_issuer_chain" | "pckCrlIssuerChain" => {
                r.once(&mut f.pck_crl_issuer_chain, "pck_crl_issuer_chain", chain)
            }
            "root_ca_crl" | "rootCaCrl" => r.once(&mut f.root_ca_crl, "root_ca_crl", crl),
            "pck_crl" | "pckCrl" => r.once(&mut f.pck_crl, "pck_crl", crl),
            "tcb_info_issuer_chain" | "tcbInfoIssuerChain" => {
                r.once(&mut f.tcb_info_issuer_chain, "tcb_info_issuer_chain", chain)
            }
            "tcb_info" | "tcbInfo" => r.once(&mut f.tcb_info, "tcb_info", document),
            "tcb_info_signature" | "tcbInfoSignature" => {
                r.once(&mut f.tcb_info_signature, "tcb_info_signature", Reader::hex)
            }
            "qe_identity_issuer_chain" | "qeIdentityIssuerChain" => {
                r.once(&mut f.qe_identity_issuer_chain, "qe_identity_issuer_chain", chain)
            }
            "qe_identity" | "qeIdentity" => r.once(&mut f.qe_identity, "qe_identity", document),
            "qe_identity_signature" | "qeIdentitySignature" => {
                r.once(&mut f.qe_identity_signature, "qe_identity_signature", Reader::hex)
            }
            "pck_certificate_chain" | "pckCertificateChain" => {
                r.once(&mut f.pck_certificate_chain, "pck_certificate_chain", nullable)
            }
            _ => r.skip("another field"),
        })?;
        reader.end()?;
        Ok(f)
    }

    fn finish(self) -> Result<Collateral<'a>, Malformed> {
        Ok(Collateral {
            pck_crl_issuer_chain: present(self.pck_crl_issuer_chain, "pck_crl_issuer_chain")?,
            // A missing CRL is judged with the CRLs: it is unavailable, not malformed.
            root_ca_crl: self.root_ca_crl.unwrap_or_default(),
            pck_crl: self.pck_crl.unwrap_or_default(),
            tcb_info_issuer_chain: present(self.tcb_info_issuer_chain, "tcb_info_issuer_chain")?,
            tcb_info: signed(self.tcb_info, self.tcb_info_signature, &TCB_INFO)?,
            qe_identity_issuer_chain: present(self.qe_identity_issuer_chain, "qe_identity_issuer_chain")?,
            qe_identity: signed(self.qe_identity, self.qe_identity_signature, &QE_IDENTITY)?,
            pck_certificate_chain: self.pck_certificate_chain.flatten(),
        })
    }
}

fn missing(field: &'static str) -> Malformed {
    Malformed { what: WHAT, offset: None, field, reason: "missing".into() }
}

fn present<T>(value: Option<T>, field: &'static str) -> Result<T, Malformed> {
    value.ok_or_else(|| missing(field))
}

/// Either a string, or an object, whose own text is what may have been signed.
fn document<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<Cow<'a, str>, Malformed> {
    if reader.at_string() { reader.string(field) } else { reader.raw(field).map(Cow::Borrowed) }
}

/// A chain in PEM, whose lines end in LF or CR LF. (The canonical form has LF, so a bundle's too.)
fn chain<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<Cow<'a, str>, Malformed> {
    let text = reader.string(field)?;
    Ok(if text.contains('\r') { text.replace("\r\n", "\n").into() } else { text })
}

fn nullable<'a>(reader: &mut Reader<'a>, field: &'static str) -> Result<Option<Cow<'a, str>>, Malformed> {
    if reader.at_string() {
        return chain(reader, field).map(Some);
    }
    match reader.raw(field)? {
        "null" => Ok(None),
        _ => Err(reader.error(field, "neither a string nor null")),
    }
}

/// A CRL's DER. Base64 of DER begins with `M`, which is no hex digit.
fn crl(reader: &mut Reader<'_>, field: &'static str) -> Result<Vec<u8>, Malformed> {
    let text = reader.string(field)?;
    // Tools leave a line's end, or the zero of a C string. (The canonical form has neither.)
    let text = text.trim_matches(|c: char| c.is_ascii_whitespace() || c == '\0');
    if text.starts_with("-----BEGIN ") {
        return match &mut pem::blocks(text.as_bytes())?[..] {
            [one] => Ok(std::mem::take(one)),
            blocks => Err(reader.error(field, format!("{} PEM blocks, must be one", blocks.len()))),
        };
    }
    let decoded = if text.starts_with('M') { STANDARD.decode(text).ok() } else { from_hex(text) };
    decoded.ok_or_else(|| reader.error(field, "neither hex, base64 nor PEM"))
}

/// Hex of either case. By table: a CRL is 7 KB of it, and this is the cold path.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    const BAD: u8 = 0xff;
    const VALUES: [u8; 256] = {
        let (mut table, mut at) = ([BAD; 256], 0);
        while at < 10 {
            table[b'0' as usize + at] = at as u8;
            at += 1;
        }
        at = 0;
        while at < 6 {
            table[b'a' as usize + at] = 10 + at as u8;
            table[b'A' as usize + at] = 10 + at as u8;
            at += 1;
        }
        table
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut bad = rest.len() as u8;
    let bytes = pairs
        .iter()
        .map(|[high, low]| {
            let (high, low) = (VALUES[usize::from(*high)], VALUES[usize::from(*low)]);
            bad |= (high | low) & 0xf0;
            high << 4 | low & 0x0f
        })
        .collect();
    (bad == 0).then_some(bytes)
}

/// A document with the signature beside it, or inside the answer of Intel's PCS.
fn signed<'a>(
    document: Option<Cow<'a, str>>,
    signature: Option<[u8; 64]>,
    names: &Names,
) -> Result<Signed<'a>, Malformed> {
    let text = present(document, names.document)?;
    match signature {
        Some(signature) => Ok(Signed { text, signature }),
        None => match text {
            Cow::Borrowed(text) => {
                unwrapped(text, names).map(|(text, signature)| Signed { text: text.into(), signature })
            }
            Cow::Owned(text) => unwrapped(&text, names)
                .map(|(text, signature)| Signed { text: text.to_owned().into(), signature }),
        },
    }
}

/// `{"tcbInfo": …, "signature": …}` (Intel PCS API v4, "Get TDX TCB Info"; "Get TD Quoting Enclave Identity").
fn unwrapped<'t>(answer: &'t str, names: &Names) -> Result<(&'t str, [u8; 64]), Malformed> {
    let (mut text, mut signature) = (None, None);
    let mut reader = Reader::new(answer, WHAT);
    reader.object(names.document, |r, name| match name {
        "signature" => r.once(&mut signature, names.signature, Reader::hex),
        _ if name == names.wrapped => r.once(&mut text, names.wrapped, Reader::raw),
        _ => r.skip("another field"),
    })?;
    reader.end()?;
    Ok((present(text, names.wrapped)?, present(signature, names.signature)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &str = "000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f";

    fn collateral(tcb_info: &str, crl: &str, more: &str) -> String {
        format!(
            r#"{{"pck_crl_issuer_chain":"a","rootCaCrl":"{crl}","pck_crl":"3000","tcb_info_issuer_chain":"b",
               {tcb_info},"qe_identity_issuer_chain":"c","qeIdentity":"{{}}","qe_identity_signature":"{SIGNATURE}"{more}}}"#
        )
    }

    fn plain() -> String {
        format!(r#""tcb_info":"{{\"id\": 1}}","tcb_info_signature":"{SIGNATURE}""#)
    }

    #[test]
    fn a_document_is_the_same_in_each_of_its_forms() {
        let forms = [
            plain(),
            format!(r#""tcbInfo":{{"id": 1}},"tcbInfoSignature":"{}""#, SIGNATURE.to_uppercase()),
            format!(r#""tcbInfo":{{"tcbInfo":{{"id": 1}},"signature":"{SIGNATURE}"}}"#),
            format!(r#""tcb_info":"{{\"tcbInfo\": {{\"id\": 1}} ,\"signature\":\"{SIGNATURE}\"}}""#),
        ];
        let expected = canonical_collateral(collateral(&forms[0], "3000", "").as_bytes()).expect("good");
        assert_eq!(Collateral::parse(&expected, true).expect("canonical").tcb_info.text, r#"{"id": 1}"#);
        for (form, crl) in forms.iter().zip(["3000", "MAA=", "", "3000"]) {
            let text = collateral(form, crl, "");
            let got = canonical_collateral(text.as_bytes()).unwrap_or_else(|e| panic!("{form}: {e}"));
            if crl.is_empty() {
                assert_ne!(got, expected, "a missing CRL is seen");
            } else {
                assert_eq!(got, expected, "{form}");
            }
        }
    }

    #[test]
    fn what_is_missing_twice_or_of_another_kind_is_named() {
        let twice = ",\"tcbInfo\":\"{}\"";
        for (text, field) in [
            (collateral(r#""tcb_info":"{}""#, "30", ""), "tcbInfo"),
            (collateral(r#""tcb_info":7"#, "30", ""), "tcb_info"),
            (collateral(&plain(), "3", ""), "root_ca_crl"),
            (collateral(&plain(), "3g", ""), "root_ca_crl"),
            (collateral(&plain(), "M", ""), "root_ca_crl"),
            (collateral(&plain(), "30", twice), "tcb_info"),
            (collateral(&plain(), "30", ",\"pck_certificate_chain\":7"), "pck_certificate_chain"),
            (collateral(&plain(), "30", "").replace(SIGNATURE, "00"), "tcb_info_signature"),
            (
                collateral(&plain(), "30", "").replace("\"pck_crl_issuer_chain\":\"a\",", ""),
                "pck_crl_issuer_chain",
            ),
        ] {
            let error = canonical_collateral(text.as_bytes()).expect_err(&text);
            assert_eq!(error.field, field, "{error}");
        }
        canonical_collateral(collateral(&plain(), "30", ",\"version\":3").as_bytes())
            .expect("Intel's version");
    }

    #[test]
    fn hex_is_read_as_the_hex_crate_reads_it() {
        for text in ["", "00", "aF", "zz", "0", "0g", "g0", "é", "00 ", "ABCDEFabcdef0123456789"] {
            assert_eq!(from_hex(text), hex::decode(text).ok(), "{text}");
        }
    }
}
