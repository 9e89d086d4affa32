//! One question to one service: where it is asked, where the answer is kept, and whether it answers.

use cocoon_attestation::nvidia::{ocsp_document, rim_document};
use cocoon_attestation::snp::{AmdNeeds, KeyKind, Product};
use cocoon_attestation::{Document, Endorsement, IntelNeeds, Malformed, Need, PckCa, crl_document};

use crate::cache::digest;
use crate::http::Answer;
use crate::{FetchError, Service, intel};

const DAY: u64 = 86_400;
const HOUR: u64 = 3_600;

/// Most bytes of one of Intel's documents: the longest has about 30 KiB.
const MAX_DOCUMENT: usize = 512 * 1024;
/// Most bytes of a revocation list, as the verifier takes them.
const MAX_CRL: usize = 512 * 1024;
const MAX_CERTIFICATE: usize = 16 * 1024;
/// Most bytes of a RIM in base64 inside JSON: the verifier takes 1 MiB of XML.
const MAX_RIM: usize = 3 * 512 * 1024;
const MAX_OCSP: usize = 64 * 1024;
/// Longest name of a RIM, in bytes.
const MAX_RIM_NAME: usize = 128;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Question {
    TcbInfo(IntelNeeds),
    QeIdentity(IntelNeeds),
    PckCrl(PckCa),
    RootCrl,
    Vcek(AmdNeeds),
    AmdCrl(Product, KeyKind),
    Rim(String),
    Ocsp(Vec<u8>),
}

/// An answer as it is kept: the document, and the chain of its issuer where the service gives one beside it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) body: Vec<u8>,
    /// PEM; empty if there is none.
    pub(crate) chain: String,
}

impl Question {
    /// What a need comes down to: Intel's collateral is four documents.
    pub(crate) fn of(need: &Need) -> Result<Vec<Self>, FetchError> {
        Ok(match need {
            Need::IntelCollateral(needs) => {
                vec![Self::TcbInfo(*needs), Self::QeIdentity(*needs), Self::PckCrl(needs.ca), Self::RootCrl]
            }
            Need::Vek(needs) if needs.key == KeyKind::Vlek => {
                return Err(FetchError::NotOffered(
                    "a VLEK is the cloud's to give: no public service has it",
                ));
            }
            Need::Vek(needs) if needs.chip_id.is_none() || needs.products.is_empty() => {
                return Err(FetchError::NotOffered("the report does not say which chip it is from"));
            }
            Need::Vek(needs) => vec![Self::Vcek(needs.clone())],
            Need::AmdCrl { product, key } => vec![Self::AmdCrl(*product, *key)],
            Need::Rim(id) if !is_rim_name(id) => {
                return Err(FetchError::NotOffered(
                    "what the device says of its versions makes no RIM's name",
                ));
            }
            Need::Rim(id) => vec![Self::Rim(id.clone())],
            Need::Ocsp(request) => vec![Self::Ocsp(request.clone())],
        })
    }

    pub(crate) fn service(&self) -> Service {
        match self {
            Self::TcbInfo(_) | Self::QeIdentity(_) | Self::PckCrl(_) => Service::IntelPcs,
            Self::RootCrl => Service::IntelCertificates,
            Self::Vcek(_) | Self::AmdCrl(..) => Service::AmdKds,
            Self::Rim(_) => Service::NvidiaRim,
            Self::Ocsp(_) => Service::NvidiaOcsp,
        }
    }

    /// Paths below the service's address, to be tried in order while the service does not have it: an SNP report of version 2
    /// does not name its processor.
    pub(crate) fn paths(&self) -> Vec<String> {
        match self {
            Self::TcbInfo(needs) => {
                vec![format!("/{}/certification/v4/tcb?fmspc={}", needs.tee.name(), hex::encode(needs.fmspc))]
            }
            Self::QeIdentity(needs) => vec![format!("/{}/certification/v4/qe/identity", needs.tee.name())],
            Self::PckCrl(ca) => vec![format!("/sgx/certification/v4/pckcrl?ca={}&encoding=der", ca.name())],
            Self::RootCrl => vec!["/IntelSGXRootCA.der".to_owned()],
            Self::Vcek(needs) => {
                needs.products.iter().filter_map(|product| needs.vcek_path(*product)).collect()
            }
            Self::AmdCrl(product, key) => {
                vec![format!("/{}/v1/{}/crl", key.name().to_lowercase(), product.name())]
            }
            Self::Rim(id) => vec![format!("/v1/rim/{id}")],
            Self::Ocsp(_) => vec!["/".to_owned()],
        }
    }

    /// An OCSP request is POSTed (RFC 6960, A.1).
    pub(crate) fn posted(&self) -> Option<&[u8]> {
        match self {
            Self::Ocsp(request) => Some(request),
            _ => None,
        }
    }

