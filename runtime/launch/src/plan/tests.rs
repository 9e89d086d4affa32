//! Plans, their checks, and their command lines as text. What QEMU itself says of them: `tests/lint.rs`.

use std::path::{Path, PathBuf};

use super::*;
use crate::program::Program;

fn guest(name: &str, tee: Tee) -> LaunchPlan {
    let development = matches!(tee, Tee::Emulation { .. });
    let word = if development { "console=ttyS0 cocoon.development " } else { "" };
    LaunchPlan {
        name: name.parse().expect("a name"),
        vcpus: Vcpus::try_from(4).expect("within limits"),
        memory: Memory::mib(8192).expect("within limits"),
        boot: Boot {
            firmware: "/image/firmware/OVMF.fd".into(),
            kernel: "/image/vmlinuz".into(),
            initrd: "/image/initrd.cpio".into(),
            command_line: format!("{word}panic=-1 ro"),
        },
        disks: Disks {
            root: "/image/root.img".into(),
            config: format!("/run/{name}/config.img").into(),
            weights: "/models/it's, mine.img".into(),
        },
        tee,
    }
}

fn gpus(addresses: &[&str]) -> Gpus {
    let devices =
        addresses.iter().map(|a| Gpu { address: a.parse().expect("an address"), aperture_mib: 131_120 });
    Gpus { devices: devices.collect(), iommu: Iommu::Iommufd, mmio64_mib: Some(4 << 20) }
}

fn tdx(cid: u32, gpus: Gpus) -> Tee {
    let cid = Cid::try_from(cid).expect("within limits");
    Tee::Tdx { quote_service: QuoteService::Vsock { cid: 2, port: 4050 }, cid, gpus }
}

fn snp(cid: u32, gpus: Gpus) -> Tee {
    let cid = Cid::try_from(cid).expect("within limits");
    Tee::Snp(Snp { host_data: [0xfb; 32], cpu: SnpCpu::Genoa, cid, gpus })
}

fn emulation(forward: &str) -> Tee {
    let forward = forward.parse().expect("an address");
    Tee::Emulation { forward, accelerator: Accelerator::Tcg, console: false }
}

