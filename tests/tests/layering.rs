//! The map of ARCHITECTURE.md, held by a test: which crate may depend on which, and which are pure.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Crate, folder, and the crates of ours it may depend on (development dependencies are free).
const EDGES: &[(&str, &str, &[&str])] = &[
    ("cocoon-attestation", "attestation", &[]),
    ("cocoon-fetch", "attestation/fetch", &["cocoon-attestation"]),
    ("cocoon-ratls", "attestation/ratls", &["cocoon-attestation"]),
    ("cocoon-simulated-tee", "attestation/simulated", &["cocoon-attestation"]),
    ("cocoon-contracts", "contracts", &[]),
    ("cocoon-chain", "contracts/chain", &["cocoon-contracts"]),
    ("cocoon-keystore", "contracts/keystore", &["cocoon-contracts"]),
    ("cocoon-ledger", "contracts/ledger", &["cocoon-contracts", "cocoon-chain"]),
    ("cocoon-liteserver", "contracts/liteserver", &["cocoon-contracts", "cocoon-chain"]),
    ("cocoon-image", "guest-image", &["cocoon-attestation"]),
    ("cocoon-image-build", "guest-image/build", &["cocoon-attestation", "cocoon-image"]),
    ("cocoon-init", "guest-image/init", &[]),
    ("cocoon-kernels", "kernels", &[]),
    ("cocoon-ptx-check", "kernels/ptx-check", &[]),
    ("cocoon-protocol", "runtime/protocol", &["cocoon-attestation"]),
    ("cocoon-reference", "runtime/reference", &["cocoon-attestation", "cocoon-contracts"]),
    ("cocoon-engine", "runtime/engine", &["cocoon-kernels"]),
    ("cocoon-supervisor", "runtime/supervisor", &[]),
    ("cocoon-grammar", "runtime/grammar", &["cocoon-engine"]),
    (
        "cocoon-guest",
        "runtime/guest",
        &["cocoon-attestation", "cocoon-protocol", "cocoon-engine", "cocoon-grammar", "cocoon-supervisor"],
    ),
    ("cocoon-accounts", "runtime/accounts", &["cocoon-chain", "cocoon-contracts", "cocoon-protocol"]),
    ("cocoon-accounts-postgres", "runtime/accounts/postgres", &["cocoon-accounts", "cocoon-contracts"]),
    (
        "cocoon-client",
        "runtime/client",
        &[
            "cocoon-attestation",
            "cocoon-protocol",
            "cocoon-reference",
            "cocoon-contracts",
            "cocoon-chain",
            "cocoon-accounts",
        ],
    ),
    (
        "cocoon-gateway",
        "runtime/gateway",
        &[
            "cocoon-attestation",
            "cocoon-protocol",
            "cocoon-reference",
            "cocoon-contracts",
            "cocoon-chain",
            "cocoon-accounts",
            "cocoon-accounts-postgres",
        ],
    ),
    (
        "cocoon-host",
        "runtime/host",
        &[
            "cocoon-attestation",
            "cocoon-fetch",
            "cocoon-simulated-tee",
            "cocoon-protocol",
            "cocoon-contracts",
            "cocoon-chain",
            "cocoon-accounts",
            "cocoon-image",
            "cocoon-image-build",
            "cocoon-launch",
        ],
    ),
    (
        "cocoon-launch",
        "runtime/launch",
        &["cocoon-attestation", "cocoon-simulated-tee", "cocoon-image", "cocoon-image-build"],
    ),
];

/// No sockets, files, clocks or runtimes: everything they need comes as an argument.
const PURE: &[&str] = &["attestation", "guest-image", "runtime/protocol", "runtime/reference", "contracts"];
const IMPURE_WORDS: &[&str] = &[
    "tokio",
    "std::net",
    "std::fs",
    "std::process",
    "SystemTime",
    "Instant::now",
    "std::env",
    "reqwest",
    "std::thread",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the root").to_path_buf()
}

