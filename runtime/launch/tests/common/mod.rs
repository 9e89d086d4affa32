//! The trees that tests find by the environment.

use std::{ffi::OsString, path::PathBuf};

use cocoon_launch::program::Program;

/// QEMU and swtpm, unpacked.
pub(crate) fn tree() -> Option<PathBuf> {
    std::env::var_os("COCOON_QEMU_TREE").map(PathBuf::from)
}

/// QEMU of the tree; says loudly that nothing was proved if there is none.
pub(crate) fn qemu_or_say_skipped(what: &str) -> Option<Program> {
    let tree = tree();
    if tree.is_none() {
        eprintln!("SKIPPED: {what}: COCOON_QEMU_TREE names no tree of QEMU");
    }
    tree.map(|tree| Program::qemu_in_tree(&tree))
}

/// An argument as text.
pub(crate) fn text(word: &OsString) -> String {
    word.clone().into_string().expect("a plan's words are text")
}
