//! Production command lines against the real QEMU, by the error they end with: that the hardware is missing, and no other.
//!
//! The tree of QEMU is named by `COCOON_QEMU_TREE`, else it is the cache's; without one these tests say so and prove nothing.

#![allow(dead_code, reason = "each test file uses its part of the common module")]

mod common;

use std::process::{Command, Output, Stdio};

use cocoon_launch::{
    plan::{
        Boot, Cid, Disks, Gpu, Gpus, Iommu, LaunchPlan, Memory, QuoteService, Snp, SnpCpu, Tee, Vcpus, files,
    },
    program::Program,
};
use common::{qemu_or_say_skipped, text};

/// How a good command line ends where the hardware is missing.
const NO_HARDWARE: [&str; 6] = [
    "Could not access KVM kernel module",
    "failed to initialize kvm",
    "vm-type TDX not supported by KVM",
    "vm-type SEV-SNP not supported by KVM",
    "cannot set up private guest memory for tdx-guest: KVM required",
    "cannot set up private guest memory for sev-snp-guest: KVM required",
];
/// The object that GPUs are handed over with.
const IOMMUFD: &str = "iommufd,id=iommufd0";
/// How a good device ends where it is not to be had.
const NO_DEVICE: [&str; 3] =
    ["Could not open '/dev/vhost-vsock'", "no such host device", "/dev/iommu does not exist"];

fn plans(folder: &std::path::Path) -> Vec<LaunchPlan> {
    let gpu = |bus: u8| Gpu {
        address: format!("0000:{bus:02x}:00.0").parse().expect("one"),
        aperture_mib: 131_120,
    };
    let file = |name: &str| {
        let path = folder.join(name);
        std::fs::write(&path, vec![0; 65536]).expect("writable");
        path
    };
    let boot = Boot {
        firmware: file("firmware, with a comma.fd"),
        kernel: file("vmlinuz"),
        initrd: file("initrd.cpio"),
        command_line: "panic=-1 ro lockdown=confidentiality".to_owned(),
    };
    let disks =
        Disks { root: file("root, too.img"), config: file("config.img"), weights: file("weights.img") };
    let cid = Cid::try_from(77).expect("within limits");
    let eight = |iommu| Gpus { devices: (0x10..0x18).map(gpu).collect(), iommu, mmio64_mib: Some(2 << 20) };
    let mut tees = vec![
        Tee::Tdx { quote_service: QuoteService::Vsock { cid: 2, port: 4050 }, cid, gpus: Gpus::default() },
        Tee::Tdx {
            quote_service: QuoteService::Unix("/run/qgs, s.socket".into()),
            cid,
            gpus: eight(Iommu::Iommufd),
        },
    ];
    // With one GPU the address space fits into the 40 bits of the emulation's own processor.
    tees.push(Tee::Tdx {
        quote_service: QuoteService::Vsock { cid: 2, port: 4050 },
        cid,
        gpus: Gpus { devices: vec![gpu(0x20)], iommu: Iommu::Iommufd, mmio64_mib: Some(262_144) },
    });
    for cpu in [SnpCpu::V4, SnpCpu::Milan, SnpCpu::Genoa, SnpCpu::Turin] {
        tees.push(Tee::Snp(Snp { host_data: [7; 32], cpu, cid, gpus: eight(Iommu::Legacy) }));
    }
    let plan = |tee| LaunchPlan {
        name: "linted".parse().expect("a name"),
        vcpus: Vcpus::try_from(8).expect("within limits"),
        memory: Memory::mib(4096).expect("within limits"),
        boot: boot.clone(),
        disks: disks.clone(),
        tee,
    };
    tees.into_iter().map(plan).collect()
}

/// QEMU's last words on these arguments. A QEMU that starts is stopped by its monitor.
fn last_words(qemu: &Program, folder: &std::path::Path, arguments: &[String]) -> (bool, String) {
    // The host listens for the guest's lines before it starts one.
    let socket = folder.join(files::LOG);
    drop(std::fs::remove_file(&socket));
    let _listens = std::os::unix::net::UnixListener::bind(socket).expect("a short path");
    let mut command: Command = qemu.command();
    command
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("QEMU can be started");
    let monitor = child.stdin.take().expect("piped");
    drop(std::io::Write::write_all(&mut &monitor, b"quit\n"));
    let Output { status, stderr, .. } = child.wait_with_output().expect("it ends");
    (status.success(), String::from_utf8_lossy(&stderr).trim().to_owned())
}

