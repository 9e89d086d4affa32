//! What a policy says about GPUs and switches, and where the two are compared.

use serde::{Deserialize, Serialize};

use super::compare::Comparison;
use super::field::{Names, Switch};
use crate::check::Checklist;
use crate::nvidia::Gpu;
use crate::{Check, Status};

/// What is accepted of NVIDIA devices. Without this table in a policy, a guest must show none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GpuRules {
    /// Exactly so many GPUs.
    pub gpus: usize,
    /// Exactly so many switches.
    #[serde(default)]
    pub switches: usize,
    /// Architectures by NVIDIA's words: `HOPPER`, `BLACKWELL`, `LS10`.
    pub architectures: Names,
    /// Driver versions of GPUs, for example `550.90.07`.
    pub drivers: Names,
    /// VBIOS versions, for example `96.00.9F.00.01`.
    pub vbios: Names,
    /// On: all measurements must have been compared with NVIDIA's RIMs of driver and VBIOS.
    pub rims: Switch,
    /// On: OCSP responses must have said that no certificate is revoked.
    pub revocation: Switch,
    /// Protected PCIe, for several GPUs behind switches.
    pub protected_pcie: Switch,
}

pub(super) const CHECK: &str = "policy.gpus";

/// Files one check for all devices; `earlier` are the checks of the first proof.
pub(super) fn check(
    rules: Option<&GpuRules>,
    gpus: &[Gpu],
    earlier: &[Check],
    source: &str,
    list: &mut Checklist,
) {
    let Some(rules) = rules else {
        let expected = "no GPU: the policy has no [gpu]".to_owned();
        return verdict(
            expected,
            (!gpus.is_empty()).then(|| format!("{} devices", gpus.len())),
            source,
            list,
        );
    };
    let switches = gpus.iter().filter(|gpu| !gpu.architecture.is_gpu()).count();
    let devices = gpus.len() - switches;
    if (devices, switches) != (rules.gpus, rules.switches) {
        let expected = format!("{} GPUs and {} switches", rules.gpus, rules.switches);
        return verdict(expected, Some(format!("{devices} and {switches}")), source, list);
    }
    let revocation = earlier.iter().any(|check| check.id == "gpu.revocation" && check.status == Status::Pass);
    if !gpus.is_empty() && !rules.revocation.accepts(revocation) {
        let got = if revocation { "responses were checked" } else { "no OCSP response was checked" };
        return verdict(format!("revocation {}", rules.revocation), Some(got.to_owned()), source, list);
    }
    let broken =
        (0..).zip(gpus).find_map(|(at, gpu): (usize, _)| rules.broken(gpu).map(|broken| (at, broken)));
    match broken {
        Some((at, (expected, got))) => verdict(expected, Some(format!("device {at}: {got}")), source, list),
        None => verdict(
            format!("{devices} GPUs and {switches} switches, as the policy names them"),
            None,
            source,
            list,
        ),
    }
}

fn verdict(expected: String, broken: Option<String>, source: &str, list: &mut Checklist) {
    Comparison {
        id: CHECK,
        holds: broken.is_none(),
        got: broken.unwrap_or_else(|| "as named".to_owned()),
        expected,
        meaning: "the GPUs are accepted ones",
    }
    .file(source, list);
}

impl GpuRules {
    /// What does not hold of a device: expected and found.
    fn broken(&self, gpu: &Gpu) -> Option<(String, String)> {
        let architecture = gpu.architecture.name().to_owned();
        let names = [
            ("architecture", &self.architectures, Some(&architecture)),
            // A switch runs no driver.
            ("driver", &self.drivers, gpu.driver_version.as_ref()),
            ("VBIOS", &self.vbios, gpu.vbios_version.as_ref()),
        ];
        let name = names.into_iter().find(|(what, names, got)| {
            let exempt = !gpu.architecture.is_gpu() && *what == "driver";
            !exempt && !names.accepts(got.map_or("", |got| got.as_str()))
        });
        if let Some((what, names, got)) = name {
            return Some((format!("{what} {names}"), got.cloned().unwrap_or_else(|| "not said".to_owned())));
        }
        let compared = gpu.vbios_compared && (gpu.driver_compared || !gpu.architecture.is_gpu());
        let switches = [
            ("compared with RIMs", self.rims, compared),
            ("protected PCIe", self.protected_pcie, gpu.protected_pcie == Some(true)),
        ];
        let (what, switch, on) = switches.into_iter().find(|(_, switch, on)| !switch.accepts(*on))?;
        Some((format!("{what}: {switch}"), (if on { "on" } else { "off" }).to_owned()))
    }
}
