//! How fast the ledger is: `cargo run --release -p xtask -- bench ledger`, or this example alone.
//!
//! Whole transactions through the library, block production, fsync and all, on two loads: wallets that pay each other,
//! and payees that settle vouchers. With a folder as its argument it also writes the loads there, as files that
//! `scripts/contracts/sandbox_speed.mjs` carries out in npm's `@ton/sandbox` under the same configuration.

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cocoon_contracts::channel::{self, Terms};
use cocoon_contracts::wallet::{self, Transfer};
use cocoon_contracts::{Address, Cell, Nanotons, SigningKey, TON, Voucher, message};
use cocoon_ledger::{Genesis, GenesisAccount, Ledger, STORAGE_2026_SINCE, Schedule};
use serde_json::json;

const NETWORK: i32 = -217;
const START: u32 = STORAGE_2026_SINCE + 1_000_000;
/// Parties in each load: the ledger's, and those of them that the slower sandbox gets.
const PARTIES: u32 = 4096;
const SANDBOX_PARTIES: usize = 256;
/// Blocks of one load are at most this many messages from outside, as the queue holds.
const MESSAGES_IN_A_BLOCK: usize = 1024;

struct Party {
    key: SigningKey,
    address: Address,
}

fn party(number: u32) -> Party {
    let mut seed = [0x5a; 32];
    seed[..4].copy_from_slice(&number.to_be_bytes());
    let key = SigningKey::from_seed(&seed);
    let address = wallet::address(&key.public());
    Party { key, address }
}

/// What a load is made of: who exists, what they send first to be ready, and what is measured.
struct Load {
    name: &'static str,
    parties: Vec<Party>,
    preparing: Vec<Cell>,
    measured: Vec<Cell>,
}

fn external(party: &Party, seqno: u32, transfer: Transfer) -> Result<Cell, Box<dyn Error>> {
    Ok(wallet::external_message(&party.key, seqno, START + 1_000_000, false, &[transfer])?)
}

/// Each wallet pays the next one: two transactions for each message.
fn transfers() -> Result<Load, Box<dyn Error>> {
    let parties: Vec<Party> = (0..PARTIES).map(party).collect();
    let mut measured = Vec::new();
    for (at, payer) in parties.iter().enumerate() {
        let to = parties[(at + 1) % parties.len()].address.clone();
        let transfer = Transfer { to, amount: TON / 100, bounce: false, body: None, state_init: None };
        measured.push(external(payer, 0, transfer)?);
    }
    Ok(Load { name: "wallet transfers", parties, preparing: Vec::new(), measured })
}

/// Each payee settles a voucher of a channel of its own: wallet, channel, treasury and payout, four transactions.
fn settlements() -> Result<Load, Box<dyn Error>> {
    let parties: Vec<Party> = (PARTIES..PARTIES + PARTIES / 2).map(party).collect();
    let session = SigningKey::from_seed(&[77; 32]);
    let (mut preparing, mut measured) = (Vec::new(), Vec::new());
    for (payer, payee) in parties.chunks_exact(2).map(|pair| (&pair[0], &pair[1])) {
        let terms = terms(payer, payee, &session);
        let amount = TON + channel::OPEN_RESERVE + channel::OPEN_VALUE;
        let opening = Transfer {
            to: terms.address(),
            amount,
            bounce: true,
            body: Some(channel::open_body(Nanotons::MAX)),
            state_init: Some(terms.state_init()),
        };
        preparing.push(external(payer, 0, opening)?);
        let voucher =
            Voucher { network: NETWORK, channel: terms.address(), nonce: terms.nonce, cumulative: TON / 2 };
        let settling = Transfer {
            to: terms.address(),
            amount: channel::SETTLE_VALUE,
            bounce: true,
            body: Some(channel::settle_body(&voucher.sign(&session))),
            state_init: None,
        };
        measured.push(external(payee, 0, settling)?);
    }
    Ok(Load { name: "channel settlements", parties, preparing, measured })
}

