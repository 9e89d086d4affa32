//! docs/operating.md: every command on the page that this machine can run, in a folder with a development image and a
//! worker's evidence; and that the page says of `host.toml` and of the doctor what is so.
//!
//! Needs a development image (`COCOON_TEST_IMAGE`) for most, and the pinned tools in the cache for some; `./scripts/test`
//! makes both.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use cocoon_attestation::Measurements;
use cocoon_tests::page::{self, Ends, Example};
use cocoon_tests::{Part, binary, evidence, tiny_model};
use serde_json::Value;

const PAGE: &str = include_str!("../../docs/operating.md");
const EXAMPLE: &str = include_str!("../../runtime/launch/host.toml");
/// The profile of the folder's guest and evidence.
const PROFILE: &str = "emulation-1";
/// Files that are made from an image.
const OF_IMAGE: [&str; 5] = ["image", "host.toml", "bundle.cmw", "other.cmw", "policy.toml"];

fn image() -> Option<PathBuf> {
    let image = std::env::var_os("COCOON_TEST_IMAGE").map(PathBuf::from);
    if image.is_none() {
        eprintln!(
            "SKIPPED: the page's commands on an image: COCOON_TEST_IMAGE names none; run ./scripts/test"
        );
    }
    image
}

/// A folder as the page has it, and the network that its host joins.
struct Bench {
    folder: tempfile::TempDir,
    _chain: Part,
    _gateway: Part,
}

impl Bench {
    fn start(image: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let image = image.canonicalize().expect("COCOON_TEST_IMAGE is there");
        std::os::unix::fs::symlink(&image, path("image")).expect("our folder");
        std::fs::copy(tiny_model(), path("tiny.gguf")).expect("the repository's model");
        let registers = predicted(&image);
        let platform = evidence::Platform::create();
        evidence::write(folder.path(), &platform, &registers);
        let mut other = registers;
        other.rtmr[2] = [9; 48];
        std::fs::write(path("other.cmw"), platform.bundle(&other)).expect("our folder");

        let state = path("state");
        let (state, model) = (text(&state), path("tiny.gguf"));
        let common = ["--listen", "127.0.0.1:0", "--state", state];
        let chain = [&["chain", "--model", text(&model), "--image", text(&image)], &common[..]].concat();
        let chain = Part::start(&chain, &path("chain.log"));
        let gateway = Part::start(&[&["gateway"], &common[..]].concat(), &path("gateway.log"));
        let config = format!(
            "tee = \"emulation\"\nimage = {image:?}\nstate = {state:?}\nlisten = \"127.0.0.1:0\"\n\
             gateways = [{:?}]\n[model]\nname = \"tiny\"\nfile = {model:?}\n\
             [[guest]]\nname = \"one\"\nprofile = {PROFILE:?}\n",
            gateway.url()
        );
        std::fs::write(path("host.toml"), config).expect("our folder");
        Self { folder, _chain: chain, _gateway: gateway }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("temporary folders are UTF-8")
}

/// What the image's manifest predicts for the profile; RTMR3 as a guest could have it.
fn predicted(image: &Path) -> Measurements {
    let manifest = std::fs::read(image.join("manifest.json")).expect("an image has a manifest");
    let manifest: Value = serde_json::from_slice(&manifest).expect("JSON");
    let all = manifest["measurements"].as_array().expect("a list");
    let own = all.iter().find(|own| own["profile"] == PROFILE).expect("it predicts the smallest machine");
    let register = |name: &str| -> [u8; 48] {
        let digest = own[name].as_str().expect("a digest");
        hex::decode(digest).expect("hex").try_into().expect("48 bytes")
    };
    let zero = [0; 48];
    Measurements {
        mrtd: register("mrtd"),
        rtmr: [register("rtmr0"), register("rtmr1"), register("rtmr2"), [3; 48]],
        mrconfigid: zero,
        mrowner: zero,
        mrownerconfig: zero,
    }
}

/// The words of the page for what a machine may have, and where the kernel shows that it has it.
fn has(what: &str) -> bool {
    let parameter = match what {
        "TDX" => "/sys/module/kvm_intel/parameters/tdx",
        "SEV-SNP" => "/sys/module/kvm_amd/parameters/sev_snp",
        other => panic!("{other}: not known what that is"),
    };
    std::fs::read_to_string(parameter).is_ok_and(|word| matches!(word.trim(), "Y" | "1"))
}

/// Whether an example needs a file that is made from an image.
fn needs_image(example: &Example) -> bool {
    let of_image = |word: &&str| OF_IMAGE.iter().any(|name| word.split('/').next() == Some(name));
    example.words.iter().any(of_image)
}

#[test]
fn every_command_on_the_page_ends_as_it_says() {
    let bench = image().map(|image| Bench::start(&image));
    let empty = tempfile::tempdir().expect("a folder");
    let folder = bench.as_ref().map_or(empty.path(), |bench| bench.folder.path());
    let program = binary("cocoon");
    let (mut run, mut shown) = (0, 0);
    for example in page::examples(PAGE) {
        match &example.ends {
            Ends::NotRun(why) => {
                println!("not run ({why}): {}", example.words.join(" "));
                shown += 1;
            }
            Ends::With { without: Some(what), .. } if has(what) => {
                eprintln!("SKIPPED: this machine has {what}: {}", example.line);
            }
            Ends::With { .. } if bench.is_none() && needs_image(&example) => {}
            Ends::With { .. } => {
                example.run(&program, folder, &[("XDG_STATE_HOME", folder)]);
                run += 1;
            }
        }
    }
    println!("{run} commands run, {shown} shown");
    let least = if bench.is_some() { 20 } else { 4 };
    assert!(run >= least && shown < run + 15, "{run} commands run, {shown} shown");
}

/// The page says to install it; so the host must take its own service's command line.
#[test]
fn what_the_service_starts_is_what_the_host_takes() {
    let Some(image) = image() else { return };
    let bench = Bench::start(&image);
    let config = bench.folder.path().join("host.toml");
    let run = |program: &Path, arguments: &[&str]| {
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).output().expect("it starts")
    };
    let unit = run(&binary("cocoon"), &["host", "unit", "--config", text(&config)]);
    let unit = String::from_utf8(unit.stdout).expect("text");
    let line = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("it starts something");
    let mut words = line.split(' ');
    let program = PathBuf::from(words.next().expect("a program"));
    let arguments: Vec<&str> = words.chain(["--dry-run"]).collect();
    let output = run(&program, &arguments);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    let cache = unit.lines().find_map(|line| line.strip_prefix("Environment=XDG_CACHE_HOME="));
    let state = bench.folder.path().join("state");
    assert!(Path::new(cache.expect("a cache")).starts_with(&state), "it may write to the state folder alone");
}

