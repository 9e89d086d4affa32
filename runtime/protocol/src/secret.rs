//! Plaintext in its wrappers: they cannot be printed, cloned or serialised, and are wiped when dropped.

use zeroize::Zeroizing;

/// What the client asks: the body of an OpenAI request.
///
/// It cannot be printed:
/// ```compile_fail,E0277
/// let prompt = cocoon_protocol::Prompt::new(b"secret".to_vec());
/// println!("{prompt:?}");
/// ```
/// ```compile_fail,E0277
/// let prompt = cocoon_protocol::Prompt::new(b"secret".to_vec());
/// println!("{prompt}");
/// ```
/// nor copied:
/// ```compile_fail,E0599
/// let prompt = cocoon_protocol::Prompt::new(b"secret".to_vec());
/// let another: cocoon_protocol::Prompt = prompt.clone();
/// ```
/// nor serialised:
/// ```compile_fail,E0277
/// fn serialisable<T: serde::Serialize>(_: &T) {}
/// serialisable(&cocoon_protocol::Prompt::new(b"secret".to_vec()));
/// ```
/// Whoever needs the bytes says so:
/// ```
/// let prompt = cocoon_protocol::Prompt::new(b"secret".to_vec());
/// assert_eq!(prompt.expose(), b"secret");
/// ```
pub struct Prompt(Zeroizing<Vec<u8>>);

/// What the model answers: OpenAI JSON, whole or in chunks. As [`Prompt`], it cannot be printed:
/// ```compile_fail,E0277
/// println!("{:?}", cocoon_protocol::Answer::new(b"secret".to_vec()));
/// ```
/// ```compile_fail,E0277
/// println!("{}", cocoon_protocol::Answer::new(b"secret".to_vec()));
/// ```
/// ```compile_fail,E0599
/// let another: cocoon_protocol::Answer = cocoon_protocol::Answer::new(b"secret".to_vec()).clone();
/// ```
/// ```compile_fail,E0277
/// fn serialisable<T: serde::Serialize>(_: &T) {}
/// serialisable(&cocoon_protocol::Answer::new(b"secret".to_vec()));
/// ```
/// ```
/// assert_eq!(cocoon_protocol::Answer::new(b"secret".to_vec()).expose(), b"secret");
/// ```
pub struct Answer(Zeroizing<Vec<u8>>);

macro_rules! secret_bytes {
    ($name:ident) => {
        impl $name {
            /// Takes the bytes; they are wiped when this value is dropped.
            pub fn new(bytes: Vec<u8>) -> Self {
                Self(Zeroizing::new(bytes))
            }

            /// The plaintext. Every caller of this is a place where it can leak: never log it.
            pub fn expose(&self) -> &[u8] {
                &self.0
            }

            /// Length in bytes.
            pub fn len(&self) -> usize {
                self.0.len()
            }

            /// Whether there are no bytes at all.
            pub fn is_empty(&self) -> bool {
                self.0.is_empty()
            }
        }
    };
}

secret_bytes!(Prompt);
secret_bytes!(Answer);
