//! Held against plain dcap-qvl: whatever it refuses, we refuse. Three differences are wanted, and are told apart: quotes
//! whose QE authentication data has not 32 bytes (it is signed all the same), SGX quotes of versions 4 and 5, and SGX TCB
//! info of version 2; the last two have tests in `sgx.rs`.

mod common;

use cocoon_attestation::{
    Endorsement, Endorsements, Evidence, Exceptions, TrustAnchors, UnixTime, canonical_collateral, verify,
};
use common::mutate::{Random, mutate};
use common::vectors::Vectors;
use common::{NOW, Platform};
use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::QuoteVerifier;
use serde_json::{Value, json};

/// Every status that can be tolerated: so that as much as possible is accepted, and compared.
const ALL_STATUSES: &str = "tcb:SWHardeningNeeded,tcb:ConfigurationNeeded,tcb:ConfigurationAndSWHardeningNeeded,\
     tcb:OutOfDate,tcb:OutOfDateConfigurationNeeded,tcb:TDRelaunchAdvised,tcb:TDRelaunchAdvisedConfigurationNeeded";

const SEED: u64 = 0x0c0c_0011_d1ff_e7e4;

struct Real {
    quote: Vec<u8>,
    collateral: Vec<u8>,
    root: Vec<u8>,
    anchors: TrustAnchors,
    at: UnixTime,
}

impl Real {
    fn oracle_accepts(&self, quote: &[u8], collateral: &[u8]) -> bool {
        let verifier = QuoteVerifier::new(self.root.clone());
        serde_json::from_slice::<QuoteCollateralV3>(collateral)
            .is_ok_and(|collateral| verifier.verify(quote, &collateral, self.at.0).is_ok())
    }

    fn we_accept(&self, quote: &[u8], collateral: &[u8]) -> bool {
        let Ok(evidence) = Evidence::detect(quote) else { return false };
        let Ok(own) = Endorsements::from_files([collateral.to_vec()]) else { return false };
        let lenient: Exceptions = ALL_STATUSES.parse().expect("known names");
        verify(&evidence, &own, &self.anchors, &lenient, self.at).is_ok()
    }

    /// Changed padding, or another form of the same JSON: everything signed is as it was.
    fn same_meaning(&self, quote: &[u8], collateral: &[u8]) -> bool {
        let content =
            |quote: &[u8]| quote.iter().rposition(|byte| *byte != 0).map(|last| quote[..=last].to_vec());
        let canonical = |json: &[u8]| canonical_collateral(json).expect("it was accepted");
        content(quote) == content(&self.quote) && canonical(collateral) == canonical(&self.collateral)
    }

    fn compare(&self, rounds: usize) {
        println!("seed {SEED:#x}, {rounds} rounds");
        assert!(
            self.oracle_accepts(&self.quote, &self.collateral)
                && self.we_accept(&self.quote, &self.collateral)
        );
        let (mut random, mut both, mut only_oracle) = (Random(SEED), 0, 0);
        for round in 0..rounds {
            let (mut quote, mut collateral) = (self.quote.clone(), self.collateral.clone());
            match round % 3 {
                0 | 1 => quote = mutate(&quote, &mut random),
                _ => collateral = mutate(&collateral, &mut random),
            }
            let (ours, oracle) =
                (self.we_accept(&quote, &collateral), self.oracle_accepts(&quote, &collateral));
            assert!(oracle || !ours, "round {round}: we accept what dcap-qvl refuses");
            if ours {
                assert!(self.same_meaning(&quote, &collateral), "round {round}: another meaning is accepted");
            }
            both += usize::from(ours);
            only_oracle += usize::from(oracle && !ours);
        }
        println!("{both} accepted by both, {only_oracle} by dcap-qvl alone, the rest by none");
    }
}

#[test]
fn nothing_that_dcap_qvl_refuses_of_a_real_quote_is_accepted() {
    let Some(vectors) = Vectors::find() else { return };
    let mut compared = 0;
    for case in vectors.cases() {
        let text = |key: &str| case[key].as_str().expect("text");
        let Some([collateral]) = case["endorsements"].as_array().map(Vec::as_slice) else { continue };
        if text("kind") != "tdx" {
            continue;
        }
        let real = Real {
            quote: vectors.read(text("evidence")),
            collateral: vectors.read(collateral.as_str().expect("a file name")),
            root: include_bytes!("../roots/intel-sgx-root-ca.der").to_vec(),
            anchors: TrustAnchors::hardware(),
            at: UnixTime(case["at"].as_u64().expect("seconds")),
        };
        let (ours, oracle) = (
            real.we_accept(&real.quote, &real.collateral),
            real.oracle_accepts(&real.quote, &real.collateral),
        );
        assert!(oracle || !ours, "{}", text("id"));
        if text("expect") == "genuine" {
            real.compare(2_000);
            compared += 1;
        }
    }
    assert!(compared > 3, "the genuine cases were compared");
}

#[test]
fn nothing_that_dcap_qvl_refuses_of_a_simulated_quote_is_accepted() {
    let platform = Platform::new();
    let bundle = platform.bundle();
    let simulated = Real {
        collateral: common::collateral_of(&bundle).to_vec(),
        quote: bundle.quote,
        root: platform.root.root_der().to_vec(),
        anchors: platform.anchors(),
        at: NOW,
    };
    simulated.compare(3_000);
}

