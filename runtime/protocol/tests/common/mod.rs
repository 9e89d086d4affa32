//! A peer that was really verified and appraised: there is no other way to get one.

use cocoon_attestation::statement::{Beacon, Freshness, Keys, ModelIdentity, digest, report_data};
use cocoon_attestation::{
    Bundle, Context, Endorsement, Endorsements, Evidence, Exceptions, ImageReference, KnownBlock, Policy,
    Statement, Tee, TrustAnchors, Trusted, UnixTime, verify,
};
use cocoon_protocol::{
    Answer, AnswerEvent, AnswerSealer, Budget, Ending, EngineId, EngineKind, Expected, Kernels, Opened,
    Outcome, Price, Prompt, ReceiptKey, ReplayGuard, RequestError, RequestHeader, Run, Sampling, SealKey,
    Usage, Written, open,
};
use cocoon_simulated_tee::{Emulator, SimulatedRoot};

pub(crate) const NETWORK: i32 = -3;
pub(crate) const MODEL: [u8; 32] = [3; 32];
const NOW: UnixTime = UnixTime(1_795_000_000);

/// Keys of a guest, and the guard of what it took.
pub(crate) struct Guest {
    pub(crate) seal: SealKey,
    pub(crate) receipt: ReceiptKey,
    pub(crate) guard: ReplayGuard,
}

impl Guest {
    pub(crate) fn new() -> Self {
        let guard = ReplayGuard::new(4, 1 << 20);
        Self { seal: SealKey::generate(), receipt: ReceiptKey::generate(), guard }
    }

    /// Evidence from a simulated platform, verified and appraised.
    pub(crate) fn trusted(&self) -> Trusted {
        let root = SimulatedRoot::create(NOW);
        let emulator = Emulator::launch(&root, b"guest", &["cocoon-guest"]);
        let beacon = Beacon { seqno: 7, root_hash: [8; 32] };
        let statement = Statement {
            network: NETWORK,
            keys: Keys {
                seal: self.seal.public_bytes().to_vec(),
                receipt: *self.receipt.public_bytes(),
                tls: None,
            },
            models: vec![ModelIdentity { name: "tiny".into(), weights: MODEL }],
            configuration: [4; 32],
            engine: [5; 32],
            kernels: Vec::new(),
            gpu_evidence: Vec::new(),
            freshness: Freshness { beacon, nonce: None, serial: 0 },
        }
        .encode();
        let quote = emulator.quote_with_collateral(&report_data(&statement), NOW);
        self.guard.issue(digest(&statement));
        let bundle = Bundle {
            statement,
            quote: quote.quote,
            tee: Tee::Tdx,
            gpu: Vec::new(),
            event_log: None,
            endorsements: vec![Endorsement::IntelCollateral(quote.endorsements)],
        };
        let mut policy = Policy::new(NETWORK, 600);
        policy.models.push(MODEL);
        let measurements = emulator.registers().clone();
        policy.tdx = Some(cocoon_attestation::TdxRules::by_vendor());
        policy.images.push(ImageReference::on_tdx("test", None, &measurements));
        let anchors = TrustAnchors::hardware().with_simulated_root(root.root_der()).expect("a root");
        let evidence = Evidence::Bundle(bundle);
        let genuine =
            verify(&evidence, &Endorsements::none(), &anchors, &Exceptions::none(), NOW).expect("genuine");
        let block = KnownBlock { seqno: 7, root_hash: [8; 32], time: NOW };
        let context = Context { now: NOW, beacon: Some(block), nonce: None };
        policy.appraise(genuine, &context).expect("acceptable")
    }

    pub(crate) fn open(&self, wire: &[u8]) -> Result<Opened, RequestError> {
        open(&self.seal, &Expected { network: NETWORK, models: &[MODEL], guard: &self.guard }, wire)
    }

    /// A tick, a chunk and the end.
    pub(crate) fn answer(&self, mut sealer: AnswerSealer, text: &[u8]) -> Vec<u8> {
        let used = |completion_tokens| Usage { prompt_tokens: 5, cached_tokens: 0, completion_tokens };
        let mut wire = sealer.preamble();
        wire.extend(sealer.seal(&AnswerEvent::Tick, used(0)).expect("within the rules"));
        let chunk = AnswerEvent::Chunk(Answer::new(text.to_vec()));
        wire.extend(sealer.seal(&chunk, used(1)).expect("within the rules"));
        let engine =
            EngineId { kind: EngineKind::Cocoon, version: [0, 1, 0], digest: [4; 32], kernels: Kernels::Cpu };
        let (usage, outcome, run) = (used(1), Outcome::Stop, Some(run()));
        let ending = Ending { usage, started_ms: 1, finished_ms: 2, outcome, engine, run };
        wire.extend(sealer.finish(ending, &self.receipt).expect("within the rules"));
        wire
    }
}

/// A run of one token.
pub(crate) fn run() -> Run {
    let sampling = Sampling {
        seed: 1,
        temperature: 0.4,
        top_p: 1.0,
        top_k: 0,
        min_p: 0.0,
        repetition_penalty: 1.1,
        presence_penalty: 0.0,
        frequency_penalty: 0.0,
        max_tokens: 10,
    };
    let written = vec![Written { tokens: vec![8].into(), outcome: Outcome::Stop }];
    let (stop, logit_bias) = (vec!["end".to_owned()], vec![(5, 1.0)]);
    Run {
        prompt: vec![1, 2, 3, 4, 5].into(),
        sampling,
        stop,
        logit_bias,
        constrained: false,
        grammar: None,
        written,
    }
}

pub(crate) fn header(peer: &Trusted, id: u64) -> RequestHeader {
    let mut request_id = [0; 16];
    request_id[..8].copy_from_slice(&id.to_le_bytes());
    RequestHeader {
        network: NETWORK,
        request_id,
        statement: peer.statement_digest(),
        model: MODEL,
        budget: Budget { prompt_tokens: 100, completion_tokens: 100 },
        price: Price::new(1_000_000, 1_000_000, 2_000_000),
    }
}

pub(crate) fn body() -> Prompt {
    Prompt::new(br#"{"messages":[{"role":"user","content":"hello"}]}"#.to_vec())
}
