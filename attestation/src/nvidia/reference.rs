//! The report's measurements against the RIMs that go with its versions.

use super::architecture::Architecture;
use super::chain::KnownLinks;
use super::needs::rim_ids;
use super::opaque::field;
use super::rim::{Golden, Judge, Kind, Library, Vouched};
use super::spdm::Report;
use crate::RefusalKind;
use crate::check::{Checklist, Finding};

/// The measurement of NVDEC0, which counts only where that engine is on (nvtrust, `verifier.py`; attestation-sdk,
/// `generate_set_measurement_claims`).
const NVDEC0_INDEX: u8 = 35;

/// What came of the comparison.
#[derive(Debug, Clone, Default)]
pub(super) struct Compared {
    pub(super) driver: Option<Vouched>,
    pub(super) vbios: Option<Vouched>,
}

/// Makes `gpu.rim.driver`, `gpu.rim.vbios` and `gpu.measurements`. What is returned counts only if none failed.
pub(super) fn compare(
    report: &Report<'_>,
    architecture: Architecture,
    library: &mut Library<'_>,
    judge: &Judge<'_>,
    known: &mut KnownLinks,
    list: &mut Checklist,
) -> Compared {
    let mut rim = |kind, id, version: Option<String>, list: &mut Checklist| {
        let library = &mut *library;
        find(kind, id, version, report, architecture, library, judge, known, list)
    };
    let opaque = &report.opaque;
    let driver = if architecture.is_gpu() {
        rim(Kind::Driver, "gpu.rim.driver", opaque.text(field::DRIVER_VERSION), list)
    } else {
        list.skip("gpu.rim.driver", "a switch has no driver of its own");
        None
    };
    let vbios = rim(Kind::Vbios, "gpu.rim.vbios", opaque.vbios_version(), list);
    if !["gpu.rim.driver", "gpu.rim.vbios"].iter().any(|id| list.failures().any(|failed| failed == *id)) {
        measurements(report, driver.as_ref(), vbios.as_ref(), list);
    }
    Compared { driver: driver.map(|(_, vouched)| vouched), vbios: vbios.map(|(_, vouched)| vouched) }
}

#[expect(clippy::too_many_arguments, reason = "one call, twice: a structure of them would have no other use")]
fn find(
    kind: Kind,
    id: &'static str,
    version: Option<String>,
    report: &Report<'_>,
    architecture: Architecture,
    library: &mut Library<'_>,
    judge: &Judge<'_>,
    known: &mut KnownLinks,
    list: &mut Checklist,
) -> Option<(Golden, Vouched)> {
    let name = kind.name();
    let finding = |kind: RefusalKind, got: String| Finding {
        kind,
        expected: format!(
            "a RIM for {name} {}, signed by NVIDIA and in date",
            version.as_deref().unwrap_or("?")
        ),
        got,
        likely: match kind {
            RefusalKind::Signature => "The RIM was changed, or is not NVIDIA's",
            RefusalKind::Unavailable => {
                "The RIM's certificates have run out: NVIDIA signs RIMs anew from time to time"
            }
            RefusalKind::Malformed => {
                "The RIM was cut or changed on the way, or the report does not name its version"
            }
            RefusalKind::Rejected => {
                "The RIM is for another version than the device runs, or NVIDIA took it back"
            }
        }
        .into(),
        remedy: format!("Fetch {} again", rim_ids(architecture, &report.opaque).join(" and ")),
    };
    if let Some(error) = &library.unreadable {
        list.fail(id, finding(RefusalKind::Malformed, error.to_string()));
        return None;
    }
    let Some(wanted) = version.as_deref() else {
        let got = format!("a report that names no {name} version");
        list.fail(id, finding(RefusalKind::Malformed, got));
        return None;
    };
    match library
        .find(kind, wanted, architecture, judge, known, |golden| differing(report, golden).is_empty())
    {
        Ok(Some(found)) => {
            let got = format!("{} active measurements", found.golden.len());
            let why = if found.vouched.simulated {
                "SIMULATED: no vendor signed this RIM"
            } else {
                "NVIDIA says what this version measures"
            };
            list.pass(id, format!("a RIM for {name} {wanted}, signed by NVIDIA and in date"), got, why);
            Some((found.golden.clone(), found.vouched))
        }
        Ok(None) => {
            list.skip(
                id,
                format!("no {name} RIM was handed over: {name} {wanted} is what the device says it runs"),
            );
            None
        }
        Err(fault) => {
            list.fail(id, finding(fault.kind, fault.got));
            None
        }
    }
}

fn measurements(
    report: &Report<'_>,
    driver: Option<&(Golden, Vouched)>,
    vbios: Option<&(Golden, Vouched)>,
    list: &mut Checklist,
) {
    const ID: &str = "gpu.measurements";
    let sources = [("driver", driver), ("VBIOS", vbios)];
    let golden =
        || sources.iter().filter_map(|(_, rim)| rim.as_ref()).flat_map(|(rim, _)| rim.keys().copied());
    if golden().next().is_none() {
        list.skip(ID, "no RIM was handed over: the measurements are compared with nothing");
        return;
    }
    if let (Some((driver, _)), Some((vbios, _))) = (driver, vbios)
        && let Some(index) = driver.keys().find(|index| vbios.contains_key(index))
    {
        let finding = differs(
            "driver and VBIOS RIMs with indices of their own".into(),
            format!("both speak of index {index}"),
            "The two RIMs do not belong together",
        );
        return list.fail(ID, finding);
    }
    let counts = match nvdec0_counts(report) {
        Ok(counts) => counts,
        Err(other) => {
            let (expected, got) = ("NVDEC0 on or off".into(), format!("NVDEC0 status 0x{other}"));
            return list
                .fail(ID, differs(expected, got, "The report says of this engine what no version defines"));
        }
    };
    let total = golden().filter(|index| counts || *index != NVDEC0_INDEX).count();
    let wrong: Vec<String> = sources
        .iter()
        .filter_map(|(name, rim)| Some((name, &rim.as_ref()?.0)))
        .flat_map(|(name, rim)| {
            differing(report, rim).into_iter().map(move |index| format!("{index} ({name})"))
        })
        .collect();
    list.require(wrong.is_empty(), ID, "the device runs what NVIDIA signed", || {
        let got = if wrong.is_empty() {
            format!("{total} of {total} equal")
        } else {
            format!("{} of {total} differ: index {}", wrong.len(), wrong.join(", "))
        };
        let expected = format!("{total} active measurements equal to the RIMs'");
        differs(expected, got, "The device runs other firmware than its version says, or is in another mode")
    });
}

/// Does the measurement of NVDEC0 count? Not where the engine is off.
fn nvdec0_counts(report: &Report<'_>) -> Result<bool, String> {
    Ok(report.opaque.status(field::NVDEC0_STATUS).transpose()?.unwrap_or(true))
}

/// Active indices at which the report has none of the golden values.
fn differing(report: &Report<'_>, golden: &Golden) -> Vec<u8> {
    let counts = nvdec0_counts(report).unwrap_or(true);
    let equals = |index: u8, values: &[Vec<u8>]| {
        report.measurement(index).is_some_and(|got| values.iter().any(|value| value == got))
    };
    golden
        .iter()
        .filter(|(index, values)| (counts || **index != NVDEC0_INDEX) && !equals(**index, values))
        .map(|(index, _)| *index)
        .collect()
}

fn differs(expected: String, got: String, likely: &str) -> Finding {
    Finding {
        kind: RefusalKind::Rejected,
        expected,
        got,
        likely: likely.into(),
        remedy: "Do not use this device until its operator has reflashed and restarted it".into(),
    }
}
