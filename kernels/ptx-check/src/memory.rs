//! Memory of the device and of a block: bytes, which of them were written, and who touched them.

use crate::{
    error::{FaultKind, Space},
    machine::Limits,
    shadow::{Conflict, Segments, Shadow, Touch},
};

/// Buffers lie this far apart, so that no offset leads from one into another.
const APART: u32 = 40;

/// A buffer of a [`Device`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Buffer(pub(crate) usize);

impl Buffer {
    /// The address of its first byte, as kernels see it.
    pub(crate) fn address(self) -> u64 {
        (self.0 as u64 + 1) << APART
    }
}

/// An argument of a launch.
#[derive(Clone, Copy, Debug)]
pub enum Arg<'a> {
    /// A buffer that the kernel only reads, from this byte on.
    In(Buffer, u64),
    /// A buffer that the kernel may write, from this byte on.
    Out(Buffer, u64),
    /// A 32-bit integer.
    U32(u32),
    /// A float of single precision.
    F32(f32),
    /// A structure, as it lies in memory.
    Bytes(&'a [u8]),
}

/// Memory and what is known of it.
#[derive(Debug, Default)]
pub struct Device {
    pub(crate) buffers: Vec<Memory>,
    pub(crate) segments: Segments,
    pub(crate) limits: Limits,
    used: u64,
}

impl Device {
    /// A device without buffers.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// A buffer of `bytes` that nobody has written yet.
    ///
    /// # Panics
    /// When all buffers together are over [`Limits::memory`]: the test that asks for it is wrong.
    pub fn allocate(&mut self, bytes: usize) -> Buffer {
        self.used += bytes as u64;
        assert!(
            self.used <= self.limits.memory,
            "{} bytes are over the device's {}",
            self.used,
            self.limits.memory
        );
        self.buffers.push(Memory::new(bytes));
        Buffer(self.buffers.len() - 1)
    }

    /// A buffer with this content.
    pub fn upload(&mut self, content: &[u8]) -> Buffer {
        let buffer = self.allocate(content.len());
        self.write(buffer, 0, content);
        buffer
    }

    /// Writes as the host does, between launches.
    ///
    /// # Panics
    /// When the bytes are not all in the buffer.
    pub fn write(&mut self, buffer: Buffer, offset: usize, content: &[u8]) {
        let memory = &mut self.buffers[buffer.0];
        memory.bytes[offset..offset + content.len()].copy_from_slice(content);
        memory.written[offset..offset + content.len()].fill(true);
    }

    /// All of a buffer; `None` where a byte was never written.
    pub fn read(&self, buffer: Buffer) -> Option<&[u8]> {
        let memory = &self.buffers[buffer.0];
        memory.written.iter().all(|written| *written).then_some(memory.bytes.as_slice())
    }

    /// All buffers, in the order in which they were allocated.
    pub fn buffers(&self) -> impl Iterator<Item = Buffer> {
        (0..self.buffers.len()).map(Buffer)
    }

    /// What was written of a buffer, and 0 for what was not.
    pub fn read_any(&self, buffer: Buffer) -> &[u8] {
        &self.buffers[buffer.0].bytes
    }
}

/// What a launch may do with a buffer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It was not passed.
    #[default]
    Hidden,
    Read,
    Write,
}

/// A buffer, or the shared memory of a block.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    pub(crate) bytes: Vec<u8>,
    written: Vec<bool>,
    /// Made when it is first needed.
    shadow: Vec<Shadow>,
    pub(crate) mode: Mode,
    /// What segments before this one did is over.
    since: u32,
}

/// Who touches memory, with which instruction.
#[derive(Clone, Copy)]
pub(crate) struct Toucher<'s> {
    pub(crate) segments: &'s Segments,
    pub(crate) segment: u32,
    pub(crate) pc: u32,
    pub(crate) space: Space,
}

/// What went wrong, before the other side of a race has its place.
pub(crate) enum Problem {
    Kind(FaultKind),
    Race(u64, Conflict),
}

impl Memory {
    pub(crate) fn new(bytes: usize) -> Self {
        Self {
            bytes: vec![0; bytes],
            written: vec![false; bytes],
            shadow: Vec::new(),
            mode: Mode::Hidden,
            since: 0,
        }
    }

