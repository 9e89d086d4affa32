//! A machine's disk: rows that outlive its processes, written a moment after they are handed in, or not.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use cocoon_accounts::{Disk, Store, StoreError, Write};
use tokio::sync::Notify;

/// As many rows as one commit of the real store takes.
const MAX_BATCH: usize = 512;

#[derive(Default)]
pub(crate) struct MachineDisk {
    rows: Mutex<BTreeMap<(String, String), Vec<u8>>>,
    queue: Mutex<VecDeque<Write>>,
    /// The process that has it open; what others hand in is of the dead.
    process: AtomicU64,
    wake: Notify,
}

struct Handle {
    disk: Arc<MachineDisk>,
    process: u64,
}

impl Disk for Handle {
    fn submit(&self, write: Write) {
        if self.disk.process.load(Ordering::Relaxed) == self.process {
            self.disk.queue.lock().expect("nobody panics here").push_back(write);
            self.disk.wake.notify_one();
        }
    }
}

impl MachineDisk {
    /// Opens the store for a new process, with what is durable.
    pub(crate) fn open(self: &Arc<Self>, process: u64) -> Store {
        self.process.store(process, Ordering::Relaxed);
        let handle = Arc::new(Handle { disk: Arc::clone(self), process });
        let rows = self.rows.lock().expect("nobody panics here");
        let rows = rows.iter().map(|((table, key), row)| (table.as_str(), key.as_str(), row.as_slice()));
        Store::over(handle, rows)
    }

    /// The process that has it open; 0 is none.
    pub(crate) fn process(&self) -> u64 {
        self.process.load(Ordering::Relaxed)
    }

    /// The process is dead: nothing of it comes any more. What waited is returned, to be dropped once its tasks are gone.
    pub(crate) fn abandon(&self) -> VecDeque<Write> {
        self.process.store(0, Ordering::Relaxed);
        std::mem::take(&mut *self.queue.lock().expect("nobody panics here"))
    }

    /// The rows of the next commit, once there is one.
    pub(crate) async fn batch(&self) -> Vec<Write> {
        loop {
            let wake = self.wake.notified();
            let batch: Vec<Write> = {
                let mut queue = self.queue.lock().expect("nobody panics here");
                let number = queue.len().min(MAX_BATCH);
                queue.drain(..number).collect()
            };
            if !batch.is_empty() {
                return batch;
            }
            wake.await;
        }
    }

    /// Makes a batch durable: all of it or, by not calling this, none.
    pub(crate) fn commit(&self, batch: &[Write]) {
        let mut rows = self.rows.lock().expect("nobody panics here");
        for write in batch {
            let key = (write.table().to_owned(), write.key().to_owned());
            if write.row().is_empty() {
                rows.remove(&key);
            } else {
                rows.insert(key, write.row().to_vec());
            }
        }
    }

    /// Tells those who wait; the rows that must follow go first.
    pub(crate) fn tell(&self, batch: Vec<Write>, result: &Result<(), StoreError>) {
        let next: Vec<Write> = batch.into_iter().filter_map(|write| write.finish(result.clone())).collect();
        if next.is_empty() {
            return;
        }
        let mut queue = self.queue.lock().expect("nobody panics here");
        next.into_iter().rev().for_each(|write| queue.push_front(write));
        self.wake.notify_one();
    }
}
