//! Recency: a public block that did not exist before its time, and the caller's own challenge.

use super::{Context, KnownBlock, rejected};
use crate::check::{Checklist, Finding};
use crate::{RefusalKind, Statement, UnixTime};

/// How far a beacon's time may lie ahead of the caller's clock, in seconds.
const MAX_CLOCK_SKEW: u64 = 60;

/// The statement's beacon is a block that we know, recent, with our nonce if we sent one. Gives the time until which it
/// counts as recent.
pub(super) fn check(
    statement: &Statement,
    max_age: u64,
    context: &Context,
    list: &mut Checklist,
) -> Option<UnixTime> {
    match judge(statement, max_age, context) {
        Ok(beacon) => {
            let expected = format!("at most {} s old at {}", max_age, context.now);
            let nonce = if context.nonce.is_some() { ", with our nonce" } else { "" };
            let got = format!("block {} of {}{nonce}", beacon.seqno, beacon.time);
            list.pass("freshness", expected, got, "the quote is recent");
            Some(UnixTime(beacon.time.0.saturating_add(max_age)))
        }
        Err(finding) => {
            list.fail("freshness", *finding);
            None
        }
    }
}

/// What was in date when the evidence was verified still is at the time of the appraisal.
pub(super) fn not_lapsed(good_until: UnixTime, now: UnixTime, list: &mut Checklist) {
    if now > good_until {
        let finding = Finding {
            kind: RefusalKind::Unavailable,
            expected: format!("endorsements in date at {now}"),
            got: format!("in date until {good_until}"),
            likely: "The evidence was verified earlier, and its endorsements have run out since".into(),
            remedy: "Verify it again with fresh endorsements".into(),
        };
        list.fail("freshness", finding);
    }
}

fn judge<'a>(
    statement: &Statement,
    max_age: u64,
    context: &'a Context,
) -> Result<&'a KnownBlock, Box<Finding>> {
    let claimed = &statement.freshness.beacon;
    let Some(known) = &context.beacon else {
        return Err(Box::new(unknown_beacon(claimed.seqno)));
    };
    if (known.seqno, known.root_hash) != (claimed.seqno, claimed.root_hash) {
        return Err(Box::new(rejected(
            format!("block {} with root hash {}", known.seqno, hex::encode(known.root_hash)),
            format!("block {} with root hash {}", claimed.seqno, hex::encode(claimed.root_hash)),
            "The guest saw another chain, or the block is invented",
            "Compare the chain servers of both sides; choose another worker",
        )));
    }
    let age = context.now.0.saturating_sub(known.time.0);
    let ahead = known.time.0.saturating_sub(context.now.0);
    if age > max_age || ahead > MAX_CLOCK_SKEW {
        return Err(Box::new(rejected(
            format!("a block at most {} s old at {}", max_age, context.now),
            format!("block {} of {}, {age} s old", known.seqno, known.time),
            "The evidence is stale, or a clock is wrong",
            "Ask the host for a fresh bundle",
        )));
    }
    if context.nonce.is_some() && context.nonce != statement.freshness.nonce {
        return Err(Box::new(rejected(
            "our nonce".to_owned(),
            statement.freshness.nonce.map_or("none".to_owned(), hex::encode),
            "The quote answers somebody else's challenge",
            "Ask for a quote with a nonce of your own again",
        )));
    }
    Ok(known)
}

fn unknown_beacon(seqno: u32) -> Finding {
    Finding {
        kind: RefusalKind::Unavailable,
        expected: format!("block {seqno} in our own view of the chain"),
        got: "not known".into(),
        likely: "The chain server could not be asked, or does not have this block".into(),
        remedy: "Check the chain server's address, and try again".into(),
    }
}
