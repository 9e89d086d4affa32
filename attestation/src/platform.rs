//! What the vendor says about the machine.

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::UnixTime;

/// Whose evidence it is: the word in the verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PlatformKind {
    /// Intel TDX.
    Tdx,
    /// Intel SGX.
    Sgx,
    /// AMD SEV-SNP.
    Snp,
    /// SEV-SNP behind Azure's paravisor.
    AzureSnp,
    /// TDX behind Azure's paravisor.
    AzureTdx,
    /// NVIDIA GPUs or switches by themselves.
    Nvidia,
}

impl PlatformKind {
    /// `tdx`, `sgx`, `snp`, `azure-snp`, `azure-tdx` or `nvidia`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tdx => "tdx",
            Self::Sgx => "sgx",
            Self::Snp => "snp",
            Self::AzureSnp => "azure-snp",
            Self::AzureTdx => "azure-tdx",
            Self::Nvidia => "nvidia",
        }
    }
}

/// What the vendor says about the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    pub(crate) kind: PlatformKind,
    pub(crate) simulated: bool,
    /// Product line: `Milan`, `Genoa` or `Turin` for AMD; empty for others.
    pub product: &'static str,
    /// TCB status by Intel's name; for others `UpToDate`, since a TCB below the floor is refused.
    pub tcb_status: String,
    /// Security advisories that apply.
    pub advisories: Vec<String>,
    /// Intel's `tcbEvaluationDataNumber`: keep the highest seen as the next floor.
    pub evaluation_number: Option<u32>,
    /// What names this very machine and its GPUs.
    pub ids: Vec<PlatformId>,
    /// When the first of the endorsements runs out.
    pub good_until: UnixTime,
}

impl Platform {
    /// The word in the verdict.
    pub fn name(&self) -> &'static str {
        self.kind.name()
    }

    /// True if a simulated root vouches for it.
    pub fn simulated(&self) -> bool {
        self.simulated
    }
}

/// A name that one machine or device has, and no other.
///
/// In text: `ppid:HEX`, `chip:HEX` or `gpu:HEX`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(into = "String")]
pub struct PlatformId {
    kind: &'static str,
    value: Vec<u8>,
}

impl PlatformId {
    const KINDS: [&str; 3] = ["ppid", "chip", "gpu"];

    /// Intel's provisioning id, from the PCK certificate.
    pub(crate) fn ppid(value: &[u8]) -> Self {
        Self { kind: "ppid", value: value.to_vec() }
    }

    /// AMD's CHIP_ID, from the VCEK.
    pub(crate) fn chip(value: &[u8]) -> Self {
        Self { kind: "chip", value: value.to_vec() }
    }

    /// An NVIDIA device's identity, from its certificate.
    pub(crate) fn gpu(value: &[u8]) -> Self {
        Self { kind: "gpu", value: value.to_vec() }
    }

    /// Is it of the sort that names machines of this kind?
    pub(crate) fn is_alike(&self, kind: PlatformKind) -> bool {
        self.kind
            == match kind {
                PlatformKind::Tdx | PlatformKind::Sgx | PlatformKind::AzureTdx => "ppid",
                PlatformKind::Snp | PlatformKind::AzureSnp => "chip",
                PlatformKind::Nvidia => "gpu",
            }
    }

    /// Reads the text form; values have 1 to 64 bytes.
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, value) = text.split_once(':')?;
        let kind = Self::KINDS.into_iter().find(|known| *known == kind)?;
        let value = hex::decode(value).ok().filter(|value| (1..=64).contains(&value.len()))?;
        Some(Self { kind, value })
    }
}

impl std::fmt::Display for PlatformId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.kind, hex::encode(&self.value))
    }
}

impl<'de> Deserialize<'de> for PlatformId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let wrong = || D::Error::custom(format!("{text:?} is not ppid:HEX, chip:HEX or gpu:HEX"));
        Self::parse(&text).ok_or_else(wrong)
    }
}

impl From<PlatformId> for String {
    fn from(id: PlatformId) -> Self {
        id.to_string()
    }
}

/// Ids that more than one of these platforms shows, each with the positions that show it: two workers on one machine, or
/// one worker that pretends to be two.
pub fn shared_ids<'a>(platforms: impl IntoIterator<Item = &'a Platform>) -> Vec<(PlatformId, Vec<usize>)> {
    let mut seen = std::collections::BTreeMap::<&PlatformId, Vec<usize>>::new();
    for (at, platform) in platforms.into_iter().enumerate() {
        for id in &platform.ids {
            let at_all = seen.entry(id).or_default();
            if at_all.last() != Some(&at) {
                at_all.push(at);
            }
        }
    }
    seen.into_iter().filter(|(_, at)| at.len() > 1).map(|(id, at)| (id.clone(), at)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn platform(ids: &[PlatformId]) -> Platform {
        Platform {
            kind: PlatformKind::Tdx,
            simulated: false,
            product: "",
            tcb_status: "UpToDate".into(),
            advisories: vec![],
            evaluation_number: None,
            ids: ids.to_vec(),
            good_until: UnixTime(0),
        }
    }

    #[test]
    fn an_id_that_two_platforms_show_is_found() {
        let (a, b) = (PlatformId::ppid(&[1; 16]), PlatformId::gpu(&[2; 16]));
        let list = [
            platform(&[a.clone(), b.clone()]),
            platform(&[PlatformId::ppid(&[3; 16])]),
            platform(&[b.clone(), b.clone()]),
        ];
        assert_eq!(shared_ids(&list), [(b, vec![0, 2])]);
        assert_eq!(shared_ids(&list[..2]), []);
    }

    #[test]
    fn ids_have_a_text_form() {
        for id in [PlatformId::ppid(&[1]), PlatformId::chip(&[2; 64]), PlatformId::gpu(&[3; 8])] {
            assert_eq!(PlatformId::parse(&id.to_string()), Some(id));
        }
        for bad in ["", "ppid", "ppid:", "ppid:1", "cpu:00", &format!("chip:{}", "00".repeat(65))] {
            assert_eq!(PlatformId::parse(bad), None, "{bad}");
        }
    }
}
