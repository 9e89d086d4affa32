//! What reports and RIMs say, for those who look without verifying. Nothing here is believed.

use super::opaque::field;
use super::rim;
use super::spdm::Report;
use crate::Malformed;

/// What a device's report says of itself.
pub(crate) struct ReportWords<'a> {
    pub(crate) nonce: &'a [u8; 32],
    /// Index, from 0 as in RIMs, and value, in the report's order.
    pub(crate) measurements: Vec<(u8, &'a [u8])>,
    pub(crate) driver: Option<String>,
    pub(crate) vbios: Option<String>,
    pub(crate) chip: Option<String>,
    pub(crate) fwid: Option<&'a [u8]>,
    /// On, off, or what else stands there; absent where the driver is too old to say.
    pub(crate) protected_pcie: Option<Result<bool, String>>,
    pub(crate) feature: Option<u64>,
}

/// Reads one report.
pub(crate) fn report(bytes: &[u8]) -> Result<ReportWords<'_>, Malformed> {
    let report = Report::parse(bytes)?;
    let opaque = &report.opaque;
    Ok(ReportWords {
        nonce: report.nonce,
        measurements: report
            .blocks
            .iter()
            .map(|block| (block.index.saturating_sub(1), block.value))
            .collect(),
        driver: opaque.text(field::DRIVER_VERSION),
        vbios: opaque.vbios_version(),
        chip: opaque.text(field::CHIP_INFO),
        fwid: opaque.get(field::FWID),
        protected_pcie: opaque.status(field::PROTECTED_PCIE),
        feature: opaque.number(field::FEATURE_FLAG),
    })
}

/// What a RIM says of itself.
pub(crate) struct RimWords {
    pub(crate) product: String,
    pub(crate) version: String,
    /// `driver` or `VBIOS`.
    pub(crate) kind: &'static str,
    /// How many active measurements it gives values for.
    pub(crate) measurements: usize,
    /// In DER, as they stand beside its signature; the signer first.
    pub(crate) certificates: Vec<Vec<u8>>,
}

/// Reads one RIM.
pub(crate) fn rim(xml: &[u8]) -> Result<RimWords, Malformed> {
    rim::words(xml)
}
