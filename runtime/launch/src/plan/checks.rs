//! What a plan may not be, said before anything is started.

use std::{collections::BTreeMap, path::Path};

use super::{Gpus, GuestName, LaunchPlan, QuoteService, Snp, Tee};

/// Most GPUs of one guest: an HGX board's eight, and room on the bus.
pub const MAX_GPUS: usize = 16;
/// Most bytes of a kernel's command line (`COMMAND_LINE_SIZE` of x86, with its end).
const MAX_COMMAND_LINE: usize = 2047;
/// Most bytes of a unix socket's path.
const MAX_SOCKET_PATH: usize = 107;
/// The word that makes an image a development image.
const DEVELOPMENT: &str = "cocoon.development";

/// Why a plan is not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// QEMU's options are text.
    #[error("the path of the {what} is not UTF-8 text or has a NUL: {path:?}; move the file")]
    Path {
        /// Which file.
        what: &'static str,
        /// Its path, as far as it can be shown.
        path: String,
    },
    /// Too long, or not what the kernel reads.
    #[error("the kernel's command line {0}; build the image again")]
    CommandLine(String),
    /// A development image where secrets are meant to be protected, or the reverse.
    #[error("a {kind} guest does not boot a {image} image; name the other image folder, or another `tee`")]
    Image {
        /// tdx, snp, emulation.
        kind: &'static str,
        /// development, production.
        image: &'static str,
    },
    /// More than fit.
    #[error("{0} GPUs for one guest; at most {MAX_GPUS} are handed over")]
    TooManyGpus(usize),
    /// Their regions do not fit.
    #[error(
        "the profile's pci_mmio64_mib is {given}, and the GPUs need {needed}; measure a profile with as much"
    )]
    SmallHole {
        /// The profile's, in MiB.
        given: u32,
        /// What they need, in MiB.
        needed: u64,
    },
    /// Another machine could reach an unprotected guest.
    #[error("the emulated guest would be reachable from elsewhere at {0}; forward from 127.0.0.1")]
    NotLoopback(std::net::SocketAddr),
    /// Two guests, or one twice.
    #[error("guests {first} and {second} both have {what}; give each its own")]
    Shared {
        /// What cannot be shared.
        what: String,
        /// One of them.
        first: GuestName,
        /// The other.
        second: GuestName,
    },
}

impl LaunchPlan {
    /// Whether this one guest can be.
    ///
    /// # Errors
    /// [`PlanError`]: what is wrong, and what to do.
    pub fn check(&self) -> Result<(), PlanError> {
        for (what, path) in self.needed_files() {
            text(what, path)?;
        }
        self.check_command_line()?;
        match &self.tee {
            Tee::Tdx { gpus, quote_service, .. } => {
                if let QuoteService::Unix(path) = quote_service
                    && text("quote service", path)?.len() > MAX_SOCKET_PATH
                {
                    return Err(PlanError::Path {
                        what: "quote service (a socket's has at most 107 bytes)",
                        path: path.display().to_string(),
                    });
                }
                self.check_gpus(gpus)
            }
            Tee::Snp(Snp { gpus, .. }) => self.check_gpus(gpus),
            Tee::Emulation { forward, .. } if !forward.ip().is_loopback() || !forward.is_ipv4() => {
                Err(PlanError::NotLoopback(*forward))
            }
            Tee::Emulation { .. } => Ok(()),
        }
    }

    fn check_command_line(&self) -> Result<(), PlanError> {
        let line = &self.boot.command_line;
        if line.len() > MAX_COMMAND_LINE {
            let words = format!("has {} bytes, more than {MAX_COMMAND_LINE}", line.len());
            return Err(PlanError::CommandLine(words));
        }
        if !line.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
            return Err(PlanError::CommandLine("is not plain text".to_owned()));
        }
        let development = line.split(' ').any(|word| word == DEVELOPMENT);
        match (&self.tee, development) {
            (Tee::Emulation { .. }, false) => {
                Err(PlanError::Image { kind: self.kind(), image: "production" })
            }
            (Tee::Tdx { .. } | Tee::Snp(_), true) => {
                Err(PlanError::Image { kind: self.kind(), image: "development" })
            }
            _ => Ok(()),
        }
    }

    fn check_gpus(&self, gpus: &Gpus) -> Result<(), PlanError> {
        let count = gpus.devices.len();
        if count > MAX_GPUS {
            return Err(PlanError::TooManyGpus(count));
        }
        if let Some(given) = gpus.mmio64_mib
            && u64::from(given) < gpus.needed_mmio64_mib()
        {
            return Err(PlanError::SmallHole { given, needed: gpus.needed_mmio64_mib() });
        }
        Ok(())
    }

    /// What no other guest of this machine may have.
    fn own(&self) -> Vec<String> {
        let mut own = vec![format!("the name {}", self.name)];
        own.extend(self.cid().map(|cid| format!("CID {cid}")));
        own.extend(self.gpus().iter().map(|gpu| format!("the GPU {}", gpu.address)));
        if let Tee::Emulation { forward, .. } = &self.tee
            && forward.port() != 0
        {
            own.push(format!("the address {forward}"));
        }
        own.push(format!("the configuration disk {}", self.disks.config.display()));
        own
    }
}

/// Whether all guests of one host can be side by side: each with its own name, CID, GPUs, address and configuration.
///
/// # Errors
/// [`PlanError`]: of one guest, or [`PlanError::Shared`].
pub fn check_together(plans: &[LaunchPlan]) -> Result<(), PlanError> {
    let mut owners: BTreeMap<String, &GuestName> = BTreeMap::new();
    for plan in plans {
        plan.check()?;
        for what in plan.own() {
            if let Some(first) = owners.insert(what.clone(), &plan.name) {
                return Err(PlanError::Shared { what, first: first.clone(), second: plan.name.clone() });
            }
        }
    }
    Ok(())
}

/// A path as QEMU takes it.
pub(super) fn text<'a>(what: &'static str, path: &'a Path) -> Result<&'a str, PlanError> {
    let refused = || PlanError::Path { what, path: path.display().to_string() };
    path.to_str().filter(|text| !text.contains('\0') && !text.is_empty()).ok_or_else(refused)
}
