//! How an account is kept: its hash, and its cells with the code taken out, which all contracts of a kind share.

use std::collections::{HashMap, HashSet};

use redb::{ReadableTable as _, WriteTransaction};
use tycho_types::boc::{Boc, BocRepr};
use tycho_types::cell::{Cell, CellBuilder, HashBytes, Lazy};
use tycho_types::error::Error;
use tycho_types::models::{AccountState, OptionalAccount, ShardAccount, StdAddr};

use super::{ACCOUNTS, CODES, WORTH_A_THREAD, key, stored};
use crate::LedgerError;
use crate::parallel::in_parallel;

/// The first byte of a kept account: whole, or with a cell of its code's hash where the code was.
const WHOLE: u8 = 0;
const WITHOUT_CODE: u8 = 1;

pub(super) fn write(
    write: &WriteTransaction,
    accounts: &[(&StdAddr, &ShardAccount)],
) -> Result<(), LedgerError> {
    let mut table = write.open_table(ACCOUNTS).map_err(stored)?;
    let mut codes = write.open_table(CODES).map_err(stored)?;
    let mut seen = HashSet::new();
    let encode_part = |part: &[(_, &ShardAccount)]| part.iter().map(|(_, account)| encode(account)).collect();
    let encoded = in_parallel(accounts, WORTH_A_THREAD, encode_part);
    for ((address, _), encoded) in accounts.iter().zip(encoded) {
        let (bytes, code) = encoded.map_err(execution)?;
        table.insert(key(address), bytes.as_slice()).map_err(stored)?;
        if let Some(code) = code
            && seen.insert(*code.repr_hash())
            && codes.get(code.repr_hash().0).map_err(stored)?.is_none()
        {
            codes.insert(code.repr_hash().0, Boc::encode(&code).as_slice()).map_err(stored)?;
        }
    }
    Ok(())
}

/// The account's bytes, and the code that is not among them.
fn encode(account: &ShardAccount) -> Result<(Vec<u8>, Option<Cell>), Error> {
    let hash = *account.account.inner().repr_hash();
    let (short, code) = split(account)?;
    let mut bytes = vec![if code.is_some() { WITHOUT_CODE } else { WHOLE }];
    bytes.extend_from_slice(hash.as_slice());
    bytes.extend_from_slice(&BocRepr::encode(short.as_ref().unwrap_or(account))?);
    Ok((bytes, code))
}

/// The account with its code's hash instead of its code, if it has code.
fn split(account: &ShardAccount) -> Result<(Option<ShardAccount>, Option<Cell>), Error> {
    let Some(mut state) = account.load_account()? else { return Ok((None, None)) };
    let AccountState::Active(init) = &mut state.state else { return Ok((None, None)) };
    let Some(code) = init.code.take() else { return Ok((None, None)) };
    init.code = Some(CellBuilder::build_from(code.repr_hash())?);
    let short = ShardAccount { account: Lazy::new(&OptionalAccount(Some(state)))?, ..account.clone() };
    Ok((Some(short), Some(code)))
}

/// Reads what [`encode`] wrote; whatever comes out has the hash that was kept with it.
pub(super) fn decode(bytes: &[u8], codes: &HashMap<HashBytes, Cell>) -> Result<ShardAccount, &'static str> {
    let ([form, hash @ ..], bag) = bytes.split_first_chunk::<33>().ok_or("cut short")?;
    let mut account: ShardAccount = BocRepr::decode(bag).map_err(|_| "not a bag of cells with an account")?;
    match *form {
        WHOLE => {}
        WITHOUT_CODE => account.account = join(&account, codes)?,
        _ => return Err("of an unknown form"),
    }
    if account.account.inner().repr_hash().as_slice() == hash { Ok(account) } else { Err("not as it was") }
}

fn join(
    account: &ShardAccount,
    codes: &HashMap<HashBytes, Cell>,
) -> Result<Lazy<OptionalAccount>, &'static str> {
    let unreadable = |_: Error| "unreadable";
    let mut state = account.load_account().map_err(unreadable)?.ok_or("nothing, and yet with code")?;
    let AccountState::Active(init) = &mut state.state else { return Err("not active, and yet with code") };
    let stub = init.code.as_ref().ok_or("without a name for its code")?;
    let name = stub.parse::<HashBytes>().map_err(unreadable)?;
    init.code = Some(codes.get(&name).ok_or("its code is missing")?.clone());
    Lazy::new(&OptionalAccount(Some(state))).map_err(unreadable)
}

fn execution(error: Error) -> LedgerError {
    LedgerError::Execution { why: error.to_string() }
}
