//! The doctor, on good machines and on machines of which one thing is bad.

mod fake_host;

use std::collections::BTreeSet;
use std::io::ErrorKind;

use cocoon_launch::doctor::{
    Check, Outcome, Plain, Probe, QuoteService, Report, Tee, TeeChoice, Version, examine,
};
use cocoon_launch::gpu::{CcMode, Selection};
use fake_host::hosts::{GPU, Host, PORT, asked_for, cloud_vm, firmware, laptop, snp_h100, tdx_h100};
use fake_host::{Card, address};

fn report(host: &Host) -> Report {
    examine(host.files.root(), host, &host.question)
}

fn is_good(host: &Host, tee: Tee, choice: TeeChoice) -> Report {
    let report = report(host);
    let bad: Vec<&Check> =
        report.checks.iter().filter(|c| matches!(c.result, Outcome::Fail | Outcome::Warn)).collect();
    assert!(bad.is_empty(), "{bad:#?}");
    assert_eq!((report.tee, report.tee_choice, report.verdict.ready), (tee, choice, true));
    report
}

#[test]
fn a_good_tdx_host_is_ready() {
    let report = is_good(&tdx_h100(), Tee::Tdx, TeeChoice::Cpu);
    assert_eq!(report.verdict.text, "ready for confidential guests with Intel TDX");
    assert_eq!(report.verdict.next, "cocoon host up --config host.toml");
}

#[test]
fn a_good_snp_host_is_ready() {
    let report = is_good(&snp_h100(), Tee::Snp, TeeChoice::Cpu);
    assert_eq!(report.verdict.text, "ready for confidential guests with AMD SEV-SNP");
}

#[test]
fn a_laptop_and_a_cloud_vm_are_ready_for_development_guests_only() {
    for host in [laptop(), cloud_vm()] {
        let report = is_good(&host, Tee::Emulation, TeeChoice::Neither);
        assert_eq!(report.verdict.next, "cocoon host up --vm");
        let plainly = "this machine can run development guests (emulation) only";
        assert!(report.verdict.text.starts_with(plainly), "{}", report.verdict.text);
        assert!(report.text(&Plain).contains(plainly));
    }
}

/// A way to break a good host: its name, the break, the check that must say so, how, and words of reason or remedy.
struct Break {
    name: &'static str,
    apply: fn(&mut Host),
    id: &'static str,
    result: Outcome,
    words: &'static [&'static str],
}

const fn fails(
    name: &'static str,
    apply: fn(&mut Host),
    id: &'static str,
    words: &'static [&'static str],
) -> Break {
    Break { name, apply, id, result: Outcome::Fail, words }
}

const fn warns(
    name: &'static str,
    apply: fn(&mut Host),
    id: &'static str,
    words: &'static [&'static str],
) -> Break {
    Break { name, apply, id, result: Outcome::Warn, words }
}

