//! Rules over all devices of one piece of evidence.

use std::collections::BTreeSet;

use super::claims::Gpu;
use super::opaque::Opaque;
use crate::RefusalKind;
use crate::check::{Checklist, Finding};

const ID: &str = "gpu.devices";

/// Makes `gpu.devices`: one nonce, no device twice, one mode, and switches that are those which the GPUs see (nvtrust,
/// `ppcie/verifier/src/topology/validate_topology.py`). How many there must be is the policy's to say.
pub(super) fn check(devices: &[(Gpu, &Opaque<'_>)], list: &mut Checklist) {
    let (gpus, switches): (Vec<_>, Vec<_>) =
        devices.iter().partition(|(device, _)| device.architecture.is_gpu());
    let problem = one_nonce(devices)
        .or_else(|| twice(devices))
        .or_else(|| one_mode(&gpus))
        .or_else(|| links(&gpus, &switches));
    let why = match (gpus.len(), switches.len()) {
        (_, 0) | (0, _) => "the devices are distinct, and answered one challenge",
        _ => "the devices are distinct, answered one challenge, and see each other",
    };
    list.require(problem.is_none(), ID, why, || Finding {
        kind: RefusalKind::Rejected,
        expected: "distinct devices with one nonce, one mode, and switches that see each other".into(),
        got: problem.unwrap_or_else(|| format!("GPUs: {}, switches: {}", gpus.len(), switches.len())),
        likely: "The evidence was put together from several machines, moments or configurations".into(),
        remedy: "Ask for the evidence of all devices again, with one nonce".into(),
    });
}

fn one_nonce(devices: &[(Gpu, &Opaque<'_>)]) -> Option<String> {
    let (first, _) = devices.first()?;
    let other = devices.iter().position(|(device, _)| device.nonce != first.nonce)?;
    Some(format!("device {other} answers another nonce than device 0"))
}

fn twice(devices: &[(Gpu, &Opaque<'_>)]) -> Option<String> {
    let mut seen = BTreeSet::new();
    let (again, (device, _)) =
        devices.iter().enumerate().find(|(_, (device, _))| !seen.insert(&device.serial))?;
    Some(format!("device {again} is a device that came before: {}", hex::encode(&device.serial)))
}

fn one_mode(gpus: &[&(Gpu, &Opaque<'_>)]) -> Option<String> {
    let of = |device: &Gpu| (device.mode, device.protected_pcie);
    let (first, _) = gpus.first()?;
    let (other, _) = gpus.iter().find(|(device, _)| of(device) != of(first))?;
    Some(format!("modes {:?} and {:?}", of(first), of(other)))
}

/// All GPUs see the same switches, these are the ones shown, and all switches see the same GPUs.
fn links(gpus: &[&(Gpu, &Opaque<'_>)], switches: &[&(Gpu, &Opaque<'_>)]) -> Option<String> {
    if gpus.is_empty() || switches.is_empty() {
        return None;
    }
    let same = |sets: Vec<Option<BTreeSet<[u8; 8]>>>, what: &str| -> Result<BTreeSet<[u8; 8]>, String> {
        let first =
            sets.first().cloned().flatten().ok_or_else(|| format!("a report without ids of {what}"))?;
        let all = sets.iter().all(|other| other.as_ref() == Some(&first));
        if all { Ok(first) } else { Err(format!("devices that see different {what}")) }
    };
    let set = |ids: Option<Vec<[u8; 8]>>| ids.map(BTreeSet::from_iter);
    let judge = || -> Result<(), String> {
        let seen = same(gpus.iter().map(|(_, opaque)| set(opaque.switches())).collect(), "switches")?;
        let shown: Option<BTreeSet<_>> = switches.iter().map(|(_, opaque)| opaque.switch_id()).collect();
        let shown = shown.ok_or("a switch that does not say which it is")?;
        if seen != shown {
            let ids = |ids: &BTreeSet<[u8; 8]>| ids.iter().map(hex::encode).collect::<Vec<_>>().join(", ");
            return Err(format!("switches {} where the GPUs see {}", ids(&shown), ids(&seen)));
        }
        let below = same(switches.iter().map(|(_, opaque)| set(opaque.gpus())).collect(), "GPUs")?;
        if below.len() == gpus.len() {
            Ok(())
        } else {
            Err(format!("switches that see {} GPUs, {} shown", below.len(), gpus.len()))
        }
    };
    judge().err()
}
