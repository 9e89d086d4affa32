//! What a policy says about an SEV-SNP report, and where the two are compared.

use serde::{Deserialize, Serialize};

use super::compare::Comparison;
use super::field::{Floor, Pin, Switch};
use crate::check::Checklist;
use crate::snp::{Report, TcbVersion};

/// Reference values of one image on one machine profile. What ID blocks set must be zero if left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpReference {
    /// Launch digest: firmware and, by its table of hashes, kernel, initrd and command line.
    pub measurement: Pin<48>,
    /// What the host bound at launch.
    #[serde(default = "Pin::zero", skip_serializing_if = "Pin::is_zero")]
    pub host_data: Pin<32>,
    /// FAMILY_ID of the ID block.
    #[serde(default = "Pin::zero", skip_serializing_if = "Pin::is_zero")]
    pub family_id: Pin<16>,
    /// IMAGE_ID of the ID block.
    #[serde(default = "Pin::zero", skip_serializing_if = "Pin::is_zero")]
    pub image_id: Pin<16>,
    /// SHA-384 of the key that signed the ID block.
    #[serde(default = "Pin::zero", skip_serializing_if = "Pin::is_zero")]
    pub id_key_digest: Pin<48>,
    /// SHA-384 of the key that signed the ID key.
    #[serde(default = "Pin::zero", skip_serializing_if = "Pin::is_zero")]
    pub author_key_digest: Pin<48>,
    /// The guest's own security version.
    pub guest_svn: Floor,
}

impl SnpReference {
    /// An image without an ID block, pinned by its launch digest.
    pub fn pinned(measurement: [u8; 48]) -> Self {
        Self {
            measurement: Pin::to(measurement),
            host_data: Pin::zero(),
            family_id: Pin::zero(),
            image_id: Pin::zero(),
            id_key_digest: Pin::zero(),
            author_key_digest: Pin::zero(),
            guest_svn: Floor::Free,
        }
    }

    pub(super) const CHECKS: [&str; 7] = [
        "policy.measurement",
        "policy.host_data",
        "policy.family_id",
        "policy.image_id",
        "policy.id_key",
        "policy.author_key",
        "policy.guest_svn",
    ];

    pub(super) fn compare<'a>(&'a self, report: &'a Report) -> Vec<Comparison<'a>> {
        const ID_BLOCK: &str = "what the launcher's ID block says";
        let [measurement, host_data, family, image, id_key, author_key, svn] = Self::CHECKS;
        vec![
            Comparison::pin(
                measurement,
                &self.measurement,
                &report.measurement,
                "firmware, kernel, initrd and command line",
            ),
            Comparison::pin(host_data, &self.host_data, &report.host_data, "what the host set at launch"),
            Comparison::pin(family, &self.family_id, &report.family_id, ID_BLOCK),
            Comparison::pin(image, &self.image_id, &report.image_id, ID_BLOCK),
            Comparison::pin(id_key, &self.id_key_digest, &report.id_key_digest, ID_BLOCK),
            Comparison::pin(author_key, &self.author_key_digest, &report.author_key_digest, ID_BLOCK),
            Comparison {
                id: svn,
                holds: self.guest_svn.accepts(report.guest_svn.into()),
                expected: self.guest_svn.to_string(),
                got: report.guest_svn.to_string(),
                meaning: "the guest's own security version",
            },
        ]
    }

    /// The fields by name, for explanations.
    pub(super) fn named(&self) -> Vec<(&'static str, String)> {
        vec![
            ("MEASUREMENT", self.measurement.to_string()),
            ("HOST_DATA", self.host_data.to_string()),
            ("FAMILY_ID", self.family_id.to_string()),
            ("IMAGE_ID", self.image_id.to_string()),
            ("ID_KEY_DIGEST", self.id_key_digest.to_string()),
            ("AUTHOR_KEY_DIGEST", self.author_key_digest.to_string()),
            ("GUEST_SVN", self.guest_svn.to_string()),
        ]
    }
}

/// A floor for each part of a TCB version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcbFloor {
    /// FMC: Turin must name it, others have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fmc: Option<u8>,
    /// Boot loader of the security processor.
    pub boot_loader: u8,
    /// Operating system of the security processor.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Microcode.
    pub microcode: u8,
}

