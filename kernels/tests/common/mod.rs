//! The interpreter as a device, numbers that look random, and the CPU engine's arithmetic in its plainest form.

#![allow(dead_code, reason = "each test uses a part of it")]

pub(crate) mod gguf;
pub(crate) mod law;

use std::{collections::HashMap, sync::OnceLock};

use cocoon_kernels::{Arg, Backend, Grid, Kernel, MODULES, TARGETS, Target, ptx};
use cocoon_ptx_check as check;

/// Orders that every kernel is run in.
pub(crate) const ORDERS: [check::Order; 4] =
    [check::Order::Forward, check::Order::Reversed, check::Order::Seeded(1), check::Order::Seeded(2)];

/// A module of the PTX that ships, parsed once.
pub(crate) fn module(name: &'static str, target: Target) -> &'static check::Module {
    static MODULES_PARSED: OnceLock<HashMap<(&'static str, Target), check::Module>> = OnceLock::new();
    let parse = || {
        let each = |name: &&'static str| TARGETS.map(|target| ((*name, target), parse(name, target)));
        MODULES.iter().flat_map(each).collect()
    };
    &MODULES_PARSED.get_or_init(parse)[&(name, target)]
}

fn parse(name: &str, target: Target) -> check::Module {
    let text = ptx(name, target).expect("listed");
    check::Module::parse(text).unwrap_or_else(|error| panic!("{name} for {target:?}: {error}"))
}

/// The interpreter, with one target's PTX and one order.
pub(crate) struct Interpreter {
    pub(crate) device: check::Device,
    pub(crate) target: Target,
    pub(crate) order: check::Order,
    pub(crate) instructions: u64,
    /// What is launched while a recording is made.
    recording: Option<Vec<Recorded>>,
}

/// A launch that is kept, with its arguments as they were.
#[derive(Clone)]
pub(crate) struct Recorded {
    kernel: Kernel,
    grid: Grid,
    args: Vec<Kept>,
}

#[derive(Clone)]
enum Kept {
    In(check::Buffer, u64),
    Out(check::Buffer, u64),
    U32(u32),
    F32(f32),
    Bytes(Vec<u8>),
}

impl Kept {
    fn new(arg: &Arg<'_, check::Buffer>) -> Self {
        match arg {
            Arg::In(buffer, at) => Self::In(**buffer, *at),
            Arg::Out(buffer, at) => Self::Out(**buffer, *at),
            Arg::U32(value) => Self::U32(*value),
            Arg::F32(value) => Self::F32(*value),
            Arg::Bytes(bytes) => Self::Bytes(bytes.to_vec()),
        }
    }

    fn arg(&self) -> Arg<'_, check::Buffer> {
        match self {
            Self::In(buffer, at) => Arg::In(buffer, *at),
            Self::Out(buffer, at) => Arg::Out(buffer, *at),
            Self::U32(value) => Arg::U32(*value),
            Self::F32(value) => Arg::F32(*value),
            Self::Bytes(bytes) => Arg::Bytes(bytes),
        }
    }
}

impl Interpreter {
    pub(crate) fn new(target: Target, order: check::Order) -> Self {
        Self {
            device: check::Device::new(check::Limits::default()),
            target,
            order,
            instructions: 0,
            recording: None,
        }
    }

    /// Every target in every order.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        TARGETS.into_iter().flat_map(|target| ORDERS.map(|order| Self::new(target, order)))
    }

    pub(crate) fn floats(&mut self, values: &[f32]) -> check::Buffer {
        self.device.upload(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
    }

    pub(crate) fn words(&mut self, values: &[u32]) -> check::Buffer {
        self.device.upload(&values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>())
    }

    /// All bits of a buffer of floats, every one of which was written.
    pub(crate) fn bits(&self, buffer: check::Buffer) -> Vec<u32> {
        let bytes = self.device.read(buffer).expect("all of it was written").chunks_exact(4);
        bytes.map(|word| u32::from_le_bytes(word.try_into().expect("four bytes"))).collect()
    }

    /// Keeps what is launched from now on.
    pub(crate) fn begin_recording(&mut self) {
        self.recording = Some(Vec::new());
    }

    /// What was launched since.
    pub(crate) fn end_recording(&mut self) -> Vec<Recorded> {
        self.recording.take().unwrap_or_default()
    }

    /// Launches, and panics with what a thread did wrong.
    pub(crate) fn go(&mut self, kernel: Kernel, grid: Grid, args: &[Arg<'_, check::Buffer>]) {
        let (target, order) = (self.target, self.order);
        self.launch(kernel, grid, args).unwrap_or_else(|error| panic!("{target:?}, {order:?}: {error}"));
    }
}

impl Backend for Interpreter {
    type Buffer = check::Buffer;
    type Error = check::LaunchError;
    type Recording = Vec<Recorded>;

    fn allocate(&mut self, bytes: usize) -> Result<check::Buffer, check::LaunchError> {
        Ok(self.device.allocate(bytes))
    }

    fn write(&mut self, buffer: &check::Buffer, content: &[u8]) -> Result<(), check::LaunchError> {
        self.device.write(*buffer, 0, content);
        Ok(())
    }

    fn read(&mut self, buffer: &check::Buffer, bytes: usize) -> Result<Vec<u8>, check::LaunchError> {
        Ok(self.device.read_any(*buffer)[..bytes].to_vec())
    }

    fn wipe(&mut self, buffer: &check::Buffer) -> Result<(), check::LaunchError> {
        let length = self.device.read_any(*buffer).len();
        self.device.write(*buffer, 0, &vec![0; length]);
        Ok(())
    }

    fn launch(
        &mut self,
        kernel: Kernel,
        grid: Grid,
        args: &[Arg<'_, check::Buffer>],
    ) -> Result<(), check::LaunchError> {
        if let Some(recording) = &mut self.recording {
            recording.push(Recorded { kernel, grid, args: args.iter().map(Kept::new).collect() });
        }
        let args: Vec<check::Arg<'_>> = args.iter().map(translate).collect();
        let module = module(kernel.module(), self.target);
        let grid = check::Grid::new(grid.x, grid.y, grid.threads);
        let done = self.device.launch(module, kernel.entry(), grid, &args, self.order)?;
        self.instructions += done.instructions;
        Ok(())
    }

    fn record(
        &mut self,
        body: &mut dyn FnMut(&mut Self) -> Result<(), check::LaunchError>,
    ) -> Result<Vec<Recorded>, check::LaunchError> {
        self.begin_recording();
        let result = body(self);
        let recording = self.end_recording();
        result.map(|()| recording)
    }

    fn replay(&mut self, recording: &Vec<Recorded>) -> Result<(), check::LaunchError> {
        recording.iter().try_for_each(|launch| {
            let args: Vec<_> = launch.args.iter().map(Kept::arg).collect();
            self.launch(launch.kernel, launch.grid, &args)
        })
    }
}

pub(crate) fn translate<'a>(arg: &Arg<'a, check::Buffer>) -> check::Arg<'a> {
    match arg {
        Arg::In(buffer, at) => check::Arg::In(**buffer, *at),
        Arg::Out(buffer, at) => check::Arg::Out(**buffer, *at),
        Arg::U32(value) => check::Arg::U32(*value),
        Arg::F32(value) => check::Arg::F32(*value),
        Arg::Bytes(bytes) => check::Arg::Bytes(bytes),
    }
}

/// Numbers that look random and are the same for the same seed: SplitMix64 (Steele et al., 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }

    /// From -1 to 1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn floats(&mut self, count: usize, size: f32) -> Vec<f32> {
        (0..count).map(|_| self.unit() * size).collect()
    }

    pub(crate) fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }

    /// So many blocks as GGUF has them, with weights of about a hundredth to one; single numbers count as blocks.
    pub(crate) fn blocks(&mut self, format: cocoon_kernels::Format, count: usize) -> Vec<u8> {
        use cocoon_kernels::Format;
        let mut blocks = Vec::new();
        for _ in 0..count {
            let start = blocks.len();
            match format {
                Format::F32 => blocks.extend(self.unit().to_le_bytes()),
                Format::F16 => blocks.extend(law::narrow(self.unit()).to_le_bytes()),
                Format::Bf16 => blocks.extend(&self.unit().to_le_bytes()[2..]),
                _ => blocks.extend(self.bytes(format.block_bytes())),
            }
            let scales: &[(usize, f32)] = match format {
                Format::F32 | Format::F16 | Format::Bf16 => &[],
                Format::Q4_0 | Format::Q5_0 | Format::Q8_0 => &[(0, 0.02)],
                Format::Q4_1 => &[(0, 0.02), (2, 0.1)],
                Format::Q4K | Format::Q5K => &[(0, 0.003), (2, 0.03)],
                Format::Q6K => &[(208, 0.003)],
            };
            for (at, size) in scales {
                let half = law::narrow(self.unit() * size).to_le_bytes();
                blocks[start + at..start + at + 2].copy_from_slice(&half);
            }
        }
        blocks
    }
}

/// That each value is near what double precision says.
pub(crate) fn assert_near(found: &[u32], expected: &[f64], relative: f64, absolute: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let found = f64::from(f32::from_bits(*found));
        let error = (found - expected).abs();
        assert!(
            error <= relative * expected.abs() + absolute,
            "{what}[{index}]: {found}, where {expected} is right"
        );
    }
}

pub(crate) fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}
