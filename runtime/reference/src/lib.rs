//! From the registry contract to the policy that client and gateway appraise workers by: one function, so that what a gateway
//! lists is what its clients accept. Pure: no clock, no files, no sockets.

use cocoon_attestation::{ImageReference, Measurements, PlatformId, Policy, TdxRules};
use cocoon_contracts::registry::{self, Image, Registry};

/// What the registry's present version allows, on this network (TON's global id), with evidence at most `max_age_seconds`
/// old. A registry that allows nothing makes a policy that refuses everything.
///
/// Only TDX images are taken over: the registry names SEV-SNP images, but no TCB floors, and a policy without floors takes no
/// such machine. Barred machines are barred on every platform.
pub fn policy_from_registry(registry: &Registry, network: i32, max_age_seconds: u64) -> Policy {
    let mut policy = Policy::new(network, max_age_seconds).named("registry");
    policy.tdx = Some(TdxRules::by_vendor());
    policy.images = registry.images().filter_map(tdx_reference).collect();
    policy.models = registry.models().map(|model| model.weights).collect();
    policy.platforms.bar = registry.content.barred.iter().map(platform_id).collect();
    policy
}

fn tdx_reference(image: &Image) -> Option<ImageReference> {
    let registry::Measurements::Tdx(ours) = &image.measurements else { return None };
    let zero = [0; 48];
    let registers = Measurements {
        mrtd: ours.mrtd,
        rtmr: ours.rtmr,
        mrconfigid: zero,
        mrowner: zero,
        mrownerconfig: zero,
    };
    Some(ImageReference::on_tdx(&image.name, image.configuration, &registers))
}

fn platform_id(barred: &registry::PlatformId) -> PlatformId {
    PlatformId::parse(&barred.to_string())
        .expect("the registry's ids have 1 to 64 bytes, and the kinds of policies")
}

#[cfg(test)]
mod tests {
    use super::*;
    use cocoon_contracts::registry::{
        Content, Deployment, Model, Owners, PlatformKind, Prices, Status, TdxRegisters,
    };
    use cocoon_contracts::{Address, SigningKey};

    fn image(byte: u8, status: Status, measurements: registry::Measurements) -> Image {
        let (name, profile) = (format!("image {byte}"), String::new());
        Image { name, profile, status, measurements, configuration: Some([byte; 32]) }
    }

    fn tdx(byte: u8) -> registry::Measurements {
        registry::Measurements::Tdx(Box::new(TdxRegisters { mrtd: [byte; 48], rtmr: [[byte; 48]; 4] }))
    }

    fn registry(change: impl FnOnce(&mut Content)) -> Registry {
        let mut content = Content::empty(100, Address::default());
        let prices = Prices { prompt: 1, cached: 1, completion: 1 };
        let model = |byte, status| Model { name: "m".into(), status, weights: [byte; 32], prices };
        content.models = vec![model(1, Status::Allowed), model(2, Status::Barred)];
        change(&mut content);
        let owners = Owners::new(1, [SigningKey::from_seed(&[1; 32]).public()]).expect("a sound key");
        let init = Deployment { owners, delay: 1, salt: 0, content }.state_init().expect("it fits");
        Registry::parse(&init.data.expect("a registry has data")).expect("it was just built")
    }

    #[test]
    fn only_tdx_images_that_count_are_references() {
        let policy = policy_from_registry(
            &registry(|content| {
                content.images = vec![
                    image(1, Status::Allowed, tdx(1)),
                    image(2, Status::Barred, tdx(2)),
                    image(3, Status::Allowed, tdx(2)),
                    image(4, Status::Allowed, registry::Measurements::Snp { launch: [4; 48] }),
                ];
            }),
            -217,
            600,
        );
        let names: Vec<_> = policy.images.iter().map(|image| image.name.as_str()).collect();
        assert_eq!(names, ["image 1"]);
        assert_eq!((policy.network, policy.max_age_seconds), (-217, 600));
        assert_eq!(policy.models, [[1; 32]]);
        assert!(policy.snp.is_none() && policy.images[0].snp.is_none());
    }

    #[test]
    fn every_kind_of_barred_machine_is_barred_by_the_policy() {
        let kinds = [PlatformKind::Ppid, PlatformKind::Chip, PlatformKind::Gpu];
        let ids = [1, 16, 64]
            .into_iter()
            .zip(kinds)
            .map(|(length, kind)| registry::PlatformId { kind, id: vec![7; length] });
        let policy = policy_from_registry(&registry(|content| content.barred = ids.collect()), -217, 600);
        let barred: Vec<_> = policy.platforms.bar.iter().map(ToString::to_string).collect();
        let expected = [(1, "ppid"), (16, "chip"), (64, "gpu")]
            .map(|(length, kind)| format!("{kind}:{}", "07".repeat(length)));
        assert_eq!(barred, expected);
    }
}
