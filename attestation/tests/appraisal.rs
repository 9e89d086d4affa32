//! Genuine is not trusted: the policy names what it accepts, and a refusal names what differs.

mod common;

use cocoon_attestation::RefusalKind::{Rejected, Unavailable};
use cocoon_attestation::{
    Context, Endorsements, Evidence, Exceptions, ImageReference, KnownBlock, Mask, Measurements, Pin, Policy,
    Refusal, Release, Trusted, UnixTime, Verdict, verify,
};
use common::{NETWORK, NOW, Platform, context, policy, registers, statement};

fn appraise(policy: &Policy, context: &Context) -> Result<Trusted, Refusal> {
    let platform = Platform::new();
    policy.appraise(platform.verify(&platform.bundle()).expect("genuine"), context)
}

fn refused_by(result: Result<impl Sized, Refusal>) -> &'static str {
    let refusal = result.err().expect("must be refused");
    assert_eq!(refusal.kind, Rejected, "{refusal}");
    assert!(refusal.simulated, "simulated is said in refusals too");
    refusal.check
}

#[test]
fn what_the_policy_names_is_trusted() {
    let trusted = appraise(&policy(), &context()).expect("all of it is named");
    assert_eq!(trusted.seal_key(), statement().keys.seal);
    assert_eq!(trusted.receipt_key(), &statement().keys.receipt);
    assert_eq!(trusted.statement_digest(), cocoon_attestation::statement::digest(&statement().encode()));
    assert_eq!(trusted.image(), "guest");
    assert!(trusted.model("tiny").is_some() && trusted.model("huge").is_none());
    assert_eq!(trusted.fresh_until(), UnixTime(NOW.0 - 60 + 3_600));
    assert!(trusted.fresh_until() < trusted.platform().good_until);
}

#[test]
fn trust_ends_no_later_than_the_endorsements() {
    let platform = Platform::new();
    let genuine = platform.verify(&platform.bundle()).expect("genuine");
    let patient = changed(|policy| policy.max_age_seconds = u64::MAX);
    let trusted = patient.appraise(genuine, &context()).expect("trusted");
    assert_eq!(trusted.fresh_until(), trusted.platform().good_until);
    assert!(trusted.fresh_until() > NOW);
}

#[test]
fn a_changed_register_is_refused_by_its_name() {
    type Register = fn(&mut Measurements) -> &mut [u8; 48];
    let table: [(&str, Register); 8] = [
        ("policy.mrtd", |m| &mut m.mrtd),
        ("policy.rtmr0", |m| &mut m.rtmr[0]),
        ("policy.rtmr1", |m| &mut m.rtmr[1]),
        ("policy.rtmr2", |m| &mut m.rtmr[2]),
        ("policy.rtmr3", |m| &mut m.rtmr[3]),
        ("policy.mrconfigid", |m| &mut m.mrconfigid),
        ("policy.mrowner", |m| &mut m.mrowner),
        ("policy.mrownerconfig", |m| &mut m.mrownerconfig),
    ];
    for (check, register) in table {
        let platform = Platform::new();
        let bundle = platform.bundle_of_td(|td| register(&mut td.registers)[47] ^= 1);
        let refusal = platform.trust(&bundle.encode()).expect_err(check);
        assert_eq!(refusal.failed().collect::<Vec<_>>(), [check], "this register and no other");
    }
}

fn changed(change: impl FnOnce(&mut Policy)) -> Policy {
    let mut policy = policy();
    change(&mut policy);
    policy
}

#[test]
fn the_closest_of_several_images_is_named() {
    let mut policy = policy();
    let mut far = policy.images[0].clone();
    far.name = "far".into();
    let mut others = registers();
    others.rtmr = [[9; 48]; 4];
    far.tdx = Some((&others).into());
    let mut near = registers();
    near.rtmr[2][0] ^= 1;
    policy.images[0].tdx = Some((&near).into());
    policy.images.insert(0, far);
    let refusal = appraise(&policy, &context()).expect_err("neither is it");
    assert_eq!(refusal.check, "policy.rtmr2");
    assert!(refusal.expected.contains("(policy, guest)"), "{}", refusal.expected);
}

#[test]
fn an_empty_list_allows_nothing() {
    assert_eq!(refused_by(appraise(&Policy::new(NETWORK, 3_600), &context())), "policy.image");
    let mut no_models = policy();
    no_models.models.clear();
    assert_eq!(refused_by(appraise(&no_models, &context())), "policy.model");
    let mut no_images = policy();
    no_images.images.clear();
    assert_eq!(refused_by(appraise(&no_images, &context())), "policy.image");
    let no_age = changed(|policy| policy.max_age_seconds = 0);
    assert_eq!(refused_by(appraise(&no_age, &context())), "freshness");
}

