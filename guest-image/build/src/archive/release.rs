//! `InRelease`: what a suite consists of, signed by the archive, for a time.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use cocoon_image::Sha256;

use super::Trust;
use crate::Error;
use crate::progress::Progress;

/// Where Debian's package of the archive's keys puts them.
pub(crate) const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A release file's text: what was signed, or what was taken without a look at the signature.
#[derive(Debug)]
pub(crate) struct Release {
    text: String,
    /// Whether the signature was checked.
    pub(crate) signed: bool,
}

/// A file that the release names.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) sha256: Sha256,
    pub(crate) size: u64,
}

/// How a release file is judged.
pub(crate) struct Judge<'a> {
    /// The keys that are believed.
    pub(crate) keyring: &'a Path,
    /// What may be missing.
    pub(crate) trust: Trust,
    /// Seconds since 1970.
    pub(crate) now: u64,
    /// What is told what was seen.
    pub(crate) progress: &'a dyn Progress,
}

impl Release {
    /// Checks the signature with gpgv, the suite's name, and until when it is valid where it says that.
    ///
    /// # Errors
    /// If the signature is wrong, or cannot be checked and [`Trust::unsigned`] is not given; if it is no release file of this
    /// suite; if it is valid no more and [`Trust::stale`] is not given.
    pub(crate) fn open(suite: &str, bytes: &[u8], judge: &Judge<'_>) -> Result<Self, Error> {
        let untrusted = |reason: String| Error::Signature { suite: suite.into(), reason };
        let release = match verified(bytes, judge.keyring) {
            Some(result) => Self { text: result.map_err(untrusted)?, signed: true },
            None if judge.trust.unsigned => {
                Self { text: unchecked(bytes).map_err(untrusted)?, signed: false }
            }
            None => return Err(Error::Unchecked { suite: suite.into() }),
        };
        if !release.is_of(suite) {
            return Err(untrusted("the release file is that of another suite".into()));
        }
        let age = release.age(suite, judge)?;
        let date = release.field("Date").unwrap_or("an unknown date");
        let checked = if release.signed {
            "signature checked"
        } else {
            "SIGNATURE NOT CHECKED (--unsigned): whoever is on the way can have chosen these packages"
        };
        judge.progress.note(&format!("suite {suite} of {date}: {checked}{age}"));
        Ok(release)
    }

    /// Whether it is of the suite, by its code name or by its present role.
    fn is_of(&self, suite: &str) -> bool {
        ["Codename", "Suite"].into_iter().any(|field| self.field(field) == Some(suite))
    }

    /// What to say of its age: an archive, or somebody on the way, that keeps showing an old one hides what was mended since.
    fn age(&self, suite: &str, judge: &Judge<'_>) -> Result<String, Error> {
        let Some(until) = self.field("Valid-Until") else {
            return Ok(", it does not say until when it is valid".into());
        };
        let time = seconds(until).ok_or_else(|| Error::Signature {
            suite: suite.into(),
            reason: format!("Valid-Until is no time: {}", until.escape_debug()),
        })?;
        match (judge.now <= time, judge.trust.stale) {
            (true, _) => Ok(format!(", valid until {until}")),
            (false, true) => {
                Ok(format!(", VALID ONLY UNTIL {until} (--stale): newer packages may be hidden"))
            }
            (false, false) => Err(Error::Stale { suite: suite.into(), until: until.into() }),
        }
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

/// Seconds since 1970 of a time as release files have it (RFC 2822, always UTC): `Sat, 15 Nov 2025 20:20:20 UTC`.
fn seconds(text: &str) -> Option<u64> {
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let mut words = text.split_ascii_whitespace();
    let (_, day, month, year) = (words.next()?, words.next()?, words.next()?, words.next()?);
    let (clock, "UTC", None) = (words.next()?, words.next()?, words.next()) else { return None };
    let day: u64 = day.parse().ok().filter(|day| (1..=31).contains(day))?;
    let month = MONTHS.iter().position(|name| *name == month)? as u64;
    let year: u64 = year.parse().ok().filter(|year| (1970..=9999).contains(year))?;
    let mut parts = clock.split(':').map(|part| part.parse::<u64>().ok());
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    // Counted in years that begin in March, a leap day is the last day of its year.
    let (months, years) = ((month + 10) % 12, if month < 2 { year - 1 } else { year });
    let days = 365 * years + years / 4 - years / 100 + years / 400 + (153 * months + 2) / 5 + day;
    const UNIX: u64 = 719_469;
    Some((days.checked_sub(UNIX)?) * 86_400 + hour * 3600 + minute * 60 + second)
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

    fn judge(keyring: &Path, trust: Trust, now: u64) -> Judge<'_> {
        Judge { keyring, trust, now, progress: &Quiet }
    }

    fn nowhere() -> &'static Path {
        Path::new("/nonexistent/keyring.gpg")
    }