/// A JSON document with one value replaced by another that may stand in such a document, or with a member removed.
fn mutate_document(text: &str, random: &mut Random) -> String {
    let mut document: Value = serde_json::from_str(text).expect("JSON");
    let mut paths = Vec::new();
    pointers(&document, &mut String::new(), &mut paths);
    let path = paths[random.below(paths.len())].clone();
    let values = [
        json!(0),
        json!(1),
        json!(3),
        json!(5),
        json!(6),
        json!(255),
        json!(256),
        json!(-1),
        json!(1.5),
        json!(""),
        json!("00"),
        json!("0000000000000000"),
        json!("ffffffffffffffff"),
        json!("TDX"),
        json!("TDX_01"),
        json!("TD_QE"),
        json!("OutOfDate"),
        json!("SWHardeningNeeded"),
        json!("Revoked"),
        json!("2026-01-01T00:00:00Z"),
        json!("2027-01-01T00:00:00+01:00"),
        json!([]),
        json!({}),
        Value::Null,
    ];
    if random.below(8) == 0 {
        let (parent, name) = path.rsplit_once('/').expect("a pointer");
        match document.pointer_mut(parent).expect("it was found") {
            Value::Object(members) => drop(members.remove(name)),
            Value::Array(elements) => drop(elements.remove(name.parse::<usize>().expect("an index"))),
            _ => unreachable!("a value with members"),
        }
    } else {
        *document.pointer_mut(&path).expect("it was found") = values[random.below(values.len())].clone();
    }
    document.to_string()
}

fn pointers(value: &Value, path: &mut String, found: &mut Vec<String>) {
    let mut inside = |name: &str, value: &Value| {
        let length = path.len();
        path.push('/');
        path.push_str(name);
        found.push(path.clone());
        pointers(value, path, found);
        path.truncate(length);
    };
    match value {
        Value::Object(members) => members.iter().for_each(|(name, value)| inside(name, value)),
        Value::Array(elements) => {
            elements.iter().enumerate().for_each(|(at, value)| inside(&at.to_string(), value));
        }
        _ => {}
    }
}

/// Documents and quotes are changed before they are signed, so that what is compared is what is read in them.
#[test]
fn nothing_that_dcap_qvl_refuses_of_what_is_signed_is_accepted() {
    let platform = Platform::new();
    let simulated = Real {
        collateral: vec![],
        quote: vec![],
        root: platform.root.root_der().to_vec(),
        anchors: platform.anchors(),
        at: NOW,
    };
    let (mut random, mut both, mut only_ours, mut only_oracle) = (Random(SEED), 0, 0, 0);
    let honest = platform.draft(b"statement");
    for round in 0..6_000 {
        let (mut documents, mut draft) = (platform.root.documents(NOW), honest.clone());
        match round % 6 {
            0 => documents.tcb_info = mutate_document(&documents.tcb_info, &mut random),
            1 => documents.qe_identity = mutate_document(&documents.qe_identity, &mut random),
            2 => {
                let text = mutate(documents.tcb_info.as_bytes(), &mut random);
                documents.tcb_info = String::from_utf8_lossy(&text).into_owned();
            }
            3 => draft.body = mutate(&draft.body, &mut random),
            4 => draft.qe_report = mutate(&draft.qe_report, &mut random),
            _ => draft.header = mutate(&draft.header, &mut random),
        }
        let quote = platform.root.sign_quote(&draft, &platform.key);
        let collateral = platform.root.endorse(&documents);
        let (ours, oracle) =
            (simulated.we_accept(&quote, &collateral), simulated.oracle_accepts(&quote, &collateral));
        assert!(
            oracle || !ours,
            "round {round}: we accept what dcap-qvl refuses\n{}\n{}",
            documents.tcb_info,
            documents.qe_identity
        );
        both += usize::from(ours && oracle);
        only_ours += usize::from(ours && !oracle);
        only_oracle += usize::from(oracle && !ours);
    }
    println!("{both} accepted by both, {only_oracle} by dcap-qvl alone, {only_ours} by us alone");
    assert!(both > 300 && only_oracle > 50, "the mutations reach what is compared");
}

/// The gaps that this crate closes are real: dcap-qvl alone accepts each of these.
#[test]
fn dcap_qvl_alone_accepts_what_we_refuse() {
    let platform = Platform::new();
    let tail = platform.bundle_with_draft(|draft| draft.qe_report[383] = 1);
    let mut garbage = platform.bundle();
    garbage.quote.extend(b"garbage");
    let mut pceid = platform.bundle();
    let mut documents = platform.root.documents(NOW);
    documents.tcb_info = documents.tcb_info.replace("\"pceId\":\"0000\"", "\"pceId\":\"0001\"");
    pceid.endorsements = vec![Endorsement::IntelCollateral(platform.root.endorse(&documents))];
    let outdated = {
        let mut bundle = platform.bundle();
        let mut documents = platform.root.documents(NOW);
        documents.qe_identity = documents.qe_identity.replace("UpToDate", "OutOfDate");
        bundle.endorsements = vec![Endorsement::IntelCollateral(platform.root.endorse(&documents))];
        bundle
    };
    let xfam = platform.bundle_of_td(|td| td.xfam = 0);
    for (what, bundle) in [
        ("QE report data's tail", tail),
        ("trailing garbage", garbage),
        ("PCEID", pceid),
        ("OutOfDate", outdated),
        ("XFAM", xfam),
    ] {
        let verifier = QuoteVerifier::new(platform.root.root_der().to_vec());
        let collateral = serde_json::from_slice(common::collateral_of(&bundle)).expect("collateral");
        verifier
            .verify(&bundle.quote, &collateral, NOW.0)
            .unwrap_or_else(|error| panic!("{what}: {error:#}"));
        assert!(platform.verify(&bundle).is_err(), "{what}");
    }
}
