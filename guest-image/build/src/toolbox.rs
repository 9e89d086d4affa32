//! Everything of the lock that a machine needs to run images and to test with them, unpacked, and where it is.

use std::path::{Path, PathBuf};

use crate::groups::{Group, KERNEL};
use crate::lock::Lock;
use crate::store::Store;
use crate::tree::{Program, Tools, Tree};
use crate::{Error, output};

/// Firmware as packages have it: group, path in the tree, whose last part is its name.
const FIRMWARE: [(Group, &str); 3] = [
    (Group::Firmware, "usr/share/ovmf/OVMF.fd"),
    (Group::TeeFirmware, "usr/share/ovmf/OVMF.amdsev.fd"),
    (Group::TeeFirmware, "usr/share/ovmf/OVMF.inteltdx.ms.fd"),
];

/// Unpacked tools and files, by where they are.
#[derive(Clone, Debug)]
pub struct Toolbox {
    /// The tree with QEMU and the software TPM.
    pub vm_tools: PathBuf,
    /// Programs by name. They are started through their tree's loader, with `--library-path`.
    pub programs: Vec<Program>,
    /// The guest's kernel.
    pub kernel: PathBuf,
    /// Firmware files as packages have them: a production image has one of TDX that is made of two of them.
    pub firmware: Vec<PathBuf>,
    /// Packages of unstable that have left the archive: their firmware is missing above.
    pub gone: Vec<String>,
}

impl Toolbox {
    /// Fetches and unpacks what is not in the cache.
    ///
    /// # Errors
    /// If a package cannot be had; but that one of unstable was superseded, and so is gone, is no error.
    pub async fn fetch(lock: &Lock, store: &Store) -> Result<Self, Error> {
        let (vm, image) = (Tools::vm(lock, store).await?, Tools::image(lock, store).await?);
        let kernel =
            Tree::of(Group::Guest, lock, store).await?.file(&format!("usr/lib/modules/{KERNEL}/vmlinuz"))?;
        let programs =
            vec![vm.program("qemu-system-x86_64")?, vm.program("swtpm")?, image.program("mkfs.erofs")?];
        let (mut firmware, mut gone) = (Vec::new(), Vec::new());
        for (group, path) in FIRMWARE {
            match Tree::of(group, lock, store).await {
                Ok(tree) => firmware.push(tree.file(path)?),
                Err(error @ Error::Gone { .. }) if group == Group::TeeFirmware => {
                    let said = error.to_string();
                    if !gone.contains(&said) {
                        gone.push(said);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Self { vm_tools: vm.tree().root().to_owned(), programs, kernel, firmware, gone })
    }

    /// The firmware for machines without a TEE.
    pub fn plain_firmware(&self) -> Option<&Path> {
        self.firmware.iter().find(|path| path.ends_with("OVMF.fd")).map(PathBuf::as_path)
    }

    /// Links kernel and firmware into a folder by their plain names, in place of what it had by these names. The folder is
    /// made if it is missing.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn link_into(&self, folder: &Path) -> Result<(), Error> {
        std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        std::iter::once(&self.kernel)
            .chain(&self.firmware)
            .filter_map(|path| Some((path, path.file_name()?)))
            .try_for_each(|(path, name)| output::replace_link(&folder.join(name), path))
    }
}
