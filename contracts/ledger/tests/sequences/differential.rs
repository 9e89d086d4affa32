//! The same transactions in the C++ TVM: npm's `@ton/sandbox` carries each out again, and compares.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cocoon_contracts::wallet::{Transfer, Validity, WalletVersion, comment};
use cocoon_contracts::{Address, Cell, SigningKey, TON, message};
use cocoon_ledger::{Genesis, GenesisAccount, Ledger, STORAGE_2026_SINCE, Schedule, configuration};
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use tycho_types::cell::CellBuilder;
use tycho_types::models::Transaction;

use super::net::Net;
use super::steps::script;
use super::world::NETWORK;
use super::{number, rng};

/// Sequences that are carried out twice, unless `COCOON_SEQUENCES` says otherwise.
/// Some 20 seconds, most of them the sandbox's.
const SEQUENCES: u64 = 150;
/// What is tried where nothing else is asked for; the one known deviation of `differential.mjs` is in it.
const SEED: u64 = 3_107_079_016_136_075_303;

/// All that a ledger did, one block a line.
#[derive(Default)]
pub(crate) struct Tape {
    lines: Vec<u8>,
    schedule: &'static str,
    sequence: u64,
}

fn base64(cell: &Cell) -> String {
    BASE64_STANDARD.encode(message::encode(cell))
}

impl Tape {
    /// The accounts as they are now.
    pub(crate) fn before(&self, ledger: &Ledger) -> BTreeMap<Address, Cell> {
        ledger
            .accounts()
            .map(|(address, account)| (address.clone(), CellBuilder::build_from(account).unwrap()))
            .collect()
    }

    /// A block, and the accounts before it.
    pub(crate) fn block(
        &mut self,
        ledger: &Ledger,
        before: BTreeMap<Address, Cell>,
        transactions: &[(Address, Cell)],
    ) {
        let mut touched = BTreeMap::new();
        let list: Vec<_> = transactions
            .iter()
            .map(|(address, cell)| {
                let account = before.get(address).map_or(json!(null), |account| json!(base64(account)));
                touched.insert(address.to_string(), account);
                let tx = cell.parse::<Transaction>().unwrap();
                json!({
                    "account": address.to_string(),
                    "message": base64(&tx.in_msg.unwrap()),
                    "lt": tx.lt.to_string(),
                    "now": tx.now,
                    "transaction": base64(cell),
                })
            })
            .collect();
        let after: BTreeMap<_, _> = touched
            .keys()
            .map(|name| {
                let address: Address = name.parse().unwrap();
                (
                    name.clone(),
                    base64(&CellBuilder::build_from(ledger.shard_account(&address).unwrap()).unwrap()),
                )
            })
            .collect();
        let line = json!({
            "sequence": self.sequence, "schedule": self.schedule, "before": touched, "after": after, "transactions": list,
        });
        serde_json::to_writer(&mut self.lines, &line).unwrap();
        self.lines.push(b'\n');
    }
}

/// The price lists as the executors read them.
fn header(swapped: bool) -> String {
    let schedules = [Schedule::Mainnet2026, Schedule::Mainnet2025];
    let config = |schedule| {
        let config = configuration(NETWORK, schedule).unwrap();
        base64(config.params.as_dict().root().as_ref().unwrap())
    };
    let name = |at: usize| schedules[if swapped { 1 - at } else { at }].name();
    let configs: BTreeMap<_, _> = (0..2).map(|at| (name(at), config(schedules[at]))).collect();
    format!("{}\n", json!({ "configs": configs }))
}

/// What a random sequence does, with its people's ways home.
fn record(runner: &mut TestRunner, sequence: u64) -> Vec<u8> {
    let script = script().new_tree(runner).unwrap().current();
    let tape = Tape { schedule: script.schedule().name(), sequence, ..Tape::default() };
    let mut net = Net::taped(script.schedule(), Some(tape));
    let outcome =
        script.steps.iter().try_for_each(|step| net.step(step)).and_then(|()| net.everybody_goes_home());
    outcome.unwrap_or_else(|why| panic!("sequence {sequence}: {why}\n{script:?}"));
    net.tape.expect("a tape").lines
}

