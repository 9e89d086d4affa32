//! The honest platform of one guest.

use cocoon_attestation::{Measurements, UnixTime, extend};
use ring::digest::{SHA384, digest};

use crate::boot::{self, Pcrs};
use crate::keys::AttestationKey;
use crate::pki::SimulatedRoot;
use crate::quote::{Draft, Td};

/// The longest command line that is measured, in bytes.
pub const MAX_COMMAND_LINE: usize = 64 * 1024;

/// Reads the PCRs of the TPM that a guest's firmware measures into. The host does it, behind the guest's back.
pub type ReadPcrs = Box<dyn Fn() -> Result<Pcrs, String> + Send + Sync>;

/// Registers and attestation key of one simulated TD.
pub struct Emulator {
    root: SimulatedRoot,
    key: AttestationKey,
    td: Td,
    /// A VM whose boot has not been confirmed yet: its registers mean nothing until then.
    booting: Option<ReadPcrs>,
}

/// A quote and what is needed to verify it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quote {
    /// TDX v4 quote.
    pub quote: Vec<u8>,
    /// Collateral JSON in canonical form.
    pub endorsements: Vec<u8>,
}

impl Emulator {
    /// Measures what is launched: MRTD = SHA-384(`binary`); RTMR1 extended with SHA-384 of the command line's words joined
    /// by NUL. All other registers are zero.
    ///
    /// # Panics
    /// If the command line is longer than [`MAX_COMMAND_LINE`]: the host wrote it.
    pub fn launch(root: &SimulatedRoot, binary: &[u8], command_line: &[&str]) -> Self {
        let joined = command_line.join("\0");
        assert!(joined.len() <= MAX_COMMAND_LINE, "a command line of at most 64 KiB");
        let zero = [0; 48];
        let registers = Measurements {
            mrtd: sha384(binary),
            rtmr: [zero, extend(&zero, &sha384(joined.as_bytes())), zero, zero],
            mrconfigid: zero,
            mrowner: zero,
            mrownerconfig: zero,
        };
        Self { root: root.clone(), key: AttestationKey::generate(), td: Td::new(registers), booting: None }
    }

    /// A VM that is being booted: MRTD is the firmware's, all else is zero, and nothing but [`Emulator::boot`] is answered.
    pub fn power_on(root: &SimulatedRoot, mrtd: [u8; 48], pcrs: ReadPcrs) -> Self {
        let zero = [0; 48];
        let registers =
            Measurements { mrtd, rtmr: [zero; 4], mrconfigid: zero, mrowner: zero, mrownerconfig: zero };
        let td = Td::new(registers);
        Self { root: root.clone(), key: AttestationKey::generate(), td, booting: Some(pcrs) }
    }

    /// Takes the firmware's log once, and fills RTMR0 to RTMR2 with its events if the TPM confirms them. Gives the log back
    /// as a TDX machine's CCEL has it.
    ///
    /// # Errors
    /// With the reason: the log is not what the TPM holds, or this is no VM that boots. The registers stay as they were.
    pub fn boot(&mut self, log: &[u8]) -> Result<Vec<u8>, String> {
        let pcrs = self.booting.as_ref().ok_or("boot: this guest has booted")?;
        let pcrs = pcrs().map_err(|why| format!("boot: the TPM cannot be read: {why}"))?;
        let boot = boot::replay(log, &pcrs)?;
        self.td.registers.rtmr[..3].copy_from_slice(&boot.rtmr);
        self.booting = None;
        Ok(boot.log)
    }

    /// Whether the registers mean something: a process from its start, a VM once its boot is confirmed.
    pub fn has_booted(&self) -> bool {
        self.booting.is_none()
    }

    /// What the registers hold now.
    pub fn registers(&self) -> &Measurements {
        &self.td.registers
    }

    /// Extends RTMR2 or RTMR3. Gives back whether `index` was one of them, in a guest that
    /// has booted.
    #[must_use]
    pub fn extend(&mut self, index: u8, measured: &[u8; 48]) -> bool {
        let (true, 2 | 3) = (self.has_booted(), index) else { return false };
        let register = &mut self.td.registers.rtmr[usize::from(index)];
        *register = extend(register, measured);
        true
    }

    /// A quote over the registers as they are, carrying `report_data`.
    pub fn quote(&self, report_data: &[u8; 64]) -> Vec<u8> {
        self.root.sign_quote(&Draft::honest(&self.td, report_data, &self.key), &self.key)
    }

    /// A quote, and collateral signed at `now`.
    pub fn quote_with_collateral(&self, report_data: &[u8; 64], now: UnixTime) -> Quote {
        Quote { quote: self.quote(report_data), endorsements: self.collateral(now) }
    }

    /// Collateral in canonical form, signed at `now`.
    pub fn collateral(&self, now: UnixTime) -> Vec<u8> {
        self.root.collateral(now)
    }
}

fn sha384(bytes: &[u8]) -> [u8; 48] {
    digest(&SHA384, bytes).as_ref().try_into().expect("SHA-384 is 48 bytes")
}
