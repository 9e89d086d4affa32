//! How the chain of a network file is reached: which service, which key, where trust starts.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use cocoon_chain::{ApiKey, Chain, ChainError, Toncenter, ToncenterOptions, ToncenterV3};
use cocoon_liteserver::{KeyBlock, Liteservers, Settings};
use serde::{Deserialize, Serialize};

use crate::error::{Explain, Failure};
use crate::network::NetworkFile;
use crate::start_block::StartBlock;

/// What `chain` says for liteservers with proofs.
const LITESERVERS: &str = "liteservers";
/// The largest global configuration that is read; TON's has 30 KB.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// The table `access` of a network file. Files are named as seen from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Access {
    /// Endpoints of the same kind to ask when the first does not answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) also: Vec<String>,
    /// A file with the service's API key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<PathBuf>,
    /// Or the name of an environment variable with it. The key itself is never written here.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_env: Option<String>,
    /// How often each endpoint may be asked. Left out: what public services allow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) requests_per_second: Option<u32>,
    /// The network's global configuration, for the list of its liteservers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) global_config: Option<PathBuf>,
    /// The masterchain key block from which everything is proven.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key_block: Option<PinnedBlock>,
}

impl Access {
    pub(crate) fn is_usual(&self) -> bool {
        *self == Self::default()
    }

    fn key(&self, folder: &Path) -> Result<Option<ApiKey>, ChainError> {
        match (&self.key_file, &self.key_env) {
            (Some(_), Some(_)) => Err(ChainError::Settings {
                what: "the API key of the network file".into(),
                why: "both key_file and key_env are set: keep one".into(),
            }),
            (Some(file), None) => ApiKey::from_file(&folder.join(file)).map(Some),
            (None, Some(name)) => ApiKey::from_env(name).map(Some),
            (None, None) => Ok(None),
        }
    }

    fn settings(&self, folder: &Path) -> Result<Settings, Failure> {
        let needs = |what: &str| {
            Failure::new(
                format!("liteservers need {what} in the network file's table [access]"),
                "name the network's global.config.json, and pin a recent masterchain key block that several explorers show",
            )
        };
        let path = folder.join(self.global_config.as_ref().ok_or_else(|| needs("global_config"))?);
        let pinned = self.key_block.as_ref().ok_or_else(|| needs("key_block"))?;
        let unreadable = || format!("cannot use {}", path.display());
        let length = std::fs::metadata(&path).explain(unreadable, "check the name")?.len();
        if length > MAX_CONFIG_BYTES {
            return Err(Failure::new(unreadable(), "it is far too large for a global configuration"));
        }
        let text = std::fs::read_to_string(&path).explain(unreadable, "check the name")?;
        let servers = cocoon_liteserver::servers(&text).explain(unreadable, "take the network's own")?;
        Ok(Settings::new(servers, pinned.read()?))
    }
}

/// A key block as explorers show it: hashes in hex or base64.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PinnedBlock {
    pub(crate) seqno: u32,
    pub(crate) root_hash: String,
    pub(crate) file_hash: String,
}

impl PinnedBlock {
    fn read(&self) -> Result<KeyBlock, Failure> {
        let hash = |name: &str, text: &str| {
            let bytes = hex::decode(text).ok().or_else(|| BASE64.decode(text).ok());
            let hash = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
            hash.ok_or_else(|| {
                let what = format!("the key block's {name} is no hash: {:.80}", text);
                Failure::new(what, "32 bytes in hex or base64 are needed")
            })
        };
        let (root_hash, file_hash) =
            (hash("root_hash", &self.root_hash)?, hash("file_hash", &self.file_hash)?);
        Ok(KeyBlock { seqno: self.seqno, root_hash, file_hash })
    }
}

/// Meets the chain of the network file in this folder. It must be of the file's network.
pub(crate) async fn connect(folder: &Path, file: &NetworkFile) -> Result<Arc<dyn Chain>, Failure> {
    let met: Result<Arc<dyn Chain>, ChainError> = if file.chain == LITESERVERS {
        liteservers(folder, file.access.settings(folder)?).await
    } else {
        toncenter(folder, file).await
    };
    let wrong = |found: i32| {
        Failure::new(
            format!("the chain at {} is network {found}, the network file says {}", file.chain, file.network),
            "this is another network: correct the network file",
        )
    };
    match met {
        Ok(chain) if chain.network() == file.network => Ok(chain),
        Ok(chain) => Err(wrong(chain.network())),
        Err(ChainError::WrongNetwork { found, .. }) => Err(wrong(found)),
        Err(error) => Err(error).explain(
            || "the chain cannot be reached".into(),
            "start `cocoon chain`, or correct the network file",
        ),
    }
}

