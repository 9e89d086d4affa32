//! Output that is there whole or not at all: made beside its place, then moved there.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::Error;

/// What names in the cache begin with until the thing is finished.
pub(crate) const UNFINISHED: &str = ".new-";
/// What was begun so long ago is not being made any more.
const STALE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Removes what was begun in a folder of the cache and never finished: its maker was killed. Whatever cannot be removed
/// stays: it is in nobody's way.
pub(crate) fn remove_stale(folder: &Path) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let begun = entry.metadata().and_then(|metadata| metadata.modified());
        let age = begun.ok().and_then(|begun| SystemTime::now().duration_since(begun).ok());
        if entry.file_name().to_string_lossy().starts_with(UNFINISHED) && age.is_some_and(|age| age > STALE) {
            let _ = std::fs::remove_dir_all(entry.path()).or_else(|_| std::fs::remove_file(entry.path()));
        }
    }
}

/// Makes a file, or replaces it.
///
/// # Errors
/// If it cannot be written; then the old one is as it was.
pub(crate) fn replace_file(path: &Path, content: &[u8]) -> Result<(), Error> {
    let mut file = beside(path, |builder, folder| builder.tempfile_in(folder))?;
    let written = file.write_all(content).and_then(|()| file.as_file().sync_all());
    written.map_err(Error::io("write", path))?;
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o644);
    file.as_file().set_permissions(readable).map_err(Error::io("write", path))?;
    file.persist(path).map(drop).map_err(|error| Error::io("write", path)(error.error))
}

/// Makes a symbolic link to `target`, in place of the file or link that is there.
///
/// # Errors
/// If it cannot be made; then the old one is as it was.
pub(crate) fn replace_link(path: &Path, target: &Path) -> Result<(), Error> {
    let link = beside(path, |builder, folder| {
        builder.make_in(folder, |new| std::os::unix::fs::symlink(target, new))
    })?;
    link.persist(path).map(drop).map_err(|error| Error::io("write", path)(error.error))
}

/// A folder in the making.
pub(crate) struct Folder {
    new: tempfile::TempDir,
    place: PathBuf,
    /// A file that an earlier folder of the same kind has.
    mark: &'static str,
}

impl Folder {
    /// Begins one that is to stand at `place`, where nothing is, or an empty folder, or one that holds the file `mark`.
    ///
    /// # Errors
    /// If something else stands there, or the folder cannot be made.
    pub(crate) fn begin(place: &Path, mark: &'static str) -> Result<Self, Error> {
        let occupied = match std::fs::read_dir(place) {
            Ok(mut entries) => entries.next().is_some() && !place.join(mark).is_file(),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => false,
            Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => true,
            Err(error) => return Err(Error::io("read", place)(error)),
        };
        if occupied {
            return Err(Error::Occupied(place.to_owned()));
        }
        let new = beside(place, |builder, folder| builder.tempdir_in(folder))?;
        Ok(Self { new, place: place.to_owned(), mark })
    }

    /// Where its files are made until it is finished.
    pub(crate) fn path(&self) -> &Path {
        self.new.path()
    }

    /// Writes one of its files, readable by all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(crate) fn write(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let path = self.path().join(name);
        let write = || {
            let mut file = std::fs::File::create_new(&path)?;
            file.write_all(content)?;
            file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
            file.sync_all()
        };
        write().map_err(Error::io("write", &self.place.join(name)))
    }

    /// Moves it to its place, in one step.
    ///
    /// # Errors
    /// If it cannot be moved; then what stood there is as it was.
    pub(crate) fn finish(self) -> Result<(), Error> {
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(self.path(), mode).map_err(Error::io("write", &self.place))?;
        if self.place.join(self.mark).is_file() {
            // The old one is now where the new one was made, and goes with it.
            let exchanged = renameat_with(CWD, self.path(), CWD, &self.place, RenameFlags::EXCHANGE);
            return exchanged.map_err(|error| Error::io("replace", &self.place)(error.into()));
        }
        std::fs::rename(self.path(), &self.place).map_err(Error::io("write", &self.place))?;
        let _gone = self.new.keep();
        Ok(())
    }
}

/// Something with a name of its own in the folder that `place` is in; the folder is made if it is missing.
fn beside<T>(
    place: &Path,
    make: impl FnOnce(&tempfile::Builder<'_, '_>, &Path) -> std::io::Result<T>,
) -> Result<T, Error> {
    let parent = match place.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    std::fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
    make(tempfile::Builder::new().prefix(".cocoon-new-"), parent).map_err(Error::io("write", place))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("a folder");
        let mut names: Vec<_> =
            entries.map(|entry| entry.expect("readable").file_name().into_string().expect("text")).collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_never_finished_goes_once_it_is_old() {
        let home = tempfile::tempdir().expect("a folder");
        let path = |name: &str| home.path().join(name);
        std::fs::create_dir(path(".new-tree")).expect("new");
        for name in [".new-tree/file", ".new-deb", ".new-young", "finished"] {
            std::fs::write(path(name), "x").expect("room");
        }
        let long_ago = SystemTime::now() - STALE - Duration::from_secs(60);
        for name in [".new-tree", ".new-deb", "finished"] {
            let file = std::fs::File::open(path(name)).expect("there");
            file.set_modified(long_ago).expect("it is ours");
        }
        remove_stale(home.path());
        assert_eq!(names(home.path()), [".new-young", "finished"]);
    }

    #[test]
    fn a_link_takes_the_place_of_an_older_one() {
        let home = tempfile::tempdir().expect("a folder");
        let place = home.path().join("deep/kernel");
        for target in ["/one", "/two"] {
            replace_link(&place, Path::new(target)).expect("room");
            assert_eq!(std::fs::read_link(&place).expect("a link"), Path::new(target));
        }
        assert_eq!(names(&home.path().join("deep")), ["kernel"]);
    }

    #[test]
    fn a_folder_is_there_only_once_it_is_finished_and_replaces_only_its_like() {
        let home = tempfile::tempdir().expect("a folder");
        let place = home.path().join("deep/image");
        let make = |content: &[u8]| {
            let folder = Folder::begin(&place, "mark").expect("free");
            folder.write("mark", content).expect("room");
            folder
        };
        drop(make(b"never finished"));
        assert_eq!(names(&home.path().join("deep")), [""; 0]);
        make(b"one").finish().expect("free");
        make(b"two").finish().expect("its like");
        assert_eq!(std::fs::read(place.join("mark")).expect("finished"), b"two");
        assert_eq!(names(&home.path().join("deep")), ["image"]);

        std::fs::remove_file(place.join("mark")).expect("it was there");
        make(b"three").finish().expect("an empty folder");
        std::fs::rename(place.join("mark"), place.join("precious")).expect("it was there");
        assert!(matches!(Folder::begin(&place, "mark").map(drop), Err(Error::Occupied(_))));
        assert!(matches!(Folder::begin(&place.join("precious"), "mark").map(drop), Err(Error::Occupied(_))));
        assert_eq!(std::fs::read(place.join("precious")).expect("untouched"), b"three");
    }
}
