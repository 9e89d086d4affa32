//! Debian packages (deb(5)): an `ar` archive with a compressed tar archive in it. Unpacked so that whatever the tar says,
//! nothing is written outside of the folder, through a link, or beyond a limit.

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt as _, symlink};
use std::path::{Component, Path, PathBuf};

use tar::EntryType;

/// No package has more entries than this.
const ENTRIES_MAX: usize = 100_000;
/// No package has more bytes than this, unpacked.
const UNPACKED_MAX: u64 = 2 << 30;
/// No path or link is longer than this.
const PATH_MAX: u64 = 4096;
/// What an xz stream may make its reader allocate: twice what the strongest preset needs.
const XZ_MEMORY_KIB: u32 = 128 << 10;

const AR_MAGIC: &[u8] = b"!<arch>\n";
const AR_HEADER: usize = 60;

/// Unpacks xz.
pub(crate) fn unxz<R: Read>(compressed: R) -> impl Read {
    lzma_rust2::XzReader::new_mem_limit(compressed, true, XZ_MEMORY_KIB)
}

/// Unpacks those files of a package that `keep` says (paths without a slash at the beginning) below `into`.
///
/// # Errors
/// If the package is broken or hostile ([`io::ErrorKind::InvalidData`]), or cannot be written.
pub(crate) fn unpack(deb: &[u8], into: &Path, keep: impl Fn(&Path) -> bool) -> io::Result<()> {
    let data = data_member(deb)?;
    let mut archive = tar::Archive::new(Whole(unxz(data).take(UNPACKED_MAX)));
    let mut long = Long::default();
    for (count, entry) in archive.entries()?.raw(true).enumerate() {
        if count >= ENTRIES_MAX {
            return Err(broken(format!("it has more than {ENTRIES_MAX} entries")));
        }
        let mut entry = entry?;
        match entry.header().entry_type() {
            EntryType::GNULongName => long.name = Some(long_text(&mut entry)?),
            EntryType::GNULongLink => long.link = Some(long_text(&mut entry)?),
            _ => unpack_entry(&mut entry, std::mem::take(&mut long), into, &keep)?,
        }
    }
    Ok(())
}

/// Names that did not fit into the header of the entry behind them.
#[derive(Default)]
struct Long {
    name: Option<PathBuf>,
    link: Option<PathBuf>,
}

fn long_text(entry: &mut impl Read) -> io::Result<PathBuf> {
    let mut text = Vec::new();
    entry.take(PATH_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > PATH_MAX {
        return Err(broken(format!("it has a name of more than {PATH_MAX} bytes")));
    }
    while text.last() == Some(&0) {
        text.pop();
    }
    String::from_utf8(text).map(PathBuf::from).map_err(|_| broken("it has a name that is no text".into()))
}

fn unpack_entry<R: Read>(
    entry: &mut tar::Entry<'_, R>,
    long: Long,
    into: &Path,
    keep: impl Fn(&Path) -> bool,
) -> io::Result<()> {
    let header = entry.header();
    let named = match long.name {
        Some(name) => name,
        None => header.path()?.into_owned(),
    };
    let path = inside(&named)?;
    let kind = header.entry_type();
    let link = long.link.or(header.link_name()?.map(std::borrow::Cow::into_owned));
    let mode = if header.mode()? & 0o111 == 0 { 0o644 } else { 0o755 };
    if path.as_os_str().is_empty() || !keep(&path) {
        return Ok(());
    }
    let target = into.join(&path);
    let parent = path.parent().unwrap_or(Path::new(""));
    make_folders(into, if kind == EntryType::Directory { &path } else { parent })?;
    let link = || link.ok_or_else(|| broken(format!("the link {} leads nowhere", path.display())));
    match kind {
        EntryType::Directory => Ok(()),
        EntryType::Regular | EntryType::Continuous => {
            let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&target)?;
            io::copy(entry, &mut file).map(drop)
        }
        EntryType::Symlink => symlink(within(parent, &link()?)?, &target),
        EntryType::Link => {
            let source = inside(&link()?)?;
            make_folders(into, source.parent().unwrap_or(Path::new("")))?;
            fs::hard_link(into.join(source), &target)
        }
        other => {
            Err(broken(format!("{} is of kind {other:?}, which no package of ours has", path.display())))
        }
    }
}

/// The path without `./`; refuses one that leads out.
fn inside(path: &Path) -> io::Result<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            _ => return Err(broken(format!("the path {} leads out of the package", path.display()))),
        }
    }
    Ok(clean)
}

/// What a link in `folder` is to hold: a relative path that stays inside. `/x` means the tree's own `/x`.
fn within(folder: &Path, link: &Path) -> io::Result<PathBuf> {
    let up: PathBuf = folder.components().map(|_| "..").collect();
    if let Ok(absolute) = link.strip_prefix("/") {
        return Ok(up.join(inside(absolute)?));
    }
    let mut depth = folder.components().count();
    for part in link.components() {
        match part {
            Component::Normal(_) => depth += 1,
            Component::ParentDir if depth > 0 => depth -= 1,
            Component::CurDir => {}
            _ => return Err(broken(format!("the link to {} leads out of the package", link.display()))),
        }
    }
    Ok(link.to_owned())
}

/// Makes the folders of a path, and refuses one that is a link: nothing is written through links.
fn make_folders(into: &Path, path: &Path) -> io::Result<()> {
    let mut folder = into.to_owned();
    for part in path.components() {
        folder.push(part);
        match fs::symlink_metadata(&folder) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(broken(format!("{} is a folder and something else", path.display()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir(&folder)?,
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The compressed tar archive of files.
fn data_member(deb: &[u8]) -> io::Result<&[u8]> {
    let mut rest = deb.strip_prefix(AR_MAGIC).ok_or_else(|| broken("it is no `ar` archive".into()))?;
    while let Some((header, after)) = rest.split_at_checked(AR_HEADER) {
        let name = field(header, 0..16)?.trim_end_matches('/');
        let length: usize =
            field(header, 48..58)?.parse().map_err(|_| broken("a member has no length".into()))?;
        let content = after.get(..length).ok_or_else(|| broken(format!("it ends inside of {name}")))?;
        match name {
            "data.tar.xz" => return Ok(content),
            _ if name.starts_with("data.tar") => {
                return Err(broken(format!("its files are compressed as {name}, not as data.tar.xz")));
            }
            // Members begin at even offsets.
            _ => rest = after.get(length.next_multiple_of(2)..).unwrap_or_default(),
        }
    }
    Err(broken("it has no data.tar.xz".into()))
}

fn field(header: &[u8], range: std::ops::Range<usize>) -> io::Result<&str> {
    let bytes = header.get(range).unwrap_or_default();
    str::from_utf8(bytes).map(str::trim_end).map_err(|_| broken("a member's header is no text".into()))
}

/// A stream whose limit is an error, not an end.
struct Whole<R>(io::Take<R>);

impl<R: Read> Read for Whole<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buffer)?;
        if read == 0 && self.0.limit() == 0 && !buffer.is_empty() {
            return Err(broken(format!("it has more than {UNPACKED_MAX} bytes when unpacked")));
        }
        Ok(read)
    }
}

fn broken(why: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}

#[cfg(test)]
pub(crate) mod tests;
