//! What can be known to go wrong before anything is started. All of it is said at once, each with its remedy.

use std::{
    fs,
    io::{self, Read},
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
};

use ring::digest::{Context, SHA256};

use crate::{
    plan::{Accelerator, Cid, Gpus, Iommu, LaunchPlan, PlanError, Tee, check_together},
    program::Program,
};

/// The oldest QEMU that has all that every plan uses: `-run-with exit-with-parent` came last. TDX needs 10.1.
pub const OLDEST_QEMU: (u32, u32) = (10, 2);
/// Disk space that the state folder keeps free for accounts and logs, in bytes.
const RESERVE: u64 = 256 << 20;
/// Bytes of a process's command line that are looked at.
const MAX_COMMAND_LINE: u64 = 128 * 1024;

/// Why a host does not start. Nothing has been started.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Obstacle {
    /// A plan cannot be.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A file is not there.
    #[error("the {what} {path} cannot be read: {why}; {remedy}")]
    Missing {
        /// What it is.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// What the system said.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
    /// An image file is cut, or longer than it was.
    #[error(
        "{path} has {found} bytes, and the image's manifest says {expected}: it was cut or changed; fetch or build the image again"
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// By the manifest.
        expected: u64,
        /// On disk.
        found: u64,
    },
    /// An image file has other bytes.
    #[error(
        "{path} is not the image's file: SHA-256 is {found}, and the manifest says {expected}; fetch or build the image again"
    )]
    Content {
        /// The file.
        path: PathBuf,
        /// By the manifest.
        expected: String,
        /// On disk.
        found: String,
    },
    /// A device of the kernel.
    #[error("{device} cannot be used: {why}; {remedy}")]
    Device {
        /// Its path.
        device: &'static str,
        /// What the system said.
        why: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Somebody listens there.
    #[error(
        "the address {address} cannot be had: {why}; end what listens there, or name another in host.toml"
    )]
    Address {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        why: String,
    },
    /// Another VM has it.
    #[error(
        "CID {cid} is in use by process {pid}; end that VM, or give the guest another `cid` in host.toml"
    )]
    CidInUse {
        /// The CID.
        cid: Cid,
        /// The VM's process.
        pid: u32,
    },
    /// Too little room.
    #[error(
        "the disk of {folder} has {free} MiB free, and {needed} MiB are needed; make room, or move `state`"
    )]
    Disk {
        /// The state folder.
        folder: PathBuf,
        /// Free, in MiB.
        free: u64,
        /// Needed, in MiB.
        needed: u64,
    },
    /// Too old.
    #[error("QEMU {program} is version {}.{}; {}.{} or later is needed: leave `tools.qemu` out to use the pinned one", found.0, found.1, OLDEST_QEMU.0, OLDEST_QEMU.1)]
    OldQemu {
        /// The program.
        program: PathBuf,
        /// Its version.
        found: (u32, u32),
    },
    /// It does not say its version.
    #[error("QEMU {program} does not run: {why}; leave `tools.qemu` out to use the pinned one")]
    NoQemu {
        /// The program.
        program: PathBuf,
        /// What happened instead.
        why: String,
    },
}

/// A file of the image, as the manifest has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageFile {
    /// Where it is.
    pub path: PathBuf,
    /// Its length in bytes.
    pub size: u64,
    /// Its SHA-256.
    pub sha256: [u8; 32],
}

/// All that is looked at.
pub struct Preflight<'a> {
    /// What would be started.
    pub plans: &'a [LaunchPlan],
    /// The image's files.
    pub image: &'a [ImageFile],
    /// QEMU.
    pub qemu: &'a Program,
    /// The software TPM, where a plan emulates.
    pub swtpm: &'a Program,
    /// Where gateways will come to.
    pub listen: &'a [SocketAddr],
    /// The state folder; it must be there.
    pub state: &'a Path,
    /// Bytes that will be written there.
    pub writes: u64,
    /// `/`, or a tree that plays it in tests: for `dev` and `proc`.
    pub root: &'a Path,
}

