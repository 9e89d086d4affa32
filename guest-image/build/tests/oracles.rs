//! Our formats against the programs that everybody else reads them with, on random input.

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use cocoon_image::cpio::Archive;
use cocoon_image::verity::{BLOCK, Tree};
use cocoon_image_build::{Group, Program, write_weights_disk};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// Each case starts a program or two.
const CASES: u32 = 48;

/// Files by name.
type Folder = BTreeMap<String, Vec<u8>>;

fn runner() -> TestRunner {
    TestRunner::new(Config { cases: CASES, failure_persistence: None, ..Config::default() })
}

fn oracle(name: &str) -> Option<Program> {
    Some(common::tools(Group::TestOracles)?.program(name).expect("the lock has it"))
}

#[test]
fn cpio_unpacks_every_archive_to_what_was_put_in() {
    let Some(cpio) = oracle("cpio") else { return };
    let content = || prop::collection::vec(any::<u8>(), 0..200);
    let names = "[a-zA-Z0-9_.+-]{0,20}[a-z0-9]";
    let tree = prop::collection::btree_map(
        names,
        (content(), prop::collection::btree_map(names, content(), 0..4)),
        0..6,
    );
    let check = |tree: BTreeMap<String, (Vec<u8>, Folder)>| {
        let mut archive = Archive::new();
        let mut expected = BTreeMap::new();
        for (name, (content, below)) in &tree {
            if below.is_empty() {
                archive.file(name, 0o640, content.clone()).expect("a plain name");
                expected.insert(name.into(), content.clone());
                continue;
            }
            archive.folder(name).expect("a plain name");
            for (file, content) in below {
                let path = format!("{name}/{file}");
                archive.file(&path, 0o755, content.clone()).expect("a plain name");
                expected.insert(path.into(), content.clone());
            }
        }
        let home = tempfile::tempdir().expect("a folder");
        std::fs::write(home.path().join("archive"), archive.to_bytes()).expect("room");
        let into = home.path().join("into");
        std::fs::create_dir(&into).expect("new");
        let mut command = cpio.command();
        command.args(["-i", "--quiet", "--no-absolute-filenames", "-F", "../archive"]).current_dir(&into);
        let output = command.output().expect("it starts");
        prop_assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        prop_assert_eq!(common::files(&into), expected);
        Ok(())
    };
    runner().run(&tree, check).expect("cpio agrees");
}

/// The root hash and the tree that veritysetup makes of a file of whole blocks.
fn veritysetup(program: &Program, data: &Path, hashes: &Path) -> (String, Vec<u8>) {
    let arguments = [
        "format",
        "--no-superblock",
        "--hash=sha256",
        "--salt=-",
        "--data-block-size=4096",
        "--hash-block-size=4096",
    ];
    let arguments: Vec<_> =
        arguments.iter().map(AsRef::as_ref).chain([data.as_os_str(), hashes.as_os_str()]).collect();
    let text = String::from_utf8(program.run(&arguments).expect("it makes a tree")).expect("text");
    let root =
        text.lines().find_map(|line| line.strip_prefix("Root hash:")).expect("it says so").trim().to_owned();
    (root, std::fs::read(hashes).unwrap_or_default())
}

fn verify(program: &Program, data: &Path, hashes: &Path, root: &str) -> bool {
    let arguments = [
        "verify",
        "--no-superblock",
        "--hash=sha256",
        "--salt=-",
        "--data-block-size=4096",
        "--hash-block-size=4096",
    ];
    let arguments: Vec<_> = arguments.iter().map(AsRef::as_ref).collect();
    program.run(&[arguments, vec![data.as_os_str(), hashes.as_os_str(), root.as_ref()]].concat()).is_ok()
}

#[test]
fn veritysetup_makes_the_same_tree_of_any_data_and_accepts_ours() {
    let Some(program) = oracle("veritysetup") else { return };
    // Around the sizes at which a level or a block of it begins: 1, 128, 128 · 128.
    let sizes = prop_oneof![1_usize..6, 126_usize..131, 255_usize..259, Just(16_385)];
    let check = |(blocks, seed, flipped): (usize, u8, prop::sample::Index)| {
        let home = tempfile::tempdir().expect("a folder");
        let (data, hashes) = (home.path().join("data"), home.path().join("hashes"));
        let bytes: Vec<u8> =
            (0..blocks * BLOCK).map(|i| (i / BLOCK) as u8 ^ (i % 251) as u8 ^ seed).collect();
        std::fs::write(&data, &bytes).expect("room");
        let tree = Tree::of(&bytes).expect("there is data");
        let (root, theirs) = veritysetup(&program, &data, &hashes);
        prop_assert_eq!(&root, &tree.root_hash.to_string());
        prop_assert!(theirs == tree.bytes, "other trees for {} blocks", blocks);

        std::fs::write(&hashes, &tree.bytes).expect("room");
        prop_assert!(verify(&program, &data, &hashes, &root));
        let file = std::fs::File::options().write(true).open(&data).expect("there");
        let at = flipped.index(bytes.len());
        file.write_all_at(&[bytes[at] ^ 1], at as u64).expect("room");
        prop_assert!(!verify(&program, &data, &hashes, &root), "byte {} was flipped", at);
        Ok(())
    };
    runner().run(&(sizes, any::<u8>(), any::<prop::sample::Index>()), check).expect("veritysetup agrees");
}

#[test]
fn a_weights_disk_is_the_model_and_the_tree_of_veritysetup() {
    let Some(program) = oracle("veritysetup") else { return };
    let home = tempfile::tempdir().expect("a folder");
    let path = |name: &str| home.path().join(name);
    for length in [1, BLOCK - 1, BLOCK, BLOCK + 1, 129 * BLOCK + 77] {
        let model: Vec<u8> = (0..length).map(|i| (i % 253) as u8).collect();
        std::fs::write(path("model"), &model).expect("room");
        let out = std::fs::File::create(path("disk")).expect("room");
        let disk = write_weights_disk(&path("model"), &out, &path("disk"), &|_| {}).expect("room");
        let mut padded = model.clone();
        padded.resize(length.next_multiple_of(BLOCK), 0);
        std::fs::write(path("data"), &padded).expect("room");
        let _ = std::fs::remove_file(path("hashes"));
        let (root, tree) = veritysetup(&program, &path("data"), &path("hashes"));
        assert_eq!(disk.verity.to_string(), root, "{length}");
        assert_eq!((disk.bytes, disk.weights), (length as u64, cocoon_image::Sha256::of(&model)));
        assert!(std::fs::read(path("disk")).expect("written") == [padded, tree].concat(), "{length}");
    }
}
