//! Guests in the real QEMU: OVMF and the software TPM run for real; the kernel is not one, which is enough to see
//! QEMU started, spoken to, ended and never left behind.

#![allow(dead_code, reason = "each test file uses its part of the common module")]

mod common;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use cocoon_launch::{
    folder::RunFolder,
    plan::{Accelerator, Boot, Disks, LaunchPlan, Memory, Tee, Vcpus, files},
    program::Program,
    qmp::RunState,
    swtpm::{PcrError, TpmProxy},
    vm::{LineSink, Vm, VmError, resident_bytes},
};

/// Set for the process that is the host to be killed.
const HOST_FOLDER: &str = "COCOON_TEST_HOST_FOLDER";

struct Tools {
    tree: PathBuf,
    firmware: PathBuf,
}

fn tools_or_say_skipped() -> Option<Tools> {
    let named = common::tree().zip(common::firmware());
    if named.is_none() {
        eprintln!(
            "SKIPPED: guests in QEMU: COCOON_QEMU_TREE and COCOON_OVMF (an OVMF.fd) are not both named, nor in the cache"
        );
    }
    named.map(|(tree, firmware)| Tools { tree, firmware })
}

/// A guest whose firmware runs and finds nothing to boot.
fn plan(tools: &Tools, folder: &Path) -> LaunchPlan {
    let file = |name: &str| {
        let path = folder.join(name);
        std::fs::write(&path, vec![0; 65536]).expect("writable");
        path
    };
    let kernel = file("vmlinuz");
    // The setup header that QEMU wants to see (Linux x86 boot protocol 2.15): nothing that firmware would start.
    let mut header = vec![0; 65536];
    header[0x1f1] = 1;
    header[0x202..0x208].copy_from_slice(b"HdrS\x0f\x02");
    header[0x211] = 1;
    header[0x22c..0x230].copy_from_slice(&0x7fff_ffff_u32.to_le_bytes()); // initrd_addr_max
    std::fs::write(&kernel, header).expect("writable");
    LaunchPlan {
        name: "tried".parse().expect("a name"),
        vcpus: Vcpus::try_from(1).expect("within limits"),
        memory: Memory::mib(256).expect("within limits"),
        boot: Boot {
            firmware: tools.firmware.clone(),
            kernel,
            initrd: file("initrd.cpio"),
            command_line: "cocoon.development".to_owned(),
        },
        disks: Disks { root: file("root.img"), config: file("config.img"), weights: file("weights.img") },
        tee: Tee::Emulation {
            forward: "127.0.0.1:0".parse().expect("an address"),
            accelerator: Accelerator::Tcg,
            console: true,
        },
    }
}

/// A whole guest as a host has it, with an emulator of the TEE that never speaks.
struct Guest {
    vm: Vm,
    tpm: TpmProxy,
    _tee: std::os::unix::net::UnixListener,
    folder: RunFolder,
}

async fn start(tools: &Tools, at: &Path) -> Result<Guest, VmError> {
    let folder = RunFolder::claim(&at.join("run")).expect("free");
    let tpm = TpmProxy::start(&Program::swtpm_in_tree(&tools.tree), &folder).expect("it starts");
    let tee = folder.listen(files::TEE).expect("short enough");
    let sink: LineSink = Arc::new(|_: &str| {});
    let vm = Vm::start(&Program::qemu_in_tree(&tools.tree), &plan(tools, at), &folder, sink).await?;
    Ok(Guest { vm, tpm, _tee: tee, folder })
}

