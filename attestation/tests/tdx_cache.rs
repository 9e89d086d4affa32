//! What was verified before is used again, and nothing that should be refused is let through by it.

mod common;

use cocoon_attestation::{
    Bundle, Endorsement, Endorsements, Evidence, Exceptions, Genuine, Refusal, TdxCache, TrustAnchors,
    UnixTime, Verifier,
};
use cocoon_simulated_tee::{Documents, Revoked};
use common::{NOW, Platform};

const DAY: u64 = 86_400;

/// A platform that the cache has seen.
struct Seen {
    platform: Platform,
    bundle: Bundle,
    cache: TdxCache,
}

impl Seen {
    fn new() -> Self {
        let platform = Platform::new();
        let seen = Self { bundle: platform.bundle(), platform, cache: TdxCache::new() };
        seen.verify(&seen.bundle).expect("genuine");
        seen
    }

    fn verify(&self, bundle: &Bundle) -> Result<Genuine, Refusal> {
        self.verify_with(bundle, &self.platform.anchors(), &Exceptions::none(), NOW)
    }

    fn verify_with(
        &self,
        bundle: &Bundle,
        anchors: &TrustAnchors,
        exceptions: &Exceptions,
        now: UnixTime,
    ) -> Result<Genuine, Refusal> {
        let evidence = Evidence::Bundle(bundle.clone());
        Verifier::new(anchors, exceptions, now)
            .with_cache(&self.cache)
            .verify(&evidence, &Endorsements::none())
    }

    fn refused(&self, what: &str, bundle: &Bundle, check: &str) {
        let refusal = self.verify(bundle).err().unwrap_or_else(|| panic!("{what}: was accepted"));
        assert_eq!(refusal.check, check, "{what}: {refusal}");
    }

    fn with_documents(&self, documents: &Documents) -> Bundle {
        Bundle {
            endorsements: vec![Endorsement::IntelCollateral(self.platform.root.endorse(documents))],
            ..self.bundle.clone()
        }
    }
}

#[test]
fn the_verdict_is_the_same_to_the_word() {
    let seen = Seen::new();
    let cold = seen.platform.verify(&seen.bundle).expect("genuine");
    for _ in 0..3 {
        let hot = seen.verify(&seen.bundle).expect("genuine");
        assert_eq!(hot.checks(), cold.checks());
        assert_eq!((hot.platform(), hot.claims()), (cold.platform(), cold.claims()));
    }
    let hardware = TrustAnchors::hardware();
    let cold = Verifier::new(&hardware, &Exceptions::none(), NOW)
        .verify(&Evidence::Bundle(seen.bundle.clone()), &Endorsements::none())
        .expect_err("simulated");
    let hot = seen.verify_with(&seen.bundle, &hardware, &Exceptions::none(), NOW).expect_err("simulated");
    assert_eq!(hot, cold);
    assert!(format!("{:?}", seen.cache).contains("collaterals: 1"), "{:?}", seen.cache);
}

#[test]
fn dates_are_held_against_the_time_given() {
    let seen = Seen::new();
    for (what, now, accepted) in [
        ("in date", NOW.0 + 29 * DAY, true),
        ("expired", NOW.0 + 31 * DAY, false),
        ("not yet", NOW.0 - DAY / 2, false),
        ("again in date", NOW.0, true),
    ] {
        let anchors = seen.platform.anchors();
        let result = seen.verify_with(&seen.bundle, &anchors, &Exceptions::none(), UnixTime(now));
        assert_eq!(
            result.as_ref().err().map(|refusal| refusal.check),
            (!accepted).then_some("tdx.validity"),
            "{what}"
        );
    }
}

#[test]
fn a_newer_list_revokes_what_was_seen() {
    for (revoked, check) in
        [(Revoked::Platform, "tdx.crl"), (Revoked::PckCa, "tdx.crl"), (Revoked::TcbSigner, "tdx.tcb_info")]
    {
        let seen = Seen::new();
        let bundle = seen.with_documents(&seen.platform.root.documents_revoking(revoked, NOW));
        for _ in 0..2 {
            seen.refused(&format!("{revoked:?}"), &bundle, check);
        }
    }
}

#[test]
fn a_root_that_the_caller_does_not_have_is_no_use() {
    let seen = Seen::new();
    let other = Platform::new();
    for anchors in [TrustAnchors::hardware(), other.anchors()] {
        let result = seen.verify_with(&seen.bundle, &anchors, &Exceptions::none(), NOW);
        assert_eq!(result.expect_err("another root").check, "tdx.root");
    }
    // Collateral that was seen is no use to a platform under another root, nor to another platform under the same.
    let mixed = Bundle { quote: other.bundle().quote, ..seen.bundle.clone() };
    let both = seen.platform.anchors().with_simulated_root(other.root.root_der()).expect("a root");
    let refusal = seen.verify_with(&mixed, &both, &Exceptions::none(), NOW).expect_err("another's");
    assert_eq!(refusal.check, "tdx.collateral");
}

