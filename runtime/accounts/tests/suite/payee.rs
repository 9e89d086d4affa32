//! What a payee takes, refuses, sets aside, charges and remembers.

use std::{sync::Arc, time::Duration};

use cocoon_accounts::{
    AnnounceError, ChannelFacts, ChargeError, PayeeBook, RENT, Reservation, ReserveError, VoucherError,
};
use cocoon_contracts::{Address, SigningKey};

use super::{Fixture, status};
use crate::common::{self, NETWORK, WINDOW, account, facts, unsigned, voucher};

const SOON: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(30);

async fn channels(book: &PayeeBook) -> Vec<Address> {
    let accounts = book.accounts().await.expect("the store answers");
    accounts.into_iter().map(|account| account.address).collect()
}

async fn opened<F: Fixture>(fixture: &F, deposit: u64) -> (PayeeBook, ChannelFacts) {
    let (book, facts) = (fixture.open().await, facts(1, deposit));
    book.announce(facts.clone()).await.expect("a fresh channel is taken");
    (book, facts)
}

pub(crate) async fn refuses_each_kind_of_wrong_voucher_and_keeps_the_account_as_it_was<F: Fixture>(
    fixture: F,
) {
    let (book, facts) = opened(&fixture, 10_000).await;
    let channel = &facts.address;
    let before = book.accept_voucher(channel, voucher(&facts, 500)).await.expect("a good voucher is taken");
    assert_eq!(before.voucher, 500);

    let stale = book.accept_voucher(channel, voucher(&facts, 499)).await;
    assert_eq!(stale, Err(VoucherError::Stale { held: 500, found: 499 }));

    let high = book.accept_voucher(channel, voucher(&facts, 10_001)).await;
    assert_eq!(high, Err(VoucherError::ExceedsDeposit { deposit: 10_000, found: 10_001 }));

    let mut foreign = unsigned(&facts, 600);
    foreign.network = -3;
    let foreign = book.accept_voucher(channel, foreign.sign(&common::key())).await;
    assert_eq!(foreign, Err(VoucherError::WrongNetwork { expected: NETWORK, found: -3 }));

    let mut elsewhere = unsigned(&facts, 600);
    elsewhere.channel = account(9);
    let elsewhere = book.accept_voucher(channel, elsewhere.sign(&common::key())).await;
    assert_eq!(elsewhere, Err(VoucherError::WrongChannel { expected: channel.clone(), found: account(9) }));

    let mut other_life = unsigned(&facts, 600);
    other_life.nonce = 2;
    let other_life = book.accept_voucher(channel, other_life.sign(&common::key())).await;
    assert_eq!(other_life, Err(VoucherError::WrongNonce { expected: 1, found: 2 }));

    let stranger = unsigned(&facts, 600).sign(&SigningKey::from_seed(&[8; 32]));
    assert_eq!(book.accept_voucher(channel, stranger).await, Err(VoucherError::WrongSigner));

    let mut forged = voucher(&facts, 600);
    forged.voucher.cumulative = 601;
    assert_eq!(book.accept_voucher(channel, forged).await, Err(VoucherError::WrongSigner));

    let unknown = book.accept_voucher(&account(9), voucher(&facts, 600)).await;
    assert_eq!(unknown, Err(VoucherError::UnknownChannel(account(9))));

    assert_eq!(status(&book, channel).await, Some(before));
}

pub(crate) async fn acknowledges_the_voucher_it_holds_again<F: Fixture>(fixture: F) {
    let (book, facts) = opened(&fixture, 10_000).await;
    let first = book.accept_voucher(&facts.address, voucher(&facts, 500)).await;
    assert_eq!(book.accept_voucher(&facts.address, voucher(&facts, 500)).await, first);
}

pub(crate) async fn refuses_a_channel_of_another_network<F: Fixture>(fixture: F) {
    let (book, _) = opened(&fixture, 1).await;
    let mut foreign = facts(5, 1);
    foreign.terms.network = -3;
    let refused = book.announce(foreign).await;
    assert_eq!(refused, Err(AnnounceError::WrongNetwork { expected: NETWORK, found: -3 }));
}

pub(crate) async fn refuses_work_that_the_deposit_does_not_cover_before_it_begins<F: Fixture>(fixture: F) {
    let (book, facts) = opened(&fixture, 10_000).await;
    let held = book.reserve(&facts.address, 7_000).await.expect("the deposit covers it");
    let refused = book.reserve(&facts.address, 3_001).await.err();
    assert_eq!(refused, Some(ReserveError::InsufficientDeposit { wanted: 3_001, free: 3_000 }));
    drop(held);
    book.reserve(&facts.address, 10_000).await.expect("what was given back is free again");
}

