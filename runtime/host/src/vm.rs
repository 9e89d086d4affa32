//! The guest in a VM: the image's disks, QEMU, and in emulation a software TPM and the emulator that reads it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use cocoon_image::{config_disk, manifest::Registers};
use cocoon_launch::{
    folder::RunFolder,
    plan::{
        Accelerator, Boot, Cid, Disks, Gpus, GuestName, LaunchPlan, Memory, QuoteService, Snp, SnpCpu, Tee,
        Vcpus, files,
    },
    program::Program,
    swtpm::TpmProxy,
    vm::{LineSink, Vm},
};
use cocoon_simulated_tee::{BOOT_PCRS, Emulator, Serving, SimulatedRoot};

use crate::{Expected, HostError, Image, guest_client::Reach};

/// The configuration disk, in the run folder.
const CONFIGURATION_DISK: &str = "config.img";
/// Lines of a boot that are kept.
const MAX_PHASES: usize = 64;

/// A VM, as the operator wants it.
#[derive(Clone)]
pub struct VmOptions {
    /// Its name on this host.
    pub name: GuestName,
    /// What it boots.
    pub image: Image,
    /// Virtual CPUs: as the profile says, or the prediction does not hold.
    pub vcpus: Vcpus,
    /// Memory, likewise.
    pub memory: Memory,
    /// What protects it.
    pub tee: VmTee,
    /// QEMU.
    pub qemu: Program,
    /// The run folder: sockets, disks, process ids.
    pub run_dir: PathBuf,
}

impl std::fmt::Debug for VmOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("VmOptions").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What protects a VM.
#[derive(Clone, Debug)]
pub enum VmTee {
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
    Snp {
        /// The CPU model of the profile.
        cpu: SnpCpu,
        /// The way to the guest.
        cid: Cid,
        /// Its GPUs.
        gpus: Gpus,
    },
    /// Nothing: a simulated TEE that signs under a development network's root.
    Emulation {
        /// The software TPM.
        swtpm: Program,
        /// The loopback port that leads to the guest; 0 takes any free one.
        forward: u16,
        /// Whether the serial console is kept in the run folder.
        console: bool,
    },
}

/// A step of a boot, as the guest or the host saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootPhase {
    /// Which.
    pub name: String,
    /// Milliseconds since the VM was started.
    pub after_ms: u64,
}

/// What the guest said of its boot; shared with whoever shows it.
#[derive(Clone, Default)]
pub(crate) struct Boots(Arc<Mutex<Vec<BootPhase>>>);

impl Boots {
    pub(crate) fn note(&self, name: &str, since: Instant) {
        let mut phases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if phases.len() < MAX_PHASES {
            let after_ms = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
            phases.push(BootPhase { name: name.to_owned(), after_ms });
        }
    }

    fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    pub(crate) fn phases(&self) -> Vec<BootPhase> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Starts one VM, again and again.
pub(crate) struct VmLauncher {
    options: Arc<VmOptions>,
    plan: LaunchPlan,
    folder: RunFolder,
    /// The root that the emulator signs under.
    root: Option<SimulatedRoot>,
    boots: Boots,
    log: LineSink,
}

/// A VM that was started. Dropping it kills it.
pub(crate) struct VmGuest {
    pub(crate) vm: Vm,
    _tee: Option<Serving>,
}

impl VmGuest {
    pub(crate) async fn ended(&mut self) -> String {
        format!("ended: {}", self.vm.ended().await)
    }
}

impl VmLauncher {
    /// Writes the disks and makes the plan. Nothing runs yet.
    pub(crate) fn prepare(
        options: &Arc<VmOptions>,
        expected: &Expected,
        image: &Image,
        root: Option<SimulatedRoot>,
        log: LineSink,
    ) -> Result<Self, HostError> {
        let folder = RunFolder::claim(&options.run_dir).map_err(|error| HostError::Vm(error.to_string()))?;
        let disk = config_disk::encode(&expected.configuration)
            .map_err(|error| HostError::Options(error.to_string()))?;
        let config = folder.path().join(CONFIGURATION_DISK);
        fs::write(&config, disk).map_err(|source| HostError::Folder { path: config.clone(), source })?;
        let plan = plan(options, image, config, expected)?;
        Ok(Self { options: Arc::clone(options), plan, folder, root, boots: Boots::default(), log })
    }

    pub(crate) fn boots(&self) -> Boots {
        self.boots.clone()
    }

