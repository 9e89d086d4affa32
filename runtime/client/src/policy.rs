//! From the registry contract to a policy. The registry says what its network allows; the client says how old evidence
//! may be, and a local file may say less, never more.

use cocoon_attestation::{ImageReference, Measurements, Policy};
use cocoon_contracts::registry::Registry;

/// Why no policy could be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// A policy without images or models accepts nothing: better said before a worker is refused for it.
    #[error("the registry allows no {0}: nothing would ever be accepted")]
    Empty(&'static str),
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
    let mut policy = Policy::new(network, max_age_seconds);
    policy.images = registry
        .images()
        .map(|image| ImageReference {
            name: image.name.clone(),
            configuration: image.configuration,
            measurements: Measurements {
                mrtd: image.measurements.mrtd,
                rtmr: image.measurements.rtmr,
                mrconfigid: [0; 48],
                mrowner: [0; 48],
                mrownerconfig: [0; 48],
            },
        })
        .collect();
    policy.models = registry.models().map(|model| model.weights).collect();
    if policy.images.is_empty() {
        return Err(PolicyError::Empty("guest image"));
    }
    if policy.models.is_empty() {
        return Err(PolicyError::Empty("model"));
    }
    Ok(policy)
}
