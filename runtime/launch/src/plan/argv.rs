//! From a plan to QEMU's command line.

use std::{ffi::OsString, net::SocketAddr};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::json;

use super::{
    Accelerator, Gpus, Iommu, LaunchPlan, PlanError, QuoteService, Snp, SnpCpu, Tee, checks::text, files,
};

/// Where devices are on the root bus. ACPI tables name them, so a change here changes measurements.
const ROOT_DISK: u8 = 0x2;
const CONFIG_DISK: u8 = 0x3;
const WEIGHTS_DISK: u8 = 0x4;
const PORTS: u8 = 0x5;
const NETWORK: u8 = 0x6;
const FIRST_GPU: u8 = 0x8;

/// The guest's own port of its HTTP API.
const GUEST_PORT: u16 = 8083;
/// What the guest has as its address in QEMU's user network.
const GUEST_ADDRESS: &str = "10.0.2.15";
/// AMD's guest policy (SEV-SNP ABI 4.3): bit 17 must be one, bit 16 allows SMT; no debugging, no migration agent.
const SNP_POLICY: u32 = 0x3_0000;
/// Where the C bit is and how many address bits it costs on Milan, Genoa and Turin (CPUID 8000001F EBX). QEMU refuses
/// to start where the machine says otherwise.
const C_BIT: u8 = 51;
const REDUCED_BITS: u8 = 1;
/// SMBIOS names the processor by CPUID leaf 1, which differs between steppings of the host's own and goes into RTMR0:
/// every guest names this one instead.
const PROCESSOR: &str = "type=4,processor-id=1";
/// QEMU filters its own system calls: it starts no program, gains no right, and sets no limit.
const SANDBOX: &str = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny";

/// One option with its value, if it takes one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QemuOption {
    /// `-machine`
    pub flag: &'static str,
    /// Its value.
    pub value: Option<String>,
}

/// Options in order.
#[derive(Default)]
struct Line(Vec<QemuOption>);

impl Line {
    fn flag(&mut self, flag: &'static str) {
        self.0.push(QemuOption { flag, value: None });
    }

    fn set(&mut self, flag: &'static str, value: impl Into<String>) {
        self.0.push(QemuOption { flag, value: Some(value.into()) });
    }

    /// A virtio device without the old interface, and with DMA that the guest decides about.
    fn virtio(&mut self, device: &str, at: u8) {
        self.set("-device", format!("{device},disable-legacy=on,iommu_platform=on,addr={at:#x}"));
    }
}

impl LaunchPlan {
    /// QEMU's options, in order. Socket names are relative to the run folder ([`files`]).
    ///
    /// # Errors
    /// What [`LaunchPlan::check`] refuses.
    pub fn options(&self) -> Result<Vec<QemuOption>, PlanError> {
        self.check()?;
        let mut line = Line::default();
        line.flag("-nodefaults");
        line.flag("-no-user-config");
        line.set("-name", format!("cocoon-{}", self.name));
        line.set("-sandbox", SANDBOX);
        line.set("-run-with", "exit-with-parent=on");
        line.set("-display", "none");
        line.flag("-no-reboot");
        self.machine(&mut line)?;
        self.boot(&mut line)?;
        self.disks(&mut line)?;
        self.ports(&mut line);
        match &self.tee {
            Tee::Tdx { cid, gpus, .. } | Tee::Snp(Snp { cid, gpus, .. }) => {
                line.virtio(&format!("vhost-vsock-pci,guest-cid={cid}"), NETWORK);
                address_space(gpus, &mut line);
                hand_over(gpus, &mut line);
            }
            Tee::Emulation { forward, .. } => user_network(*forward, &mut line),
        }
        line.set("-qmp", format!("unix:{},server=on,wait=off", files::QMP));
        Ok(line.0)
    }

    /// The options as separate arguments.
    ///
    /// # Errors
    /// As [`LaunchPlan::options`].
    pub fn arguments(&self) -> Result<Vec<OsString>, PlanError> {
        let options = self.options()?;
        Ok(options
            .into_iter()
            .flat_map(|o| [Some(o.flag.into()), o.value.map(OsString::from)])
            .flatten()
            .collect())
    }

    fn machine(&self, line: &mut Line) -> Result<(), PlanError> {
        let memory = self.memory.as_mib();
        let common = "q35,hpet=off,memory-backend=ram0";
        match &self.tee {
            Tee::Tdx { quote_service, .. } => {
                let quotes = match quote_service {
                    QuoteService::Vsock { cid, port } => {
                        json!({"type": "vsock", "cid": cid.to_string(), "port": port.to_string()})
                    }
                    QuoteService::Unix(path) => json!({"type": "unix", "path": text("quote service", path)?}),
                };
                let tee = json!({"qom-type": "tdx-guest", "id": "tee0", "quote-generation-socket": quotes});
                line.set("-object", tee.to_string());
                line.set(
                    "-machine",
                    format!("{common},kernel-irqchip=split,confidential-guest-support=tee0"),
                );
                line.set("-accel", "kvm");
                line.set("-cpu", "host");
                line.set("-smbios", PROCESSOR);
            }
            Tee::Snp(snp) => {
                let data = STANDARD.encode(snp.host_data);
                line.set(
                    "-object",
                    format!(
                        "sev-snp-guest,id=tee0,cbitpos={C_BIT},reduced-phys-bits={REDUCED_BITS},\
                         policy={SNP_POLICY:#x},kernel-hashes=on,host-data={data}"
                    ),
                );
                line.set(
                    "-machine",
                    format!("{common},kernel-irqchip=split,confidential-guest-support=tee0"),
                );
                line.set("-accel", "kvm");
                // The models have 40 address bits: 1 TiB, which the memory and windows of several GPUs exceed.
                line.set("-cpu", format!("{},host-phys-bits=on", snp.cpu.model()));
            }
            Tee::Emulation { accelerator, .. } => {
                line.set("-machine", common);
                let (accel, cpu) = match accelerator {
                    Accelerator::Tcg => ("tcg,thread=multi", "max"),
                    Accelerator::Kvm => ("kvm", "host"),
                };
                line.set("-accel", accel);
                line.set("-cpu", cpu);
            }
        }
        line.set("-smp", format!("cpus={0},sockets=1,cores={0},threads=1", self.vcpus));
        line.set("-m", format!("{memory}M"));
        line.set("-object", format!("memory-backend-memfd,id=ram0,size={memory}M,share=on,prealloc=off"));
        Ok(())
    }

