//! QEMU, the software TPM and images: the pinned ones, or those that the operator named.

use std::path::PathBuf;

use cocoon_host::Image;
use cocoon_image::manifest::Variant;
use cocoon_image_build::{ARCHIVE, Lock, Store, Tools, default_image_folder};
use cocoon_launch::config;
use cocoon_launch::program::Program;

use crate::error::{Explain, Failure};
use crate::image;
use crate::ui::Screen;

/// Programs that launch a VM, and the cache that they and weights disks are in.
#[derive(Clone)]
pub(crate) struct VmTools {
    pub(crate) qemu: Program,
    pub(crate) swtpm: Program,
    pub(crate) store: Store,
}

impl VmTools {
    /// The pinned ones, fetched if they are not there yet.
    pub(crate) async fn pinned(screen: &Screen) -> Result<Self, Failure> {
        screen.progress("QEMU and the software TPM are looked for, and fetched if they are not there");
        let store = store()?;
        let tools = Tools::vm(&Lock::built_in(), &store).await.map_err(image::explained)?;
        let tree = tools.tree().root();
        Ok(Self { qemu: Program::qemu_in_tree(tree), swtpm: Program::swtpm_in_tree(tree), store })
    }

    /// Those of a configuration; what it leaves out is pinned.
    pub(crate) async fn configured(tools: &config::Tools, screen: &Screen) -> Result<Self, Failure> {
        if let (Some(qemu), Some(swtpm)) = (&tools.qemu, &tools.swtpm) {
            return Ok(Self { qemu: Program::at(qemu), swtpm: Program::at(swtpm), store: store()? });
        }
        let mut pinned = Self::pinned(screen).await?;
        if let Some(qemu) = &tools.qemu {
            pinned.qemu = Program::at(qemu);
        }
        if let Some(swtpm) = &tools.swtpm {
            pinned.swtpm = Program::at(swtpm);
        }
        Ok(pinned)
    }
}

/// The cache.
pub(crate) fn store() -> Result<Store, Failure> {
    let archive = std::env::var("COCOON_ARCHIVE").unwrap_or_else(|_| ARCHIVE.to_owned());
    image::store(&archive, false, true)
}

/// The folder of the development image: the one that is named, or where `cocoon image build` puts it.
pub(crate) fn development_image(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let folder = named.or_else(|| default_image_folder(Variant::Development));
    let folder =
        folder.ok_or_else(|| Failure::usage("no image folder is known", "name one with --image DIR"))?;
    if folder.join("manifest.json").is_file() {
        return folder
            .canonicalize()
            .explain(|| format!("cannot use {}", folder.display()), "check the name");
    }
    Err(Failure::usage(
        format!("there is no image in {}", folder.display()),
        "build it: cocoon image build (in a source tree; some minutes the first time), or name another with --image DIR",
    ))
}

/// The development image with its first profile, for a registry that shall allow it.
pub(crate) fn open_development_image(
    named: Option<PathBuf>,
    profile: Option<&str>,
) -> Result<Image, Failure> {
    let folder = development_image(named)?;
    Image::open(&folder, profile, store()?)
        .map_err(|error| Failure::new(error.to_string(), "cocoon image build"))
}