fn lives(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

async fn within(seconds: u64, what: &str, holds: impl Fn() -> bool) {
    let until = Instant::now() + Duration::from_secs(seconds);
    while !holds() {
        assert!(Instant::now() < until, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn firmware_measures_into_the_tpm_that_the_host_reads() {
    let Some(tools) = tools_or_say_skipped() else { return };
    let at = tempfile::tempdir().expect("a folder");
    let mut guest = start(&tools, at.path()).await.expect("it starts");
    assert_eq!(guest.vm.status().await.expect("it answers"), RunState::Running);
    assert!(guest.vm.id().and_then(resident_bytes).is_some_and(|bytes| bytes > 10 << 20));
    // EV_SEPARATOR ends what the firmware measures of itself in each of PCR 0 to 7.
    let measured = |pcr: u8| {
        let pcrs = guest.tpm.read_pcrs(&[pcr]).ok();
        pcrs.and_then(|pcrs| pcrs.value(pcr).copied()).is_some_and(|value| value != [0; 48])
    };
    within(60, "the firmware measures itself", || (0..8).all(measured)).await;
    let (qemu, swtpm) = (guest.vm.id().expect("it lives"), guest.tpm.id());
    let ended = guest.vm.end(Duration::from_millis(100)).await;
    assert!(ended.in_order(), "{ended}");
    assert!(!lives(qemu));
    drop(guest.tpm);
    assert!(!lives(swtpm));
    let folder = guest.folder.path().to_path_buf();
    drop(guest.folder);
    let left: Vec<_> =
        std::fs::read_dir(folder).expect("it stays").flatten().map(|entry| entry.file_name()).collect();
    assert_eq!(left, ["lock"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_kernel_is_measured_and_its_panic_ends_the_guest_in_words() {
    let Some(tools) = tools_or_say_skipped() else { return };
    let Some(kernel) = std::env::var_os("COCOON_KERNEL") else {
        eprintln!("SKIPPED: a kernel's panic: COCOON_KERNEL names no vmlinuz");
        return;
    };
    let at = tempfile::tempdir().expect("a folder");
    let folder = RunFolder::claim(&at.path().join("run")).expect("free");
    let tpm = TpmProxy::start(&Program::swtpm_in_tree(&tools.tree), &folder).expect("it starts");
    let _tee = folder.listen(files::TEE).expect("short enough");
    let mut plan = plan(&tools, at.path());
    plan.memory = Memory::mib(512).expect("within limits");
    plan.boot.kernel = kernel.into();
    plan.boot.command_line = "console=ttyS0 panic=-1 cocoon.development".to_owned();
    let sink: LineSink = Arc::new(|_: &str| {});
    let qemu = Program::qemu_in_tree(&tools.tree);
    let mut vm = Vm::start(&qemu, &plan, &folder, sink).await.expect("it starts");
    // The initrd is not one: no root, so a panic, which restarts at once, and -no-reboot ends that.
    let mut measured = None;
    let mut watch = tokio::time::interval(Duration::from_millis(50));
    let ended = tokio::time::timeout(Duration::from_secs(120), async {
        loop {
            tokio::select! {
                ended = vm.ended() => break ended,
                // QEMU tells the TPM to end with it: what counts is read while the guest runs.
                _ = watch.tick() => if let Ok(pcrs) = tpm.read_pcrs(&[4, 9]) {
                    measured = Some(pcrs);
                },
            }
        }
    });
    let ended = ended.await.expect("a panic");
    assert!(!ended.in_order() && ended.to_string().contains("the guest restarted"), "{ended}");
    let console = std::fs::read(folder.path().join(files::CONSOLE)).expect("the console was kept");
    assert!(String::from_utf8_lossy(&console).contains("Kernel panic"), "the kernel ran");
    let pcrs = measured.expect("the firmware started the TPM");
    assert!([4, 9].iter().all(|pcr| pcrs.value(*pcr).is_some_and(|value| *value != [0; 48])));
    assert!(matches!(tpm.read_pcrs(&[4]), Err(PcrError::Gone(_))), "and no value is made up afterwards");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guest_that_cannot_start_says_why_and_leaves_nothing() {
    let Some(mut tools) = tools_or_say_skipped() else { return };
    let at = tempfile::tempdir().expect("a folder");
    tools.firmware = at.path().join("odd.fd");
    std::fs::write(&tools.firmware, vec![0; 1000]).expect("writable");
    let failed = start(&tools, at.path()).await.err().expect("refused").to_string();
    assert!(failed.contains("build the image again"), "{failed}");
    assert!(RunFolder::claim(&at.path().join("run")).is_ok(), "the folder is free again");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_qemu_is_noticed_and_a_dropped_guest_is_killed() {
    let Some(tools) = tools_or_say_skipped() else { return };
    let at = tempfile::tempdir().expect("a folder");
    let mut guest = start(&tools, at.path()).await.expect("it starts");
    let pid = guest.vm.id().expect("it lives");
    let raw = rustix::process::Pid::from_raw(pid.cast_signed()).expect("not zero");
    rustix::process::kill_process(raw, rustix::process::Signal::KILL).expect("ours");
    let ended = guest.vm.ended().await;
    assert!(!ended.in_order() && ended.to_string().contains("killed"), "{ended}");
    drop(guest);
    let guest = start(&tools, at.path()).await.expect("it starts again in the same folder");
    let pid = guest.vm.id().expect("it lives");
    drop(guest);
    within(10, "a dropped guest is killed", || !lives(pid)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_said() {
    let Some(tools) = tools_or_say_skipped() else { return };
    let at = tempfile::tempdir().expect("a folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let folder = RunFolder::claim(&at.path().join("run")).expect("free");
    let _tpm = TpmProxy::start(&Program::swtpm_in_tree(&tools.tree), &folder).expect("it starts");
    let _tee = folder.listen(files::TEE).expect("short enough");
    let mut plan = plan(&tools, at.path());
    let forward = taken.local_addr().expect("bound");
    plan.tee = Tee::Emulation { forward, accelerator: Accelerator::Tcg, console: false };
    let sink: LineSink = Arc::new(|_: &str| {});
    let qemu = Program::qemu_in_tree(&tools.tree);
    let refused = Vm::start(&qemu, &plan, &folder, sink).await.expect_err("refused").to_string();
    assert!(refused.contains("another `port`"), "{refused}");
}

/// Not a test of its own: the host that the next one kills.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_to_be_killed() {
    let Some(at) = std::env::var_os(HOST_FOLDER) else { return };
    let tools = tools_or_say_skipped().expect("the test looked");
    let _guest = start(&tools, Path::new(&at)).await.expect("it starts");
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn qemu_and_swtpm_end_when_their_host_is_killed() {
    if tools_or_say_skipped().is_none() {
        return;
    }
    let at = tempfile::tempdir().expect("a folder");
    let mut host = std::process::Command::new(std::env::current_exe().expect("we are one"))
        .args(["--exact", "a_host_to_be_killed"])
        .env(HOST_FOLDER, at.path())
        .spawn()
        .expect("it starts");
    let pid = |name: &str| -> Option<u32> {
        let text = std::fs::read_to_string(at.path().join("run").join(name)).ok()?;
        text.split(' ').next()?.parse().ok()
    };
    within(30, "the guest starts", || at.path().join("run").join(files::QMP).exists()).await;
    let pids = Mutex::new(Vec::new());
    within(10, "both are written down", || {
        let both: Vec<u32> = ["qemu.pid", "swtpm.pid"].into_iter().filter_map(pid).collect();
        let complete = both.len() == 2;
        *pids.lock().expect("ours") = both;
        complete
    })
    .await;
    let pids = pids.into_inner().expect("ours");
    assert!(pids.iter().all(|pid| lives(*pid)));
    host.kill().and_then(|()| host.wait()).expect("ours");
    within(10, "neither outlives its host", || !pids.iter().any(|pid| lives(*pid))).await;
    let folder = RunFolder::claim(&at.path().join("run")).expect("the lock went with its holder");
    assert!(!folder.path().join(files::QMP).exists(), "leftovers are cleared");
}
