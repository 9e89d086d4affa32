//! A program of the VM's tools: of the system, or of a private tree that brings its own C library.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
};

/// Where a tree keeps its loader, its libraries and QEMU's own files.
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const QEMU_DATA: &str = "usr/share/qemu";

/// How a program is started: the executable, and the arguments that come before one's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// What the kernel executes.
    pub executable: PathBuf,
    /// Arguments before the program's own.
    pub before: Vec<OsString>,
}

impl Program {
    /// A program of the system.
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { executable: path.into(), before: Vec::new() }
    }

    /// `usr/bin/NAME` of an unpacked tree of packages, by the tree's own loader and with its own libraries: the
    /// system's C library may be older than the program.
    pub fn in_tree(tree: &Path, name: &str) -> Self {
        let libraries = tree.join(LIBRARIES);
        let mut search = libraries.clone().into_os_string();
        search.push(":");
        search.push(libraries.join("swtpm"));
        let mut before: Vec<OsString> = vec!["--library-path".into(), search];
        before.extend(["--argv0".into(), name.into(), tree.join("usr/bin").join(name).into_os_string()]);
        Self { executable: tree.join(LOADER), before }
    }

    /// QEMU for x86 of an unpacked tree, with the tree's firmware tables.
    pub fn qemu_in_tree(tree: &Path) -> Self {
        let mut program = Self::in_tree(tree, "qemu-system-x86_64");
        program.before.extend(["-L".into(), tree.join(QEMU_DATA).into_os_string()]);
        program
    }

    /// The software TPM of an unpacked tree.
    pub fn swtpm_in_tree(tree: &Path) -> Self {
        Self::in_tree(tree, "swtpm")
    }

    /// The file that holds the program itself: the tree's, not its loader.
    pub fn file(&self) -> &Path {
        let of_tree = self.before.iter().position(|word| word == "--argv0");
        of_tree.and_then(|at| self.before.get(at + 2)).map_or(&self.executable, Path::new)
    }

    /// A command with an empty environment, to add arguments to.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.executable);
        command.args(&self.before).env_clear();
        command
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trees_program_is_started_by_the_trees_loader() {
        let program = Program::qemu_in_tree(Path::new("/t"));
        assert_eq!(program.executable, Path::new("/t/usr/lib64/ld-linux-x86-64.so.2"));
        assert_eq!(program.file(), Path::new("/t/usr/bin/qemu-system-x86_64"));
        assert_eq!(program.before.last().expect("arguments"), "/t/usr/share/qemu");
        assert_eq!(Program::at("/usr/bin/swtpm").file(), Path::new("/usr/bin/swtpm"));
    }
}