/// What breaks any host with a TEE and a GPU.
const ANY: &[Break] = &[
    fails("no KVM", |h| h.files.remove("/dev/kvm"), "kvm.device", &["BIOS"]),
    fails(
        "no KVM permission",
        |h| {
            h.closed.insert("/dev/kvm".into(), ErrorKind::PermissionDenied);
        },
        "kvm.device",
        &["usermod -aG kvm"],
    ),
    fails(
        "no IOMMU",
        |h| {
            h.files.remove("/sys/kernel/iommu_groups");
            h.files.remove("/sys/bus/pci/devices/0000:41:00.0/iommu_group");
        },
        "iommu.on",
        &["BIOS"],
    ),
    fails(
        "no vfio-pci",
        |h| h.files.remove("/sys/bus/pci/drivers/vfio-pci"),
        "vfio.module",
        &["modprobe vfio-pci"],
    ),
    warns("no iommufd", |h| h.files.remove("/dev/iommu"), "vfio.iommufd", &["modprobe iommufd"]),
    fails("no vsock", |h| h.files.remove("/dev/vhost-vsock"), "vsock.device", &["modprobe vhost_vsock"]),
    fails(
        "little memory",
        |h| h.files.edit("/proc/meminfo", "MemAvailable: 500000000", "MemAvailable: 5000000"),
        "memory.free",
        &["4.8 GiB", "64.0 GiB"],
    ),
    warns(
        "huge pages",
        |h| h.files.edit("/proc/meminfo", "HugePages_Total: 0", "HugePages_Total: 1024"),
        "memory.hugepages",
        &["2.0 GiB", "vm.nr_hugepages"],
    ),
    fails(
        "little memlock",
        |h| h.files.edit("/proc/self/limits", "unlimited            unlimited", "8388608 8388608"),
        "limits.memlock",
        &["LimitMEMLOCK=infinity"],
    ),
    fails(
        "no QEMU",
        |h| h.qemu = Err("qemu-system-x86_64 cannot be started".into()),
        "qemu.version",
        &["cannot be started"],
    ),
    fails(
        "old QEMU",
        |h| h.qemu.as_mut().expect("it has one").version = Version(7, 2, 18),
        "qemu.version",
        &["7.2.18", "cocoon image build"],
    ),
    fails(
        "QEMU without the TEE",
        |h| h.qemu.as_mut().expect("it has one").objects.retain(|o| !o.contains("guest")),
        "qemu.objects",
        &["built without"],
    ),
    fails(
        "no firmware",
        |h| h.files.remove("/opt/image/firmware.fd"),
        "firmware.abilities",
        &["/opt/image/firmware.fd"],
    ),
    fails(
        "the firmware of an ordinary VM",
        |h| h.files.file("/opt/image/firmware.fd", firmware(false, false)),
        "firmware.abilities",
        &["metadata"],
    ),
    fails(
        "a text as firmware",
        |h| h.files.file("/opt/image/firmware.fd", "x"),
        "firmware.abilities",
        &["no OVMF"],
    ),
    fails(
        "a firmware nobody measured",
        |h| h.question.known_firmware = vec!["00".repeat(32)],
        "firmware.known",
        &["clients would refuse"],
    ),
    fails(
        "a GPU in use",
        |h| h.files.process(812, "python3", "/dev/nvidia0"),
        "gpu.free",
        &["process 812 (python3)", "end what uses it"],
    ),
    fails(
        "a GPU whose group has another device",
        |h| {
            h.files.card(&Card {
                vendor: "0x144d",
                class: "0x010802",
                driver: Some("nvme"),
                ..Card::h100("0000:42:00.0", 42)
            });
        },
        "gpu.group",
        &["0000:42:00.0 (nvme)", "ACS"],
    ),
    fails(
        "a GPU without confidential computing",
        |h| h.files.edit("/sys/bus/pci/devices/0000:41:00.0/device", "0x2330", "0x20b2"),
        "gpu.present",
        &["10de:20b2"],
    ),
    fails(
        "a GPU that is not there",
        |h| h.question.gpus = Some(Selection::Only(vec![address("99:00.0")])),
        "gpu.present",
        &["0000:99:00.0", "lspci"],
    ),
    warns("no GPU", |h| h.files.remove("/sys/bus/pci/devices/0000:41:00.0"), "gpu.present", &["on the CPU"]),
    warns(
        "CC mode off",
        |h| h.files.set_modes(GPU, (Some(CcMode::Off), Some(false))),
        "gpu.cc-mode",
        &["0000:41:00.0 off", "switches CC mode on"],
    ),
    warns(
        "CC mode for profilers",
        |h| h.files.set_modes(GPU, (Some(CcMode::Devtools), Some(false))),
        "gpu.cc-mode",
        &["devtools"],
    ),
    fails("no admin tool", |h| h.tool = false, "gpu.cc-mode", &["nvidia_gpu_tools.py"]),
    warns(
        "an old VBIOS",
        |h| h.files.edit("/proc/driver/nvidia/gpus/0000:41:00.0/information", "96.00.5e", "96.00.30"),
        "gpu.vbios",
        &["0000:41:00.0", "newer VBIOS"],
    ),
    fails(
        "a clock an hour ahead",
        |h| h.network.clock = Probe::Answered(3600),
        "clock.offset",
        &["60 min ahead", "timesyncd"],
    ),
    fails(
        "a clock a day behind",
        |h| h.network.clock = Probe::Answered(-86_400),
        "clock.offset",
        &["24 h behind"],
    ),
    warns(
        "a clock half a minute ahead",
        |h| h.network.clock = Probe::Answered(30),
        "clock.offset",
        &["30 s ahead"],
    ),
    fails(
        "no collateral",
        |h| h.network.collateral = Probe::Failed("timed out".into()),
        "collateral.reach",
        &["timed out", "over HTTPS"],
    ),
    fails("a full disk", |h| h.disk = 1 << 30, "disk.free", &["1.0 GiB", "20.0 GiB in /var/lib/cocoon"]),
    fails(
        "a taken port",
        |h| h.taken = vec![PORT.parse().expect("an address")],
        "ports.free",
        &[PORT, "ss -ltnp 'sport = :8083'"],
    ),
    fails(
        "no chain",
        |h| h.network.chain = Probe::Failed("connection refused".into()),
        "chain.reach",
        &["connection refused"],
    ),
    fails(
        "an empty wallet",
        |h| h.network.wallet = Probe::Answered(0),
        "wallet.balance",
        &["0 TON", "send some TON"],
    ),
    warns(
        "a poor wallet",
        |h| h.network.wallet = Probe::Answered(1_000),
        "wallet.balance",
        &["0.000001 TON"],
    ),
];

