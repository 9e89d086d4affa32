//! The lock file: every package by name, version and SHA-256. What it does not name is not fetched.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use cocoon_image::{HexBytes, Sha256};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::groups::Group;

/// The version of the lock's format.
const VERSION: u32 = 1;
/// No lock file is longer than this many bytes.
const LOCK_MAX: u64 = 4 << 20;
/// No package may be longer than this many bytes.
pub const PACKAGE_MAX: u64 = 256 << 20;
const HEADER: &str = "\
# The Debian packages that the guest image and its tools are made of. Written by `cocoon image lock --update`, which
# shows what changes; not meant to be edited. Why each group has what it has: guest-image/build/src/groups.rs.
";

/// All that is pinned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lock {
    unsigned: Vec<String>,
    groups: BTreeMap<Group, Vec<Pinned>>,
    /// SHA-256 of the file's bytes.
    digest: Sha256,
}

/// One package.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pinned {
    /// Its name in the archive.
    pub name: String,
    /// Its version in the archive.
    pub version: String,
    /// The suite that it was found in.
    pub suite: String,
    /// Where it is below the archive's address.
    pub path: String,
    /// Its length in bytes.
    pub size: u64,
    /// SHA-256 of the `.deb`.
    pub sha256: Sha256,
}

/// Unknown fields are unknown groups, and refused as such.
#[derive(Serialize, Deserialize)]
struct Wire {
    version: u32,
    /// Suites whose index was believed without its signature.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    unsigned: Vec<String>,
    #[serde(flatten)]
    groups: BTreeMap<Group, Vec<Pinned>>,
}

impl Lock {
    /// The one that this program was built with: for tools that run outside of a source tree.
    ///
    /// # Panics
    /// Never: a test reads the same bytes.
    pub fn built_in() -> Self {
        Self::parse(include_bytes!("../../image.lock")).expect("a test reads the same bytes")
    }

    /// Reads a lock file.
    ///
    /// # Errors
    /// If it cannot be read or is not of the format.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let length = std::fs::metadata(path).map_err(Error::io("read", path))?.len();
        let wrong = |reason: String| Error::Lock { path: path.to_owned(), reason };
        if length > LOCK_MAX {
            return Err(wrong(format!(
                "it has {length} bytes, more than the {LOCK_MAX} that a lock may have"
            )));
        }
        Self::parse(&std::fs::read(path).map_err(Error::io("read", path))?).map_err(wrong)
    }

    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let text = str::from_utf8(bytes).map_err(|error| error.to_string())?;
        let wire: Wire = toml::from_str(text).map_err(|error| error.to_string())?;
        if wire.version != VERSION {
            return Err(format!("it is of version {}, this program reads version {VERSION}", wire.version));
        }
        let lock = Self { unsigned: wire.unsigned, groups: wire.groups, digest: Sha256::of(bytes) };
        lock.groups.values().flatten().try_for_each(Pinned::check)?;
        for (group, packages) in &lock.groups {
            if !packages.is_sorted_by(|a, b| a.name < b.name) {
                return Err(format!("the group {} is not sorted, or names a package twice", group.word()));
            }
        }
        Ok(lock)
    }

    /// A lock of these packages; sorted here.
    pub fn new(groups: BTreeMap<Group, Vec<Pinned>>) -> Self {
        Self::with_unsigned(groups, Vec::new())
    }

    /// As [`Lock::new`], with the suites that were believed without a signature.
    pub fn with_unsigned(mut groups: BTreeMap<Group, Vec<Pinned>>, unsigned: Vec<String>) -> Self {
        groups.values_mut().for_each(|packages| packages.sort_by(|a, b| a.name.cmp(&b.name)));
        let mut lock = Self { unsigned, groups, digest: HexBytes([0; 32]) };
        lock.digest = Sha256::of(lock.to_toml().as_bytes());
        lock
    }

    /// SHA-256 of the file's bytes.
    pub fn digest(&self) -> Sha256 {
        self.digest
    }

    /// The suites whose index was believed without its signature when the lock was made; none, normally.
    pub fn unsigned(&self) -> &[String] {
        &self.unsigned
    }

    /// The packages of a group, by name.
    ///
    /// # Errors
    /// If the lock has no such group.
    pub fn group(&self, group: Group) -> Result<&[Pinned], Error> {
        self.groups.get(&group).map(Vec::as_slice).filter(|packages| !packages.is_empty()).ok_or_else(|| {
            let reason = format!("it has no packages of the group {}", group.word());
            Error::Lock { path: "guest-image/image.lock".into(), reason }
        })
    }

    /// All packages with their groups.
    pub fn packages(&self) -> impl Iterator<Item = (Group, &Pinned)> {
        self.groups.iter().flat_map(|(group, packages)| packages.iter().map(|package| (*group, package)))
    }

    /// The file's text.
    pub fn to_toml(&self) -> String {
        let Self { unsigned, groups, .. } = self.clone();
        let wire = Wire { version: VERSION, unsigned, groups };
        format!("{HEADER}{}", toml::to_string(&wire).expect("strings and numbers can be written"))
    }

    /// Replaces the file, whole or not at all.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        crate::output::replace_file(path, self.to_toml().as_bytes())
    }

    /// What changes from `before` to this one, for people: one line for each package; empty if nothing does.
    pub fn changes_since(&self, before: &Lock) -> String {
        let by_name = |lock: &Lock| -> BTreeMap<(Group, String), Pinned> {
            lock.packages().map(|(group, package)| ((group, package.name.clone()), package.clone())).collect()
        };
        let (old, new) = (by_name(before), by_name(self));
        let mut text = String::new();
        for key in old.keys().chain(new.keys().filter(|key| !old.contains_key(*key))) {
            let (group, name) = (key.0.word(), &key.1);
            let _ = match (old.get(key), new.get(key)) {
                (Some(old), Some(new)) if old == new => Ok(()),
                (Some(old), Some(new)) if old.version != new.version => {
                    let word = match crate::archive::compare_versions(&old.version, &new.version) {
                        std::cmp::Ordering::Greater => "  (older!)",
                        _ => "",
                    };
                    writeln!(text, "~ {group:<12} {name} {} → {}{word}", old.version, new.version)
                }
                (Some(old), Some(new)) if old.sha256 != new.sha256 => {
                    writeln!(text, "! {group:<12} {name} {}: other bytes under the same version", new.version)
                }
                (Some(_), Some(new)) => {
                    writeln!(text, "~ {group:<12} {name} {}: moved to {}", new.version, new.path)
                }
                (Some(old), None) => writeln!(text, "- {group:<12} {name} {}", old.version),
                (None, Some(new)) => writeln!(text, "+ {group:<12} {name} {} ({})", new.version, new.suite),
                (None, None) => Ok(()),
            };
        }
        text
    }
}

