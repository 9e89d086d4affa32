//! Which TEE this machine has.

use super::clock::{Clock, Monotonic};
use super::files::{Disk, Files};
use super::old_kernels::Ioctl;
use super::registers::{self, Registers};
use super::snp::Snp;
use super::tdx::Tdx;
use super::tsm::{Device, Provider, Tsm};
use super::{Tee, TeeError};
use std::path::Path;

/// The kernel's folder of reports, under the root.
pub(super) const TSM: &str = "sys/kernel/config/tsm/report";
/// A TD's devices, under the root: mainline's, and Intel's own kernels' of before.
pub(super) const TDX_DEVICES: [&str; 2] = ["dev/tdx_guest", "dev/tdx-guest"];
/// An SNP guest's device, under the root.
pub(super) const SNP_DEVICE: &str = "dev/sev-guest";

/// The real TEE of this machine: through configfs-tsm if a driver provides reports there, else through its device, else
/// `None`. `root` is `/`, except in tests.
///
/// # Errors
/// [`TeeError`], if there is one that cannot be used: that is never taken for none.
pub fn open_real_tee(root: &Path) -> Result<Option<Box<dyn Tee>>, TeeError> {
    open_with(root, &|| Box::new(Disk), &|| Box::new(Monotonic::start()))
}

type Make<'a, T> = &'a dyn Fn() -> Box<T>;

fn open_with(
    root: &Path,
    files: Make<'_, dyn Files>,
    clock: Make<'_, dyn Clock>,
) -> Result<Option<Box<dyn Tee>>, TeeError> {
    let tdx = |device: Box<dyn Device>| -> Box<dyn Tee> {
        Box::new(Tdx::new(device, Registers::new(root.join(registers::FOLDER), files(), clock())))
    };
    let reports = root.join(TSM);
    if files().exists(&reports) {
        match Tsm::open(reports, files(), clock())? {
            Some((Provider::Tdx, tsm)) => return Ok(Some(tdx(Box::new(tsm)))),
            Some((Provider::Snp, tsm)) => return Ok(Some(Box::new(Snp::new(Box::new(tsm))))),
            None => {}
        }
    }
    let present = |device: &str| files().exists(&root.join(device));
    if let Some(device) = TDX_DEVICES.iter().find(|device| present(device)) {
        return Ok(Some(tdx(Box::new(Ioctl::tdx(root.join(device))))));
    }
    if present(SNP_DEVICE) {
        return Ok(Some(Box::new(Snp::new(Box::new(Ioctl::snp(root.join(SNP_DEVICE)))))));
    }
    Ok(None)
}

#[cfg(test)]
#[path = "open_tests.rs"]
mod tests;
