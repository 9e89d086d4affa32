//! A GPU's report without RIMs and revocation status: both come from NVIDIA's services.

mod local;

#[path = "../../tests/kit/nvidia/mod.rs"]
mod kit;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::nvidia::nvidia_needs;
use cocoon_attestation::{Endorsement, Endorsements, Evidence, Exceptions, RefusalKind, Status, UnixTime};
use cocoon_fetch::{FetchError, Source};
use kit::ocsp::{OcspPlan, Says};
use kit::{DevicePlan, NOW, Plan};
use local::{Desk, Local, Reply, nowhere, told};

const HOUR: u64 = 3_600;

fn desk(plan: &Plan) -> Desk {
    Desk {
        evidence: Evidence::detect(&plan.evidence()).expect("GPU evidence"),
        given: Endorsements::none(),
        anchors: kit::anchors(),
        exceptions: Exceptions::none(),
    }
}

fn rim_ids(plan: &Plan) -> Vec<String> {
    let Ok(Evidence::Nvidia(devices)) = Evidence::detect(&plan.evidence()) else { panic!("GPU evidence") };
    nvidia_needs(&devices, &Endorsements::none()).into_iter().flat_map(|need| need.rims).collect()
}

fn rim_json(id: &str, xml: &[u8]) -> Reply {
    let json = serde_json::json!({
        "id": id, "rim": STANDARD.encode(xml), "sha256": "", "last_updated": "2026-01-01T00:00:00.000000",
        "rim_format": "TCG", "request_id": "1",
    });
    Reply::Good(json.to_string().into_bytes())
}

/// NVIDIA has everything that the plan has: driver RIM, VBIOS RIM, answers.
async fn nvidia(plan: &Plan) -> Local {
    let local = Local::start().await;
    let mut rims = Vec::new();
    for file in plan.files() {
        match Endorsement::sort(&file).expect("a form").remove(0) {
            Endorsement::Rim(xml) => rims.push(xml),
            Endorsement::OcspResponse(der) => local.put_ocsp(der),
            other => panic!("{other:?}"),
        }
    }
    for (id, xml) in rim_ids(plan).iter().zip(rims) {
        local.put(&format!("/v1/rim/{id}"), [rim_json(id, &xml)]);
    }
    local
}

fn with_status_of_rims() -> Plan {
    Plan { rim_ocsp: Some(OcspPlan::good()), ..Plan::honest() }
}

fn check(result: &Result<cocoon_attestation::Genuine, cocoon_attestation::Refusal>, id: &str) -> Status {
    let genuine = result.as_ref().unwrap_or_else(|refusal| panic!("{refusal}"));
    genuine.checks().iter().find(|check| check.id == id).expect("a check").status
}

#[tokio::test]
async fn rims_and_status_are_fetched_kept_and_asked_again_in_time() {
    let plan = with_status_of_rims();
    let (local, cache, desk) = (nvidia(&plan).await, tempfile::tempdir().expect("a folder"), desk(&plan));
    let (gathered, result) = desk.run(local.services(), cache.path(), NOW).await;
    for id in ["gpu.rim.driver", "gpu.rim.vbios", "gpu.measurements", "gpu.revocation"] {
        assert_eq!(check(&result, id), Status::Pass, "{id}");
    }
    // Two RIMs, three certificates of the device, then the RIMs' signer; the look-alike has no answer about its authority.
    let count =
        |source: &Source| gathered.outcomes.iter().filter(|outcome| outcome.source == *source).count();
    assert_eq!(
        (count(&Source::Fetched), count(&Source::Missing(FetchError::NotFound))),
        (6, 1),
        "{:#?}",
        told(&gathered)
    );
    assert_eq!(local.requests().iter().filter(|request| request.starts_with("POST")).count(), 5);

    let (gathered, result) = desk.run(local.services(), cache.path(), NOW).await;
    assert_eq!(gathered.outcomes.iter().filter(|outcome| outcome.source == Source::Cached).count(), 6);
    assert_eq!(local.requests(), ["POST /"], "what is not there is not kept");
    assert!(result.is_ok());

    let soon = UnixTime(NOW.0 + 2 * HOUR);
    let (gathered, result) = desk.run(nowhere(), cache.path(), soon).await;
    assert!(result.is_ok(), "in date for a day");
    for outcome in &gathered.outcomes {
        match outcome.what.starts_with("RIM") {
            true => assert_eq!(outcome.source, Source::Cached, "{outcome:?}"),
            false => assert!(outcome.source.trouble().is_some(), "{outcome:?}"),
        }
    }
    let late = UnixTime(NOW.0 + 25 * HOUR);
    let (gathered, result) = desk.run(nowhere(), cache.path(), late).await;
    let refusal = result.expect_err("the answers ran out");
    assert_eq!((refusal.check, refusal.kind), ("gpu.revocation", RefusalKind::Unavailable));
    let expired = |outcome: &&cocoon_fetch::Outcome| matches!(outcome.source, Source::Expired(..));
    assert_eq!(gathered.outcomes.iter().filter(expired).count(), 4);
    let rims = gathered.outcomes.iter().filter(|outcome| outcome.what.starts_with("RIM"));
    assert!(
        rims.into_iter().all(|outcome| matches!(outcome.source, Source::Kept(_))),
        "their signer's dates count"
    );
}