fn words(plan: &LaunchPlan) -> Vec<String> {
    plan.arguments().expect("a good plan").iter().map(text).collect()
}

/// The same under software emulation: it gets past the accelerator, and on to the TEE's own object.
fn without_kvm(mut words: Vec<String>) -> Vec<String> {
    let at = words.iter().position(|word| word == "-accel").expect("there is one");
    "tcg".clone_into(&mut words[at + 1]);
    words
}

fn hardware_is_missing(words: &str) -> bool {
    let errors: Vec<&str> = words.lines().filter(|line| !line.contains("warning:")).collect();
    !errors.is_empty() && errors.iter().all(|line| NO_HARDWARE.iter().any(|known| line.contains(known)))
}

#[test]
fn production_ends_with_the_words_that_the_hardware_is_missing() {
    let Some(qemu) = qemu_or_say_skipped("production command lines") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    for plan in plans(folder.path()) {
        for arguments in [words(&plan), without_kvm(words(&plan))] {
            // Comes before the TEE, and is not there on every machine.
            if arguments.iter().any(|word| word == IOMMUFD) {
                let (_, said) = last_words(&qemu, folder.path(), &arguments);
                assert!(said.contains("/dev/iommu does not exist") || hardware_is_missing(&said), "{said}");
            }
            let arguments: Vec<String> =
                arguments.into_iter().map(|word| word.replace(IOMMUFD, "secret,id=none,data=")).collect();
            let (_, said) = last_words(&qemu, folder.path(), &arguments);
            assert!(hardware_is_missing(&said), "{}: {said}", plan.kind());
        }
    }
}

#[test]
fn one_wrong_option_ends_with_other_words() {
    let Some(qemu) = qemu_or_say_skipped("wrong options") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let all = plans(folder.path());
    for (plan, good, bad) in [
        (&all[0], "tdx-guest", "tdx-gast"),
        (&all[0], "quote-generation-socket", "quote-socket"),
        (&all[0], "sockets=1", "pockets=1"),
        (&all[0], "hpet=off", "hpets=off"),
        (&all[0], "spawn=deny", "spawn=dany"),
        (&all[0], "exit-with-parent=on", "exit-with-mother=on"),
        (&all[0], "processor-id=1", "processor-ident=1"),
        (&all[3], "kernel-hashes=on", "kernel-hash=on"),
        (&all[3], "host-data=", "hostdata="),
        (&all[3], "memory-backend-memfd", "memory-backend-memfile"),
        (&all[3], "memory-backend=", "memory-backed="),
    ] {
        let changed: Vec<String> = words(plan).iter().map(|word| word.replacen(good, bad, 1)).collect();
        assert_ne!(changed, words(plan), "{good} is not there");
        let (_, said) = last_words(&qemu, folder.path(), &without_kvm(changed));
        assert!(!said.is_empty() && !hardware_is_missing(&said), "{bad}: {said}");
    }
}

/// Devices come after the TEE, where QEMU has ended here; so each is tried on a machine without one.
fn on_a_plain_machine(words: &[String], device: &str) -> Vec<String> {
    let plain = "-nodefaults -no-user-config -display none -S -machine q35 -accel tcg -m 256 -monitor stdio";
    let mut arguments: Vec<String> = plain.split(' ').map(str::to_owned).collect();
    // What stands on its own; and every bus and medium that the device may name.
    for pair in words.windows(2) {
        let bus = pair[0] == "-device"
            && (pair[1].starts_with("pcie-root-port") || pair[1].starts_with("virtio-serial"));
        if ["-blockdev", "-bios"].contains(&pair[0].as_str())
            || pair[0] == "-fw_cfg"
            || (bus && pair[1] != device)
        {
            arguments.extend_from_slice(pair);
        }
    }
    arguments.extend(["-chardev".into(), "null,id=log".into(), "-device".into(), device.to_owned()]);
    arguments
}

