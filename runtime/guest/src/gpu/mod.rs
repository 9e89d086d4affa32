//! The GPUs as the guest sees them: each is asked for a report over a nonce.
//!
//! All or nothing: a GPU that is here and does not attest is an error, never a record less. The engine could use it, and a
//! statement without it would look like one of a guest without it.

mod nvml;

pub use nvml::Nvidia;

use cocoon_attestation::GpuRecord;
use thiserror::Error;

/// Most GPUs of one guest: a statement has room for so many digests.
pub const MAX_GPUS: usize = cocoon_attestation::statement::MAX_GPUS;
/// Where the nonce is in a report: SPDM's GET_MEASUREMENTS request (DSP0274, 10.11.1) is its head.
const NONCE: std::ops::Range<usize> = 4..36;

/// What one GPU answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GpuEvidence {
    /// SPDM request and response, as the driver gives them.
    pub report: Vec<u8>,
    /// The certificate chain that signs it, as the driver gives it.
    pub certificate_chain: Vec<u8>,
    /// `HOPPER`, `BLACKWELL`, …; empty if the driver's library knows no name for it.
    pub architecture: String,
    /// NVIDIA's name of the device, for people.
    pub uuid: String,
}

/// All GPUs of this guest.
pub trait Gpus: Send + Sync {
    /// Evidence of each, in the driver's order, over one nonce. Blocks; one request at a time.
    ///
    /// # Errors
    /// [`GpuError`], if any of them gives none.
    fn evidence(&self, nonce: &[u8; 32]) -> Result<Vec<GpuEvidence>, GpuError>;
}

/// A guest without GPUs.
#[derive(Clone, Copy, Debug)]
pub struct NoGpus;

impl Gpus for NoGpus {
    fn evidence(&self, _: &[u8; 32]) -> Result<Vec<GpuEvidence>, GpuError> {
        Ok(Vec::new())
    }
}

/// Why there is no GPU evidence.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum GpuError {
    /// There is no driver, or it is not loaded.
    #[error("no NVIDIA driver: {0}")]
    NoDriver(String),
    /// The driver's library does not do its part.
    #[error("NVIDIA's library failed at {call}: {why}")]
    Driver {
        /// What was asked.
        call: &'static str,
        /// What it said.
        why: String,
    },
    /// A GPU gives no report.
    #[error(
        "GPU {index} ({uuid}) gives no {what}: {why}; switch its confidential-computing mode on, or take it out of this \
         guest"
    )]
    NotAttested {
        /// Its number.
        index: u32,
        /// Its name.
        uuid: String,
        /// Report or certificate chain.
        what: &'static str,
        /// What the driver said.
        why: String,
    },
    /// A GPU gives something that is no answer.
    #[error("GPU {index} ({uuid}) answered with {what}")]
    Malformed {
        /// Its place in the driver's order.
        index: usize,
        /// Its name.
        uuid: String,
        /// What is wrong.
        what: String,
    },
    /// More than a statement has room for.
    #[error("{0} GPUs, more than {MAX_GPUS}")]
    TooMany(usize),
}

/// One encoded record for each GPU, in the driver's order.
///
/// # Errors
/// [`GpuError`]; a report over another nonce is `Malformed`.
pub(crate) fn records(gpus: &dyn Gpus, nonce: &[u8; 32]) -> Result<Vec<Vec<u8>>, GpuError> {
    let evidence = gpus.evidence(nonce)?;
    if evidence.len() > MAX_GPUS {
        return Err(GpuError::TooMany(evidence.len()));
    }
    evidence.into_iter().enumerate().map(|(index, gpu)| record(index, gpu, nonce)).collect()
}

fn record(index: usize, gpu: GpuEvidence, nonce: &[u8; 32]) -> Result<Vec<u8>, GpuError> {
    let GpuEvidence { report, certificate_chain, architecture, uuid } = gpu;
    if report.get(NONCE) != Some(nonce.as_slice()) {
        let what = format!("a report of {} bytes that is not over the nonce it was asked with", report.len());
        return Err(GpuError::Malformed { index, uuid, what });
    }
    GpuRecord { architecture, report, certificates: certificate_chain }
        .encode()
        .map_err(|error| GpuError::Malformed { index, uuid, what: error.to_string() })
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Hopper GPUs as tests need them: reports over the nonce, or over another, or none.
    pub(crate) struct Fake {
        pub(crate) count: usize,
        pub(crate) change: fn(&mut GpuEvidence),
    }

    impl Gpus for Fake {
        fn evidence(&self, nonce: &[u8; 32]) -> Result<Vec<GpuEvidence>, GpuError> {
            let gpu = |index: usize| {
                let mut gpu = GpuEvidence {
                    report: [[0x11, 0xe0, 1, 0xff].as_slice(), nonce, &[0; 2000]].concat(),
                    certificate_chain: b"-----BEGIN CERTIFICATE-----".to_vec(),
                    architecture: "HOPPER".into(),
                    uuid: format!("GPU-{index}"),
                };
                (self.change)(&mut gpu);
                gpu
            };
            Ok((0..self.count).map(gpu).collect())
        }
    }

    #[test]
    fn each_gpu_becomes_a_record_over_the_nonce() {
        let encoded = records(&Fake { count: 2, change: |_| () }, &[7; 32]).expect("two");
        assert_eq!(encoded.len(), 2);
        let record = GpuRecord::decode(&encoded[1]).expect("ours");
        assert_eq!((record.architecture.as_str(), &record.report[NONCE]), ("HOPPER", [7; 32].as_slice()));
        assert_eq!(records(&NoGpus, &[7; 32]), Ok(Vec::new()));
    }

    #[test]
    fn a_gpu_that_answers_otherwise_is_an_error_and_not_left_out() {
        type Change = fn(&mut GpuEvidence);
        let changes: [(&str, Change); 6] = [
            ("another nonce", |gpu| gpu.report[4] ^= 1),
            ("a cut report", |gpu| gpu.report.truncate(35)),
            ("no report", |gpu| gpu.report.clear()),
            ("a large report", |gpu| gpu.report.resize(GpuRecord::MAX_REPORT + 1, 0)),
            ("no certificates", |gpu| gpu.certificate_chain.clear()),
            ("a strange name", |gpu| gpu.architecture = "hopper\n".into()),
        ];
        for (what, change) in changes {
            let error = records(&Fake { count: 1, change }, &[7; 32]).expect_err(what);
            assert!(matches!(error, GpuError::Malformed { index: 0, .. }), "{what}: {error}");
            assert!(error.to_string().contains("GPU-0"), "{what}: {error}");
        }
        assert!(records(&Fake { count: MAX_GPUS, change: |_| () }, &[7; 32]).is_ok());
        let error = records(&Fake { count: MAX_GPUS + 1, change: |_| () }, &[7; 32]);
        assert_eq!(error, Err(GpuError::TooMany(MAX_GPUS + 1)));
    }
}
