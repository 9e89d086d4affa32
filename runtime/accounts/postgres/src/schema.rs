//! The tables, their schema number, and the statements that every connection prepares.

use cocoon_accounts::StoreError;
use tokio_postgres::{Client, Statement};

use crate::convert::failed;

/// The schema of the tables that this build reads and writes. A database of a newer one is refused.
pub const SCHEMA: i32 = 1;

/// Taken while tables are made: of gateways that start at once, one makes them.
const SCHEMA_LOCK: i64 = 0x636f_636f_6f6e_0001;

/// Step `n` makes schema `n + 1` of schema `n`.
const STEPS: &[&str] = &["
CREATE TABLE cocoon_channels (
    address  text PRIMARY KEY,
    -- Another one each time that the channel enters: shares of an earlier life count no more.
    life     bigint GENERATED ALWAYS AS IDENTITY,
    terms    bytea NOT NULL,
    deposit  bigint NOT NULL CHECK (deposit >= 0),
    paid     bigint NOT NULL CHECK (paid >= 0),
    voucher  bytea,
    covered  bigint NOT NULL DEFAULT 0 CHECK (covered BETWEEN 0 AND deposit),
    -- Charged by processes that are gone.
    owed     bigint NOT NULL CHECK (owed >= 0),
    cut      boolean NOT NULL DEFAULT false,
    closing  boolean NOT NULL,
    deadline bigint,
    looked   timestamptz NOT NULL,
    used     timestamptz
);
CREATE TABLE cocoon_processes (
    id          bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    lease_until timestamptz NOT NULL
);
CREATE TABLE cocoon_shares (
    channel  text NOT NULL REFERENCES cocoon_channels ON DELETE CASCADE,
    process  bigint NOT NULL CONSTRAINT cocoon_lease REFERENCES cocoon_processes,
    charged  bigint NOT NULL CHECK (charged >= 0),
    allowed  bigint NOT NULL CHECK (allowed >= charged),
    reserved bigint NOT NULL CHECK (reserved >= allowed - charged),
    streams  integer NOT NULL CHECK (streams >= 0),
    PRIMARY KEY (channel, process)
);
CREATE INDEX ON cocoon_shares (process);
"];

/// Makes the tables, or brings older ones to [`SCHEMA`], all in one transaction.
pub(crate) async fn prepare(client: &mut Client, name: &str) -> Result<(), StoreError> {
    let transaction = client.transaction().await.map_err(failed)?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&SCHEMA_LOCK]).await.map_err(failed)?;
    let meta = "CREATE TABLE IF NOT EXISTS cocoon_meta (single boolean PRIMARY KEY DEFAULT true CHECK (single), schema integer NOT NULL)";
    transaction.batch_execute(meta).await.map_err(failed)?;
    let found = transaction.query_opt("SELECT schema FROM cocoon_meta", &[]).await.map_err(failed)?;
    let found: i32 = found.map_or(0, |row| row.get(0));
    let Some(steps) = usize::try_from(found).ok().and_then(|found| STEPS.get(found..)) else {
        return Err(StoreError::Schema { path: name.to_owned(), found: found.unsigned_abs() });
    };
    for step in steps {
        transaction.batch_execute(step).await.map_err(failed)?;
    }
    let number =
        "INSERT INTO cocoon_meta (schema) VALUES ($1) ON CONFLICT (single) DO UPDATE SET schema = $1";
    transaction.execute(number, &[&SCHEMA]).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

/// A channel's own columns, and how long ago it was looked at and used, in seconds.
macro_rules! channel {
    () => {
        "c.address, c.life, c.terms, c.deposit, c.paid, c.voucher, c.owed, c.cut, c.closing, c.deadline, \
         extract(epoch FROM clock_timestamp() - c.looked)::float8 AS looked, \
         extract(epoch FROM clock_timestamp() - c.used)::float8 AS used"
    };
}

/// What the shares of other processes ($2 is ours) add up to.
macro_rules! others {
    () => {
        "SELECT coalesce(sum(charged), 0)::bigint AS charged, coalesce(sum(reserved), 0)::bigint AS reserved, \
         coalesce(sum(allowed - charged), 0)::bigint AS drawn, coalesce(sum(streams), 0)::bigint AS streams \
         FROM cocoon_shares WHERE process <> $2 AND channel = "
    };
}

/// Whether what the chain says ($3 deposit, $4 paid, $8 rent) follows from what is known: `AccountState::learn`'s rule.
macro_rules! follows {
    () => {
        "($4 >= c.paid AND $3 + $8 >= c.deposit)"
    };
}