/// From the newest key block that was proven before; from the pinned one if no server proves that any more.
async fn liteservers(folder: &Path, pinned: Settings) -> Result<Arc<dyn Chain>, ChainError> {
    let start = StartBlock::new(folder, pinned.key_block.clone());
    let met = match start.load() {
        None => Liteservers::connect(pinned).await,
        Some(key_block) => match Liteservers::connect(Settings { key_block, ..pinned.clone() }).await {
            Err(error @ (ChainError::Unproven { .. } | ChainError::Settings { .. })) => {
                tracing::warn!(%error, "the saved key block is no start; starting from the pinned one");
                start.forget();
                Liteservers::connect(pinned).await
            }
            met => met,
        },
    };
    Ok(Arc::new(met?.remembering(move |block| start.save(&block))))
}

async fn toncenter(folder: &Path, file: &NetworkFile) -> Result<Arc<dyn Chain>, ChainError> {
    let mut options = ToncenterOptions::new(&file.chain);
    options.endpoints.extend(file.access.also.iter().cloned());
    options.key = file.access.key(folder)?;
    options.requests_per_second = file.access.requests_per_second;
    options.network = Some(file.network);
    if file.chain.trim_end_matches('/').ends_with("/api/v3") {
        Ok(Arc::new(ToncenterV3::open(&options).await?))
    } else {
        Ok(Arc::new(Toncenter::open(&options).await?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(text: &str) -> NetworkFile {
        let text = format!("network = -3\nregistry = \"0:00\"\n{text}");
        toml::from_str(&text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    async fn refused(text: &str) -> String {
        let folder = tempfile::tempdir().expect("a temporary folder");
        std::fs::write(folder.path().join("config.json"), r#"{"liteservers":[]}"#)
            .expect("it can be written");
        std::fs::write(folder.path().join("key"), "k3y\nk3y").expect("it can be written");
        connect(folder.path(), &file(text)).await.err().expect("it is refused").to_string()
    }

    #[tokio::test]
    async fn liteservers_need_their_configuration_and_a_key_block() {
        let hash = "00".repeat(32);
        let block = |hash: &str| {
            format!("[access.key_block]\nseqno = 5\nroot_hash = \"{hash}\"\nfile_hash = \"{hash}\"")
        };
        let chain = "chain = \"liteservers\"\n[access]\n";
        assert!(refused(chain).await.contains("global_config"));
        assert!(refused(&format!("{chain}global_config = \"config.json\"")).await.contains("key_block"));
        assert!(
            refused(&format!("{chain}global_config = \"none\"\n{}", block(&hash))).await.contains("none")
        );
        let empty = format!("{chain}global_config = \"config.json\"\n{}", block(&hash));
        assert!(refused(&empty).await.contains("names no server"));
    }

    #[test]
    fn key_blocks_are_read_in_hex_and_base64() {
        let pinned = |text: &str| PinnedBlock { seqno: 5, root_hash: text.into(), file_hash: text.into() };
        for text in [hex::encode([7; 32]), BASE64.encode([7; 32])] {
            assert_eq!(pinned(&text).read().expect("a hash").root_hash, [7; 32]);
        }
        assert!(pinned("0707").read().is_err() && pinned("").read().is_err());
    }

    #[tokio::test]
    async fn keys_come_from_one_place_and_are_not_repeated() {
        let chain = "chain = \"http://127.0.0.1:1\"\n[access]\n";
        assert!(
            refused(&format!("{chain}key_file = \"key\"\nkey_env = \"HOME\"")).await.contains("keep one")
        );
        let bad = refused(&format!("{chain}key_file = \"key\"")).await;
        assert!(bad.contains("one line") && !bad.contains("k3y"), "{bad}");
        assert!(refused(&format!("{chain}key_env = \"COCOON_NO_SUCH_VARIABLE\"")).await.contains("not set"));
        assert!(toml::from_str::<Access>("key = \"secret\"").is_err(), "a key in the file itself");
    }
}
