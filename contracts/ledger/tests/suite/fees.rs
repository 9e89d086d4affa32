//! What each operation costs, under both price lists. Printed as a table; bounds asserted.

use cocoon_chain::Transaction;
use cocoon_contracts::channel::{
    self, SETTLE_VALUE, cooperative_close_body, finish_close_body, start_close_body, top_up_body,
};
use cocoon_contracts::{Nanotons, TON};
use cocoon_ledger::Schedule;

use super::world::{CHALLENGE, Who, World, deploying, to_contract};

struct Row {
    operation: &'static str,
    gas: u64,
    fees: Nanotons,
}

fn table(schedule: Schedule) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut note = |operation, tx: &Transaction| {
        assert_eq!((tx.exit_code, tx.aborted), (Some(0), false), "{operation}");
        rows.push(Row { operation, gas: tx.gas, fees: tx.fees });
    };
    let mut world = World::under(schedule);
    let terms = world.terms(1);
    let open = to_contract(&terms.address(), 2 * TON, channel::open_body(TON));
    note("open", &world.send(Who::Payer, deploying(open, terms.state_init())));
    let address = terms.address();
    note("top up", &world.send(Who::Stranger, to_contract(&address, TON, top_up_body())));
    note("settle", &world.settle(&terms, 123_456_789));
    note("settle again", &world.settle(&terms, 223_456_789));
    note("collect", &world.send(Who::Stranger, to_contract(&address, SETTLE_VALUE, channel::collect_body())));
    let raise = to_contract(&address, channel::OPEN_VALUE, channel::authorize_body(u64::MAX));
    note("authorize", &world.send(Who::Payer, raise));
    let start = to_contract(&address, channel::CLOSE_VALUE, start_close_body());
    note("start close", &world.send(Who::Payer, start));
    note("contest (settle)", &world.settle(&terms, 323_456_789));
    world.now += CHALLENGE + 1;
    note("finish close", &world.send(Who::Payer, to_contract(&address, SETTLE_VALUE, finish_close_body())));
    let terms = world.open(2, TON);
    let last = world.voucher(&terms, 99_999_999);
    let body = cooperative_close_body(Some(&last));
    note("cooperative close", &world.send(Who::Payee, to_contract(&terms.address(), SETTLE_VALUE, body)));
    rows
}

#[test]
fn operations_cost_no_more_than_promised() {
    for schedule in [Schedule::Mainnet2026, Schedule::Mainnet2025] {
        let rows = table(schedule);
        println!("\n{}: gas, fees of the contract's own transaction in TON", schedule.name());
        for Row { operation, gas, fees } in &rows {
            println!("  {operation:<18} {gas:>6}  0.{fees:09}");
        }
        if schedule == Schedule::Mainnet2026 {
            let fees = |name| rows.iter().find(|row| row.operation == name).expect(name).fees;
            let settle = rows.iter().find(|row| row.operation == "settle").expect("a row");
            // Two thirds of the forward fee travel with the message: TON does not count them as the transaction's.
            let travels = 44_444;
            assert!(
                settle.gas < 4455 && settle.fees < 319_000 + travels,
                "settle: less than the trial channel"
            );
            assert!(fees("top up") <= 50_000, "top up: at most 0.00005 TON");
            assert!(fees("authorize") <= 200_000);
            assert!(fees("collect") <= 600_000);
            assert!(fees("start close") <= 200_000);
            assert!(fees("finish close") <= 500_000);
            assert!(fees("cooperative close") <= 750_000);
        }
    }
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
