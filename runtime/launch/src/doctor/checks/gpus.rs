//! GPUs, one check over all that are wanted.

use super::Look;
use crate::doctor::report::{Check, Group};
use crate::gpu::{CcMode, Device, Generation, NoTool, Refusal, Request, Selection, plan};

const GROUP: Group = Group::Gpus;

/// The GPUs that are wanted and there.
fn wanted<'l>(look: &'l Look<'_>) -> Vec<&'l Device> {
    let chosen = |gpu: &&Device| match &look.question.gpus {
        None => false,
        Some(Selection::All) => true,
        Some(Selection::Only(addresses)) => addresses.contains(&gpu.address),
    };
    look.inventory.gpus.iter().filter(chosen).collect()
}

/// Why a check on GPUs need not be made.
fn needless(look: &Look<'_>) -> Option<String> {
    match &look.question.gpus {
        _ if !look.confidential() => Some("development guests get no GPU".into()),
        None => Some("no GPU is asked for".into()),
        Some(_) if look.inventory.gpus.is_empty() => Some("this machine has no NVIDIA GPU".into()),
        Some(_) => None,
    }
}

pub(super) fn present(look: &Look<'_>) -> Check {
    let names: Vec<String> = wanted(look).iter().map(|gpu| format!("{} {}", gpu.address, gpu.name)).collect();
    let found = if names.is_empty() { "none".into() } else { names.join(", ") };
    let check =
        Check::new("gpu.present", GROUP, "GPUs with confidential computing (Hopper, Blackwell)", found);
    match &look.question.gpus {
        _ if !look.confidential() => return check.not_applicable("development guests get no GPU"),
        None => return check.not_applicable("no GPU is asked for"),
        Some(Selection::All) if names.is_empty() => {
            return check.warn(
                "there is no NVIDIA GPU: guests compute on the CPU, which suits small models only",
                "if there should be one, look at `lspci -d 10de:`",
            );
        }
        Some(_) => {}
    }
    if let Some(Selection::Only(addresses)) = &look.question.gpus {
        let missing = addresses.iter().find(|address| look.inventory.device(**address).is_none());
        if let Some(address) = missing {
            return check.fail(
                format!("there is no NVIDIA GPU at {address}"),
                "correct the address in the configuration: `lspci -D -d 10de:` shows what there is",
            );
        }
    }
    match wanted(look).iter().find(|gpu| gpu.generation.is_none()) {
        Some(gpu) => check.fail(
            format!("{} at {} is not known to have confidential computing", gpu.name, gpu.address),
            "name only the others in the configuration, or none",
        ),
        None => check.ok("all can compute confidentially"),
    }
}

pub(super) fn group(look: &Look<'_>) -> Check {
    let groups: Vec<String> = wanted(look)
        .iter()
        .map(|gpu| format!("{} in {}", gpu.address, gpu.group.map_or("none".into(), |g| g.to_string())))
        .collect();
    let check = Check::new("gpu.group", GROUP, "each GPU in an IOMMU group of its own", groups.join(", "));
    if let Some(why) = needless(look) {
        return check.not_applicable(why);
    }
    if let Some(blocker) = look.blocked_by(&["kernel.command-line", "iommu.on", "gpu.present"]) {
        return check.skipped(format!("{blocker} comes first"));
    }
    match refusals(look).into_iter().find(|r| matches!(r, Refusal::Shared { .. } | Refusal::NoIommu { .. })) {
        Some(refusal) => refused(check, &refusal),
        None => check.ok("nothing else must go with them"),
    }
}

pub(super) fn free(look: &Look<'_>) -> Check {
    let drivers: Vec<String> = wanted(look)
        .iter()
        .map(|gpu| format!("{} with {}", gpu.address, gpu.driver.as_deref().unwrap_or("no driver")))
        .collect();
    let check = Check::new("gpu.free", GROUP, "GPUs that no process uses", drivers.join(", "));
    if let Some(why) = needless(look) {
        return check.not_applicable(why);
    }
    match refusals(look).into_iter().find(|refusal| matches!(refusal, Refusal::InUse { .. })) {
        Some(refusal) => refused(check, &refusal),
        None => check.ok("`cocoon host up` takes them and gives them back"),
    }
}