impl Preflight<'_> {
    /// Looks at all of it.
    ///
    /// # Errors
    /// Every [`Obstacle`] that was found, in the order in which they would come up.
    pub fn check(&self) -> Result<(), Vec<Obstacle>> {
        let mut found = Vec::new();
        found.extend(check_together(self.plans).err().map(Obstacle::Plan));
        self.files(&mut found);
        found.extend(self.image.iter().filter_map(|file| file.check().err()));
        self.programs(&mut found);
        self.devices(&mut found);
        self.addresses(&mut found);
        self.cids(&mut found);
        found.extend(self.disk().err());
        if found.is_empty() { Ok(()) } else { Err(found) }
    }

    fn files(&self, found: &mut Vec<Obstacle>) {
        for (what, path) in self.plans.iter().flat_map(LaunchPlan::needed_files) {
            if let Err(error) = fs::File::open(path).and_then(|file| file.metadata()).and_then(regular) {
                let remedy = match what {
                    "configuration disk" | "weights disk" => "start the host again: it makes this file",
                    "firmware" => "build the image again: it is one of its files",
                    _ => "build the image with `cocoon image build`, or name its folder with `image`",
                };
                let missing = Obstacle::Missing { what, path: path.clone(), why: error.to_string(), remedy };
                // Guests of one image share its files.
                if !found.contains(&missing) {
                    found.push(missing);
                }
            }
        }
    }

    fn programs(&self, found: &mut Vec<Obstacle>) {
        match qemu_version(self.qemu) {
            Ok(version) if version >= OLDEST_QEMU => {}
            Ok(version) => {
                found.push(Obstacle::OldQemu { program: self.qemu.file().to_path_buf(), found: version });
            }
            Err(why) => found.push(Obstacle::NoQemu { program: self.qemu.file().to_path_buf(), why }),
        }
        let emulates = self.plans.iter().any(|plan| matches!(plan.tee, Tee::Emulation { .. }));
        if emulates && let Err(error) = fs::File::open(self.swtpm.file()) {
            found.push(Obstacle::Missing {
                what: "software TPM",
                path: self.swtpm.file().to_path_buf(),
                why: error.to_string(),
                remedy: "leave `tools.swtpm` out to use the pinned one",
            });
        }
    }

    fn devices(&self, found: &mut Vec<Obstacle>) {
        let any = |what: fn(&Tee) -> bool| self.plans.iter().any(|plan| what(&plan.tee));
        let real = |tee: &Tee| !matches!(tee, Tee::Emulation { .. });
        let kvm = |tee: &Tee| !matches!(tee, Tee::Emulation { accelerator: Accelerator::Tcg, .. });
        let by = |iommu: Iommu| {
            let uses = |gpus: &Gpus| gpus.iommu == iommu && !gpus.devices.is_empty();
            self.plans.iter().any(|plan| plan.tee.gpus().is_some_and(uses))
        };
        for (device, needed, remedy) in [
            (
                "/dev/kvm",
                any(kvm),
                "enable virtualisation in the BIOS, load kvm_intel or kvm_amd, and be in group kvm",
            ),
            (
                "/dev/vhost-vsock",
                any(real),
                "load the module vhost_vsock, and be in the group that owns the device",
            ),
            (
                "/dev/iommu",
                by(Iommu::Iommufd),
                "use Linux 6.6 or later with iommufd, or `iommu = \"legacy\"`",
            ),
            (
                "/dev/vfio/vfio",
                by(Iommu::Legacy),
                "load the module vfio_pci, and be in the group that owns the device",
            ),
        ] {
            let path = self.root.join(device.trim_start_matches('/'));
            if needed && let Err(error) = fs::OpenOptions::new().read(true).write(true).open(path) {
                found.push(Obstacle::Device { device, why: error.to_string(), remedy });
            }
        }
    }

    fn addresses(&self, found: &mut Vec<Obstacle>) {
        let forwards = self.plans.iter().filter_map(|plan| match &plan.tee {
            Tee::Emulation { forward, .. } => Some(*forward),
            _ => None,
        });
        for address in self.listen.iter().copied().chain(forwards) {
            if let Err(error) = TcpListener::bind(address) {
                found.push(Obstacle::Address { address, why: error.to_string() });
            }
        }
    }

    /// The kernel tells who has a CID only to who wants it; so other VMs' command lines are looked at.
    fn cids(&self, found: &mut Vec<Obstacle>) {
        let wanted: Vec<Cid> = self.plans.iter().filter_map(LaunchPlan::cid).collect();
        if wanted.is_empty() {
            return;
        }
        let Ok(processes) = fs::read_dir(self.root.join("proc")) else { return };
        for process in processes.flatten() {
            let pid = process.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
            let Some(pid) = pid else { continue };
            // Gone meanwhile, or not ours to see.
            let Ok(line) = read_at_most(&process.path().join("cmdline"), MAX_COMMAND_LINE) else { continue };
            let line = String::from_utf8_lossy(&line);
            let has = |cid: &Cid| {
                let mut options = line.split(['\0', ',', ' ']);
                options.any(|option| option.strip_prefix("guest-cid=") == Some(&cid.to_string()))
            };
            found.extend(wanted.iter().filter(|cid| has(cid)).map(|&cid| Obstacle::CidInUse { cid, pid }));
        }
    }

    fn disk(&self) -> Result<(), Obstacle> {
        let folder = self.state.to_path_buf();
        let space = rustix::fs::statvfs(self.state).map_err(|error| Obstacle::Missing {
            what: "state folder",
            path: folder.clone(),
            why: io::Error::from(error).to_string(),
            remedy: "make it, for this user alone",
        })?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let needed = self.writes.saturating_add(RESERVE);
        if free < needed {
            return Err(Obstacle::Disk { folder, free: free >> 20, needed: needed.div_ceil(1 << 20) });
        }
        Ok(())
    }
}

