//! What goes wrong on the way to an answer, in OpenAI's words.

use crate::openai::Refusal;
use crate::sink::STALL;
use cocoon_engine::{GenerateError, SubmitError};
use cocoon_protocol::http::code;

pub(crate) fn draining() -> Refusal {
    Refusal::server(503, "draining", "this worker ends; use another")
}

/// An answer that was begun, and cannot be ended.
pub(super) fn broken_off() -> Refusal {
    Refusal::server(
        503,
        "draining",
        "this worker ends, and the answer is broken off here; ask another worker",
    )
}

/// The reader took nothing of an answer for too long.
pub(super) fn slow_reader() -> Refusal {
    let message = format!(
        "the answer was not read for {} seconds, so it is broken off here; read faster",
        STALL.as_secs()
    );
    Refusal::new(408, "timeout", message)
}

/// A piece of an answer is over what the wire carries.
pub(super) fn too_long() -> Refusal {
    let message =
        "the answer is longer than can be sent, so it is broken off here; stream it, or lower its limit";
    Refusal::new(400, "answer_too_long", message)
}

pub(super) fn of_submit(error: &SubmitError) -> Refusal {
    match error {
        SubmitError::Invalid(error) => of_generate(error),
        SubmitError::Busy(busy) => Refusal::server(503, code::BUSY, busy.to_string()),
        _ => Refusal::server(500, "internal", error.to_string()),
    }
}

pub(super) fn of_generate(error: &GenerateError) -> Refusal {
    match error {
        GenerateError::NotANumber => Refusal::server(500, "model_damaged", error.to_string()),
        GenerateError::Stopped => Refusal::server(500, "internal", error.to_string()),
        GenerateError::SlowReader { .. } => Refusal::new(408, "timeout", error.to_string()),
        _ => Refusal::new(400, "invalid_value", error.to_string()),
    }
}
