//! Statements over a TEE and GPUs that are not there.

use super::*;
use crate::gpu::tests::Fake;
use crate::{Gpus, NoGpus, Quote, Tee, boot};
use cocoon_attestation::Endorsement;
use std::path::Path;

/// A quote that is the report data; registers, or none.
struct Bare {
    registers: bool,
}

impl Tee for Bare {
    fn name(&self) -> &'static str {
        "bare"
    }

    fn has_registers(&self) -> bool {
        self.registers
    }

    fn extend(&self, _: &[u8; 48]) -> Result<(), TeeError> {
        Err(TeeError::NoRegisters("none here".to_owned()))
    }

    fn quote(&self, report_data: &[u8; 64]) -> Result<Quote, TeeError> {
        let endorsements = vec![Endorsement::Certificate(b"vcek".to_vec())];
        Ok(Quote { tee: cocoon_attestation::Tee::Snp, quote: report_data.to_vec(), endorsements })
    }
}

fn guest(registers: bool, gpus: Box<dyn Gpus>) -> Result<Guest, crate::BootError> {
    let folder = tempfile::tempdir().expect("a folder");
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/models/tiny.gguf");
    let model = std::fs::read(model).expect("the tiny model is in the repository");
    let weights = ring::digest::digest(&ring::digest::SHA256, &model);
    let config = format!(
        "network = -3\nmax_context = 512\nmax_running = 1\nmax_queued = 1\nthreads = 1\ntick_tokens = 4\n[model]\n\
         name = \"tiny\"\nweights = \"{}\"\n",
        hex::encode(weights)
    );
    std::fs::write(folder.path().join(crate::CONFIG), config).expect("it is ours");
    std::fs::write(folder.path().join(crate::MODEL), model).expect("it is ours");
    boot(folder.path(), Box::new(Bare { registers }), gpus, &crate::cuda, [9; 32])
}

fn request(nonce: Option<&str>) -> AttestRequest {
    AttestRequest { seqno: 5, root_hash: "08".repeat(32), nonce: nonce.map(str::to_owned) }
}

#[test]
fn gpus_are_asked_with_the_nonce_of_the_statement_that_holds_their_digests() {
    let guest = guest(false, Box::new(Fake { count: 2, change: |_| () })).expect("it boots");
    for nonce in [None, Some("07".repeat(32))] {
        let bundle = guest.attest(&request(nonce.as_deref())).expect("evidence");
        let statement = Statement::decode(&bundle.statement).expect("ours");
        assert_eq!(bundle.quote, statement::report_data(&bundle.statement));
        assert_eq!(bundle.endorsements, [Endorsement::Certificate(b"vcek".to_vec())]);
        let digests: Vec<_> = bundle.gpu.iter().map(|record| GpuRecord::digest(record)).collect();
        assert_eq!((digests.len(), &digests), (2, &statement.gpu_evidence));
        let asked = statement::gpu_nonce(&statement.keys, &statement.freshness);
        for record in &bundle.gpu {
            assert_eq!(GpuRecord::decode(record).expect("a record").report[4..36], asked);
        }
    }
}

#[test]
fn a_gpu_that_does_not_attest_is_never_left_out() {
    let guest =
        guest(false, Box::new(Fake { count: 1, change: |gpu| gpu.report.clear() })).expect("it boots");
    assert!(matches!(guest.attest(&request(None)), Err(AttestError::Gpu(_))));
}

#[test]
fn a_platform_without_registers_boots_and_states_its_configuration() {
    let guest = guest(false, Box::new(NoGpus)).expect("it boots");
    let bundle = guest.attest(&request(None)).expect("evidence");
    let statement = Statement::decode(&bundle.statement).expect("ours");
    assert_eq!((statement.configuration, statement.gpu_evidence), (guest.configuration, Vec::new()));
}

#[test]
fn a_platform_whose_registers_cannot_be_extended_does_not_boot() {
    let error = guest(true, Box::new(NoGpus)).err().expect("nothing was measured");
    assert_eq!(error.to_string(), "none here");
}
