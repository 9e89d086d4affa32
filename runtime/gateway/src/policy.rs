//! What the registry demands of a worker before money is locked for it: the same appraisal that clients make.

use cocoon_attestation::{ImageReference, Measurements, Policy, TdxRules};
use cocoon_contracts::registry::Registry;

/// What the registry's present version allows, on this network, with evidence at most `max_age_seconds` old. A registry
/// that allows nothing makes a policy that refuses everything.
pub(crate) fn of(registry: &Registry, network: i32, max_age_seconds: u64) -> Policy {
    let mut policy = Policy::new(network, max_age_seconds).named("registry");
    policy.tdx = Some(TdxRules::by_vendor());
    policy.images = registry
        .images()
        .map(|image| {
            let ours = &image.measurements;
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
    policy
}
