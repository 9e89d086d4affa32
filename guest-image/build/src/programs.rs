//! Our own programs, built so that neither the path of the source, nor the user, nor the time shows in them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::progress::Progress;
use crate::{Error, cargo_config};

/// Executables for an image.
#[derive(Clone, Debug)]
pub struct Programs {
    /// `cocoon-init`, static.
    pub init: PathBuf,
    /// `cocoon-guest`.
    pub guest: PathBuf,
}

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: &str = "image";
/// The time that compilers see: 2026-01-01. Nothing of ours asks for it, a dependency might.
const EPOCH: &str = "1767225600";
/// What cargo, rustc and the C compiler get of our environment; anything else could show in what they make. Not
/// `RUSTUP_TOOLCHAIN`: the source's `rust-toolchain.toml` says which it is.
const PASSED_ON: [&str; 11] = [
    "PATH",
    "HOME",
    "CARGO_HOME",
    "RUSTUP_HOME",
    "TMPDIR",
    "http_proxy",
    "https_proxy",
    "HTTPS_PROXY",
    "CARGO_HTTP_PROXY",
    "CARGO_HTTP_CAINFO",
    "SSL_CERT_FILE",
];

/// The source tree that `from` is in.
///
/// # Errors
/// If it is in none.
pub fn source_tree(from: &Path) -> Result<PathBuf, Error> {
    let is_source = |folder: &&Path| {
        folder.join("guest-image/image.lock").is_file()
            && folder.join("guest-image/init/Cargo.toml").is_file()
    };
    let found = from.ancestors().find(is_source);
    found.map(Path::to_owned).ok_or_else(|| Error::NoSource { from: from.to_owned() })
}

impl Programs {
    /// Those that stand ready in a folder: `cocoon-init`, `cocoon-guest`.
    ///
    /// # Errors
    /// If one is missing.
    pub fn in_folder(folder: &Path) -> Result<Self, Error> {
        let program = |name: &str| {
            let path = folder.join(name);
            let missing = || std::io::Error::new(std::io::ErrorKind::NotFound, "there is no such program");
            if path.is_file() { Ok(path) } else { Err(Error::io("read", &folder.join(name))(missing())) }
        };
        Ok(Self { init: program("cocoon-init")?, guest: program("cocoon-guest")? })
    }

    /// Builds them from a source tree, into `target/image` of that tree.
    ///
    /// The bits depend on the source, `Cargo.lock`, the pinned Rust toolchain, and the C compiler and C library's start files
    /// of this machine. Configuration files of cargo outside of the source may not change them.
    ///
    /// # Errors
    /// If such a file could, or cargo fails; with what it said last.
    pub fn build(source: &Path, offline: bool, progress: &dyn Progress) -> Result<Self, Error> {
        let init = Self::build_init(source, offline, progress)?;
        Ok(Self { init, guest: build(source, "cocoon-guest", None, offline, progress)? })
    }

    /// Builds `cocoon-init` alone, as [`Programs::build`] does, and gives where it is.
    ///
    /// # Errors
    /// If cargo fails; with what it said last.
    pub fn build_init(source: &Path, offline: bool, progress: &dyn Progress) -> Result<PathBuf, Error> {
        build(source, "cocoon-init", Some("-Ctarget-feature=+crt-static"), offline, progress)
    }

    /// Copies them into a folder, by the names that [`Programs::in_folder`] looks for.
    ///
    /// # Errors
    /// If they cannot be read or written.
    pub fn copy_to(&self, folder: &Path) -> Result<(), Error> {
        copy_program(&self.init, folder)?;
        copy_program(&self.guest, folder)
    }
}

/// Copies a program into a folder, which is made if it is missing.
///
/// # Errors
/// If it cannot be read or written.
pub fn copy_program(program: &Path, folder: &Path) -> Result<(), Error> {
    std::fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
    let place = folder.join(program.file_name().unwrap_or_default());
    std::fs::copy(program, &place).map(drop).map_err(Error::io("write", &place))
}

/// Builds one program, in a folder of its own: other flags would build everything anew each time.
fn build(
    source: &Path,
    package: &str,
    flag: Option<&str>,
    offline: bool,
    progress: &dyn Progress,
) -> Result<PathBuf, Error> {
    let cargo_home = cargo_home()?;
    cargo_config::check(source, &cargo_home)?;
    let maps = path_maps(source, &cargo_home)?;
    progress.note(&format!("building {package} (cargo, profile {PROFILE})"));
    let target = source.join("target").join(PROFILE).join(package);
    cargo(source, package, &target, &rust_flags(&maps, flag), &c_flags(&maps), offline)?;
    Ok(target.join(TARGET).join(PROFILE).join(package))
}

