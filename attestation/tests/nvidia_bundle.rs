//! A bundle's GPUs are bound to the statement: their records by digest, their reports by the nonce.

#[path = "kit/nvidia/mod.rs"]
mod nvidia;

use cocoon_attestation::statement::{
    Beacon, Freshness, Keys, ModelIdentity, SEAL_KEY, gpu_nonce, report_data,
};
use cocoon_attestation::{
    Bundle, Endorsement, Endorsements, Evidence, Exceptions, Genuine, GpuRecord, Measurements, Refusal,
    RefusalKind, Statement, Status, Tee, Verifier,
};
use cocoon_simulated_tee::{AttestationKey, Draft, SimulatedRoot, Td};
use nvidia::{DevicePlan, NOW};

struct World {
    root: SimulatedRoot,
    key: AttestationKey,
}

impl World {
    fn new() -> Self {
        Self { root: SimulatedRoot::create(NOW), key: AttestationKey::generate() }
    }

    /// A TD with these GPU records, whose statement says what `edit` makes of it.
    fn bundle(&self, gpu: Vec<Vec<u8>>, edit: impl FnOnce(&mut Statement)) -> Bundle {
        let mut statement = statement();
        statement.gpu_evidence = gpu.iter().map(|record| GpuRecord::digest(record)).collect();
        edit(&mut statement);
        let statement = statement.encode();
        let draft = Draft::honest(&Td::new(registers()), &report_data(&statement), &self.key);
        Bundle {
            quote: self.root.sign_quote(&draft, &self.key),
            statement,
            tee: Tee::Tdx,
            gpu,
            event_log: None,
            endorsements: vec![Endorsement::IntelCollateral(self.root.collateral(NOW))],
        }
    }

    fn verify(&self, bundle: &Bundle) -> Result<Genuine, Refusal> {
        let anchors = nvidia::anchors().with_simulated_root(self.root.root_der()).expect("a root");
        let evidence = Evidence::detect(&bundle.encode())?;
        Verifier::new(&anchors, &Exceptions::none(), NOW).verify(&evidence, &Endorsements::none())
    }
}

fn registers() -> Measurements {
    let zero = [0; 48];
    Measurements { mrtd: [1; 48], rtmr: [[2; 48]; 4], mrconfigid: zero, mrowner: zero, mrownerconfig: zero }
}

fn statement() -> Statement {
    Statement {
        network: -239,
        keys: Keys { seal: vec![7; SEAL_KEY], receipt: [5; 32], tls: None },
        models: vec![ModelIdentity { name: "tiny".into(), weights: [7; 32] }],
        configuration: [3; 32],
        engine: [6; 32],
        kernels: vec![],
        gpu_evidence: vec![],
        freshness: Freshness { beacon: Beacon { seqno: 41, root_hash: [4; 32] }, nonce: None, serial: 3 },
    }
}

/// Two GPUs that answered the nonce of [`statement`].
fn gpus() -> Vec<DevicePlan> {
    let nonce = gpu_nonce(&statement().keys, &statement().freshness);
    let gpu = |seat| DevicePlan { nonce, ..DevicePlan::gpu(seat) };
    vec![gpu(0), gpu(1)]
}

fn records() -> Vec<Vec<u8>> {
    gpus().iter().map(DevicePlan::record).collect()
}

#[test]
fn gpus_that_answer_the_statement_are_genuine_with_their_td() {
    let world = World::new();
    let genuine = world.verify(&world.bundle(records(), |_| {})).expect("nothing is wrong");
    let order: Vec<&str> = genuine.checks().iter().map(|check| check.id).collect();
    let place = |id: &str| order.iter().position(|other| *other == id).expect("a check of this name");
    assert!(place("tdx.eventlog") < place("gpu.format"), "the CPU's come first");
    assert!(place("gpu.devices") < place("binding.report_data") && order.last() == Some(&"binding.gpu"));
    for id in ["gpu.signature", "gpu.nonce", "gpu.devices", "binding.report_data", "binding.gpu"] {
        assert_eq!(genuine.checks()[place(id)].status, Status::Pass, "{id}");
    }
    assert_eq!((genuine.platform().name(), genuine.gpus().len()), ("tdx", 2));
    let ids: Vec<String> = genuine.platform().ids.iter().map(ToString::to_string).collect();
    assert!(ids[0].starts_with("ppid:") && ids[1..] == ["gpu:20", "gpu:21"], "{ids:?}");
}

#[test]
fn a_bundle_without_gpus_has_no_gpu_checks() {
    let world = World::new();
    let genuine = world.verify(&world.bundle(vec![], |_| {})).expect("nothing is wrong");
    assert!(genuine.gpus().is_empty() && !genuine.checks().iter().any(|check| check.id.starts_with("gpu.")));
}

#[test]
fn gpus_of_another_statement_or_order_are_refused() {
    let world = World::new();
    let refused = |what: &str, bundle: Bundle, check: &str, kind| {
        let refusal = world.verify(&bundle).expect_err(what);
        assert_eq!((refusal.check, refusal.kind), (check, kind), "{what}: {refusal}");
    };
    let rejected = RefusalKind::Rejected;
    let serial = |statement: &mut Statement| statement.freshness.serial += 1;
    refused("made for another statement", world.bundle(records(), serial), "gpu.nonce", rejected);
    let keys = |statement: &mut Statement| statement.keys.receipt = [9; 32];
    refused("made for other keys", world.bundle(records(), keys), "gpu.nonce", rejected);

    let mut swapped = world.bundle(records(), |_| {});
    swapped.gpu.reverse();
    refused("in another order", swapped, "binding.gpu", rejected);
    let mut fewer = world.bundle(records(), |_| {});
    fewer.gpu.pop();
    refused("one left out", fewer, "binding.gpu", rejected);
    let mut none = world.bundle(records(), |_| {});
    none.gpu.clear();
    refused("all left out", none, "binding.gpu", rejected);
    let unclaimed = world.bundle(records(), |statement| statement.gpu_evidence.clear());
    refused("shown but not claimed", unclaimed, "binding.gpu", rejected);

    let twice = vec![records()[0].clone(); 2];
    refused("one device twice", world.bundle(twice, |_| {}), "gpu.devices", rejected);
    let rubbish = vec![vec![0x80]];
    refused("no record", world.bundle(rubbish, |_| {}), "gpu.format", RefusalKind::Malformed);
    let mut forged = gpus();
    forged[1].after = |report| report[60] ^= 1;
    let forged = forged.iter().map(DevicePlan::record).collect();
    refused("a forged report", world.bundle(forged, |_| {}), "gpu.signature", RefusalKind::Signature);
}

#[test]
fn a_statement_that_is_not_the_tds_says_nothing_of_its_gpus() {
    let world = World::new();
    let mut bundle = world.bundle(records(), |_| {});
    bundle.statement[40] ^= 1;
    let refusal = world.verify(&bundle).expect_err("the statement was changed");
    let nonce = refusal.checks.iter().find(|check| check.id == "gpu.nonce").expect("a check");
    assert_eq!((refusal.check, nonce.status), ("binding.report_data", Status::Skip));
}
