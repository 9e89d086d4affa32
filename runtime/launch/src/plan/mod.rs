//! What is started, typed. A plan that cannot be is not expressible: the emulation has no GPU and no vsock, a
//! confidential VM has no network card and no simulated TEE. What is left to get wrong is refused with words by
//! [`LaunchPlan::check`] and [`check_together`], before anything starts.
//!
//! | TEE | QEMU | what it binds of the configuration |
//! | --- | --- | --- |
//! | TDX | ≥ 10.1: `tdx-guest`, quotes by the host's quote service | RTMR3, extended in the guest; MRCONFIGID stays zero |
//! | SEV-SNP | ≥ 9.2: `sev-snp-guest`, `kernel-hashes=on` | HOST_DATA is SHA-256 of the configuration |
//! | emulation | TPM from `swtpm`, a virtio port to the host's emulator | RTMR3, as in TDX |
//!
//! Devices have fixed places on the bus: where they are is in the ACPI tables, and those are measured.

mod argv;
mod checks;
mod parts;
mod show;
#[cfg(test)]
mod tests;

use std::{fmt, net::SocketAddr, path::PathBuf};

use cocoon_image::snp::VcpuType;

pub use argv::QemuOption;
pub use checks::{MAX_GPUS, PlanError, check_together};
pub use parts::{Cid, GuestName, MAX_MEMORY, MAX_NAME, MAX_VCPUS, MIN_MEMORY, Memory, PartError, Vcpus};
pub use show::quoted;

pub use crate::gpu::PciAddress;

/// File names in a guest's run folder, which QEMU has as its working directory: no path is too long for a socket.
pub mod files {
    /// QEMU's monitor; QEMU listens.
    pub const QMP: &str = "qmp.sock";
    /// The guest's lines; we listen.
    pub const LOG: &str = "log.sock";
    /// The simulated TEE's wire; the host's emulator listens. Emulation only.
    pub const TEE: &str = "tee.sock";
    /// The software TPM's control protocol; our proxy listens. Emulation only.
    pub const TPM: &str = "tpm.sock";
    /// The serial console of a development image; we listen. Only if asked for.
    pub const CONSOLE_SOCKET: &str = "console.sock";
    /// What came over it last, within [`crate::vm::MAX_CONSOLE`].
    pub const CONSOLE: &str = "console.log";
    /// What came before that, within the same.
    pub const CONSOLE_BEFORE: &str = "console.log.1";
}

/// One guest, as it is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaunchPlan {
    /// Its name on this host.
    pub name: GuestName,
    /// Virtual CPUs, all in one socket.
    pub vcpus: Vcpus,
    /// Memory.
    pub memory: Memory,
    /// What boots.
    pub boot: Boot,
    /// Its disks, all read-only.
    pub disks: Disks,
    /// What protects it, and what only that kind of guest has.
    pub tee: Tee,
}

/// What boots: measured, all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boot {
    /// The firmware, one file for `-bios`.
    pub firmware: PathBuf,
    /// The kernel.
    pub kernel: PathBuf,
    /// The initial RAM file system.
    pub initrd: PathBuf,
    /// The exact command line, as the manifest has it.
    pub command_line: String,
}

/// The guest's disks; found in the guest by their serials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disks {
    /// `cocoon-root`: EROFS with its dm-verity tree.
    pub root: PathBuf,
    /// `cocoon-config`: the configuration.
    pub config: PathBuf,
    /// `cocoon-weights`: the model with its dm-verity tree.
    pub weights: PathBuf,
}

/// What protects the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tee {
    /// Intel TDX.
    Tdx {
        /// Signs quotes.
        quote_service: QuoteService,
        /// The way to the guest.
        cid: Cid,
        /// Its GPUs.
        gpus: Gpus,
    },
    /// AMD SEV-SNP.
    Snp(Snp),
    /// Nothing: the development image under a simulated TEE.
    Emulation {
        /// Where the guest's port 8083 is forwarded from. Loopback only.
        forward: SocketAddr,
        /// Who executes the guest's instructions.
        accelerator: Accelerator,
        /// Whether the serial console is kept in the run folder.
        console: bool,
    },
}

/// What an SEV-SNP guest has besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snp {
    /// HOST_DATA: SHA-256 of the configuration.
    pub host_data: [u8; 32],
    /// The CPU model, which the launch digest depends on.
    pub cpu: SnpCpu,
    /// The way to the guest.
    pub cid: Cid,
    /// Its GPUs.
    pub gpus: Gpus,
}

