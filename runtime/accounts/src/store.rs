//! The file under the account books: redb, one writer, one fsync for all that wait.
//!
//! Every write is a whole row. Rows that are handed in while a commit is under way go together into the next
//! one (group commit), and each is acknowledged only after the commit that holds it has reached the disk. A
//! write that fails acknowledges nothing; the file is reopened for the next one, so that work goes on by itself
//! when the disk has room again.

use std::{
    fmt,
    path::{Path, PathBuf},
    sync::{Arc, Weak, mpsc},
    thread,
};

use redb::{Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, TableDefinition};

/// The schema of the rows that this build reads and writes.
pub const SCHEMA: u32 = 1;
/// How many rows may wait for the disk at once.
pub const MAX_PENDING_WRITES: usize = 4096;
/// How many rows go into one commit at most.
const MAX_BATCH: usize = 512;

const META: TableDefinition<'_, &str, u32> = TableDefinition::new("meta");
const PAYEE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("payee_channels");
const PAYER: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("payer_channels");
const NOTES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("notes");

/// Why the store did not do what it was asked. Nothing that met an error was acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened or created.
    #[error("the account store {path} cannot be opened: {why}")]
    Open {
        /// The file.
        path: String,
        /// What the system said.
        why: String,
    },
    /// Another process holds the file.
    #[error(
        "the account store {path} is in use by another process; stop that one, or name another state folder"
    )]
    Locked {
        /// The file.
        path: String,
    },
    /// The file was written by another version of this program.
    #[error(
        "the account store {path} has schema {found}, this build reads schema {SCHEMA}; use the build that wrote it"
    )]
    Schema {
        /// The file.
        path: String,
        /// The version found in it.
        found: u32,
    },
    /// A row does not parse.
    #[error("the account store holds a damaged row for {key}: {why}; restore the file from a copy")]
    Damaged {
        /// The row's key.
        key: String,
        /// What is wrong with it.
        why: String,
    },
    /// A commit failed.
    #[error(
        "the account store could not be written: {why}; nothing of it was acknowledged. Is the disk full? The next write tries again"
    )]
    Write {
        /// What the system said.
        why: String,
    },
    /// More rows wait for the disk than [`MAX_PENDING_WRITES`].
    #[error("the account store is {MAX_PENDING_WRITES} writes behind; the disk is too slow for this load")]
    Busy,
    /// The store is shutting down.
    #[error("the account store is closed")]
    Closed,
}

/// Which table a row is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Payee,
    Payer,
    Notes,
}

impl Table {
    fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        match self {
            Table::Payee => PAYEE,
            Table::Payer => PAYER,
            Table::Notes => NOTES,
        }
    }
}

/// What runs on the writer's thread once the row's fate is known; it may name a row that must follow.
pub(crate) type Done = Box<dyn FnOnce(Result<(), StoreError>) -> Option<Job> + Send>;
type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

/// One row on its way to the disk.
pub(crate) struct Job {
    pub(crate) table: Table,
    pub(crate) key: String,
    /// Empty: the row is taken out. No row is empty otherwise but a note, which then reads as absent.
    pub(crate) row: Vec<u8>,
    pub(crate) done: Done,
}

/// An open store. Clones share the file and its writer; the last one closes it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// A way to the writer that does not keep the store open: what runs on the writer's thread may hold it.
#[derive(Clone)]
pub(crate) struct WeakStore(Weak<Inner>);

impl WeakStore {
    /// The store, while somebody has it open.
    pub(crate) fn upgrade(&self) -> Option<Store> {
        self.0.upgrade().map(|inner| Store { inner })
    }

    /// As [`Store::submit`].
    pub(crate) fn submit(&self, job: Job) {
        match self.upgrade() {
            Some(store) => store.submit(job),
            None => drop((job.done)(Err(StoreError::Closed))),
        }
    }
}

