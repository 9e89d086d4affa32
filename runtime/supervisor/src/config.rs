//! What may be configured of a child, and what never may. All of it is measured with the guest's `config.toml`.

use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use thiserror::Error;

/// The child's only folder that it can write to: a fresh tmpfs. Its socket is in it, and its model at [`MODEL_IN_VIEW`].
pub const SCRATCH: &str = "/dev/shm";
/// Where the child finds its model: a file or a folder, read-only.
pub const MODEL_IN_VIEW: &str = "/dev/shm/model";

const MAX_ARGUMENTS: usize = 256;
const MAX_VARIABLES: usize = 128;
const MAX_ROOTS: usize = 32;
/// Most bytes of an argument or of a variable's value.
const MAX_TEXT: usize = 4096;

/// Of the system's own, each child sees these: programs, libraries, what finds them, names of users.
pub(crate) const SYSTEM: [&str; 6] = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64"];

/// Set for every child, whatever the configuration says: no downloads, no reports home, a home in the scratch folder.
pub(crate) const FIXED: [(&str, &str); 11] = [
    ("HF_HUB_OFFLINE", "1"),
    ("TRANSFORMERS_OFFLINE", "1"),
    ("HF_DATASETS_OFFLINE", "1"),
    ("HF_HUB_DISABLE_TELEMETRY", "1"),
    ("DO_NOT_TRACK", "1"),
    ("VLLM_NO_USAGE_STATS", "1"),
    ("VLLM_DO_NOT_TRACK", "1"),
    ("OTEL_SDK_DISABLED", "true"),
    ("HOME", SCRATCH),
    ("TMPDIR", SCRATCH),
    ("PYTHONDONTWRITEBYTECODE", "1"),
];

/// Names that a configuration may set.
const NAMES: [&str; 12] = [
    "PATH",
    "LANG",
    "LC_ALL",
    "LD_LIBRARY_PATH",
    "PYTHONPATH",
    "PYTHONHOME",
    "PYTHONUNBUFFERED",
    "VIRTUAL_ENV",
    "CUDA_HOME",
    "MODEL",
    "HOST",
    "PORT",
];
/// Beginnings of more of them: the engines' and the numeric libraries' own.
const PREFIXES: [&str; 15] = [
    "VLLM_",
    "SGLANG_",
    "SGL_",
    "LLAMA_",
    "CUDA_",
    "NVIDIA_",
    "NCCL_",
    "TORCH_",
    "TORCHINDUCTOR_",
    "PYTORCH_",
    "TRITON_",
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "TOKENIZERS_",
];
/// Refused although a prefix allows them: they report, trace, log prompts, load foreign code or leave the machine.
const REFUSED: [&str; 9] =
    ["USAGE", "TRACK", "TELEMETRY", "TRACE", "PLUGINS", "MODELSCOPE", "PROXY", "S3_", "API_KEY"];

/// Words of an option that no child may have, and why.
const FORBIDDEN: [(&str, &str); 8] = [
    ("trustremote", "code that comes with a model is not measured as code"),
    ("config", "a file of options is not read here, so its options cannot be held to these rules"),
    ("otlp", "traces leave the engine"),
    ("detailedtraces", "traces hold prompts"),
    ("logrequests", "prompts would be logged"),
    ("middleware", "it would load foreign code between us and the engine"),
    ("plugin", "it would load foreign code"),
    ("apikey", "the child's socket is reached by nobody else"),
];

/// A child: how it is started, reached, asked, watched and limited. Unknown fields are refused.
///
/// ```
/// # #[derive(serde::Deserialize)] struct All { engine: cocoon_supervisor::ChildConfig }
/// let text = r#"
/// [engine]
/// argv = ["/opt/vllm/bin/vllm", "serve", "/dev/shm/model", "--uds", "/dev/shm/child.sock", "--served-model-name", "model"]
/// address = "unix:/dev/shm/child.sock"
/// dialect = "vllm"
/// prefix_cache = "salted"
/// [[engine.roots]]
/// path = "/opt/vllm"
/// [engine.environment]
/// VLLM_CACHE_ROOT = "/dev/shm/vllm"
/// [engine.canary]
/// prompt = "The capital of France is"
/// "#;
/// assert!(toml::from_str::<All>(text).unwrap().engine.check().is_ok());
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChildConfig {
    /// The program by its absolute path, and its arguments; exactly these.
    pub argv: Vec<String>,
    /// Folders and files that it is shown beside the system's libraries: the program, what it loads. Nothing else is there.
    #[serde(default)]
    pub roots: Vec<Root>,
    /// Variables beside the fixed ones (offline, no telemetry, home); nothing is inherited.
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    /// `unix:/dev/shm/NAME`, or `127.0.0.1:PORT` inside the child's own network namespace.
    pub address: String,
    /// The `model` of every request.
    #[serde(default = "default_name")]
    pub served_name: String,
    /// Which fields beyond OpenAI's it knows.
    pub dialect: Dialect,
    /// What keeps one payer's prompts from being timed by another. There is no default: it must be thought about.
    pub prefix_cache: PrefixCache,
    /// Who counts tokens.
    #[serde(default)]
    pub counting: Counting,
    /// `GET` here gives 200 when it is well.
    #[serde(default = "default_health")]
    pub health: String,
    /// User and group of the child where the guest is root, from 1.
    #[serde(default = "default_user")]
    pub user: u32,
    /// Times, in seconds, and counts.
    #[serde(default)]
    pub limits: Limits,
    /// The known question.
    pub canary: Canary,
    /// Development only: what the child writes goes to the guest's log, prompts and all.
    #[serde(default)]
    pub development_logs: bool,
}