#[tokio::test]
async fn devices_of_one_machine_share_what_they_need() {
    let plan = Plan { devices: vec![DevicePlan::gpu(0), DevicePlan::gpu(1)], ..with_status_of_rims() };
    let (local, cache) = (nvidia(&plan).await, tempfile::tempdir().expect("a folder"));
    let (_, result) = desk(&plan).run(local.services(), cache.path(), NOW).await;
    assert_eq!(check(&result, "gpu.revocation"), Status::Pass);
    let requests = local.requests();
    let count = |start: &str| requests.iter().filter(|request| request.starts_with(start)).count();
    // Boot ROM of each; provisioner and family together; the RIMs' signer and authority.
    assert_eq!((count("GET"), count("POST")), (2, 2 + 2 + 2));
}

#[tokio::test]
async fn a_device_that_was_taken_back_is_refused() {
    let revoked = OcspPlan { says: Says::Revoked(6), ..OcspPlan::good() };
    let plan = Plan { ocsp: vec![revoked, OcspPlan::good(), OcspPlan::good()], ..Plan::honest() };
    let (local, cache) = (nvidia(&plan).await, tempfile::tempdir().expect("a folder"));
    let refusal = desk(&plan).run(local.services(), cache.path(), NOW).await.1.expect_err("on hold");
    assert_eq!((refusal.check, refusal.kind), ("gpu.revocation", RefusalKind::Rejected));
}

#[tokio::test]
async fn another_rim_is_not_taken() {
    let plan = Plan::honest();
    let (local, cache) = (nvidia(&plan).await, tempfile::tempdir().expect("a folder"));
    let ids = rim_ids(&plan);
    let vbios = kit::sign(plan.vbios_rim.as_ref().expect("it is planned"));
    for wrong in [
        rim_json(&ids[0], &vbios),
        rim_json(&ids[1], &vbios),
        rim_json(&ids[0], b"<SoftwareIdentity/>"),
        Reply::Good(vbios.clone()),
    ] {
        local.put(&format!("/v1/rim/{}", ids[0]), [wrong]);
        let (gathered, _) = desk(&plan).run(local.services(), cache.path(), NOW).await;
        let source =
            &gathered.outcomes.iter().find(|outcome| outcome.what.ends_with(&ids[0])).expect("asked").source;
        assert!(matches!(source, Source::Missing(FetchError::Unusable(_))), "{source:?}");
    }
}

#[tokio::test]
async fn a_device_cannot_send_us_to_another_path() {
    let mut plan = Plan::honest();
    plan.devices[0].set(3, b"../../ids?x=\0");
    let (local, cache) = (Local::start().await, tempfile::tempdir().expect("a folder"));
    let (gathered, _) = desk(&plan).run(local.services(), cache.path(), NOW).await;
    assert!(local.requests().iter().all(|request| !request.contains("ids")));
    let sources: Vec<_> = gathered.outcomes.iter().map(|outcome| &outcome.source).collect();
    assert!(
        sources.iter().any(|source| matches!(source, Source::Missing(FetchError::NotOffered(_)))),
        "{sources:?}"
    );
}
