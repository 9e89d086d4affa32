//! What a relying party accepts. An empty list allows nothing.

use serde::{Deserialize, Serialize};

use crate::{Exceptions, Measurements, UnixTime};

/// The largest policy file, in bytes.
const MAX_POLICY: usize = 256 * 1024;
/// Most images or models in a policy.
const MAX_ENTRIES: usize = 256;

/// Reference values and limits, all in one place. In TOML, with no other fields than these:
///
/// ```
/// let policy = cocoon_attestation::Policy::from_toml(r#"
///     network = -239
///     max_age_seconds = 3600
///     models = ["1111111111111111111111111111111111111111111111111111111111111111"]
///     exceptions = ["tcb:OutOfDate@2026-12-31"]
///     [[images]]
///     name = "guest 0.1.0"
///     [images.measurements]
///     mrtd  = "00…"
/// "#);
/// assert!(policy.is_err(), "a measurement is 96 hex digits, and none may be left out");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// TON global id of the network.
    pub network: i32,
    /// Oldest acceptable beacon, in seconds.
    pub max_age_seconds: u64,
    /// SHA-256 of the weights of the models that are accepted, in hex.
    #[serde(default, with = "digests")]
    pub models: Vec<[u8; 32]>,
    /// Names for [`Exceptions`], to be handed to [`crate::verify`].
    #[serde(default)]
    pub exceptions: Vec<String>,
    /// The guest images that are accepted.
    #[serde(default)]
    pub images: Vec<ImageReference>,
}

/// One acceptable guest image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageReference {
    /// Name shown to people.
    pub name: String,
    /// SHA-256 of its configuration, in hex. Without it the configuration is pinned by RTMR2 alone.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "digest")]
    pub configuration: Option<[u8; 32]>,
    /// Its registers.
    pub measurements: Measurements,
}

/// What the relying party knows at the moment of appraisal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Context {
    /// Its clock.
    pub now: UnixTime,
    /// The block that its own view of the chain has at the statement's number. `None` means that it could not be
    /// looked up: then freshness cannot be judged, and the evidence is refused.
    pub beacon: Option<KnownBlock>,
    /// The challenge it sent, if it sent one: then the statement must carry it.
    pub nonce: Option<[u8; 32]>,
}

/// A masterchain block as the relying party itself knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownBlock {
    /// Its number.
    pub seqno: u32,
    /// Its root hash.
    pub root_hash: [u8; 32],
    /// When it was made.
    pub time: UnixTime,
}

/// A policy that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the policy cannot be used: {0}")]
pub struct InvalidPolicy(pub String);

impl Policy {
    /// A policy for one network that accepts nothing yet.
    pub fn new(network: i32, max_age_seconds: u64) -> Self {
        Self { network, max_age_seconds, models: Vec::new(), exceptions: Vec::new(), images: Vec::new() }
    }

    /// Reads a policy.
    ///
    /// # Errors
    /// If a field is missing, unknown or malformed, an exception is not known, or a limit is exceeded.
    pub fn from_toml(text: &str) -> Result<Self, InvalidPolicy> {
        if text.len() > MAX_POLICY {
            return Err(InvalidPolicy(format!("{} bytes, at most {MAX_POLICY}", text.len())));
        }
        let policy: Self = toml::from_str(text).map_err(|e| InvalidPolicy(e.to_string()))?;
        if policy.images.len() > MAX_ENTRIES || policy.models.len() > MAX_ENTRIES {
            return Err(InvalidPolicy(format!("at most {MAX_ENTRIES} images and models")));
        }
        policy.exceptions()?;
        Ok(policy)
    }

    /// Writes the policy.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("numbers, strings and tables always encode")
    }

    /// The exceptions it names, for [`crate::verify`].
    ///
    /// # Errors
    /// If a name is not known.
    pub fn exceptions(&self) -> Result<Exceptions, InvalidPolicy> {
        Exceptions::parse(self.exceptions.iter().map(String::as_str))
            .map_err(|e| InvalidPolicy(e.to_string()))
    }
}

fn digest_from_hex<E: serde::de::Error>(text: &str) -> Result<[u8; 32], E> {
    let mut out = [0; 32];
    hex::decode_to_slice(text, &mut out)
        .map_err(|e| E::custom(format!("{text:?} is not 64 hex digits: {e}")))?;
    Ok(out)
}

mod digest {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        value: &Option<[u8; 32]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(bytes) => serializer.serialize_str(&hex::encode(bytes)),
            None => serializer.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<[u8; 32]>, D::Error> {
        super::digest_from_hex(&String::deserialize(deserializer)?).map(Some)
    }
}

mod digests {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(values: &[[u8; 32]], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(values.iter().map(hex::encode))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<[u8; 32]>, D::Error> {
        Vec::<String>::deserialize(deserializer)?.iter().map(|text| super::digest_from_hex(text)).collect()
    }
}
