//! What each operation costs, under both price lists: a table that is kept, and bounds.

use cocoon_chain::Transaction;
use cocoon_contracts::channel::{
    self, SETTLE_VALUE, cooperative_close_body, finish_close_body, start_close_body, top_up_body,
};
use cocoon_contracts::wallet::{Transfer, Validity, WalletVersion};
use cocoon_contracts::{Nanotons, SigningKey, TON, bond, message, registry};
use cocoon_ledger::Schedule;

use super::world::{CHALLENGE, NETWORK, Who, World, deploying, to_contract};

struct Row {
    operation: &'static str,
    gas: u64,
    fees: Nanotons,
    /// Of `fees`, what travels with the messages and TON does not count as the transaction's `total_fees`.
    travels: Nanotons,
}

/// Where the table is kept, from this crate's folder.
const TABLE: &str = "../fees.md";
const HEAD: &str = "# What every operation costs

Written by the tests (`COCOON_WRITE=1 cargo nextest run -p cocoon-ledger fees_table` after a change; without it they compare).
Nanotons, of the operation's own transaction: rent of the seconds since the one before, gas, and forwarding of all that it sends.
The part of forwarding that travels with the messages is included; TON's `total_fees` is less by the last column. The sender's
wallet comes on top: a row of its own. Of a batch, the row is one payment's share, rounded up. `mainnet-2026` is the price list of
August 2026, `mainnet-2025` the one before.
";

#[derive(Default)]
struct Table(Vec<Row>);

impl Table {
    fn note(&mut self, world: &World, operation: &'static str, tx: &Transaction) {
        assert_eq!((tx.exit_code, tx.aborted), (Some(0), false), "{operation}");
        let (_, cell) = world.ledger.block_transactions(&world.ledger.head(), tx.lt, 1).unwrap().remove(0);
        let total = cell.parse::<tycho_types::models::Transaction>().unwrap().total_fees.tokens.into_inner();
        let travels = tx.fees - Nanotons::try_from(total).unwrap();
        self.0.push(Row { operation, gas: tx.gas, fees: tx.fees, travels });
    }

    fn row(&self, name: &str) -> &Row {
        self.0.iter().find(|row| row.operation == name).expect(name)
    }
}

fn channel_rows(table: &mut Table, world: &mut World) {
    let terms = world.terms(1);
    let address = terms.address();
    let open = to_contract(&address, 2 * TON, channel::open_body(TON));
    let tx = world.send(Who::Payer, deploying(open, terms.state_init()));
    table.note(world, "channel open", &tx);
    let tx = world.send(Who::Stranger, to_contract(&address, TON, top_up_body()));
    table.note(world, "channel top up", &tx);
    let tx = world.settle(&terms, 123_456_789);
    table.note(world, "channel settle", &tx);
    let tx = world.send(Who::Stranger, to_contract(&address, SETTLE_VALUE, channel::collect_body()));
    table.note(world, "channel collect", &tx);
    let raise = to_contract(&address, channel::OPEN_VALUE, channel::authorize_body(u64::MAX));
    let tx = world.send(Who::Payer, raise);
    table.note(world, "channel authorize", &tx);
    let tx = world.send(Who::Payer, to_contract(&address, channel::CLOSE_VALUE, start_close_body()));
    table.note(world, "channel start close", &tx);
    let tx = world.settle(&terms, 323_456_789);
    table.note(world, "channel settle, closing", &tx);
    world.now += CHALLENGE + 1;
    let tx = world.send(Who::Payer, to_contract(&address, SETTLE_VALUE, finish_close_body()));
    table.note(world, "channel finish close, a fee waiting", &tx);
    for (nonce, operation, last) in
        [(2, "channel close, with a voucher", Some(99_999_999)), (3, "channel close, nothing owed", None)]
    {
        let terms = world.open(nonce, TON);
        let last = last.map(|cumulative| world.voucher(&terms, cumulative));
        let body = cooperative_close_body(last.as_ref());
        let tx = world.send(Who::Payee, to_contract(&terms.address(), SETTLE_VALUE, body));
        table.note(world, operation, &tx);
    }
}

