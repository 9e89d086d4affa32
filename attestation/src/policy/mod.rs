//! What a relying party accepts. An empty list allows nothing.

mod appraise;
mod azure;
mod compare;
mod coverage;
mod explain;
mod field;
mod freshness;
mod gpu;
mod snp;
mod tdx;
mod trusted;

pub use azure::AzureReference;
pub use explain::Paragraph;
pub use field::{Floor, Mask, Names, Pin, Switch};
pub use gpu::GpuRules;
pub use snp::{GuestPolicyRules, PlatformInfoRules, SnpReference, SnpRules, TcbFloor, TcbFloors};
pub use tdx::{TdxReference, TdxRules};
pub use trusted::Trusted;

use serde::{Deserialize, Serialize};

use crate::check::Finding;
use crate::{Exceptions, Measurements, PlatformId, RefusalKind, UnixTime};

/// The largest policy file, in bytes.
const MAX_POLICY: usize = 256 * 1024;
/// Most images, models or machines in a policy.
const MAX_ENTRIES: usize = 256;

/// Reference values and limits, all in one place. In TOML, with no other fields than these:
///
/// ```
/// let text = format!(r#"
///     network = -239
///     max_age_seconds = 3600
///     models = ["{weights}"]
///     exceptions = ["tcb:OutOfDate@2026-12-31"]
///
///     [[images]]
///     name = "guest 0.1.0"
///     [images.tdx]
///     mrtd = "{register}"
///     rtmr0 = ["{register}", "{register}"]
///     rtmr1 = "{register}"
///     rtmr2 = "{register}"
///     rtmr3 = "free"
///
///     [tdx]
///     mr_seam = "free"
///     tee_tcb_svn = "05000200000000000000000000000000"
///     attributes = {{ within = "0x40000000" }}
///     xfam = "free"
///
///     [platforms]
///     bar = ["ppid:00112233445566778899aabbccddeeff"]
/// "#, weights = "11".repeat(32), register = "22".repeat(48));
/// let policy = cocoon_attestation::Policy::from_toml(&text).unwrap();
/// assert!(cocoon_attestation::Policy::from_toml(&text.replace("rtmr3 = \"free\"", "")).is_err(), "no field is left out");
/// # assert_eq!(cocoon_attestation::Policy::from_toml(&policy.to_toml()), Ok(policy));
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
    /// What is accepted of TDX machines; without it, none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tdx: Option<TdxRules>,
    /// What is accepted of SEV-SNP machines; without it, none is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snp: Option<SnpRules>,
    /// What is accepted of GPUs; without it, a guest must show none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gpu: Option<GpuRules>,
    /// Machines and devices by name.
    #[serde(default, skip_serializing_if = "Platforms::is_free")]
    pub platforms: Platforms,
    /// Whose expectation this is, for refusals.
    #[serde(skip, default = "own")]
    source: String,
    /// Further sources, each of which must accept as well.
    #[serde(skip)]
    also: Vec<Source>,
}

fn own() -> String {
    "policy".to_owned()
}

/// One acceptable guest image, with reference values for each platform it runs on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageReference {
    /// Name shown to people.
    pub name: String,
    /// SHA-256 of its configuration, in hex. Without it the configuration is pinned by a register alone.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "digest")]
    pub configuration: Option<[u8; 32]>,
    /// On TDX; without it, the image is not accepted there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tdx: Option<TdxReference>,
    /// On SEV-SNP; without it, the image is not accepted there. SEV-SNP has no run-time registers, so `configuration` must
    /// be given too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snp: Option<SnpReference>,
    /// Behind Azure's paravisor; without it, the image is not accepted there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub azure: Option<AzureReference>,
}

impl ImageReference {
    /// An image on TDX with every register pinned.
    pub fn on_tdx(
        name: impl Into<String>,
        configuration: Option<[u8; 32]>,
        registers: &Measurements,
    ) -> Self {
        Self { name: name.into(), configuration, tdx: Some(registers.into()), snp: None, azure: None }
    }

    /// An image on SEV-SNP by its launch digest, whose host binds the configuration at launch (HOST_DATA), as a policy made of
    /// an image's manifest has it.
    pub fn on_snp(name: impl Into<String>, configuration: [u8; 32], launch: [u8; 48]) -> Self {
        let snp = SnpReference { host_data: Pin::to(configuration), ..SnpReference::pinned(launch) };
        Self { name: name.into(), configuration: Some(configuration), tdx: None, snp: Some(snp), azure: None }
    }
}

/// Machines and devices by name: `ppid:HEX` (Intel), `chip:HEX` (AMD), `gpu:HEX` (NVIDIA).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Platforms {
    /// Only these, if given: every id that evidence shows must be among them. An empty list accepts no machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub only: Option<Vec<PlatformId>>,
    /// Never these.
    #[serde(default)]
    pub bar: Vec<PlatformId>,
}

impl Platforms {
    fn is_free(&self) -> bool {
        *self == Self::default()
    }
}

/// The images and models of a release, as its manifest lists them. In TOML; the grammar of `images` is a policy's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Release {
    /// Name shown to people.
    pub name: String,
    /// Its images.
    #[serde(default)]
    pub images: Vec<ImageReference>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Source {
    Policy(Box<Policy>),
    Release(Release),
}