fn line(plan: &LaunchPlan) -> String {
    let words = plan.arguments().expect("a good plan").into_iter().map(|w| w.into_string().expect("text"));
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn production_has_no_console_no_network_card_and_no_simulated_tee() {
    for tee in [tdx(10, gpus(&["17:00.0"])), snp(10, gpus(&[]))] {
        let line = line(&guest("a", tee));
        for needed in [
            "-nodefaults",
            "-no-user-config",
            "-serial none",
            "-sandbox on,",
            "exit-with-parent=on",
            "hpet=off",
        ] {
            assert!(line.contains(needed), "{needed} in {line}");
        }
        for never in ["netdev", "virtio-net", "cocoon.tee", "tpm", "file:", "-monitor", "-vnc", "virtio-rng"]
        {
            assert!(!line.contains(never), "{never} in {line}");
        }
    }
}

#[test]
fn each_kind_has_what_makes_it_one() {
    let tdx_line = line(&guest("a", tdx(10, gpus(&[]))));
    // The order of an object's words is serde_json's, and other crates choose it.
    for word in [r#""quote-generation-socket":{"#, r#""cid":"2""#, r#""port":"4050""#, r#""type":"vsock""#] {
        assert!(tdx_line.contains(word), "{word} in {tdx_line}");
    }
    assert!(tdx_line.contains("confidential-guest-support=tee0") && !tdx_line.contains("vfio"), "{tdx_line}");
    assert!(
        tdx_line.contains("-smbios type=4,processor-id=1"),
        "RTMR0 is no matter of steppings: {tdx_line}"
    );
    let snp_line = line(&guest("a", snp(10, gpus(&[]))));
    let host_data = "host-data=+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=";
    for needed in
        ["kernel-hashes=on", "policy=0x30000", host_data, "-cpu EPYC-Genoa,host-phys-bits=on", "guest-cid=10"]
    {
        assert!(snp_line.contains(needed), "{needed} in {snp_line}");
    }
    let emulated = line(&guest("a", emulation("127.0.0.1:4000")));
    for needed in [
        "restrict=on",
        "hostfwd=tcp:127.0.0.1:4000-10.0.2.15:8083",
        "tpm-crb",
        "name=cocoon.tee",
        "-accel tcg",
    ] {
        assert!(emulated.contains(needed), "{needed} in {emulated}");
    }
    assert!(!emulated.contains("confidential") && !emulated.contains("vsock"), "{emulated}");
}

#[test]
fn every_gpu_has_its_own_root_port_and_all_fit_in_the_hole() {
    let two = line(&guest("a", tdx(10, gpus(&["17:00.0", "2a:00.0"]))));
    for needed in [
        "pcie-root-port,id=gpu0,chassis=1,slot=1,addr=0x8",
        "vfio-pci,host=0000:17:00.0,bus=gpu0,rombar=0,iommufd=iommufd0",
        "pcie-root-port,id=gpu1,chassis=2,slot=2,addr=0x9",
        "vfio-pci,host=0000:2a:00.0,bus=gpu1,rombar=0,iommufd=iommufd0",
        "-fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=4194304",
        "-global q35-pcihost.pci-hole64-size=4194304M",
    ] {
        assert!(two.contains(needed), "{needed} in {two}");
    }
    let mut old = gpus(&["17:00.0"]);
    old.iommu = Iommu::Legacy;
    old.mmio64_mib = Some(262_144);
    let one = line(&guest("a", snp(10, old.clone())));
    assert!(!one.contains("iommufd") && one.contains("string=262144"), "{one}");
    old.mmio64_mib = None;
    let free = line(&guest("a", snp(10, old.clone())));
    assert!(!free.contains("-fw_cfg") && !free.contains("-global"), "left to the firmware: {free}");
    old.mmio64_mib = Some(262_143);
    let refused = PlanError::SmallHole { given: 262_143, needed: 262_144 };
    assert_eq!(guest("a", snp(10, old)).arguments(), Err(refused));
    let many: Vec<String> = (0..17).map(|bus| format!("{bus:02x}:00.0")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(guest("a", tdx(10, gpus(&many[..16]))).arguments().is_ok());
    assert_eq!(guest("a", tdx(10, gpus(&many))).arguments(), Err(PlanError::TooManyGpus(17)));
}

#[test]
fn an_image_boots_only_where_it_belongs() {
    let mut production = guest("a", emulation("127.0.0.1:4000"));
    production.boot.command_line = "panic=-1".to_owned();
    assert!(matches!(production.check(), Err(PlanError::Image { kind: "emulation", image: "production" })));
    let mut development = guest("a", tdx(10, gpus(&[])));
    development.boot.command_line = "console=ttyS0 cocoon.development".to_owned();
    assert!(matches!(development.check(), Err(PlanError::Image { kind: "tdx", image: "development" })));
    development.boot.command_line = "cocoon.developmental".to_owned();
    assert_eq!(development.check(), Ok(()), "the whole word counts");
}

#[test]
fn command_lines_and_paths_that_qemu_would_read_otherwise_are_refused() {
    for bad in ["a\nb".to_owned(), "ü".to_owned(), "a".repeat(2048)] {
        let mut plan = guest("a", tdx(10, gpus(&[])));
        plan.boot.command_line = bad;
        assert!(matches!(plan.arguments(), Err(PlanError::CommandLine(_))));
    }
    use std::os::unix::ffi::OsStrExt;
    let odd = PathBuf::from(std::ffi::OsStr::from_bytes(b"/a\xff"));
    for bad in [odd, PathBuf::new(), "/a\0b".into()] {
        let mut plan = guest("a", tdx(10, gpus(&[])));
        plan.disks.root = bad;
        assert!(matches!(plan.arguments(), Err(PlanError::Path { what: "root disk", .. })));
    }
    assert!(matches!(guest("a", emulation("0.0.0.0:4000")).check(), Err(PlanError::NotLoopback(_))));
}

#[test]
fn guests_side_by_side_share_nothing() {
    let good = [
        guest("a", tdx(10, gpus(&["17:00.0"]))),
        guest("b", tdx(11, gpus(&["2a:00.0"]))),
        guest("c", emulation("127.0.0.1:4000")),
        guest("d", emulation("127.0.0.1:4001")),
    ];
    assert_eq!(check_together(&good), Ok(()));
    let mut one_disk = good.clone();
    one_disk[1].disks.config = one_disk[0].disks.config.clone();
    for (shared, bad) in [
        ("CID 10", guest("b", tdx(10, gpus(&[])))),
        ("the GPU 0000:17:00.0", guest("b", snp(11, gpus(&["17:00.0"])))),
        ("the address 127.0.0.1:4000", guest("b", emulation("127.0.0.1:4000"))),
        ("the name a", guest("a", tdx(12, gpus(&[])))),
        ("the configuration disk", one_disk[1].clone()),
    ] {
        let plans = [good[0].clone(), good[2].clone(), bad];
        let refused = check_together(&plans).expect_err(shared).to_string();
        assert!(refused.contains(shared) && refused.contains("give each its own"), "{refused}");
    }
    let twice = guest("a", tdx(10, gpus(&["17:00.0", "17:00.0"])));
    let refused = check_together(&[twice]).expect_err("one GPU twice").to_string();
    assert!(refused.contains("guests a and a both have the GPU"), "{refused}");
}

#[test]
fn a_dry_run_can_be_pasted_into_a_shell() {
    let plan = guest("a", tdx(10, gpus(&["17:00.0"])));
    let program = Program { executable: "/bin/printf".into(), before: vec!["%s\\0".into()] };
    let text = plan.describe(&program, Path::new("/tmp")).expect("a good plan");
    assert!(
        text.contains("# guest a: tdx, 4 vCPUs, 8 GiB") && text.contains("0000:17:00.0 by iommufd"),
        "{text}"
    );
    assert!(text.lines().filter(|line| line.starts_with("  -")).count() > 20, "one option on a line: {text}");
    let output = std::process::Command::new("sh").arg("-c").arg(&text).output().expect("a shell");
    let words: Vec<String> =
        String::from_utf8(output.stdout).expect("text").split_terminator('\0').map(str::to_owned).collect();
    let meant: Vec<String> =
        plan.arguments().expect("a good plan").into_iter().map(|w| w.into_string().expect("text")).collect();
    assert_eq!(words, meant);
}

#[test]
fn every_processor_of_a_predicted_profile_is_one_that_qemu_is_told() {
    let profiles = cocoon_image::profile::built_in();
    let predicted: Vec<_> = profiles.iter().filter_map(|(p, _)| Some(p.snp.as_ref()?.vcpu_type)).collect();
    assert!(!predicted.is_empty(), "there are profiles of SNP");
    for vcpu_type in predicted {
        assert_eq!(SnpCpu::from(vcpu_type).model(), vcpu_type.word());
    }
}

#[test]
fn a_predicted_hole_holds_the_gpus_that_were_predicted() {
    for (profile, _) in cocoon_image::profile::built_in() {
        let addresses: Vec<String> = (0..profile.gpus).map(|bus| format!("{bus:02x}:00.0")).collect();
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let needed = gpus(&addresses).needed_mmio64_mib();
        if let Some(given) = profile.pci_mmio64_mib {
            assert!(u64::from(given) >= needed, "{}: {given} MiB for {needed}", profile.name);
        }
    }
}
