//! One process's share of one channel, in memory: what it has charged, may charge and has set aside. The database's row of it
//! is written whole, and follows.

use std::sync::{Arc, Mutex};

use cocoon_accounts::AccountState;
use cocoon_contracts::{Address, Nanotons, channel::Terms};
use tokio::sync::Notify;

use crate::convert::Shares;

/// Which lease of which process, and which life of the channel, something belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) process: i64,
    pub(crate) life: i64,
}

/// The share. Always `charged ≤ allowed ≤ charged + reserved`.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Share {
    pub(crate) tag: Tag,
    /// Charged under this lease, cumulative.
    pub(crate) charged: Nanotons,
    /// How far it may charge without asking.
    pub(crate) allowed: Nanotons,
    /// Worst cases of its answers under way, less what each was charged.
    pub(crate) reserved: Nanotons,
    /// Its answers under way.
    pub(crate) streams: usize,
    /// `charged` as the database surely has it.
    reported: Nanotons,
    /// The database may have something else.
    dirty: bool,
    /// Counts releases, to tell whether one came while a write was under way.
    version: u64,
}

impl Share {
    /// Under a new lease: what the last one had set aside is gone, what it had not reported is charged again.
    pub(crate) fn adopt(&mut self, process: i64) {
        if self.tag.process == process {
            return;
        }
        let unreported = self.charged - self.reported;
        let (tag, version) = (Tag { process, ..self.tag }, self.version + 1);
        let dirty = unreported > 0;
        *self = Self { tag, charged: unreported, allowed: unreported, dirty, version, ..Self::default() };
    }

    /// On a channel that left and came again, nothing of its earlier life counts.
    pub(crate) fn live(&mut self, life: i64) {
        if self.tag.life != life {
            let (tag, version) = (Tag { life, ..self.tag }, self.version + 1);
            *self = Self { tag, version, ..Self::default() };
        }
    }

    /// Adds it to what an account's other shares are.
    pub(crate) fn add_to(&self, state: &mut AccountState) {
        let Self { charged, reserved, streams, .. } = *self;
        Shares { charged, reserved, drawn: self.allowed - charged, streams }.add_to(state);
    }

    /// Whether the database may have something else.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    fn give_back(&mut self, left: Nanotons) {
        self.reserved -= left;
        self.streams -= 1;
        // No stream, no use for an allowance; else no more than what is set aside.
        let most = if self.streams == 0 { 0 } else { self.reserved };
        self.allowed = self.allowed.min(self.charged + most);
        self.dirty = true;
        self.version += 1;
    }
}

/// A channel as this process knows it.
pub(crate) struct Channel {
    pub(crate) address: Address,
    /// The database's key.
    pub(crate) key: String,
    pub(crate) terms: Terms,
    /// Held by whoever writes the share.
    pub(crate) turn: tokio::sync::Mutex<()>,
    share: Mutex<Share>,
    /// Told when a voucher came in anywhere, or something was given back.
    pub(crate) changed: Arc<Notify>,
}

impl Channel {
    pub(crate) fn new(address: Address, terms: Terms) -> Self {
        let key = crate::convert::key(&address);
        Self {
            address,
            key,
            terms,
            turn: tokio::sync::Mutex::default(),
            share: Mutex::default(),
            changed: Arc::default(),
        }
    }

    pub(crate) fn with<R>(&self, f: impl FnOnce(&mut Share) -> R) -> R {
        f(&mut self.share.lock().expect("no holder of this lock panics"))
    }

    /// The share under this lease.
    pub(crate) fn share(&self, process: i64) -> Share {
        self.with(|share| {
            share.adopt(process);
            *share
        })
    }

    /// The share as it is, for a decision; until [`Channel::decided`], nothing is charged without asking. If that never
    /// comes, the database is told the share as it then is.
    pub(crate) fn freeze(&self, process: i64) -> Share {
        self.with(|share| {
            share.adopt(process);
            let before = *share;
            share.allowed = share.charged;
            share.dirty = true;
            before
        })
    }

    /// Nothing was decided, and nothing of the database has changed.
    pub(crate) fn thaw(&self, before: &Share) {
        self.with(|share| {
            if share.tag == before.tag {
                share.allowed = before.allowed.min(share.charged + share.reserved);
                share.dirty = before.dirty || share.version != before.version;
            }
        });
    }

    /// The decision of [`Channel::freeze`]'s share is in the database, as `after` (of the life that was found). Answers may
    /// have ended since.
    pub(crate) fn decided(&self, before: &Share, after: &Share) {
        self.with(|share| {
            if share.tag.process != after.tag.process {
                return; // the lease ended meanwhile
            }
            let mut before = *before;
            before.live(after.tag.life);
            share.live(after.tag.life);
            share.reserved += after.reserved - before.reserved;
            share.streams += after.streams - before.streams;
            share.allowed = after.allowed.min(share.charged + share.reserved);
            share.reported = after.charged;
            share.dirty = share.version != before.version;
        });
    }

    /// The database has `written`.
    pub(crate) fn synced(&self, written: &Share) {
        self.with(|share| {
            if share.tag == written.tag {
                share.reported = written.charged;
                share.dirty = share.version != written.version;
            }
        });
    }

    /// Charges from the allowance, if it suffices and the tag still holds: `None` when it does not.
    pub(crate) fn charge(&self, tag: Tag, by: Nanotons) -> Option<bool> {
        self.with(|share| {
            if share.tag != tag {
                return None;
            }
            let within = by <= share.allowed - share.charged;
            if within {
                share.charged += by;
                share.reserved -= by;
            }
            Some(within)
        })
    }

    /// An answer ended that had `left` set aside still.
    pub(crate) fn release(&self, tag: Tag, left: Nanotons) {
        self.with(|share| {
            if share.tag == tag {
                share.give_back(left);
            }
        });
        self.changed.notify_waiters();
    }
}
