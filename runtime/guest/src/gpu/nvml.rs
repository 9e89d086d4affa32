//! NVIDIA GPUs through NVML, which `nvml-wrapper` loads when the guest starts.
//!
//! The library comes with the driver, in the measured image. The wrapper cuts its buffers at the lengths that the library
//! returns, and would panic if they were beyond the buffers: such a panic is caught and becomes an error.

use super::{GpuError, GpuEvidence, Gpus, MAX_GPUS};
use nvml_wrapper::error::NvmlError;
use nvml_wrapper::{Device, Nvml};
use std::ffi::OsStr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

/// The name that drivers install the library under; the one without a number comes with developers' packages only.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// All NVIDIA GPUs of this guest.
pub struct Nvidia {
    nvml: Mutex<Nvml>,
}

impl Nvidia {
    /// Loads NVIDIA's library and connects to the driver.
    ///
    /// # Errors
    /// [`GpuError::NoDriver`] if there is no library or no driver, [`GpuError::Driver`] if they do not work.
    pub fn open() -> Result<Self, GpuError> {
        Self::open_library(LIBRARY)
    }

    fn open_library(library: &str) -> Result<Self, GpuError> {
        let init = || Nvml::builder().lib_path(OsStr::new(library)).init();
        match caught("nvmlInit", init)? {
            Ok(nvml) => Ok(Self { nvml: Mutex::new(nvml) }),
            Err(
                error @ (NvmlError::LibloadingError(_)
                | NvmlError::LibraryNotFound
                | NvmlError::DriverNotLoaded),
            ) => Err(GpuError::NoDriver(error.to_string())),
            Err(error) => Err(failed("nvmlInit", &error)),
        }
    }
}

impl Gpus for Nvidia {
    fn evidence(&self, nonce: &[u8; 32]) -> Result<Vec<GpuEvidence>, GpuError> {
        let nvml = self.nvml.lock().unwrap_or_else(PoisonError::into_inner);
        caught("attestation", || all(&nvml, nonce))?
    }
}

fn all(nvml: &Nvml, nonce: &[u8; 32]) -> Result<Vec<GpuEvidence>, GpuError> {
    let count = nvml.device_count().map_err(|error| failed("nvmlDeviceGetCount", &error))?;
    if count as usize > MAX_GPUS {
        return Err(GpuError::TooMany(count as usize));
    }
    (0..count).map(|index| one(nvml, index, nonce)).collect()
}

fn one(nvml: &Nvml, index: u32, nonce: &[u8; 32]) -> Result<GpuEvidence, GpuError> {
    let device = nvml.device_by_index(index).map_err(|error| failed("nvmlDeviceGetHandleByIndex", &error))?;
    let uuid = device.uuid().map_err(|error| failed("nvmlDeviceGetUUID", &error))?;
    let none = |what: &'static str| {
        let uuid = uuid.clone();
        move |error: NvmlError| GpuError::NotAttested { index, uuid, what, why: error.to_string() }
    };
    let report =
        device.confidential_compute_gpu_attestation_report(*nonce).map_err(none("attestation report"))?;
    let certificates = device.confidential_compute_gpu_certificate().map_err(none("certificate chain"))?;
    Ok(GpuEvidence {
        report: report.attestation_report,
        certificate_chain: certificates.attestation_cert_chain,
        architecture: architecture(&device),
        uuid,
    })
}

/// A hint for people and verifiers, so that a newer architecture than the wrapper knows is no error.
fn architecture(device: &Device<'_>) -> String {
    use nvml_wrapper::enums::device::DeviceArchitecture::Unknown;
    match device.architecture() {
        Ok(Unknown) | Err(_) => String::new(),
        Ok(known) => known.to_string().to_ascii_uppercase(),
    }
}

/// Runs what may panic in the wrapper. Nothing of ours is left half done by it.
fn caught<T>(call: &'static str, run: impl FnOnce() -> T) -> Result<T, GpuError> {
    catch_unwind(AssertUnwindSafe(run))
        .map_err(|_| GpuError::Driver { call, why: "its answer made no sense to the wrapper".to_owned() })
}

fn failed(call: &'static str, error: &NvmlError) -> GpuError {
    GpuError::Driver { call, why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_library_there_is_no_driver() {
        let error = Nvidia::open_library("libnvidia-ml-that-nobody-has.so.1").err().expect("no library");
        assert!(matches!(error, GpuError::NoDriver(_)), "{error}");
        assert!(error.to_string().contains("no NVIDIA driver"), "{error}");
    }

    #[test]
    fn a_library_that_is_another_one_is_an_error() {
        let error = Nvidia::open_library("libc.so.6").err().expect("not NVML");
        assert!(matches!(error, GpuError::Driver { .. }), "{error}");
    }

    #[test]
    fn a_panic_of_the_wrapper_is_an_error() {
        let error = caught("test", || -> () { panic!("range end out of range") }).expect_err("it panicked");
        assert!(matches!(error, GpuError::Driver { call: "test", .. }), "{error}");
    }
}
