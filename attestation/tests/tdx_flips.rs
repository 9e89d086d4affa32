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

/// What a change of the file may leave as it was: the case of hex digits and white space, which the canonical form does not
/// have; and the name of the PCK chain beside the quote, a copy that is compared where it stands and needed by nobody.
fn means_the_same(original: &[u8], changed: &[u8]) -> bool {
    let canonical = |json: &[u8]| canonical_collateral(json).expect("it was accepted");
    let mut without: serde_json::Value = serde_json::from_slice(original).expect("JSON");
    without.as_object_mut().expect("an object").remove("pck_certificate_chain");
    let changed = canonical(changed);
    changed == canonical(original) || changed == canonical(without.to_string().as_bytes())
}

#[test]
fn a_changed_byte_of_genuine_collateral_is_refused_or_means_nothing() {
    let Some(vectors) = Vectors::find() else { return };
    for case in Genuine::all(&vectors) {
        let (mut passed, mut case_of_hex, mut name) = (0, 0, 0);
        for at in 0..case.collateral.len() {
            let mut changed = case.collateral.clone();
            changed[at] ^= 1 << (at % 8);
            if case.accepts(&case.quote, &changed) {
                assert!(means_the_same(&case.collateral, &changed), "{}: byte {at}", case.id);
                passed += 1;
                case_of_hex += usize::from(case.collateral[at].eq_ignore_ascii_case(&changed[at]));
                name += usize::from(
                    case.collateral[at].is_ascii_lowercase() && !changed[at].is_ascii_uppercase(),
                );
            }
        }
        println!(
            "{}: {} bytes, {passed} mean nothing: {case_of_hex} the case of hex, {name} in a name, {} white space",
            case.id,
            case.collateral.len(),
            passed - case_of_hex - name.min(passed - case_of_hex)
        );
    }
}
