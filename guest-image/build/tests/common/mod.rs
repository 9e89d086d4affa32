//! What several tests need: the real packages where they can be had, and files to compare.
#![allow(dead_code, reason = "each test uses its own part of this")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cocoon_image_build::{ARCHIVE, Error, Group, Lock, Programs, Quiet, Store, Tools};

/// A runtime for one test.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime")
}

/// The cache that a developer's own builds use, or another one for the tests.
pub(crate) fn store() -> Store {
    let folder = std::env::var_os("COCOON_TEST_CACHE").map(PathBuf::from).or_else(Store::default_folder);
    Store::new(folder.expect("HOME is set"), ARCHIVE, false, Arc::new(Quiet)).expect("a client")
}

/// The tools of a group; `None`, said loudly, where the archive cannot be reached or has lost them.
pub(crate) fn tools(group: Group) -> Option<Tools> {
    available(runtime().block_on(Tools::of(group, &Lock::built_in(), &store())))
}

/// The value; `None`, said loudly, if packages could not be had. Any other error fails the test.
pub(crate) fn available<T>(result: Result<T, Error>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error @ (Error::Download { .. } | Error::Gone { .. })) => {
            eprintln!("SKIPPED: packages of the lock cannot be had here: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// Programs of the kinds that an image takes: a static one, and one that is linked like the guest service.
pub(crate) fn programs(folder: &Path) -> Programs {
    let compile = |name: &str, flags: &[&str]| {
        let source = folder.join(format!("{name}.rs"));
        std::fs::write(&source, "fn main() { println!(\"{}\", std::env::args().count()); }").expect("room");
        let path = folder.join(name);
        let mut rustc = std::process::Command::new("rustc");
        rustc.args(["--edition=2024", "-Cstrip=symbols"]).args(flags).arg("-o").arg(&path).arg(&source);
        assert!(rustc.status().expect("rustc is where cargo is").success());
    };
    compile("cocoon-init", &["-Ctarget-feature=+crt-static"]);
    compile("cocoon-guest", &[]);
    Programs::in_folder(folder).expect("both were made")
}

/// All files below a folder, by relative path.
pub(crate) fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut todo = vec![folder.to_owned()];
    while let Some(next) = todo.pop() {
        for entry in std::fs::read_dir(&next).expect("a folder") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                todo.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("below it").to_owned();
                found.insert(name, std::fs::read(&path).expect("readable"));
            }
        }
    }
    found
}
