//! From the registry contract to what a client goes by: which guests and models it accepts, at which price, and what share
//! the network takes. A user may name policies of his own beside the registry's: the strictest wins.

use cocoon_accounts::{Store, prices};
use cocoon_attestation::{Exceptions, Policy};
use cocoon_chain::{Chain, read_registry};
use cocoon_contracts::Address;
use cocoon_contracts::registry::Registry;
use cocoon_protocol::Price;

use crate::ClientError;

/// Why no policy could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A policy without images or models accepts nothing: better said before a worker is refused for it.
    #[error("the registry allows no {0}: nothing would ever be accepted")]
    Empty(&'static str),
    /// A policy names an exception that there is not.
    #[error(transparent)]
    Invalid(#[from] cocoon_attestation::InvalidPolicy),
    /// The registry that the chain shows is older than one that was seen before.
    #[error(
        "the registry is at version {found}, and version {seen} was seen before: the chain's endpoint shows the past"
    )]
    Rollback {
        /// The highest version seen.
        seen: u32,
        /// The one shown now.
        found: u32,
    },
}

/// Where the policy comes from: the registry, read again whenever a worker is looked for, and the user's own pins. Every
/// one of them must accept a worker, so the strictest wins.
#[derive(Clone, Debug)]
pub struct PolicySource {
    /// Oldest acceptable evidence, in seconds. See [`Policy::max_age_seconds`].
    pub max_age_seconds: u64,
    /// The user's own policies.
    pub also: Vec<Policy>,
}

/// What a client goes by, as the registry stands.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) policy: Policy,
    pub(crate) exceptions: Exceptions,
    registry: Registry,
    pub(crate) fee_bps: u16,
    pub(crate) treasury: Address,
}

impl Rules {
    /// Reads the registry, and remembers its version: an older one is refused ever after.
    pub(crate) async fn read(
        chain: &dyn Chain,
        address: &Address,
        seen: &SeenVersion,
        source: &PolicySource,
    ) -> Result<Self, ClientError> {
        let registry = read_registry(chain, address).await?;
        seen.accept(registry.version).await?;
        let registrys = policy_from_registry(&registry, chain.network(), source.max_age_seconds)?;
        let policy = source.also.iter().cloned().fold(registrys, Policy::with);
        Ok(Self {
            exceptions: policy.exceptions().map_err(PolicyError::from)?,
            policy,
            fee_bps: registry.content.fee_bps,
            treasury: registry.content.treasury.clone(),
            registry,
        })
    }

    /// The most that may be asked for a model; `None` for one that the registry has no price for.
    pub(crate) fn ceiling(&self, weights: &[u8; 32]) -> Option<Price> {
        let list = prices::of_weights(&self.registry, weights)?;
        Some(list.at(*prices::coefficients(&self.registry).end()))
    }
}

/// The highest version of a registry that was ever seen: on the disk, so that a restart does not forget it.
pub(crate) struct SeenVersion {
    key: String,
    store: Store,
    highest: tokio::sync::Mutex<u32>,
}

impl SeenVersion {
    pub(crate) fn open(store: Store, registry: &Address) -> Self {
        let key = format!("registry/{registry}");
        let known = store.notes().find(|(name, _)| *name == key).and_then(|(_, value)| value.try_into().ok());
        let highest = tokio::sync::Mutex::new(known.map_or(0, u32::from_be_bytes));
        Self { key, store, highest }
    }

    async fn accept(&self, found: u32) -> Result<(), ClientError> {
        let mut highest = self.highest.lock().await;
        let seen = *highest;
        if found < seen {
            return Err(PolicyError::Rollback { seen, found }.into());
        }
        if found > seen {
            self.store.put_note(&self.key, &found.to_be_bytes()).await?;
            *highest = found;
        }
        Ok(())
    }
}

/// What the registry's present version allows, on this network, with evidence at most `max_age_seconds` old.
///
/// # Errors
/// [`PolicyError::Empty`] if it allows no image or no model.
pub fn policy_from_registry(
    registry: &Registry,
    network: i32,
    max_age_seconds: u64,
) -> Result<Policy, PolicyError> {
    let policy = cocoon_reference::policy_from_registry(registry, network, max_age_seconds);
    if policy.images.is_empty() {
        return Err(PolicyError::Empty("guest image"));
    }
    if policy.models.is_empty() {
        return Err(PolicyError::Empty("model"));
    }
    Ok(policy)
}
