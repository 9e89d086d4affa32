//! `InRelease`: what a suite consists of, signed by the archive.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use cocoon_image::Sha256;

use crate::Error;
use crate::progress::Progress;

/// Where Debian's package of the archive's keys puts them.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A release file's text: what was signed, if that could be checked.
pub(crate) struct Release {
    text: String,
}

/// A file that the release names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) sha256: Sha256,
    pub(crate) size: u64,
}

impl Release {
    /// Checks the signature with gpgv and Debian's keyring where both are installed, and says so where they are not.
    ///
    /// # Errors
    /// If the signature is wrong, or it is no release file of this suite.
    pub(crate) fn open(suite: &str, bytes: &[u8], progress: &dyn Progress) -> Result<Self, Error> {
        let untrusted = |reason: String| Error::Signature { suite: suite.into(), reason };
        let (text, checked) = match verified(bytes, Path::new(KEYRING)) {
            Some(result) => (result.map_err(untrusted)?, "signature checked"),
            None => (
                unchecked(bytes).map_err(untrusted)?,
                "SIGNATURE NOT CHECKED: gpgv or Debian's keyring is missing here",
            ),
        };
        let release = Self { text };
        let names = |field: &str| release.field(field).is_some_and(|value| value == suite);
        if !names("Codename") && !names("Suite") {
            return Err(untrusted("the release file is that of another suite".into()));
        }
        let date = release.field("Date").unwrap_or("an unknown date");
        progress.note(&format!("suite {suite} of {date}: {checked}"));
        Ok(release)
    }

    fn field(&self, name: &str) -> Option<&str> {
        let value =
            |line: &'_ str| -> Option<usize> { line.strip_prefix(name)?.strip_prefix(": ").map(str::len) };
        let line = self.text.lines().find(|line| value(line).is_some())?;
        Some(&line[line.len() - value(line)?..])
    }

    /// What it says about a file, by SHA-256.
    pub(crate) fn entry(&self, path: &str) -> Option<Entry> {
        let lines = self.text.lines().skip_while(|line| *line != "SHA256:").skip(1);
        lines.take_while(|line| line.starts_with(' ')).find_map(|line| {
            let mut words = line.split_whitespace();
            let (sha256, size, name) = (words.next()?, words.next()?, words.next()?);
            (name == path)
                .then(|| Some(Entry { sha256: Sha256::from_hex(sha256)?, size: size.parse().ok()? }))?
        })
    }
}

/// What gpgv found to be signed; `None` if it or the keyring is not installed.
fn verified(bytes: &[u8], keyring: &Path) -> Option<Result<String, String>> {
    if !keyring.exists() {
        return None;
    }
    let mut file = tempfile::NamedTempFile::new().ok()?;
    file.write_all(bytes).ok()?;
    // Its output is the signed text alone: nothing that stands around it is read.
    let output = Command::new("gpgv")
        .arg("--quiet")
        .arg("--keyring")
        .arg(keyring)
        .args(["--output", "-"])
        .arg(file.path())
        .stdin(Stdio::null())
        .output()
        .ok()?;
    if !output.status.success() {
        let says = String::from_utf8_lossy(&output.stderr);
        return Some(Err(format!("gpgv refuses it: {}", says.trim())));
    }
    Some(String::from_utf8(output.stdout).map_err(|_| "the release file is no text".into()))
}

/// What stands between the lines of a clear-signed text.
fn unchecked(bytes: &[u8]) -> Result<String, String> {
    let text = str::from_utf8(bytes).map_err(|_| "the release file is no text")?;
    let body = text
        .strip_prefix("-----BEGIN PGP SIGNED MESSAGE-----\n")
        .and_then(|rest| rest.split_once("\n\n"))
        .and_then(|(_, rest)| rest.split_once("\n-----BEGIN PGP SIGNATURE-----"));
    body.map(|(body, _)| format!("{body}\n")).ok_or_else(|| "the release file is not clear-signed".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Quiet;

    const SIGNED: &str = "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nCodename: trixie\nDate: Sat\nMD5Sum:\n 00 1 a\n\
        SHA256:\n 0101010101010101010101010101010101010101010101010101010101010101 17 main/Packages.xz\n bad 18 b\n\
        -----BEGIN PGP SIGNATURE-----\nx\n-----END PGP SIGNATURE-----\n";

    #[test]
    fn entries_are_found_in_what_was_signed_and_nowhere_else() {
        let release = Release { text: unchecked(SIGNED.as_bytes()).expect("clear-signed") };
        let entry = Entry { sha256: cocoon_image::HexBytes([1; 32]), size: 17 };
        assert_eq!(release.entry("main/Packages.xz"), Some(entry));
        assert_eq!(release.entry("a"), None, "MD5 only");
        assert_eq!(release.entry("b"), None, "no hash");
        assert_eq!(release.field("Codename"), Some("trixie"));
        assert!(unchecked(b"Codename: trixie\n").is_err());
        assert!(unchecked(&[0xff]).is_err());
    }

    #[test]
    fn a_signature_that_nobody_made_is_refused_where_it_can_be_checked() {
        let keyring = Path::new(KEYRING);
        match verified(SIGNED.as_bytes(), keyring) {
            Some(result) => {
                assert!(result.expect_err("nobody signed it").contains("gpgv refuses it"));
                assert!(Release::open("trixie", SIGNED.as_bytes(), &Quiet).is_err());
            }
            None => eprintln!("SKIPPED: gpgv or Debian's keyring is missing here"),
        }
        assert!(verified(SIGNED.as_bytes(), Path::new("/nonexistent/keyring.gpg")).is_none());
    }

    #[test]
    fn another_suites_release_is_refused() {
        if !Path::new(KEYRING).exists() {
            let error = Release::open("sid", SIGNED.as_bytes(), &Quiet).err().expect("refused");
            assert!(error.to_string().contains("another suite"));
        }
    }
}
