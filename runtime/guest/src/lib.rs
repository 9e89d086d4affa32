//! The guest service: the only server code that sees plaintext.
//!
//! It gathers evidence, opens sealed requests, runs the model, seals the answers and signs receipts. It knows no chain,
//! no client and no long-lived secret: its keys are born at boot and die with it.
//!
//! Everything that steers it is measured before it acts: the binary and its command line by the TEE module, the bytes
//! of `config.toml` and the digest of the model file into RTMR3. It takes no arguments and no environment. On
//! SEV-SNP, which has no such registers, the statement alone says both digests; see [`Tee::has_registers`].
//!
//! Where it runs, it finds out: [`open_real_tee`] takes Intel TDX or AMD SEV-SNP through Linux's interfaces, [`Nvidia`]
//! the GPUs through NVIDIA's library. Only a machine without a TEE gets the [`Simulated`] one.
//!
//! - [`boot`]: reads the run folder, measures, makes keys.
//! - [`Guest::attest`]: a statement of all of it under a quote, for one public block.
//! - [`serve`]: the HTTP API behind a [`Door`].
//!
//! Logs carry counts, never content.

mod answering;
mod boot;
mod child;
mod config;
mod door;
mod evidence;
#[cfg(test)]
mod fuzz_tests;
mod gpu;
mod grammar;
mod openai;
mod record;
mod server;
mod serving;
mod sink;
mod tee;

pub use boot::{
    BootError, CONFIG, EVENT_LOG, GUEST_SOCKET, Guest, MAX_MODEL, MEASURED, MODEL, TEE_SOCKET, boot,
    executable_digest,
};
pub use cocoon_supervisor::take_over;
pub use config::{Config, ConfigError, EngineConfig, MAX_CONFIG, ModelConfig};
pub use door::Door;
pub use evidence::AttestError;
pub use gpu::{GpuError, GpuEvidence, Gpus, MAX_GPUS, NoGpus, Nvidia};
pub use server::serve;
pub use tee::{Quote, Simulated, Tee, TeeError, open_real_tee, real_tee};
