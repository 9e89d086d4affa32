//! Devices by the names that the launcher gives them, found in sysfs. A name must be there exactly once.

use crate::failure::{Explain, Failure, Outcome};
use std::fs::{read_dir, read_to_string};
use std::path::{Path, PathBuf};

/// Bytes of a block, of data and of hash trees alike.
pub(crate) const BLOCK: u64 = 4096;
/// The virtio specification's number of a socket device (section 5).
const VIRTIO_VSOCK: &str = "0x0013";

/// A read-only virtio disk.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Disk {
    /// As device-mapper takes it: `254:0`.
    pub(crate) number: String,
    /// `/dev/vda`.
    pub(crate) path: PathBuf,
    /// Whole blocks of [`BLOCK`] bytes.
    pub(crate) blocks: u64,
}

/// The disk with this serial number. `sys` is `/sys`, except in tests.
pub(crate) fn disk(sys: &Path, serial: &str) -> Outcome<Disk> {
    let folder = only(&sys.join("block"), "vd", "serial", serial)?.ok_or_else(|| {
        Failure::new(format!("there is no disk with serial {serial}; the launcher must attach it"))
    })?;
    if attribute(&folder, "ro")? != "1" {
        return Err(Failure::new(format!(
            "the disk {serial} is writable; the launcher must attach it read-only"
        )));
    }
    let sectors: u64 = attribute(&folder, "size")?
        .parse()
        .explain(format_args!("the size of disk {serial}"), "use the image's kernel")?;
    let name = folder.file_name().expect("it was listed in a folder");
    Ok(Disk { number: attribute(&folder, "dev")?, path: Path::new("/dev").join(name), blocks: sectors / 8 })
}

/// The character device of the virtio-serial port with this name, if there is one.
pub(crate) fn port(sys: &Path, name: &str) -> Outcome<Option<PathBuf>> {
    let folder = only(&sys.join("class/virtio-ports"), "vport", "name", name)?;
    Ok(folder.map(|folder| Path::new("/dev").join(folder.file_name().expect("it was listed in a folder"))))
}

/// Whether the machine has a virtio socket device.
pub(crate) fn has_vsock(sys: &Path) -> Outcome<bool> {
    Ok(matching(&sys.join("bus/virtio/devices"), "virtio", "device", VIRTIO_VSOCK)?.next().is_some())
}

/// Names of the network interfaces other than the loopback, in order.
pub(crate) fn network_cards(sys: &Path) -> Outcome<Vec<String>> {
    let entries = children(&sys.join("class/net"), "")?;
    let names = entries.iter().filter_map(|entry| entry.file_name()?.to_str());
    Ok(names.filter(|name| *name != "lo").map(str::to_owned).collect())
}

/// An attribute's text, without its line end.
pub(crate) fn attribute(folder: &Path, name: &str) -> Outcome<String> {
    let path = folder.join(name);
    let text = read_to_string(&path).explain(path.display(), "use the image's kernel")?;
    Ok(text.trim_end().to_owned())
}

fn only(folder: &Path, prefix: &str, name: &str, value: &str) -> Outcome<Option<PathBuf>> {
    let mut found = matching(folder, prefix, name, value)?;
    match (found.next(), found.next()) {
        (first, None) => Ok(first),
        (_, Some(_)) => Err(Failure::new(format!(
            "several devices in {} have the {name} {value}; the launcher must give it to one",
            folder.display()
        ))),
    }
}

fn matching(folder: &Path, prefix: &str, name: &str, value: &str) -> Outcome<impl Iterator<Item = PathBuf>> {
    let (name, value) = (name.to_owned(), value.to_owned());
    let entries = children(folder, prefix)?.into_iter();
    Ok(entries.filter(move |entry| attribute(entry, &name).is_ok_and(|found| found == value)))
}

/// A folder's entries with this prefix, in order of their names; none if there is no such folder.
pub(crate) fn children(folder: &Path, prefix: &str) -> Outcome<Vec<PathBuf>> {
    let listed = match read_dir(folder) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        listed => {
            listed.and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>, _>>())
        }
    };
    let mut entries = listed.explain(folder.display(), "use the image's kernel")?;
    let named = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
    };
    entries.retain(named);
    entries.sort();
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tempfile::TempDir;

    /// A sysfs with these files.
    fn sys(files: &[(&str, &str)]) -> TempDir {
        let root = tempfile::tempdir().expect("a folder");
        for (path, text) in files {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().expect("it has one")).expect("a folder");
            std::fs::write(path, text).expect("a file");
        }
        root
    }

    const VDB: [(&str, &str); 4] = [
        ("block/vdb/serial", "cocoon-config"),
        ("block/vdb/ro", "1\n"),
        ("block/vdb/size", "24\n"),
        ("block/vdb/dev", "254:16\n"),
    ];

    #[test]
    fn a_disk_is_found_by_its_serial_among_others() {
        let mut files = VDB.to_vec();
        files.extend([
            ("block/vda/serial", "cocoon-root"),
            ("block/dm-0/serial", "cocoon-config"),
            ("block/vdc/ro", "1"),
        ]);
        let found = disk(sys(&files).path(), "cocoon-config");
        assert_eq!(found, Ok(Disk { number: "254:16".into(), path: "/dev/vdb".into(), blocks: 3 }));
    }

    #[test]
    fn a_disk_that_is_missing_writable_or_there_twice_is_refused() {
        let changed = |index: usize, text| {
            let mut files = VDB.to_vec();
            files[index].1 = text;
            files
        };
        let twice = [VDB.to_vec(), vec![("block/vdc/serial", "cocoon-config")]].concat();
        for (files, word) in [
            (changed(0, "cocoon-config2"), "no disk"),
            (changed(1, "0\n"), "writable"),
            (changed(2, "many\n"), "size"),
            (VDB[..3].to_vec(), "dev"),
            (twice, "several"),
            (vec![], "no disk"),
        ] {
            let error = disk(sys(&files).path(), "cocoon-config").expect_err(word).to_string();
            assert!(error.contains(word), "{error}");
        }
    }

    #[test]
    fn a_port_is_found_by_its_whole_name_and_never_guessed() {
        let one = ("class/virtio-ports/vport1p1/name", "cocoon.log\n");
        let other = ("class/virtio-ports/vport1p2/name", "cocoon.logs\n");
        let found = port(sys(&[one, other]).path(), "cocoon.log");
        assert_eq!(found, Ok(Some("/dev/vport1p1".into())));
        assert_eq!(port(sys(&[other]).path(), "cocoon.log"), Ok(None));
        assert_eq!(port(sys(&[]).path(), "cocoon.log"), Ok(None));
        let twice = [one, ("class/virtio-ports/vport2p1/name", "cocoon.log\n")];
        assert!(port(sys(&twice).path(), "cocoon.log").is_err());
    }

    #[test]
    fn a_socket_device_and_network_cards_are_told_apart_from_the_rest() {
        let disk = ("bus/virtio/devices/virtio0/device", "0x0002\n");
        assert_eq!(has_vsock(sys(&[disk]).path()), Ok(false));
        let socket = ("bus/virtio/devices/virtio1/device", "0x0013\n");
        assert_eq!(has_vsock(sys(&[disk, socket]).path()), Ok(true));
        let cards = sys(&[("class/net/lo/x", ""), ("class/net/eth1/x", ""), ("class/net/eth0/x", "")]);
        assert_eq!(network_cards(cards.path()), Ok(vec!["eth0".into(), "eth1".into()]));
    }
}
