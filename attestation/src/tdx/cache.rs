//! What was verified before, so that the next quote of the same platform costs one signature.
//!
//! # Why this is safe
//!
//! Only facts of one kind are kept: *these bytes hold under that key*. Such a fact is a pure function of the bytes. It is
//! true for every caller, at every time, and stays true. So each is kept under exactly the bytes it is about, all of them,
//! and found again only by comparing all of them; no hash stands between.
//!
//! | kept | under | what was verified |
//! | --- | --- | --- |
//! | collateral | the whole JSON file, or bundle entry, and the quote's PCK CA and root | CRLs by root and PCK CA; TCB signer by root; TCB info and QE identity by the signer; root, PCK CA and signer not on the root's list |
//! | PCK chain | its text in the quote | PCK CA by root, PCK by PCK CA; their profiles |
//! | quoting enclave | all of the quote after its own signature: attestation key, QE report, its signature, authentication data, PCK chain | QE report by the PCK |
//!
//! Everything that depends on something else is judged anew each time, from what is kept: that the root is one of *this*
//! caller's anchors, and whether a simulated one; all dates against the time given; that this PCK is not on the CRL in this
//! collateral; that the collateral's authorities are this quote's; that the quoting enclave is the one in this identity; the
//! TCB level, under this caller's exceptions; the rollback mark. The attestation key's hash in the QE report and the quote's
//! own signature are computed each time. A newer CRL or TCB info is another collateral, with other bytes, and so is verified
//! in full.
//!
//! What failed is never kept. What was put in under one caller's anchors is no use to another who does not have that root:
//! the chain is refused at `tdx.root` before anything else is looked at.
//!
//! # The rollback mark
//!
//! Per root, kind, and family of platforms (FMSPC), and per root and quoting enclave, the highest `tcbEvaluationDataNumber`
//! of collateral that was accepted is kept; a lower one is refused by `tdx.rollback` from then on. Who verifies old evidence
//! as of its own time uses another cache for it, or none. Marks last as long as the cache does: who wants them to last
//! longer keeps [`crate::Platform::evaluation_number`] and gives it to [`crate::TrustAnchors::with_evaluation_floor`].
//!
//! # Limits
//!
//! A peer can send many genuine chains, or the same collateral in many forms. Entries are bounded in number and size; the
//! one that was used longest ago makes room. So a peer can make others slower, never anything accepted.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::chain::PckChain;
use super::issuer::Vouched;
use super::quote::Quote;

/// Most collaterals that are kept.
pub const MAX_COLLATERALS: usize = 32;
/// Largest collateral that is kept, in bytes; Intel's has about 20 KiB.
pub const MAX_COLLATERAL: usize = 64 * 1024;
/// Most PCK chains, and most quoting enclaves, that are kept; each is smaller than a quote.
pub const MAX_PLATFORMS: usize = 256;
/// Most families of platforms whose rollback mark is kept. Intel has fewer than a hundred.
pub const MAX_MARKS: usize = 1024;

/// Intel collateral, PCK chains and quoting enclaves that were verified before. See the module's text for why it is safe.
///
/// One is shared by all verifications of a process: give it to [`crate::Verifier::with_cache`].
#[derive(Default)]
pub struct TdxCache {
    collaterals: Mutex<Shelf<Vouched>>,
    chains: Mutex<Shelf<PckChain>>,
    enclaves: Mutex<Shelf<PckChain>>,
    marks: Mutex<Vec<(Family, u32)>>,
}

/// What a rollback mark is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Family {
    pub(super) root: Vec<u8>,
    /// `TDX` or `SGX` with an FMSPC, or a quoting enclave's id.
    pub(super) of: (&'static str, [u8; 6]),
}

/// Entries by the exact bytes they are about, the last used first.
struct Shelf<T> {
    entries: Vec<(Key, Arc<T>)>,
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self { entries: Vec::new() }
    }
}

/// A small tag for what else tells two entries apart, and the bytes.
#[derive(PartialEq, Eq)]
struct Key {
    tag: u16,
    parts: [Box<[u8]>; 3],
}

impl Key {
    fn is(&self, tag: u16, parts: [&[u8]; 3]) -> bool {
        self.tag == tag && self.parts.iter().zip(parts).all(|(own, other)| **own == *other)
    }
}

impl<T> Shelf<T> {
    fn find(&mut self, tag: u16, parts: [&[u8]; 3]) -> Option<Arc<T>> {
        let at = self.entries.iter().position(|(key, _)| key.is(tag, parts))?;
        self.entries[..=at].rotate_right(1);
        Some(Arc::clone(&self.entries[0].1))
    }

    fn keep(&mut self, tag: u16, parts: [&[u8]; 3], value: &Arc<T>, limit: usize) {
        if self.find(tag, parts).is_some() {
            return; // another thread was faster
        }
        self.entries.truncate(limit - 1);
        self.entries.insert(0, (Key { tag, parts: parts.map(Box::from) }, Arc::clone(value)));
    }
}

