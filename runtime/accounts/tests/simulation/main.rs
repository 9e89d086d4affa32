//! A seeded simulation of clients, gateways and hosts over the ledger: whatever happens on the way, at the end every
//! nanoton is where the receipts say.
//!
//! ```text
//!  client ──► gateway ──► host      real books, agents, keepers, routes and wallets, in one process each
//!     └──────────┴──────────┴──►    the embedded ledger with the real contracts
//! ```
//!
//! **One seed, one world.** All chance comes from one [SplitMix64](dice), time is tokio's paused clock, and everything runs
//! on one thread: a seed is a history, and its trace has a hash. The books' two seams make that possible: rows go to a
//! [disk](disk) in memory instead of a file's thread, and each process reads a [wall clock](cocoon_accounts::with_clock) of its own.
//!
//! **What goes wrong** is drawn at the start ([`plan`]), a little in some worlds and much in others:
//! - a process dies at a write, which is durable or not, and comes back from its disk seconds or half an hour later; writes
//!   fail and the process goes on ([`world`]);
//! - requests are lost, late, doubled, overtaken, and replies do not come back; streams break, noticed or not ([`net`],
//!   [`payer`]);
//! - the chain loses calls, carries them out and loses the answer, shows blocks of a moment ago, is away for an hour, and
//!   its clock is minutes from everybody's ([`chain`]); members' clocks differ by minutes too;
//! - payees end channels with their best voucher, and payers open others in their place;
//! - there are villains: who stops paying, closes with vouchers out and takes the rest at the first second, says it is owed
//!   more, charges and cuts, or vanishes.
//!
//! **What must hold**, from outside the books ([`receipts`], [`audit`]):
//! - the ledger has the same nanotons at the end; no channel is stuck; what left each contract is exactly: to the payee what
//!   was paid less the fee, to the treasury the fee, home the rest;
//! - no voucher is for more than what arrived at its payer and one concession for each answer that broke (and over a
//!   channel's life one concession and a quarter), nor beyond limit or deposit: nothing is signed twice;
//! - an acknowledged voucher, and an amount signed, outlive every crash, and is paid; on a channel that was closed early if
//!   its payee had ten minutes and two looks with the chain before the deadline;
//! - never more than one window and a half is charged beyond vouchers, and a payee is short of no more in the end, for each
//!   life of its process;
//! - nothing panics.
//!
//! `COCOON_SIM_SEED=7 cargo test -p cocoon-accounts --release --test simulation one_seed -- --nocapture` prints a history;
//! `COCOON_SIM_SEEDS` says how many run (1000), `COCOON_SIM_FIRST` from which on.

mod audit;
mod chain;
mod dice;
mod disk;
mod net;
mod node;
mod payee;
mod payer;
mod plan;
mod receipts;
mod trace;
mod world;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use trace::Report;

/// Everything that a thousand worlds must have seen, so that they prove something.
const SEEN: &[&str] = &[
    "another channel",
    "answer cut",
    "broken answer",
    "chain answer lost",
    "chain call lost",
    "charged and cut",
    "close answered",
    "connection cut",
    "cooperative close",
    "crash after a write",
    "crash before a write",
    "disk full",
    "early close",
    "reply lost",
    "request doubled",
    "request late",
    "request lost",
    "stale read",
    "top up",
    "vanished",
    "whole answer",
];

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number")))
}

fn describe(seed: u64, report: &Report) -> String {
    let (failures, tail) = (report.failures.join("\n  "), report.tail.join("\n"));
    format!(
        "{tail}\nseed {seed} broke:\n  {failures}\nCOCOON_SIM_SEED={seed} cargo test -p cocoon-accounts --release --test simulation one_seed -- --nocapture"
    )
}

#[test]
fn every_nanoton_is_where_the_receipts_say_whatever_the_seed() {
    let (first, seeds) =
        (number("COCOON_SIM_FIRST").unwrap_or(0), number("COCOON_SIM_SEEDS").unwrap_or(1_000));
    let began = Instant::now();
    let (next, broken) = (AtomicU64::new(first), Mutex::new(BTreeMap::new()));
    let counts: Mutex<BTreeMap<&str, u64>> = Mutex::default();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds {
                        return;
                    }
                    let report = world::run(seed, false);
                    let mut all = counts.lock().expect("nobody panics here");
                    report.counts.iter().for_each(|(kind, number)| *all.entry(kind).or_default() += number);
                    if !report.failures.is_empty() {
                        broken.lock().expect("nobody panics here").insert(seed, report);
                    }
                }
            });
        }
    });
    let (broken, counts) =
        (broken.into_inner().expect("all is over"), counts.into_inner().expect("all is over"));
    println!("{seeds} seeds from {first} in {:.1?}: {counts:?}", began.elapsed());
    if let Some((seed, report)) = broken.first_key_value() {
        for (seed, report) in &broken {
            println!("seed {seed}: {}", report.failures[0]);
        }
        panic!("{}\n{} of {seeds} seeds broke", describe(*seed, report), broken.len());
    }
    if seeds >= 1_000 {
        for kind in SEEN {
            assert!(counts.contains_key(kind), "no world saw: {kind}");
        }
    }
}

#[test]
fn the_same_seed_is_the_same_history_and_another_one_another() {
    let of = |seed| {
        let report = world::run(seed, false);
        (report.hash, report.lines)
    };
    for seed in [3, 14, 15, 92] {
        assert_eq!(of(seed), of(seed), "seed {seed}");
    }
    assert_ne!(of(3).0, of(14).0);
}

#[test]
fn one_seed() {
    let Some(seed) = number("COCOON_SIM_SEED") else { return };
    let began = Instant::now();
    let report = world::run(seed, true);
    println!(
        "{:.1?}, {} lines, hash {:016x}: {:?}",
        began.elapsed(),
        report.lines,
        report.hash,
        report.counts
    );
    assert!(report.failures.is_empty(), "{}", describe(seed, &report));
}
