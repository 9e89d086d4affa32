//! The checks on one device.

use super::architecture::Architecture;
use super::chain::{self, Chain, DEVICE_CHAIN, KnownLinks};
use super::claims::Gpu;
use super::form::Device;
use super::mode::{self, Modes};
use super::needs::{find_chain, pool};
use super::opaque::{NEWEST_VERSION, field};
use super::rim::{Judge, Library};
use super::spdm::Report;
use super::{Challenge, reference};
use crate::anchors::NVIDIA_DEVICE_ROOT;
use crate::check::{Checklist, Finding};
use crate::{Endorsements, RefusalKind, UnixTime};

/// What all devices of one verification share.
pub(super) struct Shared<'a, 'l> {
    pub(super) judge: Judge<'a>,
    pub(super) endorsements: &'a Endorsements,
    pub(super) challenge: &'a Challenge,
    pub(super) library: Library<'l>,
    pub(super) known: KnownLinks,
}

/// A device that was judged. It counts only if no check failed.
pub(super) struct Judged {
    pub(super) gpu: Gpu,
    pub(super) good_until: UnixTime,
}

/// Makes `gpu.format`: the report in its exact bounds.
pub(super) fn format<'a>(device: &'a Device, list: &mut Checklist) -> Option<Report<'a>> {
    const ID: &str = "gpu.format";
    let expected = "an SPDM 1.1 request and its answer, in exact bounds";
    let malformed = |kind, got| Finding {
        kind,
        expected: expected.into(),
        got,
        likely: "The report was cut, changed on the way, or is of a newer kind".into(),
        remedy: "Fetch the evidence again, or use a version of this verifier that knows it".into(),
    };
    let report = match Report::parse(&device.report) {
        Ok(report) => report,
        Err(error) => {
            list.fail(ID, malformed(RefusalKind::Malformed, error.to_string()));
            return None;
        }
    };
    match report.opaque.version() {
        Some(version) if version <= NEWEST_VERSION => {
            let got = format!("{} bytes, {} measurements", device.report.len(), report.blocks.len());
            list.pass(ID, expected, got, "every byte is accounted for");
        }
        version => {
            let got = format!("opaque data of version {version:?}, this verifier knows {NEWEST_VERSION}");
            list.fail(ID, malformed(RefusalKind::Unavailable, got));
        }
    }
    Some(report)
}

/// Makes all other checks on one device.
pub(super) fn verify(
    device: &Device,
    report: &Report<'_>,
    shared: &mut Shared<'_, '_>,
    list: &mut Checklist,
    simulated: &mut bool,
) -> Option<Judged> {
    nonce(device, report, shared.challenge, list);
    let modes = modes(report, list);
    let pool = pool(device, shared.endorsements);
    let Some((chain, signed)) = find_chain(&pool, report) else {
        list.fail("gpu.chain", no_chain(device, shared.endorsements));
        return None;
    };
    signature(signed, list);
    let device_simulated = verify_chain(device, &chain, shared, list)?;
    *simulated |= device_simulated;
    validity(&chain, shared.judge.now, list);
    let answers_until = revocation(&chain, shared, list);
    fwid(report, &chain, list);
    let architecture = architecture(device, report, &chain, list)?;
    let Shared { judge, library, known, .. } = shared;
    let compared = reference::compare(report, architecture, library, judge, known, list);
    let rims = [compared.driver, compared.vbios].into_iter().flatten();
    let rim_simulated = rims.clone().any(|rim| rim.simulated);
    *simulated |= rim_simulated;
    let ends = rims.map(|rim| rim.good_until).chain(answers_until);
    let good_until = ends.fold(chain.good_until(), UnixTime::min);
    let gpu = Gpu {
        architecture,
        chip: chain::chip(chain.leaf()),
        serial: chain.certificates().get(1)?.serial.to_vec(),
        ueid: chain.leaf().serial.to_vec(),
        nonce: *report.nonce,
        driver_version: report.opaque.text(field::DRIVER_VERSION),
        vbios_version: report.opaque.vbios_version(),
        mode: modes.and_then(|modes| modes.mode),
        protected_pcie: modes.and_then(|modes| modes.protected_pcie),
        measurements: report
            .blocks
            .iter()
            .map(|block| (block.index.saturating_sub(1), block.value.to_vec()))
            .collect(),
        driver_compared: compared.driver.is_some(),
        vbios_compared: compared.vbios.is_some(),
        simulated: device_simulated || rim_simulated,
    };
    Some(Judged { gpu, good_until })
}

fn no_chain(device: &Device, endorsements: &Endorsements) -> Finding {
    let given = match device.certificates.len() {
        0 => endorsements.certificates().count(),
        own => own,
    };
    Finding {
        kind: RefusalKind::Unavailable,
        expected: "the five certificates of the device".into(),
        got: format!("{given} certificates, none of which could sign a report"),
        likely: "The report travels without its certificates, which NVML gives beside it".into(),
        remedy: "Hand over the device's certificate chain, in PEM or DER".into(),
    }
}

