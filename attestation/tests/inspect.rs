//! What is shown of evidence without believing it: complete for real evidence, bounded and silent for everything else.

mod common;

use cocoon_attestation::inspect::{Inspection, MAX_TEXT, Role};
use cocoon_attestation::{Bundle, Endorsements, Evidence, inspect};
use common::mutate::Random;
use common::vectors::Vectors;

fn roles(shown: &Inspection) -> Vec<Role> {
    shown.certificates.iter().map(|certificate| certificate.role).collect()
}

/// Every certificate stands behind its issuer, one deeper than it.
fn assert_forest(shown: &Inspection) {
    for (at, certificate) in shown.certificates.iter().enumerate() {
        match certificate.parent {
            None => assert_eq!(certificate.depth, 0),
            Some(parent) => {
                let above = &shown.certificates[parent];
                assert!(parent < at && certificate.depth == above.depth + 1);
                assert_eq!(certificate.issuer, above.subject);
            }
        }
    }
}

fn values(shown: &Inspection) -> impl Iterator<Item = &str> {
    shown
        .registers
        .iter()
        .chain(&shown.devices)
        .chain(&shown.documents)
        .chain(&shown.statement)
        .flat_map(|section| section.fields.iter().map(|field| field.value.as_str()))
}

fn value<'a>(shown: &'a Inspection, name: &str) -> &'a str {
    let sections =
        shown.registers.iter().chain(&shown.devices).chain(&shown.documents).chain(&shown.statement);
    let mut fields = sections.flat_map(|section| &section.fields);
    &fields.find(|field| field.name == name).unwrap_or_else(|| panic!("no {name}: {shown:#?}")).value
}

#[test]
fn a_bundle_is_shown_whole() {
    let platform = common::Platform::new();
    let bundle = platform.bundle();
    let shown = inspect(&Evidence::Bundle(bundle), &Endorsements::none());
    assert_eq!(shown.unreadable, Vec::<String>::new());
    assert!(shown.form.starts_with("a bundle with a TDX quote"), "{}", shown.form);
    assert_eq!(value(&shown, "MRTD"), hex::encode([0xa0; 48]));
    assert_eq!(value(&shown, "RTMR3"), hex::encode([0xb3; 48]));
    assert_eq!(value(&shown, "Model"), format!("tiny {}", hex::encode(common::WEIGHTS)));
    assert_eq!(value(&shown, "Beacon"), "41");
    assert!(value(&shown, "Seal key").len() < 64, "long keys are abridged");
    for role in [Role::PckCa, Role::Pck, Role::TcbSigner, Role::Root] {
        assert_eq!(
            roles(&shown).iter().filter(|found| **found == role).count(),
            1,
            "{role:?} once: {shown:#?}"
        );
    }
    assert!(shown.certificates.iter().all(|certificate| !certificate.pinned));
    assert_forest(&shown);
    let root = &shown.certificates[0];
    assert_eq!((root.parent, root.role), (None, Role::Root));
    let titles: Vec<&str> = shown.documents.iter().map(|section| section.title.as_str()).collect();
    assert_eq!(titles, ["TCB info", "QE identity", "Root CA CRL", "PCK CRL"]);
}

#[test]
fn every_real_case_can_be_looked_at() {
    let Some(vectors) = Vectors::find() else { return };
    let mut seen = 0;
    for case in vectors.cases() {
        let Ok(evidence) = Evidence::detect(&vectors.read(case["evidence"].as_str().expect("a name"))) else {
            continue;
        };
        let names = case["endorsements"].as_array().cloned().unwrap_or_default();
        let files = names.iter().map(|name| vectors.read(name.as_str().expect("a name")));
        let shown = inspect(&evidence, &Endorsements::from_files(files).expect("endorsements"));
        assert_forest(&shown);
        let id = case["id"].as_str().expect("a name");
        if case["expect"] == "genuine" {
            assert_eq!(shown.unreadable, Vec::<String>::new(), "{id}");
            let root = |role| roles(&shown).contains(&role);
            match case["kind"].as_str() {
                Some("tdx") => {
                    assert!(root(Role::IntelRoot) && root(Role::Pck) && root(Role::TcbSigner), "{id}")
                }
                Some("snp") => assert!(root(Role::Ark) && root(Role::Ask) && root(Role::Vcek), "{id}"),
                _ => assert!(root(Role::NvidiaRoot) && root(Role::Device), "{id}: {:?}", roles(&shown)),
            }
            // Every root that genuine evidence leads to is one that the verifier has.
            let roots = shown.certificates.iter().filter(|certificate| certificate.parent.is_none());
            assert!(roots.clone().all(|root| root.pinned), "{id}");
            seen += 1;
        }
        if id == "log-gcp-cos113" {
            let log = shown.event_log.as_ref().expect("a log");
            assert_eq!(log.events.len(), 43);
            assert!(log.events.iter().all(|event| event.register.starts_with("RTMR")));
            assert!(log.events.iter().all(|event| !event.digest.is_empty() && !event.title.is_empty()));
        }
        if id == "gpu-multi-8-ppcie" {
            let serials: std::collections::BTreeSet<_> = shown
                .devices
                .iter()
                .flat_map(|device| device.fields.iter().filter(|field| field.name == "Serial"))
                .map(|field| field.value.clone())
                .collect();
            assert_eq!((shown.devices.len(), serials.len()), (8, 8), "each device by its own serial");
        }
    }
    assert!(seen > 10, "{seen}");
}

#[test]
fn changed_bytes_are_shown_or_left_out_and_nothing_else() {
    let platform = common::Platform::new();
    let bytes = platform.bundle().encode();
    let mut random = Random(17);
    for _ in 0..3000 {
        let mut changed = Bundle::decode(&bytes).expect("a bundle");
        let part = random.below(3);
        let target = match part {
            0 => &mut changed.quote,
            1 => &mut changed.statement,
            _ => match &mut changed.endorsements[0] {
                cocoon_attestation::Endorsement::IntelCollateral(json) => json,
                other => panic!("{other:?}"),
            },
        };
        let at = random.below(target.len());
        target[at] ^= 1 << random.below(8);
        if random.below(4) == 0 {
            target.truncate(at);
        }
        let shown = inspect(&Evidence::Bundle(changed), &Endorsements::none());
        assert_forest(&shown);
        assert!(values(&shown).all(|value| value.chars().count() <= MAX_TEXT + 1));
    }
}