#[test]
fn another_network_configuration_or_model_is_refused() {
    let other_network = changed(|policy| policy.network = -3);
    assert_eq!(refused_by(appraise(&other_network, &context())), "policy.network");
    let mut other_configuration = policy();
    other_configuration.images[0].configuration = Some([0; 32]);
    assert_eq!(refused_by(appraise(&other_configuration, &context())), "policy.configuration");
    let other_model = changed(|policy| policy.models = vec![[1; 32]]);
    assert_eq!(refused_by(appraise(&other_model, &context())), "policy.model");

    let platform = Platform::new();
    let mut two_models = statement();
    two_models
        .models
        .push(cocoon_attestation::statement::ModelIdentity { name: "b".into(), weights: [2; 32] });
    let refusal = platform.trust(&platform.bundle_of(&two_models).encode()).expect_err("one is unknown");
    assert_eq!(refusal.check, "policy.model");
    let mut none = statement();
    none.models.clear();
    assert_eq!(
        platform.trust(&platform.bundle_of(&none).encode()).expect_err("no model").check,
        "policy.model"
    );
}

#[test]
fn stale_or_unknown_freshness_is_refused() {
    let block = KnownBlock { seqno: 41, root_hash: [0x41; 32], time: UnixTime(NOW.0 - 60) };
    let with = |block: Option<KnownBlock>| Context { beacon: block, ..context() };
    appraise(&policy(), &with(Some(KnownBlock { time: UnixTime(NOW.0 - 3_600), ..block.clone() })))
        .expect("just young enough");
    for (what, changed) in [
        ("stale", KnownBlock { time: UnixTime(NOW.0 - 3_601), ..block.clone() }),
        ("of the future", KnownBlock { time: UnixTime(NOW.0 + 61), ..block.clone() }),
        ("of another chain", KnownBlock { root_hash: [0; 32], ..block.clone() }),
        ("another number", KnownBlock { seqno: 42, ..block }),
    ] {
        assert_eq!(refused_by(appraise(&policy(), &with(Some(changed)))), "freshness", "{what}");
    }
    let refusal = appraise(&policy(), &with(None)).expect_err("it cannot be looked up");
    assert_eq!((refusal.check, refusal.kind), ("freshness", Unavailable), "missing is never passed");
}

#[test]
fn a_nonce_must_be_ours() {
    let ours = Context { nonce: Some([8; 32]), ..context() };
    assert_eq!(refused_by(appraise(&policy(), &ours)), "freshness", "no nonce in the statement");
    let platform = Platform::new();
    for (nonce, accepted) in [([8; 32], true), ([9; 32], false)] {
        let mut statement = statement();
        statement.freshness.nonce = Some(nonce);
        let genuine = platform.verify(&platform.bundle_of(&statement)).expect("genuine");
        assert_eq!(policy().appraise(genuine, &ours).is_ok(), accepted);
    }
}

#[test]
fn a_raw_quote_is_genuine_and_never_trusted() {
    let platform = Platform::new();
    let bundle = platform.bundle();
    let evidence = Evidence::detect(&bundle.quote).expect("a TDX quote");
    let own = Endorsements::from_files([common::collateral_of(&bundle).to_vec()]).expect("one small file");
    let genuine = verify(&evidence, &own, &platform.anchors(), &Exceptions::none(), NOW).expect("genuine");
    assert!(genuine.statement().is_none());
    assert_eq!(genuine.claims().expect("a TD").registers(), Some(registers()));
    assert_eq!(refused_by(policy().appraise(genuine, &context())), "policy.network");
}

#[test]
fn of_several_sources_the_strictest_wins() {
    let accepts = |policy: &Policy| appraise(policy, &context()).map(drop);
    let joined = |change: fn(&mut Policy)| policy().with(changed(change).named("registry"));
    accepts(&joined(|_| {})).expect("both accept it");
    type Change = fn(&mut Policy);
    let rows: [(&str, Change); 7] = [
        ("policy.network", |p| p.network = -3),
        ("policy.image", |p| p.images.clear()),
        ("policy.mrtd", |p| p.images[0].tdx.as_mut().expect("TDX").mrtd = Pin::to([1; 48])),
        ("policy.configuration", |p| p.images[0].configuration = Some([0; 32])),
        ("policy.mr_seam", |p| p.tdx.as_mut().expect("TDX").mr_seam = Pin::to([1; 48])),
        ("policy.model", |p| p.models.clear()),
        ("freshness", |p| p.max_age_seconds = 1),
    ];
    for (check, change) in rows {
        assert_eq!(refused_by(appraise(&joined(change), &context())), check);
        assert_eq!(
            refused_by(appraise(&changed(change).with(policy()), &context())),
            check,
            "either way round"
        );
    }
    let release = |images: Vec<ImageReference>| Release { name: "0.2.0".into(), images };
    accepts(&policy().with_release(release(policy().images))).expect("the release has the image");
    let other = policy().with_release(release(vec![]));
    assert_eq!(refused_by(appraise(&other, &context())), "policy.image");
    // Exceptions count where every source makes them, and end with the first.
    let lenient =
        changed(|p| p.exceptions = vec!["tcb:OutOfDate@2027-12-31".into(), "tcb:SWHardeningNeeded".into()]);
    let other = changed(|p| p.exceptions = vec!["tcb:OutOfDate@2026-12-31".into()]);
    let both = lenient.with(other.clone()).exceptions().expect("known names");
    assert_eq!(both, other.exceptions().expect("known names"));
}

