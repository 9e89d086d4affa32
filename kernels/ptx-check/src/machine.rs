//! A launch: blocks one after the other, their threads in a chosen order between what they wait for together.

use crate::{
    error::{Fault, FaultKind, LaunchError},
    exchange::{Inputs, exchange},
    instruction::{Op, Warp},
    memory::{Arg, Device, Memory, Mode, Problem},
    order::{Chooser, Order},
    parse::{Entry, Module},
    shadow::Segment,
    thread::{Position, Start, State, Surroundings, Thread},
};

/// Most threads of a block.
const MAX_THREADS: u64 = 1024;
/// Most blocks of a grid.
const MAX_BLOCKS: u64 = 1 << 20;

/// What a device may use.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Instructions of one launch, over all threads.
    pub instructions: u64,
    /// Bytes of all buffers.
    pub memory: u64,
}

impl Default for Limits {
    /// Two thousand million instructions, a gigabyte.
    fn default() -> Self {
        Self { instructions: 2_000_000_000, memory: 1 << 30 }
    }
}

/// Blocks of a grid and threads of a block, along x, y and z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Blocks.
    pub blocks: [u32; 3],
    /// Threads of each.
    pub threads: [u32; 3],
}

impl Grid {
    /// A grid along x and y, of blocks along x.
    pub fn new(x: u32, y: u32, threads: u32) -> Self {
        Self { blocks: [x, y, 1], threads: [threads, 1, 1] }
    }
}

/// What a launch took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Instructions, over all threads.
    pub instructions: u64,
    /// Barriers of blocks.
    pub barriers: u64,
}

impl Device {
    /// Runs a kernel to its end.
    ///
    /// # Errors
    /// The arguments do not fit the entry, or a thread did something that no thread may do.
    pub fn launch(
        &mut self,
        module: &Module,
        entry: &str,
        grid: Grid,
        args: &[Arg<'_>],
        order: Order,
    ) -> Result<Statistics, LaunchError> {
        let entry = module.entry(entry).ok_or_else(|| LaunchError::NoEntry(entry.to_owned()))?;
        check_grid(entry, grid)?;
        let mut params = self.bind(entry, args)?;
        if !self.segments.next_launch() {
            self.buffers.iter_mut().for_each(Memory::forget);
        }
        let mut shared = Memory::new(entry.shared_bytes as usize);
        shared.watch();
        let threads = grid.threads.iter().product::<u32>();
        let mut launch = Launch {
            entry,
            grid,
            device: self,
            params: &mut params,
            shared,
            start: Start::new(entry),
            threads: (0..threads).map(|_| Thread::new()).collect(),
            epochs: Epochs::default(),
            budget: 0,
            chooser: Chooser::new(order),
            barriers: 0,
        };
        launch.budget = launch.device.limits.instructions;
        let blocks = launch.chooser.order(grid.blocks.iter().product());
        for block in blocks {
            launch.block(block)?;
        }
        let instructions = launch.device.limits.instructions - launch.budget;
        Ok(Statistics { instructions, barriers: launch.barriers })
    }

    /// Parameters as bytes; buffers become visible to the launch.
    fn bind(&mut self, entry: &Entry, args: &[Arg<'_>]) -> Result<Memory, LaunchError> {
        let fail = |index, what: String| LaunchError::Argument { kernel: entry.name.clone(), index, what };
        if args.len() != entry.params.len() {
            return Err(fail(args.len(), format!("{} are needed", entry.params.len())));
        }
        self.buffers.iter_mut().for_each(|buffer| buffer.mode = Mode::Hidden);
        let end = entry.params.last().map_or(0, |(offset, size)| offset + size);
        let mut bytes = vec![0; end as usize];
        for (index, (arg, (offset, size))) in args.iter().zip(&entry.params).enumerate() {
            let (four, eight);
            let content: &[u8] = match arg {
                Arg::U32(value) => {
                    four = value.to_le_bytes();
                    &four
                }
                Arg::F32(value) => {
                    four = value.to_le_bytes();
                    &four
                }
                Arg::Bytes(bytes) => bytes,
                Arg::In(buffer, at) | Arg::Out(buffer, at) => {
                    let memory = self.buffers.get_mut(buffer.0);
                    let memory = memory.ok_or_else(|| fail(index, "no such buffer".to_owned()))?;
                    if matches!(arg, Arg::Out(..)) {
                        memory.watch();
                    } else if memory.mode == Mode::Hidden {
                        memory.mode = Mode::Read;
                    }
                    eight = (buffer.address() + at).to_le_bytes();
                    &eight
                }
            };
            if content.len() as u64 != *size {
                return Err(fail(index, format!("{} bytes, where {size} are needed", content.len())));
            }
            bytes[*offset as usize..(offset + size) as usize].copy_from_slice(content);
        }
        let mut device = Device::default();
        device.limits.memory = u64::MAX;
        let buffer = device.upload(&bytes);
        let mut params = std::mem::take(&mut device.buffers[buffer.0]);
        params.mode = Mode::Read;
        Ok(params)
    }
}

fn check_grid(entry: &Entry, grid: Grid) -> Result<(), LaunchError> {
    let product = |sizes: [u32; 3]| sizes.iter().try_fold(1u64, |all, size| all.checked_mul((*size).into()));
    let most = entry.max_threads.map_or(MAX_THREADS, |most| MAX_THREADS.min(most.into()));
    for (what, sizes, most) in [("threads", grid.threads, most), ("blocks", grid.blocks, MAX_BLOCKS)] {
        if !product(sizes).is_some_and(|all| (1..=most).contains(&all)) {
            return Err(LaunchError::Grid(format!("{}: {sizes:?} {what}; 1 to {most} can be", entry.name)));
        }
    }
    Ok(())
}

/// Barriers that lie behind.
#[derive(Default)]
struct Epochs {
    block: u32,
    warps: Vec<u32>,
}

struct Launch<'l> {
    entry: &'l Entry,
    grid: Grid,
    device: &'l mut Device,
    params: &'l mut Memory,
    shared: Memory,
    start: Start,
    threads: Vec<Thread>,
    epochs: Epochs,
    budget: u64,
    chooser: Chooser,
    barriers: u64,
}

impl Launch<'_> {
    fn block(&mut self, block: u32) -> Result<(), LaunchError> {
        self.begin(block)?;
        loop {
            for index in self.chooser.order(self.threads.len() as u32) {
                self.turn(block, index)?;
            }
            if self.threads.iter().any(|thread| thread.state == State::Ready) {
                continue; // somebody was broken off
            }
            let mut moved = false;
            for warp in 0..self.threads.len().div_ceil(32) {
                moved |= self.warp(block, warp)?;
            }
            if !moved && !self.barrier(block)? {
                return Ok(());
            }
        }
    }

