//! `config.toml`: all that may be configured, and all of it measured.

use cocoon_supervisor::ChildConfig;
use serde::Deserialize;
use thiserror::Error;

/// Most bytes of `config.toml`.
pub const MAX_CONFIG: usize = 64 * 1024;
/// Highest number of a GPU.
const MAX_DEVICE: u32 = 15;

/// Everything that steers a guest besides its code and its model. Unknown fields are refused.
///
/// ```
/// let text = r#"
/// network = -3            # TON global id
/// max_context = 2048      # tokens, prompt and answer together
/// max_running = 2         # answers in progress
/// max_queued = 16         # requests that wait; beyond, the guest says busy
/// threads = 0             # that compute; 0: one for each core
/// tick_tokens = 16        # an answer shows its usage at least this often
/// cache_bytes = 268435456 # for keys and values; without it, what max_running answers of max_context take
///
/// [model]
/// name = "SmolLM2-135M-Instruct"
/// weights = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"  # SHA-256 of model.gguf
/// "#;
/// assert!(cocoon_guest::Config::parse(text.as_bytes()).is_ok());
/// let unknown = format!("debug = true\n{text}");
/// assert!(cocoon_guest::Config::parse(unknown.as_bytes()).is_err());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// TON global id of the network.
    pub network: i32,
    /// Most tokens of a prompt and its answer together: 1 to 1,048,576. The model's own limit holds too.
    pub max_context: usize,
    /// Most answers in progress: 1 to 256.
    pub max_running: usize,
    /// Most requests that wait for their turn: 0 to 4096.
    pub max_queued: usize,
    /// Threads that compute, 0 to 1024; 0 takes one for each core.
    pub threads: usize,
    /// Tokens after which an answer shows its usage, if it has shown nothing else: 1 to 1024.
    pub tick_tokens: u32,
    /// Bytes of keys and values that all answers share, 1 to 2^40. By default as many as `max_running` answers of
    /// `max_context` tokens take. A context that they do not hold is cut to what they do.
    #[serde(default)]
    pub cache_bytes: Option<u64>,
    /// The one model.
    pub model: ModelConfig,
    /// What answers; without it the engine that is built in.
    #[serde(default)]
    pub engine: Option<EngineConfig>,
}

/// What answers, where it is not the engine that is built in.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[expect(clippy::large_enum_variant, reason = "there is one of it")]
pub enum EngineConfig {
    /// Another inference server, as a supervised child.
    Child(ChildConfig),
    /// The engine that is built in, on a GPU.
    Cuda(CudaConfig),
}

/// Which GPU computes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CudaConfig {
    /// Its number, as the driver counts: 0 to 15.
    #[serde(default)]
    pub device: u32,
}

/// The model, by name and by content.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// As shown in the statement and in answers: 1 to 128 bytes.
    pub name: String,
    /// SHA-256 of the model file, 64 hex digits. The file says itself whether its model writes text or makes vectors.
    #[serde(deserialize_with = "digest")]
    pub weights: [u8; 32],
    /// In a VM: how many bytes of the weights disk are the model file.
    #[serde(default)]
    pub bytes: Option<u64>,
    /// In a VM: root hash of the weights disk's dm-verity tree, 64 hex digits. PID 1 opens the disk by it.
    #[serde(default, deserialize_with = "some_digest")]
    pub verity: Option<[u8; 32]>,
}

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Longer than [`MAX_CONFIG`].
    #[error("it has {0} bytes, more than {MAX_CONFIG}")]
    TooLong(usize),
    /// Not TOML of these fields.
    #[error("{0}")]
    Toml(String),
    /// The child's part breaks a rule.
    #[error(transparent)]
    Child(#[from] cocoon_supervisor::ConfigError),
    /// A value is out of its range.
    #[error("{field} must be from {least} to {most}, not {got}")]
    Range {
        /// The field.
        field: &'static str,
        /// Smallest value.
        least: usize,
        /// Largest value.
        most: usize,
        /// The value found.
        got: usize,
    },
}

impl Config {
    /// Reads the bytes of `config.toml`.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, ConfigError> {
        if bytes.len() > MAX_CONFIG {
            return Err(ConfigError::TooLong(bytes.len()));
        }
        let config: Self = toml::from_slice(bytes).map_err(|error| ConfigError::Toml(error.to_string()))?;
        let cache = usize::try_from(config.cache_bytes.unwrap_or(1)).unwrap_or(usize::MAX);
        let ranges = [
            ("cache_bytes", cache, 1, 1 << 40),
            ("max_context", config.max_context, 1, 1 << 20),
            ("max_running", config.max_running, 1, 256),
            ("max_queued", config.max_queued, 0, 4096),
            ("threads", config.threads, 0, 1024),
            ("tick_tokens", config.tick_tokens as usize, 1, 1024),
            ("the length of model.name", config.model.name.len(), 1, 128),
        ];
        for (field, got, least, most) in ranges {
            if !(least..=most).contains(&got) {
                return Err(ConfigError::Range { field, least, most, got });
            }
        }
        match &config.engine {
            Some(EngineConfig::Child(child)) => child.check()?,
            Some(EngineConfig::Cuda(CudaConfig { device })) if *device > MAX_DEVICE => {
                let (field, most, got) = ("engine.device", MAX_DEVICE as usize, *device as usize);
                return Err(ConfigError::Range { field, least: 0, most, got });
            }
            Some(EngineConfig::Cuda(_)) | None => {}
        }
        Ok(config)
    }
}

