//! Images from the real lock: the same bits wherever, whenever and by whom they are built, and content that others read.

mod common;

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cocoon_image::manifest::{Manifest, Variant};
use cocoon_image::{Sha256, verity};
use cocoon_image_build::{Error, Group, Lock, Order, Programs, build};

/// Tells this test, started as a process of its own, where to build and nothing else.
const BUILD_INTO: &str = "COCOON_TEST_BUILD_INTO";
const NOBODY: u32 = 65534;

fn build_into(out: &Path, programs: &Programs, variant: Variant) -> Option<Manifest> {
    let order = Order { variant, out, programs, lock: &Lock::built_in() };
    common::available(common::runtime().block_on(build(order, &common::store()))).map(|built| built.manifest)
}

/// Builds in a process with another mask, folder for temporary files, and (as root) user and cache.
fn build_elsewhere(out: &Path, home: &Path, as_nobody: bool) -> bool {
    let mut shell = Command::new("sh");
    let this = std::env::current_exe().expect("it runs");
    shell.args(["-c", "umask 0077; exec \"$0\" --exact an_image_is_the_same_from_anywhere"]).arg(this);
    shell.current_dir("/").env(BUILD_INTO, out).env("TMPDIR", home).env("TZ", "Pacific/Kiritimati");
    if as_nobody {
        shell.uid(NOBODY).gid(NOBODY).env("COCOON_TEST_CACHE", home.join("cache")).env("HOME", home);
    }
    shell.output().is_ok_and(|output| output.status.success())
}

#[test]
fn an_image_is_the_same_from_anywhere() {
    if let Some(out) = std::env::var_os(BUILD_INTO).map(PathBuf::from) {
        let programs =
            Programs::in_folder(out.parent().expect("a folder")).expect("the other process made them");
        build_into(&out, &programs, Variant::Development).expect("the other process had the packages");
        return;
    }
    let here = tempfile::tempdir().expect("a folder");
    let programs = common::programs(here.path());
    let Some(manifest) = build_into(&here.path().join("image"), &programs, Variant::Development) else {
        return;
    };
    let expected = common::files(&here.path().join("image"));
    assert_eq!(Manifest::from_json(&expected[Path::new("manifest.json")]).expect("canonical"), manifest);

    let is_root = std::fs::metadata("/proc/self").expect("procfs").uid() == 0;
    for as_nobody in [false, true] {
        let there = tempfile::Builder::new().prefix("another path ").tempdir().expect("a folder");
        for name in ["cocoon-init", "cocoon-guest"] {
            std::fs::copy(here.path().join(name), there.path().join(name)).expect("room");
        }
        if as_nobody && !is_root {
            eprintln!("SKIPPED: building as another user needs root, to become one");
            continue;
        }
        if as_nobody {
            std::os::unix::fs::chown(there.path(), Some(NOBODY), Some(NOBODY)).expect("root may");
        }
        let out = there.path().join("image");
        assert!(build_elsewhere(&out, there.path(), as_nobody), "the build elsewhere failed");
        assert!(common::files(&out) == expected, "other bits, as nobody: {as_nobody}");
        let mode = std::fs::metadata(out.join("root.img")).expect("built").permissions().mode();
        assert_eq!(mode & 0o777, 0o644, "whatever the mask is");
    }
}

#[test]
fn an_image_is_what_its_manifest_says_and_others_can_read_it() {
    let home = tempfile::tempdir().expect("a folder");
    let programs = common::programs(home.path());
    let out = home.path().join("image");
    let Some(manifest) = build_into(&out, &programs, Variant::Development) else { return };
    let read = |name: &str| std::fs::read(out.join(name)).expect("built");
    for (name, file) in [
        ("vmlinuz", manifest.files.kernel),
        ("initrd.cpio", manifest.files.initrd),
        ("cmdline", manifest.files.cmdline),
    ] {
        assert_eq!((Sha256::of(&read(name)), read(name).len() as u64), (file.sha256, file.size), "{name}");
    }
    let root = read("root.img");
    let length = usize::try_from(manifest.files.root.verity.data_blocks).expect("small") * verity::BLOCK;
    let tree = verity::Tree::of(&root[..length]).expect("there is data");
    assert_eq!(
        (&root[length..], tree.root_hash),
        (tree.bytes.as_slice(), manifest.files.root.verity.root_hash)
    );
    assert!(manifest.command_line.contains(&format!("cocoon.root={} ", tree.root_hash)));

    let extracted = home.path().join("extracted");
    let fsck =
        common::tools(Group::ImageTools).expect("it just built").program("fsck.erofs").expect("it has one");
    let extract = format!("--extract={}", extracted.display());
    fsck.run(&[extract.as_ref(), out.join("root.img").as_os_str()]).expect("a sound file system");
    let inside = common::files(&extracted);
    let names: Vec<_> = inside.keys().map(|path| path.to_str().expect("text")).collect();
    let libraries = ["libc.so.6", "libgcc_s.so.1"].map(|name| format!("usr/lib/x86_64-linux-gnu/{name}"));
    let expected = ["lib64/ld-linux-x86-64.so.2", "usr/bin/cocoon-guest", &libraries[0], &libraries[1]];
    assert_eq!(names, expected, "a closed list");
    assert_eq!(
        inside[Path::new("usr/bin/cocoon-guest")],
        std::fs::read(&programs.guest).expect("made above")
    );
    for folder in ["dev", "proc", "run", "sys", "tmp"] {
        assert!(extracted.join(folder).is_dir(), "{folder}");
    }

    let cpio = common::tools(Group::TestOracles).expect("as the others").program("cpio").expect("it has one");
    let list =
        cpio.run(&["-it".as_ref(), "--quiet".as_ref(), "-F".as_ref(), out.join("initrd.cpio").as_os_str()]);
    let list = String::from_utf8(list.expect("a sound archive")).expect("text");
    assert!(
        list.starts_with("dev\ninit\nmodules\nmodules/00-virtio_blk.ko\nmodules/01-erofs.ko\n"),
        "{list}"
    );
    assert!(list.ends_with("modules/16-virtio_net.ko\nproc\nrun\nsys\nsysroot\n"), "{list}");
}

