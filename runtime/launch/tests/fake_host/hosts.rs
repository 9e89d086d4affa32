//! Whole machines, good ones; tests break one thing of them.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use cocoon_launch::doctor::{Machine, Network, Probe, Qemu, Question, Tee, Version};
use cocoon_launch::gpu::{CcMode, CcTool, NoTool};

use super::{Card, FakeHost};

/// A machine with what is not a file.
pub(crate) struct Host {
    pub(crate) files: FakeHost,
    pub(crate) question: Question,
    pub(crate) qemu: Result<Qemu, String>,
    pub(crate) swtpm: Result<String, String>,
    /// Devices and sockets that do not open, and why.
    pub(crate) closed: BTreeMap<String, io::ErrorKind>,
    pub(crate) taken: Vec<SocketAddr>,
    pub(crate) disk: u64,
    pub(crate) log: Option<String>,
    pub(crate) tool: bool,
    pub(crate) network: Network,
}

impl Machine for Host {
    fn qemu(&self) -> Result<Qemu, String> {
        self.qemu.clone()
    }

    fn swtpm(&self) -> Result<String, String> {
        self.swtpm.clone()
    }

    fn open(&self, device: &str) -> io::Result<()> {
        self.closed.get(device).map_or(Ok(()), |kind| Err((*kind).into()))
    }

    fn connect(&self, socket: &Path) -> io::Result<()> {
        self.open(&socket.display().to_string())
    }

    fn listen(&self, address: SocketAddr) -> io::Result<()> {
        if self.taken.contains(&address) { Err(io::ErrorKind::AddrInUse.into()) } else { Ok(()) }
    }

    fn free(&self, _: &Path) -> io::Result<u64> {
        Ok(self.disk)
    }

    fn kernel_log(&self) -> Option<String> {
        self.log.clone()
    }

    fn modes(&self) -> &dyn CcTool {
        if self.tool { &self.files } else { &NoTool }
    }

    fn network(&self) -> &Network {
        &self.network
    }
}

pub(crate) const GPU: &str = "0000:41:00.0";
pub(crate) const PORT: &str = "0.0.0.0:8083";

/// What all good hosts have.
fn server() -> Host {
    let files = FakeHost::empty();
    files.file(
        "/proc/meminfo",
        "MemTotal: 528000000 kB\nMemAvailable: 500000000 kB\nHugePages_Total: 0\nHugepagesize: 2048 kB\n",
    );
    files.file("/proc/self/limits", "Limit Soft Limit Hard Limit Units\nMax locked memory         unlimited            unlimited            bytes\n");
    files.file("/proc/self/status", "Name:\tcocoon\nCapEff:\t0000000000000000\n");
    files.file("/run/systemd/timesync/synchronized", "");
    for device in ["/dev/kvm", "/dev/vhost-vsock", "/dev/iommu", "/dev/vfio/vfio"] {
        files.file(device, "");
    }
    Host {
        files,
        question: Question {
            firmware: Some("/opt/image/firmware.fd".into()),
            memory: 64 << 30,
            state: PathBuf::from("/var/lib/cocoon"),
            ports: vec![PORT.parse().expect("an address")],
            ..Question::default()
        },
        qemu: Ok(Qemu {
            source: "the image's own".into(),
            version: Version(11, 1, 3),
            objects: ["iommufd", "memory-backend-memfd", "memory-backend-ram", "sev-snp-guest", "tdx-guest"]
                .map(str::to_owned)
                .to_vec(),
        }),
        swtpm: Ok("TPM emulator version 0.10.1".into()),
        closed: BTreeMap::new(),
        taken: Vec::new(),
        disk: 900 << 30,
        log: Some("Linux version 6.16.3\n".into()),
        tool: true,
        network: Network {
            clock: Probe::Answered(0),
            collateral: Probe::Answered("the vendor's service".into()),
            chain: Probe::Answered("network -239, block 50000000".into()),
            wallet: Probe::Answered(5_000_000_000),
        },
    }
}

/// An H100 in CC mode, ready to be taken.
fn with_gpu(host: &Host) {
    host.files.driver("vfio-pci");
    host.files.card(&Card::h100(GPU, 42));
    host.files.describe(GPU, 0);
    host.files.set_modes(GPU, (Some(CcMode::On), Some(false)));
}

fn cpuinfo(vendor: &str, family: u32, model: u32, name: &str, flags: &str) -> String {
    format!(
        "processor\t: 0\nvendor_id\t: {vendor}\ncpu family\t: {family}\nmodel\t\t: {model}\nmodel name\t: {name}\n\
         flags\t\t: fpu lm aes {flags}\n\nprocessor\t: 1\n"
    )
}

