//! The report's measurements against the RIMs that go with its versions.

use std::collections::BTreeMap;

use super::architecture::Architecture;
use super::chain::KnownLinks;
use super::needs::rim_ids;
use super::opaque::field;
use super::rim::{Judge, Kind, Library, Vouched};
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

/// Alternatives by index.
type Golden = BTreeMap<u8, Vec<Vec<u8>>>;

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
    match library.find(kind, wanted, architecture, judge, known) {
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
    let golden = || {
        let each = sources.iter().filter_map(|(name, rim)| Some((*name, &rim.as_ref()?.0)));
        each.flat_map(|(name, golden)| golden.iter().map(move |(index, values)| (name, *index, values)))
    };
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
    let nvdec0 = match report.opaque.status(field::NVDEC0_STATUS).transpose() {
        Ok(status) => status.unwrap_or(true),
        Err(other) => {
            let (expected, got) = ("NVDEC0 on or off".into(), format!("NVDEC0 status 0x{other}"));
            return list
                .fail(ID, differs(expected, got, "The report says of this engine what no version defines"));
        }
    };
    let counted = || golden().filter(|(_, index, _)| nvdec0 || *index != NVDEC0_INDEX);
    let wrong: Vec<String> = counted()
        .filter(|(_, index, values)| {
            report.measurement(*index).is_none_or(|got| !values.iter().any(|value| value == got))
        })
        .map(|(name, index, _)| format!("{index} ({name})"))
        .collect();
    list.require(wrong.is_empty(), ID, "the device runs what NVIDIA signed", || {
        let total = counted().count();
        let got = if wrong.is_empty() {
            format!("{total} of {total} equal")
        } else {
            format!("{} of {total} differ: index {}", wrong.len(), wrong.join(", "))
        };
        let expected = format!("{total} active measurements equal to the RIMs'");
        differs(expected, got, "The device runs other firmware than its version says, or is in another mode")
    });
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
