//! Private trees of unpacked packages, and their programs: started through the tree's own loader, so that nothing of this
//! machine but its kernel is used, and no root rights are.

use std::path::{Path, PathBuf};
use std::process::Command;

use cocoon_image::Sha256;

use crate::groups::Group;
use crate::lock::{Lock, Pinned};
use crate::store::Store;
use crate::{Error, deb, output};

/// Part of each tree's name: raised when trees are unpacked in another way.
const FORMAT: &str = "cocoon tree v1";
/// The cache's folder of them.
const TREES: &str = "trees";
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "usr/lib64/ld-linux-x86-64.so.2";

/// The unpacked packages of a group.
#[derive(Clone, Debug)]
pub struct Tree {
    root: PathBuf,
}

/// A tree with programs.
#[derive(Clone, Debug)]
pub struct Tools {
    tree: Tree,
}

/// A program of a tree.
#[derive(Clone, Debug)]
pub struct Program {
    name: String,
    loader: PathBuf,
    library_path: std::ffi::OsString,
    path: PathBuf,
}

impl Tree {
    /// The tree of a group: from the cache, else fetched and unpacked.
    ///
    /// # Errors
    /// If a package cannot be had or unpacked.
    pub async fn of(group: Group, lock: &Lock, store: &Store) -> Result<Self, Error> {
        let packages = lock.group(group)?;
        let folder = store.subfolder(TREES)?;
        let root = folder.join(digest(packages).to_string());
        if !root.is_dir() {
            let files = store.packages(packages).await?;
            let parts: Vec<_> = packages.iter().cloned().zip(files).collect();
            let task = store.progress().begin(&format!("unpacking {}", group.word()), parts.len() as u64);
            let place = root.clone();
            let made = tokio::task::spawn_blocking(move || make(&parts, &folder, &place, || task.advance(1)));
            made.await.expect("unpacking does not panic")?;
        }
        Ok(Self { root })
    }

    /// A file by its path in the tree, if it is there.
    ///
    /// # Errors
    /// If it is not.
    pub fn file(&self, path: &str) -> Result<PathBuf, Error> {
        let file = self.root.join(path);
        if file.is_file() {
            Ok(file)
        } else {
            Err(Error::Contents(format!("no package of its group has /{path}")))
        }
    }

    /// The folder that it is in.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

impl Tools {
    /// The programs of a group if the cache in `folder` has them unpacked. Fetches nothing and makes nothing.
    ///
    /// # Errors
    /// If the lock has no such group.
    pub fn unpacked(group: Group, lock: &Lock, folder: &Path) -> Result<Option<Self>, Error> {
        let root = folder.join(TREES).join(digest(lock.group(group)?).to_string());
        Ok(root.is_dir().then_some(Self { tree: Tree { root } }))
    }

    /// What makes images: `mkfs.erofs`.
    ///
    /// # Errors
    /// See [`Tree::of`].
    pub async fn image(lock: &Lock, store: &Store) -> Result<Self, Error> {
        Self::of(Group::ImageTools, lock, store).await
    }

    /// What runs them: `qemu-system-x86_64`, `swtpm`.
    ///
    /// # Errors
    /// See [`Tree::of`].
    pub async fn vm(lock: &Lock, store: &Store) -> Result<Self, Error> {
        Self::of(Group::VmTools, lock, store).await
    }

    /// The programs of any group.
    ///
    /// # Errors
    /// See [`Tree::of`].
    pub async fn of(group: Group, lock: &Lock, store: &Store) -> Result<Self, Error> {
        Ok(Self { tree: Tree::of(group, lock, store).await? })
    }

