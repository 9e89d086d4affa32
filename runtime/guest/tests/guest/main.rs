//! The guest as a process: started as a host starts it, spoken to over its sockets.

mod child;
mod common;
mod endpoints;
mod fuzz_decoders;
mod hostile;
mod http;
mod journey;
mod load;
mod native_tools;
mod refusals;
#[path = "../../../supervisor/tests/stand_in/server.rs"]
mod stand_in;
mod vm;