/// CPU models that QEMU and the launch digest know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnpCpu {
    /// What every EPYC since 7001 can be; the newest features are hidden.
    V4,
    /// EPYC 7003.
    Milan,
    /// EPYC 9004.
    Genoa,
    /// EPYC 9005.
    Turin,
}

impl From<VcpuType> for SnpCpu {
    /// The model that a profile's launch digest was predicted for.
    fn from(predicted: VcpuType) -> Self {
        match predicted {
            VcpuType::EpycV4 => Self::V4,
            VcpuType::EpycMilan => Self::Milan,
            VcpuType::EpycGenoa => Self::Genoa,
            VcpuType::EpycTurin => Self::Turin,
        }
    }
}

/// Where TDX quotes are signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum QuoteService {
    /// On the host's vsock: CID (2 is the host) and port.
    Vsock {
        /// 2: this host.
        cid: u32,
        /// 4050 by custom.
        port: u32,
    },
    /// A unix socket.
    Unix(PathBuf),
}

impl QuoteService {
    /// The port that Intel's package sets in /etc/qgs.conf, on this host's own vsock.
    pub const USUAL: Self = Self::Vsock { cid: 2, port: 4050 };
}

impl fmt::Display for QuoteService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vsock { cid, port } => write!(f, "vsock {cid}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// Who executes the guest's instructions, where nothing is protected anyway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accelerator {
    /// QEMU itself. Slow, and everywhere the same.
    Tcg,
    /// The kernel.
    Kvm,
}

/// GPUs that are handed to a guest, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gpus {
    /// Which, in the guest's order.
    pub devices: Vec<Gpu>,
    /// How the kernel's IOMMU is spoken to.
    pub iommu: Iommu,
    /// The hole in the guest's 64-bit address space, in MiB, as the machine's profile has it; `None` leaves it to the
    /// firmware, which goes by the processor's address bits. It is measured, so it is never guessed here.
    pub mmio64_mib: Option<u32>,
}

/// One GPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gpu {
    /// Where it is on the host.
    pub address: PciAddress,
    /// How much address space its regions take, in MiB ([`crate::gpu::Device::aperture_mib`]).
    pub aperture_mib: u32,
}

/// How the kernel's IOMMU is spoken to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Iommu {
    /// `/dev/iommu`, from Linux 6.6.
    #[default]
    Iommufd,
    /// VFIO's containers and groups.
    Legacy,
}

impl Gpus {
    /// The hole that these need, in MiB.
    pub fn needed_mmio64_mib(&self) -> u64 {
        crate::gpu::hole_mib(self.devices.iter().map(|gpu| gpu.aperture_mib))
    }
}

impl Tee {
    /// How GPUs are handed over; the emulation has none.
    pub fn gpus(&self) -> Option<&Gpus> {
        match self {
            Self::Tdx { gpus, .. } | Self::Snp(Snp { gpus, .. }) => Some(gpus),
            Self::Emulation { .. } => None,
        }
    }
}

impl LaunchPlan {
    /// What an operator calls its kind.
    pub fn kind(&self) -> &'static str {
        match self.tee {
            Tee::Tdx { .. } => "tdx",
            Tee::Snp(_) => "snp",
            Tee::Emulation { .. } => "emulation",
        }
    }

    /// Its GPUs; the emulation has none.
    pub fn gpus(&self) -> &[Gpu] {
        self.tee.gpus().map_or(&[], |gpus| &gpus.devices)
    }

    /// Its CID; the emulation has none.
    pub fn cid(&self) -> Option<Cid> {
        match &self.tee {
            Tee::Tdx { cid, .. } | Tee::Snp(Snp { cid, .. }) => Some(*cid),
            Tee::Emulation { .. } => None,
        }
    }

    /// Whether its serial console is kept: only the emulation has one.
    pub fn keeps_console(&self) -> bool {
        matches!(self.tee, Tee::Emulation { console: true, .. })
    }

    /// Every file that must be there, by what it is.
    pub fn needed_files(&self) -> [(&'static str, &PathBuf); 6] {
        [
            ("firmware", &self.boot.firmware),
            ("kernel", &self.boot.kernel),
            ("initrd", &self.boot.initrd),
            ("root disk", &self.disks.root),
            ("configuration disk", &self.disks.config),
            ("weights disk", &self.disks.weights),
        ]
    }
}
