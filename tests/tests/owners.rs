//! A registry of several owners, each a process of his own with his own key and no other: files go from one to the next.
//! And an operator's bond from a wallet that cannot back it, to one that was taken home.

use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output, Stdio};

use cocoon_contracts::SigningKey;
use cocoon_tests::{Part, binary, tiny_model};
use serde_json::Value;

struct Owners {
    folder: tempfile::TempDir,
    _chain: Part,
}

impl Owners {
    fn run(&self, words: &str) -> Output {
        let mut command = Command::new(binary("cocoon"));
        command.args(words.split_whitespace()).args(["--state", "state"]).current_dir(self.folder.path());
        command.stdin(Stdio::null()).output().expect("cocoon starts")
    }

    /// Runs it; it must end with this code and say this.
    fn says(&self, words: &str, code: i32, what: &str) -> String {
        let output = self.run(words);
        let said = format!(
            "{}\n{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        assert_eq!(output.status.code(), Some(code), "{words}: {said}");
        assert!(said.contains(what), "{words} does not say {what:?}: {said}");
        said
    }

    fn file(&self, name: &str, content: &str) {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).expect("our folder");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("ours");
    }

    /// What is in force, as `show --toml` writes it.
    fn content(&self) -> toml::Table {
        let output = self.run("registry show --toml");
        String::from_utf8(output.stdout).expect("text").parse().expect("TOML")
    }

    fn version(&self) -> u64 {
        let shown: Value =
            serde_json::from_slice(&self.run("registry show --json").stdout).expect("one JSON object");
        shown["version"].as_u64().expect("a number")
    }
}

fn one_of_one() -> Owners {
    let folder = tempfile::tempdir().expect("a folder");
    let (state, model) = (folder.path().join("state"), tiny_model());
    let chain = Part::start(
        &[
            "chain",
            "--listen",
            "127.0.0.1:0",
            "--state",
            state.to_str().expect("UTF-8"),
            "--model",
            model.to_str().expect("UTF-8"),
        ],
        &folder.path().join("chain.log"),
    );
    Owners { folder, _chain: chain }
}

/// A network whose registry takes two of three owners, `1.key` to `3.key`; `4.key` is nobody's.
fn two_of_three() -> Owners {
    let owners = one_of_one();
    let mut keys = Vec::new();
    for number in 1..=4_u8 {
        owners.file(&format!("{number}.key"), &hex::encode([number; 32]));
        keys.push(toml::Value::from(hex::encode(SigningKey::from_seed(&[number; 32]).public())));
    }
    keys.truncate(3);
    let mut content = owners.content();
    let table = content["owners"].as_table_mut().expect("a table");
    table.insert("required".to_owned(), 2.into());
    table.insert("keys".to_owned(), keys.into());
    owners.file("owners.toml", &content.to_string());
    owners.says("registry propose owners.toml", 0, "owners: 1 of 1 → 2 of 3");
    owners.says("registry activate --wait", 0, "version 2 is in force");
    owners
}

#[test]
fn a_change_needs_its_majority_and_each_signs_alone() {
    let owners = two_of_three();
    let mut content = owners.content();
    owners.file("present.toml", &content.to_string());
    content.insert("fee_bps".to_owned(), 123.into());
    owners.file("fee.toml", &content.to_string());
    let change = "network fee in basis points: 500 → 123";

    owners.says("registry propose fee.toml --key 4.key --out none.boc", 1, "none of the registry's owners");
    owners.says("registry propose fee.toml --key 1.key --out a.boc", 0, "1 more owner must sign");
    owners.says("registry send a.boc", 1, "1 of 2 necessary owners have signed");
    owners.says("registry sign a.boc --key 1.key --yes", 0, "this owner had signed before");
    owners.says("registry sign a.boc --key 2.key", 2, "nobody is there to be asked");
    owners.says("registry sign a.boc --key 4.key --yes", 1, "none of the registry's owners");
    let signed = owners.says("registry sign a.boc --key 2.key --against present.toml --yes", 0, change);
    assert!(signed.contains("signed: enough owners have"), "{signed}");
    owners.says("registry sign a.boc --key 3.key --yes", 0, "signed: enough owners have");
    assert_eq!(owners.version(), 2, "nothing was sent yet");

    let whole = std::fs::read(owners.folder.path().join("a.boc")).expect("it is there");
    std::fs::write(owners.folder.path().join("cut.boc"), &whole[..whole.len() / 2]).expect("our folder");
    owners.says("registry send cut.boc", 1, "neither a proposal nor a cancellation");
    // Whoever sends it needs no owner's key.
    owners.says("registry send a.boc", 0, "announced");
    owners.says("registry send a.boc", 1, "another number of proposals");

    owners.says("registry cancel --key 3.key --out c.boc", 0, "1 more owner must sign");
    owners.says("registry sign c.boc --key 2.key --yes", 0, "signed: enough owners have");
    owners.says("registry send c.boc", 0, "taken back");
    owners.says("registry activate", 1, "nothing is announced");
    assert_eq!(owners.content()["fee_bps"].as_integer(), Some(500));

    // What was taken back does not come again by its old signatures; with new ones it does.
    owners.says("registry send a.boc", 1, "another number of proposals");
    owners.says("registry propose fee.toml --key 1.key --key 3.key", 0, "announced");
    owners.says("registry activate --wait", 0, "version 3 is in force");
    assert_eq!(owners.content()["fee_bps"].as_integer(), Some(123));
}

#[test]
fn two_that_sign_copies_bring_their_signatures_together() {
    let owners = two_of_three();
    let mut content = owners.content();
    content.insert("fee_bps".to_owned(), 7.into());
    owners.file("fee.toml", &content.to_string());
    owners.says("registry propose fee.toml --key 1.key --out one.boc", 0, "written to one.boc");
    let path = owners.folder.path();
    std::fs::copy(path.join("one.boc"), path.join("other.boc")).expect("our folder");
    owners.says("registry sign other.boc --key 3.key --yes", 0, "signed: enough owners have");
    owners.says("registry send one.boc other.boc", 0, "announced");
    owners.says("registry history", 0, "signed by owners");
}

#[test]
fn a_bond_that_was_not_backed_is_neither_in_the_way_nor_taken_home() {
    let owners = one_of_one();
    let open = |stake: &str, delay: u8| format!("bond open --of operator --stake {stake} --delay {delay}");
    owners.says(&open("1000000", 5), 1, "holds 20 TON and needs 1000000.");
    owners.says("bond show --of operator", 1, "it was not backed yet");
    owners.says("bond withdraw --of operator", 1, "it was never backed, or its stake is gone already");
    owners.says(&open("1.5", 1), 0, "bonded");
    owners.says(&open("2.5", 9), 1, "has a bond already, with other terms");
    owners.says("bond withdraw --of operator", 1, "was not taken home");
    owners.says("bond unbond --of operator", 0, "releasing");
    std::thread::sleep(std::time::Duration::from_secs(3));
    let note = owners.folder.path().join("state/operator/bond.address");
    let address = std::fs::read_to_string(&note).expect("it is noted");
    owners.says("bond withdraw --of operator", 0, "is on its way");
    // As a kill after the withdrawal would leave it.
    std::fs::write(&note, &address).expect("our folder");
    owners.says("bond withdraw --of operator", 1, "it was never backed, or its stake is gone already");
    owners.says(&open("2.5", 9), 0, "bonded");
}
