//! For what sources and compilers it was shown that the same bits come out.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Everything that could change a bit of programs and images, as text: compilers, then each file with git's hash of its present
/// content. Left out is what goes into none of them: prose, and the folders of tests.
///
/// # Errors
/// If git or a compiler does not run.
pub(crate) fn inputs(root: &Path) -> Result<String> {
    let listed = said(root, &["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], "")?;
    let mut names: Vec<&str> =
        listed.split_terminator('\0').filter(|name| matters(name) && root.join(name).is_file()).collect();
    names.sort_unstable();
    if let Some(odd) = names.iter().find(|name| name.contains('\n')) {
        bail!("a file's name has two lines: {odd:?}");
    }
    let lines: String = names.iter().map(|name| format!("{name}\n")).collect();
    let hashes = said(root, &["git", "hash-object", "--no-filters", "--stdin-paths"], &lines)?;
    if hashes.lines().count() != names.len() {
        bail!("git hashed {} of {} files", hashes.lines().count(), names.len());
    }
    let rustc = said(root, &["rustc", "-vV"], "")?;
    let cc = said(root, &["cc", "--version"], "")?;
    let mut text = format!("{rustc}{}\n", cc.lines().next().unwrap_or_default());
    for (hash, name) in hashes.lines().zip(names) {
        text.push_str(&format!("{hash} {name}\n"));
    }
    Ok(text)
}

/// Whether a file can go into a program or an image.
fn matters(name: &str) -> bool {
    let prose = Path::new(name).extension().is_some_and(|extension| extension == "md");
    !prose && !name.split('/').any(|part| part == "tests" || part == "docs")
}

/// What was proven for these inputs; `None` if it was for others, or for none.
pub(crate) fn read(place: &Path, inputs: &str) -> Option<String> {
    let text = std::fs::read_to_string(place).ok()?;
    let (proven, rest) = text.split_once('\n')?;
    (rest == inputs).then(|| proven.to_owned())
}

/// Remembers it.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn write(place: &Path, proven: &str, inputs: &str) -> Result<()> {
    std::fs::write(place, format!("{proven}\n{inputs}"))
        .with_context(|| format!("cannot write {}", place.display()))
}

/// What a program says to an input.
fn said(root: &Path, words: &[&str], input: &str) -> Result<String> {
    let (program, arguments) = words.split_first().context("a program has a name")?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("{program} does not start"))?;
    let mut pipe = child.stdin.take().context("it was asked for")?;
    let output = std::thread::scope(|scope| {
        // A thread of its own: whoever writes all before reading waits for ever once both pipes are full. Who does not read it
        // all says so by its status.
        scope.spawn(move || drop(pipe.write_all(input.as_bytes())));
        child.wait_with_output()
    })?;
    if !output.status.success() {
        bail!("{} ended with {}", words.join(" "), output.status);
    }
    String::from_utf8(output.stdout).with_context(|| format!("{program} writes no text"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        said(folder.path(), &["git", "init", "--quiet"], "").expect("git");
        for (name, text) in
            [("Cargo.lock", "1"), ("a/src/lib.rs", "2"), ("a/tests/t.rs", "3"), ("README.md", "4")]
        {
            let path = folder.path().join(name);
            std::fs::create_dir_all(path.parent().expect("a folder")).expect("room");
            std::fs::write(path, text).expect("room");
        }
        folder
    }

    #[test]
    fn what_was_proven_holds_until_an_input_changes() {
        let (folder, target) = (repository(), tempfile::tempdir().expect("a folder"));
        let place = target.path().join("reproduced");
        let before = inputs(folder.path()).expect("git and compilers");
        assert_eq!(read(&place, &before), None);
        write(&place, "development", &before).expect("room");
        assert_eq!(read(&place, &before).as_deref(), Some("development"));
        for (name, text, same) in [
            ("a/tests/t.rs", "x", true),
            ("README.md", "x", true),
            ("a/src/lib.rs", "x", false),
            ("a/src/lib.rs", "2", true),
            ("Cargo.lock", "x", false),
            ("Cargo.lock", "1", true),
            ("a/src/new.rs", "", false),
        ] {
            std::fs::write(folder.path().join(name), text).expect("room");
            let now = inputs(folder.path()).expect("git and compilers");
            assert_eq!(read(&place, &now).is_some(), same, "{name}: {text}");
        }
    }

    #[test]
    fn compilers_are_inputs() {
        let text = inputs(repository().path()).expect("git and compilers");
        assert!(text.contains("\nrelease: ") && text.contains("\ncommit-hash: "), "{text}");
        let cc = said(Path::new("/"), &["cc", "--version"], "").expect("a compiler");
        assert!(text.contains(cc.lines().next().expect("a line")), "{text}");
    }
}
