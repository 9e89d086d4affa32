//! An Azure look-alike around AMD's and Intel's: a paravisor's report, its virtual TPM's key, and quotes that it really signs.

use std::sync::OnceLock;

use aws_lc_rs::digest;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair as RsaKey, KeySize};
use aws_lc_rs::signature::{KeyPair, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use cocoon_attestation::snp::{KeyKind, Product};
use cocoon_attestation::{Endorsement, Endorsements, Measurements, TrustAnchors, UnixTime};
use cocoon_simulated_tee::{AttestationKey, Draft, SimulatedRoot, Td};
use serde_json::{Value, json};

use super::amd::{Guest, NOW};

/// The virtual TPM's key, once per process.
fn attestation_key() -> &'static RsaKey {
    static KEY: OnceLock<RsaKey> = OnceLock::new();
    KEY.get_or_init(|| RsaKey::generate(KeySize::Rsa2048).expect("the system's random source works"))
}

fn other_key() -> &'static RsaKey {
    static KEY: OnceLock<RsaKey> = OnceLock::new();
    KEY.get_or_init(|| RsaKey::generate(KeySize::Rsa2048).expect("the system's random source works"))
}

/// An Intel look-alike, once per process.
fn intel() -> &'static (SimulatedRoot, AttestationKey) {
    static INTEL: OnceLock<(SimulatedRoot, AttestationKey)> = OnceLock::new();
    INTEL.get_or_init(|| (SimulatedRoot::create(UnixTime(NOW)), AttestationKey::generate()))
}

pub fn sha256(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA256, bytes).as_ref().to_vec()
}

fn sha384(bytes: &[u8]) -> Vec<u8> {
    digest::digest(&digest::SHA384, bytes).as_ref().to_vec()
}

/// Modulus of a key of 2048 bits: it stands at a fixed place in PKCS #1.
fn modulus(key: &RsaKey) -> &[u8] {
    &key.public_key().as_ref()[9..265]
}

/// What lies below the paravisor.
#[derive(Clone)]
pub enum Below {
    Snp(Box<Guest>),
    Tdx,
}

/// Changes one thing.
pub type Change<T> = fn(&mut T);

/// A machine on Azure: a draft of its evidence.
#[derive(Clone)]
pub struct Azure {
    pub below: Below,
    /// JSON of the runtime data.
    pub runtime: Value,
    /// What the hardware binds; the hash of the runtime data, if not given.
    pub report_data: Option<[u8; 64]>,
    /// After the HCL report was put together.
    pub change_hcl: Change<Vec<u8>>,
    pub extra_data: Vec<u8>,
    pub pcrs: Vec<[u8; 32]>,
    /// The registers' part of the quote: count, bank, length, bits.
    pub selection: Vec<u8>,
    /// Before the quote is signed.
    pub change_quote: Change<Vec<u8>>,
    pub forged_quote: bool,
    /// After the evidence was put together in its newer form.
    pub change_json: Change<Value>,
}

impl Azure {
    /// A healthy machine.
    pub fn new(below: Below) -> Self {
        let key = |name: &str, operation: &str, key: &RsaKey| json!({"kid": name, "key_ops": [operation], "kty": "RSA", "e": "AQAB", "n": URL_SAFE_NO_PAD.encode(modulus(key))});
        let keys = [key("HCLAkPub", "sign", attestation_key()), key("HCLEkPub", "encrypt", other_key())];
        let vm = json!({"console-enabled": false, "secure-boot": true, "tpm-enabled": true, "vmUniqueId": "0-1-2"});
        Self {
            below,
            runtime: json!({"keys": keys, "vm-configuration": vm, "user-data": "00".repeat(64)}),
            report_data: None,
            change_hcl: |_| {},
            extra_data: b"challenge".to_vec(),
            pcrs: (0..24).map(|at| [at; 32]).collect(),
            selection: vec![0, 0, 0, 1, 0, 0x0b, 3, 0xff, 0xff, 0xff],
            change_quote: |_| {},
            forged_quote: false,
            change_json: |_| {},
        }
    }

    pub fn snp() -> Self {
        Self::new(Below::Snp(Box::new(Guest::new(Product::Genoa, KeyKind::Vcek, 3))))
    }

    pub fn tdx() -> Self {
        Self::new(Below::Tdx)
    }

    /// Evidence in its newer form, endorsements and anchors.
    pub fn issue(&self) -> (Vec<u8>, Endorsements, TrustAnchors) {
        let runtime = self.runtime.to_string().into_bytes();
        let mut report_data = [0; 64];
        report_data[..32].copy_from_slice(&sha256(&runtime));
        let report_data = self.report_data.unwrap_or(report_data);
        let (kind, report, hardware, endorsements, anchors) = match &self.below {
            Below::Snp(guest) => {
                let mut guest = guest.clone();
                guest.put(0x50, &report_data);
                let (report, endorsements, anchors) = guest.issue();
                let vcek = endorsements.items().iter().find_map(vek).expect("the kit makes one");
                (2, report, ("vcek", vcek), endorsements, anchors)
            }
            Below::Tdx => {
                let (quote, endorsements, anchors) = td_quote(&report_data);
                (4, td_report(&quote[48..]), ("td_quote", quote), endorsements, anchors)
            }
        };
        let mut hcl = hcl_report(kind, &report, &runtime);
        (self.change_hcl)(&mut hcl);
        let (message, signature) = self.tpm_quote();
        let mut evidence = json!({
            "version": 1,
            "tpm_quote": {
                "signature": hex::encode(signature),
                "message": hex::encode(message),
                "pcrs": self.pcrs.iter().map(hex::encode).collect::<Vec<_>>(),
            },
            "hcl_report": URL_SAFE.encode(hcl),
            hardware.0: URL_SAFE.encode(hardware.1),
        });
        (self.change_json)(&mut evidence);
        (evidence.to_string().into_bytes(), endorsements, anchors)
    }

