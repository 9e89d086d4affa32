//! Why a request is not answered, in OpenAI's words.

use cocoon_protocol::http::ApiError;
use serde_json::Value;

/// A refusal, to be sealed: only the client may know why.
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) error: ApiError,
}

impl Refusal {
    /// The request is at fault.
    pub(crate) fn new(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, error: ApiError::invalid_request(code, message) }
    }

    /// This worker is at fault.
    pub(crate) fn server(status: u16, code: &str, message: impl Into<String>) -> Self {
        Self { status, error: ApiError::server(code, message) }
    }

    /// One field has a value that it may not have.
    pub(crate) fn field(param: &str, message: impl Into<String>) -> Self {
        Self::of(param, "invalid_value", message)
    }

    /// One field is of another JSON type than it must be.
    pub(crate) fn wrong_type(param: &str, expected: &str, found: &Value) -> Self {
        let found = match found {
            Value::Null => "null",
            Value::Bool(_) => "a boolean",
            Value::Number(number) if number.is_f64() => "a number with a fraction",
            Value::Number(_) => "a whole number",
            Value::String(_) => "a string",
            Value::Array(_) => "an array",
            Value::Object(_) => "an object",
        };
        Self::of(param, "invalid_type", format!("{param} must be {expected}, not {found}"))
    }

    /// A field that must be there is not.
    pub(crate) fn missing(param: &str) -> Self {
        Self::of(param, "missing_required_parameter", format!("{param} is missing"))
    }

    /// A field that OpenAI knows, with a meaning that this worker does not have.
    pub(crate) fn unsupported(param: &str, why: &str) -> Self {
        Self::of(param, "unsupported_parameter", format!("{param} is not supported by this worker: {why}"))
    }

    /// A field that nobody knows.
    pub(crate) fn unknown(param: &str) -> Self {
        let message = format!("there is no parameter {param:?}; leave it out");
        Self::of(param, "unknown_parameter", message)
    }

    /// Names the field at fault.
    pub(crate) fn with_param(mut self, param: &str) -> Self {
        self.error = self.error.with_param(param);
        self
    }

    fn of(param: &str, code: &str, message: impl Into<String>) -> Self {
        Self { status: 400, error: ApiError::invalid_request(code, message).with_param(param) }
    }
}
