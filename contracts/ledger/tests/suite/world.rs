//! A ledger with people on it, and a clock in the test's hand.

use cocoon_chain::Transaction;
use cocoon_contracts::channel::{self, State, Terms};
use cocoon_contracts::wallet::{self, Transfer};
use cocoon_contracts::{Address, Cell, Nanotons, SignedVoucher, SigningKey, TON, Voucher, message};
use cocoon_ledger::{Genesis, GenesisAccount, Ledger, STORAGE_2026_SINCE, Schedule};
use tycho_types::models::StateInit;

pub(crate) const NETWORK: i32 = -217;
pub(crate) const START: u32 = STORAGE_2026_SINCE + 1_000_000;
pub(crate) const CHALLENGE: u32 = 600;

const TREASURY: u8 = 4;

/// Somebody with a wallet.
pub(crate) struct Actor {
    pub(crate) key: SigningKey,
    pub(crate) address: Address,
}

impl Actor {
    pub(crate) fn new(seed: u8) -> Self {
        let key = SigningKey::from_seed(&[seed; 32]);
        let address = wallet::address(&key.public());
        Self { key, address }
    }
}

/// The ledger, the people, and the time.
pub(crate) struct World {
    pub(crate) ledger: Ledger,
    pub(crate) now: u32,
    pub(crate) payer: Actor,
    pub(crate) payee: Actor,
    pub(crate) stranger: Actor,
    pub(crate) treasury: Actor,
    pub(crate) supply: u128,
}

impl World {
    pub(crate) fn new() -> Self {
        Self::under(Schedule::Mainnet2026)
    }

    pub(crate) fn under(schedule: Schedule) -> Self {
        let [payer, payee, stranger, treasury] = [1, 2, 3, TREASURY].map(Actor::new);
        let ledger = Ledger::in_memory(&genesis(schedule, &[&payer, &payee, &stranger, &treasury]));
        let ledger = ledger.expect("a new ledger");
        let supply = ledger.supply().total();
        Self { ledger, now: START, payer, payee, stranger, treasury, supply }
    }

    /// Makes a block and checks that no nanoton came or went.
    pub(crate) fn block(&mut self) {
        self.ledger.produce_block(self.now).expect("a block");
        assert_eq!(self.ledger.supply().total(), self.supply, "nanotons are conserved");
    }

    pub(crate) fn seqno(&self, actor: &Actor) -> u32 {
        let account = self.ledger.account(&actor.address).expect("the wallet exists");
        match account.state {
            tycho_types::models::AccountState::Active(init) => {
                wallet::seqno(&init.data.expect("a wallet has data")).expect("wallet data")
            }
            _ => 0,
        }
    }

    /// Sends from a wallet, makes a block, and returns the destination's transaction.
    pub(crate) fn send(&mut self, from: Who, transfer: Transfer) -> Transaction {
        let to = transfer.to.clone();
        let actor = self.who(from);
        let sender = actor.address.clone();
        let seqno = self.seqno(actor);
        let message = wallet::external_message(&actor.key, seqno, self.now + 60, false, &[transfer]);
        let bytes = message::encode(&message.expect("a wallet message"));
        self.ledger.submit(&bytes).expect("the wallet accepts");
        self.block();
        let history = self.ledger.history(&to, 4).expect("history");
        history.into_iter().find(|tx| tx.from.as_ref() == Some(&sender)).expect("it arrived")
    }

    pub(crate) fn who(&self, who: Who) -> &Actor {
        match who {
            Who::Payer => &self.payer,
            Who::Payee => &self.payee,
            Who::Stranger => &self.stranger,
        }
    }

    /// All that a channel ever sent to the treasury: to the nanoton, before the treasury's own rent.
    pub(crate) fn network_fees(&self, terms: &Terms) -> Nanotons {
        let history = self.ledger.history(&self.treasury.address, 1000).expect("history");
        history.iter().filter(|tx| tx.from.as_ref() == Some(&terms.address())).map(|tx| tx.value).sum()
    }

    pub(crate) fn balance(&self, address: &Address) -> Nanotons {
        self.ledger.balance(address)
    }

    pub(crate) fn terms(&self, nonce: u64) -> Terms {
        Terms {
            payer: self.payer.address.clone(),
            payee: self.payee.address.clone(),
            payer_key: self.session_key().public(),
            network: NETWORK,
            nonce,
            challenge_seconds: CHALLENGE,
            fee_bps: 500,
            treasury: self.treasury.address.clone(),
        }
    }

    /// The key that signs vouchers: not the wallet's.
    pub(crate) fn session_key(&self) -> SigningKey {
        SigningKey::from_seed(&[77; 32])
    }

    /// Opens a channel with a deposit to claim, all of which the session key may sign.
    pub(crate) fn open(&mut self, nonce: u64, deposit: Nanotons) -> Terms {
        self.open_with_limit(nonce, deposit, Nanotons::MAX)
    }

    /// Opens a channel whose session key may sign this much.
    pub(crate) fn open_with_limit(&mut self, nonce: u64, deposit: Nanotons, limit: Nanotons) -> Terms {
        let terms = self.terms(nonce);
        let amount = deposit + channel::OPEN_RESERVE + channel::OPEN_VALUE;
        let open = to_contract(&terms.address(), amount, channel::open_body(limit));
        let tx = self.send(Who::Payer, deploying(open, terms.state_init()));
        assert_eq!((tx.exit_code, tx.aborted), (Some(0), false));
        terms
    }

    /// The channel's state; `None` when there is no open channel.
    pub(crate) fn channel(&self, terms: &Terms) -> Option<State> {
        let account = self.ledger.account(&terms.address())?;
        let tycho_types::models::AccountState::Active(init) = account.state else { return None };
        assert_eq!(init.code.expect("code").repr_hash().0, channel::code_hash());
        let balance = Nanotons::try_from(account.balance.tokens.into_inner()).expect("fits");
        State::parse(&init.data.expect("data"), balance).ok()
    }

    pub(crate) fn voucher(&self, terms: &Terms, cumulative: Nanotons) -> SignedVoucher {
        let voucher = Voucher { network: NETWORK, channel: terms.address(), nonce: terms.nonce, cumulative };
        voucher.sign(&self.session_key())
    }

    pub(crate) fn settle(&mut self, terms: &Terms, cumulative: Nanotons) -> Transaction {
        let body = channel::settle_body(&self.voucher(terms, cumulative));
        self.send(Who::Payee, to_contract(&terms.address(), channel::SETTLE_VALUE, body))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Payer,
    Payee,
    Stranger,
}

pub(crate) fn genesis(schedule: Schedule, actors: &[&Actor]) -> Genesis {
    let account = |actor: &&Actor| GenesisAccount {
        address: actor.address.clone(),
        balance: 100 * TON,
        // A treasury that never sent anything: no code of its own takes gas out of what it gets.
        state_init: (actor.address != Actor::new(TREASURY).address)
            .then(|| wallet::state_init(&actor.key.public())),
    };
    Genesis { network: NETWORK, schedule, time: START, accounts: actors.iter().map(account).collect() }
}

pub(crate) fn to_contract(to: &Address, amount: Nanotons, body: Cell) -> Transfer {
    Transfer { to: to.clone(), amount, bounce: true, body: Some(body), state_init: None }
}

pub(crate) fn opening(terms: &Terms, amount: Nanotons) -> Transfer {
    deploying(to_contract(&terms.address(), amount, channel::open_body(Nanotons::MAX)), terms.state_init())
}

pub(crate) fn deploying(mut transfer: Transfer, init: StateInit) -> Transfer {
    transfer.state_init = Some(init);
    transfer
}
