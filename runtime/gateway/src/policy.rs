//! What the registry demands of a worker before money is locked for it: the same appraisal that clients make.

use cocoon_attestation::{ImageReference, Measurements, PlatformId, Policy, TdxRules};
use cocoon_contracts::registry::{self, Registry};
use cocoon_protocol::Price;

/// How many times the registry's price of a model a host may ask for.
pub const MAX_PRICE_FACTOR: u64 = 10;

/// What the registry's present version allows, on this network, with evidence at most `max_age_seconds` old. A registry
/// that allows nothing makes a policy that refuses everything.
pub(crate) fn of(registry: &Registry, network: i32, max_age_seconds: u64) -> Policy {
    let mut policy = Policy::new(network, max_age_seconds).named("registry");
    policy.tdx = Some(TdxRules::by_vendor());
    policy.images = registry
        .images()
        // The registry names no TCB floors for SEV-SNP and no paravisors: without them a policy takes no such machine.
        .filter_map(|image| match &image.measurements {
            registry::Measurements::Tdx(registers) => Some((image, registers)),
            registry::Measurements::Snp { .. } | registry::Measurements::Vtpm { .. } => None,
        })
        .map(|(image, ours)| {
            let zero = [0; 48];
            let registers = Measurements {
                mrtd: ours.mrtd,
                rtmr: ours.rtmr,
                mrconfigid: zero,
                mrowner: zero,
                mrownerconfig: zero,
            };
            ImageReference::on_tdx(&image.name, image.configuration, &registers)
        })
        .collect();
    policy.models = registry.models().map(|model| model.weights).collect();
    policy.platforms.bar = registry
        .content
        .barred
        .iter()
        .map(|id| PlatformId::parse(&id.to_string()).expect("the registry spells machines as policies do"))
        .collect();
    policy
}

/// The highest price that is taken for a model with these weights, or `None` if the registry does not have it.
pub(crate) fn ceiling(registry: &Registry, weights: &[u8; 32]) -> Option<Price> {
    let model = registry.models().find(|model| model.weights == *weights)?;
    let most = |price: u64| price.saturating_mul(MAX_PRICE_FACTOR);
    Some(Price { prompt: most(model.prices.prompt), completion: most(model.prices.completion) })
}
