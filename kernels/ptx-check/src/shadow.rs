//! Who touched each byte last, and whether two of them were not kept apart.
//!
//! A *segment* is what one thread does between two barriers. Segments are ordered when they are of one thread, or of
//! one block with a barrier between them (or of one warp with a warp's barrier between them). Blocks of one launch are
//! never ordered, launches always are.

use crate::error::Space;

/// Most segments of one launch.
const MAX_SEGMENTS: usize = 1 << 26;

/// What one thread does between two barriers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) block: u32,
    pub(crate) thread: u16,
    /// Barriers of the block, and of the warp, that lie behind.
    pub(crate) block_epoch: u32,
    pub(crate) warp_epoch: u32,
}

impl Segment {
    fn same_interval(&self, other: &Self) -> bool {
        self.block == other.block && self.block_epoch == other.block_epoch
    }

    fn same_warp_interval(&self, other: &Self) -> bool {
        self.same_interval(other)
            && self.thread / 32 == other.thread / 32
            && self.warp_epoch == other.warp_epoch
    }

    /// Whether `self` is certainly done before `later` begins, or is of the same thread.
    fn is_before(&self, later: &Self) -> bool {
        if self.block != later.block {
            return false;
        }
        self.thread == later.thread
            || self.block_epoch != later.block_epoch
            || (self.thread / 32 == later.thread / 32 && self.warp_epoch != later.warp_epoch)
    }
}

/// The segments of a launch; numbers go on from one launch to the next, so that what was before needs no wiping.
#[derive(Debug, Default)]
pub(crate) struct Segments {
    first: u32,
    list: Vec<Segment>,
}

impl Segments {
    /// Forgets those of the launch before. False when the numbers run out: then every shadow has to be wiped.
    pub(crate) fn next_launch(&mut self) -> bool {
        let next = self.first.saturating_add(self.list.len() as u32).max(1);
        self.list.clear();
        let room = u32::MAX - next > MAX_SEGMENTS as u32;
        self.first = if room { next } else { 1 };
        room
    }

    /// The number of a new segment; `None` when there are too many.
    pub(crate) fn begin(&mut self, segment: Segment) -> Option<u32> {
        if self.list.len() >= MAX_SEGMENTS {
            return None;
        }
        self.list.push(segment);
        Some(self.first + (self.list.len() - 1) as u32)
    }

    /// The number that the next segment will have.
    pub(crate) fn next(&self) -> u32 {
        self.first + self.list.len() as u32
    }

    /// The segment of that number, if it is of this launch.
    pub(crate) fn find(&self, number: u32) -> Option<&Segment> {
        self.list.get(number.checked_sub(self.first)? as usize)
    }
}

/// Several readers: of one warp between its barriers, of one block between its barriers, of several blocks.
const READ_BY_LANES: u8 = 1;
const READ_BY_WARPS: u8 = 2;
const READ_BY_BLOCKS: u8 = 4;
/// The last write was atomic; there were several atomic ones that are not ordered, in one block or in several.
const ATOMIC: u8 = 8;
const ATOMIC_MANY: u8 = 16;
const ATOMIC_BLOCKS: u8 = 32;
const ATOMICS: u8 = ATOMIC | ATOMIC_MANY | ATOMIC_BLOCKS;

/// One byte's history in this launch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shadow {
    write: u32,
    read: u32,
    write_pc: u16,
    read_pc: u16,
    flags: u8,
}

/// What a thread does to a byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Touch {
    Read,
    Write,
    Atomic,
}

/// Who is not kept apart: segment, instruction, and whether it wrote.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conflict {
    pub(crate) segment: Segment,
    pub(crate) pc: u32,
    pub(crate) wrote: bool,
    pub(crate) space: Space,
}

impl Shadow {
    /// Notes what segment `number` does here; who conflicts with it, if somebody does. What was before segment `since`
    /// is over.
    pub(crate) fn touch(
        &mut self,
        segments: &Segments,
        number: u32,
        since: u32,
        pc: u32,
        touch: Touch,
        space: Space,
    ) -> Option<Conflict> {
        let now = segments.find(number)?;
        if self.write.max(self.read) < since {
            *self = Self::default();
        }
        if self.write != number
            && let Some(writer) = segments.find(self.write)
            && self.write_conflicts(writer, now, touch)
        {
            return Some(Conflict { segment: *writer, pc: self.write_pc.into(), wrote: true, space });
        }
        if touch == Touch::Read {
            self.note_read(segments, number, now, pc);
            return None;
        }
        if let Some(reader) = segments.find(self.read)
            && self.read_conflicts(reader, now)
        {
            return Some(Conflict { segment: *reader, pc: self.read_pc.into(), wrote: false, space });
        }
        self.note_write(segments, number, now, touch);
        (self.write, self.write_pc) = (number, pc as u16);
        None
    }

    fn write_conflicts(&self, writer: &Segment, now: &Segment, touch: Touch) -> bool {
        if self.flags & ATOMIC == 0 {
            return !writer.is_before(now);
        }
        if touch == Touch::Atomic {
            return false;
        }
        let others = self.flags & ATOMIC_MANY != 0 && writer.same_interval(now);
        !writer.is_before(now) || others || self.flags & ATOMIC_BLOCKS != 0
    }

    fn read_conflicts(&self, reader: &Segment, now: &Segment) -> bool {
        !reader.is_before(now)
            || self.flags & READ_BY_BLOCKS != 0
            || (self.flags & READ_BY_WARPS != 0 && reader.same_interval(now))
            || (self.flags & READ_BY_LANES != 0 && reader.same_warp_interval(now))
    }

    fn note_read(&mut self, segments: &Segments, number: u32, now: &Segment, pc: u32) {
        if self.read == number {
            return;
        }
        match segments.find(self.read) {
            None => self.flags &= ATOMICS,
            Some(before) if before.block != now.block => self.flags |= READ_BY_BLOCKS,
            Some(before) if before.block_epoch != now.block_epoch => self.flags &= ATOMICS | READ_BY_BLOCKS,
            Some(before) if before.thread / 32 != now.thread / 32 => self.flags |= READ_BY_WARPS,
            Some(before) if before.warp_epoch != now.warp_epoch => self.flags &= !READ_BY_LANES,
            Some(_) => self.flags |= READ_BY_LANES,
        }
        (self.read, self.read_pc) = (number, pc as u16);
    }

    fn note_write(&mut self, segments: &Segments, number: u32, now: &Segment, touch: Touch) {
        if touch == Touch::Write {
            self.flags &= !ATOMICS;
            return;
        }
        match segments.find(self.write) {
            Some(before) if self.flags & ATOMIC != 0 && self.write != number => {
                if before.block != now.block {
                    self.flags |= ATOMIC_BLOCKS;
                } else if before.block_epoch != now.block_epoch {
                    self.flags &= !ATOMIC_MANY;
                } else if before.thread != now.thread {
                    self.flags |= ATOMIC_MANY;
                }
            }
            Some(_) if self.flags & ATOMIC != 0 => {}
            _ => self.flags = self.flags & !ATOMICS | ATOMIC,
        }
    }
}
