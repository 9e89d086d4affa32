//! What can go wrong: with the text, with a launch, and in a kernel.

use std::fmt;

/// The text is not PTX of the subset that ships.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("PTX line {line}: {what}")]
pub struct ParseError {
    /// Line of the PTX, from 1.
    pub line: usize,
    /// What is not understood there.
    pub what: String,
}

/// A line of the CUDA source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// File name as `.file` gives it.
    pub file: String,
    /// Line, from 1; 0 where the compiler names none.
    pub line: u32,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// Memory that all threads see, or those of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Buffers of the device.
    Global,
    /// Memory of a block.
    Shared,
    /// Arguments of a launch.
    Param,
}

impl fmt::Display for Space {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Global => "global",
            Self::Shared => "shared",
            Self::Param => "param",
        })
    }
}

/// What a thread did wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FaultKind {
    /// No byte of a buffer, or not all of them, lie there.
    #[error("{bytes} bytes of {space} memory at offset {offset} are out of bounds: {size} bytes are there")]
    OutOfBounds {
        /// Where.
        space: Space,
        /// From the begin of the buffer or of shared memory.
        offset: u64,
        /// How many.
        bytes: u32,
        /// Size of the buffer or of shared memory; 0 where there is no buffer at all.
        size: u64,
    },
    /// An address is not a multiple of what is read or written.
    #[error("{space} memory at offset {offset} is not aligned for {bytes} bytes")]
    Misaligned {
        /// Where.
        space: Space,
        /// From the begin of the buffer or of shared memory.
        offset: u64,
        /// How many.
        bytes: u32,
    },
    /// Memory is read that nobody wrote.
    #[error("{space} memory at offset {offset} is read, and nobody wrote it")]
    UninitialisedMemory {
        /// Where.
        space: Space,
        /// From the begin of the buffer or of shared memory.
        offset: u64,
    },
    /// A register is read that nobody wrote.
    #[error("register {register} is read, and nobody wrote it")]
    UninitialisedRegister {
        /// Its name.
        register: String,
    },
    /// A buffer that was passed to be read is written.
    #[error("a buffer is written at offset {offset} that was passed to be read")]
    ReadOnly {
        /// From the begin of the buffer.
        offset: u64,
    },
    /// Two threads touch the same byte, one writes, and no barrier lies between.
    #[error(
        "{space} memory at offset {offset} is a race with thread {thread} of block {block} at {place}, which {} it",
        if *wrote { "wrote" } else { "read" }
    )]
    Race {
        /// Where.
        space: Space,
        /// From the begin of the buffer or of shared memory.
        offset: u64,
        /// Linear number of the other's block.
        block: u32,
        /// Linear number of the other in its block.
        thread: u32,
        /// What it was doing.
        place: Place,
        /// Whether the other wrote.
        wrote: bool,
    },
    /// Not all threads of the block come to this barrier.
    #[error("thread {other} of the block is not at this barrier: it {}", if *ended { "ended" } else { "waits elsewhere" })]
    DivergentBarrier {
        /// Linear number of a thread that is not.
        other: u32,
        /// Whether it has ended.
        ended: bool,
    },
    /// Not all threads that a warp's instruction names come to it.
    #[error("thread {other} is named by this instruction's mask and is not at it")]
    DivergentWarp {
        /// Linear number of a thread that is not.
        other: u32,
    },
    /// A warp's instruction whose mask does not name the thread itself, or threads that are not there.
    #[error("mask {mask:#x} does not fit the warp")]
    Mask {
        /// The mask.
        mask: u32,
    },
    /// A limit of [`crate::Limits`] is reached.
    #[error("more than {limit} {what}")]
    Limit {
        /// Of what.
        what: &'static str,
        /// How many.
        limit: u64,
    },
}

/// What a thread did wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kernel}: {place}: block {block}, thread {thread}: {kind}")]
pub struct Fault {
    /// The entry.
    pub kernel: String,
    /// The line of its source.
    pub place: Place,
    /// Linear number of the block.
    pub block: u32,
    /// Linear number of the thread in it.
    pub thread: u32,
    /// What it is.
    pub kind: FaultKind,
}

/// A launch did not begin, or did not end well.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LaunchError {
    /// The module has no such entry.
    #[error("the module has no entry {0}")]
    NoEntry(String),
    /// Arguments do not fit the entry's parameters.
    #[error("argument {index} of {kernel}: {what}")]
    Argument {
        /// The entry.
        kernel: String,
        /// From 0.
        index: usize,
        /// What does not fit.
        what: String,
    },
    /// A grid or block that is empty or too large.
    #[error("{0}")]
    Grid(String),
    /// A thread did something wrong.
    #[error(transparent)]
    Fault(#[from] Box<Fault>),
}

impl LaunchError {
    /// The fault, if that is what it is.
    pub fn fault(&self) -> Option<&Fault> {
        match self {
            Self::Fault(fault) => Some(fault),
            _ => None,
        }
    }
}
