//! A payee's accounts in PostgreSQL, for several gateways of one wallet: every one of them serves the same channels.
//!
//! ```text
//!  gateway A ── share: charged, allowed, reserved ──┐
//!  gateway B ── share ──────────────────────────────┼── channel: deposit, paid, voucher, owed of those who are gone
//!  gateway C (died) ── share, until its lease ends ─┘
//! ```
//!
//! **One row for each channel, one share for each process that works on it.** A process writes absolute numbers into its own
//! share and into no other, so that a write whose fate is unknown (the connection broke in its commit) is repeated
//! without harm. What a channel owes in all is the sum. Whoever decides (sets aside, draws, takes a voucher) locks the channel's row,
//! adds the shares up and asks [`cocoon_accounts::AccountState`]: the same lines that decide over the redb file.
//!
//! **Allowances.** A stream does not ask the database for each frame. Its process draws a part of the exposure window (an
//! eighth) at a time; the whole part counts as open until it is charged or given back. It is given back when the process's last answer on
//! the channel ends, and when the window runs out, so that nobody waits for what another does not use.
//!
//! **Leases.** A process renews its lease every few seconds. One whose lease has ended loses its shares: what it had
//! reported as charged stays owed, what was set aside and drawn is free again. At most one allowance for each channel was charged and not
//! reported; that is lost to the payee, as a window may be when a process with a redb file dies. A process that finds
//! its own lease ended (it was cut off, and lives) ends its streams with [`cocoon_accounts::StoreError::Lapsed`], adds
//! what it had not reported, and begins anew. It stops charging from its allowance when its own clock says that the
//! lease may have ended: no sooner does another get it.
//!
//! **Waking.** A voucher that is handed in at one gateway wakes the streams that wait at another, by NOTIFY, and by a look
//! every second if that was missed.
//!
//! **Durability.** `synchronous_commit` is on for every connection, and a server that runs without `fsync` is refused: a
//! voucher is on the disk before it is acknowledged. When the database is away, reservations and vouchers get a clear
//! error (503), streams go on within what they have drawn and then wait as long as they wait for a voucher.
//!
//! **Connections** are not encrypted: the server must be reached by a unix socket or on this machine's own address (a TLS
//! tunnel or PgBouncer in session mode, say). Anything else is refused.
//!
//! **Not shared** is the payer's side: each gateway process opens channels of its own to hosts, with a voucher key of
//! its own. Two that sign for one channel would need one counter of what is owed, for no gain.

mod backend;
mod convert;
mod decide;
mod hold;
mod lease;
mod pool;
mod schema;
mod share;

pub use backend::{PostgresAccounts, SharedOptions};
pub use pool::MAX_CONNECTIONS;
pub use schema::SCHEMA;
