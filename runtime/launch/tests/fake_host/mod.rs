//! A machine that is a folder: sysfs, procfs and `/dev` as a kernel would show them, with a kernel behind the few files
//! that are written. Devices leave and take drivers as they do on a real one.

#![allow(dead_code, reason = "each test file uses its part of it")]

pub(crate) mod hosts;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use cocoon_launch::gpu::{CcError, CcMode, CcTool, PciAddress};
use cocoon_launch::root::{Files, Root};

/// A GPU's or switch's modes; `None`: it has no such mode.
pub(crate) type ModePair = (Option<CcMode>, Option<bool>);

pub(crate) struct FakeHost {
    folder: tempfile::TempDir,
    root: Root,
    /// Every write and every mode that was set, as it was asked for.
    log: RefCell<Vec<String>>,
    /// So many more writes go well; then the process is as good as dead.
    fuse: RefCell<Option<usize>>,
    modes: RefCell<BTreeMap<PciAddress, ModePair>>,
    /// The driver that takes a device by itself.
    natural: RefCell<BTreeMap<String, String>>,
    next_vfio: RefCell<u32>,
}

/// A PCI device to build.
pub(crate) struct Card<'c> {
    pub(crate) address: &'c str,
    pub(crate) vendor: &'c str,
    pub(crate) device: &'c str,
    pub(crate) class: &'c str,
    pub(crate) driver: Option<&'c str>,
    pub(crate) group: Option<u32>,
    pub(crate) resource: &'c str,
}

pub(crate) const H100_BARS: &str = "0x000020e042000000 0x000020e042ffffff 0x000000000014220c\n\
    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
    0x000020c000000000 0x000020dfffffffff 0x000000000014220c\n\
    0x0000000000000000 0x0000000000000000 0x0000000000000000\n\
    0x000020e040000000 0x000020e041ffffff 0x000000000014220c\n\
    0x0000000000000000 0x0000000000000000 0x0000000000000000\n";

impl Card<'_> {
    pub(crate) fn h100(address: &'static str, group: u32) -> Self {
        Card {
            address,
            vendor: "0x10de",
            device: "0x2330",
            class: "0x030200",
            driver: Some("nvidia"),
            group: Some(group),
            resource: H100_BARS,
        }
    }

    pub(crate) fn nvswitch(address: &'static str, group: u32) -> Self {
        Card {
            device: "0x22a3",
            class: "0x068000",
            driver: Some("nvidia-nvswitch"),
            resource: "0x0000000090000000 0x0000000091ffffff 0x0000000000140204\n",
            ..Self::h100(address, group)
        }
    }
}

