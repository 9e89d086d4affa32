//! Operations on the registry.

use cocoon_contracts::registry::{self, Action, Approval, Deployment, Registry};
use cocoon_contracts::wallet::Transfer;
use cocoon_contracts::{Address, Cell};

use crate::{AccountState, AccountStatus, Chain, ChainError, Wallet};

/// Deploys a registry and returns its address. From any wallet; it belongs to the deployment's owners.
pub async fn deploy_registry(wallet: &Wallet, deployment: &Deployment) -> Result<Address, ChainError> {
    let address = deployment.address()?;
    let account = wallet.chain().account(&address).await?;
    if parse(&address, &account).is_ok() {
        return Ok(address);
    }
    let transfer = Transfer {
        to: address.clone(),
        amount: registry::DEPLOY_VALUE,
        bounce: true,
        body: Some(registry::top_up_body()),
        state_init: Some(deployment.state_init()?),
    };
    perform(wallet, "deploy the registry", transfer, |account| parse(&address, account).ok()).await?;
    Ok(address)
}

/// Reads a registry: its code must be ours. (Its address is the caller's anchor: it is pinned, not derived.)
pub async fn read_registry(chain: &dyn Chain, address: &Address) -> Result<Registry, ChainError> {
    parse(address, &chain.account(address).await?)
}

/// Announces the change that enough owners approved; it can be activated after the registry's delay. From any wallet.
///
/// # Errors
/// An approval that is of another registry or of an earlier state, too few signatures, an unreachable chain.
pub async fn propose(
    wallet: &Wallet,
    address: &Address,
    approval: &Approval,
) -> Result<Registry, ChainError> {
    const ACTION: &str = "propose a change";
    let before = checked(wallet, address, approval, Action::Propose, ACTION).await?;
    let body = approval.body().map_err(|error| ChainError::invalid(ACTION, error))?;
    perform(wallet, ACTION, message(address, body), |account| {
        parse(address, account).ok().filter(|registry| registry.proposals > before.proposals)
    })
    .await
}

/// Takes the announced change back, as a blocking minority of the owners approved. From any wallet.
///
/// # Errors
/// As [`propose`].
pub async fn cancel(wallet: &Wallet, address: &Address, approval: &Approval) -> Result<Registry, ChainError> {
    const ACTION: &str = "cancel the change";
    checked(wallet, address, approval, Action::Cancel, ACTION).await?;
    let body = approval.body().map_err(|error| ChainError::invalid(ACTION, error))?;
    perform(wallet, ACTION, message(address, body), |account| {
        parse(address, account).ok().filter(|registry| registry.proposal.is_none())
    })
    .await
}

/// The registry, if the approval is about what it is now.
async fn checked(
    wallet: &Wallet,
    address: &Address,
    approval: &Approval,
    wanted: Action,
    action: &'static str,
) -> Result<Registry, ChainError> {
    if approval.action() != wanted {
        return Err(ChainError::invalid(action, "the approval is of something else"));
    }
    let chain = &**wallet.chain();
    let (registry, head) = (read_registry(chain, address).await?, chain.head().await?);
    approval
        .check(chain.network(), address, &registry, head.time)
        .map_err(|error| ChainError::invalid(action, error))?;
    Ok(registry)
}

/// Makes the announced change count once its delay has passed. From any wallet.
pub async fn activate(wallet: &Wallet, address: &Address) -> Result<Registry, ChainError> {
    let version = read_registry(&**wallet.chain(), address).await?.version;
    let transfer = message(address, registry::activate_body(version));
    perform(wallet, "activate the change", transfer, |account| {
        parse(address, account).ok().filter(|registry| registry.version > version)
    })
    .await
}

async fn perform<T>(
    wallet: &Wallet,
    action: &'static str,
    transfer: Transfer,
    done: impl Fn(&AccountState) -> Option<T>,
) -> Result<T, ChainError> {
    wallet.perform(action, transfer, registry::exit_code_meaning, done).await
}

fn message(to: &Address, body: Cell) -> Transfer {
    Transfer {
        to: to.clone(),
        amount: registry::CHANGE_VALUE,
        bounce: true,
        body: Some(body),
        state_init: None,
    }
}

fn parse(address: &Address, account: &AccountState) -> Result<Registry, ChainError> {
    let wrong = |why: &dyn std::fmt::Display| ChainError::wrong_account(address, "registry", why);
    let Some(data) = account.data.as_ref().filter(|_| account.status == AccountStatus::Active) else {
        return Err(wrong(&"there is no contract"));
    };
    if account.code_hash != Some(registry::code_hash()) {
        return Err(wrong(&"its code is not the registry's that this version knows"));
    }
    Registry::parse(data).map_err(|error| wrong(&error))
}