const TDX: &[Break] = &[
    fails(
        "TDX off in the BIOS",
        |h| {
            h.files.file("/sys/module/kvm_intel/parameters/tdx", "N\n");
            h.log = Some("Linux version 6.16.3\nx86/tme: enabled by BIOS\n".into());
        },
        "bios.tee",
        &["no private KeyIDs", "Trust Domain Extensions"],
    ),
    fails(
        "TME off in the BIOS",
        |h| {
            h.files.file("/sys/module/kvm_intel/parameters/tdx", "N\n");
            h.log = Some("Linux version 6.16.3\nx86/tme: not enabled by BIOS\n".into());
        },
        "bios.tee",
        &["TME", "left it off"],
    ),
    fails(
        "an old kernel",
        |h| {
            h.files.remove("/sys/module/kvm_intel/parameters/tdx");
            h.files.file("/proc/sys/kernel/osrelease", "6.8.0-64-generic\n");
            h.log = Some("Linux version 6.8.0\n".into());
        },
        "kernel.version",
        &["6.8.0-64-generic", "6.16"],
    ),
    fails(
        "hibernation",
        |h| {
            h.files.file("/sys/module/kvm_intel/parameters/tdx", "N\n");
            h.files.edit("/proc/cmdline", "nohibernate ", "");
            h.log = Some(
                "Linux version 6.16.3\nvirt/tdx: BIOS enabled: private KeyID range [64, 128)\n\
                 virt/tdx: initialization failed: Hibernation support is enabled\n"
                    .into(),
            );
        },
        "kernel.command-line",
        &["nohibernate"],
    ),
    fails(
        "the IOMMU off on the command line",
        |h| h.files.edit("/proc/cmdline", "intel_iommu=on", "intel_iommu=off"),
        "kernel.command-line",
        &["intel_iommu=off"],
    ),
    fails(
        "KVM without TDX",
        |h| h.files.file("/sys/module/kvm_intel/parameters/tdx", "N\n"),
        "kernel.tee",
        &["options kvm_intel tdx=1"],
    ),
    fails(
        "a TDX module that failed",
        |h| {
            h.files.file("/sys/module/kvm_intel/parameters/tdx", "N\n");
            h.log.as_mut().expect("it has one").push_str("virt/tdx: module initialization failed (-12)\n");
        },
        "kernel.tee",
        &["the kernel said: virt/tdx: module initialization failed (-12)"],
    ),
    fails("no kvm_intel", |h| h.files.remove("/sys/module/kvm_intel"), "kernel.tee", &["modprobe kvm_intel"]),
    fails("no quote service", |h| h.files.remove("/proc/2000"), "quote.service", &["tdx-qgs"]),
    fails(
        "a quote service elsewhere",
        |h| h.files.file("/etc/qgs.conf", "#port = 4050\n"),
        "quote.service",
        &["port = 4050"],
    ),
    fails(
        "a quote service's socket that is closed",
        |h| {
            h.question.quote_service = QuoteService::Unix("/run/qgs.socket".into());
            h.closed.insert("/run/qgs.socket".into(), ErrorKind::ConnectionRefused);
        },
        "quote.service",
        &["nobody listens"],
    ),
    fails(
        "a virtual machine",
        |h| h.files.edit("/proc/cpuinfo", "vmx tme", "vmx tme hypervisor"),
        "machine.bare-metal",
        &["rent bare metal"],
    ),
    fails("an older Xeon", |h| h.files.edit("/proc/cpuinfo", "207", "106"), "cpu.tee", &["another machine"]),
];

