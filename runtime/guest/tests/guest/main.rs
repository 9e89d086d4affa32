//! The guest as a process: started as a host starts it, spoken to over its sockets.

mod child;
mod common;
mod embeddings;
mod endpoints;
mod fuzz_decoders;
mod gpu;
mod hostile;
mod http;
#[path = "../../../../kernels/tests/common/mod.rs"]
mod interpreter;
mod journey;
mod load;
mod native_tools;
mod real_child;
mod refusals;
#[path = "../../../supervisor/tests/stand_in/server.rs"]
mod stand_in;
mod vm;
