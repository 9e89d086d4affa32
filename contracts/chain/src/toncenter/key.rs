//! The API key of a public service.

use std::path::Path;

use reqwest::header::HeaderValue;

use crate::ChainError;

/// Longest key that is read, in bytes.
const MAX_KEY_BYTES: u64 = 512;

/// The key of a public service, from a file or an environment variable: never from a command line, where every process
/// of the machine sees it. It has no `Debug` and no `Display`; only the request that carries it sees its bytes.
#[derive(Clone)]
pub struct ApiKey(HeaderValue);

impl ApiKey {
    /// Reads it from a file, with or without a line end.
    ///
    /// # Errors
    /// The file cannot be read, is too long for a key, or holds more than one line of visible ASCII.
    pub fn from_file(path: &Path) -> Result<Self, ChainError> {
        let bad =
            |why: String| ChainError::Settings { what: format!("the API key file {}", path.display()), why };
        let length = std::fs::metadata(path).map_err(|error| bad(error.to_string()))?.len();
        if length > MAX_KEY_BYTES {
            return Err(bad(format!("it has more than {MAX_KEY_BYTES} bytes")));
        }
        let text = std::fs::read_to_string(path).map_err(|error| bad(error.kind().to_string()))?;
        Self::parse(&text).map_err(|why| bad(why.to_owned()))
    }

    /// Reads it from the environment variable of this name.
    ///
    /// # Errors
    /// The variable is not set, or holds no key.
    pub fn from_env(name: &str) -> Result<Self, ChainError> {
        let bad = |why: &str| ChainError::Settings {
            what: format!("the environment variable {name}"),
            why: why.to_owned(),
        };
        let text = std::env::var(name).map_err(|_| bad("it is not set, or not text"))?;
        Self::parse(&text).map_err(bad)
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let text = text.trim();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("a key is one line of visible ASCII");
        }
        let mut value = HeaderValue::from_str(text).map_err(|_| "a key is one line of visible ASCII")?;
        value.set_sensitive(true); // no HTTP library prints it either
        Ok(Self(value))
    }

    pub(crate) fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_one_line_and_never_printed() {
        let folder = std::env::temp_dir().join(format!("cocoon-key-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("key");
        for (text, good) in
            [("s3cret\n", true), ("  s3cret ", true), ("", false), ("two\nlines", false), ("ü", false)]
        {
            std::fs::write(&path, text).unwrap();
            let key = ApiKey::from_file(&path);
            assert_eq!(key.is_ok(), good, "{text:?}");
            match key {
                Ok(key) => assert!(!format!("{:?}", key.header()).contains("s3cret")),
                Err(error) => assert!(text.is_empty() || !error.to_string().contains(text), "{error}"),
            }
        }
        std::fs::write(&path, "k".repeat(600)).unwrap();
        assert!(matches!(ApiKey::from_file(&path), Err(ChainError::Settings { .. })));
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(matches!(ApiKey::from_file(&path), Err(ChainError::Settings { .. })));
        assert!(matches!(ApiKey::from_env("COCOON_NO_SUCH_VARIABLE"), Err(ChainError::Settings { .. })));
    }
}