/// A poisoned lock means that another thread panicked between two whole changes: the content is still sound.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl TdxCache {
    /// An empty one.
    pub fn new() -> Self {
        Self::default()
    }

    /// The chain of this very quoting enclave, whose report its PCK signed.
    pub(super) fn certified(&self, quote: &Quote<'_>) -> Option<Arc<PckChain>> {
        // Version 3 lays the same bytes out in another way.
        lock(&self.enclaves).find(layout(quote), [quote.certified, &[], &[]])
    }

    pub(super) fn keep_certified(&self, quote: &Quote<'_>, chain: &Arc<PckChain>) {
        lock(&self.chains).keep(0, [quote.pck_chain_text, &[], &[]], chain, MAX_PLATFORMS);
        lock(&self.enclaves).keep(layout(quote), [quote.certified, &[], &[]], chain, MAX_PLATFORMS);
    }

    /// The chain of this very text.
    pub(super) fn chain(&self, quote: &Quote<'_>) -> Option<Arc<PckChain>> {
        lock(&self.chains).find(0, [quote.pck_chain_text, &[], &[]])
    }

    /// What this very collateral says, for a quote of these authorities.
    pub(super) fn vouched(&self, json: &[u8], canonical: bool, chain: &PckChain) -> Option<Arc<Vouched>> {
        let [_, ca, root] = &chain.certificates;
        lock(&self.collaterals).find(canonical.into(), [json, ca, root])
    }

    pub(super) fn keep_vouched(&self, json: &[u8], canonical: bool, chain: &PckChain, value: &Arc<Vouched>) {
        if json.len() <= MAX_COLLATERAL {
            let [_, ca, root] = &chain.certificates;
            lock(&self.collaterals).keep(canonical.into(), [json, ca, root], value, MAX_COLLATERALS);
        }
    }

    /// The highest number that was accepted of this family.
    pub(super) fn mark(&self, family: &Family) -> u32 {
        lock(&self.marks).iter().find(|(known, _)| known == family).map_or(0, |(_, mark)| *mark)
    }

    pub(super) fn raise_mark(&self, family: Family, number: u32) {
        let mut marks = lock(&self.marks);
        if let Some((_, mark)) = marks.iter_mut().find(|(known, _)| *known == family) {
            *mark = number.max(*mark);
        } else if marks.len() < MAX_MARKS {
            marks.push((family, number)); // beyond that, those that are known keep their marks
        }
    }
}

fn layout(quote: &Quote<'_>) -> u16 {
    u16::from(quote.version == 3)
}

impl std::fmt::Debug for TdxCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TdxCache")
            .field("collaterals", &lock(&self.collaterals).entries.len())
            .field("chains", &lock(&self.chains).entries.len())
            .field("enclaves", &lock(&self.enclaves).entries.len())
            .field("marks", &lock(&self.marks).len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(keys: &[&[u8]]) -> Shelf<u8> {
        let mut shelf = Shelf::default();
        for key in keys {
            shelf.keep(0, [key, b"", b""], &Arc::new(key[0]), 3);
        }
        shelf
    }

    #[test]
    fn the_entry_that_was_used_longest_ago_makes_room() {
        let mut full = shelf(&[b"a", b"b", b"c"]);
        assert!(full.find(0, [b"a", b"", b""]).is_some(), "and is now the last used");
        full.keep(0, [b"d", b"", b""], &Arc::new(b'd'), 3);
        let found: Vec<bool> =
            [b"a", b"b", b"c", b"d"].map(|key| full.find(0, [key, b"", b""]).is_some()).to_vec();
        assert_eq!(found, [true, false, true, true]);
    }

    #[test]
    fn an_entry_is_found_by_all_of_its_bytes_alone() {
        let mut one = shelf(&[b"abc"]);
        for (tag, parts) in [
            (1, [&b"abc"[..], b"", b""]),
            (0, [b"abd", b"", b""]),
            (0, [b"ab", b"c", b""]),
            (0, [b"abc", b"", b"x"]),
        ] {
            assert!(one.find(tag, parts).is_none(), "{parts:?}");
        }
        assert!(one.find(0, [b"abc", b"", b""]).is_some());
    }

    #[test]
    fn a_mark_only_rises_and_is_its_familys_own() {
        let cache = TdxCache::new();
        let family = |root: u8, fmspc: u8| Family { root: vec![root], of: ("TDX", [fmspc; 6]) };
        cache.raise_mark(family(1, 1), 18);
        cache.raise_mark(family(1, 1), 17);
        assert_eq!(cache.mark(&family(1, 1)), 18);
        assert_eq!((cache.mark(&family(2, 1)), cache.mark(&family(1, 2))), (0, 0));
        for n in 0..2 * MAX_MARKS as u32 {
            cache.raise_mark(Family { root: n.to_le_bytes().to_vec(), of: ("TDX", [0; 6]) }, 1);
        }
        assert_eq!(cache.mark(&family(1, 1)), 18, "it is not pushed out");
        assert_eq!(lock(&cache.marks).len(), MAX_MARKS);
    }
}
