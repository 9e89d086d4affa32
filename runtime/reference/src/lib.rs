//! From the registry contract to the policy that client and gateway appraise workers by: one function, so that what a gateway
//! lists is what its clients accept. Pure: no clock, no files, no sockets.

use cocoon_attestation::{
    ImageReference, Measurements, PlatformId, Policy, SnpRules, TcbFloor, TcbFloors, TdxRules,
};
use cocoon_contracts::registry::{self, Image, Registry, SnpFloors, TurinFloor};

/// What the registry's present version allows, on this network (TON's global id), with evidence at most `max_age_seconds`
/// old. A registry that allows nothing makes a policy that refuses everything.
///
/// Only TDX images are taken over: the registry names SEV-SNP images, but no TCB floors, and a policy without floors takes no
/// such machine. Barred machines are barred on every platform.
pub fn policy_from_registry(registry: &Registry, network: i32, max_age_seconds: u64) -> Policy {
    let mut policy = Policy::new(network, max_age_seconds).named("registry");
    policy.tdx = Some(TdxRules::by_vendor());
    policy.snp = snp_rules(&registry.content.snp);
    let on_snp = policy.snp.is_some();
    policy.images = registry.images().filter_map(|image| reference(image, on_snp)).collect();
    policy.models = registry.models().map(|model| model.weights).collect();
    policy.platforms.bar = registry.content.barred.iter().map(platform_id).collect();
    policy
}

/// What an image shows where it is accepted. On SEV-SNP that takes floors for the machines, and a configuration: SNP has no
/// register for what runs later than the launch, so a policy must pin it.
fn reference(image: &Image, on_snp: bool) -> Option<ImageReference> {
    match &image.measurements {
        registry::Measurements::Tdx(ours) => {
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
        registry::Measurements::Snp { launch } => image
            .configuration
            .filter(|_| on_snp)
            .map(|configuration| ImageReference::on_snp(&image.name, configuration, *launch)),
        registry::Measurements::Vtpm { .. } => None,
    }
}

/// `None` where no product has a floor: then no SEV-SNP machine is accepted.
fn snp_rules(floors: &SnpFloors) -> Option<SnpRules> {
    let floor = |fmc, it: registry::TcbFloor| {
        let registry::TcbFloor { boot_loader, tee, snp, microcode } = it;
        TcbFloor { fmc, boot_loader, tee, snp, microcode }
    };
    (!floors.is_empty()).then(|| {
        SnpRules::with_floors(TcbFloors {
            milan: floors.milan.map(|it| floor(None, it)),
            genoa: floors.genoa.map(|it| floor(None, it)),
            turin: floors.turin.map(|TurinFloor { fmc, tcb }| floor(Some(fmc), tcb)),
        })
    })
}

fn platform_id(barred: &registry::PlatformId) -> PlatformId {
    PlatformId::parse(&barred.to_string())
        .expect("the registry's ids have 1 to 64 bytes, and the kinds of policies")
}

#[cfg(test)]
mod tests {
    use cocoon_attestation::Pin;

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
    fn snp_images_count_where_the_registry_has_floors_and_they_a_configuration() {
        let snp = |byte| registry::Measurements::Snp { launch: [byte; 48] };
        let floor = |microcode| registry::TcbFloor { boot_loader: 9, tee: 1, snp: 21, microcode };
        let with = |floors| {
            let registry = registry(|content| {
                content.images = vec![
                    image(1, Status::Allowed, tdx(1)),
                    image(4, Status::Allowed, snp(4)),
                    image(5, Status::Barred, snp(5)),
                    Image { configuration: None, ..image(6, Status::Allowed, snp(6)) },
                ];
                content.snp = floors;
            });
            policy_from_registry(&registry, -217, 600)
        };
        let names = |policy: &Policy| policy.images.iter().map(|it| it.name.clone()).collect::<Vec<_>>();
        let none = with(SnpFloors::default());
        assert_eq!((none.snp.clone(), names(&none)), (None, vec!["image 1".to_owned()]));

        let turin = Some(TurinFloor { fmc: 3, tcb: floor(70) });
        let policy = with(SnpFloors { milan: None, genoa: Some(floor(84)), turin });
        assert_eq!(names(&policy), ["image 1", "image 4"]);
        let reference = policy.images[1].snp.clone().expect("it is for SEV-SNP");
        assert_eq!(reference.measurement, Pin::to([4; 48]));
        assert_eq!(reference.host_data, Pin::to([4; 32]), "what the host binds at launch");
        let tcb = policy.snp.as_ref().expect("rules for SEV-SNP").tcb.clone();
        let parts = |it: TcbFloor| (it.fmc, it.boot_loader, it.tee, it.snp, it.microcode);
        assert_eq!(tcb.milan, None, "a product without a floor");
        assert_eq!(tcb.genoa.map(parts), Some((None, 9, 1, 21, 84)));
        assert_eq!(tcb.turin.map(parts), Some((Some(3), 9, 1, 21, 70)));
        Policy::from_toml(&policy.to_toml()).expect("what a policy file would have to say is all there");
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
