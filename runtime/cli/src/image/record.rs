//! `cocoon image record`: what QEMU generates for a machine, from the log of a boot.

use std::path::PathBuf;
use std::process::ExitCode;

use cocoon_attestation::EventLog;
use cocoon_image::profile::Record;

use super::read_bytes;
use crate::error::Failure;

#[derive(clap::Args)]
#[command(after_help = "\
A machine's ACPI tables and SMBIOS come from QEMU, and RTMR0 holds their digests. They are the same for every image, so one boot of
any image on that machine tells them: take the log from /sys/firmware/acpi/tables/data/CCEL of a TD, or from
/sys/kernel/security/tpm0/binary_bios_measurements of an emulated machine. Believe only the log of a machine that is your own.")]
pub(crate) struct Arguments {
    /// The log of a boot on that machine
    log: PathBuf,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let bytes = read_bytes(&arguments.log)?;
    let path = arguments.log.display();
    let log = EventLog::parse(&bytes).map_err(|error| {
        Failure::usage(format!("{path}: {error}"), "name a whole event log of a TPM or of a TD (CCEL)")
    })?;
    let record = Record::from_log(&log).map_err(|error| {
        Failure::usage(format!("{path}: {error}"), "boot the kernel directly, and take that log")
    })?;
    crate::ui::print(&record.to_toml())?;
    Ok(ExitCode::SUCCESS)
}
