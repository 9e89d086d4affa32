//! The index of a suite's packages (deb822(5)): only what pinning and dependencies need.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};

use cocoon_image::Sha256;

use crate::Error;
use crate::lock::Pinned;

/// No index is longer than this many bytes, unpacked.
const UNPACKED_MAX: u64 = 512 << 20;
/// No line of it, dependencies included, is longer than this.
const LINE_MAX: u64 = 1 << 20;

/// The packages of a suite.
pub(crate) struct Index {
    packages: HashMap<String, Package>,
    /// Names that packages provide beside their own.
    provided: HashMap<String, String>,
}

/// One package with what it needs.
pub(crate) struct Package {
    pub(crate) pinned: Pinned,
    pub(crate) depends: Vec<Dependency>,
}

/// A package that another one needs: of alternatives the first one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dependency {
    pub(crate) name: String,
    /// An operator and a version: `>=`, `2.38`.
    pub(crate) version: Option<(String, String)>,
}

impl Index {
    /// Unpacks and reads a `Packages.xz`.
    ///
    /// # Errors
    /// If it is not of the format. Packages without hash or place are left out: they cannot be fetched.
    pub(crate) fn read(suite: &str, compressed: &[u8]) -> Result<Self, Error> {
        Self::parse(suite, crate::deb::unxz(compressed).take(UNPACKED_MAX))
            .map_err(|error| Error::Package { name: format!("index of {suite}"), reason: error.to_string() })
    }

    fn parse(suite: &str, text: impl Read) -> std::io::Result<Self> {
        let mut index = Self { packages: HashMap::new(), provided: HashMap::new() };
        let mut reader = BufReader::new(text);
        let mut fields: HashMap<String, String> = HashMap::new();
        let mut line = String::new();
        loop {
            line.clear();
            let length = (&mut reader).take(LINE_MAX).read_line(&mut line)?;
            if length == 0 || line == "\n" {
                index.add(suite, &fields);
                fields.clear();
                if length == 0 {
                    return Ok(index);
                }
            } else if let Some((field, value)) = line.split_once(": ")
                && !field.starts_with(' ')
            {
                fields.insert(field.to_owned(), value.trim_end().to_owned());
            }
        }
    }

    fn add(&mut self, suite: &str, fields: &HashMap<String, String>) -> Option<()> {
        let field = |name: &str| fields.get(name).cloned();
        let pinned = Pinned {
            name: field("Package")?,
            version: field("Version")?,
            suite: suite.to_owned(),
            path: field("Filename")?,
            size: field("Size")?.parse().ok()?,
            sha256: Sha256::from_hex(fields.get("SHA256")?)?,
        };
        let here =
            |package: &Package| super::compare_versions(&package.pinned.version, &pinned.version).is_ge();
        if !matches!(fields.get("Architecture")?.as_str(), "all" | super::ARCHITECTURE)
            || self.packages.get(&pinned.name).is_some_and(here)
        {
            return None;
        }
        let list = |name: &str| dependencies(fields.get(name).map_or("", String::as_str));
        for provided in list("Provides") {
            self.provided.entry(provided.name).or_insert_with(|| pinned.name.clone());
        }
        let depends = [list("Pre-Depends"), list("Depends")].concat();
        self.packages.insert(pinned.name.clone(), Package { pinned, depends });
        Some(())
    }

    /// The package of this name.
    pub(crate) fn package(&self, name: &str) -> Option<&Package> {
        self.packages.get(name)
    }

    /// A package that provides this name.
    pub(crate) fn provider(&self, name: &str) -> Option<&Package> {
        self.packages.get(self.provided.get(name)?)
    }
}

/// `a (>= 1) | b, c:any` is a ≥ 1 and c.
fn dependencies(list: &str) -> Vec<Dependency> {
    let first = |entry: &str| -> Option<Dependency> {
        let entry = entry.split('|').next()?.trim();
        let (name, rest) = entry.split_once(' ').unwrap_or((entry, ""));
        let name = name.split(':').next()?.to_owned();
        let constraint = rest.trim().strip_prefix('(').and_then(|rest| rest.split_once(')'));
        let version = constraint.and_then(|(inner, _)| inner.split_once(' '));
        let version = version.map(|(operator, version)| (operator.to_owned(), version.trim().to_owned()));
        (!name.is_empty()).then_some(Dependency { name, version })
    };
    list.split(',').filter_map(first).collect()
}

#[cfg(test)]
pub(super) fn sample(suite: &str, text: &str) -> Index {
    Index::parse(suite, text.as_bytes()).expect("text")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_read_with_their_first_alternatives() {
        let hash = "01".repeat(32);
        let entry = |name: &str, version: &str, more: &str| {
            format!(
                "Package: {name}\nVersion: {version}\nArchitecture: amd64\nFilename: pool/{name}.deb\nSize: 9\n\
                 SHA256: {hash}\n{more}Description: x\n Package: nested\n\n"
            )
        };
        let text = [
            entry("a", "1", "Depends: b (>= 2) | c, d:any, e (= 1:2-3)\nProvides: virtual (= 1)\n"),
            entry("a", "0.9", ""),
            entry("f", "1", "").replace("amd64\n", "arm64\n"),
            entry("g", "1", "").replace(&hash, "none"),
        ]
        .concat();
        let index = sample("trixie", &text);
        let a = index.package("a").expect("it is there");
        assert_eq!((a.pinned.version.as_str(), a.pinned.suite.as_str()), ("1", "trixie"));
        let dependency = |name: &str, version: Option<(&str, &str)>| Dependency {
            name: name.into(),
            version: version.map(|(o, v)| (o.into(), v.into())),
        };
        let expected = [
            dependency("b", Some((">=", "2"))),
            dependency("d", None),
            dependency("e", Some(("=", "1:2-3"))),
        ];
        assert_eq!(a.depends, expected);
        assert_eq!(index.provider("virtual").expect("provided").pinned.name, "a");
        for absent in ["f", "g", "nested"] {
            assert!(index.package(absent).is_none(), "{absent}");
        }
    }
}
