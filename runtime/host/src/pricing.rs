//! What this host asks of gateways: the registry's prices of its model, at the operator's coefficient.
//!
//! The registry's prices change while requests are on their way. So each request of a gateway names the price that the
//! gateway counts with, and what is taken is the present price, or one that was replaced a moment ago: both sides bill one
//! request alike, whenever the registry changes.

use std::{
    sync::{Mutex, MutexGuard},
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use cocoon_accounts::{ApiRefusal, prices};
use cocoon_contracts::registry::Registry;
use cocoon_protocol::{Price, http::ApiError};

/// How long a price is still taken after another has replaced it: gateways hear of the new one when the host registers
/// again, which is far sooner.
const GRACE: Duration = Duration::from_secs(60);

/// The prices that are taken now.
pub(crate) struct Pricing {
    model: String,
    prices: Mutex<Prices>,
}

struct Prices {
    present: Price,
    /// The one before, and when it was replaced.
    before: Option<(Price, Instant)>,
}

impl Pricing {
    pub(crate) fn new(model: &str, price: Price) -> Self {
        Self { model: model.to_owned(), prices: Mutex::new(Prices { present: price, before: None }) }
    }

    /// What is asked now.
    pub(crate) fn present(&self) -> Price {
        self.lock().present
    }

    /// Takes over what the registry now says of the model; the coefficient stays. A registry that does not list the model
    /// changes nothing: gateways refuse the worker then, and say why.
    pub(crate) fn follow(&self, registry: &Registry) {
        let Some(list) = registry.models().find(|model| model.name == self.model) else { return };
        let mut taken = self.lock();
        let new = prices::list(list).at(taken.present.coefficient);
        if new != taken.present {
            tracing::info!(from = %taken.present, to = %new, "the registry has new prices");
            taken.before = Some((taken.present, Instant::now()));
            taken.present = new;
        }
    }

    /// The price that a gateway's request names, if it is one that is taken at `now`.
    pub(crate) fn agree(&self, named: Option<&str>, now: Instant) -> Result<Price, ApiRefusal> {
        let prices = self.lock();
        let recent = prices.before.filter(|(_, replaced)| now.saturating_duration_since(*replaced) < GRACE);
        let taken = [Some(prices.present), recent.map(|(price, _)| price)];
        let named = named.and_then(Price::from_words);
        named.filter(|named| taken.contains(&Some(*named))).ok_or_else(|| {
            let message = format!("this worker's price is {}; take it from its registration", prices.present);
            ApiRefusal { status: StatusCode::CONFLICT, error: ApiError::payment("wrong_price", message) }
        })
    }

    fn lock(&self) -> MutexGuard<'_, Prices> {
        self.prices.lock().expect("no holder of this lock panics")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_price_is_taken_for_a_minute_and_then_not() {
        let (old, new) = (Price::new(10, 5, 20), Price::new(11, 5, 20));
        let pricing = Pricing::new("m", old);
        let replaced = Instant::now();
        *pricing.lock() = Prices { present: new, before: Some((old, replaced)) };
        let agree = |price: Price, later| pricing.agree(Some(&price.to_words()), replaced + later).ok();
        assert_eq!(agree(new, GRACE), Some(new));
        assert_eq!(agree(old, GRACE - Duration::from_millis(1)), Some(old));
        assert_eq!(agree(old, GRACE), None);
        assert_eq!(agree(Price::new(9, 5, 20), Duration::ZERO), None);
        for nothing in [None, Some(""), Some("10 5 20")] {
            assert_eq!(pricing.agree(nothing, replaced).err().map(|r| r.status), Some(StatusCode::CONFLICT));
        }
    }
}
