//! The TEE: the configuration is measured into it before anything of it is used.
//!
//! | machine | told by | the configuration is in |
//! | --- | --- | --- |
//! | Intel TDX | its driver's folder in sysfs | RTMR3 |
//! | AMD SEV-SNP | `/dev/sev-guest` | the service's statement, which report data binds; the platform has no registers |
//! | simulated | the port `cocoon.tee`, only in the development image and only where there is no real one | the emulator's RTMR3 |

use crate::emulator::Emulator;
use crate::failure::{Explain, Failure, Outcome};
use crate::{USER, devices, register};
use ring::digest::{SHA384, digest};
use rustix::fs::{Gid, Uid, chown};
use std::fs::{File, create_dir, write};
use std::io::Read;
use std::path::{Path, PathBuf};

/// The TD's registers and the folder of reports, under `/sys`.
pub(crate) const REGISTERS: &str = "devices/virtual/misc/tdx_guest/measurements";
pub(crate) const REPORTS: &str = "kernel/config/tsm/report";
/// The event log, for the service.
const EVENT_LOG: &str = "/run/cocoon/eventlog";
const TPM_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";
const TD_LOG: &str = "/sys/firmware/acpi/tables/data/CCEL";
/// Most bytes of an event log: a boot's is a tenth of it.
const MAX_LOG: usize = 256 * 1024;
/// As the emulator numbers it.
const RTMR3: u8 = 3;

/// Which TEE this machine has.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tee {
    /// Intel TDX.
    Tdx,
    /// AMD SEV-SNP.
    Snp,
    /// An emulator, at this device.
    Simulated(PathBuf),
}

impl Tee {
    /// What the machine has decides. `root` is `/`, except in tests.
    pub(crate) fn find(root: &Path, development: bool) -> Outcome<Self> {
        if root.join("sys/devices/virtual/misc/tdx_guest").exists() {
            return Ok(Self::Tdx);
        }
        if root.join("dev/sev-guest").exists() {
            return Ok(Self::Snp);
        }
        match devices::port(&root.join("sys"), "cocoon.tee")? {
            Some(port) if development => Ok(Self::Simulated(port)),
            Some(_) => Err(Failure::new(
                "this machine has no TEE, and the production image takes no simulated one; boot on TDX or SEV-SNP, or \
                 use the development image",
            )),
            None => Err(Failure::new("this machine has no TEE; boot on TDX or SEV-SNP")),
        }
    }

    /// Measures the configuration, and leaves the event log and the digest for the service.
    pub(crate) fn measure(&self, config: &[u8]) -> Outcome {
        let measured: [u8; 48] = sha384(config);
        match self {
            Self::Tdx => {
                register::extend_first(&register::Sysfs(register()), &measured)?;
                if Path::new(TD_LOG).exists() {
                    leave(EVENT_LOG, &read_log(TD_LOG)?)?;
                }
            }
            Self::Snp => {}
            Self::Simulated(port) => {
                let mut emulator = Emulator::open(port)?;
                leave(EVENT_LOG, &emulator.boot(&read_log(TPM_LOG)?)?)?;
                emulator.extend(RTMR3, &measured)?;
            }
        }
        leave("/run/cocoon/measured", hex::encode(measured).as_bytes())
    }

    /// Gives the service what it asks quotes and extends the weights with.
    pub(crate) fn hand_over(&self) -> Outcome {
        if let Self::Simulated(port) = self {
            return give(port);
        }
        // One object, made here: the service cannot make others.
        let object = Path::new("/sys").join(REPORTS).join("cocoon");
        create_dir(&object).explain(object.display(), "use the image's kernel, with the TEE's driver")?;
        devices::children(&object, "")?.iter().try_for_each(|file| give(file))?;
        match self {
            Self::Tdx => give(&register()),
            _ => Ok(()),
        }
    }
}

/// The register that is the guest's own.
fn register() -> PathBuf {
    Path::new("/sys").join(REGISTERS).join("rtmr3:sha384")
}

/// Makes the service's user the owner.
pub(crate) fn give(path: &Path) -> Outcome {
    let (user, group) = (Uid::from_raw(USER), Gid::from_raw(USER));
    chown(path, Some(user), Some(group))
        .explain(format_args!("the owner of {}", path.display()), "use the image's kernel")
}

fn read_log(path: &str) -> Outcome<Vec<u8>> {
    read_limited(Path::new(path), MAX_LOG)
}

/// A file of at most so many bytes.
pub(crate) fn read_limited(path: &Path, limit: usize) -> Outcome<Vec<u8>> {
    let remedy = "the firmware must measure the boot, and the kernel show it";
    let file = File::open(path).explain(path.display(), remedy)?;
    let mut bytes = Vec::new();
    file.take(limit as u64 + 1).read_to_end(&mut bytes).explain(path.display(), remedy)?;
    if bytes.len() > limit {
        return Err(Failure::new(format!("{} has more than {limit} bytes; {remedy}", path.display())));
    }
    Ok(bytes)
}

/// Writes a file of the run folder.
pub(crate) fn leave(path: &str, bytes: &[u8]) -> Outcome {
    write(path, bytes).explain(path, "give the guest more memory")
}

/// SHA-384.
pub(crate) fn sha384(bytes: &[u8]) -> [u8; 48] {
    digest(&SHA384, bytes).as_ref().try_into().expect("SHA-384 gives 48 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for path in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
            std::fs::write(path, "cocoon.tee\n").expect("a file");
        }
        root
    }

    const PORT: &str = "sys/class/virtio-ports/vport0p1/name";
    const TDX: &str = "sys/devices/virtual/misc/tdx_guest/dev";
    const SNP: &str = "dev/sev-guest";

    #[test]
    fn a_real_tee_goes_before_the_simulated_one() {
        for (files, expected) in [
            (vec![TDX, PORT], Tee::Tdx),
            (vec![SNP, PORT], Tee::Snp),
            (vec![PORT], Tee::Simulated("/dev/vport0p1".into())),
        ] {
            assert_eq!(Tee::find(machine(&files).path(), true), Ok(expected));
        }
    }

    #[test]
    fn the_production_image_takes_no_simulated_tee() {
        assert!(Tee::find(machine(&[PORT]).path(), false).is_err());
        assert!(Tee::find(machine(&[]).path(), true).is_err());
        assert_eq!(Tee::find(machine(&[SNP, PORT]).path(), false), Ok(Tee::Snp));
    }
}