fn cargo(
    source: &Path,
    package: &str,
    target: &Path,
    rust_flags: &OsString,
    c_flags: &str,
    offline: bool,
) -> Result<(), Error> {
    let mut command = Command::new("cargo");
    command.current_dir(source).args([
        "build",
        "--locked",
        "--quiet",
        "--profile",
        PROFILE,
        "--target",
        TARGET,
    ]);
    command.args(["--package", package, "--bin", package, "--target-dir"]).arg(target);
    if offline {
        command.arg("--offline");
    }
    command.env_clear();
    command.envs(PASSED_ON.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
    command.env("LC_ALL", "C").env("TZ", "UTC").env("SOURCE_DATE_EPOCH", EPOCH).env("ZERO_AR_DATE", "1");
    // Variables win over every configuration file of cargo.
    command.env("CARGO_ENCODED_RUSTFLAGS", rust_flags).env("CARGO_INCREMENTAL", "0");
    command.env("CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_LINKER", "cc").env("CC", "cc").env("CFLAGS", c_flags);
    command.env("CC_SHELL_ESCAPED_FLAGS", "1");
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output();
    let output = output.map_err(|error| Error::Cargo(format!("cargo cannot be started: {error}")))?;
    if output.status.success() {
        return Ok(());
    }
    let says = String::from_utf8_lossy(&output.stderr);
    let tail: Vec<_> = says.trim().lines().rev().take(12).collect();
    Err(Error::Cargo(format!("{package}: {}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"))))
}

/// Real folders, and what compilers shall call them.
type Maps = Vec<(PathBuf, String)>;

fn path_maps(source: &Path, cargo_home: &Path) -> Result<Maps, Error> {
    let mut maps = vec![(source.to_owned(), "/cocoon".to_owned())];
    let registries = cargo_home.join("registry/src");
    maps.push((cargo_home.to_owned(), "/cargo".to_owned()));
    // The registry's folder is named by a hash that differs between versions of cargo and kinds of registries.
    for entry in std::fs::read_dir(&registries).into_iter().flatten().flatten() {
        maps.push((entry.path(), "/cargo/registry".to_owned()));
    }
    // With the component rust-src, the standard library's paths lead into the toolchain's folder; without, they are these.
    let sysroot = ask_rustc(source, &["--print", "sysroot"])?;
    let version = ask_rustc(source, &["-vV"])?;
    let commit = version.lines().find_map(|line| line.strip_prefix("commit-hash: ")).unwrap_or("unknown");
    maps.push((Path::new(sysroot.trim()).join("lib/rustlib/src/rust"), format!("/rustc/{commit}")));
    Ok(maps)
}

/// The last map that fits wins, in rustc as in gcc: the more special ones stand behind.
fn rust_flags(maps: &Maps, more: Option<&str>) -> OsString {
    let mut flags = OsString::new();
    for (from, to) in maps {
        flags.push("--remap-path-prefix=");
        flags.push(from);
        flags.push(format!("={to}\x1f"));
    }
    // Not the processor of this machine.
    flags.push("-Ctarget-cpu=x86-64");
    if let Some(flag) = more {
        flags.push(format!("\x1f{flag}"));
    }
    flags
}

/// Quoted as for a shell where that is needed: see `CC_SHELL_ESCAPED_FLAGS` of the crate cc.
fn c_flags(maps: &Maps) -> String {
    let quoted = |flag: String| {
        let plain = |c: char| c.is_ascii_alphanumeric() || "/-_=.+:,@".contains(c);
        if flag.chars().all(plain) { flag } else { format!("'{}'", flag.replace('\'', r"'\''")) }
    };
    let flag = |(from, to): &(PathBuf, String)| quoted(format!("-ffile-prefix-map={}={to}", from.display()));
    format!("-g0 {}", maps.iter().map(flag).collect::<Vec<_>>().join(" "))
}

fn cargo_home() -> Result<PathBuf, Error> {
    let variable = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = variable("CARGO_HOME").or_else(|| Some(variable("HOME")?.join(".cargo")));
    home.ok_or_else(|| Error::Cargo("neither CARGO_HOME nor HOME says where cargo keeps its files".into()))
}

fn ask_rustc(source: &Path, arguments: &[&str]) -> Result<String, Error> {
    let mut command = Command::new("rustc");
    command.current_dir(source).args(arguments).env_remove("RUSTUP_TOOLCHAIN").stdin(Stdio::null());
    let output = command.output();
    let output = output.map_err(|error| Error::Cargo(format!("rustc cannot be started: {error}")))?;
    if !output.status.success() {
        return Err(Error::Cargo(format!("rustc: {}", String::from_utf8_lossy(&output.stderr).trim())));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_of_this_machine_is_renamed_and_odd_ones_are_quoted() {
        let maps = vec![
            (PathBuf::from("/home/a b/it's"), "/cocoon".to_owned()),
            (PathBuf::from("/home/x/.cargo"), "/cargo".to_owned()),
        ];
        assert_eq!(
            c_flags(&maps),
            r"-g0 '-ffile-prefix-map=/home/a b/it'\''s=/cocoon' -ffile-prefix-map=/home/x/.cargo=/cargo"
        );
        let flags = rust_flags(&maps, Some("-Ctarget-feature=+crt-static")).into_string().expect("text");
        let flags: Vec<_> = flags.split('\x1f').collect();
        assert_eq!(
            flags,
            [
                "--remap-path-prefix=/home/a b/it's=/cocoon",
                "--remap-path-prefix=/home/x/.cargo=/cargo",
                "-Ctarget-cpu=x86-64",
                "-Ctarget-feature=+crt-static"
            ]
        );
    }

    #[test]
    fn the_source_is_found_from_below_and_nowhere_else() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let root = source_tree(here).expect("this is the source");
        assert_eq!(root, here.join("../..").canonicalize().expect("it is there"));
        assert!(matches!(source_tree(Path::new("/")), Err(Error::NoSource { .. })));
    }
}