    /// The tree: for a program's data files.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// A program by its name.
    ///
    /// # Errors
    /// If the tree has no such program, or no loader for it.
    pub fn program(&self, name: &str) -> Result<Program, Error> {
        let path = ["usr/bin", "usr/sbin"]
            .iter()
            .find_map(|folder| self.tree.file(&format!("{folder}/{name}")).ok());
        let path =
            path.ok_or_else(|| Error::Contents(format!("no package of its group has the program {name}")))?;
        let libraries = self.tree.root.join(LIBRARIES);
        // Some keep libraries of their own in a folder of their name: swtpm.
        let own = libraries.join(name);
        let folders = std::iter::once(libraries).chain(own.is_dir().then_some(own));
        let library_path = std::env::join_paths(folders).map_err(|_| {
            Error::Contents("the cache's path has a colon in it, which the loader cannot take".into())
        })?;
        Ok(Program { name: name.to_owned(), loader: self.tree.file(LOADER)?, library_path, path })
    }
}

impl Program {
    /// A command that starts it, without arguments and with nothing of our environment.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.loader);
        // Not even /etc/ld.so.cache of this machine: it names libraries for another loader.
        command.arg("--inhibit-cache").arg("--library-path").arg(&self.library_path);
        command.arg("--argv0").arg(&self.name).arg(&self.path);
        command.env_clear().env("LC_ALL", "C");
        command
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its file is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs it to its end and gives what it wrote to standard output.
    ///
    /// # Errors
    /// If it cannot be started or fails; with the end of what it said.
    pub fn run(&self, arguments: &[&std::ffi::OsStr]) -> Result<Vec<u8>, Error> {
        let output = self.command().args(arguments).stdin(std::process::Stdio::null()).output();
        let output = output.map_err(Error::io("start", &self.path))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let says = String::from_utf8_lossy(&output.stderr);
        let says = says.trim().lines().rev().take(3).collect::<Vec<_>>().join("; ");
        Err(Error::Tool { tool: self.name.clone(), status: output.status.to_string(), says })
    }
}

/// The name of the tree of these packages.
fn digest(packages: &[Pinned]) -> Sha256 {
    let mut hashes: Vec<_> = packages.iter().map(|package| package.sha256.to_string()).collect();
    hashes.sort();
    Sha256::of(format!("{FORMAT}\n{}\n", hashes.join("\n")).as_bytes())
}

/// Unpacks beside, then moves to its place. Of several at once the first one's stays: they are the same.
fn make(parts: &[(Pinned, PathBuf)], folder: &Path, place: &Path, done: impl Fn()) -> Result<(), Error> {
    output::remove_stale(folder);
    let new = tempfile::Builder::new()
        .prefix(output::UNFINISHED)
        .tempdir_in(folder)
        .map_err(Error::io("write", folder))?;
    for (pinned, file) in parts {
        let bytes = std::fs::read(file).map_err(Error::io("read", file))?;
        deb::unpack(&bytes, new.path(), is_of_use).map_err(|error| unpack_error(error, pinned, place))?;
        done();
    }
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(new.path(), mode).map_err(Error::io("write", place))?;
    match std::fs::rename(new.path(), place) {
        Ok(()) => drop(new.keep()),
        Err(_) if place.is_dir() => {}
        Err(error) => return Err(Error::io("write", place)(error)),
    }
    Ok(())
}

/// The package's fault, or the system's.
fn unpack_error(error: std::io::Error, pinned: &Pinned, place: &Path) -> Error {
    if error.raw_os_error().is_some() {
        return Error::io("write", place)(error);
    }
    Error::Package { name: format!("{} {}", pinned.name, pinned.version), reason: error.to_string() }
}

/// Manuals, translations, scripts of an installation, and the machine of 32 bits are left out.
fn is_of_use(path: &Path) -> bool {
    const LEFT_OUT: [&str; 9] = [
        "etc",
        "usr/bin/qemu-system-i386",
        "usr/include",
        "usr/share/bug",
        "usr/share/doc",
        "usr/share/lintian",
        "usr/share/locale",
        "usr/share/man",
        "var",
    ];
    !LEFT_OUT.iter().any(|left_out| path.starts_with(left_out))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_is_found_where_it_was_unpacked_and_nothing_is_made_where_it_was_not() {
        let (cache, lock) = (tempfile::tempdir().expect("a folder"), Lock::built_in());
        let found = || Tools::unpacked(Group::VmTools, &lock, cache.path()).expect("the lock has the group");
        assert!(found().is_none());
        assert_eq!(std::fs::read_dir(cache.path()).expect("it is there").count(), 0);
        let tree =
            cache.path().join(TREES).join(digest(lock.group(Group::VmTools).expect("it has")).to_string());
        std::fs::create_dir_all(&tree).expect("writable");
        assert_eq!(found().expect("it is unpacked").tree().root(), tree);
    }
}
