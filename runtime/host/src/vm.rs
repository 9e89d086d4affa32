//! The guest in a VM: the image's disks, QEMU, and in emulation a software TPM and the emulator that reads it.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cocoon_image::{config_disk, tdvf::Tdvf};
use cocoon_launch::{
    folder::RunFolder,
    plan::{
        Accelerator, Boot, Cid, Disks, Gpus, GuestName, LaunchPlan, Memory, QuoteService, Snp, SnpCpu, Tee,
        Vcpus, files,
    },
    preflight::Preflight,
    program::Program,
    qmp::RunState,
    swtpm::TpmProxy,
    vm::{LineSink, Vm},
};
use cocoon_simulated_tee::{BOOT_PCRS, Emulator, Serving, SimulatedRoot};

use crate::{Expected, HostError, Image, expected::Boots, guest_client::Reach, life::Life};

/// Room that a run may take in its folder: the console of a development guest.
const MAX_CONSOLE: u64 = 2 * cocoon_launch::vm::MAX_CONSOLE;
/// Between looks whether QEMU still runs the guest.
const LOOK: Duration = Duration::from_secs(10);
/// How long QEMU may take to end by itself, once its guest does not run any more.
const PARTING: Duration = Duration::from_secs(2);
/// The configuration disk, in the run folder.
const CONFIGURATION_DISK: &str = "config.img";

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

/// Starts one VM, again and again.
pub(crate) struct VmLauncher {
    options: Arc<VmOptions>,
    plan: LaunchPlan,
    folder: RunFolder,
    /// The root that the emulator signs under.
    root: Option<SimulatedRoot>,
    life: Life,
}

/// A VM that was started. Dropping it kills it.
pub(crate) struct VmGuest {
    pub(crate) vm: Vm,
    _tee: Option<Serving>,
}

impl VmGuest {
    /// Returns when it has ended, or when QEMU says that it does not run and never will: nobody here pauses a guest.
    pub(crate) async fn ended(&mut self) -> String {
        loop {
            if let Ok(ended) = tokio::time::timeout(LOOK, self.vm.ended()).await {
                return format!("ended: {ended}");
            }
            match self.vm.status().await {
                Ok(RunState::Other(state)) => {
                    // It may be on its way out, and then say more.
                    return match tokio::time::timeout(PARTING, self.vm.ended()).await {
                        Ok(ended) => format!("ended: {ended}"),
                        Err(_) => format!("stopped: QEMU says that it is {state:?}"),
                    };
                }
                Ok(RunState::Running) => {}
                // Its process may be about to end, which says more; one that hangs makes no evidence either.
                Err(error) => tracing::debug!(%error, "QEMU was not asked how the guest is"),
            }
        }
    }
}

impl VmLauncher {
    /// Writes the disks and makes the plan. Nothing runs yet.
    pub(crate) fn prepare(
        options: &Arc<VmOptions>,
        expected: &Expected,
        image: &Image,
        root: Option<SimulatedRoot>,
        life: Life,
    ) -> Result<Self, HostError> {
        let folder = RunFolder::claim(&options.run_dir).map_err(|error| HostError::Vm(error.to_string()))?;
        let disk = config_disk::encode(&expected.configuration)
            .map_err(|error| HostError::Options(error.to_string()))?;
        let config = folder.path().join(CONFIGURATION_DISK);
        fs::write(&config, disk).map_err(|source| HostError::Folder { path: config.clone(), source })?;
        let plan = plan(options, image, config, expected)?;
        preflight(options, image, &plan, &folder)?;
        Ok(Self { options: Arc::clone(options), plan, folder, root, life })
    }

    pub(crate) async fn start(&self) -> Result<(VmGuest, Reach), HostError> {
        let mut plan = self.plan.clone();
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
        let vm = Vm::start(&self.options.qemu, &plan, &self.folder, self.sink()).await;
        let vm = vm.map_err(|error| HostError::Vm(error.to_string()))?;
        self.life.reached("QEMU");
        Ok((VmGuest { vm, _tee: tee }, reach))
    }

    /// Software TPM and emulator, listening before QEMU connects.
    fn emulated_tee(&self) -> Result<Option<Serving>, HostError> {
        let VmTee::Emulation { swtpm, .. } = &self.options.tee else { return Ok(None) };
        let failed = |why: String| HostError::Vm(why);
        let root = self.root.as_ref().ok_or_else(|| failed("emulation needs a simulated root".to_owned()))?;
        // Of the very file that QEMU is given, whatever the manifest says.
        let firmware = &self.plan.boot.firmware;
        let bytes = fs::read(firmware).map_err(|error| failed(format!("{}: {error}", firmware.display())))?;
        let tdvf = Tdvf::parse(&bytes).map_err(|error| failed(format!("{}: {error}", firmware.display())))?;
        let proxy = TpmProxy::start(swtpm, &self.folder).map_err(|error| failed(error.to_string()))?;
        let listener = self.folder.listen(files::TEE).map_err(|error| failed(error.to_string()))?;
        let pcrs = move || read_boot_pcrs(&proxy);
        let emulator = Emulator::power_on(root, tdvf.mrtd(), Box::new(pcrs));
        Ok(Some(emulator.serve(listener)))
    }

    fn sink(&self) -> LineSink {
        let life = self.life.clone();
        Arc::new(move |line: &str| life.line(line))
    }
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

/// Everything that can be known to go wrong, said at once and before anything is started.
fn preflight(
    options: &VmOptions,
    image: &Image,
    plan: &LaunchPlan,
    folder: &RunFolder,
) -> Result<(), HostError> {
    let swtpm = match &options.tee {
        VmTee::Emulation { swtpm, .. } => swtpm,
        VmTee::Tdx { .. } | VmTee::Snp { .. } => &options.qemu, // not looked at
    };
    let checked = Preflight {
        plans: std::slice::from_ref(plan),
        image: &image.files(),
        qemu: &options.qemu,
        swtpm,
        listen: &[],
        state: folder.path(),
        writes: MAX_CONSOLE,
        root: Path::new("/"),
    }
    .check();
    checked.map_err(|obstacles| {
        let all: Vec<String> = obstacles.iter().map(ToString::to_string).collect();
        HostError::Vm(all.join("; "))
    })
}

impl VmOptions {
    /// What would be started, in words and as a command line; nothing is written or started.
    ///
    /// # Errors
    /// [`HostError`]: the plan cannot be.
    pub fn describe(&self, expected: &Expected) -> Result<String, HostError> {
        let Boots::Vm(image) = &expected.boots else {
            return Err(HostError::Options("a process is not planned".to_owned()));
        };
        let plan = plan(self, image, self.run_dir.join(CONFIGURATION_DISK), expected)?;
        plan.describe(&self.qemu, &self.run_dir).map_err(|error| HostError::Vm(error.to_string()))
    }
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
