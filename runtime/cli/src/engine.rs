//! `--engine FILE`: another server as the engine of guests in process mode. From an operator's file to the tables that guests measure.

use std::path::Path;
use std::sync::Arc;

use cocoon_supervisor::{ChildConfig, tree};
use toml::{Table, Value};

use crate::error::{Explain, Failure};

const REMEDY: &str = "docs/operating.md, \"Another server as the engine\", shows such a file";
/// A file of settings is not longer, in bytes.
const MAX_FILE: u64 = 32 << 10; // with the rest it fits a guest's configuration

/// Reads a file with an `[engine]` table and no other, checks it, and writes into it what is there to be measured: the digest of
/// each of `engine.roots` that has none. The same files give the same text, which registries allow and guests are started with.
///
/// # Errors
/// The file or a root cannot be read, or breaks a rule of [`ChildConfig`].
pub(crate) fn read(path: &Path) -> Result<Arc<str>, Failure> {
    let about = || path.display().to_string();
    let length = path.metadata().explain(about, "check the name")?.len();
    if length > MAX_FILE {
        return Err(Failure::usage(format!("{} has {length} bytes", path.display()), REMEDY));
    }
    let text = std::fs::read_to_string(path).explain(about, "check the name")?;
    let mut file: Table = toml::from_str(&text).explain(about, "mend the line it names")?;
    let engine = match (file.len(), file.get_mut("engine")) {
        (1, Some(Value::Table(engine))) => engine,
        _ => {
            let what = format!("{} must have the table [engine] and no other", path.display());
            return Err(Failure::usage(what, REMEDY));
        }
    };
    // What is checked here the guest checks again: this is for the operator, who reads it now.
    engine.remove("kind");
    let child: ChildConfig = engine.clone().try_into().explain(about, REMEDY)?;
    child.check().explain(about, REMEDY)?;
    engine.insert("kind".to_owned(), "child".into());
    measure(engine, &child)?;
    let text = toml::to_string(&file).explain(about, "report this")?;
    Ok(text.into())
}

/// Adds the digests of roots that have none.
fn measure(engine: &mut Table, child: &ChildConfig) -> Result<(), Failure> {
    let Some(Value::Array(roots)) = engine.get_mut("roots") else { return Ok(()) };
    for (written, root) in roots.iter_mut().zip(&child.roots) {
        if let (None, Value::Table(written)) = (root.pinned(), written) {
            let about = || format!("engine.roots: {} cannot be measured", root.path.display());
            let digest =
                tree::digest(&root.path).explain(about, "install what is missing, or correct the path")?;
            written.insert("sha256".to_owned(), hex::encode(digest).into());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(folder: &Path, more: &str) -> std::path::PathBuf {
        let roots = folder.join("program");
        std::fs::create_dir_all(&roots).expect("ours");
        std::fs::write(roots.join("serve"), b"a program").expect("ours");
        let text = format!(
            "[engine]\nargv = [\"{0}/serve\"]\naddress = \"127.0.0.1:8000\"\ndialect = \"llama_cpp\"\nprefix_cache = \"off\"\n\
             [[engine.roots]]\npath = \"{0}\"\n[engine.canary]\nprompt = \"Say hello.\"\n{more}",
            roots.display()
        );
        let path = folder.join("engine.toml");
        std::fs::write(&path, text).expect("ours");
        path
    }

    #[test]
    fn what_guests_measure_says_what_the_program_is() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = file(folder.path(), "");
        let text = read(&path).expect("good");
        let digest = hex::encode(tree::digest(&folder.path().join("program")).expect("it is there"));
        assert!(text.contains("kind = \"child\"") && text.contains(&digest), "{text}");
        assert_eq!(read(&path).expect("good"), text, "the same each time");
        std::fs::write(folder.path().join("program/serve"), b"another").expect("ours");
        assert_ne!(read(&path).expect("good"), text);
    }

    #[test]
    fn a_file_of_anything_else_is_refused_with_words() {
        let folder = tempfile::tempdir().expect("a folder");
        for (more, word) in [
            ("[model]\nname = \"m\"\n", "no other"),
            ("[engine.limits]\nrestarts = 1000\n", "limits.restarts"),
            ("[engine.environment]\nLD_PRELOAD = \"/x\"\n", "LD_PRELOAD"),
        ] {
            let error = read(&file(folder.path(), more)).expect_err(more).to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
