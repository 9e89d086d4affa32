//! Continuous batching: many answers in one step, over blocks of the KV cache that they share.
//!
//! A [`Scheduler`] is synchronous and knows neither threads nor clocks: `step()` looks who came and who left, plans
//! the rows of one forward pass, runs it, and hands out what was written. As in vLLM's first version there is one
//! budget for each step, answers in progress come first, and the rest of the budget reads pieces of prompts.
//!
//! | module | what it does |
//! | --- | --- |
//! | `lobby` | requests come in, from any thread; limits on what waits |
//! | `fair` | payers share the work evenly |
//! | `cost` | what a token costs: the more, the more it looks back at |
//! | `plan` | which tokens of whom a step computes; who is put back when blocks or places run out |
//! | `blocks`, `prefix` | shared blocks, their names, the prefix cache |
//! | `job`, `writer` | one answer: tokens and blocks; sampling, constraint, stop strings |
//! | `turns` | the same fairness for work that is done piece by piece elsewhere: embeddings |
//! | `answer` | the queue to the reader, which nobody waits at |
//! | `device` | a step on an accelerator in the CPU's place, on a thread of its own |
//!
//! **The same bits**: what a token's logits come to depends on the tokens before it alone. Neither what else runs, nor
//! pieces, preemption or blocks of the prefix cache change a bit (`tests`: hashes of all logits against
//! [`Sequence`](crate::Sequence)).
//!
//! **Progress**: the oldest answer in progress is never put back, and the cache holds one whole context. So it ends, and
//! then another is the oldest. One that waits is overtaken by so many others at most, and then the next to begin: it finds
//! room when those in progress have ended.

mod answer;
mod blocks;
mod cost;
mod device;
mod fair;
mod job;
mod lobby;
mod plan;
mod prefix;
mod scheduler;
mod turns;
mod writer;

#[cfg(test)]
mod tests;

pub use answer::{Answer, Event, Finish};
pub(crate) use cost::Cost;
pub use fair::{Lane, Lanes};
pub use lobby::EngineStatus;
pub use prefix::Salt;
pub use turns::{Place, Turn, Turns};

pub(crate) use device::Device;
pub(crate) use lobby::{Lobby, WaitingLimits};
pub(crate) use scheduler::{Progress, Scheduler, SchedulerLimits};
