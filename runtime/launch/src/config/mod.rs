//! `host.toml`: all that a host is told, in one file. Unknown words are refused; each error names the field, what is
//! wrong, and what to do.
//!
//! ```
//! let text = include_str!("../../host.toml");
//! let config = cocoon_launch::config::HostConfig::parse(text).expect("the example is good");
//! assert_eq!(config.guests.len(), 2);
//! ```

mod file;
#[cfg(test)]
mod tests;

use std::{
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
};

pub use crate::doctor::Tee as TeeKind;
use crate::plan::{Cid, GuestName, Iommu, Memory, PciAddress, QuoteService, Vcpus};
use crate::root::Root;

/// Most bytes of the file.
pub const MAX_CONFIG: u64 = 64 * 1024;
/// Most guests of one host.
pub const MAX_GUESTS: usize = 16;
/// Most gateways.
pub const MAX_GATEWAYS: usize = 16;
/// The first guest's CID, if none is named.
pub const FIRST_CID: u32 = 16;

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("the host's configuration {path} cannot be read: {why}; runtime/launch/host.toml is an example")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// Not TOML, an unknown field, or a missing one.
    #[error("the host's configuration is not understood: {0}")]
    Grammar(String),
    /// It is left to the hardware, which has none.
    #[error(
        "`tee = \"auto\"` in the host's configuration, and {why}; use another machine, or write `tee = \"emulation\"` to try \
         things out unprotected (`cocoon host doctor` says more)"
    )]
    NoTee {
        /// What was found.
        why: String,
    },
    /// A value that cannot be.
    #[error("`{field}` in the host's configuration: {why}")]
    Value {
        /// Which field, with its table: `guest.gpu-0.cid`.
        field: String,
        /// What is wrong, and what to write instead.
        why: String,
    },
}

/// A host's configuration: read, checked, and with defaults filled in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostConfig {
    /// Which TEE.
    pub tee: TeeChoice,
    /// The image's folder.
    pub image: PathBuf,
    /// The folder of all that lasts.
    pub state: PathBuf,
    /// URLs of gateways.
    pub gateways: Vec<String>,
    /// The URL that gateways are told, if it is not the listening address. Only with one guest.
    pub advertise: Option<String>,
    /// Where TDX quotes are signed.
    pub quote_service: QuoteService,
    /// How GPUs are handed over.
    pub iommu: Iommu,
    /// The model's name, as clients ask for it.
    pub model_name: String,
    /// The model's file.
    pub model_file: PathBuf,
    /// What is asked of the registry's prices, as it was written; `None`: the prices themselves.
    pub coefficient: Option<String>,
    /// Programs in place of the pinned ones.
    pub tools: Tools,
    /// The guests, at least one.
    pub guests: Vec<GuestConfig>,
}

/// Which TEE a host uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TeeChoice {
    /// What the hardware has. Never the emulation: that is said, not found.
    Auto,
    /// Intel TDX.
    Tdx,
    /// AMD SEV-SNP.
    Snp,
    /// The development image under a simulated TEE.
    Emulation,
}

impl TeeChoice {
    /// The TEE that is named; `None`: it is left to the machine.
    pub fn named(self) -> Option<TeeKind> {
        match self {
            Self::Auto => None,
            Self::Tdx => Some(TeeKind::Tdx),
            Self::Snp => Some(TeeKind::Snp),
            Self::Emulation => Some(TeeKind::Emulation),
        }
    }
}

/// Programs in place of the pinned ones; `None`: the pinned.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tools {
    /// QEMU for x86.
    pub qemu: Option<PathBuf>,
    /// The software TPM.
    pub swtpm: Option<PathBuf>,
    /// NVIDIA's admin tool, which switches GPUs into confidential computing.
    pub gpu_admin: Option<PathBuf>,
}

/// One guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GuestConfig {
    /// Its name.
    pub name: GuestName,
    /// Its size.
    pub size: Size,
    /// Its GPUs.
    pub gpus: Vec<PciAddress>,
    /// Its address on the vsock.
    pub cid: Cid,
    /// Where gateways come to for it.
    pub listen: SocketAddr,
    /// The loopback port that is forwarded to it under emulation; 0: any free one.
    pub forward: u16,
}

/// How large a guest is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Size {
    /// As a profile of the image's manifest says.
    Profile(String),
    /// As said here.
    Own {
        /// Virtual CPUs.
        vcpus: Vcpus,
        /// Memory.
        memory: Memory,
    },
}

impl Size {
    /// Memory in bytes; `None` for a profile that does not come with this program.
    pub fn memory(&self) -> Option<u64> {
        match self {
            Self::Own { memory, .. } => Some(memory.as_mib() << 20),
            Self::Profile(name) => {
                let mut known = cocoon_image::profile::built_in().into_iter();
                known.find(|(profile, _)| profile.name == *name).map(|(profile, _)| profile.memory())
            }
        }
    }
}

impl HostConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |why: String| ConfigError::Unreadable { path: path.to_path_buf(), why };
        let length = std::fs::metadata(path).map_err(|e| unreadable(e.to_string()))?.len();
        if length > MAX_CONFIG {
            return Err(unreadable(format!("it has {length} bytes, more than {MAX_CONFIG}")));
        }
        let text = std::fs::read_to_string(path).map_err(|e| unreadable(e.to_string()))?;
        Self::parse(&text)
    }

    /// Reads the text of a file.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(text: &str) -> Result<Self, ConfigError> {
        let file: file::File =
            toml::from_str(text).map_err(|error| ConfigError::Grammar(error.to_string()))?;
        file.check()
    }

    /// The TEE of this host's guests: the one that is named, else the machine's own. Emulation only by name.
    ///
    /// # Errors
    /// [`ConfigError::NoTee`].
    pub fn tee(&self, root: &Root) -> Result<TeeKind, ConfigError> {
        let found = || crate::doctor::found(root).map_err(|why| ConfigError::NoTee { why });
        self.tee.named().map_or_else(found, Ok)
    }
}

/// Whether only this machine can reach it.
fn is_local(address: IpAddr) -> bool {
    address.is_loopback()
}
