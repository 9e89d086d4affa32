//! Intel TDX, from inside a TD.

use super::registers::Registers;
use super::tsm::Device;
use super::{Quote, Tee, TeeError};
use std::sync::{Mutex, PoisonError};

/// Bytes of a quote's header (Intel's DCAP quoting library API, appendix A.3).
const HEADER: usize = 48;
/// Version 5 puts the type and the length of the body between header and body.
const BODY_HEAD: usize = 6;
/// Report data in each kind of body that there is.
const REPORT_DATA: usize = 520;

/// A trust domain.
pub(super) struct Tdx {
    device: Mutex<Box<dyn Device>>,
    registers: Mutex<Registers>,
    name: &'static str,
}

impl Tdx {
    pub(super) fn new(device: Box<dyn Device>, registers: Registers) -> Self {
        Self { name: device.name(), device: Mutex::new(device), registers: Mutex::new(registers) }
    }
}

impl Tee for Tdx {
    fn name(&self) -> &'static str {
        self.name
    }

    fn has_registers(&self) -> bool {
        true
    }

    fn extend(&self, digest: &[u8; 48]) -> Result<(), TeeError> {
        self.registers.lock().unwrap_or_else(PoisonError::into_inner).extend(digest)
    }

    fn quote(&self, report_data: &[u8; 64]) -> Result<Quote, TeeError> {
        let report = self.device.lock().unwrap_or_else(PoisonError::into_inner).quote(report_data)?;
        match asked(&report.quote) {
            Some(got) if got == report_data => {
                Ok(Quote { tee: cocoon_attestation::Tee::Tdx, quote: report.quote, endorsements: Vec::new() })
            }
            Some(_) => Err(TeeError::Malformed("a quote over other report data than asked".to_owned())),
            None => {
                let length = report.quote.len();
                Err(TeeError::Malformed(format!("{length} bytes that are no TDX quote of version 4 or 5")))
            }
        }
    }
}

/// The report data of a quote.
fn asked(quote: &[u8]) -> Option<&[u8; 64]> {
    let at = match quote.first_chunk::<2>()? {
        [4, 0] => HEADER + REPORT_DATA,
        [5, 0] => HEADER + BODY_HEAD + REPORT_DATA,
        _ => return None,
    };
    quote.get(at..)?.first_chunk()
}
