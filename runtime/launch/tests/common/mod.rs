//! The programs of a VM, by the environment, else from the cache: whoever built an image has them.

use std::{ffi::OsString, path::PathBuf};

use cocoon_image_build::{Group, Lock, Store, Tools};
use cocoon_launch::program::Program;

/// QEMU and swtpm, unpacked.
pub(crate) fn tree() -> Option<PathBuf> {
    let cached = || Some(cached(Group::VmTools)?.tree().root().to_path_buf());
    std::env::var_os("COCOON_QEMU_TREE").map(PathBuf::from).or_else(cached)
}

/// The firmware of machines without a TEE.
pub(crate) fn firmware() -> Option<PathBuf> {
    let cached = || cached(Group::Firmware)?.tree().file("usr/share/ovmf/OVMF.fd").ok();
    std::env::var_os("COCOON_OVMF").map(PathBuf::from).or_else(cached)
}

/// A group of the lock, if it is unpacked. Nothing is fetched.
fn cached(group: Group) -> Option<Tools> {
    Tools::unpacked(group, &Lock::built_in(), &Store::default_folder()?).expect("the lock has the group")
}

/// QEMU of the tree; says loudly that nothing was proved if there is none.
pub(crate) fn qemu_or_say_skipped(what: &str) -> Option<Program> {
    let tree = tree();
    if tree.is_none() {
        eprintln!("SKIPPED: {what}: COCOON_QEMU_TREE names no tree of QEMU, and the cache has none");
    }
    tree.map(|tree| Program::qemu_in_tree(&tree))
}

/// An argument as text.
pub(crate) fn text(word: &OsString) -> String {
    word.clone().into_string().expect("a plan's words are text")
}
