//! A secret of a client's own, by which a worker tells its prompts from everybody else's.

use axum::body::Bytes;
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

/// The field `cache_salt` of requests: a worker reads the beginnings of prompts with the same salt once, and the second time
/// they cost the price of cached tokens. Random and never shown to anybody but, sealed, to workers: whoever knew it could find
/// out by timing what was asked.
pub struct CacheSalt(Zeroizing<String>);

impl CacheSalt {
    /// One that nobody else has: 192 bits.
    pub fn random() -> Self {
        let mut secret = Zeroizing::new([0; 24]);
        SystemRandom::new().fill(secret.as_mut_slice()).expect("the system has a random generator");
        Self(Zeroizing::new(secret.iter().map(|byte| format!("{byte:02x}")).collect()))
    }

    /// As the field's value.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Puts the field in front of a JSON object that does not have it. Anything else stays what it is.
    pub(crate) fn add_to(&self, body: &Bytes) -> Bytes {
        let Some(start) = body.iter().position(|byte| !byte.is_ascii_whitespace()) else {
            return body.clone();
        };
        let Some(rest) = body[start..].strip_prefix(b"{") else { return body.clone() };
        let field = format!("{{\"cache_salt\":\"{}\"", self.expose());
        let empty = rest.trim_ascii_start().starts_with(b"}");
        let comma: &[u8] = if empty { b"" } else { b"," };
        [field.as_bytes(), comma, rest].concat().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_salt_stands_in_front_of_what_was_there() {
        let salt = CacheSalt::random();
        assert_ne!(salt.expose(), CacheSalt::random().expose());
        for body in [r#"{"a":{"b":[1]},"c":"}"}"#, " \n{ }", "{}", "{\n\"a\": 1}"] {
            let salted = salt.add_to(&Bytes::from(body));
            let mut found: serde_json::Value = serde_json::from_slice(&salted).expect("JSON");
            let field = found.as_object_mut().expect("an object").remove("cache_salt").expect("it is there");
            assert_eq!(field, salt.expose());
            assert_eq!(found, serde_json::from_str::<serde_json::Value>(body).expect("JSON"));
        }
        for body in ["", "[1]", "null", "  "] {
            assert_eq!(salt.add_to(&Bytes::from(body)), body.as_bytes());
        }
    }
}
