//! What a policy says about a guest behind Azure's paravisor: the paravisor by the hardware's report, the guest by the
//! virtual TPM's registers.

use serde::{Deserialize, Serialize};

use super::compare::Comparison;
use super::field::Pin;
use super::snp::SnpReference;
use super::tdx::TdxReference;
use crate::azure::Vtpm;

/// How many PCRs there are.
const PCRS: usize = 24;

/// Reference values of one image on Azure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, try_from = "Text", into = "Text")]
pub struct AzureReference {
    /// The paravisor on SEV-SNP; without it, SEV-SNP is not accepted.
    pub snp: Option<SnpReference>,
    /// The paravisor on TDX; without it, TDX is not accepted.
    pub tdx: Option<TdxReference>,
    /// SHA-256 registers 0 to 23 of the virtual TPM: each pinned or free.
    pub pcrs: Box<[Pin<32>; PCRS]>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    pcrs: Vec<Pin<32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    snp: Option<SnpReference>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tdx: Option<TdxReference>,
}

impl TryFrom<Text> for AzureReference {
    type Error = String;

    fn try_from(Text { pcrs, snp, tdx }: Text) -> Result<Self, String> {
        let count = pcrs.len();
        let pcrs = pcrs
            .try_into()
            .map_err(|_| format!("{count} PCRs: write all {PCRS}, each pinned or \"free\""))?;
        Ok(Self { snp, tdx, pcrs: Box::new(pcrs) })
    }
}

impl From<AzureReference> for Text {
    fn from(AzureReference { snp, tdx, pcrs }: AzureReference) -> Self {
        Self { pcrs: pcrs.to_vec(), snp, tdx }
    }
}

pub(super) const CHECK: &str = "policy.pcrs";

impl AzureReference {
    pub(super) fn pcrs(&self, vtpm: &Vtpm) -> Comparison<'static> {
        let differs = (0..).zip(self.pcrs.iter().zip(&vtpm.pcrs)).find(|(_, (pin, got))| !pin.accepts(got));
        let (expected, got) = match differs {
            Some((index, (pin, got))) => {
                (format!("PCR{index} {pin}"), format!("PCR{index} {}", hex::encode(got)))
            }
            None => (self.bound().join(", "), "as pinned".to_owned()),
        };
        let meaning = "what the guest measured into its virtual TPM";
        Comparison { id: CHECK, holds: differs.is_none(), expected, got, meaning }
    }

    /// The registers that are not free, by name.
    pub(super) fn bound(&self) -> Vec<String> {
        let named = (0..).zip(self.pcrs.iter()).filter(|(_, pin)| **pin != Pin::Free);
        named.map(|(index, _): (u8, _)| format!("PCR{index}")).collect()
    }
}
