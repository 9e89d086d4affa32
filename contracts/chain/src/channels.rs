//! Operations on payment channels: each sends one message and returns once the chain shows its effect.

use cocoon_contracts::channel::{self, State, Terms};
use cocoon_contracts::wallet::Transfer;
use cocoon_contracts::{Address, Cell, Nanotons, VerifiedVoucher};

use crate::{AccountState, AccountStatus, Chain, ChainError, Wallet};

/// Deploys and opens a channel with at least `deposit` nanotons to claim (the rent reserve and fees come on top), of which
/// the session key may sign `limit` in total. The wallet must be the payer's. Asking again for a channel that is open with
/// these terms returns its state.
///
/// # Errors
/// Terms that hurt a party, an address that was used before, too little balance, an unreachable chain.
pub async fn open_channel(
    wallet: &Wallet,
    terms: &Terms,
    deposit: Nanotons,
    limit: Nanotons,
) -> Result<State, ChainError> {
    const ACTION: &str = "open the channel";
    terms.check().map_err(|error| ChainError::invalid(ACTION, error))?;
    if terms.payer != *wallet.address() || terms.network != wallet.chain().network() {
        return Err(ChainError::invalid(ACTION, "the terms name another payer or another network"));
    }
    let address = terms.address();
    let account = wallet.chain().account(&address).await?;
    if let Ok(open) = parse(&address, &account) {
        return Ok(open);
    }
    // Somebody may have put the code there without opening it, and a failed attempt leaves traces too. Never open what
    // may have lived before: its vouchers would count again. (TON forgets an account that ended; some services still
    // list its transactions. Where none does, it is the nonce that is new: see `Terms::nonce`.)
    if account.last_lt != 0 || had_transactions(&**wallet.chain(), &address).await? {
        let why = format!("the address {address} was used before: choose a new nonce");
        return Err(ChainError::invalid(ACTION, why));
    }
    let amount = deposit
        .checked_add(channel::OPEN_RESERVE + channel::OPEN_VALUE)
        .ok_or_else(|| ChainError::invalid(ACTION, "the deposit overflows"))?;
    let mut transfer = message(&address, amount, channel::open_body(limit));
    transfer.state_init = Some(terms.state_init());
    wallet
        .perform(ACTION, transfer, channel::exit_code_meaning, |account| parse(&address, account).ok())
        .await
}