    fn boot(&self, line: &mut Line) -> Result<(), PlanError> {
        line.set("-bios", text("firmware", &self.boot.firmware)?);
        line.set("-kernel", text("kernel", &self.boot.kernel)?);
        line.set("-initrd", text("initrd", &self.boot.initrd)?);
        line.set("-append", &self.boot.command_line);
        Ok(())
    }

    fn disks(&self, line: &mut Line) -> Result<(), PlanError> {
        let disks = [
            ("root", &self.disks.root, ROOT_DISK),
            ("config", &self.disks.config, CONFIG_DISK),
            ("weights", &self.disks.weights, WEIGHTS_DISK),
        ];
        for (name, path, at) in disks {
            let file = json!({
                "driver": "raw", "node-name": name, "read-only": true,
                "file": {"driver": "file", "filename": text(name, path)?, "read-only": true},
            });
            line.set("-blockdev", file.to_string());
            line.virtio(&format!("virtio-blk-pci,drive={name},serial=cocoon-{name}"), at);
        }
        Ok(())
    }

    fn ports(&self, line: &mut Line) {
        line.virtio("virtio-serial-pci,id=ports,max_ports=4", PORTS);
        line.set("-chardev", format!("socket,id=log,path={}", files::LOG));
        line.set("-device", "virtserialport,bus=ports.0,nr=1,chardev=log,name=cocoon.log");
        if self.keeps_console() {
            // A file of QEMU's own would grow as long as the guest writes.
            line.set("-chardev", format!("socket,id=console,path={}", files::CONSOLE_SOCKET));
            line.set("-serial", "chardev:console");
        } else {
            line.set("-serial", "none");
        }
        let Tee::Emulation { .. } = self.tee else { return };
        line.set("-chardev", format!("socket,id=tee,path={}", files::TEE));
        line.set("-device", "virtserialport,bus=ports.0,nr=2,chardev=tee,name=cocoon.tee");
        line.set("-chardev", format!("socket,id=tpm,path={}", files::TPM));
        line.set("-tpmdev", "emulator,id=tpm0,chardev=tpm");
        line.set("-device", "tpm-crb,tpmdev=tpm0");
    }
}

impl SnpCpu {
    /// QEMU's name of it; the launch digest's VMSA holds its signature.
    pub fn model(self) -> &'static str {
        match self {
            Self::V4 => "EPYC-v4",
            Self::Milan => "EPYC-Milan",
            Self::Genoa => "EPYC-Genoa",
            Self::Turin => "EPYC-Turin",
        }
    }
}

/// Address space for the GPUs' regions, as the machine's profile has it. Both the firmware's request and the window of
/// the ACPI tables are measured. QEMU widens that window to where the firmware put each region, unless it is wide enough
/// already: with the same size for both, the tables do not tell one GPU's regions from another's.
fn address_space(gpus: &Gpus, line: &mut Line) {
    if let Some(mib) = gpus.mmio64_mib {
        line.set("-fw_cfg", format!("name=opt/ovmf/X-PciMmio64Mb,string={mib}"));
        line.set("-global", format!("q35-pcihost.pci-hole64-size={mib}M"));
    }
}

/// Each GPU behind a root port of its own. Without its option ROM (`rombar=0`): the firmware would measure it into RTMR0
/// and run it.
fn hand_over(gpus: &Gpus, line: &mut Line) {
    if gpus.devices.is_empty() {
        return;
    }
    let iommu = match gpus.iommu {
        Iommu::Iommufd => {
            line.set("-object", "iommufd,id=iommufd0");
            ",iommufd=iommufd0"
        }
        Iommu::Legacy => "",
    };
    for (gpu, index) in gpus.devices.iter().zip(0u8..) {
        let (number, at) = (index + 1, FIRST_GPU + index);
        line.set(
            "-device",
            format!("pcie-root-port,id=gpu{index},chassis={number},slot={number},addr={at:#x}"),
        );
        line.set("-device", format!("vfio-pci,host={},bus=gpu{index},rombar=0{iommu}", gpu.address));
    }
}

/// A network without a way out: the guest can be reached on its one port, and reach nobody.
fn user_network(forward: SocketAddr, line: &mut Line) {
    let forward = format!("hostfwd=tcp:{forward}-{GUEST_ADDRESS}:{GUEST_PORT}");
    line.set("-netdev", format!("user,id=net0,restrict=on,ipv6=off,{forward}"));
    line.virtio("virtio-net-pci,netdev=net0,romfile=", NETWORK);
}
