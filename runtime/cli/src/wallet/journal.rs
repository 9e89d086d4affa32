//! The journal of `cocoon wallet send`: what is being paid is on the disk before a message leaves, so that a command that
//! was killed is finished or explained by the next one, and nobody is paid twice.
//!
//! It lies beside the key, `wallet.key.sending`, while a payment is not over. It holds addresses, amounts and signed
//! messages, and no secret.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use cocoon_chain::{Prepared, Sent};
use serde::{Deserialize, Serialize};

use super::recipients::Payment;
use crate::error::{Explain, Failure};

const FORMAT: u32 = 1;

/// One `wallet send`, as far as it has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Journal {
    format: u32,
    /// The paying wallet.
    pub(super) wallet: String,
    /// All that are to be paid, in order.
    pub(super) payments: Vec<Payment>,
    pub(super) comment: Option<String>,
    /// How many of them were paid, from the beginning.
    pub(super) paid: usize,
    /// The wallet's transactions in which they were.
    pub(super) transactions: Vec<Done>,
    /// A message that may have been sent, and whose fate is not known.
    pub(super) pending: Option<Pending>,
}

/// A transaction that happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Done {
    /// Its hash, in hex.
    pub(super) hash: String,
    /// How many payments were in it.
    pub(super) payments: usize,
    /// What it cost beside them, in nanotons.
    pub(super) fees: u64,
}

/// A [`Prepared`] message on the disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pending {
    /// How many payments are in it.
    payments: usize,
    message: String,
    body_hash: String,
    seqno: u32,
    valid_until: u32,
    after_lt: u64,
}

impl Pending {
    fn new(prepared: &Prepared, payments: usize) -> Self {
        Self {
            payments,
            message: BASE64_STANDARD.encode(&prepared.message),
            body_hash: hex::encode(prepared.body_hash),
            seqno: prepared.seqno,
            valid_until: prepared.valid_until,
            after_lt: prepared.after_lt,
        }
    }

    fn prepared(&self) -> Option<Prepared> {
        let mut body_hash = [0; 32];
        hex::decode_to_slice(&self.body_hash, &mut body_hash).ok()?;
        let message = BASE64_STANDARD.decode(&self.message).ok()?;
        let Self { seqno, valid_until, after_lt, .. } = *self;
        Some(Prepared { message, body_hash, seqno, valid_until, after_lt })
    }
}

impl Journal {
    /// Of a payment that begins.
    pub(super) fn new(wallet: String, payments: Vec<Payment>, comment: Option<String>) -> Self {
        Self { format: FORMAT, wallet, payments, comment, paid: 0, transactions: Vec::new(), pending: None }
    }

    /// Whether it is the same command: the same wallet pays the same amounts to the same accounts.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        (&self.wallet, &self.payments, &self.comment) == (&other.wallet, &other.payments, &other.comment)
    }

    /// Whether all of it was paid.
    pub(super) fn is_over(&self) -> bool {
        self.paid == self.payments.len()
    }

    /// All fees so far, in nanotons.
    pub(super) fn fees(&self) -> u64 {
        self.transactions.iter().map(|done| done.fees).fold(0, u64::saturating_add)
    }

    /// Before a message is sent.
    pub(super) fn sending(&mut self, prepared: &Prepared, payments: usize) {
        self.pending = Some(Pending::new(prepared, payments));
    }

    /// The message whose fate is open.
    pub(super) fn open_message(&self) -> Option<Prepared> {
        self.pending.as_ref().and_then(Pending::prepared)
    }

    /// The message was taken.
    pub(super) fn taken(&mut self, sent: &Sent) {
        if let Some(Pending { payments, .. }) = self.pending.take() {
            self.paid += payments;
            self.transactions.push(Done { hash: hex::encode(sent.transaction), payments, fees: sent.fees });
        }
    }

    /// The message will never happen.
    pub(super) fn never(&mut self) {
        self.pending = None;
    }

    fn is_sound(&self) -> bool {
        let pending = self.pending.as_ref().map_or(0, |pending| pending.payments);
        self.format == FORMAT
            && self.paid.checked_add(pending).is_some_and(|sum| sum <= self.payments.len())
            && self.payments.iter().all(|payment| payment.to.parse::<cocoon_contracts::Address>().is_ok())
            && self.pending.as_ref().is_none_or(|pending| pending.prepared().is_some())
    }
}

/// The journal's place, held by one process at a time.
pub(super) struct Desk {
    path: PathBuf,
    /// Dropping it lets the next one in.
    _lock: File,
}

