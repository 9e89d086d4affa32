//! What the guest says about itself.

use super::{Inspection, Section, field};
use crate::{Statement, statement};

/// Digits of a long key that are shown: enough to tell two apart.
const KEY_DIGITS: usize = 32;

/// Shows a statement, if it can be read.
pub(super) fn show(bytes: &[u8], shown: &mut Inspection) {
    let said = match Statement::decode(bytes) {
        Ok(said) => said,
        Err(error) => return shown.cannot_read("statement", &error),
    };
    let key = |bytes: &[u8]| {
        let text = hex::encode(bytes);
        let head: String = text.chars().take(KEY_DIGITS).collect();
        if head.len() < text.len() { format!("{head}… ({} bytes)", bytes.len()) } else { text }
    };
    let mut fields = vec![
        field("Digest", hex::encode(statement::digest(bytes)), "SHA-256: its name in headers and receipts"),
        field("Network", said.network.to_string(), "TON global id"),
    ];
    fields.extend(said.models.iter().map(|model| {
        let value = format!("{} {}", model.name, hex::encode(model.weights));
        field("Model", value, "name and SHA-256 of its weights")
    }));
    fields.extend([
        field("Configuration", hex::encode(said.configuration), "SHA-256"),
        field("Engine", hex::encode(said.engine), "SHA-256 naming it"),
        field("Seal key", key(&said.keys.seal), "X-Wing: prompts are sealed to it"),
        field("Receipt key", hex::encode(said.keys.receipt), "Ed25519: signs receipts"),
    ]);
    if let Some(tls) = &said.keys.tls {
        fields.push(field("TLS key", key(tls), "of its certificate"));
    }
    fields.extend(
        said.kernels.iter().map(|digest| field("Kernel", hex::encode(digest), "SHA-256 of a GPU module")),
    );
    fields.extend(
        said.gpu_evidence
            .iter()
            .map(|digest| field("GPU evidence", hex::encode(digest), "SHA-256 of a record")),
    );
    let freshness = &said.freshness;
    fields.extend([
        field("Beacon", freshness.beacon.seqno.to_string(), "number of a masterchain block"),
        field("Beacon's root hash", hex::encode(freshness.beacon.root_hash), "it did not exist before"),
        field("Nonce", freshness.nonce.map_or("none".into(), hex::encode), "a client's challenge"),
        field("Serial", freshness.serial.to_string(), "statements issued since it booted"),
    ]);
    shown.statement = Some(Section { title: "Statement".into(), fields });
}