    fn begin(&mut self, block: u32) -> Result<(), LaunchError> {
        let split = |index: u32, sizes: [u32; 3]| {
            [index % sizes[0], index / sizes[0] % sizes[1], index / sizes[0] / sizes[1]]
        };
        self.shared.reset(self.device.segments.next());
        self.epochs = Epochs { block: 0, warps: vec![0; self.threads.len().div_ceil(32)] };
        for index in 0..self.threads.len() {
            let position = Position {
                thread: split(index as u32, self.grid.threads),
                threads: self.grid.threads,
                block: split(block, self.grid.blocks),
                blocks: self.grid.blocks,
                lane: index as u32 % 32,
            };
            let segment = self.segment(block, index)?;
            self.threads[index].begin(&self.start, &position, segment);
        }
        Ok(())
    }

    fn segment(&mut self, block: u32, index: usize) -> Result<u32, LaunchError> {
        let segment = Segment {
            block,
            thread: index as u16,
            block_epoch: self.epochs.block,
            warp_epoch: self.epochs.warps[index / 32],
        };
        let number = self.device.segments.begin(segment);
        number.ok_or_else(|| {
            self.fault(block, index, FaultKind::Limit { what: "stretches between barriers", limit: 1 << 26 })
        })
    }

    fn fault(&self, block: u32, index: usize, kind: FaultKind) -> LaunchError {
        let place = self.entry.place(self.threads[index].pc);
        let fault = Fault { kernel: self.entry.name.clone(), place, block, thread: index as u32, kind };
        LaunchError::Fault(Box::new(fault))
    }

    fn problem(&self, block: u32, index: usize, problem: Problem) -> LaunchError {
        let kind = match problem {
            Problem::Kind(kind) => kind,
            Problem::Race(offset, conflict) => FaultKind::Race {
                space: conflict.space,
                offset,
                block: conflict.segment.block,
                thread: conflict.segment.thread.into(),
                place: self.entry.place(conflict.pc),
                wrote: conflict.wrote,
            },
        };
        self.fault(block, index, kind)
    }

