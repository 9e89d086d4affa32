use std::io::Write as _;

use super::*;

/// A package with this tar archive in it, whose xz is that of the test data's own writer.
pub(crate) fn package(tar: &[u8]) -> Vec<u8> {
    let xz = store_as_xz(tar);
    let mut deb = AR_MAGIC.to_vec();
    for (name, content) in
        [("debian-binary", b"2.0\n".as_slice()), ("control.tar.xz", b"odd"), ("data.tar.xz", &xz)]
    {
        let _ = write!(deb, "{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len());
        deb.extend_from_slice(content);
        if deb.len() % 2 == 1 {
            deb.push(b'\n');
        }
    }
    deb
}

fn store_as_xz(bytes: &[u8]) -> Vec<u8> {
    let mut writer =
        lzma_rust2::XzWriter::new(Vec::new(), lzma_rust2::XzOptions::with_preset(0)).expect("options");
    writer.write_all(bytes).expect("memory");
    writer.finish().expect("memory")
}

/// A tar archive of entries as they are, without the checks of a well-meaning writer.
pub(crate) fn tar_of(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    for (kind, path, content) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_mut_bytes()[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(*kind);
        header.set_mode(if path.ends_with("program") { 0o755 } else { 0o644 });
        let is_link = matches!(kind, EntryType::Symlink | EntryType::Link);
        if is_link {
            header.as_mut_bytes()[157..157 + content.len()].copy_from_slice(content.as_bytes());
        }
        let body = if is_link { "" } else { content };
        header.set_size(body.len() as u64);
        header.set_cksum();
        tar.append(&header, body.as_bytes()).expect("memory");
    }
    tar.into_inner().expect("memory")
}

const FILE: EntryType = EntryType::Regular;
const FOLDER: EntryType = EntryType::Directory;
const SYMLINK: EntryType = EntryType::Symlink;

fn unpacked(entries: &[(EntryType, &str, &str)]) -> (tempfile::TempDir, io::Result<()>) {
    let home = tempfile::tempdir().expect("a folder");
    let into = home.path().join("into");
    fs::create_dir(&into).expect("new");
    let result = unpack(&package(&tar_of(entries)), &into, |path| !path.starts_with("usr/share/doc"));
    (home, result)
}

#[test]
fn a_package_is_unpacked_with_its_links_and_modes_and_without_what_is_not_kept() {
    let long = format!("./usr/lib/{}", "n".repeat(150));
    let (home, result) = unpacked(&[
        (FOLDER, "./", ""),
        (FOLDER, "./usr/lib/", ""),
        (FILE, "./usr/lib/libx.so.1", "library"),
        (SYMLINK, "./usr/lib/libx.so", "libx.so.1"),
        (SYMLINK, "./usr/absolute", "/usr/lib/libx.so.1"),
        (SYMLINK, "./usr/lib/up", "../lib/libx.so.1"),
        (EntryType::Link, "./usr/hard", "./usr/lib/libx.so.1"),
        (FILE, "./usr/bin/program", "program"),
        (FILE, "./usr/share/doc/readme", "left out"),
        (EntryType::GNULongName, "././@LongLink", &format!("{long}\0")),
        (FILE, "./usr/lib/cut", "long"),
    ]);
    result.expect("a good package");
    let into = home.path().join("into");
    let read = |path: &str| fs::read_to_string(into.join(path)).expect("it is there");
    for path in ["usr/lib/libx.so.1", "usr/lib/libx.so", "usr/absolute", "usr/lib/up", "usr/hard"] {
        assert_eq!(read(path), "library", "{path}");
    }
    assert_eq!(fs::read_link(into.join("usr/absolute")).expect("a link"), Path::new("../usr/lib/libx.so.1"));
    assert_eq!(read(&long), "long");
    assert!(!into.join("usr/share/doc").exists() && !into.join("usr/lib/cut").exists());
    let mode =
        |path: &str| std::os::unix::fs::MetadataExt::mode(&fs::metadata(into.join(path)).expect("there"));
    assert_eq!((mode("usr/bin/program") & 0o111, mode("usr/lib/libx.so.1") & 0o111), (0o111, 0));
}

#[test]
fn nothing_is_written_outside_of_the_folder_or_through_a_link() {
    let cases: [&[(EntryType, &str, &str)]; 9] = [
        &[(FILE, "../outside", "x")],
        &[(FILE, "./usr/../../outside", "x")],
        &[(FILE, "/outside", "x")],
        &[(SYMLINK, "./up", "../outside")],
        &[(SYMLINK, "./a/up", "x/../../../outside")],
        &[(SYMLINK, "./here", "sub"), (FOLDER, "./sub/", ""), (FILE, "./here/outside", "x")],
        &[(EntryType::Link, "./hard", "../outside")],
        &[(EntryType::Char, "./outside", "")],
        &[(FILE, "./file", "x"), (FILE, "./file/outside", "x")],
    ];
    for entries in cases {
        let (home, result) = unpacked(entries);
        let error = result.expect_err("refused");
        assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{entries:?}: {error}");
        assert!(!home.path().join("outside").exists() && !home.path().join("into/sub/outside").exists());
    }
}

#[test]
fn a_file_that_is_there_is_not_written_again() {
    let (_home, result) = unpacked(&[(FILE, "./a", "x"), (FILE, "./a", "y")]);
    assert_eq!(result.expect_err("refused").kind(), io::ErrorKind::AlreadyExists);
}

#[test]
fn a_package_cut_off_anywhere_is_an_error_and_no_panic() {
    let whole = package(&tar_of(&[(FILE, "./a", &"x".repeat(3000))]));
    let into = tempfile::tempdir().expect("a folder");
    for length in 0..whole.len() - 1 {
        let place = into.path().join(length.to_string());
        fs::create_dir(&place).expect("new");
        assert!(unpack(&whole[..length], &place, |_| true).is_err(), "{length} of {}", whole.len());
    }
}

#[test]
fn another_compression_is_named() {
    let mut deb = package(&[]);
    let at = deb.windows(11).position(|window| window == b"data.tar.xz").expect("it is there");
    deb[at..at + 12].copy_from_slice(b"data.tar.zst");
    let error = unpack(&deb, Path::new("/nonexistent"), |_| true).expect_err("refused");
    assert!(error.to_string().contains("data.tar.zst"), "{error}");
}
