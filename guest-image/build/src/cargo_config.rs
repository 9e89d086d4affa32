//! The configuration files that cargo would read outside of the source tree: of them, none may change what is compiled.
//!
//! The Cargo Book, "Configuration", "Hierarchical structure": cargo merges `.cargo/config.toml` (or `.cargo/config`) of the folder
//! and of every folder above it, then `$CARGO_HOME/config.toml`. Nothing on its command line forbids that.

use std::path::{Path, PathBuf};

use crate::Error;

/// No configuration of cargo is longer than this many bytes.
const CONFIG_MAX: u64 = 1 << 20;
/// Tables that decide how crates come here, which `Cargo.lock` holds to their hashes, and what cargo prints. Any other can change
/// compilers, flags, profiles, environment or sources.
const HARMLESS: [&str; 10] = [
    "alias",
    "cache",
    "cargo-new",
    "credential-alias",
    "future-incompat-report",
    "http",
    "net",
    "registries",
    "registry",
    "term",
];
/// Where crates come from. Its replacements are held to the hashes of `Cargo.lock`.
const SOURCE: &str = "source";

/// Looks at every file that cargo would read for `source`, but for the source tree's own.
///
/// # Errors
/// If one cannot be read, or has a table that could change what is compiled.
pub(crate) fn check(source: &Path, cargo_home: &Path) -> Result<(), Error> {
    let above = source.ancestors().skip(1).map(|folder| folder.join(".cargo"));
    for folder in above.chain([cargo_home.to_owned()]) {
        for name in ["config", "config.toml"] {
            check_file(&folder.join(name))?;
        }
    }
    Ok(())
}

fn check_file(path: &PathBuf) -> Result<(), Error> {
    let length = match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => metadata.len(),
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("read", path)(error)),
    };
    let wrong = |why: String| Error::Cargo(format!("{}: {why}", path.display()));
    if length > CONFIG_MAX {
        return Err(wrong(format!("it has {length} bytes, more than the {CONFIG_MAX} allowed")));
    }
    let text = std::fs::read_to_string(path).map_err(Error::io("read", path))?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    match table.keys().find(|key| *key != SOURCE && !HARMLESS.contains(&key.as_str())) {
        None => Ok(()),
        Some(key) => Err(wrong(format!(
            "its [{}] can change what is compiled, and then the image is another. Build the source where no such file is above \
             it, or with CARGO_HOME set to a folder without one",
            key.escape_debug()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configurations_that_change_what_is_compiled_are_refused_wherever_cargo_reads_them() {
        let folder = tempfile::tempdir().expect("a folder");
        let (source, home) = (folder.path().join("a/source"), folder.path().join("home"));
        for made in ["a/source/.cargo", "a/.cargo", ".cargo", "home"] {
            std::fs::create_dir_all(folder.path().join(made)).expect("room");
        }
        assert!(check(&source, &home).is_ok(), "there is none");
        for place in ["a/.cargo/config.toml", "a/.cargo/config", ".cargo/config.toml", "home/config.toml"] {
            let path = folder.path().join(place);
            for (text, key) in [
                ("[build]\nrustc-wrapper = \"x\"\n", Some("build")),
                ("[profile.image]\nopt-level = 0\n", Some("profile")),
                ("[env]\nCFLAGS_x86_64 = \"-O0\"\n", Some("env")),
                ("include = [\"other.toml\"]\n", Some("include")),
                ("paths = [\"/x\"]\n", Some("paths")),
                ("[patch.crates-io]\n", Some("patch")),
                ("[target.x86_64-unknown-linux-gnu]\nrustflags = []\n", Some("target")),
                (
                    "[http]\nproxy = \"x\"\n[net]\noffline = true\n[source.crates-io]\nreplace-with = \"m\"\n",
                    None,
                ),
            ] {
                std::fs::write(&path, text).expect("room");
                let refused = check(&source, &home).err().map(|error| error.to_string());
                let Some(key) = key else {
                    assert_eq!(refused, None, "{place}");
                    continue;
                };
                let refused = refused.expect("refused");
                assert!(refused.contains(place) && refused.contains(&format!("[{key}]")), "{refused}");
            }
            std::fs::write(&path, "no toml").expect("room");
            assert!(check(&source, &home).is_err());
            std::fs::remove_file(&path).expect("it is there");
        }
        std::fs::write(source.join(".cargo/config.toml"), "[build]\njobs = 1\n").expect("room");
        assert!(check(&source, &home).is_ok(), "the source's own is source");
    }
}
