//! One field, expected and found side by side.

use super::field::Pin;
use crate::RefusalKind;
use crate::check::{Checklist, Finding};

/// What came out of holding one field against a policy.
pub(super) struct Comparison<'a> {
    pub(super) id: &'static str,
    pub(super) holds: bool,
    pub(super) expected: String,
    pub(super) got: String,
    /// What the field is, or what it means that it holds.
    pub(super) meaning: &'a str,
}

impl<'a> Comparison<'a> {
    pub(super) fn pin<const N: usize>(
        id: &'static str,
        pin: &Pin<N>,
        got: &[u8; N],
        meaning: &'a str,
    ) -> Self {
        Self { id, holds: pin.accepts(got), expected: pin.to_string(), got: hex::encode(got), meaning }
    }

    /// Files it in the list; `source` says whose expectation it is.
    pub(super) fn file(self, source: &str, list: &mut Checklist) {
        let Self { id, holds, expected, got, meaning } = self;
        list.require(holds, id, meaning, || Finding {
            kind: RefusalKind::Rejected,
            expected: format!("{expected} ({source})"),
            got,
            likely: format!("Not what the policy accepts: {meaning}"),
            remedy: "Compare the running release with the policy; add its values if you accept it".into(),
        });
    }
}

pub(super) fn hex_or_zero(bytes: &[u8]) -> String {
    if bytes.iter().all(|byte| *byte == 0) { "zero".to_owned() } else { hex::encode(bytes) }
}