#[test]
fn exceptions_are_the_callers_own() {
    let seen = Seen::new();
    let mut documents = seen.platform.root.documents(NOW);
    documents.qe_identity = documents.qe_identity.replace("UpToDate", "OutOfDate");
    let bundle = seen.with_documents(&documents);
    let lenient: Exceptions = "tcb:OutOfDate".parse().expect("a known name");
    seen.verify_with(&bundle, &seen.platform.anchors(), &lenient, NOW).expect("tolerated");
    seen.refused("by a stricter caller", &bundle, "tdx.tcb");
}

/// Collateral with this evaluation number in TCB info and QE identity.
fn numbered(seen: &Seen, tcb_info: u32, qe_identity: u32) -> Bundle {
    let mut documents = seen.platform.root.documents(NOW);
    for (text, number) in [(&mut documents.tcb_info, tcb_info), (&mut documents.qe_identity, qe_identity)] {
        let changed =
            text.replace("\"tcbEvaluationDataNumber\":1", &format!("\"tcbEvaluationDataNumber\":{number}"));
        assert!(number == 1 || changed != *text);
        *text = changed;
    }
    seen.with_documents(&documents)
}

#[test]
fn older_collateral_than_was_seen_is_refused() {
    let seen = Seen::new();
    seen.verify(&numbered(&seen, 7, 7)).expect("newer");
    for (tcb_info, qe_identity) in [(1, 1), (6, 7), (7, 6), (6, 6)] {
        seen.refused("older", &numbered(&seen, tcb_info, qe_identity), "tdx.rollback");
    }
    seen.refused("seen before it", &seen.bundle, "tdx.rollback");
    seen.verify(&numbered(&seen, 7, 8)).expect("newer");
    // Another network's root has marks of its own, and another cache has none.
    let other = Platform::new();
    let anchors = other.anchors();
    seen.verify_with(&other.bundle(), &anchors, &Exceptions::none(), NOW).expect("its own mark");
    seen.platform.verify(&seen.bundle).expect("without the cache");
}

#[test]
fn what_is_refused_raises_no_mark() {
    let seen = Seen::new();
    let debug = seen.platform.bundle_of_td(|td| td.attributes |= 1);
    let newer = numbered(&seen, 9, 9);
    seen.refused("debug", &Bundle { quote: debug.quote, ..newer }, "tdx.debug");
    seen.verify(&seen.bundle).expect("the mark is where it was");
}

#[test]
fn no_changed_byte_of_what_was_seen_is_accepted() {
    let seen = Seen::new();
    for at in 0..seen.bundle.quote.len() {
        let mut changed = seen.bundle.clone();
        changed.quote[at] ^= 1 << (at % 8);
        assert!(seen.verify(&changed).is_err(), "byte {at} of the quote");
    }
    let collateral = common::collateral_of(&seen.bundle);
    for at in 0..collateral.len() {
        let mut changed = collateral.to_vec();
        changed[at] ^= 1 << (at % 7);
        let bundle =
            Bundle { endorsements: vec![Endorsement::IntelCollateral(changed)], ..seen.bundle.clone() };
        assert!(seen.verify(&bundle).is_err(), "byte {at} of the collateral");
    }
}

#[test]
fn a_form_that_only_the_caller_may_bring_is_not_let_into_a_bundle() {
    let seen = Seen::new();
    let spaced = [b" ", common::collateral_of(&seen.bundle)].concat();
    let own = Endorsements::from_files([spaced.clone()]).expect("one small file");
    let (anchors, none) = (seen.platform.anchors(), Exceptions::none());
    let verifier = Verifier::new(&anchors, &none, NOW).with_cache(&seen.cache);
    verifier.verify(&Evidence::Bundle(seen.bundle.clone()), &own).expect("the caller's own");
    let bundle = Bundle { endorsements: vec![Endorsement::IntelCollateral(spaced)], ..seen.bundle.clone() };
    seen.refused("in a bundle", &bundle, "tdx.collateral");
}

#[test]
fn threads_share_one_cache() {
    let seen = Seen::new();
    let others: Vec<Platform> = (0..4).map(|_| Platform::new()).collect();
    std::thread::scope(|scope| {
        for platform in &others {
            scope.spawn(|| {
                for _ in 0..20 {
                    let bundle = platform.bundle();
                    let anchors = platform.anchors();
                    seen.verify_with(&bundle, &anchors, &Exceptions::none(), NOW).expect("genuine");
                }
            });
        }
    });
    seen.verify(&seen.bundle).expect("still there");
}
