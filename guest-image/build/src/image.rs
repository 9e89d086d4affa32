//! The image folder: kernel, initrd, root, command line, firmware, manifest.

use std::path::{Path, PathBuf};

use cocoon_image::Sha256;
use cocoon_image::manifest::{File, Files, MANIFEST_VERSION, Manifest, Package, Program, Variant, Verity};
use cocoon_image::measure::{BootFiles, Predicted, measure_all};

use crate::groups::{Group, KERNEL};
use crate::lock::Lock;
use crate::output::Folder;
use crate::programs::Programs;
use crate::store::Store;
use crate::tree::{Tools, Tree};
use crate::{Error, firmware, initrd, modules, rootfs};

/// The image's name in its manifest.
const NAME: &str = "cocoon-guest";
/// The file that makes a folder an image.
const MANIFEST: &str = "manifest.json";
/// No program of ours is longer than this many bytes.
const PROGRAM_MAX: u64 = 512 << 20;

/// What every command line says, each word with its reason.
const COMMAND_LINE: [(&str, &str); 7] = [
    ("panic=-1", "a kernel that panics restarts at once, and the launcher sees it"),
    ("oops=panic", "a kernel that stumbled is not trusted any further"),
    ("ro", "nothing is mounted for writing"),
    ("lockdown=confidentiality", "not even root reads or changes the kernel"),
    ("module.sig_enforce=1", "only the distribution's signed modules load"),
    ("random.trust_cpu=on", "the processor is what is trusted"),
    ("random.trust_bootloader=off", "the host is not"),
];

/// What is to be built.
pub struct Order<'a> {
    /// Which of the two images.
    pub variant: Variant,
    /// Where to; made, or replaced if an image is there.
    pub out: &'a Path,
    /// Our own programs.
    pub programs: &'a Programs,
    /// The packages.
    pub lock: &'a Lock,
}

/// An image that was built.
#[derive(Debug, Clone)]
pub struct Built {
    /// What it is. It has the measurements of every machine of `cocoon_image` that can boot it and whose record is known.
    pub manifest: Manifest,
    /// The machine profiles that could boot it, but of which there is no record.
    pub not_recorded: Vec<String>,
}

/// Where an image of a variant is built to, and looked for, if nothing else is said: `images/VARIANT` in the cache; `None`
/// where neither XDG_CACHE_HOME nor HOME is set.
pub fn default_image_folder(variant: Variant) -> Option<PathBuf> {
    Some(Store::default_folder()?.join("images").join(variant.word()))
}

/// Builds an image, whole or not at all.
///
/// # Errors
/// If a package cannot be had, parts do not fit together, or the folder cannot be written.
pub async fn build(order: Order<'_>, store: &Store) -> Result<Built, Error> {
    let Order { variant, out, programs, lock } = order;
    let folder = Folder::begin(out, MANIFEST)?;
    let guest = Tree::of(Group::Guest, lock, store).await?;
    let mkfs = Tools::image(lock, store).await?.program("mkfs.erofs")?;

    let kernel = read(&guest.file(&format!("usr/lib/modules/{KERNEL}/vmlinuz"))?)?;
    let (init, service) = (read(&programs.init)?, read(&programs.guest)?);
    let listed = vec![program("/init", &init), program(&format!("/{}", rootfs::SERVICE), &service)];
    let initrd = initrd::build(init, modules::list(variant, &guest)?)?;
    let root = rootfs::build(&rootfs::contents(service, &guest)?, &mkfs, &folder.path().join("root.img"))?;
    let command_line = command_line(variant, &root.verity);

    folder.write("vmlinuz", &kernel)?;
    folder.write("initrd.cpio", &initrd)?;
    folder.write("cmdline", command_line.as_bytes())?;
    let firmware = firmware::files(variant, lock, store).await?;
    firmware::write(&firmware, &folder)?;
    let Predicted { measurements, not_recorded } = predicted(&kernel, &initrd, &command_line, &firmware)?;
    let firmware = firmware.iter().map(|(name, bytes)| firmware::listed(name, bytes)).collect();
    let cmdline = File::of(command_line.as_bytes());
    let manifest = Manifest {
        version: MANIFEST_VERSION,
        name: NAME.into(),
        variant,
        lock: lock.digest(),
        command_line,
        files: Files { kernel: File::of(&kernel), initrd: File::of(&initrd), root, cmdline },
        firmware,
        packages: packages(lock)?,
        programs: listed,
        measurements,
    };
    folder.write(MANIFEST, manifest.to_json().as_bytes())?;
    folder.finish()?;
    Ok(Built { manifest, not_recorded })
}

/// The kernel's command line: what it says is measured, and so is that an image is a development image.
fn command_line(variant: Variant, verity: &Verity) -> String {
    let mut words: Vec<String> = COMMAND_LINE.iter().map(|(word, _)| (*word).to_owned()).collect();
    if variant == Variant::Development {
        words.insert(0, "console=ttyS0".into());
    }
    words.push(format!("cocoon.root={}", verity.root_hash));
    words.push(format!("cocoon.root_blocks={}", verity.data_blocks));
    if variant == Variant::Development {
        words.push("cocoon.development".into());
    }
    words.join(" ")
}

/// What the image measures on each machine that can boot it.
fn predicted(
    kernel: &[u8],
    initrd: &[u8],
    command_line: &str,
    firmware: &[(&'static str, Vec<u8>)],
) -> Result<Predicted, Error> {
    let files = BootFiles { firmware: &[], kernel, initrd, command_line };
    let firmware: Vec<(&str, &[u8])> =
        firmware.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
    measure_all(&files, &firmware)
        .map_err(|error| Error::Contents(format!("the image cannot be measured: {error}")))
}

/// What is in the image; its tools and firmware are known by the lock and by their own hashes.
fn packages(lock: &Lock) -> Result<Vec<Package>, Error> {
    let package = |pinned: &crate::lock::Pinned| Package {
        name: pinned.name.clone(),
        version: pinned.version.clone(),
        sha256: pinned.sha256,
    };
    Ok(lock.group(Group::Guest)?.iter().map(package).collect())
}

fn program(path: &str, bytes: &[u8]) -> Program {
    Program { path: path.to_owned(), sha256: Sha256::of(bytes), size: bytes.len() as u64 }
}

/// A program or firmware, whole.
pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let length = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
    if length > PROGRAM_MAX {
        return Err(Error::Contents(format!("{} has more than {PROGRAM_MAX} bytes", path.display())));
    }
    std::fs::read(path).map_err(Error::io("read", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_lines_are_those_of_the_design() {
        let verity = Verity { root_hash: cocoon_image::HexBytes([0xab; 32]), data_blocks: 77 };
        let common = "panic=-1 oops=panic ro lockdown=confidentiality module.sig_enforce=1 random.trust_cpu=on \
                      random.trust_bootloader=off";
        let root = format!("cocoon.root={} cocoon.root_blocks=77", "ab".repeat(32));
        assert_eq!(command_line(Variant::Production, &verity), format!("{common} {root}"));
        assert_eq!(
            command_line(Variant::Development, &verity),
            format!("console=ttyS0 {common} {root} cocoon.development")
        );
    }
}