struct Inner {
    jobs: Option<mpsc::SyncSender<Job>>,
    writer: Option<thread::JoinHandle<()>>,
    payee: Vec<(String, Vec<u8>)>,
    payer: Vec<(String, Vec<u8>)>,
    notes: Vec<(String, Vec<u8>)>,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens the file, or creates it. `path` is the file itself; its folder must exist.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process has it, [`StoreError::Schema`] when another version wrote
    /// it, else [`StoreError::Open`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let file = PathBuf::from(path);
        Self::open_with(&path.display().to_string(), move || Database::create(&file))
    }

    /// Opens a store over whatever `opener` returns, for storage other than a plain file. The opener is called
    /// again after a failed write. `name` stands in the errors.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(
        name: &str,
        opener: impl Fn() -> Result<Database, DatabaseError> + Send + 'static,
    ) -> Result<Self, StoreError> {
        let database = opener().map_err(|e| open_error(name, &e))?;
        prepare(name, &database)?;
        let read = |table| read_all(name, &database, table);
        let (payee, payer, notes) = (read(Table::Payee)?, read(Table::Payer)?, read(Table::Notes)?);
        let (jobs, queue) = mpsc::sync_channel(MAX_PENDING_WRITES);
        let writer = thread::Builder::new()
            .name("account-store".to_owned())
            .spawn(move || Writer { database: Some(database), opener: Box::new(opener) }.run(&queue))
            .map_err(|e| StoreError::Open { path: name.to_owned(), why: e.to_string() })?;
        let inner = Inner { jobs: Some(jobs), writer: Some(writer), payee, payer, notes };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// The rows that were in `table` when the store was opened.
    pub(crate) fn rows(&self, table: Table) -> &[(String, Vec<u8>)] {
        match table {
            Table::Payee => &self.inner.payee,
            Table::Payer => &self.inner.payer,
            Table::Notes => &self.inner.notes,
        }
    }

    pub(crate) fn downgrade(&self) -> WeakStore {
        WeakStore(Arc::downgrade(&self.inner))
    }

    /// Hands a row to the writer; `done` runs there once the row is on the disk, or will never be.
    pub(crate) fn submit(&self, job: Job) {
        let Some(jobs) = &self.inner.jobs else { return drop((job.done)(Err(StoreError::Closed))) };
        match jobs.try_send(job) {
            Ok(()) => {}
            Err(mpsc::TrySendError::Full(job)) => drop((job.done)(Err(StoreError::Busy))),
            Err(mpsc::TrySendError::Disconnected(job)) => drop((job.done)(Err(StoreError::Closed))),
        }
    }

    /// A small fact of the owner's own, such as which channel it opened to whom; durable when this returns.
    ///
    /// # Errors
    /// [`StoreError`] when it did not reach the disk.
    pub async fn put_note(&self, key: &str, value: &[u8]) -> Result<(), StoreError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let done: Done = Box::new(move |result| {
            drop(sender.send(result));
            None
        });
        self.submit(Job { table: Table::Notes, key: key.to_owned(), row: value.to_vec(), done });
        receiver.await.unwrap_or(Err(StoreError::Closed))
    }

    /// Takes a row out; durable when this returns.
    pub(crate) async fn remove(&self, table: Table, key: String) -> Result<(), StoreError> {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let done: Done = Box::new(move |result| {
            drop(sender.send(result));
            None
        });
        self.submit(Job { table, key, row: Vec::new(), done });
        receiver.await.unwrap_or(Err(StoreError::Closed))
    }

    /// The notes as they were when the store was opened.
    pub fn notes(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.rows(Table::Notes).iter().map(|(key, value)| (key.as_str(), value.as_slice()))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The writer ends when the queue has run dry and its last sender is gone: all that was handed in is
        // written before the file closes.
        drop(self.jobs.take());
        if let Some(writer) = self.writer.take()
            && writer.thread().id() != thread::current().id()
        {
            drop(writer.join());
        }
    }
}

fn open_error(name: &str, error: &DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked { path: name.to_owned() },
        other => StoreError::Open { path: name.to_owned(), why: other.to_string() },
    }
}

/// Creates the tables of a new file, and refuses a file of another schema.
fn prepare(name: &str, database: &Database) -> Result<(), StoreError> {
    let failed = |why: &dyn fmt::Display| StoreError::Open { path: name.to_owned(), why: why.to_string() };
    let transaction = database.begin_write().map_err(|e| failed(&e))?;
    {
        let mut meta = transaction.open_table(META).map_err(|e| failed(&e))?;
        let found = meta.get("schema").map_err(|e| failed(&e))?.map(|value| value.value());
        match found {
            Some(SCHEMA) => {}
            Some(found) => return Err(StoreError::Schema { path: name.to_owned(), found }),
            None => drop(meta.insert("schema", SCHEMA).map_err(|e| failed(&e))?),
        }
        for table in [PAYEE, PAYER, NOTES] {
            transaction.open_table(table).map_err(|e| failed(&e))?;
        }
    }
    transaction.commit().map_err(|e| failed(&e))
}

fn read_all(name: &str, database: &Database, table: Table) -> Result<Vec<(String, Vec<u8>)>, StoreError> {
    let failed = |why: &dyn fmt::Display| StoreError::Open { path: name.to_owned(), why: why.to_string() };
    let transaction = database.begin_read().map_err(|e| failed(&e))?;
    let table = transaction.open_table(table.definition()).map_err(|e| failed(&e))?;
    let rows = table.iter().map_err(|e| failed(&e))?;
    rows.map(|row| {
        let (key, value) = row.map_err(|e| failed(&e))?;
        Ok((key.value().to_owned(), value.value().to_vec()))
    })
    .collect()
}

/// The thread that owns the file.
struct Writer {
    database: Option<Database>,
    opener: Opener,
}

impl Writer {
    fn run(mut self, queue: &mpsc::Receiver<Job>) {
        let mut batch = Vec::new();
        loop {
            if batch.is_empty() {
                let Ok(first) = queue.recv() else { return };
                batch.push(first);
            }
            while batch.len() < MAX_BATCH
                && let Ok(next) = queue.try_recv()
            {
                batch.push(next);
            }
            let result = self.commit(&batch);
            let followers = batch.into_iter().filter_map(|job| (job.done)(result.clone()));
            batch = followers.collect();
        }
    }

    fn commit(&mut self, batch: &[Job]) -> Result<(), StoreError> {
        let failed = |why: String| StoreError::Write { why };
        if self.database.is_none() {
            self.database = Some((self.opener)().map_err(|e| failed(e.to_string()))?);
        }
        let database = self.database.as_ref().expect("opened just above");
        let result = write_batch(database, batch);
        if result.is_err() {
            // redb refuses all work after an I/O error until the file is opened anew.
            self.database = None;
        }
        result.map_err(|e| failed(e.to_string()))
    }
}

fn write_batch(database: &Database, batch: &[Job]) -> Result<(), redb::Error> {
    let mut transaction = database.begin_write()?;
    transaction.set_durability(Durability::Immediate).map_err(redb::Error::from)?;
    for job in batch {
        let mut table = transaction.open_table(job.table.definition())?;
        if job.row.is_empty() {
            table.remove(job.key.as_str())?;
        } else {
            table.insert(job.key.as_str(), job.row.as_slice())?;
        }
    }
    transaction.commit()?;
    Ok(())
}
