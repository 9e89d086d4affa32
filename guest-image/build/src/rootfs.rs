//! The root file system: the guest service and the libraries it is linked against, in EROFS, with a dm-verity tree behind.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::Path;

use cocoon_image::manifest::{Root, Verity};
use cocoon_image::{Sha256, verity};

use crate::tree::{Program, Tree};
use crate::{Error, elf};

/// Where the service is.
pub(crate) const SERVICE: &str = "usr/bin/cocoon-guest";
/// Empty folders to mount on.
const MOUNT_POINTS: [&str; 5] = ["dev", "proc", "run", "sys", "tmp"];
/// All libraries that a guest may have: another one is a decision, not an accident.
const LIBRARIES: [&str; 4] = ["ld-linux-x86-64.so.2", "libc.so.6", "libgcc_s.so.1", "libm.so.6"];
const LIBRARY_FOLDER: &str = "usr/lib/x86_64-linux-gnu";
/// Where programs look for their loader.
const LOADER: &str = "lib64/ld-linux-x86-64.so.2";
/// The file system's identity, the same in every image: it must not be made at random.
const UUID: &str = "c0c00000-0000-4000-8000-000000000000";
/// The largest image that is read into memory for its tree.
const IMAGE_MAX: u64 = 1 << 30;

/// The files of the root by path.
///
/// # Errors
/// If the service needs a library that is not on the list, or the packages do not have one.
pub(crate) fn contents(service: Vec<u8>, guest: &Tree) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let needs = elf::needs(&service).map_err(|why| Error::Contents(format!("cocoon-guest: {why}")))?;
    if needs.loader.as_deref() != Some("/lib64/ld-linux-x86-64.so.2") {
        return Err(Error::Contents(format!(
            "cocoon-guest asks for the loader {:?}, which the root has not",
            needs.loader
        )));
    }
    let mut files = BTreeMap::from([(SERVICE.to_owned(), service)]);
    let mut todo = needs.libraries;
    while let Some(library) = todo.pop() {
        let path = if library == "ld-linux-x86-64.so.2" {
            LOADER.to_owned()
        } else {
            format!("{LIBRARY_FOLDER}/{library}")
        };
        if files.contains_key(&path) {
            continue;
        }
        if !LIBRARIES.contains(&library.as_str()) {
            return Err(Error::Contents(format!(
                "a program of the root needs {library}, which is not on the list (rootfs.rs)"
            )));
        }
        let content = read(&guest.file(&format!("{LIBRARY_FOLDER}/{library}"))?)?;
        todo.extend(
            elf::needs(&content).map_err(|why| Error::Contents(format!("{library}: {why}")))?.libraries,
        );
        files.insert(path, content);
    }
    if !files.contains_key(LOADER) {
        files.insert(
            LOADER.to_owned(),
            read(&guest.file(&format!("{LIBRARY_FOLDER}/ld-linux-x86-64.so.2"))?)?,
        );
    }
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    std::fs::read(path).map_err(Error::io("read", path))
}

/// Writes the image of `files` to `target` and says what it is.
///
/// # Errors
/// If mkfs.erofs fails, or the image cannot be written.
pub(crate) fn build(files: &BTreeMap<String, Vec<u8>>, mkfs: &Program, target: &Path) -> Result<Root, Error> {
    // From a tar archive, not a folder: so no owner, umask, attribute or clock of this machine comes near it.
    let folder = target.parent().unwrap_or(Path::new("."));
    let tar = tempfile::NamedTempFile::new_in(folder).map_err(Error::io("write", target))?;
    write_tar(files, &tar).map_err(Error::io("write", target))?;
    let uuid = format!("-U{UUID}");
    let flags = ["-d0", "-b4096", "-T0", &uuid, "-x-1", "--all-root", "--tar=f"].map(std::ffi::OsStr::new);
    mkfs.run(&[flags.as_slice(), &[target.as_os_str(), tar.path().as_os_str()]].concat())?;
    append_tree(target)
}

fn write_tar(files: &BTreeMap<String, Vec<u8>>, out: &tempfile::NamedTempFile) -> std::io::Result<()> {
    let mut folders: std::collections::BTreeSet<&Path> = MOUNT_POINTS.iter().map(Path::new).collect();
    folders.extend(files.keys().flat_map(|path| Path::new(path).ancestors().skip(1)));
    folders.remove(Path::new(""));
    let mut tar = tar::Builder::new(out.as_file());
    let header = |kind, mode, size| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(size);
        header
    };
    for folder in folders {
        tar.append_data(&mut header(tar::EntryType::Directory, 0o755, 0), folder, std::io::empty())?;
    }
    for (path, content) in files {
        let mut header = header(tar::EntryType::Regular, 0o755, content.len() as u64);
        tar.append_data(&mut header, path, content.as_slice())?;
    }
    tar.finish()
}

/// Puts the dm-verity tree behind the file system.
fn append_tree(path: &Path) -> Result<Root, Error> {
    let write = || {
        let mut file = std::fs::File::options().read(true).append(true).open(path)?;
        let mut image = Vec::new();
        (&mut file).take(IMAGE_MAX + 1).read_to_end(&mut image)?;
        let whole = image.len().is_multiple_of(verity::BLOCK) && image.len() as u64 <= IMAGE_MAX;
        let Some(tree) = whole.then(|| verity::Tree::of(&image)).flatten() else { return Ok(None) };
        file.write_all(&tree.bytes)?;
        file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
        file.sync_all()?;
        image.extend_from_slice(&tree.bytes);
        let verity = Verity { root_hash: tree.root_hash, data_blocks: tree.data_blocks };
        Ok(Some(Root { sha256: Sha256::of(&image), size: image.len() as u64, verity }))
    };
    write().map_err(Error::io("write", path))?.ok_or_else(|| {
        Error::Contents(format!("mkfs.erofs made no image of whole blocks up to {IMAGE_MAX} bytes"))
    })
}
