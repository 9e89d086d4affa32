//! What computed an answer, in the open part of a receipt.

use crate::cbor::{Fields, Map};
use serde::{Serialize, Serializer};

/// Which engine answered: enough to know whether, and with what, an answer can be computed again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct EngineId {
    /// Whose it is.
    pub kind: EngineKind,
    /// Its release: major, minor, patch. For people, who have to find the program.
    pub version: [u16; 3],
    /// Of its arithmetic: two engines of one digest give the same tokens for the same run, on every CPU.
    #[serde(serialize_with = "as_hex")]
    pub digest: [u8; 32],
    /// What it computed with.
    pub kernels: Kernels,
}

/// Whose engine it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// Cocoon's own, which gives the same bits every time.
    Cocoon,
    /// A supervised child, such as a server made for many GPUs. What it answers depends on what it answers beside it: it
    /// cannot be replayed. The digest is of the child's program.
    Child,
}

/// What an engine computed with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// The CPU, whatever its instruction set: all give the same bits.
    Cpu,
    /// A GPU, with the kernel set of this digest.
    Gpu([u8; 32]),
}

impl Serialize for Kernels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Cpu => serializer.serialize_str("cpu"),
            Self::Gpu(digest) => serializer.serialize_str(&hex::encode(digest)),
        }
    }
}

fn as_hex<S: Serializer>(bytes: &[u8; 32], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&hex::encode(bytes))
}

impl EngineId {
    /// Whether the same run gives the same tokens again.
    pub fn is_replayable(&self) -> bool {
        self.kind == EngineKind::Cocoon
    }

    /// Its release, for people.
    pub fn release(&self) -> String {
        let [major, minor, patch] = self.version;
        format!("{major}.{minor}.{patch}")
    }

    /// Keys 11 to 14 of a receipt.
    pub(crate) fn add_to(self, map: Map) -> Map {
        let kind = match self.kind {
            EngineKind::Cocoon => 0,
            EngineKind::Child => 1,
        };
        let kernels = match &self.kernels {
            Kernels::Cpu => [].as_slice(),
            Kernels::Gpu(digest) => digest,
        };
        map.int(11, kind).ints(12, &self.version.map(u64::from)).bytes(13, &self.digest).bytes(14, kernels)
    }

    /// What [`Self::add_to`] wrote.
    pub(crate) fn take_from(fields: &mut Fields) -> Option<Self> {
        let kind = match fields.int::<u8>(11)? {
            0 => EngineKind::Cocoon,
            1 => EngineKind::Child,
            _ => return None,
        };
        let version = fields.ints(12)?;
        let digest = fields.array(13)?;
        let kernels = match fields.bytes(14)? {
            none if none.is_empty() => Kernels::Cpu,
            digest => Kernels::Gpu(digest.try_into().ok()?),
        };
        Some(Self { kind, version, digest, kernels })
    }
}