const SNP: &[Break] = &[
    fails(
        "SMEE off in the BIOS",
        |h| h.files.edit("/proc/cpuinfo", " sme sev sev_es sev_snp", ""),
        "bios.tee",
        &["SMEE"],
    ),
    fails("SNP off in the BIOS", |h| h.files.edit("/proc/cpuinfo", " sev_snp", ""), "bios.tee", &["SEV-SNP"]),
    fails(
        "no RMP table",
        |h| {
            h.log = Some(
                "Linux version\nSEV-SNP: Memory for the RMP table has not been reserved by BIOS\n".into(),
            )
        },
        "bios.tee",
        &["RMP"],
    ),
    fails(
        "no ASIDs",
        |h| h.files.file("/sys/fs/cgroup/misc.capacity", "sev 506\nsev_es 0\n"),
        "bios.tee",
        &["ASID Space Limit"],
    ),
    fails(
        "an old kernel",
        |h| h.files.file("/proc/sys/kernel/osrelease", "6.1.0-37-amd64\n"),
        "kernel.version",
        &["6.11"],
    ),
    fails(
        "iommu=pt",
        |h| h.files.file("/proc/cmdline", "quiet iommu=pt\n"),
        "kernel.command-line",
        &["passthrough", "take iommu=pt"],
    ),
    fails(
        "KVM without SNP",
        |h| h.files.file("/sys/module/kvm_amd/parameters/sev_snp", "N\n"),
        "kernel.tee",
        &["sev_snp=1"],
    ),
    fails("no /dev/sev", |h| h.files.remove("/dev/sev"), "sev.device", &["ccp"]),
    fails(
        "a firmware without room for the kernel's hashes",
        |h| {
            let mut file = firmware(false, true);
            let at = file.windows(8).position(|w| w == [0, 0x0c, 0x81, 0, 0, 4, 0, 0]).expect("it is there");
            file[at..at + 8].fill(0);
            h.files.file("/opt/image/firmware.fd", file);
        },
        "firmware.abilities",
        &["would not be measured"],
    ),
];

const EMULATION: &[Break] = &[
    fails(
        "old QEMU",
        |h| h.qemu.as_mut().expect("it has one").version = Version(7, 2, 0),
        "qemu.version",
        &["10.0"],
    ),
    fails(
        "no swtpm",
        |h| h.swtpm = Err("swtpm cannot be started".into()),
        "emulation.swtpm",
        &["apt install swtpm"],
    ),
    fails("a full disk", |h| h.disk = 0, "disk.free", &["0.0 GiB"]),
    fails(
        "another architecture",
        |h| h.files.file("/proc/cpuinfo", "CPU part : 0xd0c\n"),
        "cpu.tee",
        &["x86-64"],
    ),
];

#[test]
fn each_flaw_is_the_one_that_the_verdict_names() {
    type Build = fn() -> Host;
    let kinds: [(Build, Vec<&Break>); 4] = [
        (|| asked_for(Tee::Tdx, tdx_h100()), ANY.iter().chain(TDX).collect()),
        (|| asked_for(Tee::Snp, snp_h100()), ANY.iter().chain(SNP).collect()),
        (laptop, EMULATION.iter().collect()),
        (cloud_vm, EMULATION.iter().collect()),
    ];
    for (build, breaks) in kinds {
        for Break { name, apply, id, result, words } in breaks {
            let mut host = build();
            apply(&mut host);
            let report = report(&host);
            let check = report.check(id).unwrap_or_else(|| panic!("{name}: no check {id}"));
            assert_eq!(check.result, *result, "{name}: {check:#?}");
            let (failed, warned) = (&report.verdict.failed, &report.verdict.warned);
            match result {
                Outcome::Fail => {
                    assert_eq!((failed.as_slice(), warned.as_slice()), (&[*id][..], &[][..]), "{name}")
                }
                _ => assert_eq!((failed.as_slice(), warned.as_slice()), (&[][..], &[*id][..]), "{name}"),
            }
            assert_eq!(report.verdict.ready, *result == Outcome::Warn, "{name}");
            assert!(report.verdict.text.contains(id), "{name}: {}", report.verdict.text);
            let said = format!("{} {} {} {:?}", check.expected, check.found, check.reason, check.remedy);
            for word in *words {
                assert!(said.contains(word), "{name}: no {word:?} in {said}");
            }
        }
    }
}

#[test]
fn every_check_can_fail_or_warn() {
    let broken: BTreeSet<&str> =
        [ANY, TDX, SNP, EMULATION].iter().flat_map(|breaks| breaks.iter().map(|b| b.id)).collect();
    // `told.rs` breaks images: only a configuration names one.
    for check in report(&tdx_h100()).checks.iter().filter(|check| !check.id.starts_with("image.")) {
        assert!(broken.contains(check.id), "no test breaks {}", check.id);
    }
}