#[test]
fn every_rule_of_a_policy_has_a_bad_row() {
    type Change = fn(&mut Policy);
    let rows: [(&str, Change); 6] = [
        ("policy.mr_seam", |p| p.tdx.as_mut().expect("TDX").mr_seam = Pin::OneOf(vec![])),
        ("policy.mr_seam", |p| p.tdx = None),
        ("policy.tee_tcb_svn", |p| p.tdx.as_mut().expect("TDX").tee_tcb_svn[0] = 200),
        ("policy.xfam", |p| p.tdx.as_mut().expect("TDX").xfam = Mask::Within(3)),
        ("policy.platform", |p| p.platforms.only = Some(vec![])),
        ("policy.mrowner", |p| p.images[0].tdx.as_mut().expect("TDX").mrowner = Pin::to([1; 48])),
    ];
    for (check, change) in rows {
        assert_eq!(refused_by(appraise(&changed(change), &context())), check);
    }
    let platform = Platform::new();
    let with_pks = platform.bundle_of_td(|td| td.attributes |= 1 << 30);
    let narrow = changed(|p| p.tdx.as_mut().expect("TDX").attributes = Mask::Within(0));
    let genuine = |bundle| platform.verify(bundle).expect("genuine");
    policy().appraise(genuine(&with_pks), &context()).expect("free by the policy");
    assert_eq!(refused_by(narrow.appraise(genuine(&with_pks), &context())), "policy.attributes");
    narrow.appraise(genuine(&platform.bundle()), &context()).expect("nothing beyond SEPT_VE_DISABLE");
}

#[test]
fn a_machine_is_named_or_barred() {
    let platform = Platform::new();
    let trusted = platform.trust(&platform.bundle().encode()).expect("trusted");
    let id = trusted.platform().ids[0].clone();
    let verdict = |change: &dyn Fn(&mut Policy)| {
        let mut policy = policy();
        change(&mut policy);
        policy.appraise(platform.verify(&platform.bundle()).expect("genuine"), &context()).map(drop)
    };
    verdict(&|p| p.platforms.only = Some(vec![id.clone()])).expect("it is named");
    assert_eq!(refused_by(verdict(&|p| p.platforms.bar = vec![id.clone()])), "policy.platform");
    let other = cocoon_attestation::PlatformId::parse("ppid:00").expect("an id");
    assert_eq!(refused_by(verdict(&|p| p.platforms.only = Some(vec![other.clone()]))), "policy.platform");
}

#[test]
fn a_policy_survives_toml_and_refuses_what_it_does_not_know() {
    let mut full = policy();
    full.exceptions.push("tcb:OutOfDate@2026-12-31".into());
    full.images[0].configuration = None;
    for policy in [full.clone(), policy(), Policy::new(0, 0)] {
        assert_eq!(Policy::from_toml(&policy.to_toml()), Ok(policy));
    }
    let good = full.to_toml();
    for bad in [
        format!("simulated = true\n{good}"),
        format!("allow_debug = true\n{good}"),
        good.replace("max_age_seconds", "max_age"),
        good.replace("tcb:OutOfDate@2026-12-31", "tcb:Revoked"),
        good.replacen("7777", "777", 1),
        good.replacen("a0a0", "a0", 1),
        String::new(),
    ] {
        assert!(Policy::from_toml(&bad).is_err(), "{bad}");
    }
}

#[test]
fn the_verdict_says_simulated_and_lists_checks_in_order() {
    let platform = Platform::new();
    let trusted = platform.trust(&platform.bundle().encode()).expect("trusted");
    let verdict = serde_json::to_value(Verdict::from(&trusted)).expect("JSON");
    assert_eq!(verdict["verdict"], "trusted");
    assert_eq!(verdict["platform"], "tdx");
    assert_eq!(verdict["simulated"], true);
    let ids = |verdict: &serde_json::Value| -> Vec<String> {
        let checks = verdict["checks"].as_array().expect("a list");
        checks.iter().map(|check| check["id"].as_str().expect("text").to_owned()).collect()
    };
    let trusted_ids = ids(&verdict);
    let refusal = platform.trust(&platform.bundle_of_td(|td| td.registers.mrtd[0] ^= 1).encode());
    let refusal = Verdict::from(&refusal.expect_err("another binary"));
    assert_eq!((refusal.verdict, refusal.exit_code()), ("rejected", 3));
    assert_eq!(ids(&serde_json::to_value(&refusal).expect("JSON")), trusted_ids, "the order is fixed");
    for id in ["tdx.signature", "tdx.tcb", "tdx.debug", "tdx.eventlog", "binding.report_data", "freshness"] {
        assert!(trusted_ids.iter().any(|known| known == id), "{id}");
    }
}
