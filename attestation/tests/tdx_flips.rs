//! Every byte of genuine quotes and of their collateral, changed: refused, or one of the few bytes that mean nothing.

mod common;

use cocoon_attestation::{
    Endorsements, Evidence, Exceptions, TdxCache, TrustAnchors, UnixTime, Verifier, canonical_collateral,
};
use common::vectors::Vectors;

/// A genuine case, with the cache that saw it: what was seen before must not hide a change.
struct Genuine {
    id: String,
    quote: Vec<u8>,
    collateral: Vec<u8>,
    at: UnixTime,
    exceptions: Exceptions,
    anchors: TrustAnchors,
    cache: TdxCache,
}

impl Genuine {
    fn all(vectors: &Vectors) -> Vec<Self> {
        vectors.cases().iter().filter_map(|case| Self::read(vectors, case)).collect()
    }

    fn read(vectors: &Vectors, case: &serde_json::Value) -> Option<Self> {
        let text = |key: &str| case[key].as_str().expect("text");
        let [collateral] = &case["endorsements"].as_array()?[..] else { return None };
        let allow = case["allow"].as_array().into_iter().flatten().filter_map(|name| name.as_str());
        (text("kind") == "tdx" && text("expect") == "genuine").then(|| Self {
            id: text("id").to_owned(),
            quote: vectors.read(text("evidence")),
            collateral: vectors.read(collateral.as_str().expect("a file name")),
            at: UnixTime(case["at"].as_u64().expect("seconds")),
            exceptions: Exceptions::parse(allow).expect("known names"),
            anchors: TrustAnchors::hardware(),
            cache: TdxCache::new(),
        })
    }

    fn accepts(&self, quote: &[u8], collateral: &[u8]) -> bool {
        let Ok(evidence) = Evidence::detect(quote) else { return false };
        let Ok(own) = Endorsements::from_files([collateral.to_vec()]) else { return false };
        let verifier = Verifier::new(&self.anchors, &self.exceptions, self.at).with_cache(&self.cache);
        verifier.verify(&evidence, &own).is_ok()
    }
}

#[test]
fn no_changed_byte_of_a_genuine_quote_is_genuine() {
    let Some(vectors) = Vectors::find() else { return };
    let cases = Genuine::all(&vectors);
    assert!(cases.len() > 3, "genuine cases were found");
    for case in cases {
        assert!(case.accepts(&case.quote, &case.collateral), "{}", case.id);
        for at in 0..case.quote.len() {
            let mut changed = case.quote.clone();
            changed[at] ^= 1 << (at % 8);
            assert!(!case.accepts(&changed, &case.collateral), "{}: byte {at}", case.id);
        }
        println!("{}: {} bytes, none may change", case.id, case.quote.len());
    }
}

/// The one thing that may differ: hex digits in the other case, which nobody signed. (White space could differ too, but no
/// flip of one bit makes white space of white space.)
#[test]
fn no_changed_byte_of_genuine_collateral_is_genuine_but_the_case_of_hex() {
    let Some(vectors) = Vectors::find() else { return };
    let mut seen = Vec::new();
    for case in Genuine::all(&vectors) {
        if seen.contains(&case.collateral) {
            continue;
        }
        seen.push(case.collateral.clone());
        let mut passed = 0;
        for at in 0..case.collateral.len() {
            let mut changed = case.collateral.clone();
            changed[at] ^= 1 << (at % 8);
            if case.accepts(&case.quote, &changed) {
                assert!(changed[at].eq_ignore_ascii_case(&case.collateral[at]), "{}: byte {at}", case.id);
                assert!(changed[at].is_ascii_hexdigit(), "{}: byte {at}", case.id);
                let canonical = |json: &[u8]| canonical_collateral(json).expect("it was accepted");
                assert_eq!(canonical(&changed), canonical(&case.collateral), "{}: byte {at}", case.id);
                passed += 1;
            }
        }
        println!("{}: {} bytes, of {passed} the case of hex may change", case.id, case.collateral.len());
    }
}