/// What a wallet for many payments does: its first message, one transfer of three that it cannot pay, bodies of every shape, and as many
/// transfers as it takes. (The people of the sequences have v4r2.)
fn record_wallet(version: WalletVersion, schedule: Schedule, sequence: u64) -> Vec<u8> {
    let key = SigningKey::from_seed(&[55; 32]);
    let wallet = version.address(&key.public(), NETWORK);
    let account = GenesisAccount { address: wallet, balance: 20 * TON, state_init: None };
    let mut now = STORAGE_2026_SINCE + 1_000_000;
    let mut ledger =
        Ledger::in_memory(&Genesis { network: NETWORK, schedule, time: now, accounts: vec![account] })
            .unwrap();
    let mut tape = Tape { schedule: schedule.name(), sequence, ..Tape::default() };
    let pay = |number: u8, amount| {
        let to = message::basechain([number; 32]);
        Transfer { to, amount, bounce: number.is_multiple_of(2), body: None, state_init: None }
    };
    let said = |number, length: usize| Transfer {
        body: Some(comment(&"x".repeat(length)).unwrap()),
        ..pay(number, TON / 100)
    };
    let messages = [
        vec![pay(1, TON)],
        vec![pay(1, TON), pay(3, 1000 * TON), pay(2, TON)],
        vec![said(1, 0), said(2, 60), said(3, 123), said(4, 1000)],
        (1..=255).map(|number| pay(number, TON / 100)).collect(),
        vec![pay(7, 1); 255],
    ];
    for (seqno, transfers) in (0..).zip(&messages) {
        now += 3_000_000 * seqno;
        let validity = Validity { seqno, valid_until: now + 60, deploy: seqno == 0 };
        let signed = version.sign(&key, NETWORK, validity, transfers).unwrap();
        ledger.produce_block(now).unwrap();
        let before = tape.before(&ledger);
        ledger.submit(&message::encode(&signed.message)).unwrap();
        ledger.produce_block(now).unwrap();
        let transactions = ledger.block_transactions(&ledger.head(), 0, 1000).unwrap();
        assert!(transactions.len() >= transfers.len(), "the wallet took it");
        tape.block(&ledger, before, &transactions);
    }
    tape.lines
}

/// Whether the C++ TVM did the same, and what was said of it.
fn replay(scripts: &Path, tape: &Path) -> (bool, String) {
    let output =
        std::process::Command::new("node").arg("differential.mjs").arg(tape).current_dir(scripts).output();
    let output = output.expect("node starts");
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (output.status.success(), said.concat())
}

#[test]
fn the_cpp_tvm_does_the_same_in_every_transaction() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/contracts");
    if !scripts.join("node_modules/@ton/sandbox").is_dir() {
        eprintln!(
            "SKIPPED: @ton/sandbox is not installed (npm ci in scripts/contracts): THE C++ TVM WAS NOT ASKED"
        );
        return;
    }
    let count = number("COCOON_SEQUENCES").unwrap_or(SEQUENCES);
    let seed = number("COCOON_SEED").unwrap_or(SEED);
    println!("COCOON_SEED={seed} COCOON_SEQUENCES={count}");
    let mut runner = TestRunner::new_with_rng(Config::default(), rng(seed));
    let folder = tempfile::tempdir().unwrap();

    // The comparison is one: under another price list nothing is the same.
    let path = folder.path().join("swapped.jsonl");
    std::fs::write(&path, [header(true).into_bytes(), record(&mut runner, 0)].concat()).unwrap();
    let (same, said) = replay(&scripts, &path);
    assert!(!same && said.contains("different: ") && said.contains("gas"), "{said}");

    let path = folder.path().join("sequences.jsonl");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    file.write_all(header(false).as_bytes()).unwrap();
    (0..count).for_each(|sequence| file.write_all(&record(&mut runner, sequence)).unwrap());
    let schedules = [Schedule::Mainnet2026, Schedule::Mainnet2025];
    let wallets =
        schedules.map(|schedule| [(WalletVersion::V5R1, schedule), (WalletVersion::Payout, schedule)]);
    for ((version, schedule), sequence) in wallets.into_iter().flatten().zip(count..) {
        file.write_all(&record_wallet(version, schedule, sequence)).unwrap();
    }
    drop(file.into_inner().unwrap());
    let (same, said) = replay(&scripts, &path);
    println!("{said}");
    if !same {
        let kept = folder.keep();
        panic!("COCOON_SEED={seed}: the C++ TVM does otherwise (the tape: {}):\n{said}", kept.display());
    }
}
