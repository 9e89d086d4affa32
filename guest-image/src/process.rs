//! The registers of *process mode*: the guest service as a child process beside an emulated TDX module; and RTMR3, which
//! configuration and weights fill alike in a process and in a VM. Whoever has the files and this crate can tell which
//! registers an honest guest shows; the emulator's code is not used here.
//!
//! | register | holds | a change of it means |
//! | --- | --- | --- |
//! | MRTD | SHA-384 of the guest binary | another binary |
//! | RTMR0 | zero: there is no firmware | |
//! | RTMR1 | extended with SHA-384 of argv, joined by NUL | another command line |
//! | RTMR2 | zero: there is no kernel of ours | |
//! | RTMR3 | extended with SHA-384 of `config.toml`, then with SHA-384("cocoon weights v1" ‖ SHA-256 of the model file) | another configuration or model |

use cocoon_attestation::Measurements;

use crate::digest::{ZERO, extended, sha384};

/// The command line of a guest in process mode: no arguments, so that nothing unmeasured steers it.
pub const COMMAND_LINE: &[&str] = &["cocoon-guest"];

const WEIGHTS_DOMAIN: &[u8] = b"cocoon weights v1";

/// All that steers a guest in process mode.
#[derive(Clone, Copy)]
pub struct ProcessImage<'a> {
    /// The bytes of the guest's executable.
    pub guest_binary: &'a [u8],
    /// Its argv, program name first; [`COMMAND_LINE`] unless you test.
    pub command_line: &'a [&'a str],
    /// The bytes of `config.toml`.
    pub configuration: &'a [u8],
    /// SHA-256 of the model file.
    pub weights_sha256: [u8; 32],
}

impl ProcessImage<'_> {
    /// What the registers of an honest guest hold when it shows its first quote.
    pub fn measurements(&self) -> Measurements {
        let command_line = self.command_line.join("\0");
        Measurements {
            mrtd: sha384(&[self.guest_binary]),
            rtmr: [
                ZERO,
                extended_once(&[command_line.as_bytes()]),
                ZERO,
                runtime_register(self.configuration, &self.weights_sha256),
            ],
            mrconfigid: ZERO,
            mrowner: ZERO,
            mrownerconfig: ZERO,
        }
    }
}

/// RTMR3 once the configuration and the weights are measured: in a process as in a VM.
pub fn runtime_register(configuration: &[u8], weights_sha256: &[u8; 32]) -> [u8; 48] {
    let configured = extended_once(&[configuration]);
    extended(&configured, &sha384(&[WEIGHTS_DOMAIN, weights_sha256]))
}

/// A register that was zero and was extended once, with the digest of `parts`.
fn extended_once(parts: &[&[u8]]) -> [u8; 48] {
    extended(&ZERO, &sha384(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ProcessImage<'static> {
        ProcessImage {
            guest_binary: b"binary",
            command_line: COMMAND_LINE,
            configuration: b"network = -3\n",
            weights_sha256: [7; 32],
        }
    }

    /// Made with Python's hashlib, from the table above.
    #[test]
    fn the_registers_are_those_of_the_table() {
        let measured = image().measurements();
        let expected = [
            "a22ff37002183aa4ed3dca2c9497a82537371cbd80a3205ad222cf2dc47cf975f6d935910bc8d13a7e2a76bc30bfc47d",
            "1f89face0caea114bc7ee058e47001c71117c0af14bd99376b16cc58215fc7f3f780c896aeffba41c0adc94e28e7a917",
            "0df64743385cfe6ed21fc970907a7a64023cce48838d0f88af4cae3c66d7846f4790baf15783a4c46dde71f855f5b153",
        ];
        let got = [measured.mrtd, measured.rtmr[1], measured.rtmr[3]].map(hex::encode);
        assert_eq!(got.as_slice(), expected);
        assert_eq!([measured.rtmr[0], measured.rtmr[2]], [ZERO; 2]);
    }

    #[test]
    fn each_part_moves_its_own_register_and_no_other() {
        let base = image().measurements();
        let binary = ProcessImage { guest_binary: b"binarz", ..image() }.measurements();
        assert_ne!(binary.mrtd, base.mrtd);
        assert_eq!(binary.rtmr, base.rtmr);
        let command_line = ProcessImage { command_line: &["cocoon-guest", "x"], ..image() }.measurements();
        let configuration = ProcessImage { configuration: b"network = -4\n", ..image() }.measurements();
        let weights = ProcessImage { weights_sha256: [8; 32], ..image() }.measurements();
        for (index, changed) in [(1, command_line), (3, configuration), (3, weights)] {
            assert_eq!(changed.mrtd, base.mrtd);
            for register in 0..4 {
                let same = changed.rtmr[register] == base.rtmr[register];
                assert_eq!(same, register != index, "RTMR{register} when RTMR{index} should move");
            }
        }
    }
}