    fn tpm_quote(&self) -> (Vec<u8>, Vec<u8>) {
        let counted = |bytes: &[u8]| [&(bytes.len() as u16).to_be_bytes()[..], bytes].concat();
        let mut message = [
            &[0xff, 0x54, 0x43, 0x47, 0x80, 0x18][..],
            &counted(&[7; 34]),
            &counted(&self.extra_data),
            &[1; 17],
            &[2; 8],
            &self.selection,
            &counted(&sha256(self.pcrs.as_flattened())),
        ]
        .concat();
        (self.change_quote)(&mut message);
        let key = if self.forged_quote { other_key() } else { attestation_key() };
        let mut signature = vec![0; key.public_modulus_len()];
        key.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), &message, &mut signature).expect("signs");
        (message, signature)
    }
}

/// The VEK among the look-alike's certificates: the one with AMD's extensions.
fn vek(item: &Endorsement) -> Option<Vec<u8>> {
    let amd = super::amd::amd_oid(&[2]);
    match item {
        Endorsement::Certificate(der) if der.windows(amd.len()).any(|window| window == amd) => {
            Some(der.clone())
        }
        _ => None,
    }
}

fn td_quote(report_data: &[u8; 64]) -> (Vec<u8>, Endorsements, TrustAnchors) {
    let (root, key) = intel();
    let registers = Measurements {
        mrtd: [0xa0; 48],
        rtmr: [[0; 48]; 4],
        mrconfigid: [0; 48],
        mrowner: [0; 48],
        mrownerconfig: [0; 48],
    };
    let quote = root.sign_quote(&Draft::honest(&Td::new(registers), report_data, key), key);
    let mut endorsements = Endorsements::none();
    endorsements.push(Endorsement::IntelCollateral(root.collateral(UnixTime(NOW))));
    let anchors = TrustAnchors::hardware().with_simulated_root(root.root_der()).expect("a root");
    (quote, endorsements, anchors)
}

/// The TDREPORT from which this body (and what follows it) was quoted.
fn td_report(body: &[u8]) -> Vec<u8> {
    let mut report = vec![0; 1024];
    report[0] = 0x81;
    report[16..32].fill(0xc5);
    report[128..192].copy_from_slice(&body[520..584]);
    report[224..256].fill(0x3a);
    report[264..384].copy_from_slice(&body[..120]);
    report[512..912].copy_from_slice(&body[120..520]);
    let (tcb, td) = (sha384(&report[256..495]), sha384(&report[512..]));
    report[32..80].copy_from_slice(&tcb);
    report[80..128].copy_from_slice(&td);
    report
}

fn hcl_report(kind: u32, hardware: &[u8], runtime: &[u8]) -> Vec<u8> {
    let length = runtime.len() as u32;
    let words = |words: &[u32]| words.iter().flat_map(|word| word.to_le_bytes()).collect::<Vec<u8>>();
    let mut report =
        [b"HCLA".to_vec(), words(&[1, 1236 + length, 2, 0, 0, 0, 0]), hardware.to_vec()].concat();
    report.resize(1216, 0);
    report.extend(words(&[20 + length, 1, kind, 1, length]));
    report.extend_from_slice(runtime);
    report.resize(report.len() + 150, 0);
    report
}

/// The same evidence in the form from before versions: arrays of bytes, and a certificate in PEM.
pub fn old_form(json: &[u8]) -> Vec<u8> {
    let evidence: Value = serde_json::from_slice(json).expect("the newer form");
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let hex = |value: &Value| json!(hex::decode(text(value)).expect("hex"));
    let base64 = |value: &Value| json!(URL_SAFE.decode(text(value)).expect("base64url"));
    let tpm = &evidence["tpm_quote"];
    let pcrs: Vec<Value> = tpm["pcrs"].as_array().expect("registers").iter().map(hex).collect();
    let quote = json!({"signature": hex(&tpm["signature"]), "message": hex(&tpm["message"]), "pcrs": pcrs});
    let report = base64(&evidence["hcl_report"]);
    match evidence.get("td_quote") {
        Some(td_quote) => json!({"tpm_quote": quote, "hcl_report": report, "td_quote": base64(td_quote)}),
        None => {
            let der = URL_SAFE.decode(text(&evidence["vcek"])).expect("base64url");
            let lines = base64::engine::general_purpose::STANDARD.encode(der);
            let pem = format!("-----BEGIN CERTIFICATE-----\n{lines}\n-----END CERTIFICATE-----\n");
            json!({"quote": quote, "report": report, "vcek": pem})
        }
    }
    .to_string()
    .into_bytes()
}
