//! The registry's prices as the parties bill them: the one way from the contract's words to a [`Price`].

use std::ops::RangeInclusive;

use cocoon_contracts::registry::{Model, Registry};
use cocoon_protocol::{Coefficient, Price};

/// The registry's prices of a model, at coefficient one.
pub fn list(model: &Model) -> Price {
    Price::new(model.prices.prompt, model.prices.cached, model.prices.completion)
}

/// The registry's prices of the model with these weights; `None` where it does not list them.
pub fn of_weights(registry: &Registry, weights: &[u8; 32]) -> Option<Price> {
    registry.models().find(|model| model.weights == *weights).map(list)
}

/// The coefficients that clients pay: the registry's bounds. A gateway's margin lies within them.
pub fn coefficients(registry: &Registry) -> RangeInclusive<Coefficient> {
    let bounds = &registry.content.coefficients;
    Coefficient::from_thousandths(bounds.min_permille)..=Coefficient::from_thousandths(bounds.max_permille)
}