impl FakeHost {
    pub(crate) fn empty() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = Root::at(folder.path());
        Self {
            folder,
            root,
            log: RefCell::default(),
            fuse: RefCell::default(),
            modes: RefCell::default(),
            natural: RefCell::default(),
            next_vfio: RefCell::default(),
        }
    }

    pub(crate) fn root(&self) -> &Root {
        &self.root
    }

    pub(crate) fn file(&self, path: &str, text: impl AsRef<[u8]>) {
        let path = self.root.path(path);
        std::fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder");
        std::fs::write(path, text).expect("it can be written");
    }

    pub(crate) fn directory(&self, path: &str) {
        std::fs::create_dir_all(self.root.path(path)).expect("a folder");
    }

    pub(crate) fn symlink(&self, path: &str, target: &str) {
        let path = self.root.path(path);
        std::fs::create_dir_all(path.parent().expect("a link has a folder")).expect("a folder");
        let _ = std::fs::remove_file(&path);
        std::os::unix::fs::symlink(target, path).expect("a link");
    }

    pub(crate) fn remove(&self, path: &str) {
        let path = self.root.path(path);
        match path.is_dir() && !path.is_symlink() {
            true => std::fs::remove_dir_all(path).expect("it was there"),
            false => std::fs::remove_file(path).expect("it was there"),
        }
    }

    /// Replaces text in a file; the text must be there.
    pub(crate) fn edit(&self, path: &str, from: &str, to: &str) {
        let text = self.text(path).expect("it is there");
        assert!(text.contains(from), "{path} holds no {from:?}");
        self.file(path, text.replace(from, to));
    }

    pub(crate) fn driver(&self, name: &str) {
        self.directory(&format!("/sys/bus/pci/drivers/{name}"));
    }

    pub(crate) fn card(&self, card: &Card) {
        let folder = format!("/sys/bus/pci/devices/{}", card.address);
        for (name, text) in [
            ("vendor", card.vendor),
            ("device", card.device),
            ("class", card.class),
            ("numa_node", "0"),
            ("driver_override", "(null)"),
            ("resource", card.resource),
        ] {
            self.file(&format!("{folder}/{name}"), format!("{text}\n"));
        }
        if let Some(group) = card.group {
            self.symlink(&format!("{folder}/iommu_group"), &format!("../../../kernel/iommu_groups/{group}"));
            self.directory(&format!("/sys/kernel/iommu_groups/{group}/devices/{}", card.address));
        }
        if let Some(driver) = card.driver {
            self.natural.borrow_mut().insert(card.address.into(), driver.into());
            self.driver(driver);
            self.bind(card.address, driver);
        }
        if card.vendor == "0x10de" && card.class != "0x040300" {
            let switch = card.class == "0x068000";
            let cc = (!switch).then_some(CcMode::Off);
            self.modes.borrow_mut().insert(address(card.address), (cc, Some(false)));
        }
    }

    pub(crate) fn set_modes(&self, device: &str, modes: ModePair) {
        self.modes.borrow_mut().insert(address(device), modes);
    }

    pub(crate) fn modes(&self) -> BTreeMap<PciAddress, ModePair> {
        self.modes.borrow().clone()
    }

    /// NVIDIA's driver describes a GPU.
    pub(crate) fn describe(&self, device: &str, minor: u32) {
        self.file(
            &format!("/proc/driver/nvidia/gpus/{device}/information"),
            format!(
                "Model: \t\t NVIDIA H100 80GB HBM3\nVideo BIOS: \t 96.00.5e.00.01\nDevice Minor: \t {minor}\n"
            ),
        );
    }

    /// A process has a file open.
    pub(crate) fn process(&self, pid: u32, name: &str, file: &str) {
        self.file(&format!("/proc/{pid}/comm"), format!("{name}\n"));
        self.symlink(&format!("/proc/{pid}/fd/7"), file);
        self.symlink(&format!("/proc/{pid}/fd/0"), "/dev/null");
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.log.borrow().clone()
    }

    /// After so many writes the process is killed: nothing it writes arrives any more.
    pub(crate) fn dies_after(&self, writes: usize) {
        *self.fuse.borrow_mut() = Some(writes);
    }

    /// A new process.
    pub(crate) fn lives_again(&self) {
        *self.fuse.borrow_mut() = None;
    }

    /// The drivers, overrides and modes of all devices: what must be as before.
    pub(crate) fn state(&self) -> BTreeMap<String, (Option<String>, String, Option<ModePair>)> {
        let names = self.names("/sys/bus/pci/devices").expect("a bus");
        names
            .into_iter()
            .map(|name| {
                let folder = format!("/sys/bus/pci/devices/{name}");
                let pinned = self.word(&format!("{folder}/driver_override")).unwrap_or_default();
                let modes = self.modes.borrow().get(&address(&name)).copied();
                (name, (self.link_name(&format!("{folder}/driver")), pinned, modes))
            })
            .collect()
    }

    fn act(&self, what: String) -> io::Result<()> {
        if let Some(left) = self.fuse.borrow_mut().as_mut() {
            if *left == 0 {
                return Err(io::Error::other("killed"));
            }
            *left -= 1;
        }
        self.log.borrow_mut().push(what);
        Ok(())
    }

    fn bind(&self, device: &str, driver: &str) {
        let folder = format!("/sys/bus/pci/devices/{device}");
        self.symlink(&format!("{folder}/driver"), &format!("../../drivers/{driver}"));
        self.file(&format!("/sys/bus/pci/drivers/{driver}/unbind"), "");
        if driver == "vfio-pci" {
            let number = {
                let mut next = self.next_vfio.borrow_mut();
                *next += 1;
                *next - 1
            };
            self.directory(&format!("{folder}/vfio-dev/vfio{number}"));
            self.file(&format!("/dev/vfio/devices/vfio{number}"), "");
            let group = self.link_name(&format!("{folder}/iommu_group")).expect("vfio wants a group");
            self.file(&format!("/dev/vfio/{group}"), "");
        }
    }

    fn unbind(&self, device: &str) -> io::Result<()> {
        let folder = format!("/sys/bus/pci/devices/{device}");
        if self.link_name(&format!("{folder}/driver")).is_none() {
            return Err(io::Error::from_raw_os_error(19)); // ENODEV
        }
        self.remove(&format!("{folder}/driver"));
        if self.exists(&format!("{folder}/vfio-dev")) {
            for name in self.names(&format!("{folder}/vfio-dev"))? {
                self.remove(&format!("/dev/vfio/devices/{name}"));
            }
            self.remove(&format!("{folder}/vfio-dev"));
        }
        Ok(())
    }

    fn probe(&self, device: &str) {
        let folder = format!("/sys/bus/pci/devices/{device}");
        let pinned = self.word(&format!("{folder}/driver_override")).filter(|word| word != "(null)");
        let natural = self.natural.borrow().get(device).cloned();
        let loaded = |name: &String| self.exists(&format!("/sys/bus/pci/drivers/{name}"));
        if let Some(driver) = pinned.or(natural).filter(loaded)
            && !self.exists(&format!("{folder}/driver"))
        {
            self.bind(device, &driver);
        }
    }

    fn set(&self, device: PciAddress, change: impl FnOnce(&mut ModePair)) -> Result<(), CcError> {
        let failed = |said: &str| CcError::Failed { device, arguments: "set".into(), said: said.into() };
        let driver = self.link_name(&format!("{}/driver", device.folder()));
        if driver.is_some_and(|driver| driver.starts_with("nvidia")) {
            return Err(failed("a driver still has it"));
        }
        let mut modes = self.modes.borrow_mut();
        let pair = modes.get_mut(&device).expect("a device of ours");
        change(pair);
        match *pair {
            (Some(CcMode::On), Some(true)) => Err(failed("CC and PPCIe exclude each other")),
            _ => Ok(()),
        }
    }

    fn mode_of(&self, device: PciAddress) -> ModePair {
        self.modes.borrow().get(&device).copied().unwrap_or_default()
    }
}

