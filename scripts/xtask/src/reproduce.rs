//! `xtask reproduce`: the same source gives the same bits, whatever folder, mask, user name, language and time zone it is
//! built with.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// What of the surroundings differs there.
const OTHER_SURROUNDINGS: [(&str, &str); 4] =
    [("TZ", "Pacific/Kiritimati"), ("LC_ALL", "tr_TR.UTF-8"), ("USER", "somebody"), ("LOGNAME", "somebody")];

/// The folder for programs, beside those of images.
const PROGRAMS: &str = "programs";

/// What `cocoon` says of a pinned package that the archive no longer has.
const GONE: &str = "has left the archive";

/// Builds here and from a copy of the tree elsewhere, and compares: programs and images, or `cocoon-init` alone. Gives what was
/// compared, in words; the production image is missing in it where a package of it has left the archive.
///
/// # Errors
/// If something cannot be built, or differs.
pub(crate) fn run(root: &Path, init_only: bool) -> Result<Vec<&'static str>> {
    let cocoon = std::env::current_exe()?.with_file_name("cocoon");
    let folder = tempfile::Builder::new().prefix("cocoon-reproduced-elsewhere-").tempdir()?;
    let (here, there) = (folder.path().join("here"), folder.path().join("there"));
    let copy = folder.path().join("source");
    copy_tree(root, &copy)?;
    let builds = [
        Build { cocoon: &cocoon, source: root, out: &here, elsewhere: false },
        Build { cocoon: &cocoon, source: &copy, out: &there, elsewhere: true },
    ];
    for build in &builds {
        build.programs(init_only)?;
    }
    let mut compared = vec!["programs"];
    if !init_only {
        for build in &builds {
            build.image("development")?;
        }
        compared.push("development");
        match builds[0].image("production") {
            Ok(()) => {
                builds[1].image("production")?;
                compared.push("production");
            }
            // Its firmware comes from Debian's unstable, and nothing else excuses a failure.
            Err(error) if error.to_string().contains(GONE) => {
                eprintln!("SKIPPED: the production image cannot be built at present: {error:#}");
            }
            Err(error) => return Err(error),
        }
    }
    let (ours, theirs) = (files(&here)?, files(&there)?);
    let differences = differences(&ours, &theirs);
    if differences.is_empty() {
        eprintln!("{} files are the same, bit for bit:", ours.len());
        ours.keys().for_each(|path| eprintln!("  {}", path.display()));
        return Ok(compared);
    }
    for image in ["development", "production"].map(|variant| Path::new(variant).join("manifest.json")) {
        if ours.get(&image) != theirs.get(&image) {
            let arguments = [here.join(&image), there.join(&image)];
            // It only explains; whether it can is not the question here.
            let _ = Command::new(&cocoon).args(["image", "diff"]).args(arguments).status();
        }
    }
    bail!("built elsewhere, these are others:\n  {}", differences.join("\n  "))
}

/// One of the two places to build at.
struct Build<'a> {
    cocoon: &'a Path,
    source: &'a Path,
    out: &'a Path,
    elsewhere: bool,
}

impl Build<'_> {
    fn programs(&self, init_only: bool) -> Result<()> {
        let mut arguments = vec!["programs"];
        arguments.extend(init_only.then_some("--init-only"));
        self.run(&arguments, &self.out.join(PROGRAMS), &[])
    }

    fn image(&self, variant: &str) -> Result<()> {
        let programs = self.out.join(PROGRAMS);
        self.run(
            &["build", "--variant", variant],
            &self.out.join(variant),
            &["--programs".as_ref(), &programs],
        )
    }

    fn run(&self, arguments: &[&str], out: &Path, more: &[&Path]) -> Result<()> {
        let mut command = Command::new("sh");
        command.args([
            "-c",
            if self.elsewhere { "umask 0077; exec \"$0\" \"$@\"" } else { "exec \"$0\" \"$@\"" },
        ]);
        command.arg(self.cocoon).arg("image").args(arguments).arg("--out").arg(out).args(more);
        command.current_dir(self.source).stdout(std::process::Stdio::null());
        if self.elsewhere {
            command.envs(OTHER_SURROUNDINGS);
        }
        let output = command.stderr(std::process::Stdio::piped()).output();
        let output = output.with_context(|| format!("{} does not start", self.cocoon.display()))?;
        let says = String::from_utf8_lossy(&output.stderr);
        eprint!("{says}");
        if !output.status.success() {
            let (arguments, source) = (arguments.join(" "), self.source.display());
            bail!("cocoon image {arguments} ended with {} in {source}: {}", output.status, says.trim());
        }
        Ok(())
    }
}

