//! Vouchers onto the chain, as many in one message of the wallet as it carries.
//!
//! Settling again what was settled does nothing: each channel is read first. So a batch whose fate is not known (the chain
//! fell silent, the process ended) is simply settled again.

use std::{sync::Arc, time::Duration};

use cocoon_chain::{Chain, ChainError, Wallet};
use cocoon_contracts::{
    Address, Nanotons,
    channel::{self, State},
    wallet::Transfer,
};
use futures_util::{StreamExt, stream};
use tokio::time::Instant;

use crate::payee::Unsettled;

/// What one settlement costs its payee, in nanotons: the wallet's message with the value that it lends, the channel's
/// transaction and the payout's way home, by whatever wallet. At mainnet's prices of August 2026 (`contracts/fees.md`, with
/// which a test compares it), rounded up; the only place that knows it.
pub const SETTLEMENT_FEE: Nanotons = 1_000_000;
/// How many channels are read at once.
const READS_AT_ONCE: usize = 8;
/// How long the chain may take from the wallet's message to the channel's transaction.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often to look.
const POLL: Duration = Duration::from_millis(100);
const ACTION: &str = "settle the voucher";

/// One voucher's fate: what the channel says after it, or why it was not settled.
pub(crate) type Fate = (Unsettled, Result<State, ChainError>);

/// Settles as many vouchers as one message of the wallet carries. The wallet must not be used by another process meanwhile.
pub(crate) async fn settle_batch(wallet: &Wallet, batch: Vec<Unsettled>) -> Vec<Fate> {
    let chain = wallet.chain();
    let looks = batch.into_iter().map(|unsettled| look(&**chain, unsettled));
    let looks: Vec<_> = stream::iter(looks).buffered(READS_AT_ONCE).collect().await;
    let (mut fates, mut open) = (Vec::new(), Vec::new());
    for (unsettled, look) in looks {
        match look {
            Ok(Look::Open { last_lt }) => open.push((unsettled, last_lt)),
            Ok(Look::Settled(state)) => fates.push((unsettled, Ok(*state))),
            Err(error) => fates.push((unsettled, Err(error))),
        }
    }
    // A wallet that cannot lend the value for all of them can for some: it comes back with each payout.
    let mut parts = vec![open];
    while let Some(mut part) = parts.pop() {
        let transfers: Vec<Transfer> = part.iter().map(|(unsettled, _)| transfer(unsettled)).collect();
        if transfers.is_empty() {
            continue;
        }
        match wallet.transfer(&transfers).await {
            Ok(_) => fates.extend(await_effects(wallet, part).await),
            Err(ChainError::InsufficientBalance { .. }) if part.len() > 1 => {
                let second = part.split_off(part.len() / 2);
                parts.extend([second, part]);
            }
            Err(error) => fates.extend(part.into_iter().map(|(u, _)| (u, Err(error.clone())))),
        }
    }
    fates
}

enum Look {
    Open { last_lt: u64 },
    Settled(Box<State>),
}

async fn look(chain: &dyn Chain, unsettled: Unsettled) -> (Unsettled, Result<Look, ChainError>) {
    let looked = async {
        // Books hold verified vouchers only; one that changed on the way would cost a fee and bring nothing.
        let verified = unsettled.voucher.verify_for(&unsettled.terms);
        verified.map_err(|error| ChainError::Invalid { action: ACTION, why: error.to_string() })?;
        let last_lt = chain.account(&unsettled.channel).await?.last_lt;
        let state = cocoon_chain::read_channel(chain, &unsettled.channel).await?;
        let settled = state.paid >= unsettled.voucher.voucher.cumulative;
        Ok(if settled { Look::Settled(Box::new(state)) } else { Look::Open { last_lt } })
    };
    let looked = looked.await;
    (unsettled, looked)
}

fn transfer(unsettled: &Unsettled) -> Transfer {
    Transfer {
        to: unsettled.channel.clone(),
        amount: channel::SETTLE_VALUE,
        bounce: true,
        body: Some(channel::settle_body(&unsettled.voucher)),
        state_init: None,
    }
}

async fn await_effects(wallet: &Wallet, part: Vec<(Unsettled, u64)>) -> Vec<Fate> {
    let deadline = Instant::now() + PATIENCE;
    let (chain, payee) = (Arc::clone(wallet.chain()), wallet.address());
    let effects = part.into_iter().map(|(unsettled, last_lt)| {
        let chain = Arc::clone(&chain);
        async move {
            let effect = effect(&*chain, payee, &unsettled, last_lt, deadline).await;
            (unsettled, effect)
        }
    });
    stream::iter(effects).buffer_unordered(READS_AT_ONCE).collect().await
}

/// Waits until the channel shows that it paid, or that it refused.
async fn effect(
    chain: &dyn Chain,
    payee: &Address,
    unsettled: &Unsettled,
    last_lt: u64,
    deadline: Instant,
) -> Result<State, ChainError> {
    const RECENT: usize = 16;
    let (channel, wanted) = (&unsettled.channel, unsettled.voucher.voucher.cumulative);
    loop {
        // First the outcome, then the state: the state then shows at least what that transaction did.
        let recent = chain.transactions(channel, RECENT).await?;
        let state = cocoon_chain::read_channel(chain, channel).await?;
        if state.paid >= wanted {
            return Ok(state);
        }
        let ours = |tx: &&cocoon_chain::Transaction| tx.lt > last_lt && tx.from.as_ref() == Some(payee);
        if let Some(refused) = recent.iter().filter(ours).find(|tx| tx.aborted) {
            let exit_code = refused.exit_code.unwrap_or(-1);
            let meaning =
                channel::exit_code_meaning(exit_code).unwrap_or("it could not carry out its actions");
            let (address, meaning) = (Box::new(channel.clone()), meaning.to_owned());
            return Err(ChainError::ContractRefused { address, action: ACTION, exit_code, meaning });
        }
        if Instant::now() >= deadline {
            return Err(late(channel, PATIENCE));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The voucher is kept and settled another time.
pub(crate) fn late(channel: &Address, waited: Duration) -> ChainError {
    ChainError::NotConfirmed {
        action: ACTION,
        address: Box::new(channel.clone()),
        seconds: waited.as_secs(),
        remedy: "the voucher is kept, and settling it again does no harm",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `contracts/fees.md`, which the ledger's tests write, says of an operation at the prices of August 2026.
    fn costs(operation: &str) -> Nanotons {
        let table = include_str!("../../../contracts/fees.md");
        let (_, of_2026) = table.split_once("## mainnet-2026").expect("the price list");
        let row = of_2026.lines().find_map(|line| line.strip_prefix(&format!("| {operation} |")));
        let fees = row.and_then(|row| row.split('|').nth(1)).expect("the operation's row");
        fees.trim().parse().expect("nanotons")
    }

    /// Less, and payees would settle at a loss; much more, and they would wait for nothing.
    #[test]
    fn a_settlement_is_counted_as_what_it_costs_by_either_wallet() {
        let dearest = ["wallet v4r2, a settlement", "wallet v5r1, a settlement"].map(costs).into_iter().max();
        let whole = costs("channel settle") + dearest.expect("two wallets");
        assert!((whole..=whole * 5 / 4).contains(&SETTLEMENT_FEE), "a settlement costs {whole}");
    }
}
