//! Random orders of everything that can happen to an account, against a model of three numbers.

mod common;

use std::time::Duration;

use cocoon_accounts::{PayeeBook, Reservation, ReserveError, Store};
use common::{WINDOW, book, facts, voucher};
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    Deposit(u64),
    Voucher(u64),
    Reserve(u64),
    Charge { stream: usize, by: u64 },
    Finish(usize),
    Abandon(usize),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..8_000u64).prop_map(Step::Deposit),
        4 => (0..9_000u64).prop_map(Step::Voucher),
        4 => (0..3_000u64).prop_map(Step::Reserve),
        8 => (0..4usize, 0..1_500u64).prop_map(|(stream, by)| Step::Charge { stream, by }),
        1 => (0..4usize).prop_map(Step::Finish),
        1 => (0..4usize).prop_map(Step::Abandon),
        1 => Just(Step::Reopen),
    ]
}

#[derive(Default)]
struct Model {
    deposit: u64,
    voucher: u64,
    owed: u64,
    cut: bool,
    /// Amount and charge of each stream.
    streams: Vec<(u64, u64)>,
}

impl Model {
    fn reserved(&self) -> u64 {
        self.streams.iter().map(|(amount, charged)| amount - charged).sum()
    }

    fn open(&self) -> u64 {
        self.owed.saturating_sub(self.voucher)
    }

    fn may_reserve(&mut self, amount: u64) -> bool {
        let free = self.deposit - self.owed - self.reserved();
        if (self.cut && self.open() > WINDOW / 2) || free < amount {
            return false;
        }
        self.cut = false;
        true
    }

    /// As the rule says: an order of ifs of its own.
    fn may_charge(&mut self, stream: usize, by: u64) -> bool {
        let (amount, charged) = self.streams[stream];
        if charged + by > amount {
            return false;
        }
        if by > WINDOW {
            return false;
        }
        let passes = by == 0 || self.open() + by <= WINDOW || self.open() <= WINDOW / 2;
        self.cut |= !passes;
        passes
    }
}

struct Real {
    path: std::path::PathBuf,
    book: Option<PayeeBook>,
    streams: Vec<Reservation>,
}

impl Real {
    fn open(path: std::path::PathBuf) -> Self {
        let store = Store::open(&path).expect("the store opens");
        Self { book: Some(book(&store)), streams: Vec::new(), path }
    }

    fn book(&self) -> &PayeeBook {
        self.book.as_ref().expect("closed only within a reopen")
    }

    async fn reopen(&mut self) {
        for stream in self.streams.drain(..) {
            stream.finish().await.expect("the disk takes it");
        }
        self.book = None;
        *self = Self::open(self.path.clone());
    }
}

async fn apply(step: &Step, model: &mut Model, real: &mut Real) {
    let mut facts = facts(1, model.deposit);
    let address = facts.address.clone();
    match *step {
        Step::Deposit(deposit) => {
            facts.deposit = deposit;
            real.book().announce(facts).await.expect("the chain is believed");
            model.deposit = model.deposit.max(deposit);
        }
        Step::Voucher(amount) => {
            let good = amount <= model.deposit && amount >= model.voucher;
            let taken = real.book().accept_voucher(&address, voucher(&facts, amount)).await;
            assert_eq!(taken.is_ok(), good, "{taken:?}");
            if good {
                model.voucher = amount;
            }
        }
        Step::Reserve(amount) => {
            let may = model.may_reserve(amount);
            let held = real.book().reserve(&address, amount);
            assert_eq!(held.is_ok(), may, "{:?}", held.err());
            if let Ok(held) = held {
                real.streams.push(held);
                model.streams.push((amount, 0));
            }
        }
        Step::Charge { stream, by } => {
            if stream < model.streams.len() {
                let may = model.may_charge(stream, by);
                let wanted = model.streams[stream].1 + by;
                let charged = real.streams[stream].charge(wanted, Duration::ZERO).await;
                assert_eq!(charged.is_ok(), may, "{charged:?}");
                if may {
                    model.streams[stream].1 += by;
                    model.owed += by;
                }
            }
        }
        Step::Finish(stream) | Step::Abandon(stream) => {
            if stream < model.streams.len() {
                model.streams.remove(stream);
                let held = real.streams.remove(stream);
                if matches!(step, Step::Finish(_)) {
                    held.finish().await.expect("the disk takes it");
                }
            }
        }
        Step::Reopen => {
            model.streams.clear();
            model.cut = false;
            real.reopen().await;
            // The chain is asked again before anything is taken.
            assert_eq!(real.book().reserve(&address, 0).err(), Some(ReserveError::Unchecked));
            real.book().announce(facts).await.expect("the chain is believed");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_account_agrees_with_the_model_in_any_order(steps in prop::collection::vec(step(), 1..60)) {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        runtime.block_on(async {
            let mut real = Real::open(folder.path().join("accounts.redb"));
            let mut model = Model::default();
            let facts = facts(1, 0);
            real.book().announce(facts.clone()).await.expect("a fresh channel is taken");
            for step in &steps {
                let before = model.voucher;
                apply(step, &mut model, &mut real).await;
                let status = real.book().status(&facts.address).expect("the channel is known");
                assert_eq!(
                    (status.deposit, status.voucher, status.owed, status.reserved),
                    (model.deposit, model.voucher, model.owed, model.reserved()),
                    "after {step:?}"
                );
                assert!(status.owed + status.reserved <= status.deposit, "after {step:?}");
                assert!(status.voucher >= before && status.voucher <= status.deposit, "after {step:?}");
            }
        });
    }
}
