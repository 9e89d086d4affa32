//! AMD SEV-SNP, from inside a guest.

use super::tsm::Device;
use super::{Quote, Tee, TeeError, certificates};
use cocoon_attestation::Endorsement;
use std::sync::{Mutex, PoisonError};

/// Bytes of an attestation report (SEV-SNP firmware ABI, publication 56860, table 22).
const REPORT: usize = 1184;
/// Where its report data is.
const REPORT_DATA: usize = 0x50;

/// An SNP guest.
pub(super) struct Snp {
    device: Mutex<Box<dyn Device>>,
    name: &'static str,
}

impl Snp {
    pub(super) fn new(device: Box<dyn Device>) -> Self {
        Self { name: device.name(), device: Mutex::new(device) }
    }
}

impl Tee for Snp {
    fn name(&self) -> &'static str {
        self.name
    }

    fn has_registers(&self) -> bool {
        false
    }

    fn extend(&self, _: &[u8; 48]) -> Result<(), TeeError> {
        let why = "SEV-SNP has no register to extend: the statement says what was loaded, and the report is made over it";
        Err(TeeError::NoRegisters(why.to_owned()))
    }

    fn quote(&self, report_data: &[u8; 64]) -> Result<Quote, TeeError> {
        let report = self.device.lock().unwrap_or_else(PoisonError::into_inner).quote(report_data)?;
        if report.quote.len() != REPORT {
            let length = report.quote.len();
            return Err(TeeError::Malformed(format!("{length} bytes, where an SNP report has {REPORT}")));
        }
        if report.quote.get(REPORT_DATA..).and_then(|rest| rest.first_chunk()) != Some(report_data) {
            return Err(TeeError::Malformed("a report over other report data than asked".to_owned()));
        }
        let files = certificates::parse(&report.auxiliary)?;
        let endorsements = files.into_iter().flat_map(endorsements).collect();
        Ok(Quote { tee: cocoon_attestation::Tee::Snp, quote: report.quote, endorsements })
    }
}

/// The host's word: what is no certificate or CRL goes on as it is, for the verifier to refuse.
fn endorsements(file: Vec<u8>) -> Vec<Endorsement> {
    Endorsement::sort(&file).unwrap_or_else(|_| vec![Endorsement::Certificate(file)])
}
