//! What a group's packages depend on, to the end.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::index::{Dependency, Index, Package};
use crate::Error;
use crate::groups::Wanted;
use crate::lock::Pinned;

/// A group's packages: its roots, and if it says so what they need, without what it leaves out.
///
/// # Errors
/// If something is nowhere to be had, or what was chosen for one is too old for another.
pub(crate) fn closure(wanted: &Wanted, suites: &BTreeMap<&'static str, Index>) -> Result<Vec<Pinned>, Error> {
    let group = wanted.group.word();
    let mut chosen: BTreeMap<String, &Package> = BTreeMap::new();
    let mut todo = Vec::new();
    for (name, suite) in wanted.roots {
        let from = suite.as_slice();
        let dependency = Dependency { name: (*name).to_owned(), version: None };
        let package = find(&dependency, if from.is_empty() { wanted.suites } else { from }, suites)
            .ok_or_else(|| Error::Resolve(format!("{name}, wanted for {group}, is not in the archive")))?;
        chosen.insert(package.pinned.name.clone(), package);
        todo.extend(package.depends.iter().map(|dependency| (package, dependency)));
    }
    let left_out: BTreeSet<_> = wanted.without.iter().map(|(name, _)| *name).collect();
    while wanted.closure
        && let Some((by, dependency)) = todo.pop()
    {
        if left_out.contains(dependency.name.as_str()) {
            continue;
        }
        if let Some(package) = chosen.get(&dependency.name) {
            if !satisfies(package, dependency) {
                let (version, by) = (&package.pinned.version, &by.pinned.name);
                let text = format!(
                    "{} {version} for {group} does not suit {by}, which needs {dependency:?}",
                    dependency.name
                );
                return Err(Error::Resolve(text));
            }
            continue;
        }
        let package = find(dependency, wanted.suites, suites).ok_or_else(|| {
            Error::Resolve(format!("{dependency:?}, which {} needs, is not in the archive", by.pinned.name))
        })?;
        if chosen.insert(package.pinned.name.clone(), package).is_none() {
            todo.extend(package.depends.iter().map(|dependency| (package, dependency)));
        }
    }
    Ok(chosen.into_values().map(|package| package.pinned.clone()).collect())
}

/// In the first suite that has it in a version that suits; else who provides the name.
fn find<'a>(
    dependency: &Dependency,
    order: &[&'static str],
    suites: &'a BTreeMap<&'static str, Index>,
) -> Option<&'a Package> {
    let indexes: Vec<&'a Index> = order.iter().filter_map(|suite| suites.get(suite)).collect();
    let mut named = indexes.iter().filter_map(|index| index.package(&dependency.name));
    let suiting = named.find(|package| satisfies(package, dependency));
    suiting.or_else(|| indexes.iter().find_map(|index| index.provider(&dependency.name)))
}

fn satisfies(package: &Package, dependency: &Dependency) -> bool {
    let Some((operator, version)) = &dependency.version else { return true };
    let order = super::compare_versions(&package.pinned.version, version);
    match operator.as_str() {
        "<<" => order == Ordering::Less,
        "<=" => order != Ordering::Greater,
        "=" => order == Ordering::Equal,
        ">=" => order != Ordering::Less,
        ">>" => order == Ordering::Greater,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::archive::index::sample;
    use crate::groups::Group;

    fn index(suite: &str, packages: &[(&str, &str, &str)]) -> Index {
        let entry = |(name, version, depends): &(&str, &str, &str)| {
            let hash = "01".repeat(32);
            format!(
                "Package: {name}\nVersion: {version}\nArchitecture: all\nFilename: f\nSize: 1\nSHA256: {hash}\n\
                 Depends: {depends}\nProvides: {name}-virtual\n\n"
            )
        };
        sample(suite, &packages.iter().map(entry).collect::<String>())
    }

    fn wanted(roots: &'static [(&'static str, Option<&'static str>)]) -> Wanted {
        Wanted {
            group: Group::VmTools,
            suites: &["stable", "backports"],
            roots,
            closure: true,
            without: &[("unwanted", "a test")],
        }
    }

    fn resolved(
        roots: &'static [(&'static str, Option<&'static str>)],
        suites: &BTreeMap<&'static str, Index>,
    ) -> Vec<String> {
        let packages = closure(&wanted(roots), suites).expect("resolved");
        packages
            .iter()
            .map(|package| format!("{} {} {}", package.name, package.version, package.suite))
            .collect()
    }

    #[test]
    fn the_older_suite_is_taken_where_its_version_suits() {
        let suites = BTreeMap::from([
            ("stable", index("stable", &[("qemu", "10", ""), ("libc", "2.41", ""), ("data", "10", "")])),
            (
                "backports",
                index(
                    "backports",
                    &[
                        ("qemu", "11", "libc (>= 2.38), data (>> 11~), unwanted"),
                        ("data", "11", "libc-virtual"),
                    ],
                ),
            ),
        ]);
        assert_eq!(
            resolved(&[("qemu", Some("backports"))], &suites),
            ["data 11 backports", "libc 2.41 stable", "qemu 11 backports"]
        );
        assert_eq!(resolved(&[("qemu", None)], &suites), ["qemu 10 stable"]);
    }

    #[test]
    fn what_is_nowhere_or_too_old_is_named() {
        let suites = BTreeMap::from([(
            "stable",
            index("stable", &[("a", "1", "missing (>= 3)"), ("b", "1", "c, c (>= 9)"), ("c", "1", "")]),
        )]);
        let refused = |roots| closure(&wanted(roots), &suites).expect_err("refused").to_string();
        assert!(refused(&[("a", None)]).contains("missing"));
        assert!(refused(&[("b", None)]).contains("\"9\""));
        assert!(refused(&[("d", None)]).contains("d, wanted for vm-tools"));
    }
}
