//! The statement: everything a guest says about itself, bound into its quote.
//!
//! Deterministic CBOR (RFC 8949, 4.2.1): a map with integer keys, shortest forms, nothing optional left out.
//!
//! | key | field | form |
//! | --- | --- | --- |
//! | 0 | version | unsigned, 1 |
//! | 1 | network | integer: TON global id |
//! | 2 | keys | map: 0 seal (1216 bytes, X-Wing), 1 receipt (32 bytes, Ed25519) |
//! | 3 | models | array of maps: 0 name (text), 1 weights (32 bytes) |
//! | 4 | configuration | 32 bytes |
//! | 5 | engine | 32 bytes |
//! | 6 | kernels | array of 32 bytes |
//! | 7 | GPU evidence | array of 32 bytes: SHA-256 of each record in the bundle |
//! | 8 | freshness | map: 0 beacon (map: 0 seqno, 1 root hash of 32 bytes), 1 nonce (32 bytes or null), 2 serial (unsigned) |

use serde::{Deserialize, Serialize};

use crate::bundle::{ByteString, Fixed};
use crate::{Malformed, crypto};

/// The only version there is.
pub const VERSION: u32 = 1;
/// The largest encoded statement, in bytes.
pub const MAX_STATEMENT: usize = 16 * 1024;
/// Length of the seal key (X-Wing public key), in bytes.
pub const SEAL_KEY: usize = 1216;
/// Most models in one statement.
pub const MAX_MODELS: usize = 16;
/// Most kernel digests in one statement.
pub const MAX_KERNELS: usize = 64;
/// Most GPU evidence digests in one statement.
pub const MAX_GPUS: usize = 16;
/// Longest model name, in bytes.
pub const MAX_MODEL_NAME: usize = 128;

const WHAT: &str = "statement";

/// What a guest says about itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// TON global id of the network it serves.
    pub network: i32,
    /// Public keys born in the guest at boot, one per role.
    pub keys: Keys,
    /// The models it answers with.
    pub models: Vec<ModelIdentity>,
    /// SHA-256 of its configuration.
    pub configuration: [u8; 32],
    /// SHA-256 naming its engine.
    pub engine: [u8; 32],
    /// SHA-256 of each GPU kernel module.
    pub kernels: Vec<[u8; 32]>,
    /// SHA-256 of each GPU evidence record in the bundle.
    pub gpu_evidence: Vec<[u8; 32]>,
    /// When it was made, provably.
    pub freshness: Freshness,
}

/// One public key per role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keys {
    /// X-Wing public key that prompts are sealed to: exactly [`SEAL_KEY`] bytes.
    pub seal: Vec<u8>,
    /// Ed25519 public key that signs receipts.
    pub receipt: [u8; 32],
}

/// A model by name and by content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelIdentity {
    /// Name shown to people.
    pub name: String,
    /// SHA-256 of the model file.
    pub weights: [u8; 32],
}

/// Proof of recency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freshness {
    /// A public block that did not exist before its time.
    pub beacon: Beacon,
    /// A client's own challenge.
    pub nonce: Option<[u8; 32]>,
    /// How many statements this guest had issued since it booted. Keys live as long as the count does, so no statement
    /// is ever issued twice, whatever a host asks for: what is remembered under one cannot be forgotten and begun anew.
    pub serial: u64,
}

/// A TON masterchain block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beacon {
    /// Its number.
    pub seqno: u32,
    /// Its root hash.
    pub root_hash: [u8; 32],
}

/// What the quote must carry as report data: SHA-512("cocoon statement v1" ‖ statement).
pub fn report_data(statement: &[u8]) -> [u8; 64] {
    crypto::sha512(&[b"cocoon statement v1", statement])
}

/// The nonce that a guest hands to its GPUs, so that their evidence is theirs for these keys at this time and for no
/// other statement. SHA-256 of, without separators:
///
/// | bytes | field |
/// | --- | --- |
/// | 19 | `cocoon gpu nonce v1` |
/// | 4 | length of the seal key, little-endian |
/// | 1216 | seal key |
/// | 32 | receipt key |
/// | 4 | beacon's seqno, little-endian |
/// | 32 | beacon's root hash |
/// | 1 | 1 if a client gave a nonce, else 0 |
/// | 32 or 0 | that nonce |
/// | 8 | serial, little-endian |
///
/// Each field has a fixed length or says its own, so no two inputs are encoded alike.
///
/// # Panics
/// For a seal key of 4 GiB or more; statements hold [`SEAL_KEY`] bytes.
pub fn gpu_nonce(keys: &Keys, freshness: &Freshness) -> [u8; 32] {
    crypto::sha256(&[
        b"cocoon gpu nonce v1",
        &u32::try_from(keys.seal.len()).expect("keys are short").to_le_bytes(),
        &keys.seal,
        &keys.receipt,
        &freshness.beacon.seqno.to_le_bytes(),
        &freshness.beacon.root_hash,
        &[u8::from(freshness.nonce.is_some())],
        freshness.nonce.as_ref().map_or(&[], |nonce| nonce.as_slice()),
        &freshness.serial.to_le_bytes(),
    ])
}