/// The files of the tree as they are now, but for those that git ignores.
fn copy_tree(root: &Path, to: &Path) -> Result<()> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("git does not start")?;
    if !listed.status.success() {
        bail!("git lists no files: {}", String::from_utf8_lossy(&listed.stderr).trim());
    }
    let names = String::from_utf8(listed.stdout).context("a file's name is no text")?;
    for name in names.split_terminator('\0') {
        let (source, copy) = (root.join(name), to.join(name));
        if !source.is_file() {
            continue; // deleted here, or a link to a folder
        }
        let parent = copy.parent().context("a file has a folder")?;
        std::fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        std::fs::copy(&source, &copy).with_context(|| format!("cannot copy {name}"))?;
    }
    Ok(())
}

/// Content and rights of all files below a folder, by relative path.
type Files = BTreeMap<PathBuf, (Vec<u8>, u32)>;

fn files(folder: &Path) -> Result<Files> {
    let mut found = Files::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in std::fs::read_dir(&next).with_context(|| format!("cannot read {}", next.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                todo.push(path);
                continue;
            }
            let name = path.strip_prefix(folder).context("it is below")?.to_owned();
            let mode = std::fs::metadata(&path)?.permissions().mode() & 0o777;
            found.insert(name, (std::fs::read(&path)?, mode));
        }
    }
    Ok(found)
}

/// A line for each file that is not the same.
fn differences(ours: &Files, theirs: &Files) -> Vec<String> {
    let mut lines = Vec::new();
    for (path, (own, own_mode)) in ours {
        let other = theirs.get(path);
        // The mask is a user's own where programs are laid down; in an image it may not show.
        let free = path.starts_with(PROGRAMS);
        let path = path.display();
        match other {
            None => lines.push(format!("{path}: only here")),
            Some((other, mode)) if own == other && (free || own_mode == mode) => {}
            Some((other, _)) if own != other => {
                let at = own.iter().zip(other).position(|(a, b)| a != b);
                let at = at.unwrap_or(own.len().min(other.len()));
                lines.push(format!("{path}: from byte {at:#x} on; {} and {} bytes", own.len(), other.len()));
            }
            Some((_, mode)) => lines.push(format!("{path}: mode {own_mode:o} and {mode:o}")),
        }
    }
    let only_there = theirs.keys().filter(|path| !ours.contains_key(*path));
    lines.extend(only_there.map(|path| format!("{}: only elsewhere", path.display())));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_that_fails_says_why_so_that_only_a_lost_package_is_an_excuse() {
        let folder = tempfile::tempdir().expect("a folder");
        for (says, excused) in
            [("the package ovmf 1 of sid has left the archive (x)", true), ("no room", false)]
        {
            // The shell takes the first word of the command for its script.
            let script = format!("echo '{says}' >&2\nexit 1\n");
            std::fs::write(folder.path().join("image"), script).expect("room");
            let cocoon = Path::new("/bin/sh");
            let build = Build { cocoon, source: folder.path(), out: folder.path(), elsewhere: false };
            let error = build.image("production").expect_err("it fails").to_string();
            assert_eq!(error.contains(GONE), excused, "{error}");
        }
    }

    #[test]
    fn each_file_that_is_not_the_same_is_named() {
        let files = |entries: &[(&str, &[u8], u32)]| {
            entries.iter().map(|(path, bytes, mode)| (PathBuf::from(path), (bytes.to_vec(), *mode))).collect()
        };
        let ours: Files = files(&[("a", b"one", 0o644), ("b", b"1", 0o644), ("programs/p", b"x", 0o755)]);
        assert_eq!(differences(&ours, &ours), [""; 0]);
        let theirs = files(&[("a", b"on", 0o644), ("c", b"", 0o644), ("programs/p", b"x", 0o700)]);
        let found = differences(&ours, &theirs);
        assert_eq!(found, ["a: from byte 0x2 on; 3 and 2 bytes", "b: only here", "c: only elsewhere"]);
        let other_mode = files(&[("a", b"one", 0o600), ("b", b"1", 0o644), ("programs/p", b"x", 0o755)]);
        assert_eq!(differences(&ours, &other_mode), ["a: mode 644 and 600"]);
    }
}
