//! Which servers to ask, and where trust starts.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use serde::Deserialize;
use ton_net_tl::lite::BlockIdExt;

use crate::wire::{MASTERCHAIN, WHOLE_SHARD};

/// Most servers that are used of a list.
const MAX_SERVERS: usize = 64;
/// How old the newest proven block may be by this machine's clock. Masterchain blocks come every few seconds at most; what
/// is left is clocks that differ.
const MAX_HEAD_AGE: Duration = Duration::from_secs(120);
/// How long one call may take with all its tries.
const DEADLINE: Duration = Duration::from_secs(30);

/// A masterchain key block that the user trusts: the root of everything that is proven. Its hashes come from somewhere
/// else than the servers: several explorers, a node of one's own. The older it is, the more keys of validators that are
/// gone could have been stolen since; pin a recent one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyBlock {
    /// Its number.
    pub seqno: u32,
    /// The hash of its root cell.
    pub root_hash: [u8; 32],
    /// The hash of its file.
    pub file_hash: [u8; 32],
}

impl KeyBlock {
    pub(crate) fn id(&self) -> BlockIdExt {
        BlockIdExt {
            workchain: MASTERCHAIN,
            shard: WHOLE_SHARD,
            seqno: self.seqno.cast_signed(),
            root_hash: self.root_hash,
            file_hash: self.file_hash,
        }
    }
}

/// One liteserver. Its key only keeps others from listening; its answers are proven.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Where it listens.
    pub address: SocketAddr,
    /// Its Ed25519 public key.
    pub key: [u8; 32],
}

/// How liteservers are reached and what is believed.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The servers, the preferred one first.
    pub servers: Vec<Server>,
    /// Where trust starts.
    pub key_block: KeyBlock,
    /// How old the newest proven block may be by this machine's clock.
    pub max_head_age: Duration,
    /// How long one call may take with all its tries.
    pub deadline: Duration,
}

impl Settings {
    /// With the usual limits.
    pub fn new(servers: Vec<Server>, key_block: KeyBlock) -> Self {
        Self { servers, key_block, max_head_age: MAX_HEAD_AGE, deadline: DEADLINE }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the global configuration cannot be used ({0}): take the network's own, such as ton.org/global.config.json"
)]
pub struct ConfigError(String);

/// Reads the servers of a network's global configuration (`global.config.json`). Nothing else of it is believed: what it
/// calls its initial block is as good as where the file came from, so the key block is pinned apart from it.
///
/// # Errors
/// It is not of this form, or names no server with an address and an Ed25519 key.
pub fn servers(global_config: &str) -> Result<Vec<Server>, ConfigError> {
    let config: GlobalConfig =
        serde_json::from_str(global_config).map_err(|error| ConfigError(error.to_string()))?;
    let servers: Vec<_> = config.liteservers.iter().take(MAX_SERVERS).filter_map(NamedServer::read).collect();
    if servers.is_empty() {
        return Err(ConfigError("it names no server with an address and an Ed25519 key".into()));
    }
    Ok(servers)
}

#[derive(Deserialize)]
struct GlobalConfig {
    #[serde(default)]
    liteservers: Vec<NamedServer>,
}

#[derive(Deserialize)]
struct NamedServer {
    /// An IPv4 address as a number, usually a signed one.
    #[serde(default)]
    ip: i64,
    #[serde(default)]
    port: u16,
    id: NamedKey,
}

#[derive(Deserialize)]
struct NamedKey {
    #[serde(rename = "@type")]
    kind: String,
    #[serde(default)]
    key: String,
}

impl NamedServer {
    fn read(&self) -> Option<Server> {
        let signed = i32::try_from(self.ip).map(i32::cast_unsigned);
        let ip = signed.or_else(|_| u32::try_from(self.ip)).ok().filter(|ip| *ip != 0)?;
        let key = BASE64.decode(&self.id.key).ok()?.try_into().ok()?;
        let address = SocketAddr::from((Ipv4Addr::from_bits(ip), self.port));
        (self.id.kind == "pub.ed25519" && self.port != 0).then_some(Server { address, key })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "n4VDnSCUuSpjnCyUk9e3QOOd6o0ItSWYbTnW3Wnn8wk=";

    fn config(ip: &str, port: &str, kind: &str, key: &str) -> String {
        format!(
            r#"{{"@type":"config.global","dht":{{"k":6}},"liteservers":[{{"ip":{ip},"port":{port},"provided":"x","id":{{"@type":"{kind}","key":"{key}"}}}}]}}"#
        )
    }

    #[test]
    fn servers_are_read_from_signed_and_unsigned_addresses() {
        for (ip, address) in [
            ("84478511", "5.9.10.47:19949"),
            ("-1062731775", "192.168.0.1:19949"),
            ("3232235521", "192.168.0.1:19949"),
        ] {
            let servers = servers(&config(ip, "19949", "pub.ed25519", KEY)).unwrap();
            assert_eq!(servers[0].address, address.parse().unwrap());
            assert_eq!(servers[0].key[..2], [0x9f, 0x85]);
        }
    }

    #[test]
    fn what_is_no_server_is_left_out_and_none_is_an_error() {
        for text in [
            "",
            "{}",
            "[]",
            r#"{"liteservers":[]}"#,
            &config("0", "1", "pub.ed25519", KEY),
            &config("5", "0", "pub.ed25519", KEY),
            &config("5", "70000", "pub.ed25519", KEY),
            &config("99999999999", "1", "pub.ed25519", KEY),
            &config("5", "1", "pub.aes", KEY),
            &config("5", "1", "pub.ed25519", "AAAA"),
        ] {
            assert!(servers(text).is_err(), "{text}");
        }
    }
}
