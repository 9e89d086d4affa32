//! A disk that fails at every single operation in turn, and a power cut at each: the ledger is as of a whole block.

use std::io;
use std::sync::{Arc, Mutex};

use cocoon_contracts::wallet::{self, Transfer};
use cocoon_contracts::{Address, SigningKey, TON, message};
use redb::StorageBackend;

use crate::store::Store;
use crate::{Genesis, GenesisAccount, Ledger, LedgerError, STORAGE_2026_SINCE, Schedule};

const NETWORK: i32 = -217;
const START: u32 = STORAGE_2026_SINCE + 1;

#[derive(Debug, Clone, Default)]
struct Content {
    /// What the process sees.
    seen: Vec<u8>,
    /// What survives a power cut.
    durable: Vec<u8>,
    /// How many more operations succeed; `None`: all.
    left: Option<usize>,
}

impl Content {
    fn spend(&mut self) -> io::Result<()> {
        match &mut self.left {
            Some(0) => Err(io::Error::from(io::ErrorKind::StorageFull)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

#[derive(Debug, Clone, Default)]
struct Disk(Arc<Mutex<Content>>);

impl Disk {
    fn holding(bytes: Vec<u8>, left: Option<usize>) -> Self {
        Self(Arc::new(Mutex::new(Content { seen: bytes.clone(), durable: bytes, left })))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Content) -> T) -> T {
        act(&mut self.0.lock().expect("no test panics while it holds the disk"))
    }
}

fn range(offset: u64, length: usize) -> std::ops::Range<usize> {
    let offset = usize::try_from(offset).expect("test disks are small");
    offset..offset + length
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.with(|disk| disk.seen.len() as u64))
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.with(|disk| out.copy_from_slice(&disk.seen[range(offset, out.len())]));
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|disk| {
            disk.spend()?;
            disk.seen.resize(usize::try_from(len).expect("test disks are small"), 0);
            Ok(())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        self.with(|disk| {
            disk.spend()?;
            disk.durable = disk.seen.clone();
            Ok(())
        })
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.with(|disk| {
            disk.spend()?;
            disk.seen[range(offset, data.len())].copy_from_slice(data);
            Ok(())
        })
    }
}

fn payer() -> SigningKey {
    SigningKey::from_seed(&[1; 32])
}

fn payer_address() -> Address {
    wallet::address(&payer().public())
}

fn payee() -> Address {
    message::basechain([9; 32])
}

fn genesis() -> Genesis {
    let account = GenesisAccount {
        address: payer_address(),
        balance: TON,
        state_init: Some(wallet::state_init(&payer().public())),
    };
    Genesis { network: NETWORK, schedule: Schedule::Mainnet2026, time: START, accounts: vec![account] }
}

fn open(disk: Disk) -> Result<Ledger, LedgerError> {
    Ledger::on(Store::on(disk, NETWORK)?, &genesis())
}

/// Hands in the wallet's first payment.
fn pay(ledger: &mut Ledger) {
    let transfer = Transfer { to: payee(), amount: 1000, bounce: false, body: None, state_init: None };
    let message = wallet::external_message(&payer(), 0, START + 60, false, &[transfer]).expect("a message");
    ledger.submit(&message::encode(&message)).expect("accepted");
}

#[test]
fn a_disk_that_fails_at_any_operation_costs_at_most_the_block_that_was_being_written() {
    let begun = Disk::default();
    let before = {
        let mut ledger = open(begun.clone()).expect("a new ledger");
        ledger.produce_block(START).expect("a block");
        (ledger.head(), ledger.supply().total())
    };
    let image = begun.with(|disk| disk.durable.clone());

    let mut failures = 0;
    for operations in 0.. {
        let disk = Disk::holding(image.clone(), None);
        let mut ledger = open(disk.clone()).expect("it opens");
        pay(&mut ledger);
        disk.with(|disk| disk.left = Some(operations));
        let outcome = ledger.produce_block(START + 1);
        // In the process nothing half-done shows.
        match &outcome {
            Ok(block) => assert_eq!(ledger.head(), *block),
            Err(LedgerError::Store { .. }) => {
                assert_eq!(ledger.head(), before.0);
                assert!(ledger.has_work(), "the message still waits");
            }
            Err(other) => panic!("{other}"),
        }
        assert_eq!(ledger.supply().total(), before.1);
        // Cut the power: whether the unsynced writes survived or not, a whole block is there.
        let (seen, durable) = disk.with(|disk| (disk.seen.clone(), disk.durable.clone()));
        drop(ledger);
        for bytes in [seen, durable] {
            let ledger = open(Disk::holding(bytes, None)).expect("it opens after the cut");
            assert_eq!(ledger.supply().total(), before.1, "nanotons are conserved");
            let head = ledger.head();
            assert!(head == before.0 || head.previous == before.0.root_hash);
            let paid = ledger.balance(&payee()) == 1000;
            assert_eq!(paid, head.seqno == before.0.seqno + 1, "the payment is there with its block");
            if let Ok(block) = &outcome {
                assert_eq!(head, *block, "an acknowledged block is never lost");
            }
        }
        match outcome {
            Ok(_) => break,
            Err(_) => failures += 1,
        }
    }
    println!("failed at each of {failures} operations of one block");
    assert!(failures > 3);
}
