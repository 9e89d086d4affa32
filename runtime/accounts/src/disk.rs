//! Another place for the rows than a file: whoever has it decides when a write happens, and whether it does. A simulation
//! lets processes die at each.

use crate::store::{Job, StoreError};

/// A place for rows. [`crate::Store::over`] hands it what is to be written, one row at a time, in order.
pub trait Disk: Send + Sync + 'static {
    /// A row to be written. Returns at once; the row's fate is said with [`Write::finish`].
    fn submit(&self, write: Write);
}

/// One row on its way. Dropping it without [`Write::finish`] is a store that was closed.
pub struct Write(Job);

impl Write {
    pub(crate) fn new(job: Job) -> Self {
        Self(job)
    }

    /// The row's table.
    pub fn table(&self) -> &'static str {
        self.0.table.name()
    }

    /// The row's key in it.
    pub fn key(&self) -> &str {
        &self.0.key
    }

    /// Its bytes; empty when the row is to be taken out.
    pub fn row(&self) -> &[u8] {
        &self.0.row
    }

    /// Says that the row is durable, or never will be. The row that must follow, if there is one.
    pub fn finish(self, result: Result<(), StoreError>) -> Option<Self> {
        (self.0.done)(result).map(Self)
    }
}
