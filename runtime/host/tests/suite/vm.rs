//! The development image, booted in QEMU under a simulated TEE: what it quotes is what its files predict, and one changed
//! byte in anything that is measured ends the boot or the trust.
//!
//! Needs an image and the pinned tools: `./scripts/test` makes both and names them in the environment.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use cocoon_attestation::{Bundle, EventLog};
use cocoon_host::{Expected, Host, HostError, HostOptions, Image, Launch, RunningHost, VmOptions, VmTee};
use cocoon_image::manifest::{File, Manifest};
use cocoon_image_build::{ARCHIVE, Quiet, Store};
use cocoon_launch::{
    plan::{GuestName, Memory},
    program::Program,
};

use crate::world::{Gateway, PRICE, World, eventually, lives};

/// A folder with a development image.
const IMAGE: &str = "COCOON_TEST_IMAGE";
/// An unpacked tree with QEMU and swtpm.
const TOOLS: &str = "COCOON_QEMU_TREE";
/// Emulation is slow, and others use this machine too.
const PATIENCE: Duration = Duration::from_secs(240);
const PROFILE: &str = "emulation-1";

/// Most bytes of all that boots, firmware apart.
const MAX_IMAGE: u64 = 40 << 20;
/// Most memory that an idle guest uses, in KiB: kernel, PID 1 and the service with a model of a megabyte.
const MAX_IDLE_KIB: u64 = 192 << 10;
/// Most memory that an idle guest of 1 GiB takes on the host, in bytes: QEMU's emulation and the pages that were touched.
const MAX_RESIDENT: u64 = 640 << 20;

/// Where image and tools are; without them nothing is tested, and that is said.
struct Bench {
    image: PathBuf,
    tools: PathBuf,
}

impl Bench {
    fn find() -> Option<Self> {
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let found = folder(IMAGE).zip(folder(TOOLS)).map(|(image, tools)| Self { image, tools });
        if found.is_none() {
            eprintln!(
                "SKIPPED: no VM is booted: {IMAGE} and {TOOLS} name no image and tools; run ./scripts/test"
            );
        }
        found
    }

    fn store(world: &World) -> Store {
        let folder = world.folder.path().join("cache");
        Store::new(folder, ARCHIVE, true, Arc::new(Quiet)).expect("a store")
    }

    fn options(&self, world: &World, image: &Path, name: &str) -> HostOptions {
        let mut options = world.options();
        let image = Image::open(image, Some(PROFILE), Self::store(world));
        let vm = VmOptions {
            name: name.parse::<GuestName>().expect("a name"),
            image: image.expect("an image with this profile"),
            vcpus: 1.try_into().expect("one"),
            memory: Memory::mib(1024).expect("within limits"),
            tee: VmTee::Emulation { swtpm: Program::swtpm_in_tree(&self.tools), forward: 0, console: true },
            qemu: Program::qemu_in_tree(&self.tools),
            run_dir: world.folder.path().join(name),
        };
        options.state_dir = world.folder.path().join(format!("{name}-state"));
        options.launch = Launch::Vm(Arc::new(vm));
        options.timing.start_limit = PATIENCE;
        options
    }

    /// The image with one file changed, and a manifest whose list of files agrees: so a host who cheats looks.
    fn altered(&self, world: &World, change: impl FnOnce(&Path, &mut Manifest)) -> PathBuf {
        let folder = world.folder.path().join("altered");
        fs::create_dir_all(folder.join("firmware")).expect("the folder is writable");
        for name in ["vmlinuz", "initrd.cpio", "root.img", "cmdline", "firmware/OVMF.fd"] {
            fs::copy(self.image.join(name), folder.join(name)).expect("a whole image");
        }
        let bytes = fs::read(self.image.join("manifest.json")).expect("a whole image");
        let mut manifest = Manifest::from_json(&bytes).expect("a manifest");
        change(&folder, &mut manifest);
        fs::write(folder.join("manifest.json"), manifest.to_json()).expect("the folder is writable");
        folder
    }
}

