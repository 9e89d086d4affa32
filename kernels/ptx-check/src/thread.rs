//! One thread, until it waits for others or ends.

use crate::{
    arith,
    convert::extend,
    error::{FaultKind, Space},
    instruction::{Access, Op, SINK, Slot},
    memory::{Memory, Problem, Toucher, locate, number},
    parse::{Entry, SlotKind, Special},
    shadow::Segments,
};

/// What a thread is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    Ready,
    /// At a barrier of the block: the instruction at `pc`.
    Barrier,
    /// At an instruction of the warp: the one at `pc`.
    Warp,
    Done,
}

/// Registers and place of one thread.
#[derive(Debug)]
pub(crate) struct Thread {
    pub(crate) registers: Vec<u64>,
    written: Vec<bool>,
    pub(crate) pc: u32,
    pub(crate) segment: u32,
    pub(crate) state: State,
}

/// Where a thread is in the grid.
pub(crate) struct Position {
    pub(crate) thread: [u32; 3],
    pub(crate) threads: [u32; 3],
    pub(crate) block: [u32; 3],
    pub(crate) blocks: [u32; 3],
    pub(crate) lane: u32,
}

/// What registers hold when a thread begins.
pub(crate) struct Start {
    registers: Vec<u64>,
    written: Vec<bool>,
    specials: Vec<(Slot, Special)>,
}

impl Start {
    pub(crate) fn new(entry: &Entry) -> Self {
        let constant = |slot: &SlotKind| if let SlotKind::Constant(value) = slot { *value } else { 0 };
        let special = |(slot, kind): (Slot, &SlotKind)| match kind {
            SlotKind::Special(special) => Some((slot, *special)),
            _ => None,
        };
        Self {
            registers: entry.slots.iter().map(constant).collect(),
            written: entry.slots.iter().map(|slot| !matches!(slot, SlotKind::Register(_))).collect(),
            specials: (0..).zip(&entry.slots).filter_map(special).collect(),
        }
    }
}

/// What a thread runs against.
pub(crate) struct Surroundings<'l> {
    pub(crate) entry: &'l Entry,
    pub(crate) buffers: &'l mut [Memory],
    pub(crate) shared: &'l mut Memory,
    pub(crate) params: &'l mut Memory,
    pub(crate) segments: &'l Segments,
    /// Instructions that the launch may still run.
    pub(crate) budget: &'l mut u64,
}

impl Thread {
    pub(crate) fn new() -> Self {
        Self { registers: Vec::new(), written: Vec::new(), pc: 0, segment: 0, state: State::Done }
    }

    /// Back to the begin of the entry.
    pub(crate) fn begin(&mut self, start: &Start, at: &Position, segment: u32) {
        self.registers.clone_from(&start.registers);
        self.written.clone_from(&start.written);
        for (slot, special) in &start.specials {
            self.registers[usize::from(*slot)] = at.read(*special).into();
        }
        (self.pc, self.segment, self.state) = (0, segment, State::Ready);
    }

    pub(crate) fn read(&self, entry: &Entry, slot: Slot) -> Result<u64, Problem> {
        let slot = usize::from(slot);
        if self.written[slot] {
            return Ok(self.registers[slot]);
        }
        let register = match &entry.slots[slot] {
            SlotKind::Register(name) => name.clone(),
            other => format!("{other:?}"),
        };
        Err(Problem::Kind(FaultKind::UninitialisedRegister { register }))
    }

    pub(crate) fn write(&mut self, slot: Slot, value: u64) {
        if slot != SINK {
            self.registers[usize::from(slot)] = value;
            self.written[usize::from(slot)] = true;
        }
    }

    /// Whether the instruction at `pc` is to be run.
    fn guard_holds(&self, entry: &Entry, guard: Option<(Slot, bool)>) -> Result<bool, Problem> {
        match guard {
            None => Ok(true),
            Some((slot, value)) => Ok((self.read(entry, slot)? & 1 == 1) == value),
        }
    }

