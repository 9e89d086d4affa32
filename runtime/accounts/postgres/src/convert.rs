//! Between the database's words and ours. It holds amounts as 64-bit integers with a sign: more than all coins there
//! are does not fit, and is refused.

use std::time::Duration;

use cocoon_accounts::{Account, AccountState, StoreError, decode_terms};
use cocoon_contracts::{Address, Nanotons, SignedVoucher, parse_address};
use tokio_postgres::{Error, Row, error::SqlState};

/// What a failed statement means.
pub(crate) fn failed(error: Error) -> StoreError {
    let Some(database) = error.as_db_error() else {
        // The connection: refused, broken, closed.
        let source =
            std::error::Error::source(&error).map_or_else(String::new, |source| format!(": {source}"));
        return StoreError::Unreachable { why: format!("{error}{source}") };
    };
    let passing = [
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::ADMIN_SHUTDOWN,
        SqlState::CRASH_SHUTDOWN,
        SqlState::CANNOT_CONNECT_NOW,
        SqlState::TOO_MANY_CONNECTIONS,
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::QUERY_CANCELED,
        SqlState::IDLE_IN_TRANSACTION_SESSION_TIMEOUT,
    ];
    let why = format!("{} ({})", database.message(), database.code().code());
    if passing.contains(database.code()) {
        return StoreError::Unreachable { why };
    }
    if database.constraint() == Some("cocoon_lease") {
        return StoreError::Lapsed;
    }
    StoreError::Write { why }
}

/// An amount for the database.
pub(crate) fn amount(nanotons: Nanotons) -> Result<i64, StoreError> {
    let too_much = |_| StoreError::Write { why: format!("{nanotons} nanotons are more than there are") };
    i64::try_from(nanotons).map_err(too_much)
}

/// An amount from the database, whose checks keep it from being negative.
pub(crate) fn nanotons(row: &Row, column: &str) -> Result<Nanotons, StoreError> {
    let found: i64 = row.try_get(column).map_err(failed)?;
    Nanotons::try_from(found).map_err(|_| damaged(row, format!("{column} is {found}")))
}

fn damaged(row: &Row, why: impl ToString) -> StoreError {
    let key = row.try_get("address").unwrap_or_default();
    StoreError::Damaged { key, why: why.to_string() }
}

/// What the shares of a channel add up to.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shares {
    pub(crate) charged: Nanotons,
    pub(crate) reserved: Nanotons,
    pub(crate) drawn: Nanotons,
    pub(crate) streams: usize,
}

impl Shares {
    pub(crate) fn read(row: &Row) -> Result<Self, StoreError> {
        let streams = nanotons(row, "streams")?;
        Ok(Self {
            charged: nanotons(row, "charged")?,
            reserved: nanotons(row, "reserved")?,
            drawn: nanotons(row, "drawn")?,
            streams: usize::try_from(streams).map_err(|e| damaged(row, e))?,
        })
    }

    /// Adds a share to an account.
    pub(crate) fn add_to(self, state: &mut AccountState) {
        state.owed += self.charged;
        state.reserved += self.reserved;
        state.drawn += self.drawn;
        state.streams += self.streams;
    }
}

/// A channel's row without any share, and its life.
pub(crate) fn account(row: &Row) -> Result<(Account, i64), StoreError> {
    let text: String = row.try_get("address").map_err(failed)?;
    let address = parse_address(&text).map_err(|e| damaged(row, e))?;
    let terms = decode_terms(row.try_get("terms").map_err(failed)?).map_err(|e| damaged(row, e))?;
    let deadline: Option<i64> = row.try_get("deadline").map_err(failed)?;
    let state = AccountState {
        deposit: nanotons(row, "deposit")?,
        paid: nanotons(row, "paid")?,
        voucher: voucher(row)?,
        owed: nanotons(row, "owed")?,
        cut: row.try_get("cut").map_err(failed)?,
        closing: row.try_get("closing").map_err(failed)?,
        deadline: deadline.map(u32::try_from).transpose().map_err(|e| damaged(row, e))?,
        ..AccountState::default()
    };
    let (looked, used) = (ago(row, "looked")?, ago(row, "used")?);
    Ok((Account { address, terms, state, looked, used }, row.try_get("life").map_err(failed)?))
}

fn voucher(row: &Row) -> Result<Option<SignedVoucher>, StoreError> {
    let bytes: Option<&[u8]> = row.try_get("voucher").map_err(failed)?;
    bytes.map(SignedVoucher::decode).transpose().map_err(|e| damaged(row, e))
}

/// A clock that was set back makes a look of the future; it counts as one of now.
fn ago(row: &Row, column: &str) -> Result<Option<Duration>, StoreError> {
    let seconds: Option<f64> = row.try_get(column).map_err(failed)?;
    Ok(seconds.map(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX)))
}

/// A channel's key.
pub(crate) fn key(channel: &Address) -> String {
    channel.to_string()
}
