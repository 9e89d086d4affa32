//! The network file: what a part must know of the network it joins. `cocoon chain` writes it for a development
//! network; every other command reads it from the same state folder, so that nobody types addresses.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::access::Access;
use crate::error::{Explain, Failure};

/// File name inside the state folder.
pub(crate) const FILE: &str = "network.toml";

/// One network, as a part of it sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkFile {
    /// TON global id. Negative numbers other than −239 and −3 are development networks.
    pub(crate) network: i32,
    /// Where the chain is read and written: a toncenter endpoint (v3 when its address ends in `/api/v3`, else v2), or
    /// `liteservers`.
    pub(crate) chain: String,
    /// The registry contract: which images and models this network allows, and its fee.
    pub(crate) registry: String,
    /// Gateways to try, in order. A development gateway adds itself when it starts.
    #[serde(default)]
    pub(crate) gateways: Vec<String>,
    /// A simulated platform's root certificate (DER), beside this file. Only development networks have one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) simulated_root: Option<PathBuf>,
    /// Whether the chain hands out coins for the asking. Only development networks do.
    #[serde(default)]
    pub(crate) faucet: bool,
    /// What else is needed to reach the chain. Last: it is a table.
    #[serde(default, skip_serializing_if = "Access::is_usual")]
    pub(crate) access: Access,
}

impl NetworkFile {
    /// Reads the file of a state folder.
    pub(crate) fn load(state: &Path) -> Result<Self, Failure> {
        let path = state.join(FILE);
        let text = std::fs::read_to_string(&path).explain(
            || format!("no network is known here: cannot read {}", path.display()),
            "start a development network with `cocoon chain` in another terminal, or name its folder with --state",
        )?;
        toml::from_str(&text).explain(
            || format!("{} is not a network file", path.display()),
            "mend the line it names, or delete the file and start `cocoon chain` again",
        )
    }

    /// Writes the file whole or not at all: readers never see half of it.
    pub(crate) fn save(&self, state: &Path) -> Result<(), Failure> {
        let path = state.join(FILE);
        let text = toml::to_string(self).expect("a network file holds only strings and numbers");
        let staging = state.join(format!(".{FILE}.{}", std::process::id()));
        std::fs::write(&staging, text).and_then(|()| std::fs::rename(&staging, &path)).explain(
            || format!("cannot write {}", path.display()),
            "check that the folder is yours and the disk is not full",
        )
    }

    /// The simulated root's certificate, if this network has one.
    pub(crate) fn simulated_root_der(&self, state: &Path) -> Result<Option<Vec<u8>>, Failure> {
        let Some(name) = &self.simulated_root else { return Ok(None) };
        let path = state.join(name);
        std::fs::read(&path).map(Some).explain(
            || format!("cannot read the simulated root {}", path.display()),
            "start `cocoon chain` again: it makes one",
        )
    }
}

/// The folder of a role inside the state folder, made if missing, for its owner alone.
pub(crate) fn role_folder(state: &Path, role: &str) -> Result<PathBuf, Failure> {
    let path = state.join(role);
    make_folder(&path)?;
    Ok(path)
}

fn make_folder(path: &Path) -> Result<(), Failure> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .explain(|| format!("cannot make the folder {}", path.display()), "choose another with --state")
}

/// `--state`, or the user's state folder (XDG), made if missing.
pub(crate) fn state_folder(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let folder = state_path(named)?;
    make_folder(&folder)?;
    folder
        .canonicalize()
        .explain(|| format!("cannot use the folder {}", folder.display()), "choose another with --state")
}

/// As [`state_folder`], whether it is there or not.
pub(crate) fn state_path(named: Option<PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(folder) = named {
        return Ok(folder);
    }
    let base = std::env::var_os("XDG_STATE_HOME").filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|h| PathBuf::from(h).join(".local/state"));
    let base = base.or_else(home).ok_or_else(|| {
        Failure::usage("neither HOME nor XDG_STATE_HOME is set", "name a folder with --state DIR")
    })?;
    Ok(base.join("cocoon"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> NetworkFile {
        NetworkFile {
            network: -7001,
            chain: "http://127.0.0.1:8081".into(),
            registry: format!("0:{}", "1".repeat(64)),
            gateways: vec!["http://127.0.0.1:8082".into()],
            simulated_root: Some("simulated-root.der".into()),
            faucet: true,
            access: Access { requests_per_second: Some(5), ..Access::default() },
        }
    }

    #[test]
    fn a_network_file_survives_the_disk() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        example().save(folder.path()).expect("it can be written");
        assert_eq!(NetworkFile::load(folder.path()).expect("it can be read"), example());
    }

    #[test]
    fn a_state_folder_is_made_with_all_its_parents() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let new = folder.path().join("not/yet/there");
        assert_eq!(
            state_folder(Some(new.clone())).expect("it is made"),
            new.canonicalize().expect("it is there")
        );
        assert!(role_folder(&new, "client").expect("it is made").is_dir());
    }

    #[test]
    fn an_unknown_field_is_refused_by_name() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let text = toml::to_string(&example()).expect("it is TOML") + "trust_everyone = true\n";
        std::fs::write(folder.path().join(FILE), text).expect("it can be written");
        let failure = NetworkFile::load(folder.path()).expect_err("unknown fields are refused");
        assert!(failure.what.contains("trust_everyone"), "{failure}");
    }
}
