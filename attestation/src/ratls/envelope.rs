//! What schemes put around a quote. An envelope is not signed: the quote inside it is, and is verified like any other.

use serde_cbor::Value;

use super::certificate::of_kind;
use super::{RaTlsEvidence, WHAT};
use crate::der::tag::{OCTET_STRING, UTF8_STRING};
use crate::tdx::{INTEL_VENDOR, MAX_QUOTE};
use crate::{Bundle, Malformed, bundle};

fn malformed(reason: impl Into<String>) -> Malformed {
    Malformed::new(WHAT, reason)
}

/// The CMW extension (RFC 9999, 6.1): a choice of UTF8String with JSON and OCTET STRING with CBOR.
pub(super) fn cmw(value: &[u8]) -> Result<RaTlsEvidence, Malformed> {
    if let Some(json) = of_kind(value, UTF8_STRING) {
        let parsed: Result<serde_json::Value, _> = serde_json::from_slice(json);
        return match parsed {
            Ok(serde_json::Value::Array(_) | serde_json::Value::Object(_)) => {
                Ok(RaTlsEvidence::OtherCmw { encoding: "JSON" })
            }
            _ => Err(malformed("CMW extension: not a record nor a collection in JSON")),
        };
    }
    let cbor = of_kind(value, OCTET_STRING)
        .ok_or_else(|| malformed("CMW extension: neither an OCTET STRING nor a UTF8String"))?;
    if bundle::is_ours(cbor) {
        return Bundle::decode(cbor).map(|bundle| RaTlsEvidence::Bundle(Box::new(bundle)));
    }
    match serde_cbor::from_slice::<Value>(cbor) {
        // Record, collection, or bytes under a tag, which this parser looks through.
        Ok(Value::Array(_) | Value::Map(_) | Value::Bytes(_)) => {
            Ok(RaTlsEvidence::OtherCmw { encoding: "CBOR" })
        }
        _ => Err(malformed("CMW extension: not a record, tag or collection in CBOR")),
    }
}

/// Tagged evidence as Gramine and Intel write it: CBOR tag 60000 around [quote, claims], both byte strings.
pub(super) fn dice(value: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
    const TAG_60000: [u8; 3] = [0xd9, 0xea, 0x60];
    let inner = value.strip_prefix(&TAG_60000).ok_or_else(|| {
        malformed("DICE extension: not TEE quote evidence (CBOR tag 60000), the only kind that is read")
    })?;
    match serde_cbor::from_slice::<Value>(inner) {
        Ok(Value::Array(parts)) => match <[Value; 2]>::try_from(parts) {
            Ok([Value::Bytes(quote), Value::Bytes(claims)]) => Ok((quote, claims)),
            _ => Err(malformed("DICE extension: not a quote and claims")),
        },
        _ => Err(malformed("DICE extension: not an array in CBOR")),
    }
}

/// The one TDX quote inside dstack's versioned envelope (SCALE in its first version, CBOR later).
///
/// Found by its header (version, key type, TEE type, Intel's vendor id) and its own lengths: fields around it are dstack's
/// claims, and are not read.
pub(super) fn embedded_quote(envelope: &[u8]) -> Result<&[u8], Malformed> {
    let mut found = envelope.windows(28).enumerate().filter(|(_, head)| is_header(head)).map(|(at, _)| at);
    let at = found.next().ok_or_else(|| malformed("dstack's envelope holds no TDX quote"))?;
    let quote =
        quote_at(&envelope[at..]).ok_or_else(|| malformed("the quote in dstack's envelope is cut"))?;
    match found.find(|other| *other >= at + quote.len()) {
        None => Ok(quote),
        Some(_) => Err(malformed("dstack's envelope holds more than one quote")),
    }
}

fn is_header(head: &[u8]) -> bool {
    matches!(head, [4 | 5, 0, 2, 0, 0x81, 0, 0, 0, ..]) && head.get(12..28) == Some(&INTEL_VENDOR)
}

/// Header and body, then as many bytes as the quote's own length says.
fn quote_at(bytes: &[u8]) -> Option<&[u8]> {
    const HEADER: usize = 48;
    const TD_REPORT_10: usize = 584;
    let body = match bytes.first()? {
        4 => TD_REPORT_10,
        _ => 6 + usize::try_from(u32_at(bytes, HEADER + 2)?).ok().filter(|size| *size <= MAX_QUOTE)?,
    };
    let length = usize::try_from(u32_at(bytes, HEADER + body)?).ok().filter(|length| *length <= MAX_QUOTE)?;
    bytes.get(..HEADER + body + 4 + length)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes))
}
