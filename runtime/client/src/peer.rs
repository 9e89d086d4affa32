//! From a gateway's listing to a worker that may be sealed to: fetch, verify, appraise.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cocoon_attestation::{
    Bundle, Context, Endorsements, Evidence, KnownBlock, Refusal, Statement, TdxCache, TrustAnchors, Trusted,
    UnixTime, Verifier,
};
use cocoon_chain::Chain;
use cocoon_protocol::Price;
use cocoon_protocol::http::WorkerEntry;

use crate::policy::Rules;
use crate::{ClientError, GatewayApi};

/// A worker whose evidence held. Made only by finding one.
pub struct Peer {
    pub(crate) trusted: Trusted,
    pub(crate) worker: String,
    pub(crate) price: Price,
    pub(crate) weights: [u8; 32],
    pub(crate) twin: Option<String>,
    model: String,
    bundle: Vec<u8>,
    beacon: KnownBlock,
}

impl Peer {
    /// What was proven about it.
    pub fn trusted(&self) -> &Trusted {
        &self.trusted
    }

    /// The gateway's name for it.
    pub fn worker(&self) -> &str {
        &self.worker
    }

    /// Another worker that showed one of this one's machines or devices: one machine that pretends to be two, or two guests
    /// on one.
    pub fn twin(&self) -> Option<&str> {
        self.twin.as_deref()
    }

    /// The model's name in the statement.
    pub fn model(&self) -> &str {
        &self.model
    }

    /// What the gateway charges for it.
    pub fn price(&self) -> Price {
        self.price
    }

    /// Its evidence, to keep: anybody can verify it again.
    pub fn bundle(&self) -> &[u8] {
        &self.bundle
    }

    /// The block that dates its evidence, as the client's own chain has it.
    pub fn beacon(&self) -> &KnownBlock {
        &self.beacon
    }

    /// Whether its evidence may still be relied on: a lease that only new evidence renews.
    pub fn is_fresh(&self) -> bool {
        now() < self.trusted.fresh_until()
    }
}

/// The present time in Unix seconds. A clock before 1970 is time 0, at which nothing is valid.
pub(crate) fn now() -> UnixTime {
    UnixTime(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs())
}

/// What a worker is judged with.
pub(crate) struct Judge<'a> {
    pub(crate) chain: &'a dyn Chain,
    pub(crate) anchors: &'a TrustAnchors,
    pub(crate) rules: &'a Rules,
    pub(crate) verified: &'a TdxCache,
}

impl Judge<'_> {
    /// Fetches a worker's bundle and judges it.
    pub(crate) async fn judge(
        &self,
        gateway: &GatewayApi,
        entry: &WorkerEntry,
        model: Option<&str>,
    ) -> Result<Peer, ClientError> {
        let bundle = gateway.bundle(&entry.id).await?;
        let beacon = self.beacon_of(&bundle).await?;
        self.appraise(entry, model, bundle, beacon).map_err(|refusal| ClientError::Untrusted {
            worker: entry.id.clone(),
            refusal: Box::new(refusal),
        })
    }

    /// The block that the statement names, read from our own chain: the number alone is taken from the evidence.
    async fn beacon_of(&self, bundle: &[u8]) -> Result<Option<KnownBlock>, ClientError> {
        let named = Bundle::decode(bundle).ok().and_then(|b| Statement::decode(&b.statement).ok());
        let Some(statement) = named else { return Ok(None) }; // `verify` will say what is wrong with it
        let block = self.chain.block(statement.freshness.beacon.seqno).await?;
        Ok(block.map(|b| KnownBlock { seqno: b.seqno, root_hash: b.root_hash, time: UnixTime(b.time) }))
    }

    fn appraise(
        &self,
        entry: &WorkerEntry,
        model: Option<&str>,
        bundle: Vec<u8>,
        beacon: Option<KnownBlock>,
    ) -> Result<Peer, Refusal> {
        let now = now();
        let evidence = Evidence::detect(&bundle)?;
        let genuine = Verifier::new(self.anchors, &self.rules.exceptions, now)
            .with_cache(self.verified)
            .verify(&evidence, &Endorsements::none())?;
        let trusted =
            self.rules.policy.appraise(genuine, &Context { now, beacon: beacon.clone(), nonce: None })?;
        let served = trusted.statement().models.iter().find(|m| model.is_none_or(|name| name == m.name));
        let (model, weights) = match served.or(trusted.statement().models.first()) {
            Some(identity) => (identity.name.clone(), identity.weights),
            None => (String::new(), [0; 32]),
        };
        let beacon = beacon.expect("appraisal refuses a statement whose block is unknown");
        Ok(Peer {
            trusted,
            worker: entry.id.clone(),
            price: entry.price,
            weights,
            twin: None,
            model,
            bundle,
            beacon,
        })
    }
}