fn signature(signed: bool, list: &mut Checklist) {
    list.require(signed, "gpu.signature", "the report is as the device signed it", || Finding {
        kind: RefusalKind::Signature,
        expected: "an ECDSA P-384 signature over request and response, by the device's key".into(),
        got: if signed { "holds".into() } else { "does not hold".into() },
        likely: "The report was changed after it was signed, or is another device's".into(),
        remedy: "Fetch the evidence again; if it repeats, do not use this device".into(),
    });
}

/// Five certificates, each the next one's work, to a root that is an anchor. True: a simulated one.
fn verify_chain(
    device: &Device,
    chain: &Chain<'_>,
    shared: &mut Shared<'_, '_>,
    list: &mut Checklist,
) -> Option<bool> {
    let anchor = shared.judge.anchors.find(NVIDIA_DEVICE_ROOT, chain.root().raw);
    let length = chain.certificates().len();
    // A device's own list holds its chain and nothing beside it.
    let own = device.certificates.len();
    let broken = if length != DEVICE_CHAIN || (own != 0 && own != DEVICE_CHAIN) {
        Some(format!("a chain of {length} in {} certificates", own.max(length)))
    } else if anchor.is_none() {
        Some(format!("a chain that ends in {:?}, which is not trusted", chain.root().common_name()))
    } else {
        chain.holds(&mut shared.known).err().map(|broken| broken.to_string())
    };
    let simulated = anchor.is_some_and(|anchor| anchor.simulated);
    let why = if simulated {
        "SIMULATED: no hardware stands behind this device"
    } else {
        "NVIDIA vouches for the device"
    };
    let holds = broken.is_none();
    list.require(holds, "gpu.chain", why, || Finding {
        kind: RefusalKind::Signature,
        expected: format!("{DEVICE_CHAIN} certificates, each the next one's work, to NVIDIA's device root"),
        got: broken.unwrap_or_else(|| {
            format!("{} under {:?}", chain.leaf().common_name(), chain.root().common_name())
        }),
        likely: "The certificates were changed, belong to several devices, or are not NVIDIA's".into(),
        remedy: "Fetch the device's certificates again; on a development network, name its root file".into(),
    });
    holds.then_some(simulated)
}

fn validity(chain: &Chain<'_>, now: UnixTime, list: &mut Checklist) {
    let out = chain.out_of_date(now);
    list.require(out.is_none(), "gpu.validity", "all certificates are in date", || Finding {
        kind: RefusalKind::Unavailable,
        expected: format!("certificates in date at {now}"),
        got: match out {
            Some((at, certificate)) => {
                let (from, until) = certificate.validity;
                format!("certificate {} is valid from {from} to {until}", at + 1)
            }
            None => format!("all to {}", chain.good_until()),
        },
        likely: "A clock is wrong, or the evidence is judged at another time than its own".into(),
        remedy: "Check the clock, or name the time at which to verify".into(),
    });
}

/// OCSP for boot ROM, provisioner and family: those that NVIDIA's responder answers for (nvtrust,
/// `ocsp_certificate_chain_validation`). Once responses are handed over, all three must be good.
fn revocation(chain: &Chain<'_>, shared: &Shared<'_, '_>, list: &mut Checklist) -> Option<UnixTime> {
    const ID: &str = "gpu.revocation";
    let expected = "an OCSP answer \"good\" for each certificate between leaf and root";
    let finding = |kind, got: String| Finding {
        kind,
        expected: expected.into(),
        got,
        likely: match kind {
            RefusalKind::Rejected => {
                "NVIDIA no longer vouches for this device: it may be stolen, broken or on hold"
            }
            RefusalKind::Signature => "The OCSP response was changed, or is not NVIDIA's",
            _ => "The OCSP responses are of another device, or too old",
        }
        .into(),
        remedy: "Ask NVIDIA's OCSP responder again; do not use a device that it does not call good".into(),
    };
    let responses = shared.judge.responses;
    if responses.none() {
        list.skip(ID, "no OCSP response was handed over: a revoked device would not be noticed");
        return None;
    }
    if let Some(error) = &responses.unreadable {
        list.fail(ID, finding(RefusalKind::Malformed, error.to_string()));
        return None;
    }
    let mut until: Option<UnixTime> = None;
    for pair in chain.certificates().windows(2).skip(1) {
        let name = pair[0].common_name();
        match responses.about(&pair[0], &pair[1], shared.judge.now) {
            Some(Ok(end)) => until = Some(until.map_or(end, |earlier| earlier.min(end))),
            Some(Err((kind, got))) => {
                list.fail(ID, finding(kind, format!("{name}: {got}")));
                return None;
            }
            None => {
                list.fail(ID, finding(RefusalKind::Unavailable, format!("no answer about {name}")));
                return None;
            }
        }
    }
    let got = until.map_or("no certificate to ask about".to_owned(), |until| format!("good until {until}"));
    list.pass(ID, expected, got, "NVIDIA still vouches for the device");
    until
}