#[test]
fn every_word_of_the_configuration_is_explained_on_the_page() {
    let example: toml::Table = EXAMPLE.parse().expect("the example is TOML");
    // Words that the example has as comments.
    let mut words: Vec<String> =
        ["advertise", "iommu", "qemu", "swtpm", "gpu_admin", "forward"].map(String::from).into();
    for (word, value) in &example {
        match value {
            toml::Value::Table(table) => words.extend(table.keys().cloned()),
            toml::Value::Array(list) if word == "guest" => {
                words
                    .extend(list.iter().filter_map(|guest| guest.as_table()).flat_map(|t| t.keys().cloned()));
            }
            _ => words.push(word.clone()),
        }
    }
    let table = PAGE.split("## host.toml").nth(1).and_then(|rest| rest.split("\n## ").next());
    let table = table.expect("the page has this part");
    for word in words {
        assert!(table.contains(&format!("`{word}`")), "{word} is not explained");
        assert!(EXAMPLE.contains(&word), "{word} is not in the example");
    }
}

fn doctor(arguments: &[&str]) -> (Option<i32>, Value) {
    let state = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(binary("cocoon"));
    command.args(["host", "doctor", "--offline", "--json"]).args(arguments).stdin(Stdio::null());
    let output = command.env("XDG_STATE_HOME", state.path()).output().expect("it starts");
    let report = serde_json::from_slice(&output.stdout).expect("one JSON object");
    (output.status.code(), report)
}

fn result<'r>(report: &'r Value, id: &str) -> (&'r str, &'r str) {
    let checks = report["checks"].as_array().expect("a list");
    let check = checks.iter().find(|check| check["id"] == id).unwrap_or_else(|| panic!("no check {id}"));
    (check["result"].as_str().expect("text"), check["found"].as_str().expect("text"))
}

#[test]
fn the_doctor_tells_the_truth_about_this_machine() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let flags = cpu.lines().find_map(|line| line.strip_prefix("flags")).unwrap_or_default();
    let is_virtual = flags.split_whitespace().any(|flag| flag == "hypervisor");
    let kernel = read("/proc/sys/kernel/osrelease");

    let (code, report) = doctor(&[]);
    assert_eq!(code, Some(i32::from(report["verdict"]["ready"] != true)), "{report}");
    assert_eq!(result(&report, "kernel.version").1, kernel.trim());
    let said = result(&report, "machine.bare-metal").1;
    assert_eq!(said, if is_virtual { "a virtual machine" } else { "bare metal" });
    if is_virtual {
        assert_eq!(report["tee"], "emulation", "a virtual machine is told what it can run");
        let verdict = report["verdict"]["text"].as_str().expect("text");
        assert!(verdict.contains("can run development guests (emulation) only"), "{verdict}");
    }
    // Offline is offline: nothing is made up.
    for id in ["clock.offset", "chain.reach", "wallet.balance"] {
        assert_eq!(result(&report, id).0, "skipped", "{id}");
    }

    for (tee, name) in [("tdx", "TDX"), ("snp", "SEV-SNP")] {
        let (code, report) = doctor(&["--tee", tee]);
        let failed = |id: &str| result(&report, id).0 == "fail";
        assert_eq!(failed("machine.bare-metal"), is_virtual, "{tee}");
        for (id, device) in [("kvm.device", "/dev/kvm"), ("vsock.device", "/dev/vhost-vsock")] {
            assert!(failed(id) || Path::new(device).exists(), "{tee}: there is no {device}");
        }
        assert!(has(name) || code == Some(1), "this machine has no {name}: {report}");
    }
}
