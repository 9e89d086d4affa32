//! `kill -9` at any instant: every voucher that was acknowledged, every finished charge and every amount that was
//! signed is there after it.

mod common;

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use cocoon_accounts::{PayerBook, Store};
use common::{book, facts, key, voucher};

const CHANNELS: u64 = 4;
const DEPOSIT: u64 = 1_000_000_000;
const ROUNDS: u64 = 40;
const FILE: &str = "COCOON_CRASH_TEST_FILE";

/// Started by the test below in a process of its own, with [`FILE`] set; says `taken CHANNEL AMOUNT`,
/// `charged CHANNEL AMOUNT` or `signed CHANNEL AMOUNT` for all that was acknowledged, until it is killed. Without the variable there is
/// nothing to do.
#[test]
fn child_that_works_until_it_is_killed() {
    let Ok(file) = std::env::var(FILE) else { return };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_time()
        .build()
        .expect("a runtime");
    runtime.block_on(work_forever(Path::new(&file)));
}

async fn work_forever(file: &Path) {
    let store = Store::open(file).expect("the store opens after a kill");
    let payee = book(&store);
    let payer = PayerBook::open(store).expect("its rows parse");
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..CHANNELS {
        let (payee, payer, facts) = (payee.clone(), payer.clone(), facts(number, DEPOSIT));
        tasks.spawn(async move {
            payee.announce(facts.clone()).await.expect("the channel is taken");
            payer.open_channel(&facts.address, &facts.terms, DEPOSIT).await.expect("the channel is taken");
            let mut amount = payee
                .status(&facts.address)
                .await
                .expect("the store answers")
                .expect("the channel is known")
                .voucher;
            loop {
                amount += 1;
                payee.accept_voucher(&facts.address, voucher(&facts, amount)).await.expect("a good voucher");
                say(&format!("taken {number} {amount}"));
                let mut held = payee.reserve(&facts.address, 1).await.expect("the deposit covers it");
                held.charge(1, Duration::from_secs(30)).await.expect("vouchers cover it");
                held.finish().await.expect("the disk takes it");
                let owed = payee
                    .status(&facts.address)
                    .await
                    .expect("the store answers")
                    .expect("the channel is known")
                    .owed;
                say(&format!("charged {number} {owed}"));
                let mut stream = payer.begin(&facts.address, 1, true, 1).await.expect("within the deposit");
                stream.owe_up_to(1).expect("within the deposit");
                stream.finish();
                let signed = payer.sign_owed(&facts.address, &key()).await.expect("signed").expect("owed");
                say(&format!("signed {number} {}", signed.voucher.cumulative));
            }
        });
    }
    while tasks.join_next().await.is_some() {}
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    out.write_all(format!("{line}\n").as_bytes()).expect("the parent reads");
    out.flush().expect("the parent reads");
}

#[tokio::test]
async fn every_acknowledged_voucher_survives_kill_9() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let file = folder.path().join("accounts.redb");
    let mut seed = std::env::var("COCOON_SEED").map_or(0x00c0_c004, |s| s.parse().expect("a number"));
    println!("seed {seed} (COCOON_SEED)");
    let mut known: HashMap<(String, u64), u64> = HashMap::new();
    for round in 0..ROUNDS {
        let acknowledgements = 5 + next(&mut seed) % 60;
        let delay = Duration::from_micros(next(&mut seed) % 3_000);
        run_and_kill(&file, acknowledgements, delay, &mut known);
        check(&file, &known, round).await;
    }
    assert!(known.values().sum::<u64>() > ROUNDS, "the children did work");
}

fn run_and_kill(file: &Path, lines: u64, delay: Duration, known: &mut HashMap<(String, u64), u64>) {
    let mut child = Command::new(std::env::current_exe().expect("this test has a file"))
        .args(["--exact", "child_that_works_until_it_is_killed", "--nocapture"])
        .env(FILE, file)
        .stdout(Stdio::piped())
        .spawn()
        .expect("the child starts");
    let mut out = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
    let mut seen = 0;
    while seen < lines {
        seen += u64::from(note(&out.next().expect("the child works until it is killed"), known));
    }
    std::thread::sleep(delay); // moves the kill off the edge of an acknowledgement, by the seed
    child.kill().expect("the child lives");
    // What it acknowledged before the kill counts too.
    for line in out {
        note(&line, known);
    }
    child.wait().expect("the child is ours");
}

/// Whether the line was an acknowledgement; a last line that the kill cut short is none.
fn note(line: &str, known: &mut HashMap<(String, u64), u64>) -> bool {
    let words: Vec<&str> = line.split(' ').collect();
    let &[what @ ("taken" | "charged" | "signed"), channel, amount] = words.as_slice() else { return false };
    let (Ok(channel), Ok(amount)) = (channel.parse(), amount.parse::<u64>()) else { return false };
    let best = known.entry((what.to_owned(), channel)).or_default();
    *best = amount.max(*best);
    true
}

async fn check(file: &Path, known: &HashMap<(String, u64), u64>, round: u64) {
    let store = Store::open(file).expect("the store opens after a kill");
    let payee = book(&store);
    let payer = PayerBook::open(store).expect("its rows parse");
    for ((what, channel), amount) in known {
        let address = facts(*channel, DEPOSIT).address;
        let held = match what.as_str() {
            "taken" => {
                payee
                    .status(&address)
                    .await
                    .expect("the store answers")
                    .expect("the channel is known")
                    .voucher
            }
            "charged" => {
                payee.status(&address).await.expect("the store answers").expect("the channel is known").owed
            }
            _ => payer.state(&address).expect("the channel is known").signed,
        };
        assert!(held >= *amount, "round {round}: {what} {amount} on channel {channel}, found {held}");
    }
}

/// SplitMix64.
fn next(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *seed;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