/// Good, or only not to be had here.
fn device_is_right(
    qemu: &Program,
    folder: &std::path::Path,
    all: &[String],
    device: &str,
) -> Result<(), String> {
    // An iommufd object needs /dev/iommu itself; the property is linted by name below.
    let device_alone = device.replace(",iommufd=iommufd0", "");
    let (started, said) = last_words(qemu, folder, &on_a_plain_machine(all, &device_alone));
    if started || NO_DEVICE.iter().any(|known| said.contains(known)) { Ok(()) } else { Err(said) }
}

#[test]
fn every_device_of_production_is_one_that_qemu_knows() {
    let Some(qemu) = qemu_or_say_skipped("production devices") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let mut seen = std::collections::BTreeSet::new();
    for plan in plans(folder.path()) {
        let all = words(&plan);
        for pair in all.windows(2).filter(|pair| pair[0] == "-device") {
            if seen.insert(pair[1].clone()) {
                device_is_right(&qemu, folder.path(), &all, &pair[1])
                    .unwrap_or_else(|said| panic!("{}: {said}", pair[1]));
            }
        }
    }
    assert!(seen.len() > 20, "disks, ports, vsock, eight GPUs both ways: {seen:?}");
    let all = words(&plans(folder.path())[3]);
    for (device, wrong) in [
        ("virtio-blk", "serial="),
        ("vhost-vsock", "guest-cid="),
        ("vfio-pci", "host="),
        ("vfio-pci", "rombar="),
        ("virtserialport", "name="),
    ] {
        let good = all.iter().find(|word| word.starts_with(device)).expect("a device");
        let bad = good.replacen(wrong, &format!("x{wrong}"), 1);
        let said = device_is_right(&qemu, folder.path(), &all, &bad).expect_err(&bad);
        assert!(said.contains("not found"), "{bad}: {said}");
    }
}

/// The options of a plan that RTMR0 alone depends on, and the firmware, without which no machine starts.
fn measured(plan: &LaunchPlan) -> Vec<String> {
    let words = words(plan);
    let pairs = words
        .windows(2)
        .filter(|pair| ["-smbios", "-global", "-fw_cfg", "-bios"].contains(&pair[0].as_str()));
    pairs.flatten().cloned().collect()
}

#[test]
fn what_rtmr0_depends_on_reaches_the_machine() {
    let Some(qemu) = qemu_or_say_skipped("what RTMR0 depends on") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let good = measured(&plans(folder.path())[2]);
    assert_eq!(good.len(), 8, "the processor's id, the window, the firmware's request: {good:?}");
    let plain = "-nodefaults -no-user-config -display none -S -machine q35 -accel tcg -m 256 -monitor stdio";
    let asked = |options: &[String]| {
        let mut command = qemu.command();
        command.args(plain.split(' ')).args(options);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("QEMU can be started");
        let monitor = child.stdin.take().expect("piped");
        drop(std::io::Write::write_all(&mut &monitor, b"qom-get /machine/q35 pci-hole64-size\nquit\n"));
        let Output { stdout, stderr, .. } = child.wait_with_output().expect("it ends");
        [stdout, stderr].map(|said| String::from_utf8_lossy(&said).into_owned())
    };
    let [answer, complaints] = asked(&good);
    assert!(answer.contains(&(256_u64 << 30).to_string()) && complaints.is_empty(), "{answer}{complaints}");
    for (right, wrong) in [
        ("q35-pcihost", "q35-pcihosts"),
        ("pci-hole64-size", "pci-hole-size"),
        ("262144M", "262144m64"),
        ("processor-id", "processor-ident"),
        ("name=opt", "names=opt"),
    ] {
        let changed: Vec<String> = good.iter().map(|word| word.replacen(right, wrong, 1)).collect();
        assert_ne!(changed, good, "{right} is not there");
        let [answer, complaints] = asked(&changed);
        assert!(!complaints.is_empty(), "{wrong}: {answer}");
    }
}

#[test]
fn objects_for_gpus_are_known_by_name() {
    let Some(qemu) = qemu_or_say_skipped("iommufd") else { return };
    let help = |what: &[&str]| {
        let output = qemu.command().args(what).output().expect("QEMU can be started");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(help(&["-object", "help"]).contains("iommufd"));
    assert!(help(&["-device", "vfio-pci,help"]).contains("iommufd=<link<iommufd>>"));
}