/// A refusal's text is "what: what to do".
fn refused(check: Check, refusal: &Refusal) -> Check {
    let text = refusal.to_string();
    let (what, remedy) = text.rsplit_once(": ").unwrap_or((&text, "see the log"));
    check.fail(what, remedy)
}

/// Why the GPUs could not be had one by one, apart from their modes.
fn refusals(look: &Look<'_>) -> Vec<Refusal> {
    let refusal = |gpu: &&Device| {
        let request = Request { selection: Selection::Only(vec![gpu.address]), confidential: false };
        plan(look.root, &NoTool, &request).err()
    };
    wanted(look).iter().filter_map(refusal).collect()
}

pub(super) fn cc_mode(look: &Look<'_>) -> Check {
    let check = Check::new("gpu.cc-mode", GROUP, "on", "");
    if let Some(why) = needless(look) {
        return check.not_applicable(why);
    }
    if let Some(blocker) = look.blocked_by(&["gpu.present", "gpu.free"]) {
        return check.skipped(format!("{blocker} comes first"));
    }
    let (mut found, mut off) = (Vec::new(), false);
    for gpu in wanted(look) {
        match look.machine.modes().cc_mode(gpu.address) {
            Ok(mode) => {
                found.push(format!("{} {mode}", gpu.address));
                off |= mode != CcMode::On && look.machine.modes().ppcie_mode(gpu.address).ok() != Some(true);
            }
            Err(error) => {
                return Check { found: "unknown".into(), ..check }
                    .fail(error.to_string(), "name the tool in the configuration, and run as root");
            }
        }
    }
    let check = Check { found: found.join(", "), ..check };
    match off {
        false => check.ok("protected"),
        true => check.warn(
            "not protected yet",
            "`cocoon host up` switches CC mode on and resets the GPU; it stays on over reboots until it is switched back",
        ),
    }
}

/// The first firmware of H100 and H200 with confidential computing for production, by NVIDIA's deployment guide.
const HOPPER_VBIOS: [u32; 3] = [0x96, 0x00, 0x5e];

pub(super) fn vbios(look: &Look<'_>) -> Check {
    let check = Check::new("gpu.vbios", GROUP, "96.00.5E or newer on H100", "");
    if let Some(why) = needless(look) {
        return check.not_applicable(why);
    }
    let shown: Vec<(&Device, &str)> =
        wanted(look).into_iter().filter_map(|gpu| Some((gpu, gpu.vbios.as_deref()?))).collect();
    if shown.is_empty() {
        return check.skipped("only NVIDIA's driver shows it; the guest's evidence names it");
    }
    let found: Vec<String> = shown.iter().map(|(gpu, vbios)| format!("{} {vbios}", gpu.address)).collect();
    let check = Check { found: found.join(", "), ..check };
    let old = shown.iter().find(|(gpu, text)| gpu.generation == Some(Generation::Hopper) && is_old(text));
    match old {
        None => check.ok("new enough"),
        Some((gpu, _)) => check.warn(
            format!("the firmware of {} is from before confidential computing was ready", gpu.address),
            "ask the machine's vendor for a newer VBIOS",
        ),
    }
}

/// VBIOS versions are hexadecimal parts between dots. One of another line, or one that cannot be read, is not called old.
fn is_old(text: &str) -> bool {
    let parts: Vec<u32> =
        text.split('.').map_while(|part| u32::from_str_radix(part, 16).ok()).take(3).collect();
    let [major, minor, patch] = HOPPER_VBIOS;
    matches!(parts.as_slice(), [a, b, c] if (*a, *b) == (major, minor) && *c < patch)
}
