//! The TEE: the configuration is measured into it before anything of it is used.
//!
//! | machine | told by | the configuration is in |
//! | --- | --- | --- |
//! | Intel TDX | its driver's folder in sysfs | RTMR3 |
//! | AMD SEV-SNP | `/dev/sev-guest` | the service's statement, which report data binds; the platform has no registers |
//! | simulated | the port `cocoon.tee`, only in the development image and only where there is no real one | the emulator's RTMR3 |

use crate::emulator::Emulator;
use crate::failure::{Explain, Failure, Outcome};
use crate::{USER, devices};
use ring::digest::{SHA384, digest};
use rustix::fs::{Gid, Uid, chown};
use std::fs::{File, create_dir, write};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The TD's registers and the folder of reports, under `/sys`.
pub(crate) const REGISTERS: &str = "devices/virtual/misc/tdx_guest/measurements";
pub(crate) const REPORTS: &str = "kernel/config/tsm/report";
/// The event log, for the service.
const EVENT_LOG: &str = "/run/cocoon/eventlog";
const TPM_LOG: &str = "/sys/kernel/security/tpm0/binary_bios_measurements";
const TD_LOG: &str = "/sys/firmware/acpi/tables/data/CCEL";
/// Most bytes of an event log: a boot's is a tenth of it.
const MAX_LOG: usize = 256 * 1024;
/// The register that is the guest's own.
const RTMR3: u8 = 3;
const REMEDY: &str = "use the image's kernel, and a TDX module that extends registers";

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
                extend_register(&Path::new("/sys").join(REGISTERS).join("rtmr3:sha384"), &measured)?;
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
            Self::Tdx => give(&Path::new("/sys").join(REGISTERS).join("rtmr3:sha384")),
            _ => Ok(()),
        }
    }
}

/// Makes the service's user the owner.
pub(crate) fn give(path: &Path) -> Outcome {
    let (user, group) = (Uid::from_raw(USER), Gid::from_raw(USER));
    chown(path, Some(user), Some(group))
        .explain(format_args!("the owner of {}", path.display()), "use the image's kernel")
}

/// Extends RTMR3 once, and sees that it was so. Nothing extends it before PID 1: it must be zero.
fn extend_register(path: &Path, measured: &[u8; 48]) -> Outcome {
    /// Calls of the TDX module may be interrupted; more often than this is no accident.
    const ATTEMPTS: u32 = 20;
    let expected = sha384(&[[0; 48].as_slice(), measured].concat());
    for attempt in 0.. {
        // An earlier attempt may have done it, although it ended in an error.
        match register(path)? {
            value if value == expected => break,
            value if value != [0; 48] => {
                let value = hex::encode(value);
                return Err(Failure::new(format!(
                    "{} is {value}: something else extended it; {REMEDY}",
                    path.display()
                )));
            }
            _ => {}
        }
        match extend_once(path, measured) {
            Err(error) if passes(&error) && attempt < ATTEMPTS => {
                std::thread::sleep(Duration::from_millis(50))
            }
            Ok(()) if attempt < ATTEMPTS => {}
            Ok(()) => return Err(Failure::new(format!("{} stays zero; {REMEDY}", path.display()))),
            Err(error) => return Err(error).explain(path.display(), REMEDY),
        }
    }
    Ok(())
}

fn passes(error: &std::io::Error) -> bool {
    use ErrorKind::{Interrupted, ResourceBusy, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | ResourceBusy | TimedOut | WouldBlock)
}

/// One write of 48 bytes: neither created nor cut, an attribute is there or the kernel has none.
fn extend_once(path: &Path, measured: &[u8; 48]) -> std::io::Result<()> {
    use std::io::Write;
    let written = File::options().write(true).open(path)?.write(measured)?;
    if written == measured.len() { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
}

fn register(path: &Path) -> Outcome<[u8; 48]> {
    let bytes = read_limited(path, 48)?;
    let length = bytes.len();
    bytes
        .try_into()
        .map_err(|_| Failure::new(format!("{} has {length} bytes, not 48; {REMEDY}", path.display())))
}

fn read_log(path: &str) -> Outcome<Vec<u8>> {
    read_limited(Path::new(path), MAX_LOG)
}

fn read_limited(path: &Path, limit: usize) -> Outcome<Vec<u8>> {
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

fn sha384(bytes: &[u8]) -> [u8; 48] {
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

    /// A file stands in for the register: writing 48 bytes replaces its value rather than extending it.
    #[test]
    fn a_register_that_is_not_as_it_must_be_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rtmr3:sha384");
        assert!(extend_register(&path, &[1; 48]).is_err(), "there is none");
        for (value, word) in [
            (vec![0; 47], "47 bytes"),
            (vec![0; 49], "more than 48"),
            (vec![5; 48], "something else"),
            (vec![0; 48], "something else"),
        ] {
            std::fs::write(&path, value).expect("a file");
            let error = extend_register(&path, &[1; 48]).expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_register_that_was_extended_by_an_attempt_that_failed_is_not_extended_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rtmr3:sha384");
        std::fs::write(&path, sha384(&[[0; 48].as_slice(), &[1; 48]].concat())).expect("a file");
        assert_eq!(extend_register(&path, &[1; 48]), Ok(()));
    }
}