/// Something that a child is shown, at the same path, read-only.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Root {
    /// Absolute, without `..`; below none of `/dev`, `/proc`, `/sys`, `/run`.
    pub path: PathBuf,
    /// [`crate::tree::digest`] of it, 64 hex digits: another content is not started. Needless where the disk it lies on is
    /// measured already.
    #[serde(default)]
    pub sha256: Option<String>,
}

/// What a server says beyond OpenAI's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Dialect {
    /// `top_k`, `min_p`, `repetition_penalty`, `cache_salt`; usage in every chunk.
    Vllm,
    /// As vLLM without a salt.
    Sglang,
    /// llama.cpp's server: `top_k`, `min_p`, `repeat_penalty`, and `cache_prompt`, which is sent as false; usage at the end.
    LlamaCpp,
    /// OpenAI's fields; usage in the last chunk, or none.
    Openai,
}

/// What is done about a cache of prompts' prefixes. A prompt that meets another's is answered sooner, which tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrefixCache {
    /// Each request carries a salt (`cache_salt`): the same for the same client's secret, and never another's. vLLM alone.
    Salted,
    /// There is none. Where the dialect has an option for it, `argv` must hold that; a child that tells of cached tokens all
    /// the same breaks a rule.
    Off,
}

/// Who counts tokens, and what the child is sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Counting {
    /// The guest, with the model's own tokenizer and chat template: the child is sent tokens and never bills.
    #[default]
    Tokens,
    /// The child, within bounds: no more tokens than bytes. For models whose tokenizer the guest does not know.
    Bounds,
}

/// Bounds of a child. Seconds unless said otherwise.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// From its start until it is healthy: 1 to 7200.
    pub start: u64,
    /// From a request to the first piece of its answer, the child's own queue included: 1 to 3600.
    pub first_piece: u64,
    /// Between pieces: 1 to 600.
    pub between_pieces: u64,
    /// A whole answer: 1 to 86,400.
    pub answer: u64,
    /// Requests of one payer that are here at a time, waiting ones too: 0 to 4096. 0 is as many as may be here.
    pub of_payer: usize,
    /// For answers in progress at the end: 0 to 600.
    pub drain: u64,
    /// Starts after the first that fail or end before they were well for ten minutes: 0 to 100. Beyond, it is dead.
    pub restarts: u32,
    /// Between looks at its health, in milliseconds: 10 to 60,000.
    pub health_every_ms: u64,
    /// Private writable memory of each process (`RLIMIT_DATA`), in MiB: 16 to 2^24.
    pub memory_mib: u64,
    /// The scratch folder, in MiB: 1 to 2^20.
    pub scratch_mib: u64,
    /// Processes and threads: 1 to 65,536.
    pub processes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            start: 600,
            first_piece: 120,
            between_pieces: 30,
            answer: 3600,
            of_payer: 0,
            drain: 5,
            restarts: 5,
            health_every_ms: 2000,
            memory_mib: 1 << 20,
            scratch_mib: 16 << 10,
            processes: 4096,
        }
    }
}

/// A question whose greedy answer must be the same at every start.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// The user's message: 1 to 4096 bytes.
    pub prompt: String,
    /// Tokens of the answer: 1 to 256.
    #[serde(default = "default_tokens")]
    pub tokens: u32,
    /// SHA-256 of the answer's text, 64 hex digits. Without it the first start's answer is what later ones must give.
    #[serde(default)]
    pub sha256: Option<String>,
}

fn default_name() -> String {
    "model".to_owned()
}

fn default_health() -> String {
    "/health".to_owned()
}

fn default_user() -> u32 {
    65_533
}

fn default_tokens() -> u32 {
    16
}

