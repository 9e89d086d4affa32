//! What a check asks that is not a file.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::report::Tee;
use crate::gpu::{CcTool, Selection};
use crate::plan::{GuestName, QuoteService};

/// What is asked of a host.
#[derive(Debug, Clone)]
pub struct Question {
    /// The TEE that is meant; `None`: what the CPU is made for.
    pub tee: Option<Tee>,
    /// GPUs that the guests shall have; `None`: none.
    pub gpus: Option<Selection>,
    /// Memory of all guests, in bytes.
    pub memory: u64,
    /// The image that guests shall boot; `None`: not named yet.
    pub image: Option<ImageQuestion>,
    /// The guest's firmware, as a path of the machine; `None`: not chosen yet.
    pub firmware: Option<PathBuf>,
    /// SHA-256 of firmware files with known measurements, in hexadecimal; empty: no image was given.
    pub known_firmware: Vec<String>,
    /// Where Intel's quote generation service listens.
    pub quote_service: QuoteService,
    /// The folder of state and images.
    pub state: PathBuf,
    /// Bytes that must be free there.
    pub disk: u64,
    /// Addresses that the host serves on.
    pub ports: Vec<SocketAddr>,
    /// Nanotons that the wallet should hold, for fees until it earns.
    pub balance: u64,
}

/// What is asked of an image.
#[derive(Debug, Clone)]
pub struct ImageQuestion {
    /// Its folder, as a path of the machine.
    pub folder: PathBuf,
    /// The guests whose machines are profiles of its manifest.
    pub guests: Vec<ProfileGuest>,
}

/// A guest whose machine is a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileGuest {
    /// The guest.
    pub guest: GuestName,
    /// The profile's name.
    pub profile: String,
    /// How many GPUs the configuration gives it.
    pub gpus: usize,
}

impl Default for Question {
    fn default() -> Self {
        Self {
            tee: None,
            gpus: Some(Selection::All),
            memory: 4 << 30,
            image: None,
            firmware: None,
            known_firmware: Vec::new(),
            quote_service: QuoteService::USUAL,
            state: "/".into(),
            disk: 20 << 30,
            ports: Vec::new(),
            balance: 1_000_000_000,
        }
    }
}

/// A version: major, minor, patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub u32, pub u32, pub u32);

impl Version {
    /// The first version in a text: `6.16.3-generic`, `QEMU emulator version 11.1.3 (Debian …)`. A part that is missing
    /// is 0.
    pub fn find(text: &str) -> Option<Self> {
        let word = text.split_whitespace().find(|word| {
            let digits = word.bytes().take_while(u8::is_ascii_digit).count();
            digits > 0 && word.as_bytes().get(digits) == Some(&b'.')
        })?;
        let mut parts = word.split(|c: char| !c.is_ascii_digit()).map_while(|part| part.parse().ok());
        Some(Self(parts.next()?, parts.next()?, parts.next().unwrap_or(0)))
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)?;
        if self.2 > 0 { write!(f, ".{}", self.2) } else { Ok(()) }
    }
}

/// The QEMU that guests would be started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    /// Where it comes from, for people.
    pub source: String,
    /// Its version.
    pub version: Version,
    /// The objects that can be made (`-object help`).
    pub objects: Vec<String>,
}

/// What was learnt over the network, before the examination.
#[derive(Debug, Clone, Default)]
pub struct Network {
    /// Seconds by which this machine's clock is ahead of the network's.
    pub clock: Probe<i64>,
    /// The service that this TEE's collateral comes from: its address.
    pub collateral: Probe<String>,
    /// The chain: which, and how far it is.
    pub chain: Probe<String>,
    /// What the wallet holds, in nanotons.
    pub wallet: Probe<u64>,
}

/// An answer from the network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe<T> {
    /// Nobody asked; why.
    NotAsked(String),
    /// The answer.
    Answered(T),
    /// No answer; why.
    Failed(String),
}

impl<T> Default for Probe<T> {
    fn default() -> Self {
        Self::NotAsked("nobody asked the network".into())
    }
}

/// What a check asks that is not a file. Every method answers at once, or after a named limit.
pub trait Machine {
    /// The QEMU that guests would be started with.
    ///
    /// # Errors
    /// If there is none, or it does not run; in words.
    fn qemu(&self) -> Result<Qemu, String>;
    /// The software TPM of the emulation: what it says of itself.
    ///
    /// # Errors
    /// If there is none, or it does not run; in words.
    fn swtpm(&self) -> Result<String, String>;
    /// Opens a device for reading and writing, and closes it.
    ///
    /// # Errors
    /// What the system says.
    fn open(&self, device: &str) -> io::Result<()>;
    /// Connects to a unix socket, and hangs up.
    ///
    /// # Errors
    /// What the system says.
    fn connect(&self, socket: &Path) -> io::Result<()>;
    /// Listens on an address, and stops.
    ///
    /// # Errors
    /// What the system says.
    fn listen(&self, address: SocketAddr) -> io::Result<()>;
    /// Bytes that are free for this user in the folder, or in the nearest one above that exists.
    ///
    /// # Errors
    /// What the system says.
    fn free(&self, folder: &Path) -> io::Result<u64>;
    /// The kernel's log since boot. `None`: it may not be read, or its beginning was overwritten.
    fn kernel_log(&self) -> Option<String>;
    /// NVIDIA's admin tool.
    fn modes(&self) -> &dyn CcTool;
    /// What was learnt over the network.
    fn network(&self) -> &Network;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_found_in_what_programs_and_kernels_say() {
        let found = |text| Version::find(text);
        assert_eq!(found("QEMU emulator version 11.1.3 (Debian 1:11.1.3+ds-1)"), Some(Version(11, 1, 3)));
        assert_eq!(found("6.16.0-rc1+deb13-amd64"), Some(Version(6, 16, 0)));
        assert_eq!(found("6.8-custom"), Some(Version(6, 8, 0)));
        assert_eq!(found("no version"), None);
        assert_eq!(found("99999999999.1"), None);
        assert!(Version(10, 0, 9) < Version(10, 1, 0));
    }
}