pub(crate) async fn refuses_new_work_on_a_closing_channel<F: Fixture>(fixture: F) {
    let (book, mut facts) = opened(&fixture, 10_000).await;
    facts.closing = true;
    book.announce(facts.clone()).await.expect("what the chain says is taken");
    assert_eq!(book.reserve(&facts.address, 1).await.err(), Some(ReserveError::Closing));
}

pub(crate) async fn a_charge_beyond_the_reservation_or_backwards_is_refused_and_charges_nothing<
    F: Fixture,
>(
    fixture: F,
) {
    let (book, facts) = opened(&fixture, 10_000).await;
    let mut held = book.reserve(&facts.address, 400).await.expect("the deposit covers it");
    held.charge(300, SOON).await.expect("within the reservation and the window");
    let over = held.charge(401, SOON).await;
    assert_eq!(over, Err(ChargeError::OverReservation { wanted: 401, reserved: 400 }));
    let back = held.charge(299, SOON).await;
    assert_eq!(back, Err(ChargeError::Backwards { charged: 300, wanted: 299 }));
    let status = status(&book, &facts.address).await.expect("the channel is known");
    assert_eq!((status.owed, status.reserved), (300, 100));
}

pub(crate) async fn a_stream_over_its_window_waits_for_a_voucher_and_goes_on<F: Fixture>(fixture: F) {
    let (book, facts) = opened(&fixture, 10_000).await;
    let mut held = book.reserve(&facts.address, 5_000).await.expect("the deposit covers it");
    held.charge(900, LONG).await.expect("within the window");
    let paying = {
        let (book, facts) = (book.clone(), facts.clone());
        async move {
            // The charge is waiting by now: both futures run on this one thread, and it was polled first.
            book.accept_voucher(&facts.address, voucher(&facts, 900)).await
        }
    };
    let (charged, paid) = tokio::join!(held.charge(1_800, LONG), paying);
    charged.expect("the voucher lets it go on");
    paid.expect("the voucher is good");
    assert_eq!(status(&book, &facts.address).await.expect("the channel is known").owed, 1_800);
}

pub(crate) async fn a_stream_without_a_voucher_is_cut_and_new_work_refused_until_one_comes<F: Fixture>(
    fixture: F,
) {
    let (book, facts) = opened(&fixture, 10_000).await;
    let mut held = book.reserve(&facts.address, 5_000).await.expect("the deposit covers it");
    held.charge(900, SOON).await.expect("within the window");
    let cut = held.charge(1_001, SOON).await;
    assert_eq!(cut, Err(ChargeError::VoucherRequired { owed: 900, voucher: 0, waited: SOON }));
    drop(held);
    let refused = book.reserve(&facts.address, 1).await.err();
    assert_eq!(refused, Some(ReserveError::VoucherRequired { owed: 900, voucher: 0 }));
    book.accept_voucher(&facts.address, voucher(&facts, 900)).await.expect("the debt is paid");
    book.reserve(&facts.address, 1).await.expect("work is taken again");
}

pub(crate) async fn a_single_charge_larger_than_the_window_never_passes_and_waits_for_nothing<F: Fixture>(
    fixture: F,
) {
    let (book, facts) = opened(&fixture, 100_000).await;
    let mut held = book.reserve(&facts.address, 50_000).await.expect("the deposit covers it");
    let jump = held.charge(WINDOW + 1, LONG).await;
    assert_eq!(jump, Err(ChargeError::Jump { by: WINDOW + 1, window: WINDOW }));
    held.charge(WINDOW / 2, SOON).await.expect("within the window");
    held.charge(WINDOW / 2 + WINDOW, SOON).await.expect("a whole window while half of one is open");
    let third = held.charge(WINDOW / 2 + WINDOW + 1, SOON).await;
    assert!(matches!(third, Err(ChargeError::VoucherRequired { .. })), "{third:?}");
}

pub(crate) async fn many_streams_share_one_window<F: Fixture>(fixture: F) {
    let (book, facts) = opened(&fixture, 1_000_000).await;
    let mut reserved = Vec::new();
    for _ in 0..20 {
        reserved.push(book.reserve(&facts.address, 1_000).await.expect("the deposit covers it"));
    }
    let stream = |mut held: Reservation| async move {
        let mut cumulative = 0;
        while held.charge(cumulative + 50, SOON).await.is_ok() {
            cumulative += 50;
        }
        held.finish().await.expect("the disk takes it");
        cumulative
    };
    let streams: Vec<_> = reserved.into_iter().map(|held| tokio::spawn(stream(held))).collect();
    let mut total = 0;
    for stream in streams {
        total += stream.await.expect("no stream panics");
    }
    let status = status(&book, &facts.address).await.expect("the channel is known");
    assert_eq!(status.owed, total, "each charge was counted once");
    assert_eq!(status.owed, WINDOW, "twenty streams owe what one may");
    assert_eq!(status.reserved, 0);
}