    /// Most bytes of an answer.
    pub(crate) fn limit(&self) -> usize {
        match self {
            Self::TcbInfo(_) | Self::QeIdentity(_) => MAX_DOCUMENT,
            Self::PckCrl(_) | Self::RootCrl | Self::AmdCrl(..) => MAX_CRL,
            Self::Vcek(_) => MAX_CERTIFICATE,
            Self::Rim(_) => MAX_RIM,
            Self::Ocsp(_) => MAX_OCSP,
        }
    }

    /// Folder and file in the cache: by what it is.
    pub(crate) fn place(&self) -> (&'static str, String) {
        match self {
            Self::TcbInfo(needs) => {
                ("intel", format!("tcb-{}-{}", needs.tee.name(), hex::encode(needs.fmspc)))
            }
            Self::QeIdentity(needs) => ("intel", format!("qe-{}", needs.tee.name())),
            Self::PckCrl(ca) => ("intel", format!("pckcrl-{}", ca.name())),
            Self::RootCrl => ("intel", "rootcrl".to_owned()),
            // A chip's id is long, and nobody else's business.
            Self::Vcek(_) => ("amd", format!("vcek-{}", short(self.paths().join(" ").as_bytes()))),
            Self::AmdCrl(product, key) => {
                ("amd", format!("crl-{}-{}", key.name().to_lowercase(), product.name()))
            }
            Self::Rim(id) => ("nvidia", format!("rim-{id}")),
            Self::Ocsp(request) => ("nvidia", format!("ocsp-{}", short(request))),
        }
    }

    /// For people.
    pub(crate) fn what(&self) -> String {
        match self {
            Self::TcbInfo(needs) => {
                format!("{} TCB info of {}", needs.tee.name().to_uppercase(), hex::encode(needs.fmspc))
            }
            Self::QeIdentity(needs) => format!("{} QE identity", needs.tee.name().to_uppercase()),
            Self::PckCrl(ca) => format!("revocation list of the PCK {} CA", ca.name()),
            Self::RootCrl => "revocation list of Intel's root".to_owned(),
            Self::Vcek(needs) => {
                let names: Vec<&str> = needs.products.iter().map(|product| product.name()).collect();
                format!("VCEK of the chip ({})", names.join(" or "))
            }
            Self::AmdCrl(product, key) => format!("{} revocation list of {}", key.name(), product.name()),
            Self::Rim(id) => format!("RIM {id}"),
            Self::Ocsp(request) => format!("revocation status {}", &short(request)[..8]),
        }
    }

    /// Seconds for which an answer in date is used without asking again.
    pub(crate) fn fresh_for(&self) -> u64 {
        match self {
            // A chip's key for one TCB never changes; whether it was taken back stands in the list.
            Self::Vcek(_) => u64::MAX,
            Self::Ocsp(_) => HOUR,
            _ => DAY,
        }
    }

    /// What is kept of an answer.
    pub(crate) fn content(&self, answer: Answer) -> Result<Content, FetchError> {
        let Answer { body, headers } = answer;
        let chain = match self {
            Self::TcbInfo(_) => {
                intel::issuer_chain(&headers, &["tcb-info-issuer-chain", "sgx-tcb-info-issuer-chain"])?
            }
            Self::QeIdentity(_) => intel::issuer_chain(&headers, &["sgx-enclave-identity-issuer-chain"])?,
            Self::PckCrl(_) => intel::issuer_chain(&headers, &["sgx-pck-crl-issuer-chain"])?,
            _ => String::new(),
        };
        let body = match self {
            Self::Rim(id) => rim_of_json(id, &body)?,
            _ => body,
        };
        Ok(Content { body, chain })
    }

    /// Does it answer this question, and when does it count? Signatures are the verifier's work.
    pub(crate) fn document(&self, content: &Content) -> Result<Document, Malformed> {
        let body = &content.body;
        match self {
            Self::TcbInfo(needs) => needs.tcb_info(body),
            Self::QeIdentity(needs) => needs.tee.qe_identity(body),
            Self::PckCrl(_) | Self::RootCrl | Self::AmdCrl(..) => {
                let (document, issuer) = crl_document(body)?;
                if !self.is_issuer(&issuer) {
                    let reason = format!("asked for another: its issuer is {:?}", issuer.escape_debug());
                    return Err(Malformed { what: "CRL", offset: None, field: "issuer", reason });
                }
                Ok(document)
            }
            Self::Vcek(needs) => needs.vcek(body),
            Self::Rim(id) => rim_document(id, body),
            Self::Ocsp(request) => ocsp_document(request, body),
        }
    }

    /// By its common name, so that a list does not stand in another's place.
    fn is_issuer(&self, name: &str) -> bool {
        match self {
            Self::PckCrl(PckCa::Processor) => name.ends_with("PCK Processor CA"),
            Self::PckCrl(PckCa::Platform) => name.ends_with("PCK Platform CA"),
            Self::RootCrl => name.ends_with("Root CA"),
            Self::AmdCrl(product, _) => name.ends_with(&format!("-{}", product.name())),
            _ => true,
        }
    }