macro_rules! statements {
    ($($(#[$doc:meta])* $name:ident: $text:expr;)*) => {
        /// What every connection has prepared.
        pub(crate) struct Statements {
            $($(#[$doc])* pub(crate) $name: Statement,)*
        }

        impl Statements {
            pub(crate) async fn prepare(client: &Client) -> Result<Self, tokio_postgres::Error> {
                Ok(Self { $($name: client.prepare($text).await?,)* })
            }
        }
    };
}

statements! {
    /// $1 channel: locks it.
    lock: concat!("SELECT ", channel!(), " FROM cocoon_channels c WHERE c.address = $1 FOR UPDATE");
    /// $1 channel, $2 process. After the lock, in a statement of its own: it sees what was committed until then.
    others: concat!(others!(), "$1");
    /// $1 channel, $2 process.
    read: concat!("SELECT ", channel!(), ", s.charged, s.reserved, s.drawn, s.streams FROM cocoon_channels c, LATERAL (",
        others!(), "c.address) s WHERE c.address = $1");
    /// $1 how many at most, $2 process.
    read_all: concat!("SELECT ", channel!(), ", s.charged, s.reserved, s.drawn, s.streams FROM cocoon_channels c, LATERAL (",
        others!(), "c.address) s LIMIT $1");
    /// $1 channel, $2 life, $3 process, $4 charged, $5 allowed, $6 reserved, $7 streams. No row: another life.
    share: "INSERT INTO cocoon_shares AS s (channel, process, charged, allowed, reserved, streams) \
        SELECT address, $3, $4, $5, $6, $7 FROM cocoon_channels WHERE address = $1 AND life = $2 \
        ON CONFLICT (channel, process) DO UPDATE SET charged = $4, allowed = $5, reserved = $6, streams = $7";
    /// $1 channel.
    notify: "SELECT pg_notify('cocoon_accounts', $1)";
    /// $1 channel.
    work: "UPDATE cocoon_channels SET cut = false, used = clock_timestamp() WHERE address = $1";
    /// $1 channel.
    cut: "UPDATE cocoon_channels SET cut = true WHERE address = $1";
    /// $1 channel, $2 voucher, $3 its amount.
    take: "UPDATE cocoon_channels SET voucher = $2, covered = $3 WHERE address = $1";
    /// $1 channel, $2 terms, $3 deposit, $4 paid, $5 closing, $6 deadline, $7 how many channels there may be, $8 rent. The
    /// rules of `AccountState::learn`.
    learn: concat!("INSERT INTO cocoon_channels AS c (address, terms, deposit, paid, owed, closing, deadline, looked) \
        SELECT $1, $2, $3, $4, $4, $5, $6, clock_timestamp() \
        WHERE EXISTS (SELECT 1 FROM cocoon_channels WHERE address = $1) OR (SELECT count(*) FROM cocoon_channels) < $7 \
        ON CONFLICT (address) DO UPDATE SET \
        deposit = CASE WHEN ", follows!(), " THEN greatest(c.deposit, $3) ELSE c.deposit END, \
        paid = CASE WHEN ", follows!(), " THEN greatest(c.paid, $4) ELSE c.paid END, \
        closing = CASE WHEN ", follows!(), " OR $5 THEN $5 ELSE c.closing END, \
        deadline = CASE WHEN ", follows!(), " OR $5 THEN $6 ELSE c.deadline END, \
        looked = CASE WHEN ", follows!(), " THEN clock_timestamp() ELSE 'epoch' END");
    /// $1 channel, $2 paid.
    paid: "UPDATE cocoon_channels SET paid = greatest(paid, $2) WHERE address = $1";
    /// $1 channel.
    close: "UPDATE cocoon_channels SET closing = true WHERE address = $1";
    /// $1 channel, locked before; $2 also with a voucher that was not settled in time.
    forget: "DELETE FROM cocoon_channels WHERE address = $1 AND (covered <= paid OR $2) AND NOT EXISTS \
        (SELECT 1 FROM cocoon_shares WHERE channel = $1 AND streams > 0)";
    /// $1 seconds.
    begin: "INSERT INTO cocoon_processes (lease_until) VALUES (clock_timestamp() + $1 * interval '1 second') RETURNING id";
    /// $1 process, $2 seconds. No row: it had ended.
    renew: "UPDATE cocoon_processes SET lease_until = clock_timestamp() + $2 * interval '1 second' WHERE id = $1";
    /// Ends the leases whose time is over, and $1's own: what was charged stays owed, the rest is free. Returns the channels.
    reap: "WITH dead AS (DELETE FROM cocoon_processes WHERE lease_until < clock_timestamp() OR id = $1 RETURNING id), \
        gone AS (DELETE FROM cocoon_shares s USING dead WHERE s.process = dead.id RETURNING s.channel, s.charged), \
        sums AS (SELECT channel, sum(charged)::bigint AS charged FROM gone GROUP BY channel) \
        UPDATE cocoon_channels c SET owed = c.owed + sums.charged FROM sums WHERE c.address = sums.channel RETURNING c.address";
}
