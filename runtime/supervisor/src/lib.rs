//! An inference server that is not ours, as a supervised child: vLLM, SGLang, or whatever speaks OpenAI's API.
//!
//! The child computes and is trusted with nothing else. It sees prompts, because it must; it reaches nobody with them: it has
//! its own user, an empty network, a read-only view, no capabilities and a filter of system calls. What it is asked is rebuilt
//! field by field, what it answers is read within limits, and what it counts is held against what it sent.
//!
//! - [`ChildConfig`]: how it is started, reached and limited; a part of the guest's measured configuration.
//! - [`Supervisor`]: keeps it running: starting → canary → ready → draining → dead, restarts with a named limit.
//! - [`Supervisor::ask`]: a request to a stream of [`Event`]s; dropping the stream closes the child's connection.
//! - [`take_over`]: the warden between a guest and its child, see `src/warden`.
//!
//! No type here that holds a prompt or an answer can be printed. What the child writes to its logs is counted and dropped.

mod answer;
mod canary;
mod config;
mod http;
mod logs;
mod process;
mod request;
mod supervisor;
mod tally;
pub mod tree;
mod warden;

pub use answer::{AnswerStream, AskError, Event, Failure, Finish, Usage};
pub use config::{
    Canary, ChildConfig, ConfigError, Counting, Dialect, Limits, MODEL_IN_VIEW, PrefixCache, Root, SCRATCH,
};
pub use request::{Message, Question, Said, Salt};
pub use supervisor::{Setting, StartError, State, Status, Supervisor};
pub use tally::Violation;
pub use warden::take_over;
