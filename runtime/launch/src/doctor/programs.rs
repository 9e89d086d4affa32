//! Which QEMU and which software TPM guests are run with.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use crate::config::Tools;
use crate::program::Program;

const QEMU: &str = "qemu-system-x86_64";
const SWTPM: &str = "swtpm";

/// The programs that guests are run with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// QEMU for x86-64.
    pub qemu: Program,
    /// The software TPM.
    pub swtpm: Program,
    /// Where QEMU comes from, for people.
    pub origin: String,
}

impl Programs {
    /// Each that the configuration names; else the one of `tree`, the unpacked packages that are pinned; else the first in
    /// the folders of `path`, which is a PATH.
    pub fn choose(tools: &Tools, tree: Option<&Path>, path: Option<&OsStr>) -> Self {
        let (qemu, origin) = match (&tools.qemu, tree) {
            (Some(named), _) => {
                (Program::at(named), format!("{}, named in the configuration", named.display()))
            }
            (None, Some(tree)) => (Program::qemu_in_tree(tree), "the pinned one".to_owned()),
            (None, None) => {
                let found = on_path(QEMU, path);
                let origin = format!("{}, this system's: the pinned one is not fetched yet", found.display());
                (Program::at(found), origin)
            }
        };
        let swtpm = match (&tools.swtpm, tree) {
            (Some(named), _) => Program::at(named),
            (None, Some(tree)) => Program::swtpm_in_tree(tree),
            (None, None) => Program::at(on_path(SWTPM, path)),
        };
        Self { qemu, swtpm, origin }
    }
}

/// Where a program is; its bare name if it is nowhere, so that starting it says so.
fn on_path(name: &str, path: Option<&OsStr>) -> PathBuf {
    let mut folders = path.into_iter().flat_map(std::env::split_paths).filter(|folder| folder.is_absolute());
    folders
        .find_map(|folder| Some(folder.join(name)).filter(|file| file.is_file()))
        .unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_named_program_comes_before_the_pinned_one_and_that_before_the_systems() {
        let folder = tempfile::tempdir().expect("a folder");
        let here = folder.path().join(QEMU);
        std::fs::write(&here, "").expect("writable");
        let path = std::env::join_paths([Path::new("relative"), Path::new("/no/such"), folder.path()])
            .expect("a PATH");
        let named = Tools { qemu: Some("/opt/qemu".into()), ..Tools::default() };
        let tree = Path::new("/tree");
        let chosen = Programs::choose(&named, Some(tree), Some(&path));
        assert_eq!(chosen.qemu, Program::at("/opt/qemu"));
        assert_eq!(chosen.swtpm, Program::swtpm_in_tree(tree), "the other one is not named");
        assert!(chosen.origin.contains("/opt/qemu, named in the configuration"), "{}", chosen.origin);
        let pinned = Programs::choose(&Tools::default(), Some(tree), Some(&path));
        assert_eq!((pinned.qemu, pinned.origin.as_str()), (Program::qemu_in_tree(tree), "the pinned one"));
        let system = Programs::choose(&Tools::default(), None, Some(&path));
        assert_eq!((system.qemu, system.swtpm), (Program::at(&here), Program::at(SWTPM)));
        assert!(system.origin.contains("this system's"), "{}", system.origin);
    }
}
