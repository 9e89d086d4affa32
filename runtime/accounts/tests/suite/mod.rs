//! What must hold of a payee's accounts whatever keeps them: run over the redb file here, and over PostgreSQL by its crate.
#![allow(dead_code, unused_macros, unused_imports, reason = "each test file uses its own part")]

pub(crate) mod model;
pub(crate) mod payee;

use cocoon_accounts::PayeeBook;
use cocoon_contracts::Address;
use cocoon_protocol::http::AccountStatus;

/// Accounts that can be opened again and again; what was opened before has been dropped.
pub(crate) trait Fixture: Sized {
    /// Whether a look at the chain counts for a process that starts after it.
    const REMEMBERS_LOOKS: bool;

    /// Opens them.
    async fn open(&self) -> PayeeBook;
}

impl Fixture for crate::common::File {
    const REMEMBERS_LOOKS: bool = false;

    async fn open(&self) -> PayeeBook {
        crate::common::book(&self.store().await)
    }
}

pub(crate) async fn status(book: &PayeeBook, channel: &Address) -> Option<AccountStatus> {
    book.status(channel).await.expect("the store answers")
}

/// Gives the sentences of [`payee`] to a macro of this module.
macro_rules! payee_sentences {
    ($then:ident $fixture:expr) => {
        suite::$then! { $fixture =>
            refuses_each_kind_of_wrong_voucher_and_keeps_the_account_as_it_was,
            acknowledges_the_voucher_it_holds_again,
            refuses_a_channel_of_another_network,
            refuses_work_that_the_deposit_does_not_cover_before_it_begins,
            refuses_new_work_on_a_closing_channel,
            a_charge_beyond_the_reservation_or_backwards_is_refused_and_charges_nothing,
            a_stream_over_its_window_waits_for_a_voucher_and_goes_on,
            a_stream_without_a_voucher_is_cut_and_new_work_refused_until_one_comes,
            a_single_charge_larger_than_the_window_never_passes_and_waits_for_nothing,
            many_streams_share_one_window,
            concurrent_reservations_never_exceed_the_deposit,
            everything_acknowledged_is_there_after_a_restart,
            a_dropped_reservation_writes_what_it_charged,
            nothing_is_taken_on_a_channel_that_was_not_looked_at_for_a_quarter_of_its_challenge_period,
            an_answer_under_way_on_a_channel_that_closes_is_cut_while_it_waits,
            a_channel_that_is_gone_and_settled_leaves_the_book_and_one_with_a_voucher_does_not,
            a_channel_that_was_closed_and_opened_again_with_less_is_promised_nothing,
            a_voucher_that_was_never_settled_leaves_the_book_long_after_its_deadline,
            channels_without_work_are_looked_at_a_few_at_a_time,
        }
    };
}

/// One test for each sentence, over the fixture that the expression makes.
macro_rules! payee_suite {
    ($fixture:expr) => { suite::payee_sentences! { payee_suite $fixture } };
    ($fixture:expr => $($sentence:ident,)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $sentence() {
            suite::payee::$sentence($fixture.await).await;
        }
    )*};
}

/// All sentences one after another, each over a fixture of its own: where making one is dear.
macro_rules! every_payee_sentence {
    ($fixture:expr) => { suite::payee_sentences! { every_payee_sentence $fixture } };
    ($fixture:expr => $($sentence:ident,)*) => {$(
        println!("{}", stringify!($sentence));
        suite::payee::$sentence($fixture.await).await;
    )*};
}

pub(crate) use {every_payee_sentence, payee_sentences, payee_suite};