#[test]
fn whatever_does_not_go_well_says_why_and_what_to_do() {
    for host in [tdx_h100(), snp_h100(), laptop()] {
        let mut host = host;
        host.network = Default::default();
        for check in report(&host).checks {
            assert_eq!(
                check.remedy.is_some(),
                matches!(check.result, Outcome::Fail | Outcome::Warn),
                "{check:?}"
            );
            if matches!(check.result, Outcome::Skipped | Outcome::NotApplicable) {
                assert!(!check.reason.is_empty(), "{check:?}");
            }
        }
    }
}

#[test]
fn what_blocks_first_is_named_first_and_what_follows_is_not_said_again() {
    let mut host = tdx_h100();
    host.files.edit("/proc/cpuinfo", "vmx tme", "vmx tme hypervisor");
    host.files.remove("/sys/module/kvm_intel");
    host.files.remove("/dev/kvm");
    host.question.tee = Some(Tee::Tdx);
    let report = report(&host);
    assert_eq!(report.verdict.failed, ["machine.bare-metal", "kvm.device"]);
    assert_eq!(report.verdict.next, "mend machine.bare-metal, then cocoon host doctor again");
    let follows = report.check("kernel.tee").expect("it is there");
    assert_eq!(
        (follows.result, follows.reason.as_str()),
        (Outcome::Skipped, "machine.bare-metal comes first")
    );
}

#[test]
fn what_nobody_can_see_is_not_called_good() {
    let mut host = tdx_h100();
    host.log = None;
    host.files.file("/sys/module/kvm_intel/parameters/tdx", "N\n");
    host.network = Default::default();
    let report = report(&host);
    for id in ["bios.tee", "clock.offset", "collateral.reach", "chain.reach", "wallet.balance"] {
        assert_eq!(report.check(id).expect("it is there").result, Outcome::Skipped, "{id}");
    }
    assert_eq!(report.verdict.failed, ["kernel.tee"]);
}

/// Programs read this form: a change here is a change for them.
#[test]
fn the_json_form_is_stable() {
    let json: serde_json::Value = serde_json::from_str(&report(&snp_h100()).json()).expect("it is JSON");
    // Sorted: whether serde_json keeps an object's order is for other crates to choose.
    let keys = |value: &serde_json::Value| {
        let mut keys: Vec<String> = value.as_object().expect("an object").keys().cloned().collect();
        keys.sort();
        keys
    };
    assert_eq!(keys(&json), ["checks", "format", "tee", "tee_choice", "verdict"]);
    assert_eq!(
        (&json["format"], &json["tee"], &json["tee_choice"]),
        (&1.into(), &"snp".into(), &"cpu".into())
    );
    assert_eq!(keys(&json["verdict"]), ["failed", "next", "ready", "text", "warned"]);
    let checks = json["checks"].as_array().expect("a list");
    for check in checks {
        assert_eq!(keys(check), ["expected", "found", "group", "id", "reason", "remedy", "result"]);
        assert!(
            ["ok", "warn", "fail", "skipped", "not-applicable"]
                .contains(&check["result"].as_str().expect("text"))
        );
    }
    let ids: Vec<&str> = checks.iter().map(|c| c["id"].as_str().expect("text")).collect();
    assert_eq!(
        ids,
        [
            "machine.bare-metal",
            "cpu.tee",
            "bios.tee",
            "kernel.version",
            "kernel.command-line",
            "kernel.tee",
            "kvm.device",
            "sev.device",
            "iommu.on",
            "vfio.module",
            "vfio.iommufd",
            "vsock.device",
            "memory.free",
            "memory.hugepages",
            "limits.memlock",
            "qemu.version",
            "qemu.objects",
            "emulation.swtpm",
            "image.manifest",
            "image.profiles",
            "firmware.abilities",
            "firmware.known",
            "gpu.present",
            "gpu.group",
            "gpu.free",
            "gpu.cc-mode",
            "gpu.vbios",
            "clock.offset",
            "quote.service",
            "collateral.reach",
            "disk.free",
            "ports.free",
            "chain.reach",
            "wallet.balance",
        ]
    );
    let version = checks.iter().find(|c| c["id"] == "kernel.version").expect("it is there");
    assert_eq!(
        *version,
        serde_json::json!({
            "id": "kernel.version", "group": "kernel", "result": "ok", "found": "6.12.41+deb13-amd64",
            "expected": "at least 6.11", "reason": "the host's side of AMD SEV-SNP is in it", "remedy": null,
        })
    );
}