pub(crate) fn address(text: &str) -> PciAddress {
    text.parse().expect("an address")
}

fn unsupported(device: PciAddress) -> CcError {
    CcError::NotSupported { device, said: "not supported".into() }
}

impl Files for FakeHost {
    fn text(&self, path: &str) -> io::Result<String> {
        self.root.text(path)
    }

    fn names(&self, path: &str) -> io::Result<Vec<String>> {
        self.root.names(path)
    }

    fn link(&self, path: &str) -> io::Result<PathBuf> {
        self.root.link(path)
    }

    fn exists(&self, path: &str) -> bool {
        self.root.exists(path)
    }

    fn write(&self, path: &str, value: &str) -> io::Result<()> {
        self.act(format!("{value:?} > {path}"))?;
        let device =
            Path::new(path).parent().and_then(Path::file_name).and_then(|n| n.to_str()).unwrap_or_default();
        if path == "/sys/bus/pci/drivers_probe" {
            self.probe(value);
            return Ok(());
        }
        if let Some(folder) = path.strip_suffix("/driver/unbind") {
            assert_eq!(Path::new(folder).file_name().and_then(|n| n.to_str()), Some(value));
            return self.unbind(value);
        }
        assert!(path.ends_with("/driver_override"), "nobody should write to {path} ({device})");
        let pinned = value.trim();
        self.file(path, if pinned.is_empty() { "(null)\n".into() } else { format!("{pinned}\n") });
        Ok(())
    }
}

impl CcTool for FakeHost {
    fn cc_mode(&self, device: PciAddress) -> Result<CcMode, CcError> {
        self.mode_of(device).0.ok_or_else(|| unsupported(device))
    }

    fn ppcie_mode(&self, device: PciAddress) -> Result<bool, CcError> {
        self.mode_of(device).1.ok_or_else(|| unsupported(device))
    }

    fn set_cc_mode(&self, device: PciAddress, mode: CcMode) -> Result<(), CcError> {
        let failed = |e: io::Error| CcError::Failed { device, arguments: "cc".into(), said: e.to_string() };
        self.act(format!("cc {mode} > {device}")).map_err(failed)?;
        self.set(device, |pair| pair.0 = Some(mode))
    }

    fn set_ppcie_mode(&self, device: PciAddress, on: bool) -> Result<(), CcError> {
        let failed =
            |e: io::Error| CcError::Failed { device, arguments: "ppcie".into(), said: e.to_string() };
        self.act(format!("ppcie {on} > {device}")).map_err(failed)?;
        self.set(device, |pair| pair.1 = Some(on))
    }
}
