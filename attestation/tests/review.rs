//! What a reviewer found: each was accepted and must not be, or was refused and is genuine.

mod common;

use cocoon_attestation::{Endorsements, Evidence, Exceptions, verify};
use common::{NOW, Platform, context, policy};

#[test]
fn what_is_tolerated_behind_azures_paravisor_is_not_trusted_elsewhere() {
    let platform = Platform::new();
    let bundle = platform.bundle_of_td(|td| td.attributes &= !(1 << 28));
    let azure = Exceptions::none().with("profile:azure").expect("a known name");
    let evidence = Evidence::Bundle(bundle);
    let genuine = verify(&evidence, &Endorsements::none(), &platform.anchors(), &azure, NOW);
    let mut lenient = policy();
    lenient.exceptions.push("profile:azure".into());
    let refusal = lenient.appraise(genuine.expect("tolerated by name"), &context()).expect_err("not Azure's");
    assert_eq!(refusal.failed().collect::<Vec<_>>(), ["policy.attributes"]);
}
