//! What evidence and endorsements say, shown without believing any of it: for pages and tools beside a verdict.
//!
//! Nothing here is a proof, and nothing here is compared. It never fails: what cannot be read is left out, and said so in
//! [`Inspection::unreadable`]. What it shows is bounded by the limits of the parsers, and by those named here.

mod azure;
mod certificates;
mod intel;
mod log;
mod nvidia;
mod snp;
mod statement;

pub use certificates::{Certificate, Role};
pub use log::{EventLogView, EventView};

use crate::evidence::Cpu;
use crate::{Endorsement, Endorsements, Evidence, Malformed};
use certificates::Pool;

/// Longest text of one value, in characters; what is longer is cut.
pub const MAX_TEXT: usize = 2048;

/// One named value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// The vendor's name, for example `MRTD`.
    pub name: String,
    /// Hex, a number or words.
    pub value: String,
    /// What it is, for people; may be empty.
    pub meaning: &'static str,
    /// The check of a policy that compares this very value, for example `policy.mrtd`: its `expected` belongs beside it.
    pub check: Option<&'static str>,
}

/// Fields that belong together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Section {
    /// For example `TD report`, or `Device 3`.
    pub title: String,
    /// In the order in which they are shown.
    pub fields: Vec<Field>,
}

/// What there is to show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inspection {
    /// What the evidence is, for example `a TDX quote, version 4`.
    pub form: String,
    /// What the CPU's evidence says, part by part.
    pub registers: Vec<Section>,
    /// What each GPU or switch says.
    pub devices: Vec<Section>,
    /// What the guest says about itself.
    pub statement: Option<Section>,
    /// The event log, if one is there.
    pub event_log: Option<EventLogView>,
    /// Every certificate, each once, as a forest: every one stands behind its issuer.
    pub certificates: Vec<Certificate>,
    /// What vendors signed beside certificates: dates and numbers of it.
    pub documents: Vec<Section>,
    /// What could not be read, and why.
    pub unreadable: Vec<String>,
}

/// Shows evidence, and the endorsements beside it: those handed over, and where there are none of a kind, the bundle's own.
pub fn inspect(evidence: &Evidence, endorsements: &Endorsements) -> Inspection {
    if let Evidence::RaTls(_, inner) = evidence {
        let mut shown = inspect(inner, endorsements);
        shown.form = format!("a TLS certificate that carries {}", shown.form);
        return shown;
    }
    let bundle = evidence.bundle();
    let all = match bundle {
        Some(bundle) => {
            endorsements.or_else(Endorsements::of_bundle(&bundle.endorsements, bundle.event_log.as_deref()))
        }
        None => endorsements.clone(),
    };
    let (mut shown, mut pool) = (Inspection::default(), Pool::default());
    shown.form = match evidence.cpu() {
        Some(cpu) => cpu_evidence(cpu, &mut shown, &mut pool),
        None => String::new(),
    };
    match (evidence, bundle) {
        (Evidence::Nvidia(devices), _) => {
            shown.form = format!("reports of {} NVIDIA devices", devices.devices().len());
            nvidia::devices(devices, &mut shown, &mut pool);
        }
        (_, Some(bundle)) => {
            shown.form = format!("a bundle with {}", shown.form);
            match crate::nvidia::Evidence::of_records(&bundle.gpu) {
                Ok(devices) => nvidia::devices(&devices, &mut shown, &mut pool),
                Err(error) if !bundle.gpu.is_empty() => shown.cannot_read("GPU evidence", &error),
                Err(_) => {}
            }
            statement::show(&bundle.statement, &mut shown);
        }
        _ => {}
    }
    let ccel = matches!(evidence.cpu(), Some(Cpu::Tdx(_)));
    for item in all.items() {
        endorsement(item, ccel, &mut shown, &mut pool);
    }
    shown.certificates = pool.forest();
    shown
}

fn cpu_evidence(cpu: Cpu<'_>, shown: &mut Inspection, pool: &mut Pool) -> String {
    match cpu {
        Cpu::Tdx(quote) | Cpu::Sgx(quote) => intel::quote(quote, shown, pool),
        Cpu::Snp(report) => snp::report(report, shown),
        Cpu::Azure(json, kind) => azure::evidence(json, kind, shown, pool),
    }
}

fn endorsement(item: &Endorsement, ccel: bool, shown: &mut Inspection, pool: &mut Pool) {
    match item {
        Endorsement::IntelCollateral(json) => intel::collateral(json, shown, pool),
        Endorsement::Certificate(der) => pool.add(der, "endorsement"),
        Endorsement::Crl(der) => intel::crl("CRL", der, shown),
        Endorsement::Rim(xml) => nvidia::rim(xml, shown, pool),
        Endorsement::OcspResponse(der) => shown.documents.push(Section {
            title: "OCSP response".into(),
            fields: vec![field(
                "Size",
                format!("{} bytes", der.len()),
                "whether certificates are revoked, now",
            )],
        }),
        Endorsement::EventLog(bytes) => log::show(bytes, ccel, shown),
    }
}

impl Inspection {
    fn cannot_read(&mut self, what: &str, error: &Malformed) {
        self.unreadable.push(format!("{what}: {error}"));
    }
}

fn field(name: impl Into<String>, value: impl Into<String>, meaning: &'static str) -> Field {
    Field { name: name.into(), value: cut(&value.into()), meaning, check: None }
}

/// A value that a policy compares, in hex.
fn compared(name: &str, value: &[u8], meaning: &'static str, check: &'static str) -> Field {
    Field { check: Some(check), ..field(name, hex::encode(value), meaning) }
}

/// At most [`MAX_TEXT`] characters.
fn cut(text: &str) -> String {
    match text.char_indices().nth(MAX_TEXT) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
