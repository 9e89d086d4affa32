//! One digest for a folder: a child's program is more than one file.
//!
//! SHA-256 over `cocoon tree v1` and, in the order of their names' bytes, each entry below: its kind (`d`, `f`, `x` for a file that
//! anybody may execute, `l`), the length of its path from the folder and the path, and, of a file, its length and SHA-256; of a
//! link, the length of where it leads and that. Lengths are 64 bits, big-endian. Owners and times say nothing of what runs.

use ring::digest::{Context, SHA256};
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Most entries of a tree.
pub const MAX_ENTRIES: usize = 1 << 20;
/// Most folders within one another.
pub const MAX_DEPTH: usize = 64;

const DOMAIN: &[u8] = b"cocoon tree v1";

/// The digest of a folder, or of a file as a tree of that one entry. Links are not followed, except the path itself.
///
/// # Errors
/// Something cannot be read, is neither file, folder nor link, or the tree is larger than its limits.
pub fn digest(path: &Path) -> io::Result<[u8; 32]> {
    let mut walk = Walk { context: Context::new(&SHA256), entries: 0 };
    walk.context.update(DOMAIN);
    if path.metadata()?.is_dir() {
        walk.folder(path, b"", 0)?;
    } else {
        walk.entry(&path.canonicalize()?, b"", 0)?;
    }
    Ok(walk.context.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes"))
}

struct Walk {
    context: Context,
    entries: usize,
}

impl Walk {
    fn folder(&mut self, folder: &Path, below: &[u8], depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            return Err(too_large(folder, "too many folders within one another"));
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(folder).map_err(|error| told(folder, &error))? {
            names.push(entry?.file_name());
            if self.entries + names.len() > MAX_ENTRIES {
                return Err(too_large(folder, "too many entries"));
            }
        }
        names.sort_by(|one, other| one.as_bytes().cmp(other.as_bytes()));
        for name in names {
            let path = folder.join(&name);
            let within = if below.is_empty() { Vec::new() } else { [below, b"/"].concat() };
            self.entry(&path, &[&within, name.as_bytes()].concat(), depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, name: &[u8], depth: usize) -> io::Result<()> {
        self.entries += 1;
        let about = path.symlink_metadata().map_err(|error| told(path, &error))?;
        let kind = about.file_type();
        if kind.is_dir() {
            self.name(b"d", name);
            return self.folder(path, name, depth + 1);
        }
        if kind.is_symlink() {
            self.name(b"l", name);
            self.counted(fs::read_link(path)?.as_os_str().as_bytes());
            return Ok(());
        }
        if !kind.is_file() {
            return Err(too_large(path, "it is neither file, folder nor link"));
        }
        self.name(if about.permissions().mode() & 0o111 != 0 { b"x" } else { b"f" }, name);
        let (length, digest) = file(path).map_err(|error| told(path, &error))?;
        self.context.update(&length.to_be_bytes());
        self.context.update(digest.as_ref());
        Ok(())
    }

    fn name(&mut self, kind: &[u8], name: &[u8]) {
        self.context.update(kind);
        self.counted(name);
    }

    fn counted(&mut self, bytes: &[u8]) {
        self.context.update(&(bytes.len() as u64).to_be_bytes());
        self.context.update(bytes);
    }
}

fn file(path: &Path) -> io::Result<(u64, ring::digest::Digest)> {
    let (mut file, mut buffer) = (File::open(path)?, vec![0; 256 << 10]);
    let (mut context, mut length) = (Context::new(&SHA256), 0);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((length, context.finish())),
            count => {
                length += count as u64;
                context.update(&buffer[..count]);
            }
        }
    }
}

fn told(path: &Path, error: &io::Error) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

fn too_large(path: &Path, why: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{}: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        fs::create_dir(folder.path().join("bin")).expect("ours");
        fs::write(folder.path().join("bin/serve"), b"program").expect("ours");
        fs::write(folder.path().join("lib.so"), b"library").expect("ours");
        std::os::unix::fs::symlink("lib.so", folder.path().join("link")).expect("ours");
        folder
    }

    fn of(folder: &tempfile::TempDir) -> [u8; 32] {
        digest(folder.path()).expect("it reads")
    }

    #[test]
    fn equal_trees_have_equal_digests_wherever_they_lie() {
        assert_eq!(of(&tree()), of(&tree()));
    }

    #[test]
    fn whatever_changes_what_runs_changes_the_digest() {
        let before = of(&tree());
        type Change = fn(&Path);
        let changes: [Change; 6] = [
            |path| fs::write(path.join("lib.so"), b"librarY").expect("ours"),
            |path| fs::rename(path.join("lib.so"), path.join("lib2.so")).expect("ours"),
            |path| fs::rename(path.join("lib.so"), path.join("bin/lib.so")).expect("ours"),
            |path| fs::create_dir(path.join("empty")).expect("ours"),
            |path| {
                let executable = PermissionsExt::from_mode(0o755);
                fs::set_permissions(path.join("bin/serve"), executable).expect("ours");
            },
            |path| {
                fs::remove_file(path.join("link")).expect("ours");
                std::os::unix::fs::symlink("bin/serve", path.join("link")).expect("ours");
            },
        ];
        for (number, change) in changes.into_iter().enumerate() {
            let folder = tree();
            change(folder.path());
            assert_ne!(of(&folder), before, "change {number}");
        }
    }

    #[test]
    fn what_is_no_file_is_refused_by_name() {
        let folder = tree();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("sock")).expect("ours");
        let error = digest(folder.path()).expect_err("a socket").to_string();
        assert!(error.contains("sock") && error.contains("neither"), "{error}");
    }
}
