//! Instructions as they are run: every operand is a slot of the thread's registers, constants among them.

use crate::{convert::Conversion, error::Space};

/// A place in a thread's registers.
pub(crate) type Slot = u16;

/// A write to this slot goes nowhere (`_`).
pub(crate) const SINK: Slot = Slot::MAX;

/// Registers come first; then special registers, addresses and immediates, each a slot that is never written.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    One {
        f: fn(u64) -> u64,
        d: Slot,
        a: Slot,
    },
    Two {
        f: fn(u64, u64) -> u64,
        d: Slot,
        a: Slot,
        b: Slot,
    },
    Three {
        f: fn(u64, u64, u64) -> u64,
        d: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
    },
    /// Inserts the low `length` bits of `a` at `start` into `b`.
    Insert {
        wide: bool,
        d: Slot,
        a: Slot,
        b: Slot,
        start: Slot,
        length: Slot,
    },
    Convert {
        conversion: Conversion,
        d: Slot,
        a: Slot,
    },
    /// `mov.b64 {low, high}, a`.
    Unpack {
        low: Slot,
        high: Slot,
        a: Slot,
    },
    Load {
        access: Access,
        d: [Slot; 4],
    },
    Store {
        access: Access,
        a: [Slot; 4],
    },
    Atomic {
        access: Access,
        f: fn(u64, u64) -> u64,
        d: Slot,
        a: Slot,
    },
    Branch {
        target: u32,
    },
    Return,
    Barrier,
    Warp {
        what: Warp,
        d: Slot,
        p: Slot,
        a: Slot,
        b: Slot,
        c: Slot,
        mask: Slot,
    },
}

/// How memory is touched.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Access {
    pub(crate) space: Space,
    /// Bytes of one element: 1, 2, 4 or 8.
    pub(crate) width: u8,
    /// Elements: 1, 2 or 4.
    pub(crate) lanes: u8,
    pub(crate) signed: bool,
    pub(crate) base: Slot,
    pub(crate) offset: i64,
}

/// What threads of a warp do together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Warp {
    ShuffleUp,
    ShuffleDown,
    ShuffleXor,
    ShuffleIndex,
    VoteAll,
    VoteAny,
    VoteBallot,
    Sync,
}

/// One instruction, whether it is run, and where it comes from.
#[derive(Clone, Debug)]
pub(crate) struct Instruction {
    /// Predicate, and the value that it has to have.
    pub(crate) guard: Option<(Slot, bool)>,
    pub(crate) op: Op,
    /// File number and line.
    pub(crate) place: (u32, u32),
}
