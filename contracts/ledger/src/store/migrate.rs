//! From older layouts of the tables to today's, in one transaction: the file is as it was, or as it should be.

use redb::{Database, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use tycho_types::boc::{Boc, BocRepr};
use tycho_types::cell::Cell;
use tycho_types::models::Transaction;

use super::{
    ACCOUNTS, BLOCKS, META, QUEUE, SCHEMA, account, address, broken, stored, write_externals, write_log,
    write_queue,
};
use crate::LedgerError;
use crate::block::Block;
use crate::execute::normalised_hash;

/// The oldest layout that is understood.
pub(super) const OLDEST: u32 = 1;
/// Schema 1 kept accounts as whole bags of cells, blocks without their hashes, and transactions by account and logical
/// time.
pub(super) const OLD_TRANSACTIONS: TableDefinition<'_, ([u8; 33], u64), &[u8]> =
    TableDefinition::new("transactions");

/// Brings a file of schema 1 up to date.
pub(super) fn up(database: &Database, network: i32) -> Result<(), LedgerError> {
    let read = database.begin_read().map_err(stored)?;
    let mut accounts = Vec::new();
    for entry in read.open_table(ACCOUNTS).map_err(stored)?.iter().map_err(stored)? {
        let (key, value) = entry.map_err(stored)?;
        let account = BocRepr::decode(value.value()).map_err(|_| broken("an account"))?;
        accounts.push((address(&key.value()), account));
    }
    let mut transactions = Vec::new();
    for entry in read.open_table(OLD_TRANSACTIONS).map_err(stored)?.iter().map_err(stored)? {
        let (key, value) = entry.map_err(stored)?;
        let (account, lt) = key.value();
        transactions.push((
            address(&account),
            lt,
            Boc::decode(value.value()).map_err(|_| broken("a transaction"))?,
        ));
    }
    transactions.sort_unstable_by_key(|(_, lt, _)| *lt);
    let mut blocks = Vec::new();
    for entry in read.open_table(BLOCKS).map_err(stored)?.iter().map_err(stored)? {
        let (_, value) = entry.map_err(stored)?;
        blocks.push(Block::decode(value.value(), network).ok_or(broken("a block"))?);
    }
    let mut queue = Vec::new();
    for entry in read.open_table(QUEUE).map_err(stored)?.iter().map_err(stored)? {
        let (_, value) = entry.map_err(stored)?;
        queue.push(Boc::decode(value.value()).map_err(|_| broken("a message on its way"))?);
    }
    drop(read);

    let externals: Vec<_> = transactions.iter().flat_map(|(_, lt, cell)| names(cell, *lt)).collect();

    let write = database.begin_write().map_err(stored)?;
    write_externals(&write, &externals)?;
    write_queue(&write, &queue.iter().collect::<Vec<_>>())?;
    write.delete_table(OLD_TRANSACTIONS).map_err(stored)?;
    account::write(
        &write,
        &accounts.iter().map(|(address, account)| (address, account)).collect::<Vec<_>>(),
    )?;
    write_log(
        &write,
        &transactions.iter().map(|(address, lt, cell)| (address, *lt, cell)).collect::<Vec<_>>(),
    )?;
    let mut table = write.open_table(BLOCKS).map_err(stored)?;
    for block in &blocks {
        table.insert(block.seqno, block.stored().as_slice()).map_err(stored)?;
    }
    drop(table);
    let mut meta = write.open_table(META).map_err(stored)?;
    meta.insert("schema", SCHEMA.to_be_bytes().as_slice()).map_err(stored)?;
    drop(meta);
    write.commit().map_err(stored)
}

/// The hashes by which a transaction's message from outside may be asked for.
fn names(transaction: &Cell, lt: u64) -> Vec<([u8; 32], u64)> {
    let message = transaction.parse::<Transaction>().ok().and_then(|transaction| transaction.in_msg);
    let normalised = message.as_ref().and_then(|message| Some((message, normalised_hash(message)?)));
    normalised.map_or_else(Vec::new, |(message, hash)| vec![(message.repr_hash().0, lt), (hash, lt)])
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use cocoon_contracts::wallet::{self, Transfer};
    use cocoon_contracts::{SigningKey, TON, message};

    use super::*;
    use crate::store::{CODES, EXTERNALS, HISTORY, LOG, Store, entry_of_log, key};
    use crate::{Genesis, GenesisAccount, Ledger, LedgerError, STORAGE_2026_SINCE, Schedule};

    const NETWORK: i32 = -217;
    const START: u32 = STORAGE_2026_SINCE + 1;

    fn settings() -> Genesis {
        let public = SigningKey::from_seed(&[1; 32]).public();
        let account = GenesisAccount {
            address: wallet::address(&public),
            balance: 10 * TON,
            state_init: Some(wallet::state_init(&public)),
        };
        Genesis { network: NETWORK, schedule: Schedule::Mainnet2026, time: START, accounts: vec![account] }
    }

    fn write(file: &Path) -> [u8; 32] {
        let mut ledger = Ledger::open(file, &settings()).expect("a new ledger");
        let to = message::basechain([9; 32]);
        let pay = Transfer { to, amount: TON, bounce: false, body: None, state_init: None };
        let key = SigningKey::from_seed(&[1; 32]);
        let message = wallet::external_message(&key, 0, START + 60, true, &[pay]).expect("a message");
        ledger.submit(&message::encode(&message)).expect("accepted");
        ledger.produce_block(START + 1).expect("a block");
        message.repr_hash().0
    }

    fn all(file: &Path, message: &[u8; 32]) -> String {
        let ledger = Ledger::open(file, &settings()).expect("it opens");
        let accounts: Vec<_> =
            ledger.accounts().map(|(address, account)| (address.clone(), account.clone())).collect();
        let histories: Vec<_> =
            accounts.iter().map(|(address, _)| ledger.history(address, 100).expect("its history")).collect();
        let block = ledger.block_transactions(&ledger.head(), 0, 100).expect("its transactions");
        let found = ledger.transaction_of(message).expect("the index").expect("the message's transaction");
        format!("{:?} {:?} {accounts:?} {histories:?} {block:?} {found:?}", ledger.head(), ledger.supply())
    }

    /// The tables as schema 1 had them.
    fn down(file: &Path, settings: &Genesis) {
        let store = Store::open(file, NETWORK).expect("it opens").expect("it is there");
        let loaded = store.load(&settings.digest().expect("a digest")).expect("it loads").expect("a ledger");
        let read = store.database.begin_read().expect("read");
        let log = read.open_table(LOG).expect("the log");
        let entries = log.iter().expect("the log").map(|entry| entry.expect("an entry"));
        let entries: Vec<_> =
            entries.map(|(lt, value)| (lt.value(), entry_of_log(value.value()).expect("whole"))).collect();
        drop((log, read));
        let write = store.database.begin_write().expect("write");
        let mut accounts = write.open_table(ACCOUNTS).expect("accounts");
        for (address, account) in &loaded.accounts {
            let bag = BocRepr::encode(account).expect("a bag");
            accounts.insert(key(address), bag.as_slice()).expect("written");
        }
        drop(accounts);
        let mut old = write.open_table(OLD_TRANSACTIONS).expect("transactions");
        for (lt, (address, cell)) in &entries {
            old.insert((key(address), *lt), Boc::encode(cell).as_slice()).expect("written");
        }
        drop(old);
        let mut blocks = write.open_table(BLOCKS).expect("blocks");
        for seqno in 1..=loaded.head.seqno {
            let whole = blocks.get(seqno).expect("read").expect("it is there").value().to_vec();
            blocks.insert(seqno, &whole[..whole.len() - 32]).expect("written");
        }
        drop(blocks);
        write.delete_table(CODES).expect("deleted");
        write.delete_table(LOG).expect("deleted");
        write.delete_table(HISTORY).expect("deleted");
        write.delete_table(EXTERNALS).expect("deleted");
        let mut meta = write.open_table(META).expect("meta");
        meta.insert("schema", 1u32.to_be_bytes().as_slice()).expect("written");
        meta.remove("network").expect("removed");
        drop(meta);
        write.commit().expect("committed");
    }

    #[test]
    fn a_file_of_schema_1_is_brought_up_to_date_and_says_the_same() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("ledger.redb");
        let message = write(&file);
        let before = all(&file, &message);
        down(&file, &settings());
        assert_eq!(Ledger::network_of(&file), Ok(None), "it did not say");
        assert_eq!(all(&file, &message), before);
        assert_eq!(all(&file, &message), before, "and again, without another step");
    }

    #[test]
    fn an_old_file_of_another_beginning_is_not_touched() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("ledger.redb");
        write(&file);
        down(&file, &settings());
        let other = Genesis { network: NETWORK - 1, ..settings() };
        assert!(matches!(Ledger::open(&file, &other), Err(LedgerError::AnotherGenesis)));
        let store = Store::open(&file, NETWORK).expect("it opens").expect("it is there");
        assert_eq!(store.field("schema").expect("meta"), Some(1u32.to_be_bytes().to_vec()));
    }
}