fn bond_rows(table: &mut Table, world: &mut World) {
    let key = SigningKey::from_seed(&[88; 32]);
    let terms = |world: &World, salt| bond::Terms {
        operator: world.payee.address.clone(),
        operator_key: key.public(),
        treasury: world.treasury.address.clone(),
        network: NETWORK,
        delay_seconds: 60,
        salt,
        platforms: (0..5).map(|byte| bond::platform_digest(&format!("chip:{byte:02x}"))).collect(),
    };
    let back = |world: &mut World, terms: &bond::Terms| {
        let transfer = to_contract(&terms.address(), 20 * TON, bond::back_body());
        world.send(Who::Payee, deploying(transfer, terms.state_init()))
    };
    let first = terms(world, 1);
    let tell = |world: &mut World, terms: &bond::Terms, body| {
        world.send(Who::Payee, to_contract(&terms.address(), bond::ACTION_VALUE, body))
    };
    let tx = back(world, &first);
    table.note(world, "bond back, five machines", &tx);
    let tx = tell(world, &first, bond::top_up_body());
    table.note(world, "bond top up", &tx);
    let owed = bond::Liabilities { epoch: 1, root: [5; 32], sum: 77 };
    let signature = owed.statement(NETWORK, &first.address()).sign(&key).signature;
    let tx = tell(world, &first, bond::publish_body(&owed, &signature));
    table.note(world, "bond publish", &tx);
    let tx = tell(world, &first, bond::unbond_body());
    table.note(world, "bond unbond", &tx);
    world.now += 60;
    let tx = tell(world, &first, bond::withdraw_body());
    table.note(world, "bond withdraw", &tx);
    let second = terms(world, 2);
    back(world, &second);
    let [one, two] = [1, 2].map(|digest| {
        let (bond, kind) = (second.address(), bond::KIND_LISTING);
        bond::Statement { network: NETWORK, bond, kind, number: 7, digest: [digest; 32] }.sign(&key)
    });
    let body = bond::forfeit_body(&bond::contradiction(&second, &one, &two).unwrap());
    let tx = tell(world, &second, body);
    table.note(world, "bond forfeit", &tx);
}

/// Two of three owners, and lists without entries: the forwarding of a real content comes on top, by its size.
fn registry_rows(table: &mut Table, world: &mut World) {
    let keys = [1, 2, 3].map(|byte| SigningKey::from_seed(&[byte + 100; 32]));
    let owners = registry::Owners::new(2, keys.iter().map(SigningKey::public)).unwrap();
    let content = registry::Content::empty(500, world.treasury.address.clone());
    let first = registry::Deployment { owners: owners.clone(), delay: 60, salt: 1, content: content.clone() };
    let address = first.address().unwrap();
    let init = first.state_init().unwrap();
    let mut state = registry::Registry::parse(init.data.as_ref().unwrap()).unwrap();
    let deploy = to_contract(&address, registry::DEPLOY_VALUE, registry::top_up_body());
    let tx = world.send(Who::Stranger, deploying(deploy, init));
    table.note(world, "registry deploy", &tx);
    let tell = |world: &mut World, body| {
        world.send(Who::Stranger, to_contract(&address, registry::CHANGE_VALUE, body))
    };
    for operation in ["registry cancel", "registry activate"] {
        let change = registry::Change { owners: owners.clone(), content: content.clone() };
        let until = world.now + 1000;
        let mut propose =
            registry::Approval::to_propose(NETWORK, &address, &state, change.clone(), until).unwrap();
        keys[..2].iter().for_each(|key| propose.sign(key).unwrap());
        let tx = tell(world, propose.body().unwrap());
        if state.proposals == 0 {
            table.note(world, "registry propose", &tx);
        }
        let subject = change.hash().unwrap();
        state.proposals += 1;
        let (ready_at, change) = (world.now + 60, Ok(change));
        state.proposal = Some(registry::Proposal { ready_at, subject, change });
        let body = if operation == "registry cancel" {
            let mut cancel = registry::Approval::to_cancel(NETWORK, &address, &state, until).unwrap();
            keys[..2].iter().for_each(|key| cancel.sign(key).unwrap());
            cancel.body().unwrap()
        } else {
            world.now += 60;
            registry::activate_body(1)
        };
        state.proposal = None;
        let tx = tell(world, body);
        table.note(world, operation, &tx);
    }
}

/// The sender's own transaction.
fn wallet_rows(table: &mut Table, world: &mut World) {
    for (operation, body) in
        [("wallet v4r2, one transfer", None), ("wallet v4r2, a settlement", Some(world.terms(9)))]
    {
        let body = body.map(|terms| channel::settle_body(&world.voucher(&terms, 1)));
        let to = world.treasury.address.clone();
        let transfer = Transfer { to, amount: SETTLE_VALUE, bounce: false, body, state_init: None };
        world.send(Who::Payee, transfer);
        let own = world.ledger.history(&world.payee.address, 1).unwrap().remove(0);
        table.note(world, operation, &own);
    }
}