#[test]
fn production_has_no_console_no_network_card_and_other_firmware() {
    let home = tempfile::tempdir().expect("a folder");
    let out = home.path().join("image");
    let Some(manifest) = build_into(&out, &common::programs(home.path()), Variant::Production) else {
        return;
    };
    assert!(!manifest.command_line.contains("console") && !manifest.command_line.contains("development"));
    let initrd = std::fs::read(out.join("initrd.cpio")).expect("built");
    let has = |name: &[u8]| initrd.windows(name.len()).any(|window| window == name);
    assert!(has(b"-nf_tables.ko\0") && !has(b"-virtio_net.ko\0"));
    let firmware: Vec<_> = manifest.firmware.iter().map(|firmware| firmware.name.as_str()).collect();
    assert_eq!(firmware, ["OVMF.amdsev.fd", "OVMF.inteltdx.fd"]);
    let measured: Vec<_> = manifest.measurements.iter().map(|own| own.profile.as_str()).collect();
    for tee in ["tdx-", "snp-"] {
        assert!(measured.iter().any(|name| name.starts_with(tee)), "{tee} is not among {measured:?}");
    }
    assert!(!measured.iter().any(|name| name.starts_with("emulation-")), "it has no simulated TEE");
}

#[test]
fn parts_that_would_not_boot_are_refused_and_nothing_is_left() {
    let home = tempfile::tempdir().expect("a folder");
    let good = common::programs(home.path());
    let out = home.path().join("images/image");
    let order = |programs: &Programs| {
        let order = Order { variant: Variant::Development, out: &out, programs, lock: &Lock::built_in() };
        common::runtime().block_on(build(order, &common::store())).expect_err("refused")
    };
    let dynamic_init = order(&Programs { init: good.guest.clone(), ..good.clone() });
    if common::available(Err::<(), _>(dynamic_init).or_else(contents)).is_none() {
        return;
    }
    let script = home.path().join("script");
    std::fs::write(&script, "#!/bin/sh\n").expect("room");
    for programs in [
        Programs { guest: good.init.clone(), ..good.clone() },
        Programs { guest: script.clone(), ..good.clone() },
        Programs { init: script, ..good.clone() },
    ] {
        assert!(matches!(order(&programs), Error::Contents(_)));
    }
    let missing = order(&Programs { init: home.path().join("absent"), ..good });
    assert!(missing.to_string().contains("absent"), "{missing}");
    let left = std::fs::read_dir(home.path().join("images")).expect("made for the output").count();
    assert_eq!(left, 0, "nothing half-done");
}

/// The error that is expected counts as a value; those of missing packages stay errors.
fn contents(error: Error) -> Result<(), Error> {
    match error {
        Error::Contents(why) if why.contains("not linked statically") => Ok(()),
        other => Err(other),
    }
}

#[test]
fn a_full_disk_is_said_and_leaves_nothing() {
    const LIMITED: &str = "COCOON_TEST_FULL_DISK";
    if let Some(home) = std::env::var_os(LIMITED).map(PathBuf::from) {
        let programs = Programs::in_folder(&home).expect("the other process made them");
        let out = home.join("images/image");
        let order =
            Order { variant: Variant::Development, out: &out, programs: &programs, lock: &Lock::built_in() };
        let error = common::runtime().block_on(build(order, &common::store())).expect_err("no room");
        assert!(error.remedy().contains("make room where"), "{error}: {}", error.remedy());
        return;
    }
    let home = tempfile::tempdir().expect("a folder");
    let programs = common::programs(home.path());
    // Fills the cache, so that the limit meets the image and not the packages.
    let Some(_) = build_into(&home.path().join("whole"), &programs, Variant::Development) else { return };
    let mut shell = Command::new("sh");
    shell.args([
        "-c",
        "trap '' XFSZ; ulimit -f 4000; exec \"$0\" --exact a_full_disk_is_said_and_leaves_nothing",
    ]);
    let output = shell.arg(std::env::current_exe().expect("it runs")).env(LIMITED, home.path()).output();
    let output = output.expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert_eq!(std::fs::read_dir(home.path().join("images")).expect("made for the output").count(), 0);
}
