//! One row of a book: its newest value in memory, and its way to the disk.
//!
//! A row is written whole. What it changes becomes visible in memory when the disk has it, on the writer's thread, so
//! that a caller who stops waiting cannot leave memory behind the disk. What is counted in memory meanwhile (work that
//! streams) is not overwritten: the change is applied once to the row, and once to the memory of that later moment.

use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, OwnedMutexGuard, oneshot};

use crate::store::{Done, Job, Store, StoreError, Table, WeakStore};

/// What a row holds.
pub(crate) trait Row: Clone + Send + 'static {
    /// Its table.
    const TABLE: Table;

    /// Its bytes.
    fn encode(&self) -> Vec<u8>;

    /// `written` is on the disk now.
    fn stored(&mut self, written: &Self);

    /// Whether memory has counted more since.
    fn is_ahead(&self) -> bool;
}

/// A change of a row: applied to what is written, and to memory when it is on the disk.
pub(crate) type Change<T> = Arc<dyn Fn(&mut T) + Send + Sync>;

/// One row. Shared by an [`Arc`].
pub(crate) struct Slot<T> {
    key: String,
    store: WeakStore,
    /// Held while the row is on its way to the disk, so that no write overtakes another.
    writing: Arc<tokio::sync::Mutex<()>>,
    inside: Mutex<Inside<T>>,
    /// Told at every change.
    pub(crate) changed: Arc<Notify>,
}

struct Inside<T> {
    value: T,
    /// Memory counted more while a row was under way: write once more.
    again: bool,
}

/// The row's turn to be written.
pub(crate) type Turn = OwnedMutexGuard<()>;

impl<T: Row> Slot<T> {
    pub(crate) fn new(store: &Store, key: String, value: T) -> Arc<Self> {
        let inside = Mutex::new(Inside { value, again: false });
        let store = store.downgrade();
        Arc::new(Self { key, store, writing: Arc::default(), inside, changed: Arc::default() })
    }

    /// Looks at the value, or counts in memory.
    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> R {
        f(&mut self.lock().value)
    }

    fn lock(&self) -> MutexGuard<'_, Inside<T>> {
        self.inside.lock().expect("no holder of this lock panics")
    }

    /// Waits for the turn to write.
    pub(crate) async fn turn(&self) -> Turn {
        Arc::clone(&self.writing).lock_owned().await
    }

    /// Writes the row with `change` in it; durable when this returns.
    pub(crate) async fn write(
        self: &Arc<Self>,
        change: impl Fn(&mut T) + Send + Sync + 'static,
    ) -> Result<(), StoreError> {
        let turn = self.turn().await;
        self.write_in(turn, change).await
    }

    /// As [`Slot::write`], in a turn that the caller waited for.
    pub(crate) async fn write_in(
        self: &Arc<Self>,
        turn: Turn,
        change: impl Fn(&mut T) + Send + Sync + 'static,
    ) -> Result<(), StoreError> {
        let (sender, receiver) = oneshot::channel();
        let told = Box::new(move |result| drop(sender.send(result)));
        self.store.submit(self.job(turn, Arc::new(change), told));
        receiver.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Sees to it that what memory has counted reaches the disk soon, without waiting for it.
    pub(crate) fn catch_up(self: &Arc<Self>) {
        if !self.with(|value| value.is_ahead()) {
            return;
        }
        match Arc::clone(&self.writing).try_lock_owned() {
            Ok(turn) => self.store.submit(self.job(turn, Arc::new(|_| {}), Box::new(drop))),
            Err(_) => {
                self.lock().again = true;
                // The turn may have ended before its holder could see that.
                if let Some(job) = self.asked_again() {
                    self.store.submit(job);
                }
            }
        }
    }

    /// The row that somebody asked for during a turn that has ended, if nobody else has the next one.
    fn asked_again(self: &Arc<Self>) -> Option<Job> {
        if !self.lock().again {
            return None;
        }
        let turn = Arc::clone(&self.writing).try_lock_owned().ok()?;
        self.lock().again = false;
        Some(self.job(turn, Arc::new(|_| {}), Box::new(drop)))
    }

    fn job(
        self: &Arc<Self>,
        turn: Turn,
        change: Change<T>,
        told: Box<dyn FnOnce(Result<(), StoreError>) + Send>,
    ) -> Job {
        let written = {
            let mut next = self.with(|value| value.clone());
            change(&mut next);
            next
        };
        let row = written.encode();
        let slot = Arc::clone(self);
        let done: Done = Box::new(move |result| {
            let again = slot.after_write(&change, &written, result.is_ok());
            slot.changed.notify_waiters();
            told(result);
            if again {
                return Some(slot.job(turn, Arc::new(|_| {}), Box::new(drop)));
            }
            drop(turn); // the next writer's turn
            // Somebody may have asked for a row after the look above and before the turn ended.
            slot.asked_again()
        });
        Job { table: T::TABLE, key: self.key.clone(), row, done }
    }

    /// Whether another row must follow.
    fn after_write(&self, change: &Change<T>, written: &T, is_written: bool) -> bool {
        let mut inside = self.lock();
        if is_written {
            change(&mut inside.value);
            inside.value.stored(written);
        }
        std::mem::take(&mut inside.again) && is_written && inside.value.is_ahead()
    }
}
