//! Turns messages into tokens and tokens into text, on a CPU; knows neither keys nor peers.
//!
//! The whole engine is plain Rust: readers of GGUF and of Hugging Face folders, tokenizers, chat templates, the families
//! of `model/families` over tiles of weights, and encoders for embeddings ([`Embedder`]). The same model, prompt,
//! parameters and seed give **the same bits** on every instruction set ([`InstructionSet`]), with any number of threads
//! and any chunking of the prompt, alone or beside any other requests: many run together, step by step, over a KV cache
//! that they share ([`Engine::submit`]).
//!
//! ```no_run
//! use std::{ops::ControlFlow, path::Path, sync::Arc};
//! use cocoon_engine::{ChatMessage, Engine, EngineOptions, Model, Params};
//!
//! let model = Arc::new(Model::open(Path::new("model.gguf"))?);
//! let engine = Engine::new(Arc::clone(&model), EngineOptions::default());
//! let question = [ChatMessage { role: "user".into(), content: "Why is the sky blue?".into() }];
//! let prompt = model.tokenizer().encode(&model.render_chat(&question, true)?, true);
//! let answer = engine.generate(&prompt, &Params::default(), |step| {
//!     print!("{}", step.text);
//!     ControlFlow::Continue(())
//! })?;
//! println!("\n{} tokens", answer.completion_tokens);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cache;
mod constraint;
mod container;
mod embedder;
mod error;
mod forward;
mod generate;
mod gguf;
mod huggingface;
mod identity;
mod json;
mod kernels;
mod logprobs;
mod machine;
mod model;
mod request;
mod safetensors;
mod sampling;
mod schedule;
mod sequence;
mod template;
mod text;
mod tokenizer;
mod vocabulary;

pub use constraint::{Constraint, ConstraintError, TokenMask};
pub use embedder::{Embedder, Embedding};
pub use error::{Busy, GenerateError, ModelError, SubmitError, TemplateError};
pub use generate::{Engine, EngineOptions, Generated, Step};
pub use identity::Identity;
pub use json::Json;
pub use kernels::{InstructionSet, instruction_set};
pub use logprobs::{Logprobs, MAX_TOP_LOGPROBS};
pub use model::Model;
pub use request::{MAX_CHOICES, Params, Payer, Request};
pub use sampling::{Sampler, Sampling};
pub use schedule::{Answer, EngineStatus, Event, Finish, Salt};
pub use sequence::Sequence;
pub use template::{CallForm, Chat, ChatMessage};
pub use tokenizer::{TextStream, Tokenizer};
pub use vocabulary::Vocabulary;