/// One source as the appraisal sees it.
struct Part<'a> {
    source: &'a str,
    policy: Option<&'a Policy>,
    images: &'a [ImageReference],
    models: Option<&'a [[u8; 32]]>,
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
        Self {
            network,
            max_age_seconds,
            models: Vec::new(),
            exceptions: Vec::new(),
            images: Vec::new(),
            tdx: None,
            snp: None,
            gpu: None,
            platforms: Platforms::default(),
            source: own(),
            also: Vec::new(),
        }
    }

    /// The same policy under the name that refusals show, for example "registry".
    #[must_use]
    pub fn named(mut self, source: impl Into<String>) -> Self {
        self.source = source.into();
        self
    }

    /// Joins another source: what comes out accepts only what both accept, so the strictest wins in every field.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.also.push(Source::Policy(Box::new(other)));
        self
    }

    /// Joins a release: only its images are accepted, and only those that were before.
    #[must_use]
    pub fn with_release(mut self, release: Release) -> Self {
        self.also.push(Source::Release(release));
        self
    }

    /// All sources, joined ones after one's own.
    fn parts(&self) -> Vec<Part<'_>> {
        let own = Part {
            source: &self.source,
            policy: Some(self),
            images: &self.images,
            models: Some(&self.models),
        };
        let joined = self.also.iter().flat_map(|source| match source {
            Source::Policy(policy) => policy.parts(),
            Source::Release(Release { name, images }) => {
                vec![Part { source: name, policy: None, images, models: None }]
            }
        });
        std::iter::once(own).chain(joined).collect()
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
        policy.check_limits()?;
        policy.check_whole()?;
        policy.exceptions()?;
        Ok(policy)
    }

    fn check_limits(&self) -> Result<(), InvalidPolicy> {
        let Platforms { only, bar } = &self.platforms;
        let counts = [self.images.len(), self.models.len(), bar.len(), only.as_ref().map_or(0, Vec::len)];
        if counts.iter().any(|count| *count > MAX_ENTRIES) {
            return Err(InvalidPolicy(format!("at most {MAX_ENTRIES} images, models and machines each")));
        }
        Ok(())
    }

    /// What accepts an image on a platform also says which machines of it: nothing is left to a default.
    fn check_whole(&self) -> Result<(), InvalidPolicy> {
        for image in &self.images {
            let ImageReference { name, configuration, tdx, snp, azure } = image;
            let below = azure.as_ref();
            let on_tdx = tdx.is_some() || below.is_some_and(|azure| azure.tdx.is_some());
            let on_snp = snp.is_some() || below.is_some_and(|azure| azure.snp.is_some());
            let wrong = if !on_tdx && !on_snp {
                "has values for no platform: add [images.tdx], [images.snp] or [images.azure]"
            } else if on_tdx && self.tdx.is_none() {
                "is for TDX, but [tdx] is missing: say which machines"
            } else if on_snp && self.snp.is_none() {
                "is for SEV-SNP, but [snp] is missing: say which machines"
            } else if snp.is_some() && configuration.is_none() {
                "is for SEV-SNP, which has no register for the configuration: add `configuration`"
            } else {
                continue;
            };
            return Err(InvalidPolicy(format!("image {name:?} {wrong}")));
        }
        let turin = self.snp.as_ref().and_then(|rules| rules.tcb.turin);
        if turin.is_some_and(|floor| floor.fmc.is_none()) {
            return Err(InvalidPolicy("the TCB floor of Turin has no `fmc`: write 0 for any".into()));
        }
        Ok(())
    }

    /// Writes this source's own text, without what was joined.
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("numbers, strings and tables always encode")
    }

    /// The exceptions that every joined policy makes, for [`crate::verify`]; of two expiries the earlier.
    ///
    /// # Errors
    /// If a name is not known.
    pub fn exceptions(&self) -> Result<Exceptions, InvalidPolicy> {
        let parse = |policy: &Self| {
            Exceptions::parse(policy.exceptions.iter().map(String::as_str))
                .map_err(|e| InvalidPolicy(e.to_string()))
        };
        let mut policies = self.parts().into_iter().filter_map(|part| part.policy);
        let first = parse(policies.next().unwrap_or(self))?;
        policies.try_fold(first, |all, policy| Ok(all.both(&parse(policy)?)))
    }
}

impl Release {
    /// Reads a release's manifest.
    ///
    /// # Errors
    /// If a field is missing, unknown or malformed, or a limit is exceeded.
    pub fn from_toml(text: &str) -> Result<Self, InvalidPolicy> {
        if text.len() > MAX_POLICY {
            return Err(InvalidPolicy(format!("{} bytes, at most {MAX_POLICY}", text.len())));
        }
        let release: Self = toml::from_str(text).map_err(|e| InvalidPolicy(e.to_string()))?;
        if release.images.len() > MAX_ENTRIES {
            return Err(InvalidPolicy(format!("at most {MAX_ENTRIES} images")));
        }
        Ok(release)
    }
}

fn rejected(expected: String, got: String, likely: &str, remedy: &str) -> Finding {
    Finding { kind: RefusalKind::Rejected, expected, got, likely: likely.into(), remedy: remedy.into() }
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