    /// What the verifier takes; Intel's documents are put together first.
    pub(crate) fn endorsement(&self, content: Content) -> Option<Endorsement> {
        match self {
            Self::TcbInfo(_) | Self::QeIdentity(_) | Self::PckCrl(_) | Self::RootCrl => None,
            Self::Vcek(_) => Some(Endorsement::Certificate(content.body)),
            Self::AmdCrl(..) => Some(Endorsement::Crl(content.body)),
            Self::Rim(_) => Some(Endorsement::Rim(content.body)),
            Self::Ocsp(_) => Some(Endorsement::OcspResponse(content.body)),
        }
    }
}

/// Thirty-two hex digits of a hash.
fn short(bytes: &[u8]) -> String {
    hex::encode(&digest(&[bytes])[..16])
}

/// The device says its versions, and nobody has verified it yet: the name must not lead out of a folder or a path.
fn is_rim_name(id: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    id.starts_with("NV_") && id.len() <= MAX_RIM_NAME && id.bytes().all(plain)
}

/// `{"id": …, "rim": base64 of the XML, …}` (NVIDIA attestation documentation, "RIM service", GET /v1/rim/{id}). The digest
/// beside it proves nothing: the RIM is signed itself.
fn rim_of_json(id: &str, body: &[u8]) -> Result<Vec<u8>, FetchError> {
    use base64::Engine;
    #[derive(serde::Deserialize)]
    struct Json {
        id: String,
        rim: String,
    }
    let unusable = |why: String| FetchError::Unusable(why);
    let json: Json = serde_json::from_slice(body).map_err(|error| unusable(error.to_string()))?;
    if json.id != id {
        return Err(unusable(format!("it is the RIM {:?}", json.id.escape_debug())));
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(json.rim.trim());
    decoded.map_err(|error| unusable(format!("the RIM is not base64: {error}")))
}

#[cfg(test)]
mod tests {
    use cocoon_attestation::IntelTee;

    use super::*;

    /// Addresses as the vendors' documents give them: Intel PCS API v4; AMD 57230, chapter 4; NVIDIA's RIM service.
    #[test]
    fn every_question_is_asked_at_its_vendors_address() {
        let intel =
            |tee| IntelNeeds { fmspc: [0x90, 0xc0, 0x6f, 0, 0, 0], ca: PckCa::Processor, tee, root: [0; 32] };
        let (tdx, sgx) = (intel(IntelTee::Tdx), intel(IntelTee::Sgx));
        for (question, address) in [
            (Question::TcbInfo(tdx), "/tdx/certification/v4/tcb?fmspc=90c06f000000"),
            (Question::TcbInfo(sgx), "/sgx/certification/v4/tcb?fmspc=90c06f000000"),
            (Question::QeIdentity(tdx), "/tdx/certification/v4/qe/identity"),
            (Question::QeIdentity(sgx), "/sgx/certification/v4/qe/identity"),
            (Question::PckCrl(PckCa::Processor), "/sgx/certification/v4/pckcrl?ca=processor&encoding=der"),
            (Question::PckCrl(PckCa::Platform), "/sgx/certification/v4/pckcrl?ca=platform&encoding=der"),
            (Question::RootCrl, "/IntelSGXRootCA.der"),
            (Question::AmdCrl(Product::Turin, KeyKind::Vcek), "/vcek/v1/Turin/crl"),
            (Question::AmdCrl(Product::Milan, KeyKind::Vlek), "/vlek/v1/Milan/crl"),
            (Question::Rim("NV_A".into()), "/v1/rim/NV_A"),
            (Question::Ocsp(vec![0x30]), "/"),
        ] {
            assert_eq!(question.paths(), [address]);
            let (folder, name) = question.place();
            assert!(!folder.contains('/') && !name.contains('/') && !name.starts_with('.'), "{name}");
        }
    }

    #[test]
    fn a_rims_name_leads_nowhere_else() {
        for good in ["NV_GPU_DRIVER_GH100_580.95.05", "NV_GPU_VBIOS_1010_0200_882_96009F0001"] {
            assert!(is_rim_name(good), "{good}");
        }
        let long = format!("NV_{}", "A".repeat(MAX_RIM_NAME));
        for bad in ["", "NV", "..", "NV_/../x", "NV_a?b", "NV_a#b", "NV_a%2f", "NV_ ", "nv_a", "NV_ä", &long]
        {
            assert!(!is_rim_name(bad), "{bad}");
        }
    }

    #[test]
    fn a_rim_is_taken_from_its_json_under_its_own_name_alone() {
        let json = br#"{"id":"NV_A","rim":"PGE+","sha256":"00","last_updated":"x","rim_format":"TCG"}"#;
        assert_eq!(rim_of_json("NV_A", json), Ok(b"<a>".to_vec()));
        assert!(rim_of_json("NV_B", json).is_err());
        assert!(rim_of_json("NV_A", br#"{"id":"NV_A","rim":"%"}"#).is_err());
        assert!(rim_of_json("NV_A", b"<html>").is_err());
    }
}
