//! Real evidence, read where it lies: `$COCOON_VECTORS`, or `../shared/vectors` from the workspace's root.

use std::path::{Path, PathBuf};

use cocoon_attestation::{
    Endorsements, Evidence, Exceptions, Genuine, Refusal, TrustAnchors, UnixTime, verify,
};

pub struct Vectors(PathBuf);

impl Vectors {
    /// Where they are; says so plainly when they are not there.
    pub fn find() -> Option<Self> {
        let beside = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
        let folder = std::env::var_os("COCOON_VECTORS").map_or(beside, PathBuf::from);
        if folder.join("cases.json").is_file() {
            return Some(Self(folder));
        }
        eprintln!("vectors not found at {}, nothing was checked", folder.display());
        None
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.0.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Names of the files in a folder, sorted, as [`Vectors::read`] takes them.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let files =
            std::fs::read_dir(self.0.join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
        let name = |file: std::io::Result<std::fs::DirEntry>| file.expect("a file").file_name();
        let mut names: Vec<String> =
            files.map(|file| format!("{folder}/{}", name(file).to_string_lossy())).collect();
        names.sort();
        names
    }

    pub fn cases(&self) -> Vec<serde_json::Value> {
        serde_json::from_slice(&self.read("cases.json")).expect("cases.json is a list")
    }
}

/// Verifies real evidence.
pub fn verify_real(
    evidence: &[u8],
    collateral: &[u8],
    anchors: &TrustAnchors,
    at: u64,
    allow: &[&str],
) -> Result<Genuine, Refusal> {
    let endorsements = Endorsements::from_files(vec![collateral.to_vec()]).expect("one small file");
    let exceptions = Exceptions::parse(allow.iter().copied()).expect("known names");
    verify(&Evidence::detect(evidence)?, &endorsements, anchors, &exceptions, UnixTime(at))
}