    /// Runs up to `quantum` instructions, or until it waits or ends.
    pub(crate) fn run(&mut self, around: &mut Surroundings<'_>, quantum: u64) -> Result<(), Problem> {
        let entry = around.entry;
        for _ in 0..quantum.min(*around.budget) {
            let instruction = &entry.code[self.pc as usize];
            *around.budget -= 1;
            if !self.guard_holds(entry, instruction.guard)? {
                self.pc += 1;
                continue;
            }
            match &instruction.op {
                Op::One { f, d, a } => self.write(*d, f(self.read(entry, *a)?)),
                Op::Two { f, d, a, b } => self.write(*d, f(self.read(entry, *a)?, self.read(entry, *b)?)),
                Op::Three { f, d, a, b, c } => {
                    let value = f(self.read(entry, *a)?, self.read(entry, *b)?, self.read(entry, *c)?);
                    self.write(*d, value);
                }
                Op::Convert { conversion, d, a } => self.write(*d, conversion.apply(self.read(entry, *a)?)),
                Op::Branch { target } => {
                    self.pc = *target;
                    continue;
                }
                Op::Load { access, d } => self.load(around, *access, d)?,
                Op::Store { access, a } => self.store(around, *access, a)?,
                Op::Atomic { access, f, d, a } => self.atomic(around, *access, *f, *d, *a)?,
                Op::Insert { wide, d, a, b, start, length } => {
                    let (a, b) = (self.read(entry, *a)?, self.read(entry, *b)?);
                    let (start, length) = (self.read(entry, *start)?, self.read(entry, *length)?);
                    self.write(*d, arith::insert(*wide, a, b, start, length));
                }
                Op::Unpack { low, high, a } => {
                    let value = self.read(entry, *a)?;
                    self.write(*low, value & 0xffff_ffff);
                    self.write(*high, value >> 32);
                }
                Op::Return => self.state = State::Done,
                Op::Barrier => self.state = State::Barrier,
                Op::Warp { .. } => self.state = State::Warp,
            }
            if self.state != State::Ready {
                return Ok(());
            }
            self.pc += 1;
        }
        Ok(())
    }

    /// The memory that an access means, its offset there, and who touches it.
    fn place<'m>(
        &self,
        around: &'m mut Surroundings<'_>,
        access: Access,
    ) -> Result<(&'m mut Memory, u64, Toucher<'m>), Problem> {
        let address = self.read(around.entry, access.base)?.wrapping_add(access.offset as u64);
        let by =
            Toucher { segments: around.segments, segment: self.segment, pc: self.pc, space: access.space };
        match access.space {
            Space::Shared => Ok((around.shared, address & 0xffff_ffff, by)),
            Space::Param => Ok((around.params, address, by)),
            Space::Global => {
                let (buffer, offset) = locate(address);
                let memory = buffer.and_then(|buffer| around.buffers.get_mut(buffer));
                let bytes = u32::from(access.width) * u32::from(access.lanes);
                let nowhere = FaultKind::OutOfBounds { space: Space::Global, offset, bytes, size: 0 };
                Ok((memory.ok_or(Problem::Kind(nowhere))?, offset, by))
            }
        }
    }

    fn load(&mut self, around: &mut Surroundings<'_>, access: Access, d: &[Slot; 4]) -> Result<(), Problem> {
        let width = usize::from(access.width);
        let (memory, offset, by) = self.place(around, access)?;
        let bytes = memory.load(offset, (width * usize::from(access.lanes)) as u32, by)?;
        for (slot, bytes) in d.iter().zip(bytes.chunks_exact(width)) {
            let value = number(bytes);
            let value = if access.signed && width < 4 {
                // Into a register of 32 bits at least (*ld*).
                extend(value, access.width * 8, true) as u32 as u64
            } else {
                value
            };
            self.write(*slot, value);
        }
        Ok(())
    }

    fn store(&mut self, around: &mut Surroundings<'_>, access: Access, a: &[Slot; 4]) -> Result<(), Problem> {
        let (width, lanes) = (usize::from(access.width), usize::from(access.lanes));
        let mut content = [0; 32];
        for (slot, bytes) in a[..lanes].iter().zip(content.chunks_exact_mut(width)) {
            bytes.copy_from_slice(&self.read(around.entry, *slot)?.to_le_bytes()[..width]);
        }
        let (memory, offset, by) = self.place(around, access)?;
        memory.store(offset, &content[..width * lanes], by)
    }

    fn atomic(
        &mut self,
        around: &mut Surroundings<'_>,
        access: Access,
        f: fn(u64, u64) -> u64,
        d: Slot,
        a: Slot,
    ) -> Result<(), Problem> {
        let operand = self.read(around.entry, a)?;
        let (memory, offset, by) = self.place(around, access)?;
        let old = memory.atomic(offset, access.width.into(), |old| f(old, operand), by)?;
        self.write(d, old);
        Ok(())
    }
}

impl Position {
    fn read(&self, special: Special) -> u32 {
        match special {
            Special::Thread(axis) => self.thread[usize::from(axis)],
            Special::Threads(axis) => self.threads[usize::from(axis)],
            Special::Block(axis) => self.block[usize::from(axis)],
            Special::Blocks(axis) => self.blocks[usize::from(axis)],
            Special::Lane => self.lane,
        }
    }
}
