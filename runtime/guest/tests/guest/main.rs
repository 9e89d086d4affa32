//! The guest as a process: started as a host starts it, spoken to over its sockets.

mod common;
mod endpoints;
mod fuzz_decoders;
mod http;
mod journey;
mod load;
mod refusals;
mod vm;