/// Why a child's configuration is refused, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// A value is not of its form.
    #[error("engine.{field} must be {expected}")]
    Form {
        /// Which.
        field: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// A number is out of its range.
    #[error("engine.{field} must be from {least} to {most}, not {got}")]
    Range {
        /// Which.
        field: &'static str,
        /// Smallest.
        least: u64,
        /// Largest.
        most: u64,
        /// The value found.
        got: u64,
    },
    /// An argument that no child may have.
    #[error("engine.argv must not hold {argument:?}: {why}; leave it out")]
    Argument {
        /// Which.
        argument: String,
        /// Why not.
        why: &'static str,
    },
    /// A variable that no child may have.
    #[error("engine.environment must not set {0}: it is not on the list of what may be set")]
    Variable(String),
    /// A variable that has its value already.
    #[error("engine.environment must not set {0}: it is fixed for every child; leave it out")]
    Fixed(String),
    /// A cache that is said to be off and is not.
    #[error(
        "engine.argv must hold {0}, since engine.prefix_cache is \"off\": one payer could time what another asked"
    )]
    SharedCache(&'static str),
    /// A salt for a server that knows none.
    #[error("engine.prefix_cache \"salted\" is for the dialect vllm alone: set it to \"off\"")]
    NoSalt,
    /// The program is nowhere that the child is shown.
    #[error(
        "engine.argv starts {0:?}, which is in none of engine.roots nor in /usr: name the folder that holds it there"
    )]
    Unseen(String),
}

/// Where a child listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Address {
    /// A socket of this name in the scratch folder.
    Unix(String),
    /// A port of the loopback interface of its own network.
    Loopback(u16),
}

impl ChildConfig {
    /// Holds the configuration against the rules.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_argv()?;
        self.check_roots()?;
        self.environment.iter().try_for_each(|(name, value)| check_variable(name, value))?;
        let form = |holds: bool, field, expected| {
            if holds { Ok(()) } else { Err(ConfigError::Form { field, expected }) }
        };
        form(self.environment.len() <= MAX_VARIABLES, "environment", "at most 128 variables")?;
        form(self.parsed_address().is_some(), "address", "unix:/dev/shm/NAME or 127.0.0.1:PORT")?;
        let path = self.health.starts_with('/') && self.health.bytes().all(|byte| byte.is_ascii_graphic());
        form(path && self.health.len() <= 128, "health", "a path such as /health")?;
        form((1..=128).contains(&self.served_name.len()), "served_name", "1 to 128 bytes")?;
        form((1..=4096).contains(&self.canary.prompt.len()), "canary.prompt", "1 to 4096 bytes")?;
        let pin = self.canary.sha256.as_ref().is_none_or(|_| self.pinned().is_some());
        form(pin, "canary.sha256", "64 hex digits of a SHA-256")?;
        self.check_ranges()
    }

    fn check_ranges(&self) -> Result<(), ConfigError> {
        let limits = &self.limits;
        let ranges = [
            ("user", u64::from(self.user), 1, u64::from(u32::MAX - 1)),
            ("canary.tokens", u64::from(self.canary.tokens), 1, 256),
            ("limits.start", limits.start, 1, 7200),
            ("limits.first_piece", limits.first_piece, 1, 3600),
            ("limits.between_pieces", limits.between_pieces, 1, 600),
            ("limits.answer", limits.answer, 1, 86_400),
            ("limits.of_payer", limits.of_payer as u64, 0, 4096),
            ("limits.drain", limits.drain, 0, 600),
            ("limits.restarts", u64::from(limits.restarts), 0, 100),
            ("limits.health_every_ms", limits.health_every_ms, 10, 60_000),
            ("limits.memory_mib", limits.memory_mib, 16, 1 << 24),
            ("limits.scratch_mib", limits.scratch_mib, 1, 1 << 20),
            ("limits.processes", limits.processes, 1, 65_536),
        ];
        match ranges.into_iter().find(|(_, got, least, most)| !(least..=most).contains(&got)) {
            Some((field, got, least, most)) => Err(ConfigError::Range { field, least, most, got }),
            None => Ok(()),
        }
    }

    fn check_argv(&self) -> Result<(), ConfigError> {
        let expected = "1 to 256 strings of at most 4096 bytes without NUL, the first an absolute path";
        let good = |text: &String| text.len() <= MAX_TEXT && !text.contains('\0');
        let absolute = self.argv.first().is_some_and(|program| Path::new(program).is_absolute());
        if !absolute || self.argv.len() > MAX_ARGUMENTS || !self.argv.iter().all(good) {
            return Err(ConfigError::Form { field: "argv", expected });
        }
        for argument in &self.argv[1..] {
            if let Some(why) = forbidden(argument) {
                return Err(ConfigError::Argument { argument: argument.clone(), why });
            }
        }
        let option = match (self.prefix_cache, self.dialect) {
            (PrefixCache::Salted, Dialect::Vllm) => return Ok(()),
            (PrefixCache::Salted, _) => return Err(ConfigError::NoSalt),
            (PrefixCache::Off, Dialect::Vllm) => "--no-enable-prefix-caching",
            (PrefixCache::Off, Dialect::Sglang) => "--disable-radix-cache",
            // The one is told with each request, the other has no word for it.
            (PrefixCache::Off, Dialect::LlamaCpp | Dialect::Openai) => return Ok(()),
        };
        let off = self.argv.iter().any(|argument| argument == option);
        if off { Ok(()) } else { Err(ConfigError::SharedCache(option)) }
    }

    fn check_roots(&self) -> Result<(), ConfigError> {
        const TAKEN: [&str; 4] = ["/dev", "/proc", "/sys", "/run"];
        let expected = "at most 32, each an absolute path without .., below none of /dev, /proc, /sys, /run";
        let good = |root: &Root| {
            let plain = |part: Component<'_>| matches!(part, Component::RootDir | Component::Normal(_));
            let path = &root.path;
            path.is_absolute()
                && path.parent().is_some()
                && path.components().all(plain)
                && path.as_os_str().len() <= MAX_TEXT
                && !path.as_os_str().as_encoded_bytes().contains(&0)
                && !TAKEN.iter().any(|taken| path.starts_with(taken))
        };
        if self.roots.len() > MAX_ROOTS || !self.roots.iter().all(good) {
            return Err(ConfigError::Form { field: "roots", expected });
        }
        if !self.roots.iter().all(|root| root.sha256.is_none() || root.pinned().is_some()) {
            return Err(ConfigError::Form { field: "roots.sha256", expected: "64 hex digits" });
        }
        let program = Path::new(&self.argv[0]);
        let seen = SYSTEM.iter().any(|folder| program.starts_with(folder))
            || self.roots.iter().any(|root| program.starts_with(&root.path));
        if seen { Ok(()) } else { Err(ConfigError::Unseen(self.argv[0].clone())) }
    }

    /// SHA-256 that the canary's answer must have, if it is pinned.
    pub(crate) fn pinned(&self) -> Option<[u8; 32]> {
        digest(self.canary.sha256.as_deref()?)
    }

    pub(crate) fn parsed_address(&self) -> Option<Address> {
        if let Some(name) = self.address.strip_prefix("unix:/dev/shm/") {
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            let good = (1..=64).contains(&name.len()) && name.bytes().all(plain);
            return (good && ![".", "..", "model"].contains(&name)).then(|| Address::Unix(name.to_owned()));
        }
        let port: u16 = self.address.strip_prefix("127.0.0.1:")?.parse().ok()?;
        (port > 0).then_some(Address::Loopback(port))
    }
}

