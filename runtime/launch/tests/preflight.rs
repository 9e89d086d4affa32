//! One thing wrong at a time, on a machine that is a folder.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
};

use cocoon_launch::{
    plan::{Accelerator, Boot, Cid, Disks, Gpu, Gpus, Iommu, LaunchPlan, Memory, QuoteService, Tee, Vcpus},
    preflight::{ImageFile, Obstacle, Preflight},
    program::Program,
};
use ring::digest::{SHA256, digest};

/// A machine where all is well.
struct Machine {
    at: tempfile::TempDir,
    plans: Vec<LaunchPlan>,
    image: Vec<ImageFile>,
    listen: Vec<SocketAddr>,
    writes: u64,
}

impl Machine {
    fn new() -> Self {
        let at = tempfile::tempdir().expect("a folder");
        for device in ["dev/kvm", "dev/vhost-vsock", "dev/iommu", "dev/vfio/vfio"] {
            let path = at.path().join(device);
            fs::create_dir_all(path.parent().expect("it has one")).expect("writable");
            fs::write(path, "").expect("writable");
        }
        fs::create_dir_all(at.path().join("proc/1")).expect("writable");
        fs::write(at.path().join("proc/1/cmdline"), "init\0").expect("writable");
        let machine = Self { at, plans: Vec::new(), image: Vec::new(), listen: Vec::new(), writes: 0 };
        machine.program("qemu", "QEMU emulator version 11.1.3 (Debian)");
        let mut machine = Self { plans: vec![machine.plan("a", 20), machine.emulated("b")], ..machine };
        let kernel = machine.path("vmlinuz");
        let sha256 =
            digest(&SHA256, &fs::read(&kernel).expect("written")).as_ref().try_into().expect("32 bytes");
        machine.image = vec![ImageFile { path: kernel, size: 7, sha256 }];
        machine.listen = vec!["127.0.0.1:0".parse().expect("an address")];
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.at.path().join(name)
    }

    fn file(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, name).expect("writable");
        path
    }

    /// A program that says one line.
    fn program(&self, name: &str, says: &str) {
        let path = self.path(name);
        fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).expect("writable");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("ours");
    }

    fn plan(&self, name: &str, cid: u32) -> LaunchPlan {
        let gpu = Gpu { address: "17:00.0".parse().expect("an address"), aperture_mib: 131_072 };
        LaunchPlan {
            name: name.parse().expect("a name"),
            vcpus: Vcpus::try_from(4).expect("within limits"),
            memory: Memory::mib(8192).expect("within limits"),
            boot: Boot {
                firmware: self.file("OVMF.fd"),
                kernel: self.file("vmlinuz"),
                initrd: self.file("initrd.cpio"),
                command_line: "panic=-1".to_owned(),
            },
            disks: Disks {
                root: self.file("root.img"),
                config: self.file(&format!("{name}.img")),
                weights: self.file("weights.img"),
            },
            tee: Tee::Tdx {
                quote_service: QuoteService::Vsock { cid: 2, port: 4050 },
                cid: Cid::try_from(cid).expect("within limits"),
                gpus: Gpus { devices: vec![gpu], iommu: Iommu::Iommufd, mmio64_mib: None },
            },
        }
    }

    fn emulated(&self, name: &str) -> LaunchPlan {
        let mut plan = self.plan(name, 3);
        plan.boot.command_line = "cocoon.development".to_owned();
        let forward = "127.0.0.1:0".parse().expect("an address");
        plan.tee = Tee::Emulation { forward, accelerator: Accelerator::Tcg, console: false };
        plan
    }

    fn check(&self) -> Result<(), Vec<Obstacle>> {
        let qemu = Program::at(self.path("qemu"));
        Preflight {
            plans: &self.plans,
            image: &self.image,
            qemu: &qemu,
            swtpm: &qemu,
            listen: &self.listen,
            state: self.at.path(),
            writes: self.writes,
            root: self.at.path(),
        }
        .check()
    }

    /// The one obstacle's words.
    fn only(&self) -> String {
        let found = self.check().expect_err("something is wrong");
        assert_eq!(found.len(), 1, "{found:?}");
        found[0].to_string()
    }
}

#[test]
fn a_good_machine_is_let_pass() {
    assert_eq!(Machine::new().check(), Ok(()));
}

