//! A GPU through NVIDIA's driver, which is loaded at run time: programs with this start where there is none.
//!
//! **Never tried on hardware.** What is launched, on what and in which order is what the interpreter runs in tests; this
//! file alone is not. [`crate::Decoder::new`] asks the canary before anything else.

use std::{collections::HashMap, ffi::c_void, sync::Arc};

use cudarc::{
    driver::{
        CudaContext, CudaFunction, CudaGraph, CudaSlice, CudaStream, DevicePtr as _, DriverError, result, sys,
    },
    nvrtc::Ptx,
};

use crate::{
    backend::{Arg, Backend},
    kernel::{Grid, Kernel},
    ptx::{Target, params, ptx},
};

/// Why a GPU cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CudaError {
    /// There is no driver on this machine.
    #[error("there is no NVIDIA driver here (libcuda is missing)")]
    NoDriver,
    /// The driver knows no such GPU.
    #[error("there is no GPU with number {0}")]
    NoDevice(usize),
    /// The GPU is older than the kernels.
    #[error(
        "the GPU is of compute capability {major}.{minor}; 8.0 is the oldest that the kernels are made for"
    )]
    TooOld {
        /// Major part.
        major: i32,
        /// Minor part.
        minor: i32,
    },
    /// A copy is longer than its buffer.
    #[error("{bytes} bytes do not fit a buffer of {room}")]
    Length {
        /// To be copied.
        bytes: usize,
        /// Of the buffer.
        room: usize,
    },
    /// Arguments are not those that a kernel declares.
    #[error("{kernel} takes parameters of {expected:?} bytes, not of {found:?}")]
    Arguments {
        /// Its entry.
        kernel: &'static str,
        /// Bytes of each parameter.
        expected: Vec<usize>,
        /// Bytes of each argument.
        found: Vec<usize>,
    },
    /// The driver captured no launch.
    #[error("the driver captured nothing of a step")]
    EmptyGraph,
    /// The driver refused something.
    #[error("{what}: the driver says {error:?}")]
    Driver {
        /// What it was asked for.
        what: &'static str,
        /// Its answer.
        error: DriverError,
    },
}

/// Says what was asked for when the driver refuses.
fn at(what: &'static str) -> impl Fn(DriverError) -> CudaError {
    move |error| CudaError::Driver { what, error }
}

/// Whether this machine has the driver's library. Without it nothing else of this module does anything.
pub fn is_present() -> bool {
    #[expect(unsafe_code, reason = "a library's own initialisers run when it is loaded")]
    // SAFETY: only libcuda by its system name is opened, which is part of the measured image, or absent.
    unsafe {
        sys::is_culib_present()
    }
}

/// One GPU, with all kernels loaded, and one stream on which they run in order.
pub struct Cuda {
    stream: Arc<CudaStream>,
    /// Each with the bytes of its parameters.
    functions: HashMap<Kernel, (CudaFunction, Vec<usize>)>,
    target: Target,
}

impl Cuda {
    /// Opens the GPU of this number and loads every kernel.
    ///
    /// # Errors
    /// There is no driver or no such GPU, it is too old, or the driver does not take the PTX.
    pub fn open(number: usize) -> Result<Self, CudaError> {
        if !is_present() {
            return Err(CudaError::NoDriver);
        }
        result::init().map_err(at("starting"))?;
        let count = CudaContext::device_count().map_err(at("counting GPUs"))?;
        if number >= usize::try_from(count).unwrap_or(0) {
            return Err(CudaError::NoDevice(number));
        }
        let context = CudaContext::new(number).map_err(at("opening the GPU"))?;
        #[expect(unsafe_code, reason = "the driver's calls are")]
        // SAFETY: one stream runs everything, in order, so there is no other that it would have to wait for. Events that
        // are recorded between launches must not get into a graph.
        unsafe {
            context.disable_event_tracking();
        }
        let (major, minor) = context.compute_capability().map_err(at("asking for the GPU's kind"))?;
        let parts = u32::try_from(major).ok().zip(u32::try_from(minor).ok());
        let target = parts.and_then(|(major, minor)| Target::of(major, minor));
        let target = target.ok_or(CudaError::TooOld { major, minor })?;
        let (mut modules, mut functions) = (HashMap::new(), HashMap::new());
        for kernel in Kernel::ALL {
            let module = match modules.get(kernel.module()) {
                Some(module) => Arc::clone(module),
                None => {
                    let text = ptx(kernel.module(), target).expect("every kernel's module is embedded");
                    let module = context.load_module(Ptx::from_src(text)).map_err(at("loading PTX"))?;
                    modules.insert(kernel.module(), Arc::clone(&module));
                    module
                }
            };
            let sizes = params(kernel.module(), kernel.entry(), target).expect("every kernel declares them");
            let function = module.load_function(kernel.entry()).map_err(at("finding a kernel"))?;
            functions.insert(kernel, (function, sizes));
        }
        let stream = context.new_stream().map_err(at("making a stream"))?;
        Ok(Self { stream, functions, target })
    }

    /// Which PTX it runs.
    pub fn target(&self) -> Target {
        self.target
    }

    fn address(&self, buffer: &CudaSlice<u8>) -> sys::CUdeviceptr {
        buffer.device_ptr(&self.stream).0
    }

