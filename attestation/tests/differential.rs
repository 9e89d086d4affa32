//! Held against plain dcap-qvl: whatever it refuses, we refuse.

mod common;

use cocoon_attestation::{
    Endorsement, Endorsements, Evidence, Exceptions, TrustAnchors, UnixTime, canonical_collateral, verify,
};
use common::mutate::{Random, mutate};
use common::vectors::Vectors;
use common::{NOW, Platform};
use dcap_qvl::QuoteCollateralV3;
use dcap_qvl::verify::QuoteVerifier;

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
        verify(&evidence, &own, &self.anchors, &Exceptions::none(), self.at).is_ok()
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
    let real = Real {
        quote: vectors.read("tdx/v4_cocoon_90c06f.bin"),
        collateral: vectors.read("intel-collateral/tdx_90c06f000000_2026-03-16_eval18.json"),
        root: include_bytes!("../roots/intel-sgx-root-ca.der").to_vec(),
        anchors: TrustAnchors::hardware(),
        at: UnixTime(1_774_995_607),
    };
    real.compare(6_000);
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
