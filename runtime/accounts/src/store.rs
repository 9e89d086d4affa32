//! The file under the account books: redb, one writer, one fsync for all that wait.
//!
//! Every write is a whole row. Rows that are handed in while a commit is under way go together into the next
//! one (group commit), and each is acknowledged only after the commit that holds it has reached the disk. A
//! write that fails acknowledges nothing; the file is reopened for the next one, so that work goes on by itself
//! when the disk has room again.
//!
//! A file that is there is a book, or an error: an empty one was cut short, and every page's checksum is compared when
//! it is opened. A fresh file gets its name once it holds its schema, so that no crash leaves an empty one.

use std::{
    fmt,
    io::ErrorKind,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{Arc, Weak, mpsc},
    thread,
};

use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError, TableDefinition,
};

use crate::{
    disk::{Disk, Write},
    fresh,
    schema::{self, SCHEMA},
};

/// How many rows may wait for the disk at once.
pub const MAX_PENDING_WRITES: usize = 4096;
/// How many rows go into one commit at most.
const MAX_BATCH: usize = 512;

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
        "the account store {path} has schema {found}, this build writes schema {SCHEMA} and reads none that is newer; use the build that wrote it"
    )]
    Schema {
        /// The file.
        path: String,
        /// The version found in it.
        found: u32,
    },
    /// The file was cut short, or bytes of it have changed.
    #[error(
        "the account store {path} is damaged ({why}); nothing was changed. Restore it from a copy: newer vouchers come again from their payers"
    )]
    Corrupt {
        /// The file.
        path: String,
        /// What does not hold.
        why: String,
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
    /// A shared database does not answer.
    #[error(
        "the account database does not answer ({why}); nothing of it was acknowledged. It is asked again"
    )]
    Unreachable {
        /// What was tried, and what came of it.
        why: String,
    },
    /// A shared database gave away what this process had set aside, since it was not heard from for too long.
    #[error(
        "this process was not heard from by the account database for longer than its lease, and what it had set aside was given back; ask again"
    )]
    Lapsed,
}

impl StoreError {
    /// Whether the same may succeed a moment later, without anybody doing anything.
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

/// Which table a row is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Payee,
    Payer,
    Notes,
}

impl Table {
    pub(crate) const ALL: [Self; 3] = [Self::Payee, Self::Payer, Self::Notes];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Table::Payee => "payee_channels",
            Table::Payer => "payer_channels",
            Table::Notes => "notes",
        }
    }

    pub(crate) fn definition(self) -> TableDefinition<'static, &'static str, &'static [u8]> {
        TableDefinition::new(self.name())
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
    way: Way,
    rows: [Rows; Table::ALL.len()],
}

/// Where rows go.
enum Way {
    /// To the thread that owns the file.
    File { jobs: Option<mpsc::SyncSender<Job>>, writer: Option<thread::JoinHandle<()>> },
    /// To another place.
    Other(Arc<dyn Disk>),
}

/// A table's rows: key and bytes.
pub(crate) type Rows = Vec<(String, Vec<u8>)>;

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Store")
    }
}