/// SHA-256 of the encoded statement: its name in headers and receipts.
pub fn digest(statement: &[u8]) -> [u8; 32] {
    crypto::sha256(&[statement])
}

impl Statement {
    /// The deterministic encoding.
    pub fn encode(&self) -> Vec<u8> {
        serde_cbor::ser::to_vec_packed(&Wire::from(self)).expect("plain values always encode")
    }

    /// Parses the one encoding a statement has.
    ///
    /// # Errors
    /// If the bytes are not exactly what [`Statement::encode`] gives, or exceed a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        if bytes.len() > MAX_STATEMENT {
            return Err(Malformed::new(WHAT, format!("{} bytes, at most {MAX_STATEMENT}", bytes.len())));
        }
        let wire: Wire =
            serde_cbor::from_slice(bytes).map_err(|e| Malformed::new(WHAT, format!("not its CBOR: {e}")))?;
        let statement = wire.checked()?;
        if statement.encode() != bytes {
            return Err(Malformed::new(WHAT, "not the deterministic encoding"));
        }
        Ok(statement)
    }
}

#[derive(Serialize, Deserialize)]
struct Wire {
    version: u32,
    network: i32,
    keys: WireKeys,
    models: Vec<WireModel>,
    configuration: Fixed<32>,
    engine: Fixed<32>,
    kernels: Vec<Fixed<32>>,
    gpu_evidence: Vec<Fixed<32>>,
    freshness: WireFreshness,
}

#[derive(Serialize, Deserialize)]
struct WireKeys {
    seal: ByteString,
    receipt: Fixed<32>,
}

#[derive(Serialize, Deserialize)]
struct WireModel {
    name: String,
    weights: Fixed<32>,
}

#[derive(Serialize, Deserialize)]
struct WireFreshness {
    beacon: WireBeacon,
    nonce: Option<Fixed<32>>,
    serial: u64,
}

#[derive(Serialize, Deserialize)]
struct WireBeacon {
    seqno: u32,
    root_hash: Fixed<32>,
}

impl From<&Statement> for Wire {
    fn from(s: &Statement) -> Self {
        let digests = |list: &[[u8; 32]]| list.iter().copied().map(Fixed).collect();
        let model = |m: &ModelIdentity| WireModel { name: m.name.clone(), weights: Fixed(m.weights) };
        Self {
            version: VERSION,
            network: s.network,
            keys: WireKeys { seal: ByteString(s.keys.seal.clone()), receipt: Fixed(s.keys.receipt) },
            models: s.models.iter().map(model).collect(),
            configuration: Fixed(s.configuration),
            engine: Fixed(s.engine),
            kernels: digests(&s.kernels),
            gpu_evidence: digests(&s.gpu_evidence),
            freshness: WireFreshness {
                beacon: WireBeacon {
                    seqno: s.freshness.beacon.seqno,
                    root_hash: Fixed(s.freshness.beacon.root_hash),
                },
                nonce: s.freshness.nonce.map(Fixed),
                serial: s.freshness.serial,
            },
        }
    }
}

impl Wire {
    fn check_limits(&self) -> Result<(), Malformed> {
        if self.version != VERSION {
            return Err(Malformed::new(
                WHAT,
                format!("version {}, this verifier knows {VERSION}", self.version),
            ));
        }
        if self.keys.seal.0.len() != SEAL_KEY {
            let got = self.keys.seal.0.len();
            return Err(Malformed::new(WHAT, format!("seal key of {got} bytes, must be {SEAL_KEY}")));
        }
        let counts = [
            ("models", self.models.len(), MAX_MODELS),
            ("kernels", self.kernels.len(), MAX_KERNELS),
            ("GPU evidence digests", self.gpu_evidence.len(), MAX_GPUS),
        ];
        for (name, count, most) in counts {
            if count > most {
                return Err(Malformed::new(WHAT, format!("{count} {name}, at most {most}")));
            }
        }
        if let Some(model) = self.models.iter().find(|m| m.name.is_empty() || m.name.len() > MAX_MODEL_NAME) {
            let got = model.name.len();
            return Err(Malformed::new(WHAT, format!("model name of {got} bytes, 1 to {MAX_MODEL_NAME}")));
        }
        Ok(())
    }

    fn checked(self) -> Result<Statement, Malformed> {
        self.check_limits()?;
        let model = |m: WireModel| ModelIdentity { name: m.name, weights: m.weights.0 };
        Ok(Statement {
            network: self.network,
            keys: Keys { seal: self.keys.seal.0, receipt: self.keys.receipt.0 },
            models: self.models.into_iter().map(model).collect(),
            configuration: self.configuration.0,
            engine: self.engine.0,
            kernels: self.kernels.into_iter().map(|d| d.0).collect(),
            gpu_evidence: self.gpu_evidence.into_iter().map(|d| d.0).collect(),
            freshness: Freshness {
                beacon: Beacon {
                    seqno: self.freshness.beacon.seqno,
                    root_hash: self.freshness.beacon.root_hash.0,
                },
                nonce: self.freshness.nonce.map(|n| n.0),
                serial: self.freshness.serial,
            },
        })
    }
}
