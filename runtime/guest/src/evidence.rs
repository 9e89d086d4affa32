//! Evidence: a statement of keys, models and digests, fresh by a public block, under a quote.

use crate::{GpuError, Guest, TeeError, gpu};
use cocoon_attestation::statement::{self, Beacon, Freshness, Keys, ModelIdentity};
use cocoon_attestation::{Bundle, GpuRecord, Statement};
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
    /// A GPU does not attest.
    #[error(transparent)]
    Gpu(#[from] GpuError),
}

impl Guest {
    /// A bundle over a new statement: the same keys, new freshness, and a serial number that no other has. Requests
    /// sealed under the last few statements are still taken.
    ///
    /// The GPUs are asked first, with a nonce made of the same keys and freshness, and the digests of their records are in
    /// the statement that the quote is over. Blocks until GPUs and TEE have answered.
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
        let freshness = Freshness { beacon, nonce, serial };
        let (seal, receipt) = (self.seal.public_bytes().to_vec(), *self.receipt.public_bytes());
        let keys = Keys { seal, receipt, tls: None };
        let gpu = gpu::records(self.gpus.as_ref(), &statement::gpu_nonce(&keys, &freshness))?;
        let statement = self.statement(keys, &gpu, freshness).encode();
        let quote = self.tee.quote(&statement::report_data(&statement))?;
        // In this order: a child that is started again meanwhile forgets it after this, or makes the guest unattested.
        self.attested.store(true, Ordering::Relaxed);
        self.guard.issue(statement::digest(&statement));
        Ok(Bundle {
            statement,
            tee: quote.tee,
            quote: quote.quote,
            gpu,
            event_log: self.event_log.clone(),
            endorsements: quote.endorsements,
        })
    }

    fn statement(&self, keys: Keys, gpu: &[Vec<u8>], freshness: Freshness) -> Statement {
        let model = &self.config.model;
        Statement {
            network: self.config.network,
            keys,
            models: vec![ModelIdentity { name: model.name.clone(), weights: model.weights }],
            configuration: self.configuration,
            engine: self.executable,
            kernels: self.engine.kernels().into_iter().collect(),
            gpu_evidence: gpu.iter().map(|record| GpuRecord::digest(record)).collect(),
            freshness,
        }
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest).ok()?;
    Some(digest)
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