fn terms(payer: &Party, payee: &Party, session: &SigningKey) -> Terms {
    Terms {
        payer: payer.address.clone(),
        payee: payee.address.clone(),
        payer_key: session.public(),
        network: NETWORK,
        nonce: 1,
        challenge_seconds: 60,
        fee_bps: 500,
        treasury: message::basechain([0x7e; 32]),
    }
}

fn genesis(load: &Load) -> Genesis {
    let accounts = load.parties.iter().map(|party| GenesisAccount {
        address: party.address.clone(),
        balance: 100 * TON,
        state_init: Some(wallet::state_init(&party.key.public())),
    });
    Genesis { network: NETWORK, schedule: Schedule::Mainnet2026, time: START, accounts: accounts.collect() }
}

/// What carrying out messages came to.
#[derive(Default)]
struct Outcome {
    transactions: u32,
    /// Seconds in which the pool took messages: each is tried on its wallet before it may wait for a block.
    admitting: f64,
    /// Seconds in which blocks were made.
    producing: f64,
}

fn carry_out(ledger: &mut Ledger, messages: &[Vec<u8>], now: u32) -> Result<Outcome, Box<dyn Error>> {
    let mut outcome = Outcome::default();
    for block in messages.chunks(MESSAGES_IN_A_BLOCK) {
        let begun = Instant::now();
        for bytes in block {
            ledger.submit(bytes)?;
        }
        outcome.admitting += begun.elapsed().as_secs_f64();
        let begun = Instant::now();
        while ledger.has_work() {
            outcome.transactions += ledger.produce_block(now)?.transactions;
        }
        outcome.producing += begun.elapsed().as_secs_f64();
    }
    Ok(outcome)
}

fn encoded(messages: &[Cell]) -> Vec<Vec<u8>> {
    messages.iter().map(message::encode).collect()
}

/// Carries the load out on a fresh ledger, and says how fast.
fn measure(load: &Load, place: &str, mut ledger: Ledger) -> Result<(), Box<dyn Error>> {
    carry_out(&mut ledger, &encoded(&load.preparing), START + 1)?;
    let outcome = carry_out(&mut ledger, &encoded(&load.measured), START + 2)?;
    let transactions = f64::from(outcome.transactions);
    let for_each = transactions / load.measured.len() as f64;
    assert!(for_each > 1.9, "{}: only {for_each} transactions for each message", load.name);
    let blocks = transactions / outcome.producing;
    let all = transactions / (outcome.admitting + outcome.producing);
    println!("{}, {place}: {blocks:.0} transactions a second in blocks, {all:.0} with admission", load.name);
    Ok(())
}

/// The load as a file for the sandbox: the configuration, accounts after the preparation, and messages.
fn write(load: &Load, folder: &Path) -> Result<(), Box<dyn Error>> {
    let mut ledger = Ledger::in_memory(&genesis(load))?;
    carry_out(&mut ledger, &encoded(&load.preparing), START + 1)?;
    let config = cocoon_ledger::configuration(NETWORK, Schedule::Mainnet2026)?;
    let config = config.params.as_dict().root().clone().ok_or("an empty configuration")?;
    let text = |cell: &Cell| BASE64.encode(message::encode(cell));
    let accounts: Vec<_> = ledger
        .accounts()
        .map(|(address, account)| {
            let cell = tycho_types::cell::CellBuilder::build_from(account)?;
            Ok(json!({ "address": address.to_string(), "account": text(&cell) }))
        })
        .collect::<Result<_, tycho_types::error::Error>>()?;
    let messages: Vec<_> = load.measured.iter().take(SANDBOX_PARTIES).map(text).collect();
    let file = json!({
        "name": load.name, "now": START + 2, "config": text(&config), "accounts": accounts, "messages": messages,
    });
    std::fs::write(folder.join(load.name.replace(' ', "-") + ".json"), file.to_string())?;
    Ok(())
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    for load in [transfers()?, settlements()?] {
        if let Some(out) = std::env::args_os().nth(1) {
            write(&load, Path::new(&out))?;
        }
        measure(&load, "in memory", Ledger::in_memory(&genesis(&load))?)?;
        let file = folder.path().join(format!("{}.redb", load.name));
        measure(&load, "on disk", Ledger::open(&file, &genesis(&load))?)?;
    }
    Ok(())
}
