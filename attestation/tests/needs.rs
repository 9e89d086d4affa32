//! What real evidence lacks is what its case brings, and damaged evidence gets an answer.

#[path = "common/mutate.rs"]
#[expect(unreachable_pub, reason = "shared by several test crates")]
mod mutate;
#[path = "common/vectors.rs"]
#[expect(dead_code, unreachable_pub, reason = "shared by several test crates")]
mod vectors;

use cocoon_attestation::{Endorsements, Evidence, Need, UnixTime, needs};
use mutate::{Random, mutate};
use vectors::Vectors;

struct Case {
    id: String,
    evidence: Vec<u8>,
    given: Endorsements,
    at: UnixTime,
}

fn cases(vectors: &Vectors, kind: &str) -> Vec<Case> {
    let of_kind = vectors
        .cases()
        .into_iter()
        .filter(|case| case["kind"] == kind && !case["id"].as_str().unwrap_or_default().starts_with("neg-"));
    let read = |case: serde_json::Value| {
        let names = case["endorsements"].as_array().cloned().unwrap_or_default();
        let files = names.iter().map(|name| vectors.read(name.as_str().expect("a name"))).collect::<Vec<_>>();
        Case {
            id: case["id"].as_str().expect("text").to_owned(),
            evidence: vectors.read(case["evidence"].as_str().expect("a name")),
            given: Endorsements::from_files(files).expect("known forms"),
            at: UnixTime(case["at"].as_u64().expect("seconds")),
        }
    };
    of_kind.map(read).collect()
}

#[test]
fn real_cases_lack_what_was_taken_from_them_and_no_more() {
    let Some(vectors) = Vectors::find() else { return };
    let mut seen = [0; 3];
    for case in cases(&vectors, "tdx") {
        let Ok(evidence) = Evidence::detect(&case.evidence) else { continue };
        let bare = needs(&evidence, &Endorsements::none(), case.at);
        let [Need::IntelCollateral(intel)] = bare[..] else {
            assert_eq!(
                (case.id.as_str(), bare.len()),
                ("tdx-no-level-spr-e4", 0),
                "the one with text behind it"
            );
            continue;
        };
        assert_ne!(intel.root, [0; 32]);
        let with = needs(&evidence, &case.given, case.at);
        // A case that is refused for its dates lacks collateral that is in date.
        assert!(with.is_empty() || with == bare, "{}", case.id);
        seen[0] += usize::from(with.is_empty());
        assert_eq!(
            needs(&evidence, &case.given, UnixTime(case.at.0 + 366 * 86_400)),
            bare,
            "{} a year later",
            case.id
        );
    }
    for case in cases(&vectors, "snp") {
        let Ok(evidence) = Evidence::detect(&case.evidence) else { continue };
        let bare = needs(&evidence, &Endorsements::none(), case.at);
        assert!(
            matches!(bare[..], [Need::Vek(_)] | [Need::Vek(_), Need::AmdCrl { .. }]),
            "{}: {bare:?}",
            case.id
        );
        let with = needs(&evidence, &case.given, case.at);
        seen[1] += usize::from(matches!(with[..], [Need::AmdCrl { .. }]));
    }
    for case in cases(&vectors, "nvidia") {
        let Ok(evidence) = Evidence::detect(&case.evidence) else { continue };
        let with = needs(&evidence, &case.given, case.at);
        let ocsp = with.iter().filter(|need| matches!(need, Need::Ocsp(_))).count();
        assert!(ocsp >= 3 || case.id.contains("forged") || with.is_empty(), "{}: {with:?}", case.id);
        seen[2] += usize::from(ocsp >= 3);
    }
    println!("{seen:?} cases need nothing, a list, status");
    assert!(seen[0] >= 4 && seen[1] >= 4 && seen[2] >= 2, "{seen:?}");
}

#[test]
fn damaged_evidence_gets_an_answer() {
    let Some(vectors) = Vectors::find() else { return };
    let rounds =
        std::env::var("COCOON_FUZZ_ITERATIONS").ok().and_then(|n| n.parse().ok()).unwrap_or(4_000_usize);
    let all: Vec<Case> = ["tdx", "snp", "nvidia"].iter().flat_map(|kind| cases(&vectors, kind)).collect();
    let mut random = Random(0x0c0c_00dc_0de5_eed5);
    for round in 0..rounds {
        let case = &all[round % all.len()];
        if let Ok(evidence) = Evidence::detect(&mutate(&case.evidence, &mut random)) {
            assert!(needs(&evidence, &case.given, case.at).len() < 300);
        }
    }
}