impl Desk {
    /// Takes the place beside a key.
    pub(super) fn take(key: &Path) -> Result<Self, Failure> {
        let beside = |ending: &str| {
            let mut name = key.as_os_str().to_owned();
            name.push(ending);
            PathBuf::from(name)
        };
        let lock_path = beside(".lock");
        let failed = || format!("cannot lock {}", lock_path.display());
        let lock = OpenOptions::new().create(true).append(true).mode(0o600).open(&lock_path);
        let lock = lock.explain(failed, "check the folder's owner and the disk")?;
        rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            Failure::new("another `cocoon wallet send` pays from this wallet", "wait until it has ended")
        })?;
        Ok(Self { path: beside(".sending"), _lock: lock })
    }

    /// The journal of a command that did not come to its end.
    pub(super) fn read(&self) -> Result<Option<Journal>, Failure> {
        let bytes = match std::fs::read(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            read => read.explain(
                || format!("cannot read the journal {}", self.path.display()),
                "check the file's owner",
            )?,
        };
        let journal = serde_json::from_slice::<Journal>(&bytes).ok().filter(Journal::is_sound);
        journal.map(Some).ok_or_else(|| {
            Failure::new(
                format!("{} is not the journal of a payment", self.path.display()),
                "look at the wallet's last transactions; move the file away once you know what was paid",
            )
        })
    }

    /// Writes it whole or not at all; it is on the disk when this returns.
    pub(super) fn write(&self, journal: &Journal) -> Result<(), Failure> {
        let staging = self.path.with_extension("sending.new");
        let bytes = serde_json::to_vec(journal).expect("plain data encodes");
        let write = || -> std::io::Result<()> {
            let mut options = OpenOptions::new();
            let mut file = options.create(true).truncate(true).write(true).mode(0o600).open(&staging)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            std::fs::rename(&staging, &self.path)?;
            self.sync_folder()
        };
        write().explain(
            || format!("cannot write the journal {}", self.path.display()),
            "check the disk; say the same command again to go on",
        )
    }

    /// Nothing is open any more.
    pub(super) fn clear(&self) -> Result<(), Failure> {
        std::fs::remove_file(&self.path).and_then(|()| self.sync_folder()).explain(
            || format!("cannot remove the journal {}", self.path.display()),
            "the payment is over: remove the file yourself",
        )
    }

    fn sync_folder(&self) -> std::io::Result<()> {
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> Journal {
        let payment = |amount| Payment { to: format!("0:{}", "5".repeat(64)), amount, bounce: None };
        Journal::new("0:1".into(), vec![payment(1), payment(2), payment(3)], None)
    }

    fn prepared() -> Prepared {
        Prepared { message: vec![1, 2, 3], body_hash: [4; 32], seqno: 5, valid_until: 6, after_lt: 7 }
    }

    #[test]
    fn a_journal_survives_the_disk_with_its_open_message() {
        let folder = tempfile::tempdir().expect("a folder");
        let desk = Desk::take(&folder.path().join("wallet.key")).expect("it is free");
        assert_eq!(desk.read().expect("none"), None);
        let mut journal = journal();
        journal.sending(&prepared(), 2);
        desk.write(&journal).expect("it is written");
        let mut read = desk.read().expect("it is read").expect("it is there");
        assert_eq!(read, journal);
        assert_eq!(read.open_message(), Some(prepared()));
        read.taken(&Sent { transaction: [9; 32], lt: 1, fees: 10 });
        assert_eq!((read.paid, read.fees(), read.is_over()), (2, 10, false));
        desk.clear().expect("it is removed");
        assert_eq!(desk.read().expect("none"), None);
    }

    #[test]
    fn one_process_pays_at_a_time() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("wallet.key");
        let first = Desk::take(&key).expect("it is free");
        assert!(Desk::take(&key).is_err());
        drop(first);
        assert!(Desk::take(&key).is_ok());
    }

    #[test]
    fn a_damaged_journal_stops_everything_and_stays() {
        let folder = tempfile::tempdir().expect("a folder");
        let key = folder.path().join("wallet.key");
        let desk = Desk::take(&key).expect("it is free");
        let mut whole = journal();
        whole.sending(&prepared(), 2);
        let bytes = serde_json::to_vec(&whole).expect("plain data");
        let path = folder.path().join("wallet.key.sending");
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).expect("it is ours");
            assert!(desk.read().is_err(), "{length} bytes");
        }
        let mut too_many = whole.clone();
        too_many.paid = 2;
        std::fs::write(&path, serde_json::to_vec(&too_many).expect("plain data")).expect("it is ours");
        assert!(desk.read().is_err());
        assert!(path.exists());
    }
}