/// Whether a service still lists transactions of an account that is not there. Not all keep them, or answer for it.
async fn had_transactions(chain: &dyn Chain, address: &Address) -> Result<bool, ChainError> {
    match chain.transactions(address, 1).await {
        Ok(list) => Ok(!list.is_empty()),
        Err(ChainError::Refused { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Reads a channel: its code must be ours and its address must derive from the terms it shows.
pub async fn read_channel(chain: &dyn Chain, address: &Address) -> Result<State, ChainError> {
    let state = parse(address, &chain.account(address).await?)?;
    if state.terms.network != chain.network() {
        let why = format!("it is for network {}, not {}", state.terms.network, chain.network());
        return Err(ChainError::wrong_account(address, "channel", why));
    }
    Ok(state)
}

/// Adds to the deposit. From any wallet. What the session key may sign stays: see [`authorize`].
pub async fn top_up(wallet: &Wallet, address: &Address, amount: Nanotons) -> Result<State, ChainError> {
    let before = read_channel(&**wallet.chain(), address).await?.balance;
    let transfer = message(address, amount, channel::top_up_body());
    // A settlement at the same time may take out more than came in: then the transaction tells.
    wallet
        .perform_or_land("top up the channel", transfer, channel::exit_code_meaning, |account, landed| {
            parse(address, account).ok().filter(|state| landed || state.balance > before)
        })
        .await
}

/// The payer's wallet lets the session key sign up to `limit` in total, and adds `amount` to the deposit. A limit that is
/// in force already returns the state and adds nothing.
pub async fn authorize(
    wallet: &Wallet,
    address: &Address,
    limit: Nanotons,
    amount: Nanotons,
) -> Result<State, ChainError> {
    const ACTION: &str = "raise the session key's limit";
    let state = read_channel(&**wallet.chain(), address).await?;
    if state.limit >= limit {
        return Ok(state);
    }
    if state.terms.payer != *wallet.address() {
        return Err(ChainError::invalid(ACTION, "only the payer's wallet may raise it"));
    }
    let amount = amount
        .checked_add(channel::OPEN_VALUE)
        .ok_or_else(|| ChainError::invalid(ACTION, "the amount overflows"))?;
    wallet
        .perform(
            ACTION,
            message(address, amount, channel::authorize_body(limit)),
            channel::exit_code_meaning,
            |account| parse(address, account).ok().filter(|state| state.limit >= limit),
        )
        .await
}

/// The payee settles a voucher: it is paid what is new in it, and the treasury's share is set aside. Settling again what was
/// settled returns the state.
pub async fn settle(wallet: &Wallet, voucher: &VerifiedVoucher) -> Result<State, ChainError> {
    let address = &voucher.voucher().channel;
    let state = read_channel(&**wallet.chain(), address).await?;
    if state.paid >= voucher.cumulative() {
        return Ok(state);
    }
    let body = channel::settle_body(voucher.signed());
    wallet
        .perform(
            "settle the voucher",
            message(address, channel::SETTLE_VALUE, body),
            channel::exit_code_meaning,
            |account| parse(address, account).ok().filter(|state| state.paid >= voucher.cumulative()),
        )
        .await
}

/// The payer starts to close: from now on the payee has the challenge period to settle.
pub async fn start_close(wallet: &Wallet, address: &Address) -> Result<State, ChainError> {
    let state = read_channel(&**wallet.chain(), address).await?;
    if state.deadline.is_some() {
        return Ok(state);
    }
    wallet
        .perform(
            "start to close the channel",
            message(address, channel::CLOSE_VALUE, channel::start_close_body()),
            channel::exit_code_meaning,
            |account| parse(address, account).ok().filter(|state| state.deadline.is_some()),
        )
        .await
}

/// Sends the treasury what waits of the network's fee. From any wallet; nothing waiting is no error.
pub async fn collect(wallet: &Wallet, address: &Address) -> Result<State, ChainError> {
    let state = read_channel(&**wallet.chain(), address).await?;
    if state.fee_waiting() == 0 {
        return Ok(state);
    }
    wallet
        .perform(
            "collect the network's fee",
            message(address, channel::SETTLE_VALUE, channel::collect_body()),
            channel::exit_code_meaning,
            |account| parse(address, account).ok().filter(|now| now.collected > state.collected),
        )
        .await
}

/// After the deadline: the rest goes home to the payer and the contract is gone. From any wallet.
pub async fn finish_close(wallet: &Wallet, address: &Address) -> Result<(), ChainError> {
    end(wallet, address, "finish closing the channel", channel::finish_close_body()).await
}

/// The payee agrees to end at once: it is paid the last voucher, if there is one, and the rest goes home.
pub async fn cooperative_close(
    wallet: &Wallet,
    address: &Address,
    voucher: Option<&VerifiedVoucher>,
) -> Result<(), ChainError> {
    let state = read_channel(&**wallet.chain(), address).await?;
    // A voucher that was settled already is no reason to refuse the close.
    let newer = voucher.filter(|voucher| voucher.cumulative() > state.paid);
    let body = channel::cooperative_close_body(newer.map(VerifiedVoucher::signed));
    end(wallet, address, "close the channel", body).await
}

async fn end(wallet: &Wallet, address: &Address, action: &'static str, body: Cell) -> Result<(), ChainError> {
    wallet
        .perform(
            action,
            message(address, channel::SETTLE_VALUE, body),
            channel::exit_code_meaning,
            |account| (account.status != AccountStatus::Active).then_some(()),
        )
        .await
}

fn message(to: &Address, amount: Nanotons, body: Cell) -> Transfer {
    Transfer { to: to.clone(), amount, bounce: true, body: Some(body), state_init: None }
}

fn parse(address: &Address, account: &AccountState) -> Result<State, ChainError> {
    let wrong = |why: &dyn std::fmt::Display| ChainError::wrong_account(address, "channel", why);
    let Some(data) = account.data.as_ref().filter(|_| account.status == AccountStatus::Active) else {
        return Err(wrong(&"there is no contract: it was not opened yet, or it is closed"));
    };
    if account.code_hash != Some(channel::code_hash()) {
        return Err(wrong(&"its code is not the channel's that this version knows"));
    }
    let state = State::parse(data, account.balance).map_err(|error| wrong(&error))?;
    state.terms.check().map_err(|error| wrong(&error))?;
    if state.terms.address() != *address {
        return Err(wrong(&"its address does not derive from the terms it shows"));
    }
    Ok(state)
}
