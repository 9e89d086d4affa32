//! Operations on bonds.

use cocoon_contracts::bond::{self, Contradiction, Liabilities, State, Terms};
use cocoon_contracts::wallet::Transfer;
use cocoon_contracts::{Address, Cell, Nanotons};

use crate::{AccountState, AccountStatus, Chain, ChainError, Wallet};

/// Deploys and backs a bond with `stake` nanotons. The wallet must be the operator's. Asking again for a bond that is backed
/// with these terms returns its state.
///
/// # Errors
/// Terms that hurt a party, a stake that is too small, too little balance, an unreachable chain.
pub async fn back_bond(wallet: &Wallet, terms: &Terms, stake: Nanotons) -> Result<State, ChainError> {
    const ACTION: &str = "back the bond";
    terms.check().map_err(|error| ChainError::invalid(ACTION, error))?;
    if terms.operator != *wallet.address() || terms.network != wallet.chain().network() {
        return Err(ChainError::invalid(ACTION, "the terms name another operator or another network"));
    }
    if stake < bond::MIN_STAKE {
        return Err(ChainError::invalid(ACTION, "the stake is below 1 TON"));
    }
    let address = terms.address();
    if let Ok(backed) = parse(&address, &wallet.chain().account(&address).await?) {
        return Ok(backed);
    }
    let amount = stake
        .checked_add(bond::BACK_VALUE)
        .ok_or_else(|| ChainError::invalid(ACTION, "the stake overflows"))?;
    let mut transfer = message(&address, amount, bond::back_body());
    transfer.state_init = Some(terms.state_init());
    perform(wallet, ACTION, transfer, |account| parse(&address, account).ok()).await
}

/// Reads a bond: its code must be ours and its address must derive from the terms it shows.
pub async fn read_bond(chain: &dyn Chain, address: &Address) -> Result<State, ChainError> {
    let state = parse(address, &chain.account(address).await?)?;
    if state.terms.network != chain.network() {
        let why = format!("it is for network {}, not {}", state.terms.network, chain.network());
        return Err(ChainError::wrong_account(address, "bond", why));
    }
    Ok(state)
}

/// Publishes an epoch's liabilities, signed by the bond's key. From any wallet. What was published already returns the state.
pub async fn publish(
    wallet: &Wallet,
    address: &Address,
    liabilities: &Liabilities,
    signature: &[u8; 64],
) -> Result<State, ChainError> {
    let newest = |state: &State| state.published.map(|published| published.liabilities);
    let state = read_bond(&**wallet.chain(), address).await?;
    if newest(&state) == Some(*liabilities) {
        return Ok(state);
    }
    let transfer = message(address, bond::ACTION_VALUE, bond::publish_body(liabilities, signature));
    perform(wallet, "publish the liabilities", transfer, |account| {
        parse(address, account).ok().filter(|state| newest(state) == Some(*liabilities))
    })
    .await
}

/// The operator starts the release of its stake.
pub async fn unbond(wallet: &Wallet, address: &Address) -> Result<State, ChainError> {
    let state = read_bond(&**wallet.chain(), address).await?;
    if state.release_at.is_some() {
        return Ok(state);
    }
    let transfer = message(address, bond::BACK_VALUE, bond::unbond_body());
    perform(wallet, "release the stake", transfer, |account| {
        parse(address, account).ok().filter(|state| state.release_at.is_some())
    })
    .await
}

/// After the delay the operator takes the stake home.
///
/// # Errors
/// [`ChainError::WrongAccount`] when there is no bond: nothing was sent.
pub async fn withdraw(wallet: &Wallet, address: &Address) -> Result<(), ChainError> {
    end(wallet, address, "withdraw the stake", bond::withdraw_body()).await
}

/// Proves that the operator contradicted itself: the stake goes to the treasury. From any wallet.
///
/// # Errors
/// As [`withdraw`].
pub async fn forfeit(wallet: &Wallet, address: &Address, proof: &Contradiction) -> Result<(), ChainError> {
    end(wallet, address, "forfeit the stake", bond::forfeit_body(proof)).await
}

async fn end(wallet: &Wallet, address: &Address, action: &'static str, body: Cell) -> Result<(), ChainError> {
    // An account that was never there is as gone as one whose stake has left: it must be a bond before.
    read_bond(&**wallet.chain(), address).await?;
    let transfer = message(address, bond::ACTION_VALUE, body);
    perform(wallet, action, transfer, |account| (account.status != AccountStatus::Active).then_some(())).await
}

async fn perform<T>(
    wallet: &Wallet,
    action: &'static str,
    transfer: Transfer,
    done: impl Fn(&AccountState) -> Option<T>,
) -> Result<T, ChainError> {
    wallet.perform(action, transfer, bond::exit_code_meaning, done).await
}

fn message(to: &Address, amount: Nanotons, body: Cell) -> Transfer {
    Transfer { to: to.clone(), amount, bounce: true, body: Some(body), state_init: None }
}

fn parse(address: &Address, account: &AccountState) -> Result<State, ChainError> {
    let wrong = |why: &dyn std::fmt::Display| ChainError::wrong_account(address, "bond", why);
    let Some(data) = account.data.as_ref().filter(|_| account.status == AccountStatus::Active) else {
        return Err(wrong(&"there is no contract: it was not backed yet, or its stake is gone"));
    };
    if account.code_hash != Some(bond::code_hash()) {
        return Err(wrong(&"its code is not the bond's that this version knows"));
    }
    let state = State::parse(data, account.balance).map_err(|error| wrong(&error))?;
    state.terms.check().map_err(|error| wrong(&error))?;
    if state.terms.address() != *address {
        return Err(wrong(&"its address does not derive from the terms it shows"));
    }
    Ok(state)
}