/// A wallet that pays many: a transfer, a settlement, and as many payments to different people as one message carries.
fn batch_rows(table: &mut Table, world: &mut World, version: WalletVersion, names: [&'static str; 3]) {
    let key = SigningKey::from_seed(&[55; 32]);
    let [one, settlement, batch] = names;
    let wallet = version.address(&key.public(), NETWORK);
    let fund = Transfer { to: wallet.clone(), amount: 50 * TON, bounce: false, body: None, state_init: None };
    world.send(Who::Payer, fund);
    let pay = |to, body| Transfer { to, amount: SETTLE_VALUE, bounce: false, body, state_init: None };
    let settle = channel::settle_body(&world.voucher(&world.terms(9), 1));
    let person = |number: u8| message::basechain([number; 32]);
    let everybody: Vec<_> = (1..=255).map(|number| pay(person(number), None)).collect();
    for (seqno, operation, transfers) in [
        // The first message deploys it, and is no row.
        (0, None, vec![pay(person(1), None)]),
        (1, Some(one), vec![pay(world.treasury.address.clone(), None)]),
        (2, Some(settlement), vec![pay(world.treasury.address.clone(), Some(settle))]),
        (3, Some(batch), everybody),
    ] {
        let validity = Validity { seqno, valid_until: world.now + 60, deploy: seqno == 0 };
        let signed = version.sign(&key, NETWORK, validity, &transfers).unwrap();
        world.ledger.submit(&message::encode(&signed.message)).unwrap();
        world.block();
        let own = world.ledger.history(&wallet, 1).unwrap().remove(0);
        let all = world.ledger.block_transactions(&world.ledger.head(), 0, 1000).unwrap();
        assert_eq!(all.len(), 1 + transfers.len(), "every transfer arrives, in the same block");
        operation.iter().for_each(|operation| table.note(world, operation, &own));
    }
    let whole = table.0.last_mut().expect("the batch");
    let each = |sum: u64| sum.div_ceil(255);
    (whole.gas, whole.fees, whole.travels) = (each(whole.gas), each(whole.fees), each(whole.travels));
}

fn table(schedule: Schedule) -> Table {
    let mut table = Table::default();
    channel_rows(&mut table, &mut World::under(schedule));
    bond_rows(&mut table, &mut World::under(schedule));
    registry_rows(&mut table, &mut World::under(schedule));
    wallet_rows(&mut table, &mut World::under(schedule));
    let v5r1 = ["wallet v5r1, one transfer", "wallet v5r1, a settlement", "wallet v5r1, 255 payments, each"];
    batch_rows(&mut table, &mut World::under(schedule), WalletVersion::V5R1, v5r1);
    let payout =
        ["payout wallet, one transfer", "payout wallet, a settlement", "payout wallet, 255 payments, each"];
    batch_rows(&mut table, &mut World::under(schedule), WalletVersion::Payout, payout);
    table
}

#[test]
fn the_fees_table_is_what_operations_cost_and_no_more_than_promised() {
    let mut text = HEAD.to_owned();
    for schedule in [Schedule::Mainnet2026, Schedule::Mainnet2025] {
        let table = table(schedule);
        text += &format!("\n## {}\n\n| operation | gas | nanotons | of which travels |\n", schedule.name());
        text += "| --- | ---: | ---: | ---: |\n";
        for Row { operation, gas, fees, travels } in &table.0 {
            text += &format!("| {operation} | {gas} | {fees} | {travels} |\n");
        }
        if schedule == Schedule::Mainnet2026 {
            promised(&table);
        }
    }
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(TABLE);
    if std::env::var_os("COCOON_WRITE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let kept = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(kept, text, "contracts/fees.md is not what operations cost: write it anew and review it");
}

/// Bounds under mainnet's price list of August 2026.
fn promised(table: &Table) {
    for (operation, most) in [
        ("channel settle", 500_000),
        ("channel top up", 50_000),
        ("channel authorize", 200_000),
        ("channel collect", 600_000),
        ("channel start close", 200_000),
        ("channel finish close, a fee waiting", 500_000),
        ("channel close, with a voucher", 750_000),
        ("bond publish", 500_000),
        ("bond forfeit", 600_000),
        ("wallet v5r1, 255 payments, each", 160_000),
        ("payout wallet, 255 payments, each", 112_000),
    ] {
        let fees = table.row(operation).fees;
        assert!(fees <= most, "{operation} costs {fees}, more than {most}");
    }
    // Less than the trial channel of the settlement notes, by gas and as TON counts.
    let settle = table.row("channel settle");
    assert!(settle.gas < 4455 && settle.fees - settle.travels < 319_000);
    let payout = table.row("wallet v5r1, 255 payments, each");
    assert!(payout.fees - payout.travels <= 150_000, "a batched payout, as TON counts");
}

#[test]
fn the_values_we_attach_pay_under_both_price_lists() {
    // Every operation in `table` uses the constants that clients use; here a payee settles the smallest due there is.
    for schedule in [Schedule::Mainnet2026, Schedule::Mainnet2025] {
        let mut world = World::under(schedule);
        let terms = world.open(1, TON);
        let before = world.channel(&terms).unwrap().balance;
        assert!(!world.settle(&terms, 1).aborted);
        assert_eq!(before - world.channel(&terms).unwrap().balance, 1);
    }
}

#[test]
fn a_year_of_idleness_costs_less_than_the_reserve() {
    for schedule in [Schedule::Mainnet2026, Schedule::Mainnet2025] {
        let mut world = World::under(schedule);
        let terms = world.open(1, TON);
        let before = world.channel(&terms).unwrap().balance;
        world.now += 365 * 24 * 3600;
        let tx = world.send(Who::Stranger, to_contract(&terms.address(), TON, top_up_body()));
        let rent = before + TON - tx.gas - world.channel(&terms).unwrap().balance;
        println!("{}: a year of rent and a top-up cost {rent} nanotons", schedule.name());
        let years = if schedule == Schedule::Mainnet2026 { 14.0 } else { 1.5 };
        assert!(rent as f64 * years < (channel::OPEN_RESERVE - channel::SETTLE_RESERVE) as f64);
    }
}
