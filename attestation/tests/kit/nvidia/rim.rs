//! RIMs that are really signed. They are written in canonical form, so that what is signed is the text itself.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::digest::{SHA384, digest};

use super::pki::{CertPlan, Key};

pub struct RimPlan {
    pub version: String,
    pub product: String,
    /// Index, active, alternatives.
    pub golden: Vec<(u8, bool, Vec<Vec<u8>>)>,
    pub signer: CertPlan,
    pub authority: CertPlan,
    /// Under a root that calls itself NVIDIA's.
    pub wrong_root: bool,
    /// Before it is signed: the payload, and what the signature says of itself.
    pub before: fn(String) -> String,
    /// After it is signed.
    pub after: fn(String) -> String,
}

const SWID: &str = "http://standards.iso.org/iso/19770/-2/2015/schema.xsd";
const HASH: &str = "http://www.w3.org/2001/04/xmlenc#sha384";
const DSIG: &str = "http://www.w3.org/2000/09/xmldsig#";

impl RimPlan {
    pub fn new(version: &str, golden: Vec<(u8, bool, Vec<Vec<u8>>)>) -> Self {
        Self {
            version: version.into(),
            product: "GH100".into(),
            golden,
            signer: CertPlan::leaf("RIM signer", "RIM CA", 0x31),
            authority: CertPlan::authority("RIM CA", "RIM root", 0x32),
            wrong_root: false,
            before: |text| text,
            after: |text| text,
        }
    }

    fn resources(&self) -> String {
        let resource = |(index, active, values): &(u8, bool, Vec<Vec<u8>>)| {
            let active = if *active { "True" } else { "False" };
            let size = values.first().map_or(48, Vec::len);
            let hashes: String = values
                .iter()
                .enumerate()
                .map(|(at, value)| format!(" h:Hash{at}=\"{}\"", hex::encode(value)))
                .collect();
            format!(
                "<Resource active=\"{active}\" alternatives=\"{}\" index=\"{index}\" name=\"M{index}\" size=\"{size}\" \
                 type=\"Measurement\"{hashes}></Resource>",
                values.len()
            )
        };
        self.golden.iter().map(resource).collect()
    }

    /// Signs under the authority whose certificate and key are given, whose own issuer is `root`.
    pub fn sign(&self, signer: &Key, authority: &Key, root: (&[u8], &Key)) -> Vec<u8> {
        let root_element =
            format!("<SoftwareIdentity xmlns=\"{SWID}\" xmlns:h=\"{HASH}\" name=\"{}\">", self.product);
        let meta =
            format!("<Meta colloquialVersion=\"{}\" product=\"{}\"></Meta>", self.version, self.product);
        let body = (self.before)(format!("{meta}<Payload>{}</Payload>", self.resources()));
        let whole = format!("{root_element}{body}</SoftwareIdentity>");
        let digest = STANDARD.encode(digest(&SHA384, whole.as_bytes()));
        let inside = (self.before)(format!(
            "<ds:CanonicalizationMethod Algorithm=\"http://www.w3.org/2006/12/xml-c14n11\"></ds:CanonicalizationMethod>\
             <ds:SignatureMethod Algorithm=\"http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384\"></ds:SignatureMethod>\
             <ds:Reference URI=\"\"><ds:Transforms>\
             <ds:Transform Algorithm=\"http://www.w3.org/2000/09/xmldsig#enveloped-signature\"></ds:Transform>\
             <ds:Transform Algorithm=\"http://www.w3.org/2006/12/xml-c14n11\"></ds:Transform></ds:Transforms>\
             <ds:DigestMethod Algorithm=\"http://www.w3.org/2001/04/xmldsig-more#sha384\"></ds:DigestMethod>\
             <ds:DigestValue>{digest}</ds:DigestValue></ds:Reference>"
        ));
        let signed = format!(
            "<ds:SignedInfo xmlns=\"{SWID}\" xmlns:ds=\"{DSIG}\" xmlns:h=\"{HASH}\">{inside}</ds:SignedInfo>"
        );
        let value = STANDARD.encode(signer.sign_fixed(signed.as_bytes()));
        let certificates: String =
            [self.signer.sign(signer, authority), self.authority.sign(authority, root.1), root.0.to_vec()]
                .iter()
                .map(|der| format!("<ds:X509Certificate>{}</ds:X509Certificate>", STANDARD.encode(der)))
                .collect();
        let signature = format!(
            "<ds:Signature xmlns:ds=\"{DSIG}\"><ds:SignedInfo>{inside}</ds:SignedInfo><ds:SignatureValue>{value}\
             </ds:SignatureValue><ds:KeyInfo><ds:X509Data>{certificates}</ds:X509Data></ds:KeyInfo></ds:Signature>"
        );
        (self.after)(format!("{root_element}{body}{signature}</SoftwareIdentity>")).into_bytes()
    }
}
