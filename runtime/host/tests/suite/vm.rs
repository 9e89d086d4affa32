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
use cocoon_host::{Host, HostOptions, Image, Launch, RunningHost, VmOptions, VmTee};
use cocoon_image_build::{ARCHIVE, Quiet, Store};
use cocoon_launch::{plan::GuestName, program::Program};

use crate::world::{Gateway, World, lives};

/// A folder with a development image.
const IMAGE: &str = "COCOON_TEST_IMAGE";
/// An unpacked tree with QEMU and swtpm.
const TOOLS: &str = "COCOON_QEMU_TREE";
/// Emulation is slow, and others use this machine too.
const PATIENCE: Duration = Duration::from_secs(240);
const PROFILE: &str = "emulation-1";

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

    fn image(&self, folder: &Path, world: &World) -> Image {
        let store = Store::new(world.folder.path().join("cache"), ARCHIVE, true, Arc::new(Quiet));
        Image::open(folder, Some(PROFILE), store.expect("a store")).expect("an image with this profile")
    }

    fn options(&self, world: &World, folder: &Path, name: &str) -> HostOptions {
        let mut options = world.options();
        let vm = VmOptions {
            name: name.parse::<GuestName>().expect("a name"),
            image: self.image(folder, world),
            vcpus: 1.try_into().expect("one"),
            memory: cocoon_launch::plan::Memory::mib(1024).expect("within limits"),
            tee: VmTee::Emulation { swtpm: Program::swtpm_in_tree(&self.tools), forward: 0, console: true },
            qemu: Program::qemu_in_tree(&self.tools),
            run_dir: world.folder.path().join(name),
        };
        options.state_dir = world.folder.path().join(format!("{name}-state"));
        options.launch = Launch::Vm(Arc::new(vm));
        options.timing.start_limit = PATIENCE;
        options
    }
}

fn console(world: &World, name: &str) -> String {
    let path = world.folder.path().join(name).join("console.log");
    String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned()
}

async fn bundle(host: &RunningHost) -> Vec<u8> {
    host.bundle().expect("it serves").to_vec()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_booted_guest_quotes_what_its_files_predict_answers_and_leaves_nothing_behind() {
    let Some(bench) = Bench::find() else { return };
    let world = World::start().await;
    let host = match Host::start(bench.options(&world, &bench.image, "guest")).await {
        Ok(host) => host,
        Err(error) => panic!("{error}\n{}", console(&world, "guest")),
    };
    let health = host.health();
    println!("{health:?}");
    let bytes = bundle(&host).await;
    let peer = world.trust(&bytes, host.expected()).await;
    assert!(peer.simulated());

    // The log in the bundle is the firmware's, and it replays to the quote: the verifier has checked it.
    let log = Bundle::decode(&bytes).expect("a bundle").event_log.expect("a booted guest shows its log");
    let log = EventLog::parse(&log).expect("a log");
    assert!(log.events().iter().any(
        |event| event.title().contains("initial RAM disk") || event.title().contains("Initial RAM disk")
    ));

    let gateway = Gateway::open(&world, &host).await;
    gateway.pay(1_000_000).await;
    let qemu = host.guest_pid().expect("it runs");
    host.shutdown().await;
    assert!(!lives(qemu), "QEMU outlives its host");
}