impl TcbFloor {
    fn version(self) -> TcbVersion {
        let Self { fmc, boot_loader, tee, snp, microcode } = self;
        TcbVersion { fmc, boot_loader, tee, snp, microcode }
    }
}

/// The TCB floor of each product. A product that is left out is not accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TcbFloors {
    /// EPYC 7003: also wants the exception `snp:milan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub milan: Option<TcbFloor>,
    /// EPYC 9004 and 8004.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub genoa: Option<TcbFloor>,
    /// EPYC 9005.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub turin: Option<TcbFloor>,
}

impl TcbFloors {
    fn of(&self, product: &str) -> Option<TcbFloor> {
        match product {
            "Milan" => self.milan,
            "Genoa" => self.genoa,
            "Turin" => self.turin,
            _ => None,
        }
    }
}

/// What is accepted of SEV-SNP machines, whatever image they run. A policy that accepts an SNP image must say all of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnpRules {
    /// Lowest TCB of each product. Reported, current, committed and launch TCB must all meet it.
    pub tcb: TcbFloors,
    /// Lowest firmware, current and committed, as major × 65536 + minor × 256 + build.
    pub firmware: Floor,
    /// Mitigation vector at launch and now (report version 5): bits that must be set. Zero asks for none.
    pub mitigations: u64,
    /// What the guest's owner lets the host do.
    pub guest_policy: GuestPolicyRules,
    /// How the platform is set up.
    pub platform_info: PlatformInfoRules,
}

/// Bits of the guest policy that the hard rules leave open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestPolicyRules {
    /// Lowest firmware ABI that the guest insists on, as major × 256 + minor.
    pub minimum_abi: Floor,
    /// The host may use simultaneous multi-threading.
    pub smt: Switch,
    /// One socket only.
    pub single_socket: Switch,
    /// Memory must be encrypted with AES-256-XTS.
    pub aes_256_xts: Switch,
    /// Power measurement must be off.
    pub rapl_off: Switch,
    /// The host must not see ciphertext.
    pub ciphertext_hiding: Switch,
    /// Guest pages must not be moved out.
    pub page_swap_off: Switch,
}

/// Bits of PLATFORM_INFO that the hard rules leave open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PlatformInfoRules {
    /// Simultaneous multi-threading is on.
    pub smt: Switch,
    /// All memory is encrypted, the host's too.
    pub tsme: Switch,
    /// Memory corrects errors.
    pub ecc: Switch,
    /// Power measurement is off.
    pub rapl_off: Switch,
    /// The host does not see ciphertext.
    pub ciphertext_hiding: Switch,
    /// Devices may be part of a guest.
    pub tio: Switch,
}

impl SnpRules {
    /// These floors; what the hard rules already bound is declared free.
    pub fn with_floors(tcb: TcbFloors) -> Self {
        const FREE: Switch = Switch::Free;
        Self {
            tcb,
            firmware: Floor::Free,
            mitigations: 0,
            guest_policy: GuestPolicyRules {
                minimum_abi: Floor::Free,
                smt: FREE,
                single_socket: FREE,
                aes_256_xts: FREE,
                rapl_off: FREE,
                ciphertext_hiding: FREE,
                page_swap_off: FREE,
            },
            platform_info: PlatformInfoRules {
                smt: FREE,
                tsme: FREE,
                ecc: FREE,
                rapl_off: FREE,
                ciphertext_hiding: FREE,
                tio: FREE,
            },
        }
    }

    pub(super) const CHECKS: [&str; 5] = [
        "policy.tcb",
        "policy.firmware",
        "policy.mitigations",
        "policy.guest_policy",
        "policy.platform_info",
    ];

