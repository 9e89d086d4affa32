//! The kernel modules that a guest loads: a closed list, in the order of loading. After it the guest loads no other.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cocoon_image::manifest::Variant;

use crate::groups::KERNEL;
use crate::tree::Tree;
use crate::{Error, deb, elf};

/// No module is longer than this many bytes, unpacked.
const MODULE_MAX: u64 = 32 << 20;

/// Every image's modules, each with the reason.
const ALWAYS: [(&str, &str); 14] = [
    ("virtio_blk", "the disks: root, configuration, weights"),
    ("erofs", "the root's file system"),
    ("dm-mod", "device mapper, for dm-verity"),
    ("dm-bufio", "dm-verity reads its tree through it"),
    ("reed_solomon", "dm-verity is linked against it; no error correction is configured"),
    ("dm-verity", "every block of root and weights is checked when it is read"),
    ("configfs", "the folder through which reports are asked for"),
    ("tsm_report", "the TEE's reports"),
    ("tdx-guest", "TDX: quotes and runtime registers; does not load elsewhere, which is fine"),
    ("sev-guest", "SEV-SNP: reports; does not load elsewhere, which is fine"),
    ("vsock", "the way to the host that is no network"),
    ("vmw_vsock_virtio_transport_common", "vsock over virtio"),
    ("vmw_vsock_virtio_transport", "vsock over virtio, the guest's side"),
    ("nf_tables", "the firewall, with nothing but what is built into it: no connection tracking"),
];

/// What the development image has beside them.
const DEVELOPMENT: [(&str, &str); 3] = [
    ("failover", "virtio_net is linked against it"),
    ("net_failover", "virtio_net is linked against it"),
    ("virtio_net", "a network card, where the host has no vsock: one forwarded port"),
];

/// A module, unpacked; its signature stands at its end.
pub(crate) struct Module {
    pub(crate) name: &'static str,
    pub(crate) content: Vec<u8>,
}

/// The modules of an image in the order of loading.
///
/// # Errors
/// If one is not in the kernel's packages, or needs one that is not loaded before it.
pub(crate) fn list(variant: Variant, guest: &Tree) -> Result<Vec<Module>, Error> {
    let folder = guest.root().join(format!("usr/lib/modules/{KERNEL}/kernel"));
    let mut available = BTreeMap::new();
    find(&folder, &mut available)?;
    let more = if variant == Variant::Development { DEVELOPMENT.as_slice() } else { &[] };
    let names = || ALWAYS.iter().chain(more).map(|(name, _)| *name);
    let modules = names().map(|name| {
        let path = available.get(&name.replace('-', "_"));
        let path =
            path.ok_or_else(|| Error::Contents(format!("the kernel {KERNEL} has no module {name}")))?;
        Ok(Module { name, content: unpack(path)? })
    });
    let modules = modules.collect::<Result<Vec<_>, Error>>()?;
    check_order(&modules, |name| available.contains_key(name))?;
    Ok(modules)
}

/// Each module stands behind those that it needs; what is no module of this kernel is built into it.
fn check_order(modules: &[Module], is_module: impl Fn(&str) -> bool) -> Result<(), Error> {
    let mut loaded = std::collections::BTreeSet::new();
    for Module { name, content } in modules {
        let depends = elf::module_depends(content)
            .map_err(|why| Error::Contents(format!("the module {name}: {why}")))?;
        if let Some(missing) = depends.iter().find(|needed| is_module(needed) && !loaded.contains(*needed)) {
            return Err(Error::Contents(format!("the module {name} needs {missing} before it (modules.rs)")));
        }
        loaded.insert(name.replace('-', "_"));
    }
    Ok(())
}

/// All modules of the kernel by name, with `_` for `-`.
fn find(folder: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<(), Error> {
    for entry in std::fs::read_dir(folder).map_err(Error::io("read", folder))? {
        let path = entry.map_err(Error::io("read", folder))?.path();
        if path.is_dir() {
            find(&path, found)?;
        } else if let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".ko.xz")) {
            found.insert(name.replace('-', "_"), path);
        }
    }
    Ok(())
}

fn unpack(path: &Path) -> Result<Vec<u8>, Error> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(Error::io("read", path))?;
    let mut content = Vec::new();
    let read =
        deb::unxz(file).take(MODULE_MAX + 1).read_to_end(&mut content).map_err(Error::io("unpack", path))?;
    if read as u64 > MODULE_MAX {
        return Err(Error::Contents(format!("{} has more than {MODULE_MAX} bytes", path.display())));
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn production_has_no_network_card_and_no_module_twice() {
        let always: std::collections::BTreeSet<_> = ALWAYS.iter().map(|(name, _)| *name).collect();
        assert_eq!(always.len(), ALWAYS.len());
        assert!(always.iter().all(|name| !name.contains("net")));
        assert!(DEVELOPMENT.iter().all(|(name, _)| !always.contains(name)));
    }
}
