//! Evidence for the pages of `docs/`: a worker's bundle on a development network, with all that judges it.

use std::path::Path;

use cocoon_attestation::statement::{Beacon, Freshness, Keys, ModelIdentity, SEAL_KEY, report_data};
use cocoon_attestation::{
    Bundle, Endorsement, ImageReference, Measurements, Policy, Statement, TdxRules, Tee, UnixTime,
};
use cocoon_simulated_tee::{AttestationKey, Draft, SimulatedRoot, Td};

/// When it was made: the pages name this time.
pub const NOW: UnixTime = UnixTime(1_795_000_000);

/// A development network's simulated platform.
pub struct Platform(SimulatedRoot);

impl Platform {
    /// Makes one.
    pub fn create() -> Self {
        Self(SimulatedRoot::create(NOW))
    }

    /// The root's certificate, DER.
    pub fn root_der(&self) -> &[u8] {
        self.0.root_der()
    }

    /// The bundle of a worker with these registers.
    pub fn bundle(&self, registers: &Measurements) -> Vec<u8> {
        let key = AttestationKey::generate();
        let statement = statement().encode();
        let draft = Draft::honest(&Td::new(registers.clone()), &report_data(&statement), &key);
        let bundle = Bundle {
            quote: self.0.sign_quote(&draft, &key),
            statement,
            tee: Tee::Tdx,
            gpu: vec![],
            event_log: None,
            endorsements: vec![Endorsement::IntelCollateral(self.0.collateral(NOW))],
        };
        bundle.encode()
    }
}

fn statement() -> Statement {
    Statement {
        network: -3,
        keys: Keys { seal: vec![7; SEAL_KEY], receipt: [5; 32], tls: None },
        models: vec![ModelIdentity { name: "tiny".into(), weights: [7; 32] }],
        configuration: [3; 32],
        engine: [6; 32],
        kernels: vec![],
        gpu_evidence: vec![],
        freshness: Freshness { beacon: Beacon { seqno: 41, root_hash: [4; 32] }, nonce: None, serial: 3 },
    }
}

/// Registers of which nothing matters but that they are the same.
pub fn some_registers() -> Measurements {
    let zero = [0; 48];
    Measurements { mrtd: [1; 48], rtmr: [[2; 48]; 4], mrconfigid: zero, mrowner: zero, mrownerconfig: zero }
}

/// Writes `bundle.cmw`, its `root.der`, the `policy.toml` that accepts it and the block that dates it, `beacon.json`.
///
/// # Panics
/// If the folder cannot be written.
pub fn write(folder: &Path, platform: &Platform, registers: &Measurements) {
    let mut policy = Policy::new(-3, 3_600);
    policy.models.push([7; 32]);
    policy.tdx = Some(TdxRules::by_vendor());
    policy.images.push(ImageReference::on_tdx("guest", Some([3; 32]), registers));
    let beacon = format!(r#"{{"seqno": 41, "root_hash": "{}", "time": {}}}"#, "04".repeat(32), NOW.0 - 60);
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.join(name), bytes).expect("our folder");
    write("bundle.cmw", &platform.bundle(registers));
    write("root.der", platform.root_der());
    write("policy.toml", policy.to_toml().as_bytes());
    write("beacon.json", beacon.as_bytes());
}