impl Store {
    /// Opens the file, or creates it. `path` is the file itself; its folder must exist.
    ///
    /// # Errors
    /// [`StoreError::Locked`] when another process has it, [`StoreError::Schema`] when a later version wrote
    /// it, [`StoreError::Corrupt`] when it is not as it was written, else [`StoreError::Open`].
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let (file, name) = (PathBuf::from(path), path.display().to_string());
        if !fresh::exists(path)? {
            fresh::create(path)?;
        }
        // Never `create`: a file that is gone between two writes is an error, not a fresh book.
        Self::open_with(&name, move || Database::open(&file))
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
        let (database, rows) = guarded(name, || checked(name, opener()))?;
        let (jobs, queue) = mpsc::sync_channel(MAX_PENDING_WRITES);
        let writer = thread::Builder::new()
            .name("account-store".to_owned())
            .spawn(move || Writer { database: Some(database), opener: Box::new(opener) }.run(&queue))
            .map_err(|e| StoreError::Open { path: name.to_owned(), why: e.to_string() })?;
        let way = Way::File { jobs: Some(jobs), writer: Some(writer) };
        Ok(Self { inner: Arc::new(Inner { way, rows }) })
    }

    /// A store over another place than a file, for simulations. `rows` are there already: table, key and bytes, of this
    /// build's schema.
    pub fn over<'a>(
        disk: Arc<dyn Disk>,
        rows: impl IntoIterator<Item = (&'a str, &'a str, &'a [u8])>,
    ) -> Self {
        let mut tables: [Rows; Table::ALL.len()] = Default::default();
        for (table, key, row) in rows {
            if let Some(table) = Table::ALL.into_iter().find(|it| it.name() == table) {
                tables[table as usize].push((key.to_owned(), row.to_vec()));
            }
        }
        Self { inner: Arc::new(Inner { way: Way::Other(disk), rows: tables }) }
    }

    /// The rows that were in `table` when the store was opened.
    pub(crate) fn rows(&self, table: Table) -> Rows {
        self.inner.rows[table as usize].clone()
    }

    pub(crate) fn downgrade(&self) -> WeakStore {
        WeakStore(Arc::downgrade(&self.inner))
    }

    /// Hands a row to the writer; `done` runs there once the row is on the disk, or will never be.
    pub(crate) fn submit(&self, job: Job) {
        let jobs = match &self.inner.way {
            Way::File { jobs: Some(jobs), .. } => jobs,
            Way::File { jobs: None, .. } => return drop((job.done)(Err(StoreError::Closed))),
            Way::Other(disk) => return disk.submit(Write::new(job)),
        };
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
        let notes = &self.inner.rows[Table::Notes as usize];
        notes.iter().map(|(key, value)| (key.as_str(), value.as_slice()))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The writer ends when the queue has run dry and its last sender is gone: all that was handed in is
        // written before the file closes.
        let Way::File { jobs, writer } = &mut self.way else { return };
        drop(jobs.take());
        if let Some(writer) = writer.take()
            && writer.thread().id() != thread::current().id()
        {
            drop(writer.join());
        }
    }
}

/// What a database holds, if it is what was written; else nothing of it is kept open.
pub(crate) fn checked(
    name: &str,
    opened: Result<Database, DatabaseError>,
) -> Result<(Database, [Rows; Table::ALL.len()]), StoreError> {
    let mut database = opened.map_err(|e| open_error(name, &e))?;
    let corrupt = |why: String| StoreError::Corrupt { path: name.to_owned(), why };
    match database.check_integrity() {
        Ok(true) => {}
        Ok(false) => return Err(corrupt("its newest state does not match its checksums".to_owned())),
        Err(error) => return Err(corrupt(error.to_string())),
    }
    schema::prepare(name, &database)?;
    let read = |table| read_all(name, &database, table);
    let rows = [read(Table::Payee)?, read(Table::Payer)?, read(Table::Notes)?];
    Ok((database, rows))
}

/// Opens something of a file. redb panics on some damaged files, and on none that it wrote: the panic says no more than that.
pub(crate) fn guarded<T>(name: &str, open: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| {
        Err(StoreError::Corrupt { path: name.to_owned(), why: "its pages make no sense".to_owned() })
    })
}

pub(crate) fn open_error(name: &str, error: &DatabaseError) -> StoreError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::Locked { path: name.to_owned() },
        DatabaseError::Storage(StorageError::Corrupted(why)) => {
            StoreError::Corrupt { path: name.to_owned(), why: why.clone() }
        }
        // A file that ends too early, or begins with something else.
        DatabaseError::Storage(StorageError::Io(error))
            if matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            StoreError::Corrupt { path: name.to_owned(), why: error.to_string() }
        }
        other => StoreError::Open { path: name.to_owned(), why: other.to_string() },
    }
}

pub(crate) fn read_all(
    name: &str,
    database: &impl ReadableDatabase,
    table: Table,
) -> Result<Rows, StoreError> {
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
        if let Err(why) = &result {
            tracing::error!(%why, rows = batch.len(), "the account store cannot be written: is the disk full?");
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