impl Pinned {
    /// Names and paths become parts of addresses and messages, lengths become memory.
    fn check(&self) -> Result<(), String> {
        let plain = |text: &str, extra: &str| {
            !text.is_empty()
                && text.len() <= 256
                && text.chars().all(|c| c.is_ascii_alphanumeric() || extra.contains(c))
        };
        let path = plain(&self.path, "+-._~:/%") && !self.path.starts_with('/') && !self.path.contains("..");
        if !plain(&self.name, "+-.") || !plain(&self.version, "+-.~:") || !plain(&self.suite, "-/") || !path {
            return Err(format!("the entry of `{}` is not of plain characters", self.name.escape_debug()));
        }
        if self.size > PACKAGE_MAX {
            return Err(format!(
                "{} has {} bytes, more than the {PACKAGE_MAX} allowed",
                self.name, self.size
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pinned(name: &str, version: &str) -> Pinned {
        Pinned {
            name: name.into(),
            version: version.into(),
            suite: "trixie".into(),
            path: format!("pool/main/x/{name}_{version}_amd64.deb"),
            size: 7,
            sha256: Sha256::of(version.as_bytes()),
        }
    }

    fn lock(packages: &[(&str, &str)]) -> Lock {
        Lock::new(BTreeMap::from([(Group::Guest, packages.iter().map(|(n, v)| pinned(n, v)).collect())]))
    }

    #[test]
    fn the_lock_of_this_program_is_one_and_has_every_group() {
        let lock = Lock::built_in();
        for group in Group::ALL {
            assert!(!lock.group(group).expect("it is there").is_empty());
        }
        assert_eq!(lock.to_toml().as_bytes(), include_bytes!("../../image.lock"), "as `--update` writes it");
    }

    #[test]
    fn a_lock_survives_its_text() {
        let lock = lock(&[("libc6", "2.41-12"), ("libgcc-s1", "14.2.0-19")]);
        assert_eq!(Lock::parse(lock.to_toml().as_bytes()).expect("its own text"), lock);
    }

    #[test]
    fn a_lock_says_which_suites_were_believed_without_a_signature() {
        let signed = lock(&[("libc6", "2.41-12")]);
        let unsigned = Lock::with_unsigned(signed.groups.clone(), vec!["sid".into()]);
        assert!(unsigned.to_toml().contains("\nunsigned = [\"sid\"]\n"), "{}", unsigned.to_toml());
        assert_eq!(Lock::parse(unsigned.to_toml().as_bytes()).expect("its own text").unsigned(), ["sid"]);
        assert_ne!(signed.digest(), unsigned.digest());
        assert!(Lock::built_in().unsigned().is_empty(), "what is published was signed");
    }

    #[test]
    fn what_is_not_of_the_format_is_refused_with_the_reason() {
        let good = lock(&[("libc6", "2.41-12"), ("libgcc-s1", "14.2.0-19")]).to_toml();
        let changes = [
            ("name = \"libc6\"", "name = \"libc6\"\nmirror = \"x\"", "unknown field `mirror`"),
            ("[[guest]]", "[[gest]]", "gest"),
            ("version = 1\n", "version = 2\n", "version 2"),
            ("pool/main/x/libc6", "../../x", "plain characters"),
            ("name = \"libc6\"", "name = \"li bc6\"", "plain characters"),
            ("name = \"libc6\"", "name = \"zlibc6\"", "not sorted"),
            ("size = 7", "size = 268435457", "more than the 268435456 allowed"),
        ];
        for (from, to, says) in changes {
            assert!(good.contains(from), "{from}");
            let why = Lock::parse(good.replacen(from, to, 1).as_bytes()).expect_err("refused");
            assert!(why.contains(says), "{says}: {why}");
        }
    }

    #[test]
    fn changes_are_told_by_package() {
        let before = lock(&[("a", "1.0"), ("b", "2.0"), ("c", "3.0"), ("e", "1")]);
        let after = lock(&[("a", "1.1"), ("b", "1:0.1"), ("d", "4.0"), ("e", "1")]);
        let told = after.changes_since(&before);
        assert_eq!(
            told,
            "~ guest        a 1.0 → 1.1\n~ guest        b 2.0 → 1:0.1\n- guest        c 3.0\n+ guest        d 4.0 (trixie)\n"
        );
        assert!(before.changes_since(&after).contains("a 1.1 → 1.0  (older!)"));
        assert_eq!(after.changes_since(&after), "");
    }
}