impl ImageFile {
    /// Whether the file is the manifest's: its length first, then every byte.
    ///
    /// # Errors
    /// [`Obstacle`].
    pub fn check(&self) -> Result<(), Obstacle> {
        let missing = |error: io::Error| Obstacle::Missing {
            what: "image file",
            path: self.path.clone(),
            why: error.to_string(),
            remedy: "build the image with `cocoon image build`, or name its folder with `image`",
        };
        let mut file = fs::File::open(&self.path).map_err(missing)?;
        let found = file.metadata().and_then(regular).map_err(missing)?;
        if found != self.size {
            return Err(Obstacle::Length { path: self.path.clone(), expected: self.size, found });
        }
        let mut hash = Context::new(&SHA256);
        let mut buffer = vec![0; 1 << 20];
        loop {
            match file.read(&mut buffer).map_err(missing)? {
                0 => break,
                some => hash.update(buffer.get(..some).unwrap_or_default()),
            }
        }
        let found = hash.finish();
        if found.as_ref() != self.sha256 {
            let (expected, found) = (hex::encode(self.sha256), hex::encode(found));
            return Err(Obstacle::Content { path: self.path.clone(), expected, found });
        }
        Ok(())
    }
}

/// QEMU's version, major and minor, in its own words.
///
/// # Errors
/// In words: it does not start, or says something else.
pub fn qemu_version(qemu: &Program) -> Result<(u32, u32), String> {
    let output = qemu.command().arg("--version").output().map_err(|error| error.to_string())?;
    let said = String::from_utf8_lossy(&output.stdout);
    let version = said.lines().next().and_then(|line| line.strip_prefix("QEMU emulator version "));
    let mut parts = version.unwrap_or_default().split(|c: char| !c.is_ascii_digit());
    match (parts.next().and_then(|p| p.parse().ok()), parts.next().and_then(|p| p.parse().ok())) {
        (Some(major), Some(minor)) => Ok((major, minor)),
        _ => {
            let errors = String::from_utf8_lossy(&output.stderr);
            Err(format!("it says {:?}", said.lines().chain(errors.lines()).next().unwrap_or_default()))
        }
    }
}

fn regular(meta: fs::Metadata) -> io::Result<u64> {
    if meta.is_file() { Ok(meta.len()) } else { Err(io::Error::other("it is no file")) }
}

fn read_at_most(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?.take(most).read_to_end(&mut bytes)?;
    Ok(bytes)
}
