//! Each host gets the proof of its own leaf, and nothing of the others'.

use std::{collections::HashSet, sync::Mutex};

use cocoon_protocol::http::LiabilityProof;

use super::record::Record;
use crate::Shared;

/// Which channels' payees have got their proof of which epoch.
#[derive(Default)]
pub(super) struct Delivered {
    epoch: Mutex<(u64, HashSet<String>)>,
}

impl Delivered {
    /// Hands the record's proofs to every registered host that has not got its own. A host that does not take it is asked
    /// again with the next look.
    pub(super) async fn push(&self, shared: &Shared, record: &Record) {
        for worker in shared.workers.all() {
            let channel = worker.lane.channel();
            let Some(proof) = record.prove(channel).filter(|_| !self.has(record, channel)) else { continue };
            let words = LiabilityProof { bond: record.bond.to_string(), proof: hex::encode(proof.encode()) };
            match worker.lane.show(&words).await {
                Ok(()) => self.note(record, channel),
                Err(error) => {
                    tracing::warn!(worker = %worker.id, epoch = record.root.epoch, %error,
                        "a host does not take the proof of what it is owed");
                }
            }
        }
    }

    fn has(&self, record: &Record, channel: &cocoon_contracts::Address) -> bool {
        let known = self.epoch.lock().expect("no holder of this lock panics");
        known.0 == record.root.epoch && known.1.contains(&channel.to_string())
    }

    fn note(&self, record: &Record, channel: &cocoon_contracts::Address) {
        let mut known = self.epoch.lock().expect("no holder of this lock panics");
        if known.0 != record.root.epoch {
            *known = (record.root.epoch, HashSet::new());
        }
        known.1.insert(channel.to_string());
    }
}
