//! Runs PTX without a GPU, and finds what a GPU would hide.
//!
//! A [`Module`] is parsed from the text that ships; [`Device`] holds memory; [`Device::launch`] runs a grid, thread by
//! thread, in an [`Order`] of choice. Reads outside of a buffer, misaligned ones, reads of what nobody wrote, barriers
//! that not all threads reach, and two threads that touch the same byte without a barrier between them are a
//! [`Fault`] that names file and line of the CUDA source.
//!
//! What it holds a kernel to is stricter than what a GPU does: threads of a warp are not in step, each of them is on
//! its own between barriers; a thread that has ended does not count as one that reached a barrier; floats must name
//! their rounding, because what does not may be fused by the next driver.
//!
//! ```
//! use cocoon_ptx_check::{Arg, Device, Grid, Limits, Module, Order};
//!
//! // Both threads write the first word of `out`, with nothing between them.
//! let module = Module::parse(
//!     ".visible .entry both(
//!         .param .u64 both_param_0
//!     )
//!     {
//!         .reg .b64 %rd<2>;
//!         .loc 1 3 5
//!         ld.param.u64 %rd1, [both_param_0];
//!         st.global.u32 [%rd1], 1;
//!         ret;
//!     }
//!     .file 1 \"both.cu\"",
//! )?;
//! let mut device = Device::new(Limits::default());
//! let out = device.allocate(4);
//! let error = device.launch(&module, "both", Grid::new(1, 1, 2), &[Arg::Out(out, 0)], Order::Forward);
//! assert_eq!(
//!     error.expect_err("a race").to_string(),
//!     "both: both.cu:3: block 0, thread 1: global memory at offset 0 is a race with thread 0 of block 0 at \
//!      both.cu:3, which wrote it"
//! );
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! The subset is what `kernels/cuda` compiles to. Anything else is a [`ParseError`], never a guess: no local memory,
//! no textures, no calls, no tensor cores, no asynchronous copies.
//!
//! After *Parallel Thread Execution ISA*, version 9; names of chapters stand where a rule comes from.

mod arith;
mod body;
mod convert;
mod decode;
mod error;
mod exchange;
mod instruction;
mod machine;
mod memory;
mod order;
mod parse;
mod shadow;
mod thread;

pub use error::{Fault, FaultKind, LaunchError, ParseError, Place, Space};
pub use machine::{Grid, Limits, Statistics};
pub use memory::{Arg, Buffer, Device};
pub use order::Order;
pub use parse::{Entry, Module};