/// A Xeon of the fifth generation with TDX and an H100.
pub(crate) fn tdx_h100() -> Host {
    let mut host = server();
    let files = &host.files;
    files.file(
        "/proc/cpuinfo",
        cpuinfo("GenuineIntel", 6, 0xcf, "INTEL(R) XEON(R) PLATINUM 8592+", "vmx tme"),
    );
    files.file("/proc/sys/kernel/osrelease", "6.16.3-amd64\n");
    files.file(
        "/proc/cmdline",
        "BOOT_IMAGE=/vmlinuz root=/dev/sda1 intel_iommu=on iommu=pt nohibernate kvm_intel.tdx=1\n",
    );
    files.file("/sys/module/kvm_intel/parameters/tdx", "Y\n");
    files.file("/sys/power/disk", "[disabled]\n");
    files.file("/sys/devices/faux/tdx_host/version", "1.5.24\n");
    files.file("/opt/image/firmware.fd", firmware(true, false));
    files.file("/proc/2000/comm", "qgs\n");
    files.file("/etc/qgs.conf", "port = 4050\n#number_threads = 4\n");
    with_gpu(&host);
    host.log = Some(
        "Linux version 6.16.3-amd64\nx86/tme: enabled by BIOS\nvirt/tdx: BIOS enabled: private KeyID range [64, 128)\n\
         virt/tdx: module initialized\n"
            .into(),
    );
    host
}

/// A Genoa with SEV-SNP and an H100.
pub(crate) fn snp_h100() -> Host {
    let mut host = server();
    let files = &host.files;
    files.file(
        "/proc/cpuinfo",
        cpuinfo("AuthenticAMD", 0x19, 0x11, "AMD EPYC 9654 96-Core Processor", "svm sme sev sev_es sev_snp"),
    );
    files.file("/proc/sys/kernel/osrelease", "6.12.41+deb13-amd64\n");
    files.file("/proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/sda1 quiet\n");
    files.file("/sys/module/kvm_amd/parameters/sev_snp", "Y\n");
    files.file("/sys/fs/cgroup/misc.capacity", "sev 407\nsev_es 99\n");
    files.file("/dev/sev", "");
    files.file("/opt/image/firmware.fd", firmware(false, true));
    with_gpu(&host);
    host.log = Some(
        "Linux version 6.12.41\nSEV-SNP: RMP table physical range [0x0000000035600000 - 0x0000000075bfffff]\n\
         AMD-Vi: IOMMU SNP support enabled.\nkvm_amd: SEV-SNP enabled (ASIDs 1 - 99)\n"
            .into(),
    );
    host
}

/// A laptop: Intel's client processor, a GeForce.
pub(crate) fn laptop() -> Host {
    let host = server();
    let files = &host.files;
    files.file(
        "/proc/cpuinfo",
        cpuinfo("GenuineIntel", 6, 0x9a, "12th Gen Intel(R) Core(TM) i7-1260P", "vmx tme"),
    );
    files.file("/proc/sys/kernel/osrelease", "6.12.41+deb13-amd64\n");
    files.file("/proc/cmdline", "quiet splash\n");
    files.file("/opt/image/firmware.fd", firmware(false, false));
    files.card(&Card {
        device: "0x25a0",
        class: "0x030000",
        driver: Some("nouveau"),
        ..Card::h100("0000:01:00.0", 1)
    });
    host
}

/// A cloud's VM on an EPYC that has SEV-SNP, which the VM does not get.
pub(crate) fn cloud_vm() -> Host {
    let host = laptop();
    host.files.file("/proc/cpuinfo", cpuinfo("AuthenticAMD", 0x1a, 0x02, "AMD EPYC 9B45", "hypervisor"));
    host
}

/// The same machine, examined for a TEE that is named.
pub(crate) fn asked_for(tee: Tee, mut host: Host) -> Host {
    host.question.tee = Some(tee);
    host
}

/// The end of an OVMF with the abilities' entries: metadata first, the table last.
pub(crate) fn firmware(tdx: bool, snp: bool) -> Vec<u8> {
    const TDX: [u8; 16] = *b"\x35\x65\x7a\xe4\x4a\x98\x98\x47\x86\x5e\x46\x85\xa7\xbf\x8e\xc2";
    const SEV: [u8; 16] = *b"\x66\x65\x88\xdc\x4a\x98\x98\x47\xa7\x5e\x55\x85\xa7\xbf\x67\xcc";
    const HASHES: [u8; 16] = *b"\x1f\x37\x55\x72\x3b\x3a\x04\x4b\x92\x7b\x1d\xa6\xef\xa8\xd4\x54";
    const FOOTER: [u8; 16] = *b"\xde\x82\xb5\x96\xb2\x1f\xf7\x45\xba\xea\xa3\x66\xc5\x5a\x08\x2d";
    const METADATA: usize = 64;
    let mut file = vec![0xff; METADATA];
    file[..4].copy_from_slice(b"TDVF");
    file[32..36].copy_from_slice(b"ASEV");
    let entries = usize::from(tdx) * 22 + usize::from(snp) * (22 + 26);
    let length = METADATA + entries + 18 + 32;
    let offset = |at: usize| u32::try_from(length - at).expect("short").to_le_bytes().to_vec();
    let mut entry = |data: Vec<u8>, guid: [u8; 16]| {
        let size = u16::try_from(data.len() + 18).expect("short");
        file.extend([data, size.to_le_bytes().to_vec(), guid.to_vec()].concat());
    };
    if tdx {
        entry(offset(0), TDX);
    }
    if snp {
        entry(offset(32), SEV);
        entry(vec![0, 0x0c, 0x81, 0, 0, 4, 0, 0], HASHES);
    }
    let size = u16::try_from(entries + 18).expect("short");
    file.extend(size.to_le_bytes());
    file.extend(FOOTER);
    file.extend([0; 32]);
    assert_eq!(file.len(), length);
    file
}
