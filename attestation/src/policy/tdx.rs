//! What a policy says about a TD report, and where the two are compared.

use serde::{Deserialize, Serialize};

use super::compare::{Comparison, hex_or_zero};
use super::field::{Mask, Pin};
use crate::Measurements;
use crate::check::Checklist;
use crate::tdx::Body;

/// Reference values of one image on one machine profile. Registers that hosts set at launch must be zero if left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdxReference {
    /// The initial image.
    pub mrtd: Pin<48>,
    /// Firmware and its configuration.
    pub rtmr0: Pin<48>,
    /// Kernel, or the command line in process mode.
    pub rtmr1: Pin<48>,
    /// Command line and initrd, or the configuration in process mode.
    pub rtmr2: Pin<48>,
    /// Model weights.
    pub rtmr3: Pin<48>,
    /// Set by the host at launch.
    #[serde(default = "Pin::zero", skip_serializing_if = "Pin::is_zero")]
    pub mrconfigid: Pin<48>,
    /// Set by the host at launch.
    #[serde(default = "Pin::zero", skip_serializing_if = "Pin::is_zero")]
    pub mrowner: Pin<48>,
    /// Set by the host at launch.
    #[serde(default = "Pin::zero", skip_serializing_if = "Pin::is_zero")]
    pub mrownerconfig: Pin<48>,
}

impl From<&Measurements> for TdxReference {
    /// Every register pinned.
    fn from(m: &Measurements) -> Self {
        let [rtmr0, rtmr1, rtmr2, rtmr3] = m.rtmr.map(Pin::to);
        Self {
            mrtd: Pin::to(m.mrtd),
            rtmr0,
            rtmr1,
            rtmr2,
            rtmr3,
            mrconfigid: Pin::to(m.mrconfigid),
            mrowner: Pin::to(m.mrowner),
            mrownerconfig: Pin::to(m.mrownerconfig),
        }
    }
}

/// What is accepted of TDX machines, whatever image they run. A policy that accepts a TDX image must say all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TdxRules {
    /// Measurement of the TDX module. Free means: any that Intel signs, at the TCB status required.
    pub mr_seam: Pin<48>,
    /// Security versions of the TDX module, 32 hex digits: each of the 16 at least as high. All zero bounds nothing, and
    /// leaves it to the TCB status.
    #[serde(with = "svn")]
    pub tee_tcb_svn: [u8; 16],
    /// TD attributes that may be set, beyond SEPT_VE_DISABLE (bit 28), which must be (but in a paravisor of Azure's).
    pub attributes: Mask,
    /// Extended features that the TD may use.
    pub xfam: Mask,
}

impl TdxRules {
    /// What Intel's TCB status and the hard rules already bound is declared free.
    pub fn by_vendor() -> Self {
        Self { mr_seam: Pin::Free, tee_tcb_svn: [0; 16], attributes: Mask::Free, xfam: Mask::Free }
    }

    pub(super) const CHECKS: [&str; 4] =
        ["policy.mr_seam", "policy.tee_tcb_svn", "policy.attributes", "policy.xfam"];

    /// `azure`: Azure's paravisor runs below the guest. Without it, SEPT_VE_DISABLE must be set even where the exception
    /// `profile:azure` is named: no other TD may make use of what is tolerated there.
    pub(super) fn check(&self, body: &Body, azure: bool, source: &str, list: &mut Checklist) {
        let sealed = azure || body.attributes & SEPT_VE_DISABLE != 0;
        let rows = [
            Comparison::pin(
                "policy.mr_seam",
                &self.mr_seam,
                &body.mr_seam,
                "the TDX module is an accepted one",
            ),
            Comparison {
                id: "policy.tee_tcb_svn",
                holds: body.tee_tcb_svn.iter().zip(self.tee_tcb_svn).all(|(got, floor)| *got >= floor),
                expected: format!("each byte at least that of {}", hex_or_zero(&self.tee_tcb_svn)),
                got: hex::encode(body.tee_tcb_svn),
                meaning: "the TDX module is not too old",
            },
            Comparison {
                id: "policy.attributes",
                holds: sealed && self.attributes.accepts(body.attributes & !SEPT_VE_DISABLE),
                expected: match azure {
                    true => format!("beyond SEPT_VE_DISABLE: {}", self.attributes),
                    false => format!("SEPT_VE_DISABLE set; beyond it: {}", self.attributes),
                },
                got: format!("{:#x}", body.attributes),
                meaning: "the TD's attributes are accepted ones",
            },
            Comparison {
                id: "policy.xfam",
                holds: self.xfam.accepts(body.xfam),
                expected: self.xfam.to_string(),
                got: format!("{:#x}", body.xfam),
                meaning: "the TD's processor features are accepted ones",
            },
        ];
        rows.into_iter().for_each(|row| row.file(source, list));
    }
}

const SEPT_VE_DISABLE: u64 = 1 << 28;

impl TdxReference {
    pub(super) const CHECKS: [&str; 8] = [
        "policy.mrtd",
        "policy.rtmr0",
        "policy.rtmr1",
        "policy.rtmr2",
        "policy.rtmr3",
        "policy.mrconfigid",
        "policy.mrowner",
        "policy.mrownerconfig",
    ];

    pub(super) fn compare<'a>(&'a self, body: &'a Body) -> [Comparison<'a>; 8] {
        const LAUNCH: &str = "what the host set at launch";
        let [r0, r1, r2, r3] = &body.rtmr;
        let rows = [
            (&self.mrtd, &body.mrtd, "the firmware, or the binary of a guest in process mode"),
            (&self.rtmr0, r0, "the machine as its firmware found it: variables, ACPI tables"),
            (&self.rtmr1, r1, "the kernel, or the command line of a guest in process mode"),
            (&self.rtmr2, r2, "the kernel's command line (and with it the root) or the initrd"),
            (&self.rtmr3, r3, "the configuration or the model's weights"),
            (&self.mrconfigid, &body.mrconfigid, LAUNCH),
            (&self.mrowner, &body.mrowner, LAUNCH),
            (&self.mrownerconfig, &body.mrownerconfig, LAUNCH),
        ];
        let mut ids = Self::CHECKS.into_iter();
        rows.map(|(pin, got, meaning)| {
            Comparison::pin(ids.next().expect("as many ids as rows"), pin, got, meaning)
        })
    }

    /// The registers by name, for explanations.
    pub(super) fn named(&self) -> [(&'static str, &Pin<48>); 8] {
        [
            ("MRTD", &self.mrtd),
            ("RTMR0", &self.rtmr0),
            ("RTMR1", &self.rtmr1),
            ("RTMR2", &self.rtmr2),
            ("RTMR3", &self.rtmr3),
            ("MRCONFIGID", &self.mrconfigid),
            ("MROWNER", &self.mrowner),
            ("MROWNERCONFIG", &self.mrownerconfig),
        ]
    }
}

mod svn {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(value: &[u8; 16], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(value))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<[u8; 16], D::Error> {
        let (text, mut out) = (String::deserialize(deserializer)?, [0; 16]);
        hex::decode_to_slice(&text, &mut out)
            .map_err(|error| serde::de::Error::custom(format!("{text:?} is not 32 hex digits: {error}")))?;
        Ok(out)
    }
}