    pub(crate) async fn start(&self) -> Result<(VmGuest, Reach), HostError> {
        self.boots.clear();
        let (mut plan, began) = (self.plan.clone(), Instant::now());
        let reach = match &mut plan.tee {
            Tee::Emulation { forward, .. } => {
                if forward.port() == 0 {
                    *forward = free_port()?;
                }
                Reach::Forward(*forward)
            }
            Tee::Tdx { cid, .. } | Tee::Snp(Snp { cid, .. }) => Reach::Vsock(u32::from(*cid)),
        };
        let tee = self.emulated_tee()?;
        let vm = Vm::start(&self.options.qemu, &plan, &self.folder, self.sink(began)).await;
        let vm = vm.map_err(|error| HostError::Vm(error.to_string()))?;
        self.boots.note("QEMU started", began);
        Ok((VmGuest { vm, _tee: tee }, reach))
    }

    /// Software TPM and emulator, listening before QEMU connects.
    fn emulated_tee(&self) -> Result<Option<Serving>, HostError> {
        let VmTee::Emulation { swtpm, .. } = &self.options.tee else { return Ok(None) };
        let failed = |why: String| HostError::Vm(why);
        let root = self.root.as_ref().ok_or_else(|| failed("emulation needs a simulated root".to_owned()))?;
        let Registers::Emulation(boot) = self.options.image.measurement().registers else {
            return Err(failed("the image's profile is not for emulation".to_owned()));
        };
        let proxy = TpmProxy::start(swtpm, &self.folder).map_err(|error| failed(error.to_string()))?;
        let listener = self.folder.listen(files::TEE).map_err(|error| failed(error.to_string()))?;
        let pcrs = move || read_boot_pcrs(&proxy);
        let emulator = Emulator::power_on(root, boot.mrtd.0, Box::new(pcrs));
        Ok(Some(emulator.serve(listener)))
    }

    /// Keeps the guest's phases, and hands each line on.
    fn sink(&self, began: Instant) -> LineSink {
        let (boots, log) = (self.boots.clone(), Arc::clone(&self.log));
        Arc::new(move |line: &str| {
            if let Some(phase) = phase(line) {
                boots.note(phase, began);
            }
            log(line);
        })
    }
}

/// The phase of a line `init: PHASE MILLISECONDS`.
fn phase(line: &str) -> Option<&str> {
    let (phase, number) = line.strip_prefix("init: ")?.rsplit_once(' ')?;
    number.parse::<u64>().is_ok().then_some(phase)
}

fn read_boot_pcrs(proxy: &TpmProxy) -> Result<cocoon_simulated_tee::Pcrs, String> {
    let wanted: Vec<u8> = (0..BOOT_PCRS as u8).collect();
    let read = proxy.read_pcrs(&wanted).map_err(|error| error.to_string())?;
    let value = |index: usize| read.value(index as u8).ok_or_else(|| format!("PCR {index} was not read"));
    let mut pcrs = [[0; 48]; BOOT_PCRS];
    for (index, pcr) in pcrs.iter_mut().enumerate() {
        *pcr = *value(index)?;
    }
    Ok(pcrs)
}

fn free_port() -> Result<SocketAddr, HostError> {
    let probe = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    probe.map_err(|error| HostError::Vm(format!("no free port on the loopback interface: {error}")))
}

fn plan(
    options: &VmOptions,
    image: &Image,
    config: PathBuf,
    expected: &Expected,
) -> Result<LaunchPlan, HostError> {
    let missing = |what: &str| HostError::Image(format!("{what} is missing; build the image again"));
    let folder = image.folder();
    let boot = Boot {
        firmware: image.firmware().ok_or_else(|| missing("the profile's firmware"))?,
        kernel: folder.join("vmlinuz"),
        initrd: folder.join("initrd.cpio"),
        command_line: image.manifest().command_line.clone(),
    };
    let weights = image.weights().ok_or_else(|| missing("the weights disk"))?.path.clone();
    let disks = Disks { root: folder.join("root.img"), config, weights };
    let tee = match options.tee.clone() {
        VmTee::Tdx { quote_service, cid, gpus } => Tee::Tdx { quote_service, cid, gpus },
        VmTee::Snp { cpu, cid, gpus } => {
            Tee::Snp(Snp { host_data: expected.configuration_digest(), cpu, cid, gpus })
        }
        VmTee::Emulation { forward, console, .. } => Tee::Emulation {
            forward: SocketAddr::from((Ipv4Addr::LOCALHOST, forward)),
            accelerator: Accelerator::Tcg,
            console,
        },
    };
    Ok(LaunchPlan {
        name: options.name.clone(),
        vcpus: options.vcpus,
        memory: options.memory,
        boot,
        disks,
        tee,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_phase_is_a_line_of_init_with_a_number() {
        assert_eq!(phase("init: root file system verified 812"), Some("root file system verified"));
        for other in ["init: error: no disk", "cocoon-guest: ready 7", "init: ", "init: 7"] {
            assert_eq!(phase(other), None, "{other}");
        }
    }
}
