//! Evidence: a statement of keys, models and digests, fresh by a public block, under a quote.

use crate::{Guest, TeeError};
use cocoon_attestation::statement::{self, Beacon, Freshness, Keys, ModelIdentity};
use cocoon_attestation::{Bundle, Statement};
use cocoon_protocol::http::AttestRequest;
use std::sync::atomic::Ordering;
use thiserror::Error;

/// Why no evidence was made.
#[derive(Debug, Error)]
pub enum AttestError {
    /// The request's digests are not 64 hex digits.
    #[error("{0} must be 64 hex digits")]
    Malformed(&'static str),
    /// The TEE does not quote.
    #[error(transparent)]
    Tee(#[from] TeeError),
}

impl Guest {
    /// A bundle over a new statement: the same keys, new freshness, and a serial number that no other has. Requests
    /// sealed under the last few statements are still taken.
    ///
    /// Blocks until the TEE has answered.
    ///
    /// # Errors
    /// [`AttestError`].
    pub fn attest(&self, request: &AttestRequest) -> Result<Bundle, AttestError> {
        let root_hash = digest(&request.root_hash).ok_or(AttestError::Malformed("root_hash"))?;
        let nonce =
            request.nonce.as_deref().map(|nonce| digest(nonce).ok_or(AttestError::Malformed("nonce")));
        let beacon = Beacon { seqno: request.seqno, root_hash };
        let nonce = nonce.transpose()?;
        let serial = self.issued.fetch_add(1, Ordering::Relaxed);
        let statement = self.statement(Freshness { beacon, nonce, serial }).encode();
        let quote = self.tee.quote(&statement::report_data(&statement))?;
        self.guard.issue(statement::digest(&statement));
        self.attested.store(true, Ordering::Relaxed);
        Ok(Bundle {
            statement,
            quote: quote.quote,
            gpu: Vec::new(),
            event_log: None,
            endorsements: quote.endorsements,
        })
    }

    fn statement(&self, freshness: Freshness) -> Statement {
        let model = &self.config.model;
        Statement {
            network: self.config.network,
            keys: Keys {
                seal: self.seal.public_bytes().to_vec(),
                receipt: *self.receipt.public_bytes(),
                tls: None,
            },
            models: vec![ModelIdentity { name: model.name.clone(), weights: model.weights }],
            configuration: self.configuration,
            engine: self.executable,
            kernels: Vec::new(),
            gpu_evidence: Vec::new(),
            freshness,
        }
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest).ok()?;
    Some(digest)
}
