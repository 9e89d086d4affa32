//! A run-time register of a TD, through sysfs (`Documentation/ABI/testing/sysfs-devices-virtual-misc-tdx_guest`, Linux 6.16
//! and later with `CONFIG_TSM_MEASUREMENTS`): a file of 48 bytes. Reading gives its value, one write of 48 bytes extends it
//! (TDG.MR.RTMR.EXTEND).

use crate::failure::{Explain, Failure, Outcome};
use crate::tee::{read_limited, sha384};
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::PathBuf;
use std::time::Duration;

/// Calls of the TDX module may be interrupted; more often than this is no accident.
const ATTEMPTS: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);
const REMEDY: &str = "use the image's kernel, and a TDX module that extends registers";

/// What can be read and extended.
pub(crate) trait Register {
    /// Its value.
    fn value(&self) -> Outcome<[u8; 48]>;
    /// Extends it once, or says why not; it may have been extended even so.
    fn extend(&self, digest: &[u8; 48]) -> io::Result<()>;
}

/// The kernel's file.
pub(crate) struct Sysfs(pub(crate) PathBuf);

impl Register for Sysfs {
    fn value(&self) -> Outcome<[u8; 48]> {
        let bytes = read_limited(&self.0, 48)?;
        let length = bytes.len();
        let wrong = |_| Failure::new(format!("{} has {length} bytes, not 48; {REMEDY}", self.0.display()));
        bytes.try_into().map_err(wrong)
    }

    fn extend(&self, digest: &[u8; 48]) -> io::Result<()> {
        // Neither created nor cut: an attribute is there, or the kernel has none.
        let written = File::options().write(true).open(&self.0)?.write(digest)?;
        if written == digest.len() { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
    }
}

/// Extends a register that nothing has extended before, once, and sees that it was so.
pub(crate) fn extend_first(register: &dyn Register, digest: &[u8; 48]) -> Outcome {
    const ZERO: [u8; 48] = [0; 48];
    let expected = sha384(&[ZERO, *digest].concat());
    for attempt in 0..ATTEMPTS {
        // An earlier attempt may have done it, although it ended in an error. The first one has not.
        match (register.value()?, attempt > 0) {
            (ZERO, _) => {}
            (value, true) if value == expected => return Ok(()),
            (value, _) => {
                let value = hex::encode(value);
                return Err(Failure::new(format!("RTMR3 is {value}: something else extended it; {REMEDY}")));
            }
        }
        match register.extend(digest) {
            Ok(()) if register.value()? == expected => return Ok(()),
            Ok(()) => return Err(Failure::new(format!("RTMR3 is not what it was extended to; {REMEDY}"))),
            Err(error) if passes(&error) => std::thread::sleep(PAUSE),
            Err(error) => return Err(error).explain("RTMR3 cannot be extended", REMEDY),
        }
    }
    Err(Failure::new(format!("RTMR3 could not be extended in {ATTEMPTS} attempts; {REMEDY}")))
}

/// A signal came, or the device is busy with an earlier request, or gave up waiting.
fn passes(error: &io::Error) -> bool {
    use ErrorKind::{Interrupted, ResourceBusy, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | ResourceBusy | TimedOut | WouldBlock)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};

    const DIGEST: [u8; 48] = [1; 48];

    /// A register that answers each write with the next of these: whether it extends, and what it says.
    struct Fake {
        value: Cell<[u8; 48]>,
        answers: RefCell<Vec<(bool, io::Result<()>)>>,
    }

    fn fake(value: [u8; 48], answers: Vec<(bool, io::Result<()>)>) -> Fake {
        Fake { value: Cell::new(value), answers: RefCell::new(answers) }
    }

    impl Register for Fake {
        fn value(&self) -> Outcome<[u8; 48]> {
            Ok(self.value.get())
        }

        fn extend(&self, digest: &[u8; 48]) -> io::Result<()> {
            let mut answers = self.answers.borrow_mut();
            let (extends, answer) = if answers.is_empty() {
                (false, Err(ErrorKind::ResourceBusy.into()))
            } else {
                answers.remove(0)
            };
            if extends {
                self.value.set(sha384(&[self.value.get(), *digest].concat()));
            }
            answer
        }
    }

    #[test]
    fn it_is_extended_once_whatever_the_kernel_says() {
        let busy = || Err(ErrorKind::ResourceBusy.into());
        for answers in [
            vec![(true, Ok(()))],
            vec![(false, busy()), (false, busy()), (true, Ok(()))],
            vec![(true, busy()), (true, Ok(()))], // done, although it said busy: not a second time
        ] {
            let register = fake([0; 48], answers);
            assert_eq!(extend_first(&register, &DIGEST), Ok(()));
            assert_eq!(register.value.get(), sha384(&[[0; 48], DIGEST].concat()));
        }
    }

    #[test]
    fn a_register_that_is_not_as_it_must_be_ends_the_boot() {
        let before = sha384(&[[0; 48], DIGEST].concat()); // even by the same digest
        for (value, answers, word) in [
            (before, vec![(true, Ok(()))], "something else"),
            ([0; 48], vec![(false, Ok(()))], "not what"),
            ([0; 48], vec![(false, Err(ErrorKind::PermissionDenied.into()))], "cannot be extended"),
            ([0; 48], vec![], "20 attempts"),
        ] {
            let error = extend_first(&fake(value, answers), &DIGEST).expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_no_register_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let register = Sysfs(folder.path().join("rtmr3:sha384"));
        assert!(extend_first(&register, &DIGEST).is_err(), "there is none");
        for length in [0, 47, 49] {
            std::fs::write(&register.0, vec![0; length]).expect("a file");
            assert!(register.value().is_err(), "{length}");
        }
        // A file keeps what is written, which a register never does.
        std::fs::write(&register.0, [0; 48]).expect("a file");
        assert!(extend_first(&register, &DIGEST).is_err());
    }
}