/// Changes the one byte that is `offset` bytes behind the first place of `mark`.
fn flip(path: &Path, mark: &[u8], offset: usize) -> File {
    let mut bytes = fs::read(path).expect("it was copied");
    let at = bytes.windows(mark.len()).position(|window| window == mark).expect("the mark is in it");
    bytes[at + offset] ^= 1;
    fs::write(path, &bytes).expect("the folder is writable");
    File::of(&bytes)
}

fn console(world: &World, name: &str) -> String {
    let path = world.folder.path().join(name).join("console.log");
    let text = String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
    text.lines().rev().take(30).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
}

async fn start(bench: &Bench, world: &World, image: &Path, name: &str) -> RunningHost {
    match Host::start(bench.options(world, image, name)).await {
        Ok(host) => host,
        Err(error) => panic!("{error}\n{}", console(world, name)),
    }
}

/// What a client that knows the honest image says of a guest that booted.
async fn refused(world: &World, host: RunningHost, honest: &Expected) -> Vec<&'static str> {
    let bundle = host.bundle().expect("it serves");
    let refusal = world.judge(&bundle, honest).await.expect_err("a changed guest is not trusted");
    let failed = refusal.failed().collect();
    host.shutdown().await;
    failed
}

#[tokio::test(flavor = "multi_thread")]
async fn a_booted_guest_quotes_what_its_files_predict_answers_is_paid_and_leaves_nothing_behind() {
    let Some(bench) = Bench::find() else { return };
    let world = World::start().await;
    let host = start(&bench, &world, &bench.image, "guest").await;
    let bytes = host.bundle().expect("it serves");
    let peer = world.trust(&bytes, host.expected()).await;
    assert!(peer.simulated());

    // The log in the bundle is the firmware's, and the verifier has replayed it to the quote.
    let log = Bundle::decode(&bytes).expect("a bundle").event_log.expect("a booted guest shows its log");
    let titles: Vec<String> =
        EventLog::parse(&log).expect("a log").events().iter().map(|e| e.title()).collect();
    assert!(titles.iter().any(|title| title == "Initial RAM disk"), "{titles:?}");

    let gateway = Gateway::open(&world, &host).await;
    let (mut response, mut opener) = gateway.ask(&peer, 1, 16).await;
    assert_eq!(response.status(), 200);
    while let Some(chunk) = response.chunk().await.expect("the stream goes on") {
        opener.push(&chunk).expect("it is the answer to this request");
    }
    let receipt = opener.finish().expect("a whole answer with its receipt");
    let bill = PRICE.bill(&receipt.receipt().usage);
    assert_eq!(gateway.pay(bill).await.owed, bill);

    // What it costs: said by the guest when it is idle, and seen from outside.
    eventually("the guest says how much memory it uses", async || host.health().idle_memory_kib.is_some())
        .await;
    let health = host.health();
    println!("{health:?}");
    let (all, free) = health.idle_memory_kib.expect("just seen");
    assert!(all - free <= MAX_IDLE_KIB, "{} KiB are used by an idle guest", all - free);
    assert!(health.resident_bytes.is_some_and(|bytes| bytes <= MAX_RESIDENT), "{health:?}");
    let names: Vec<&str> = health.boot.iter().map(|phase| phase.name.as_str()).collect();
    for phase in [
        "QEMU", "start", "modules", "root", "measured", "weights", "network", "service", "answers",
        "evidence",
    ] {
        assert!(names.contains(&phase), "{phase} is not among {names:?}");
    }
    let boots = ["vmlinuz", "initrd.cpio", "root.img"].map(|name| fs::metadata(bench.image.join(name)));
    let size: u64 = boots.into_iter().map(|found| found.expect("a whole image").len()).sum();
    assert!(size <= MAX_IMAGE, "the image has {size} bytes");

    let qemu = host.guest_pid().expect("it runs");
    let settled = host.shutdown().await;
    assert_eq!(settled.iter().filter_map(|s| s.result.as_ref().ok()).sum::<u64>(), bill);
    assert!(!lives(qemu), "QEMU outlives its host");
    let left: Vec<_> = fs::read_dir(world.folder.path().join("guest"))
        .expect("the run folder stays")
        .map(|entry| entry.expect("readable").file_name())
        .collect();
    assert!(left.iter().all(|name| name == "lock" || name == "config.img"), "left behind: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_guests_stand_side_by_side_and_one_that_is_killed_comes_back_as_another() {
    let Some(bench) = Bench::find() else { return };
    let world = World::start().await;
    let (first, second) =
        tokio::join!(start(&bench, &world, &bench.image, "a"), start(&bench, &world, &bench.image, "b"));
    let mut keys = Vec::new();
    for host in [&first, &second] {
        let peer = world.trust(&host.bundle().expect("it serves"), host.expected()).await;
        keys.push(*peer.receipt_key());
    }
    assert_ne!(keys[0], keys[1], "each guest has keys of its own");
    let killed = first.guest_pid().expect("it runs");
    let kill = std::process::Command::new("kill").args(["-KILL", &killed.to_string()]).status();
    assert!(kill.expect("there is a kill").success());
    let deadline = std::time::Instant::now() + PATIENCE;
    let bundle = loop {
        match first.bundle() {
            Some(bundle) if first.guest_pid().is_some_and(|pid| pid != killed) => break bundle,
            _ => assert!(std::time::Instant::now() < deadline, "it never came back"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let peer = world.trust(&bundle, first.expected()).await;
    assert!(!keys.contains(peer.receipt_key()), "a guest that starts again is a new guest");
    let health = first.health();
    assert_eq!(health.restarts, 1);
    assert!(health.last_end.is_some_and(|why| why.contains("killed")), "it says why");
    assert_eq!(second.health().restarts, 0);
    first.shutdown().await;
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_kernel_is_refused_by_its_register() {
    let Some(bench) = Bench::find() else { return };
    let world = World::start().await;
    // A letter of the real-mode code, which UEFI firmware never runs: the guest boots.
    let image = bench.altered(&world, |folder, manifest| {
        manifest.files.kernel = flip(&folder.join("vmlinuz"), b"Press <ENTER> to see video modes", 0);
    });
    let host = start(&bench, &world, &image, "guest").await;
    let honest = host.expected().clone();
    assert_eq!(refused(&world, host, &honest).await, ["policy.rtmr1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_initrd_is_refused_by_its_register() {
    let Some(bench) = Bench::find() else { return };
    let world = World::start().await;
    // The last digit of the first file's time of change: newc's sixth field, which nothing looks at.
    let image = bench.altered(&world, |folder, manifest| {
        manifest.files.initrd = flip(&folder.join("initrd.cpio"), b"070701", 6 + 5 * 8 + 7);
    });
    let host = start(&bench, &world, &image, "guest").await;
    let honest = host.expected().clone();
    assert_eq!(refused(&world, host, &honest).await, ["policy.rtmr2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_command_line_is_refused_by_its_register() {
    let Some(bench) = Bench::find() else { return };
    let world = World::start().await;
    let image = bench.altered(&world, |folder, manifest| {
        manifest.command_line = manifest.command_line.replacen("panic=-1", "panic=-2", 1);
        manifest.files.cmdline = File::of(manifest.command_line.as_bytes());
        fs::write(folder.join("cmdline"), &manifest.command_line).expect("the folder is writable");
    });
    let host = start(&bench, &world, &image, "guest").await;
    let honest = host.expected().clone();
    assert_eq!(refused(&world, host, &honest).await, ["policy.rtmr2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_firmware_is_refused_by_its_register() {
    let Some(bench) = Bench::find() else { return };
    let world = World::start().await;
    // A letter of what the firmware would say of an exception.
    let image = bench.altered(&world, |folder, manifest| {
        let file = flip(&folder.join("firmware/OVMF.fd"), b"!!!! X64 Exception Type", 5);
        let firmware = manifest.firmware.first_mut().expect("it has one");
        firmware.sha256 = file.sha256;
        for measurement in &mut manifest.measurements {
            measurement.firmware = file.sha256;
        }
    });
    let host = start(&bench, &world, &image, "guest").await;
    let honest = host.expected().clone();
    assert_eq!(refused(&world, host, &honest).await, ["policy.mrtd"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_configuration_is_refused_by_its_register_and_its_digest() {
    let Some(bench) = Bench::find() else { return };
    let world = World::start().await;
    let mut options = bench.options(&world, &bench.image, "guest");
    let Launch::Vm(vm) = &options.launch else { panic!("a VM") };
    let (model, name, settings) = (&options.model, &options.model_name, options.guest.clone());
    let honest = Expected::of_image(&vm.image, model, name, crate::world::NETWORK, settings).await;
    options.guest.max_queued += 1;
    let host = Host::start(options).await.expect("it boots");
    let failed = refused(&world, host, &honest.expect("the files are there")).await;
    assert_eq!(failed, ["policy.rtmr3", "policy.configuration"]);
}

/// Starts what must not come up, and gives the host's words.
async fn stops(bench: &Bench, world: &World, image: &Path) -> String {
    let error = Host::start(bench.options(world, image, "guest")).await.err().expect("it must not come up");
    assert!(matches!(error, HostError::GuestEnded(_)), "{error}");
    error.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_root_ends_the_boot() {
    let Some(bench) = Bench::find() else { return };
    let world = World::start().await;
    // A byte of the service itself, in a block that is read to start it.
    let image = bench.altered(&world, |folder, manifest| {
        let file = flip(&folder.join("root.img"), b"\x7fELF", 5);
        manifest.files.root.sha256 = file.sha256;
    });
    let why = stops(&bench, &world, &image).await;
    assert!(why.contains("panic") || why.contains("verity"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_weights_end_the_boot() {
    let Some(bench) = Bench::find() else { return };
    let world = World::start().await;
    let disk = Bench::store(&world).weights_disk(&crate::world::tiny_model()).expect("the disk is made");
    flip(&disk.path, b"GGUF", 200_000);
    let why = stops(&bench, &world, &bench.image).await;
    assert!(why.contains("panic") || why.contains("verity"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn files_that_are_not_the_manifests_are_named_before_anything_starts() {
    let Some(bench) = Bench::find() else { return };
    let world = World::start().await;
    for (name, words) in [("vmlinuz", "vmlinuz"), ("root.img", "root.img"), ("firmware/OVMF.fd", "OVMF.fd")] {
        let image = bench.altered(&world, |folder, _| {
            let path = folder.join(name);
            let length = fs::metadata(&path).expect("it was copied").len();
            let file = fs::File::options().write(true).open(&path).expect("it was copied");
            file.set_len(length - 1).expect("the folder is writable");
        });
        let error = Host::start(bench.options(&world, &image, "guest")).await.err().expect("refused");
        assert!(matches!(error, HostError::Vm(_)) && error.to_string().contains(words), "{error}");
        assert!(!world.folder.path().join("guest/qemu.pid").exists());
    }
    let options = bench.options(&world, &bench.image, "guest");
    let Launch::Vm(vm) = &options.launch else { panic!("a VM") };
    let qemu = Program::at("/nowhere/qemu-system-x86_64");
    let launch = Launch::Vm(Arc::new(VmOptions { qemu, ..VmOptions::clone(vm) }));
    let error = Host::start(HostOptions { launch, ..options }).await.err().expect("refused");
    assert!(error.to_string().contains("/nowhere/qemu-system-x86_64"), "{error}");
}
