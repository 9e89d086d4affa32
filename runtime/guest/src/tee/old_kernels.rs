//! Quotes through ioctls, where the kernel has no configfs-tsm.
//!
//! Both crates are used for one call each, and nothing that they give is believed:
//!
//! - **`tdx_attest` 0.1.1** speaks the ioctls of Intel's own kernels of 2022 and 2023 (`/dev/tdx-guest`, and
//!   `/dev/tdx_guest` with GET_QUOTE). It panics where there is no device, where a host answers with lengths that do not
//!   fit together, and on report data that is not 64 bytes in base64; it ignores the host's status; and it may read up to
//!   24 bytes behind its buffer when the host claims a quote of nearly 16 KiB. So: panics are caught, quotes beyond
//!   [`MAX_TDX_QUOTE`] are dropped, and [`super::tdx`] compares the report data. Mainline kernels have `/dev/tdx_guest`
//!   without GET_QUOTE: there the error says that configfs must be mounted.
//! - **`sev` 8** has SNP_GET_REPORT with fixed buffers, which is sound. Its SNP_GET_EXT_REPORT walks the certificate table
//!   of a hostile host with raw pointers and no bounds, so it is not called: on such kernels a verifier gets the
//!   certificates from AMD. Its default VMPL is 1; here it is 0, always.

use super::TeeError;
use super::tsm::{Device, Report};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

/// Longest quote that lies wholly in `tdx_attest`'s buffer: 16 KiB, less the two heads of the message in it.
const MAX_TDX_QUOTE: usize = 16 * 1024 - 24;
/// Longest SNP report.
const MAX_SNP_REPORT: usize = 1184;

type Ask = Box<dyn FnMut(&[u8; 64]) -> Result<Vec<u8>, String> + Send>;

/// A device behind a crate of others.
pub(super) struct Ioctl {
    name: &'static str,
    path: PathBuf,
    limit: usize,
    ask: Ask,
}

impl Ioctl {
    /// TDX through `tdx_attest`; `path` is for errors, the crate has its own.
    pub(super) fn tdx(path: PathBuf) -> Self {
        let ask = |report_data: &[u8; 64]| {
            tdx_attest::get_tdx_quote(STANDARD.encode(report_data)).map_err(|error| {
                format!("{error:#}; mainline kernels give quotes through configfs only: mount it at /sys/kernel/config")
            })
        };
        Self { name: "Intel TDX through ioctl", path, limit: MAX_TDX_QUOTE, ask: Box::new(ask) }
    }

    /// SEV-SNP through `sev`; `path` is for errors, the crate has its own.
    pub(super) fn snp(path: PathBuf) -> Self {
        let ask = |report_data: &[u8; 64]| {
            let mut firmware = sev::firmware::guest::Firmware::open().map_err(|error| error.to_string())?;
            firmware.get_report(None, Some(*report_data), Some(0)).map_err(|error| error.to_string())
        };
        Self { name: "AMD SEV-SNP through ioctl", path, limit: MAX_SNP_REPORT, ask: Box::new(ask) }
    }
}

impl Device for Ioctl {
    fn quote(&mut self, report_data: &[u8; 64]) -> Result<Report, TeeError> {
        let path = self.path.display();
        // Nothing of ours is left half done by a panic of theirs: each call opens the device anew.
        let quote = catch_unwind(AssertUnwindSafe(|| (self.ask)(report_data)))
            .unwrap_or_else(|_| Err("its answer made no sense to the driver's crate".to_owned()))
            .map_err(|why| TeeError::Refused(format!("{path}: {why}")))?;
        if quote.len() > self.limit {
            let text = format!("{} bytes through {path}, more than {}", quote.len(), self.limit);
            return Err(TeeError::Malformed(text));
        }
        Ok(Report { quote, auxiliary: Vec::new() })
    }

    fn name(&self) -> &'static str {
        self.name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ioctl(ask: impl FnMut(&[u8; 64]) -> Result<Vec<u8>, String> + Send + 'static) -> Ioctl {
        Ioctl { name: "test", path: "/dev/test".into(), limit: 100, ask: Box::new(ask) }
    }

    #[test]
    fn a_panic_of_the_crate_is_an_error() {
        let error = ioctl(|_| panic!("index out of range")).quote(&[0; 64]).expect_err("it panicked");
        assert!(error.to_string().contains("/dev/test"), "{error}");
    }

    #[test]
    fn a_longer_answer_than_the_crates_buffer_is_dropped() {
        assert!(ioctl(|_| Ok(vec![0; 100])).quote(&[0; 64]).is_ok());
        let error = ioctl(|_| Ok(vec![0; 101])).quote(&[0; 64]).expect_err("too long");
        assert!(matches!(error, TeeError::Malformed(_)), "{error}");
    }

    #[test]
    fn without_devices_both_crates_give_errors() {
        // No test machine of ours is a TEE; on one that is, there is nothing to see here.
        if crate::real_tee(std::path::Path::new("/")).is_some() {
            return;
        }
        for mut device in [Ioctl::tdx("/dev/tdx_guest".into()), Ioctl::snp("/dev/sev-guest".into())] {
            let error = device.quote(&[7; 64]).expect_err("there is no device");
            assert!(matches!(error, TeeError::Refused(_)), "{error}");
        }
    }
}