    const UNSIGNED: Trust = Trust { unsigned: true, stale: false };

    #[test]
    fn entries_are_found_in_what_was_signed_and_nowhere_else() {
        let release = Release { text: unchecked(SIGNED.as_bytes()).expect("clear-signed"), signed: false };
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
                let error = Release::open("trixie", SIGNED.as_bytes(), &judge(keyring, UNSIGNED, 0));
                let error =
                    error.expect_err("--unsigned is for where there is no gpgv, not for wrong signatures");
                assert!(error.to_string().contains("gpgv refuses it"), "{error}");
            }
            None => eprintln!("SKIPPED: gpgv or Debian's keyring is missing here"),
        }
    }

    #[test]
    fn a_signature_that_cannot_be_checked_is_none_unless_that_is_asked_for() {
        let error = Release::open("trixie", SIGNED.as_bytes(), &judge(nowhere(), Trust::default(), 0));
        let error = error.expect_err("no keyring");
        assert!(matches!(&error, Error::Unchecked { suite } if suite == "trixie"), "{error}");
        assert!(error.remedy().contains("gpgv debian-archive-keyring"), "{}", error.remedy());
        let release = Release::open("trixie", SIGNED.as_bytes(), &judge(nowhere(), UNSIGNED, 0));
        assert!(!release.expect("asked for").signed);
    }

    #[test]
    fn another_suites_release_is_refused() {
        let error = Release::open("sid", SIGNED.as_bytes(), &judge(nowhere(), UNSIGNED, 0));
        assert!(error.expect_err("it is trixie's").to_string().contains("another suite"));
        let of = |text: &str| Release { text: text.into(), signed: true };
        assert!(of("Suite: unstable\nCodename: sid\n").is_of("sid"));
        assert!(of("Suite: unstable\nCodename: sid\n").is_of("unstable"));
        assert!(!of("Suite: stable\nCodename: trixie\n").is_of("sid"));
        assert!(!of("Origin: sid\n Codename: sid\n").is_of("sid"));
    }

    #[test]
    fn a_release_that_is_valid_no_more_is_refused_unless_that_is_asked_for() {
        let until = "Sat, 15 Nov 2025 20:20:20 UTC";
        let text = SIGNED.replacen("Date: Sat", &format!("Date: Sat\nValid-Until: {until}"), 1);
        let open = |now, stale| {
            let trust = Trust { stale, ..UNSIGNED };
            Release::open("trixie", text.as_bytes(), &judge(nowhere(), trust, now))
        };
        const UNTIL: u64 = 1_763_238_020;
        assert!(open(UNTIL, false).is_ok());
        let error = open(UNTIL + 1, false).expect_err("a second late");
        assert!(matches!(&error, Error::Stale { until: told, .. } if told == until), "{error}");
        assert!(error.remedy().contains("--stale"), "{}", error.remedy());
        assert!(open(UNTIL + 1, true).is_ok());
        let broken = text.replacen(until, "soon", 1);
        let trust = Trust { stale: true, ..UNSIGNED };
        let error = Release::open("trixie", broken.as_bytes(), &judge(nowhere(), trust, 0));
        assert!(error.expect_err("no time").to_string().contains("soon"));
    }

    #[test]
    fn times_of_releases_are_read_and_nothing_else() {
        for (text, expected) in [
            ("Thu, 01 Jan 1970 00:00:00 UTC", Some(0)),
            ("Tue, 29 Feb 2000 12:00:00 UTC", Some(951_825_600)),
            ("Wed, 01 Mar 2000 00:00:00 UTC", Some(951_868_800)),
            ("Fri, 31 Dec 2100 23:59:59 UTC", Some(4_133_980_799)),
            ("Thu, 01 Jan 1970 00:00:00 CET", None),
            ("Thu, 01 Jan 1970 00:00 UTC", None),
            ("Thu, 32 Jan 1970 00:00:00 UTC", None),
            ("Thu, 01 Jan 18446744073709551615 00:00:00 UTC", None),
            ("", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