    /// The driver's calls are about the GPU that this thread is bound to.
    fn bind(&self) -> Result<(), CudaError> {
        self.stream.context().bind_to_thread().map_err(at("binding the GPU"))
    }
}

impl Backend for Cuda {
    type Buffer = CudaSlice<u8>;
    type Error = CudaError;
    type Recording = CudaGraph;

    fn allocate(&mut self, bytes: usize) -> Result<CudaSlice<u8>, CudaError> {
        // Wiped: what another process left there is nobody's here.
        self.stream.alloc_zeros(bytes.max(1)).map_err(at("allocating"))
    }

    fn write(&mut self, buffer: &CudaSlice<u8>, content: &[u8]) -> Result<(), CudaError> {
        if content.len() > buffer.len() {
            return Err(CudaError::Length { bytes: content.len(), room: buffer.len() });
        }
        self.bind()?;
        let address = self.address(buffer);
        #[expect(unsafe_code, reason = "the driver's calls are")]
        // SAFETY: the buffer is alive and at least as long; the copy is over before `content` is given back.
        unsafe { result::memcpy_htod_async(address, content, self.stream.cu_stream()) }
            .map_err(at("copying to the GPU"))?;
        self.stream.synchronize().map_err(at("copying to the GPU"))
    }

    fn read(&mut self, buffer: &CudaSlice<u8>, bytes: usize) -> Result<Vec<u8>, CudaError> {
        if bytes > buffer.len() {
            return Err(CudaError::Length { bytes, room: buffer.len() });
        }
        self.bind()?;
        let mut content = vec![0; bytes];
        let address = self.address(buffer);
        #[expect(unsafe_code, reason = "the driver's calls are")]
        // SAFETY: the buffer is alive and at least as long; the copy is over before `content` is given away.
        unsafe { result::memcpy_dtoh_async(&mut content, address, self.stream.cu_stream()) }
            .map_err(at("copying from the GPU"))?;
        self.stream.synchronize().map_err(at("running kernels"))?;
        Ok(content)
    }

    fn record(
        &mut self,
        body: &mut dyn FnMut(&mut Self) -> Result<(), CudaError>,
    ) -> Result<CudaGraph, CudaError> {
        // Once for real: the driver may load a kernel when it is first launched, which it must not while it captures.
        body(self)?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        self.stream.begin_capture(mode).map_err(at("beginning a graph"))?;
        let result = body(self);
        // Ended in any case, or the stream would capture for ever.
        let graph = self.stream.end_capture(sys::CUgraphInstantiate_flags(0)).map_err(at("ending a graph"));
        result?;
        graph?.ok_or(CudaError::EmptyGraph)
    }

    fn replay(&mut self, graph: &CudaGraph) -> Result<(), CudaError> {
        graph.launch().map_err(at("launching a graph"))
    }

    fn wipe(&mut self, buffer: &CudaSlice<u8>) -> Result<(), CudaError> {
        self.bind()?;
        #[expect(unsafe_code, reason = "the driver's calls are")]
        // SAFETY: the buffer is alive, and this is its length.
        unsafe { result::memset_d8_async(self.address(buffer), 0, buffer.len(), self.stream.cu_stream()) }
            .map_err(at("wiping"))?;
        self.stream.synchronize().map_err(at("wiping"))
    }

    fn launch(
        &mut self,
        kernel: Kernel,
        grid: Grid,
        args: &[Arg<'_, CudaSlice<u8>>],
    ) -> Result<(), CudaError> {
        let (function, expected) = self.functions.get(&kernel).expect("all kernels were loaded");
        let found: Vec<usize> = args.iter().map(size).collect();
        if found != *expected {
            return Err(CudaError::Arguments { kernel: kernel.entry(), expected: expected.clone(), found });
        }
        // Values first, then pointers to them: they must not move in between.
        let mut values: Vec<Vec<u64>> = Vec::with_capacity(args.len());
        for arg in args {
            values.push(match arg {
                Arg::In(buffer, offset) | Arg::Out(buffer, offset) => vec![self.address(buffer) + offset],
                Arg::U32(value) => vec![u64::from(*value)],
                Arg::F32(value) => vec![u64::from(value.to_bits())],
                Arg::Bytes(bytes) => bytes.chunks(8).map(word).collect(),
            });
        }
        let mut pointers: Vec<*mut c_void> =
            values.iter_mut().map(|value| value.as_mut_ptr().cast()).collect();
        self.bind()?;
        #[expect(unsafe_code, reason = "the driver's calls are")]
        // SAFETY: there are as many values as the kernel has parameters, each as long as its parameter (x86-64 is
        // little-endian, so that a 32-bit value is the begin of its 64-bit one), and the driver has copied them when it
        // returns. What the kernel does on the device is its own memory's affair, and is what the interpreter checks.
        unsafe {
            result::launch_kernel(
                function.cu_function(),
                (grid.x, grid.y, 1),
                (grid.threads, 1, 1),
                0,
                self.stream.cu_stream(),
                &mut pointers,
            )
        }
        .map_err(at("launching a kernel"))
    }
}

fn size(arg: &Arg<'_, CudaSlice<u8>>) -> usize {
    match arg {
        Arg::In(..) | Arg::Out(..) => 8,
        Arg::U32(_) | Arg::F32(_) => 4,
        Arg::Bytes(bytes) => bytes.len(),
    }
}

/// Up to eight bytes, the first in the lowest place.
fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte))
}
