//! The same transactions in the C++ TVM: npm's `@ton/sandbox` carries each out again, and compares.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use cocoon_contracts::{Address, Cell, message};
use cocoon_ledger::{Ledger, Schedule, configuration};
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
const SEQUENCES: u64 = 250;

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
    let seed = number("COCOON_SEED").unwrap_or(5);
    println!("COCOON_SEED={seed} COCOON_SEQUENCES={count}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sequences.jsonl");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).unwrap());
    let configs: BTreeMap<_, _> = [Schedule::Mainnet2026, Schedule::Mainnet2025]
        .map(|schedule| {
            (
                schedule.name(),
                base64(&configuration(NETWORK, schedule).unwrap().params.as_dict().root().clone().unwrap()),
            )
        })
        .into();
    writeln!(file, "{}", json!({ "configs": configs })).unwrap();
    let mut runner = TestRunner::new_with_rng(Config::default(), rng(seed));
    for sequence in 0..count {
        let script = script().new_tree(&mut runner).unwrap().current();
        let tape = Tape { schedule: script.schedule().name(), sequence, ..Tape::default() };
        let mut net = Net::taped(script.schedule(), Some(tape));
        let outcome =
            script.steps.iter().try_for_each(|step| net.step(step)).and_then(|()| net.everybody_goes_home());
        outcome.unwrap_or_else(|why| panic!("sequence {sequence}: {why}\n{script:?}"));
        file.write_all(&net.tape.expect("a tape").lines).unwrap();
    }
    drop(file.into_inner().unwrap());
    let output = std::process::Command::new("node")
        .arg("differential.mjs")
        .arg(&path)
        .current_dir(scripts)
        .output()
        .unwrap();
    let said =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    println!("{said}");
    if !output.status.success() {
        let kept = folder.keep();
        panic!("the C++ TVM does otherwise (kept: {}):\n{said}", kept.display());
    }
}
