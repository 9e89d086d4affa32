//! The committed code is the code of the committed sources: what can be checked without the compiler.

use std::path::PathBuf;

use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Lock {
    compiler: String,
    tolk: String,
    contracts: std::collections::BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    source_sha256: String,
    code_hash: String,
    boc_sha256: String,
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(ring::digest::digest(&ring::digest::SHA256, bytes))
}

/// The names of all contracts that there are.
fn sources(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder)
        .expect("the folder of this crate")
        .map(|entry| entry.expect("an entry").path());
    let contracts = entries.filter(|path| path.extension().is_some_and(|extension| extension == "tolk"));
    let mut names: Vec<_> =
        contracts.map(|path| path.file_stem().expect("a name").to_str().expect("UTF-8").to_owned()).collect();
    names.sort();
    names
}

#[test]
fn sources_and_code_are_those_of_the_lock() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let read = |name: &str| std::fs::read(folder.join(name)).expect(name);
    let lock: Lock = serde_json::from_slice(&read("contracts.lock")).expect("contracts.lock is JSON");
    assert_eq!(lock.compiler, "@ton/tolk-js 1.3.0");
    assert_eq!(lock.tolk, "1.3.0");
    assert_eq!(lock.contracts.keys().cloned().collect::<Vec<_>>(), sources(&folder));
    for (name, entry) in &lock.contracts {
        let remedy = "run scripts/contracts/check and review";
        assert_eq!(sha256(&read(&format!("{name}.tolk"))), entry.source_sha256, "{name}.tolk: {remedy}");
        assert_eq!(sha256(&read(&format!("{name}.boc"))), entry.boc_sha256, "{name}.boc: {remedy}");
    }
    assert_eq!(hex::encode(cocoon_contracts::bond::code_hash()), lock.contracts["bond"].code_hash);
    assert_eq!(hex::encode(cocoon_contracts::channel::code_hash()), lock.contracts["channel"].code_hash);
    let payout = cocoon_contracts::wallet::payout::code_hash();
    assert_eq!(hex::encode(payout), lock.contracts["payout"].code_hash);
    assert_eq!(hex::encode(cocoon_contracts::registry::code_hash()), lock.contracts["registry"].code_hash);
}