    /// As new, for the shared memory of a block whose first segment is `since`.
    pub(crate) fn reset(&mut self, since: u32) {
        self.written.fill(false);
        self.since = since;
    }

    /// Makes room for who touched what.
    pub(crate) fn watch(&mut self) {
        self.mode = Mode::Write;
        self.shadow.resize(self.bytes.len(), Shadow::default());
    }

    pub(crate) fn forget(&mut self) {
        self.shadow.fill(Shadow::default());
    }

    fn range(
        &self,
        offset: u64,
        bytes: u32,
        align: u32,
        space: Space,
    ) -> Result<std::ops::Range<usize>, Problem> {
        if !offset.is_multiple_of(align.into()) {
            return Err(Problem::Kind(FaultKind::Misaligned { space, offset, bytes: align }));
        }
        let size = self.bytes.len() as u64;
        let end = offset.checked_add(bytes.into()).filter(|end| *end <= size && self.mode != Mode::Hidden);
        let Some(end) = end else {
            let size = if self.mode == Mode::Hidden { 0 } else { size };
            return Err(Problem::Kind(FaultKind::OutOfBounds { space, offset, bytes, size }));
        };
        Ok(offset as usize..end as usize)
    }

    /// Bytes that were written by somebody, and by nobody who is not kept apart.
    pub(crate) fn load(&mut self, offset: u64, bytes: u32, by: Toucher<'_>) -> Result<&[u8], Problem> {
        let range = self.range(offset, bytes, bytes, by.space)?;
        if let Some(index) = self.written[range.clone()].iter().position(|written| !written) {
            let offset = offset + index as u64;
            return Err(Problem::Kind(FaultKind::UninitialisedMemory { space: by.space, offset }));
        }
        if self.mode == Mode::Write {
            self.touch(range.clone(), by, Touch::Read)?;
        }
        Ok(&self.bytes[range])
    }

    pub(crate) fn store(&mut self, offset: u64, content: &[u8], by: Toucher<'_>) -> Result<(), Problem> {
        let range = self.range(offset, content.len() as u32, content.len() as u32, by.space)?;
        if self.mode != Mode::Write {
            return Err(Problem::Kind(FaultKind::ReadOnly { offset }));
        }
        self.touch(range.clone(), by, Touch::Write)?;
        self.bytes[range.clone()].copy_from_slice(content);
        self.written[range].fill(true);
        Ok(())
    }

    /// Replaces a value by what `f` makes of it, at once; the old value.
    pub(crate) fn atomic(
        &mut self,
        offset: u64,
        width: u32,
        f: impl Fn(u64) -> u64,
        by: Toucher<'_>,
    ) -> Result<u64, Problem> {
        let range = self.range(offset, width, width, by.space)?;
        if self.mode != Mode::Write {
            return Err(Problem::Kind(FaultKind::ReadOnly { offset }));
        }
        if !self.written[range.clone()].iter().all(|written| *written) {
            return Err(Problem::Kind(FaultKind::UninitialisedMemory { space: by.space, offset }));
        }
        self.touch(range.clone(), by, Touch::Atomic)?;
        let old = number(&self.bytes[range.clone()]);
        self.bytes[range].copy_from_slice(&f(old).to_le_bytes()[..width as usize]);
        Ok(old)
    }

    fn touch(&mut self, range: std::ops::Range<usize>, by: Toucher<'_>, touch: Touch) -> Result<(), Problem> {
        let (start, since) = (range.start, self.since);
        for (index, shadow) in self.shadow[range].iter_mut().enumerate() {
            if let Some(conflict) = shadow.touch(by.segments, by.segment, since, by.pc, touch, by.space) {
                return Err(Problem::Race((start + index) as u64, conflict));
            }
        }
        Ok(())
    }
}

/// Up to eight bytes as a number, the lowest first.
pub(crate) fn number(bytes: &[u8]) -> u64 {
    let mut padded = [0; 8];
    padded[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(padded)
}

/// Buffer and offset that an address of global memory means.
pub(crate) fn locate(address: u64) -> (Option<usize>, u64) {
    (((address >> APART) as usize).checked_sub(1), address & ((1 << APART) - 1))
}
