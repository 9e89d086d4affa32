//! What a worker may cost. (Whether it is trusted is the appraisal that clients make too: `cocoon_reference`.)

use cocoon_contracts::registry::Registry;
use cocoon_protocol::Price;

/// How many times the registry's price of a model a host may ask for.
pub const MAX_PRICE_FACTOR: u64 = 10;

/// The highest price that is taken for a model with these weights, or `None` if the registry does not have it.
pub(crate) fn ceiling(registry: &Registry, weights: &[u8; 32]) -> Option<Price> {
    let model = registry.models().find(|model| model.weights == *weights)?;
    let most = |price: u64| price.saturating_mul(MAX_PRICE_FACTOR);
    Some(Price { prompt: most(model.prices.prompt), completion: most(model.prices.completion) })
}