fn some_digest<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<[u8; 32]>, D::Error> {
    digest(deserializer).map(Some)
}

fn digest<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<[u8; 32], D::Error> {
    let text = String::deserialize(deserializer)?;
    let mut digest = [0; 32];
    hex::decode_to_slice(&text, &mut digest)
        .map_err(|_| serde::de::Error::custom("expected 64 hex digits of a SHA-256"))?;
    Ok(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text() -> String {
        format!(
            "network = -3\nmax_context = 256\nmax_running = 2\nmax_queued = 4\nthreads = 1\ntick_tokens = 4\n\
             [model]\nname = \"tiny\"\nweights = \"{}\"\n",
            "ab".repeat(32)
        )
    }

    #[test]
    fn the_good_configuration_is_read() {
        let config = Config::parse(text().as_bytes()).expect("good");
        assert_eq!((config.network, config.model.weights), (-3, [0xab; 32]));
    }

    const CHILD: &str = "[engine]\nkind = \"child\"\nargv = [\"/opt/serve\"]\naddress = \"unix:/dev/shm/child.sock\"\n\
                         dialect = \"vllm\"\nprefix_cache = \"salted\"\n[[engine.roots]]\npath = \"/opt\"\n\
                         [engine.canary]\nprompt = \"Say hello.\"\n";

    #[test]
    fn a_child_may_be_configured_within_its_rules() {
        let text = text() + CHILD;
        let config = Config::parse(text.as_bytes()).expect("good");
        assert!(matches!(config.engine, Some(EngineConfig::Child(child)) if child.argv == ["/opt/serve"]));
        for (good, bad) in [
            ("\"child\"", "\"parent\""),
            ("\"/opt/serve\"", "\"serve\""),
            ("\"/opt/serve\"", "\"/opt/serve\", \"--trust-remote-code\""),
            ("dialect", "shell = true\ndialect"),
        ] {
            let changed = text.replacen(good, bad, 1);
            assert_ne!(changed, text);
            assert!(Config::parse(changed.as_bytes()).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn a_gpu_may_be_configured_by_its_number() {
        let with = |more: &str| Config::parse((text() + "[engine]\nkind = \"cuda\"\n" + more).as_bytes());
        let device = |more: &str| match with(more).expect("good").engine {
            Some(EngineConfig::Cuda(CudaConfig { device })) => device,
            other => panic!("{other:?}"),
        };
        assert_eq!((device(""), device("device = 15\n")), (0, 15));
        assert!(with("device = 16\n").is_err() && with("device = -1\n").is_err());
        assert!(with("kernels = \"others\"\n").is_err());
    }

    #[test]
    fn one_wrong_value_at_a_time_is_refused() {
        for (good, bad) in [
            ("network = -3", "network = \"-3\""),
            ("network = -3", ""),
            ("max_context = 256", "max_context = 0"),
            ("max_running = 2", "max_running = 257"),
            ("max_queued = 4", "max_queued = -1"),
            ("max_queued = 4", "max_queued = 4097"),
            ("threads = 1", "threads = 1025"),
            ("tick_tokens = 4", "tick_tokens = 0"),
            ("tick_tokens = 4", "tick_tokens = 4\ncache_bytes = 0"),
            ("tick_tokens = 4", "tick_tokens = 4\ncache_bytes = 1099511627777"),
            ("tick_tokens = 4", "tick_tokens = 4\ndebug = true"),
            ("name = \"tiny\"", "name = \"\""),
            ("name = \"tiny\"", "name = \"tiny\"\nurl = \"http://x\""),
            ("abab", "ab"),
            ("name = \"tiny\"", "name = \"tiny\"\nbytes = -1"),
            ("name = \"tiny\"", "name = \"tiny\"\nverity = \"abab\""),
            ("abab", "zbab"),
        ] {
            let changed = text().replacen(good, bad, 1);
            assert_ne!(changed, text());
            assert!(Config::parse(changed.as_bytes()).is_err(), "{bad} was accepted");
        }
        assert!(Config::parse(&[0xff]).is_err());
        assert_eq!(Config::parse(&vec![b' '; MAX_CONFIG + 1]), Err(ConfigError::TooLong(MAX_CONFIG + 1)));
    }
}
