//! deny.toml held without cargo-deny: licences, bans and sources, read from `cargo metadata`.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root")
}

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--locked",
            "--filter-platform",
            "x86_64-unknown-linux-gnu",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo prints JSON")
}

fn rules() -> toml::Table {
    std::fs::read_to_string(root().join("deny.toml")).expect("deny.toml").parse().expect("deny.toml is TOML")
}

fn strings(value: &toml::Value) -> BTreeSet<String> {
    value.as_array().expect("a list").iter().map(|v| v.as_str().expect("a string").to_owned()).collect()
}

/// An SPDX expression is satisfied: every AND part has an allowed OR alternative.
fn allowed(expression: &str, list: &BTreeSet<String>) -> bool {
    let flat = expression.replace(['(', ')'], " ").replace('/', " OR ");
    flat.split(" AND ").all(|part| part.split(" OR ").any(|one| list.contains(one.trim())))
}

#[test]
fn every_licence_is_on_the_list() {
    let (metadata, rules) = (metadata(), rules());
    let list = strings(&rules["licenses"]["allow"]);
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().expect("a name");
        // A few crates carry a licence file instead of an expression; each is looked at by hand and named here.
        // MIT, by their LICENSE files. (everscale-crypto comes with tests only.)
        let by_hand = ["ton-contracts", "tlb", "tlb-ton", "tlbits", "everscale-crypto"];
        if name == "nacl" {
            assert_eq!(package["license"], "LGPL-3.0+", "the exception in deny.toml is for this licence");
            continue;
        }
        if name == "option-ext" {
            assert_eq!(package["license"], "MPL-2.0", "the exception in deny.toml is for this licence");
            continue;
        }
        match package["license"].as_str() {
            Some(expression) => {
                assert!(allowed(expression, &list), "{name}: {expression} is not on the list of deny.toml")
            }
            None => assert!(by_hand.contains(&name), "{name} names no licence: {}", package["license_file"]),
        }
    }
}

#[test]
fn no_copyleft_reaches_the_guest() {
    let output = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--locked",
            "-p",
            "cocoon-guest",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--format",
            "{p}",
        ])
        .current_dir(root())
        .output()
        .expect("cargo runs");
    let tree = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(tree.contains("cocoon-engine"), "the guest's tree: {tree}");
    // option-ext (MPL-2.0) is in this tree, under sev, and not in the binary: see deny.toml.
    for banned in ["nacl ", "ton-contracts ", "tycho-", "reqwest ", "cocoon-simulated-tee ", "cocoon-chain "]
    {
        assert!(!tree.lines().any(|line| line.starts_with(banned)), "{banned}is linked into the guest");
    }
}

#[test]
fn banned_crates_stay_out() {
    let (metadata, rules) = (metadata(), rules());
    let present: BTreeSet<&str> = metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .filter_map(|p| p["name"].as_str())
        .collect();
    for ban in rules["bans"]["deny"].as_array().expect("a list") {
        let name = ban["crate"].as_str().expect("a name");
        assert!(!present.contains(name), "{name} is in the tree: {}", ban["reason"]);
    }
}

#[test]
fn everything_comes_from_the_registry_or_this_tree() {
    let metadata = metadata();
    for package in metadata["packages"].as_array().expect("packages") {
        let source = package["source"].as_str();
        let name = &package["name"];
        assert!(source.is_none_or(|s| s.starts_with("registry+")), "{name} comes from {source:?}");
    }
}
