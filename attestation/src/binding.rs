//! What ties keys, statement and GPU evidence to the report that the CPU signed.

use crate::check::{Checklist, Finding};
use crate::{Bundle, Claims, GpuRecord, RefusalKind, Statement, statement};

pub(crate) const CHECKS: [&str; 2] = ["binding.report_data", "binding.gpu"];

/// The statement is the one whose digest is in the report, and the GPU evidence the one it names.
pub(crate) fn check(
    bundle: Option<&Bundle>,
    claims: Option<&Claims>,
    list: &mut Checklist,
) -> Option<(Statement, [u8; 32])> {
    let Some(bundle) = bundle else {
        for id in CHECKS {
            list.not_applicable(id, "raw evidence carries no statement");
        }
        return None;
    };
    let got = claims?.report_data();
    let expected = statement::report_data(&bundle.statement);
    let bound = Some(&expected) == got;
    list.require(bound, "binding.report_data", "the keys and claims were born in this guest", || Finding {
        kind: RefusalKind::Signature,
        expected: hex::encode(expected),
        got: got.map_or("none".to_owned(), hex::encode),
        likely: "The statement is not the one this guest made: somebody put in another key or claim".into(),
        remedy: "Fetch the bundle again, from the guest's host if a gateway sent it".into(),
    });
    if !bound {
        return None;
    }
    let statement = decode(&bundle.statement, list)?;
    gpu(&statement, bundle, list);
    Some((statement, statement::digest(&bundle.statement)))
}

fn decode(bytes: &[u8], list: &mut Checklist) -> Option<Statement> {
    let malformed = |reason| Finding {
        kind: RefusalKind::Malformed,
        expected: "a statement in its deterministic encoding".into(),
        got: reason,
        likely: "The guest is of another version, or does not follow the format".into(),
        remedy: "Use a host whose guest is of a version this verifier knows".into(),
    };
    Statement::decode(bytes).map_err(|e| list.fail("binding.report_data", malformed(e.reason))).ok()
}

/// The records are those whose digests the statement lists, in its order.
fn gpu(statement: &Statement, bundle: &Bundle, list: &mut Checklist) {
    if statement.gpu_evidence.is_empty() && bundle.gpu.is_empty() {
        return list.not_applicable("binding.gpu", "no GPU is claimed");
    }
    let shown: Vec<[u8; 32]> = bundle.gpu.iter().map(|record| GpuRecord::digest(record)).collect();
    let same = shown == statement.gpu_evidence;
    let words = |digests: &[[u8; 32]]| {
        let digests: Vec<String> = digests.iter().map(hex::encode).collect();
        if digests.is_empty() { "none".to_owned() } else { digests.join(", ") }
    };
    list.require(same, "binding.gpu", "the GPU evidence is what this guest collected", || Finding {
        kind: RefusalKind::Rejected,
        expected: words(&statement.gpu_evidence),
        got: words(&shown),
        likely: "GPU evidence was left out, added, exchanged or put in another order".into(),
        remedy: "Fetch the bundle again, from the guest's host if a gateway sent it".into(),
    });
}
