//! A simulated guest's bundle, the policy that accepts it, and the pipeline a client runs.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of test helpers, shared by several test crates")]

pub mod mutate;
pub mod vectors;

use cocoon_attestation::statement::{Beacon, Freshness, Keys, ModelIdentity, SEAL_KEY, report_data};
use cocoon_attestation::{
    Bundle, Context, Endorsement, Endorsements, Evidence, Exceptions, Genuine, ImageReference, KnownBlock,
    Measurements, Policy, Refusal, Statement, Tee, TrustAnchors, Trusted, UnixTime, verify,
};
use cocoon_simulated_tee::{AttestationKey, Draft, SimulatedRoot, Td};

pub const NOW: UnixTime = UnixTime(1_795_000_000);
pub const NETWORK: i32 = -239;
pub const WEIGHTS: [u8; 32] = [0x77; 32];
pub const CONFIGURATION: [u8; 32] = [0x33; 32];

pub fn registers() -> Measurements {
    Measurements {
        mrtd: [0xa0; 48],
        rtmr: [[0xb0; 48], [0xb1; 48], [0xb2; 48], [0xb3; 48]],
        mrconfigid: [0; 48],
        mrowner: [0; 48],
        mrownerconfig: [0; 48],
    }
}

pub fn statement() -> Statement {
    Statement {
        network: NETWORK,
        keys: Keys { seal: (0..SEAL_KEY).map(|i| i as u8).collect(), receipt: [5; 32] },
        models: vec![ModelIdentity { name: "tiny".into(), weights: WEIGHTS }],
        configuration: CONFIGURATION,
        engine: [6; 32],
        kernels: vec![],
        gpu_evidence: vec![],
        freshness: Freshness { beacon: Beacon { seqno: 41, root_hash: [0x41; 32] }, nonce: None, serial: 3 },
    }
}

/// A platform with its attestation key, as a guest has it.
pub struct Platform {
    pub root: SimulatedRoot,
    pub key: AttestationKey,
}

impl Platform {
    pub fn new() -> Self {
        Self { root: SimulatedRoot::create(NOW), key: AttestationKey::generate() }
    }

    pub fn anchors(&self) -> TrustAnchors {
        TrustAnchors::hardware().with_simulated_root(self.root.root_der()).expect("a root")
    }

    pub fn draft(&self, statement: &[u8]) -> Draft {
        Draft::honest(&Td::new(registers()), &report_data(statement), &self.key)
    }

    pub fn bundle_of(&self, statement: &Statement) -> Bundle {
        let statement = statement.encode();
        let quote = self.root.sign_quote(&self.draft(&statement), &self.key);
        Bundle {
            statement,
            quote,
            gpu: vec![],
            event_log: None,
            tee: Tee::Tdx,
            endorsements: vec![self.collateral()],
        }
    }

    /// This platform's collateral, as a bundle carries it.
    pub fn collateral(&self) -> Endorsement {
        Endorsement::IntelCollateral(self.root.collateral(NOW))
    }

    pub fn bundle(&self) -> Bundle {
        self.bundle_of(&statement())
    }

    /// A bundle whose quote was changed before it was signed.
    pub fn bundle_with_draft(&self, change: impl FnOnce(&mut Draft)) -> Bundle {
        let mut bundle = self.bundle();
        let mut draft = self.draft(&bundle.statement);
        change(&mut draft);
        bundle.quote = self.root.sign_quote(&draft, &self.key);
        bundle
    }

    /// A bundle of a TD that was launched in another way.
    pub fn bundle_of_td(&self, change: impl FnOnce(&mut Td)) -> Bundle {
        let mut bundle = self.bundle();
        let mut td = Td::new(registers());
        change(&mut td);
        let draft = Draft::honest(&td, &report_data(&bundle.statement), &self.key);
        bundle.quote = self.root.sign_quote(&draft, &self.key);
        bundle
    }

    pub fn verify(&self, bundle: &Bundle) -> Result<Genuine, Refusal> {
        verify(
            &Evidence::Bundle(bundle.clone()),
            &Endorsements::none(),
            &self.anchors(),
            &Exceptions::none(),
            NOW,
        )
    }

    /// Bytes as a client gets them, all the way to trust.
    pub fn trust(&self, bytes: &[u8]) -> Result<Trusted, Refusal> {
        let evidence = Evidence::detect(bytes)?;
        let genuine = verify(&evidence, &Endorsements::none(), &self.anchors(), &Exceptions::none(), NOW)?;
        policy().appraise(genuine, &context())
    }
}

/// The one piece of collateral in a bundle.
pub fn collateral_of(bundle: &Bundle) -> &[u8] {
    match &bundle.endorsements[..] {
        [Endorsement::IntelCollateral(json)] => json,
        other => panic!("{} endorsements", other.len()),
    }
}

pub fn policy() -> Policy {
    let mut policy = Policy::new(NETWORK, 3_600);
    policy.models.push(WEIGHTS);
    policy.images.push(ImageReference {
        name: "guest".into(),
        configuration: Some(CONFIGURATION),
        measurements: registers(),
    });
    policy
}

pub fn context() -> Context {
    let beacon = KnownBlock { seqno: 41, root_hash: [0x41; 32], time: UnixTime(NOW.0 - 60) };
    Context { now: NOW, beacon: Some(beacon), nonce: None }
}
