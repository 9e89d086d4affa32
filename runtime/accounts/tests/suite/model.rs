//! Random orders of everything that can happen to an account, against a model of three numbers.

use std::time::Duration;

use cocoon_accounts::{PayeeBook, Reservation, ReserveError};
use cocoon_protocol::http::AccountStatus;
use proptest::prelude::*;

use super::{Fixture, status};
use crate::common::{WINDOW, facts, voucher};

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Deposit(u64),
    Voucher(u64),
    Reserve(u64),
    Charge { stream: usize, by: u64 },
    Finish(usize),
    Abandon(usize),
    Reopen,
}

pub(crate) fn step() -> impl Strategy<Value = Step> {
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

/// The books of the same accounts: one where one process keeps them, several where processes share them. What is done to
/// a stream, its own book does.
struct Real<'a, F> {
    fixture: &'a F,
    books: Vec<PayeeBook>,
    streams: Vec<Reservation>,
    turn: usize,
}

impl<'a, F: Fixture> Real<'a, F> {
    async fn open(fixture: &'a F, processes: usize) -> Self {
        let mut books = Vec::new();
        for _ in 0..processes {
            books.push(fixture.open().await);
        }
        Self { fixture, books, streams: Vec::new(), turn: 0 }
    }

    /// Another one each time.
    fn book(&mut self) -> &PayeeBook {
        self.turn += 1;
        &self.books[self.turn % self.books.len()]
    }

    async fn reopen(&mut self) {
        for stream in self.streams.drain(..) {
            stream.finish().await.expect("the disk takes it");
        }
        let processes = self.books.len();
        self.books.clear();
        *self = Self::open(self.fixture, processes).await;
    }
}

async fn apply<F: Fixture>(step: &Step, model: &mut Model, real: &mut Real<'_, F>) {
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
            let held = real.book().reserve(&address, amount).await;
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
            // A cut is remembered where looks are.
            model.cut &= F::REMEMBERS_LOOKS;
            real.reopen().await;
            if !F::REMEMBERS_LOOKS {
                // The chain is asked again before anything is taken.
                assert_eq!(real.book().reserve(&address, 0).await.err(), Some(ReserveError::Unchecked));
            }
            real.book().announce(facts).await.expect("the chain is believed");
        }
    }
}

/// The account as one of the books says it; what an abandoned answer gives back reaches siblings a moment later.
async fn settled_status<F: Fixture>(
    real: &mut Real<'_, F>,
    model: &Model,
    processes: usize,
) -> AccountStatus {
    let address = facts(1, 0).address;
    for _ in 0..400 {
        let status = status(real.book(), &address).await.expect("the channel is known");
        let owed = status.owed == model.owed || !model.streams.is_empty();
        if processes == 1 || (owed && status.owed + status.reserved == model.owed + model.reserved()) {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    status(real.book(), &address).await.expect("the channel is known")
}

/// Whatever the order, the account is what the model says.
pub(crate) async fn agrees<F: Fixture>(fixture: &F, processes: usize, steps: &[Step]) {
    let mut real = Real::open(fixture, processes).await;
    let mut model = Model::default();
    let facts = facts(1, 0);
    real.book().announce(facts.clone()).await.expect("a fresh channel is taken");
    for step in steps {
        let before = model.voucher;
        apply(step, &mut model, &mut real).await;
        let status = settled_status(&mut real, &model, processes).await;
        assert_eq!(
            (status.deposit, status.voucher, status.owed + status.reserved),
            (model.deposit, model.voucher, model.owed + model.reserved()),
            "after {step:?}"
        );
        if processes == 1 || model.streams.is_empty() {
            // A sibling's answers under way are told apart when they report.
            assert_eq!(status.owed, model.owed, "after {step:?}");
        }
        assert!(status.owed + status.reserved <= status.deposit, "after {step:?}");
        assert!(status.voucher >= before && status.voucher <= status.deposit, "after {step:?}");
        assert!(model.open() <= WINDOW + WINDOW / 2, "after {step:?}");
    }
}