pub(crate) async fn concurrent_reservations_never_exceed_the_deposit<F: Fixture>(fixture: F) {
    let (book, facts) = opened(&fixture, 10_000).await;
    let start = Arc::new(tokio::sync::Barrier::new(32));
    let tasks: Vec<_> = (0..32)
        .map(|_| {
            let (book, facts, start) = (book.clone(), facts.clone(), Arc::clone(&start));
            tokio::spawn(async move {
                start.wait().await;
                book.reserve(&facts.address, 900).await.ok()
            })
        })
        .collect();
    let mut held = Vec::new();
    for task in tasks {
        held.extend(task.await.expect("no task panics"));
    }
    assert_eq!(held.len(), 11, "eleven times 900 fit into 10000");
    assert_eq!(status(&book, &facts.address).await.expect("the channel is known").reserved, 9_900);
}

pub(crate) async fn everything_acknowledged_is_there_after_a_restart<F: Fixture>(fixture: F) {
    let facts = facts(1, 10_000);
    let before = {
        let book = fixture.open().await;
        book.announce(facts.clone()).await.expect("a fresh channel is taken");
        let mut held = book.reserve(&facts.address, 2_000).await.expect("the deposit covers it");
        held.charge(700, SOON).await.expect("within the window");
        book.accept_voucher(&facts.address, voucher(&facts, 700)).await.expect("a good voucher");
        held.charge(950, SOON).await.expect("within the window");
        held.finish().await.expect("the disk takes it");
        book.settled(&facts.address, 600).await.expect("the disk takes it");
        status(&book, &facts.address).await
    };
    let book = fixture.open().await;
    assert_eq!(status(&book, &facts.address).await, before);
    assert_eq!(before.map(|s| (s.owed, s.voucher, s.paid)), Some((950, 700, 600)));
    assert_eq!(book.terms(&facts.address).await, Ok(Some(facts.terms.clone())));
    let unsettled = book.unsettled().await.expect("the store answers");
    assert_eq!(unsettled.len(), 1);
    assert_eq!((unsettled[0].worth, &unsettled[0].voucher), (100, &voucher(&facts, 700)));
}

pub(crate) async fn a_dropped_reservation_writes_what_it_charged<F: Fixture>(fixture: F) {
    let facts = facts(1, 10_000);
    {
        let book = fixture.open().await;
        book.announce(facts.clone()).await.expect("a fresh channel is taken");
        let mut held = book.reserve(&facts.address, 2_000).await.expect("the deposit covers it");
        held.charge(321, SOON).await.expect("within the window");
        drop(held);
    }
    let book = fixture.open().await;
    assert_eq!(status(&book, &facts.address).await.map(|s| s.owed), Some(321));
}

pub(crate) async fn nothing_is_taken_on_a_channel_that_was_not_looked_at_for_a_quarter_of_its_challenge_period<
    F: Fixture,
>(
    fixture: F,
) {
    let (book, _) = opened(&fixture, 10_000).await;
    let mut brief = facts(2, 10_000);
    brief.terms.challenge_seconds = 4;
    brief.address = brief.terms.address();
    book.announce(brief.clone()).await.expect("a fresh channel is taken");
    book.reserve(&brief.address, 1).await.expect("it was looked at just now");
    book.accept_voucher(&brief.address, voucher(&brief, 1)).await.expect("it was looked at just now");
    tokio::time::sleep(Duration::from_millis(1_050)).await;
    assert_eq!(book.reserve(&brief.address, 1).await.err(), Some(ReserveError::Unchecked));
    let refused = book.accept_voucher(&brief.address, voucher(&brief, 2)).await;
    assert_eq!(refused, Err(VoucherError::Unchecked));
    book.announce(brief.clone()).await.expect("what the chain says is taken");
    book.reserve(&brief.address, 1).await.expect("it was looked at again");
}

pub(crate) async fn an_answer_under_way_on_a_channel_that_closes_is_cut_while_it_waits<F: Fixture>(
    fixture: F,
) {
    let (book, mut facts) = opened(&fixture, 10_000).await;
    let mut held = book.reserve(&facts.address, 5_000).await.expect("the deposit covers it");
    held.charge(1_000, LONG).await.expect("within the window");
    facts.closing = true;
    let (charged, noted) = tokio::join!(held.charge(1_001, LONG), book.announce(facts));
    noted.expect("what the chain says is taken");
    assert_eq!(charged, Err(ChargeError::Closing));
}

pub(crate) async fn a_channel_that_is_gone_and_settled_leaves_the_book_and_one_with_a_voucher_does_not<
    F: Fixture,