    /// Lets one thread run, if it can.
    fn turn(&mut self, block: u32, index: u32) -> Result<(), LaunchError> {
        let index = index as usize;
        if self.threads[index].state != State::Ready {
            return Ok(());
        }
        let quantum = self.chooser.quantum();
        let mut around = Surroundings {
            entry: self.entry,
            buffers: &mut self.device.buffers,
            shared: &mut self.shared,
            params: self.params,
            segments: &self.device.segments,
            budget: &mut self.budget,
        };
        let result = self.threads[index].run(&mut around, quantum);
        result.map_err(|problem| self.problem(block, index, problem))?;
        if self.budget == 0 {
            let limit = self.device.limits.instructions;
            return Err(self.fault(block, index, FaultKind::Limit { what: "instructions", limit }));
        }
        Ok(())
    }

    /// Lets all threads that wait at a barrier of the block go on; false when all have ended.
    fn barrier(&mut self, block: u32) -> Result<bool, LaunchError> {
        let waits = |thread: &Thread| thread.state == State::Barrier;
        let Some(first) = self.threads.iter().position(waits) else { return Ok(false) };
        let pc = self.threads[first].pc;
        if let Some(other) = self.threads.iter().position(|thread| !waits(thread) || thread.pc != pc) {
            let ended = self.threads[other].state == State::Done;
            return Err(self.fault(block, first, FaultKind::DivergentBarrier { other: other as u32, ended }));
        }
        self.barriers += 1;
        self.epochs.block += 1;
        for index in 0..self.threads.len() {
            let segment = self.segment(block, index)?;
            let thread = &mut self.threads[index];
            (thread.segment, thread.state) = (segment, State::Ready);
            thread.pc += 1;
        }
        Ok(true)
    }

    /// Carries out what threads of a warp wait to do together; whether there was something.
    fn warp(&mut self, block: u32, warp: usize) -> Result<bool, LaunchError> {
        let first = warp * 32;
        let count = (self.threads.len() - first).min(32);
        let mut moved = false;
        for lane in 0..count {
            if self.threads[first + lane].state == State::Warp {
                self.together(block, first, count, lane)?;
                moved = true;
            }
        }
        Ok(moved)
    }

    fn together(&mut self, block: u32, first: usize, count: usize, lane: usize) -> Result<(), LaunchError> {
        let pc = self.threads[first + lane].pc;
        let Op::Warp { what, d, p, a, b, c, mask } = self.entry.code[pc as usize].op else {
            unreachable!("a thread waits in its warp at an instruction of the warp alone");
        };
        let mut inputs: Inputs = [None; 32];
        let wanted = self.value(block, first + lane, mask)? as u32;
        if wanted >> lane & 1 == 0 || (count < 32 && wanted >> count != 0 && wanted != u32::MAX) {
            return Err(self.fault(block, first + lane, FaultKind::Mask { mask: wanted }));
        }
        for (other, input) in inputs.iter_mut().enumerate().take(count) {
            if wanted >> other & 1 == 0 {
                continue;
            }
            let index = first + other;
            let here = self.threads[index].state == State::Warp && self.threads[index].pc == pc;
            if !here || self.value(block, index, mask)? as u32 != wanted {
                return Err(self.fault(
                    block,
                    first + lane,
                    FaultKind::DivergentWarp { other: index as u32 },
                ));
            }
            let read = |slot| self.value(block, index, slot);
            *input = Some((read(a)?, read(b)? as u32, read(c)? as u32));
        }
        if what == Warp::Sync {
            self.epochs.warps[first / 32] += 1;
        }
        for other in (0..count).filter(|other| wanted >> other & 1 == 1) {
            let (value, flag) = exchange(what, &inputs, other as u32)
                .ok_or_else(|| self.fault(block, first + other, FaultKind::Mask { mask: wanted }))?;
            let segment = if what == Warp::Sync { Some(self.segment(block, first + other)?) } else { None };
            let thread = &mut self.threads[first + other];
            thread.write(d, value);
            thread.write(p, flag.into());
            thread.segment = segment.unwrap_or(thread.segment);
            thread.state = State::Ready;
            thread.pc += 1;
        }
        Ok(())
    }

    fn value(&self, block: u32, index: usize, slot: u16) -> Result<u64, LaunchError> {
        let value = self.threads[index].read(self.entry, slot);
        value.map_err(|problem| self.problem(block, index, problem))
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
