//! Intel's answers: issuers' chains from headers, and four documents put together into one collateral.

use cocoon_attestation::canonical_collateral;
use reqwest::header::HeaderMap;
use serde_json::json;

use crate::FetchError;
use crate::question::Content;

/// Longest chain in a header, in bytes of percent-encoded PEM.
const MAX_CHAIN: usize = 32 * 1024;

/// The PEM chain in one of these headers, percent-encoded (Intel PCS API v4, "Response" of each call; the names differ
/// between versions of the API).
pub(crate) fn issuer_chain(headers: &HeaderMap, names: &[&str]) -> Result<String, FetchError> {
    let unusable = |why: &str| FetchError::Unusable(format!("header {}: {why}", names[0]));
    let value = names.iter().find_map(|name| headers.get(*name)).ok_or_else(|| unusable("missing"))?;
    if value.len() > MAX_CHAIN {
        return Err(unusable("too long"));
    }
    let decoded = percent_decoded(value.as_bytes()).ok_or_else(|| unusable("not percent-encoded"))?;
    String::from_utf8(decoded).map_err(|_| unusable("not text"))
}

/// RFC 3986, 2.1. A plus sign is itself.
fn percent_decoded(text: &[u8]) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                u8::try_from(digit(rest.next()?)? << 4 | digit(rest.next()?)?).ok()?
            }
            other => *other,
        });
    }
    Some(decoded)
}

/// The four documents of one platform.
pub(crate) struct Parts<'c> {
    pub(crate) tcb_info: &'c Content,
    pub(crate) qe_identity: &'c Content,
    pub(crate) pck_crl: &'c Content,
    pub(crate) root_crl: &'c Content,
}

impl Parts<'_> {
    /// Collateral in its canonical form. What Intel signed goes in as text, byte for byte.
    pub(crate) fn collateral(&self) -> Result<Vec<u8>, FetchError> {
        let json = json!({
            "pck_crl_issuer_chain": self.pck_crl.chain,
            "root_ca_crl": hex::encode(&self.root_crl.body),
            "pck_crl": hex::encode(&self.pck_crl.body),
            "tcb_info_issuer_chain": self.tcb_info.chain,
            "tcb_info": String::from_utf8_lossy(&self.tcb_info.body),
            "qe_identity_issuer_chain": self.qe_identity.chain,
            "qe_identity": String::from_utf8_lossy(&self.qe_identity.body),
        });
        canonical_collateral(json.to_string().as_bytes())
            .map_err(|error| FetchError::Unusable(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chains_come_percent_encoded_under_either_name() {
        let chain = |name: &'static str, value: &str| {
            let headers: HeaderMap =
                [(name.parse().expect("a name"), value.parse().expect("a value"))].into_iter().collect();
            issuer_chain(&headers, &["tcb-info-issuer-chain", "sgx-tcb-info-issuer-chain"])
        };
        let expected = Ok("-----BEGIN CERTIFICATE-----\nMII+/=\n".to_owned());
        let encoded = "-----BEGIN%20CERTIFICATE-----%0AMII%2B%2f%3D%0A";
        assert_eq!(chain("tcb-info-issuer-chain", encoded), expected);
        assert_eq!(chain("sgx-tcb-info-issuer-chain", &encoded.replace("%2B", "+")), expected);
        for bad in ["%", "%4", "%zz", "%ff"] {
            assert!(chain("tcb-info-issuer-chain", bad).is_err(), "{bad}");
        }
        assert!(chain("another", encoded).is_err());
        assert!(chain("tcb-info-issuer-chain", &"a".repeat(MAX_CHAIN + 1)).is_err());
    }
}
