//! The agent that pays, towards a payee that loses vouchers and lies.

mod common;

use std::sync::{Arc, Mutex};

use cocoon_accounts::{PayError, PayeeLink, PayerAgent, PayerBook, PayerOptions, Store};
use cocoon_contracts::{Address, SignedVoucher};
use cocoon_protocol::http::AccountStatus;
use common::{facts, key};

const CAP: u64 = 1_000;

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Failure {
    #[error("the voucher was lost")]
    Lost,
    #[error(transparent)]
    Pay(#[from] PayError),
}

fn nothing() -> AccountStatus {
    AccountStatus { address: String::new(), deposit: 0, paid: 0, voucher: 0, owed: 0, reserved: 0, window: 0 }
}

/// What the payee says and does next.
struct Payee {
    loses: usize,
    tried: usize,
    status: AccountStatus,
}

#[derive(Clone)]
struct Link(Arc<Mutex<Payee>>);

impl PayeeLink for Link {
    type Error = Failure;

    async fn announce(&self, channel: &Address) -> Result<AccountStatus, Failure> {
        self.account(channel).await
    }

    async fn voucher(&self, signed: &SignedVoucher) -> Result<AccountStatus, Failure> {
        let mut payee = self.0.lock().expect("no test panics in here");
        payee.tried += 1;
        if payee.loses > 0 {
            payee.loses -= 1;
            return Err(Failure::Lost);
        }
        payee.status.voucher = signed.voucher.cumulative;
        Ok(payee.status.clone())
    }

    async fn account(&self, _: &Address) -> Result<AccountStatus, Failure> {
        Ok(self.0.lock().expect("no test panics in here").status.clone())
    }

    fn unknown_channel(_: &Failure) -> bool {
        false
    }

    fn stale_voucher(_: &Failure) -> bool {
        false
    }
}

fn link() -> Link {
    Link(Arc::new(Mutex::new(Payee { loses: 0, tried: 0, status: nothing() })))
}

async fn opened(folder: &tempfile::TempDir, deposit: u64) -> (Arc<PayerAgent<Link>>, Link) {
    let store = Store::open(&folder.path().join("a.redb")).expect("the store opens");
    let (book, facts, link) = (PayerBook::open(store).expect("its rows parse"), facts(1, deposit), link());
    book.open_channel(&facts.address, &facts.terms, deposit).await.expect("the disk takes it");
    let options = PayerOptions { cap: CAP, gather: std::time::Duration::ZERO, hold: true };
    (Arc::new(PayerAgent::new(book, key(), facts.address, link.clone(), options)), link)
}

#[tokio::test]
async fn a_voucher_that_was_lost_is_sent_again_until_it_is_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (agent, link) = opened(&folder, 10_000).await;
    link.0.lock().expect("no test panics in here").loses = 2;
    let task = agent.spawn();
    let mut stream = agent.begin(500).await.expect("within the deposit");
    stream.owe_up_to(300).expect("within the deposit");
    stream.finish();
    // Nothing more is ever owed: only the acknowledgement that is missing makes it send again.
    while agent.state().acknowledged < 300 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let payee = link.0.lock().expect("no test panics in here");
    assert_eq!((payee.tried, payee.status.voucher), (3, 300));
    task.abort();
}

#[tokio::test]
async fn a_payee_that_claims_the_deposit_and_an_endless_window_gets_one_capped_concession() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (agent, link) = opened(&folder, 1_000_000).await;
    let greedy = AccountStatus { owed: 1_000_000, window: u64::MAX, ..nothing() };
    link.0.lock().expect("no test panics in here").status = greedy;
    agent.announce().await.expect("it is told");
    for _ in 0..10 {
        drop(agent.begin(100_000).await.expect("within the deposit"));
        let refused = agent.look().await;
        assert!(
            matches!(refused, Err(Failure::Pay(PayError::Overcharged { allowance: CAP, .. }))),
            "{refused:?}"
        );
    }
    assert_eq!(agent.state().owed, 0);
    for _ in 0..10 {
        let claim = agent.state().owed + CAP;
        link.0.lock().expect("no test panics in here").status.owed = claim;
        drop(agent.begin(100_000).await.expect("within the deposit"));
        drop(agent.look().await);
    }
    assert_eq!(agent.state().owed, CAP, "it delivered nothing, and never gets more");
}

#[tokio::test]
async fn an_acknowledgement_of_more_than_was_signed_is_not_believed() {
    let folder = tempfile::tempdir().expect("a folder for the test");
    let (agent, link) = opened(&folder, 10_000).await;
    link.0.lock().expect("no test panics in here").status.voucher = 9_000;
    agent.announce().await.expect("it is told");
    assert_eq!(agent.state().acknowledged, 0);
}
