//! Killed at any moment, a ledger comes back as of a whole block, with every block it acknowledged.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use cocoon_contracts::message;
use cocoon_contracts::wallet::{self, Transfer};
use cocoon_ledger::{Genesis, Ledger, LedgerError, Schedule};

use super::world::{Actor, NETWORK, START, genesis};

/// Where the process that is going to be killed keeps its ledger.
const FILE: &str = "COCOON_TEST_LEDGER";

fn settings(payer: &Actor, payee: &Actor) -> Genesis {
    genesis(Schedule::Mainnet2026, &[payer, payee])
}

fn wallet_seqno(ledger: &Ledger, actor: &Actor) -> u32 {
    let account = ledger.account(&actor.address).expect("the wallet exists");
    let tycho_types::models::AccountState::Active(init) = account.state else { panic!("not a wallet") };
    wallet::seqno(&init.data.expect("data")).expect("wallet data")
}

/// Makes blocks with a payment in each, saying each one's number and hash once it is acknowledged.
fn write_blocks(file: &Path, count: usize) {
    let (payer, payee) = (Actor::new(1), Actor::new(2));
    let mut ledger = Ledger::open(file, &settings(&payer, &payee)).expect("it opens");
    for _ in 0..count {
        let now = ledger.head().time + 1;
        let transfer =
            Transfer { to: payee.address.clone(), amount: 1000, bounce: false, body: None, state_init: None };
        let seqno = wallet_seqno(&ledger, &payer);
        let message = wallet::external_message(&payer.key, seqno, now + 60, false, &[transfer]).unwrap();
        ledger.submit(&message::encode(&message)).unwrap();
        let block = ledger.produce_block(now).unwrap();
        println!("block {} {} {}", block.seqno, hex::encode(block.root_hash), seqno + 1);
    }
}

/// In a child process, with a file named in its environment: writes until it is killed. By itself: writes a little.
#[test]
fn writer() {
    match std::env::var_os(FILE) {
        Some(file) => write_blocks(Path::new(&file), usize::MAX),
        None => {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("ledger.redb");
            write_blocks(&file, 3);
            let ledger = Ledger::open(&file, &settings(&Actor::new(1), &Actor::new(2))).unwrap();
            assert_eq!(ledger.head().seqno, 4);
        }
    }
}

fn start_writer(file: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::writer", "--nocapture", "--test-threads=1"])
        .env(FILE, file)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.redb");
    let (payer, payee) = (Actor::new(1), Actor::new(2));
    let supply = Ledger::in_memory(&settings(&payer, &payee)).unwrap().supply().total();
    let mut acknowledged_before = 0;
    for round in 0..12u32 {
        let mut child = start_writer(&file);
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // Killed after a different number of blocks each time, and at a different point within a block.
        let mut acknowledged = None;
        for _ in 0..round % 5 + 1 {
            acknowledged = lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("block "));
        }
        for _ in 0..round * 977 {
            std::hint::spin_loop();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        // What it still managed to say was acknowledged too.
        let last = lines.map_while(Result::ok).filter(|line| line.starts_with("block ")).last();
        let line = last.or(acknowledged).expect("it wrote blocks");
        let words: Vec<_> = line.split(' ').collect();
        let [_, seqno, hash, wallet_seqno_then] = words.as_slice() else { panic!("{line}") };
        let seqno: u32 = seqno.parse().unwrap();

        let ledger = Ledger::open(&file, &settings(&payer, &payee)).unwrap();
        assert!(ledger.head().seqno >= seqno && seqno > acknowledged_before);
        assert_eq!(hex::encode(ledger.block(seqno).unwrap().unwrap().root_hash), *hash);
        assert!(wallet_seqno(&ledger, &payer) >= wallet_seqno_then.parse().unwrap());
        assert_eq!(ledger.supply().total(), supply, "nanotons are conserved over a crash");
        for number in 2..=ledger.head().seqno {
            let block = ledger.block(number).unwrap().unwrap();
            assert_eq!(block.previous, ledger.block(number - 1).unwrap().unwrap().root_hash);
        }
        acknowledged_before = seqno;
    }
}

#[test]
fn the_same_messages_make_the_same_blocks() {
    let make = || {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ledger.redb");
        write_blocks(&file, 5);
        Ledger::open(&file, &settings(&Actor::new(1), &Actor::new(2))).unwrap().head()
    };
    assert_eq!(make(), make());
}

#[test]
fn a_ledger_of_another_genesis_or_a_damaged_one_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.redb");
    write_blocks(&file, 2);
    let (payer, payee) = (Actor::new(1), Actor::new(2));
    let fewer = genesis(Schedule::Mainnet2026, &[&payer]);
    assert!(matches!(Ledger::open(&file, &fewer), Err(LedgerError::AnotherGenesis)));
    let other = Genesis { network: NETWORK - 1, ..settings(&payer, &payee) };
    assert!(matches!(Ledger::open(&file, &other), Err(LedgerError::AnotherGenesis)));
    let later = Genesis { time: START + 5, ..settings(&payer, &payee) };
    assert!(Ledger::open(&file, &later).is_ok(), "the time of the first block is not compared");

    let bytes = std::fs::read(&file).unwrap();
    std::fs::write(&file, &bytes[..bytes.len() / 3]).unwrap();
    assert!(Ledger::open(&file, &settings(&payer, &payee)).is_err(), "a file cut short is refused");
    std::fs::write(&file, b"not a ledger").unwrap();
    assert!(Ledger::open(&file, &settings(&payer, &payee)).is_err());
}

#[test]
fn opens_in_less_than_a_fifth_of_a_second() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ledger.redb");
    let (payer, payee) = (Actor::new(1), Actor::new(2));
    let begin = std::time::Instant::now();
    drop(Ledger::open(&file, &settings(&payer, &payee)).unwrap());
    let new = begin.elapsed();
    let begin = std::time::Instant::now();
    drop(Ledger::open(&file, &settings(&payer, &payee)).unwrap());
    println!("a new ledger in {new:?}, reopened in {:?}", begin.elapsed());
    assert!(new.as_millis() < 200 && begin.elapsed().as_millis() < 200);
}