    pub(super) fn check(&self, report: &Report, product: &str, source: &str, list: &mut Checklist) {
        let number = |version: [u8; 3]| version.iter().fold(0, |sum, part| sum << 8 | u64::from(*part));
        let versions = [report.committed_firmware, report.current_firmware];
        let (set, wanted) = (report.mitigations.unwrap_or_default(), self.mitigations);
        let rows = [
            self.tcb(report, product),
            Comparison {
                id: "policy.firmware",
                holds: versions.iter().all(|version| self.firmware.accepts(number(*version))),
                expected: format!("committed and current: {}", self.firmware),
                got: versions.map(|version| version.map(|part| part.to_string()).join(".")).join(", "),
                meaning: "the platform cannot go back to older firmware",
            },
            Comparison {
                id: "policy.mitigations",
                holds: set.iter().all(|set| set & wanted == wanted),
                expected: format!("bits {wanted:#x} set at launch and now"),
                got: format!("{:#x}, {:#x}", set[0], set[1]),
                meaning: "mitigations were on from the launch",
            },
            switches(
                "policy.guest_policy",
                self.guest_policy.rows(report),
                "the guest lets the host do no more",
            ),
            switches(
                "policy.platform_info",
                self.platform_info.rows(report),
                "the platform is set up as accepted",
            ),
        ];
        rows.into_iter().for_each(|row| row.file(source, list));
    }

    fn tcb(&self, report: &Report, product: &str) -> Comparison<'static> {
        let floor = self.tcb.of(product).map(TcbFloor::version);
        let versions = [
            ("reported", &report.reported_tcb),
            ("current", &report.current_tcb),
            ("committed", &report.committed_tcb),
            ("launch", &report.launch_tcb),
        ];
        let low =
            versions.into_iter().find(|(_, tcb)| floor.as_ref().is_none_or(|floor| !tcb.at_least(floor)));
        let (name, shown) = low.unwrap_or(versions[0]);
        Comparison {
            id: "policy.tcb",
            holds: low.is_none(),
            expected: match &floor {
                Some(floor) => format!("{product} at {floor}, or above in every part"),
                None => format!("a product that the policy names a TCB floor for; {product} is none"),
            },
            got: format!("{name}: {shown}"),
            meaning: "firmware and microcode are not too old",
        }
    }
}

type SwitchRow = (&'static str, Switch, bool);

impl GuestPolicyRules {
    fn rows(&self, report: &Report) -> Vec<SwitchRow> {
        let policy = report.policy;
        let (major, minor) = policy.minimum_abi();
        let abi = u64::from(u16::from_be_bytes([major, minor]));
        let abi_met = if self.minimum_abi.accepts(abi) { Switch::Free } else { Switch::On };
        vec![
            ("minimum ABI", abi_met, false),
            ("SMT", self.smt, policy.smt()),
            ("SINGLE_SOCKET", self.single_socket, policy.single_socket()),
            ("MEM_AES_256_XTS", self.aes_256_xts, policy.aes_256_xts()),
            ("RAPL_DIS", self.rapl_off, policy.rapl_off()),
            ("CIPHERTEXT_HIDING", self.ciphertext_hiding, policy.ciphertext_hiding()),
            ("PAGE_SWAP_DISABLE", self.page_swap_off, policy.page_swap_off()),
        ]
    }
}

impl PlatformInfoRules {
    fn rows(&self, report: &Report) -> Vec<SwitchRow> {
        let info = report.platform_info;
        vec![
            ("SMT_EN", self.smt, info.smt()),
            ("TSME_EN", self.tsme, info.tsme()),
            ("ECC_EN", self.ecc, info.ecc()),
            ("RAPL_DIS", self.rapl_off, info.rapl_off()),
            ("CIPHERTEXT_HIDING_EN", self.ciphertext_hiding, info.ciphertext_hiding()),
            ("TIO_EN", self.tio, info.tio()),
        ]
    }
}

fn switches(id: &'static str, rows: Vec<SwitchRow>, meaning: &'static str) -> Comparison<'static> {
    let wanted: Vec<String> = rows
        .iter()
        .filter(|(_, switch, _)| *switch != Switch::Free)
        .map(|(name, switch, _)| format!("{name} {switch}"))
        .collect();
    let broken: Vec<&str> =
        rows.iter().filter(|(_, switch, on)| !switch.accepts(*on)).map(|(name, ..)| *name).collect();
    Comparison {
        id,
        holds: broken.is_empty(),
        expected: if wanted.is_empty() { "free, within the hard rules".into() } else { wanted.join(", ") },
        got: if broken.is_empty() { "as wanted".into() } else { format!("otherwise: {}", broken.join(", ")) },
        meaning,
    }
}
