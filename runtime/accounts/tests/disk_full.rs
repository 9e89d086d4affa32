//! A disk that is full: a clear error, nothing acknowledged, nothing lost, and work that goes on when there is room.

mod common;

use std::{
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use cocoon_accounts::{PayError, PayerBook, Store, StoreError, VoucherError};
use common::{book, facts, key, voucher};
use redb::{Builder, StorageBackend};

/// A disk in memory that can be told to be full. Its bytes outlive the database, as a file's do.
#[derive(Clone, Debug, Default)]
struct Disk {
    bytes: Arc<Mutex<Vec<u8>>>,
    full: Arc<AtomicBool>,
}

impl Disk {
    fn room(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn store(&self) -> Store {
        let disk = self.clone();
        Store::open_with("disk", move || Builder::new().create_with_backend(disk.clone()))
            .expect("there is room when the store is opened")
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.bytes.lock().expect("no test panics in here").len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let bytes = self.bytes.lock().expect("no test panics in here");
        let start = usize::try_from(offset).expect("a small disk");
        out.copy_from_slice(bytes.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.room()?;
        self.bytes.lock().expect("no test panics in here").resize(usize::try_from(len).expect("small"), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.room()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.room()?;
        let start = usize::try_from(offset).expect("a small disk");
        let mut bytes = self.bytes.lock().expect("no test panics in here");
        bytes.get_mut(start..start + data.len()).ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }
}

#[tokio::test]
async fn a_full_disk_acknowledges_no_voucher_loses_none_and_goes_on_when_it_has_room() {
    let disk = Disk::default();
    let facts = facts(1, 10_000);
    {
        let book = book(&disk.store());
        book.announce(facts.clone()).await.expect("there is room");
        book.accept_voucher(&facts.address, voucher(&facts, 100)).await.expect("there is room");

        disk.full.store(true, Ordering::SeqCst);
        for _ in 0..3 {
            let refused = book.accept_voucher(&facts.address, voucher(&facts, 200)).await;
            assert!(matches!(refused, Err(VoucherError::Store(StoreError::Write { .. }))), "{refused:?}");
        }
        let status =
            book.status(&facts.address).await.expect("the store answers").expect("the channel is known");
        assert_eq!(status.voucher, 100, "memory does not run ahead of the disk");

        disk.full.store(false, Ordering::SeqCst);
        book.accept_voucher(&facts.address, voucher(&facts, 300)).await.expect("there is room again");
    }
    let status = book(&disk.store())
        .status(&facts.address)
        .await
        .expect("the store answers")
        .expect("the channel is known");
    assert_eq!(status.voucher, 300);
}

#[tokio::test]
async fn on_a_full_disk_no_voucher_is_signed_away() {
    let disk = Disk::default();
    let facts = facts(1, 10_000);
    let book = PayerBook::open(disk.store()).expect("a fresh store");
    book.open_channel(&facts.address, &facts.terms, 10_000).await.expect("there is room");
    book.owe(&facts.address, 500).expect("within the deposit");
    disk.full.store(true, Ordering::SeqCst);
    let refused = book.sign_owed(&facts.address, &key()).await;
    assert!(matches!(refused, Err(PayError::Store(StoreError::Write { .. }))), "{refused:?}");
    assert_eq!(book.state(&facts.address).map(|s| s.signed), Some(0));
    disk.full.store(false, Ordering::SeqCst);
    let signed = book.sign_owed(&facts.address, &key()).await.expect("there is room again");
    assert_eq!(signed.map(|s| s.voucher.cumulative), Some(500));
}