>(
    fixture: F,
) {
    let (mut settled, mut unpaid) = (facts(1, 10_000), facts(2, 10_000));
    {
        let book = fixture.open().await;
        for facts in [&mut settled, &mut unpaid] {
            book.announce(facts.clone()).await.expect("a fresh channel is taken");
            book.accept_voucher(&facts.address, voucher(facts, 500)).await.expect("a good voucher");
        }
        settled.paid = 500;
        for facts in [&mut settled, &mut unpaid] {
            book.gone(&facts.address).await.expect("the disk takes it");
            assert!(status(&book, &facts.address).await.is_some(), "one word of one endpoint is not enough");
            facts.closing = true;
            book.announce(facts.clone()).await.expect("what the chain says is taken");
            let active = book.to_watch(Duration::ZERO, 0).await.expect("the store answers");
            assert!(active.contains(&facts.address));
            book.gone(&facts.address).await.expect("the disk takes it");
        }
        assert_eq!(channels(&book).await, std::slice::from_ref(&unpaid.address));
    }
    let book = fixture.open().await;
    assert_eq!(channels(&book).await, [unpaid.address]);
    settled.closing = false;
    let again = book.announce(settled).await.expect("the chain is believed");
    assert_eq!((again.owed, again.paid), (500, 500), "what was paid is not free again");
}

/// The same terms have the same address, and a payer may open it again when it was closed: `paid` begins at nothing, and
/// the deposit is another.
pub(crate) async fn a_channel_that_was_closed_and_opened_again_with_less_is_promised_nothing<F: Fixture>(
    fixture: F,
) {
    let rich = 10 * RENT;
    for (paid_before, (deposit, paid)) in [(0, (5_000, 0)), (500, (rich, 0)), (500, (5_000, 0))] {
        let fixture = &fixture;
        let book = fixture.open().await;
        let nonce = 100 + paid_before + deposit;
        let mut known = facts(nonce, rich);
        book.announce(known.clone()).await.expect("a fresh channel is taken");
        book.accept_voucher(&known.address, voucher(&known, 500)).await.expect("a good voucher");
        known.paid = paid_before;
        book.announce(known.clone()).await.expect("what the chain says is taken");
        let again = ChannelFacts { deposit, paid, ..known.clone() };
        book.announce(again.clone()).await.expect("it is noted");
        let refused = book.reserve(&known.address, 1).await.err();
        assert_eq!(refused, Some(ReserveError::Unchecked), "{deposit} {paid}");
        let refused = book.accept_voucher(&known.address, voucher(&known, 600)).await;
        assert_eq!(refused, Err(VoucherError::Unchecked), "{deposit} {paid}");
        // The close of such a channel is taken over, and it is still none that was looked at.
        book.announce(ChannelFacts { closing: true, ..again }).await.expect("it is noted");
        assert_eq!(book.reserve(&known.address, 1).await.err(), Some(ReserveError::Closing));
        // An endpoint that showed the past a moment ago shows the present.
        book.announce(known.clone()).await.expect("what the chain says is taken");
        book.reserve(&known.address, 1).await.expect("it was looked at");
        // Rent takes nothing of what may be promised: the reserve pays it.
        let rented = ChannelFacts { deposit: rich - RENT, ..known.clone() };
        let told = book.announce(rented).await.expect("what the chain says is taken");
        assert_eq!(told.deposit, rich);
        book.reserve(&known.address, 1).await.expect("it was looked at");
    }
}

pub(crate) async fn a_voucher_that_was_never_settled_leaves_the_book_long_after_its_deadline<F: Fixture>(
    fixture: F,
) {
    let (book, mut facts) = opened(&fixture, 10_000).await;
    book.accept_voucher(&facts.address, voucher(&facts, 500)).await.expect("a good voucher");
    let now = u32::try_from(cocoon_accounts::unix_seconds()).expect("before 2106");
    facts.closing = true;
    for (ago, stays) in [(3_500, true), (3_700, false)] {
        facts.deadline = Some(now - ago);
        book.announce(facts.clone()).await.expect("what the chain says is taken");
        book.gone(&facts.address).await.expect("the disk takes it");
        assert_eq!(status(&book, &facts.address).await.is_some(), stays, "{ago} s after the deadline");
    }
}

pub(crate) async fn channels_without_work_are_looked_at_a_few_at_a_time<F: Fixture>(fixture: F) {
    let (book, first) = opened(&fixture, 10_000).await;
    for nonce in 2..6 {
        book.announce(facts(nonce, 10_000)).await.expect("a fresh channel is taken");
    }
    let some = book.to_watch(Duration::ZERO, 2).await.expect("the store answers");
    assert_eq!((some.len(), &some[0]), (2, &first.address), "that which was not looked at for longest");
    book.accept_voucher(&first.address, voucher(&first, 1)).await.expect("a good voucher");
    let some = book.to_watch(Duration::ZERO, 2).await.expect("the store answers");
    assert_eq!((some.len(), &some[0]), (3, &first.address), "beside those with work");
    assert!(book.to_watch(LONG, 2).await.expect("the store answers").is_empty());
}