#[test]
fn each_missing_file_is_named_once_with_its_remedy() {
    for (name, what, remedy) in [
        ("OVMF.fd", "the firmware", "build the image again"),
        ("initrd.cpio", "the initrd", "cocoon image build"),
        ("root.img", "the root disk", "cocoon image build"),
        ("weights.img", "the weights disk", "it makes this file"),
    ] {
        let machine = Machine::new();
        fs::remove_file(machine.path(name)).expect("it is there");
        let words = machine.only();
        assert!(words.contains(what) && words.contains(remedy), "{words}");
    }
    let machine = Machine::new();
    fs::remove_file(machine.path("root.img")).expect("it is there");
    fs::create_dir(machine.path("root.img")).expect("writable");
    assert!(machine.only().contains("it is no file"));
}

#[test]
fn an_image_that_was_cut_or_changed_is_told_apart() {
    let machine = Machine::new();
    fs::write(machine.path("vmlinuz"), "vmlinu").expect("writable");
    assert!(machine.only().contains("has 6 bytes, and the image's manifest says 7"));
    fs::write(machine.path("vmlinuz"), "vmlinuX").expect("writable");
    let words = machine.only();
    assert!(words.contains("SHA-256") && words.contains("build the image again"), "{words}");
}

#[test]
fn each_missing_device_is_named_with_its_remedy_and_only_if_it_is_needed() {
    for (device, remedy) in [("dev/kvm", "BIOS"), ("dev/vhost-vsock", "vhost_vsock"), ("dev/iommu", "legacy")]
    {
        let mut machine = Machine::new();
        fs::remove_file(machine.path(device)).expect("it is there");
        let words = machine.only();
        assert!(words.contains(device) && words.contains(remedy), "{words}");
        machine.plans.remove(0);
        assert_eq!(machine.check(), Ok(()), "the emulation needs none");
    }
}

#[test]
fn a_port_that_is_taken_and_a_cid_in_use_are_named() {
    let mut machine = Machine::new();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("bound");
    machine.listen = vec![address];
    assert!(machine.only().contains(&address.to_string()));
    machine.listen.clear();
    let Tee::Emulation { forward, .. } = &mut machine.plans[1].tee else { panic!("it is emulated") };
    *forward = address;
    assert!(machine.only().contains(&address.to_string()));
    drop(taken);
    assert_eq!(machine.check(), Ok(()));

    let other = machine.path("proc/4711");
    fs::create_dir(&other).expect("writable");
    for (line, in_use) in [
        ("qemu\0-device\0vhost-vsock-pci,guest-cid=20,addr=0x6\0", true),
        ("qemu\0-device\0vhost-vsock-pci,guest-cid=200\0", false),
        ("qemu\0-device\0vhost-vsock-pci,guest-cid=2\0", false),
    ] {
        fs::write(other.join("cmdline"), line).expect("writable");
        if in_use {
            assert!(machine.only().contains("CID 20 is in use by process 4711"));
        } else {
            assert_eq!(machine.check(), Ok(()), "{line}");
        }
    }
}

#[test]
fn a_full_disk_is_said_before_it_is_full() {
    let mut machine = Machine::new();
    machine.writes = u64::MAX / 2;
    let words = machine.only();
    assert!(words.contains("MiB free") && words.contains("move `state`"), "{words}");
}

#[test]
fn an_old_or_broken_qemu_is_said() {
    let machine = Machine::new();
    for (says, words) in [
        ("QEMU emulator version 10.1.9", "is version 10.1; 10.2 or later"),
        ("QEMU emulator version 7.2.0", "is version 7.2"),
        ("Segmentation fault", "does not run: it says \"Segmentation fault\""),
        ("QEMU emulator version x", "does not run"),
    ] {
        machine.program("qemu", says);
        assert!(machine.only().contains(words), "{words}: {}", machine.only());
    }
    machine.program("qemu", "QEMU emulator version 10.2.0");
    assert_eq!(machine.check(), Ok(()));
    fs::remove_file(machine.path("qemu")).expect("it is there");
    let found = machine.check().expect_err("both programs are gone");
    assert!(
        matches!(&found[..], [Obstacle::NoQemu { .. }, Obstacle::Missing { what: "software TPM", .. }]),
        "{found:?}"
    );
}

#[test]
fn all_that_is_wrong_is_said_at_once() {
    let mut machine = Machine::new();
    machine.plans[1].disks.config = machine.plans[0].disks.config.clone();
    machine.writes = u64::MAX;
    for gone in ["dev/kvm", "OVMF.fd"] {
        fs::remove_file(machine.path(gone)).expect("it is there");
    }
    let found = machine.check().expect_err("much is wrong");
    assert_eq!(found.len(), 4, "{found:?}");
}