/// The architecture that certificates name, and that the sender and the report's own fields agree with.
fn architecture(
    device: &Device,
    report: &Report<'_>,
    chain: &Chain<'_>,
    list: &mut Checklist,
) -> Option<Architecture> {
    let chips: Vec<String> = chain.certificates().iter().take(2).map(chain::chip).collect();
    let named = Architecture::of_chip(&chips[0]).filter(|_| chips.iter().all(|chip| *chip == chips[0]));
    let claimed = device.architecture.as_deref();
    let agrees = |named: Architecture| {
        claimed.is_none_or(|claimed| Architecture::by_name(claimed) == Some(named))
            && named.is_gpu() == report.opaque.get(field::SWITCH_GPU_PDIS).is_none()
            && device.driver_version.as_ref().is_none_or(|claimed| {
                report.opaque.text(field::DRIVER_VERSION).is_some_and(|version| version == *claimed)
            })
            && device.vbios_version.as_ref().is_none_or(|claimed| {
                report.opaque.vbios_version().is_some_and(|version| version.eq_ignore_ascii_case(claimed))
            })
    };
    let found = named.filter(|named| agrees(*named));
    list.require(found.is_some(), "gpu.architecture", "the report is of the device that is named", || {
        Finding {
            kind: RefusalKind::Rejected,
            expected: format!(
                "a Hopper, Blackwell or LS10 device, {}",
                claimed.unwrap_or("by its certificates")
            ),
            got: format!(
                "{}, driver {}, VBIOS {}",
                chips.join(" under "),
                report.opaque.text(field::DRIVER_VERSION).unwrap_or_else(|| "none".into()),
                report.opaque.vbios_version().unwrap_or_else(|| "none".into())
            ),
            likely: "Evidence of one device is shown as another's, or the device is of a newer kind".into(),
            remedy: "Fetch the evidence again; use a version of this verifier that knows the device".into(),
        }
    });
    found
}

fn fwid(report: &Report<'_>, chain: &Chain<'_>, list: &mut Checklist) {
    let Some(expected) = report.opaque.get(field::FWID) else {
        list.skip("gpu.fwid", "the report does not name its firmware: drivers do from 550 on");
        return;
    };
    let got = chain::fwid(chain.leaf());
    list.require(got == Some(expected), "gpu.fwid", "the key is that of the firmware which runs", || {
        Finding {
            kind: RefusalKind::Rejected,
            expected: hex::encode(expected),
            got: got.map_or("no FWID in the certificate".into(), hex::encode),
            likely: "The certificate is of other firmware than the one that made the report".into(),
            remedy: "Fetch the device's certificates again, after its last restart".into(),
        }
    });
}

fn nonce(device: &Device, report: &Report<'_>, challenge: &Challenge, list: &mut Checklist) {
    const ID: &str = "gpu.nonce";
    let got = report.nonce;
    let finding = |expected: &[u8; 32], source: &str| Finding {
        kind: RefusalKind::Rejected,
        expected: format!("{} ({source})", hex::encode(expected)),
        got: hex::encode(got),
        likely: "The report answers another challenge: it may be old, or made for somebody else".into(),
        remedy: "Ask for a report with a nonce of your own".into(),
    };
    if let Some(claimed) = device.nonce.as_ref().filter(|claimed| *claimed != got) {
        return list.fail(ID, finding(claimed, "named beside it"));
    }
    match (challenge, &device.nonce) {
        (Challenge::Exactly(expected), _) => {
            let why = "the report answers our challenge";
            list.require(expected == got, ID, why, || finding(expected, "our challenge"));
        }
        (Challenge::Unknown, _) => {}
        (Challenge::Free, Some(claimed)) => {
            let why = "the report answers the nonce named beside it; whether that was a fresh challenge is yours to know";
            list.pass(ID, hex::encode(claimed), hex::encode(got), why);
        }
        (Challenge::Free, None) => {
            list.skip(ID, "no nonce was named to compare with: the report may be of any age");
        }
    }
}

fn modes(report: &Report<'_>, list: &mut Checklist) -> Option<Modes> {
    const ID: &str = "gpu.mode";
    let expected = "feature flag and protected PCIe status that agree";
    match mode::read(&report.opaque) {
        Ok(Modes { mode: None, protected_pcie: None }) => {
            list.skip(ID, "the report says nothing of its mode: drivers do from 550 on, switches do not");
            None
        }
        Ok(modes) => {
            let why = "the fields agree; that debugging is off follows from the measurements alone, where RIMs are given";
            list.pass(ID, expected, modes.to_string(), why);
            Some(modes)
        }
        Err(got) => {
            list.fail(
                ID,
                Finding {
                    kind: RefusalKind::Rejected,
                    expected: expected.into(),
                    got,
                    likely: "The device is in a mode that no version defines, or in two at once".into(),
                    remedy: "Do not use this device; report its driver's version".into(),
                },
            );
            None
        }
    }
}