impl Root {
    /// The digest that it must have, if it is pinned.
    pub fn pinned(&self) -> Option<[u8; 32]> {
        digest(self.sha256.as_deref()?)
    }
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    hex::decode_to_slice(text, &mut digest).ok()?;
    Some(digest)
}

/// Why an argument is refused. Spelling with `-`, `_` or capitals makes no difference; neither does a shortened option, which
/// Python's argparse takes for the whole one.
fn forbidden(argument: &str) -> Option<&'static str> {
    let plain = |text: &str| -> String {
        text.chars().filter(|c| c.is_ascii_alphanumeric()).map(|c| c.to_ascii_lowercase()).collect()
    };
    if plain(argument).contains("trustremote") {
        return Some(FORBIDDEN[0].1);
    }
    let option = argument.strip_prefix("--")?;
    let name = plain(option.split('=').next().unwrap_or_default());
    let negated = name.strip_prefix("no").is_some() || name.starts_with("disable");
    FORBIDDEN.iter().find_map(|(word, why)| {
        let shortened = name.len() >= 4 && word.starts_with(&name);
        let exact = *word == "config" && name == "config";
        let contained = *word != "config" && name.contains(word);
        ((shortened || exact || contained) && !negated).then_some(*why)
    })
}

fn check_variable(name: &str, value: &str) -> Result<(), ConfigError> {
    if FIXED.iter().any(|(fixed, _)| *fixed == name) {
        return Err(ConfigError::Fixed(name.to_owned()));
    }
    let plain = |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_';
    let allowed = NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    let refused = REFUSED.iter().any(|word| name.contains(word));
    if !allowed || refused || name.len() > 128 || !name.bytes().all(plain) {
        return Err(ConfigError::Variable(name.to_owned()));
    }
    if value.len() > MAX_TEXT || value.contains('\0') {
        let expected = "values of at most 4096 bytes without NUL";
        return Err(ConfigError::Form { field: "environment", expected });
    }
    Ok(())
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