fn manifest(folder: &str) -> toml::Table {
    let path = root().join(folder).join("Cargo.toml");
    std::fs::read_to_string(&path)
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
        .parse()
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn dependencies(folder: &str) -> BTreeSet<String> {
    manifest(folder)
        .get("dependencies")
        .and_then(|d| d.as_table())
        .map(|d| d.keys().cloned().collect())
        .unwrap_or_default()
}

fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
        let path = entry.expect("a readable entry").path();
        if path.is_dir() {
            sources(&path, out);
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
}

#[test]
fn every_crate_depends_only_on_what_the_map_allows() {
    let ours: BTreeSet<&str> = EDGES.iter().map(|(name, ..)| *name).collect();
    for (name, folder, allowed) in EDGES {
        let named = manifest(folder)["package"]["name"].as_str().map(str::to_owned);
        assert_eq!(named.as_deref(), Some(*name), "{folder} holds another crate");
        for dependency in dependencies(folder) {
            let is_ours = ours.contains(dependency.as_str()) || dependency.starts_with("cocoon");
            assert!(
                !is_ours || allowed.contains(&dependency.as_str()),
                "{name} may not depend on {dependency}"
            );
        }
    }
}

#[test]
fn every_member_of_the_workspace_is_on_the_map() {
    let workspace: toml::Table =
        std::fs::read_to_string(root().join("Cargo.toml")).expect("the root manifest").parse().expect("TOML");
    let members = workspace["workspace"]["members"].as_array().expect("a list").iter();
    let known: BTreeMap<&str, &str> = EDGES.iter().map(|(name, folder, _)| (*folder, *name)).collect();
    let wiring = ["runtime/cli", "scripts/xtask", "tests"]; // these may see everything
    for member in members.map(|m| m.as_str().expect("a string")) {
        assert!(
            known.contains_key(member) || wiring.contains(&member),
            "{member} is not in the table of edges"
        );
    }
}

#[test]
fn pure_crates_touch_no_socket_file_clock_or_runtime() {
    for folder in PURE {
        for banned in ["tokio", "axum", "hyper", "reqwest", "redb"] {
            assert!(
                !dependencies(folder).contains(banned),
                "{folder} must stay pure, but depends on {banned}"
            );
        }
        let mut files = Vec::new();
        sources(&root().join(folder).join("src"), &mut files);
        assert!(!files.is_empty(), "{folder} has no sources");
        for file in files {
            let text = std::fs::read_to_string(&file).expect("a readable source");
            // Test modules may read fixtures and clocks.
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            for (number, line) in code.lines().enumerate() {
                let line = line.split("//").next().unwrap_or_default();
                for word in IMPURE_WORDS {
                    assert!(
                        !line.contains(word),
                        "{}:{}: `{word}` in a pure crate",
                        file.display(),
                        number + 1
                    );
                }
            }
        }
    }
}

#[test]
fn the_guest_holds_neither_chain_nor_simulated_root() {
    let direct = dependencies("runtime/guest");
    for banned in [
        "cocoon-contracts",
        "cocoon-chain",
        "cocoon-accounts",
        "cocoon-simulated-tee",
        "tycho-types",
        "reqwest",
    ] {
        assert!(!direct.contains(banned), "the guest must not depend on {banned}");
    }
}

#[test]
fn no_source_file_names_an_unfinished_part() {
    let mut files = Vec::new();
    for top in ["attestation", "contracts", "guest-image", "kernels", "runtime", "scripts"] {
        sources(&root().join(top), &mut files);
    }
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a readable source");
        // Documentation tests that must not compile may say what they like.
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        for line in code {
            for word in ["todo!(", "unimplemented!(", "FIXME", "#[ignore", "#[allow("] {
                assert!(!line.contains(word), "{}: {word}", file.display());
            }
        }
    }
}
