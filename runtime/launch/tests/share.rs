//! Guests side by side, each with its own GPUs, on a machine that is a folder.

mod fake_host;

use std::path::Path;
use std::process::Command;

use cocoon_launch::gpu::{PciAddress, Share, Shared, Topology, Wish, prepare, restore, share};
use cocoon_launch::plan::{GuestName, Iommu};
use cocoon_launch::root::Files;
use fake_host::{Card, FakeHost, address};

const FIRST: &str = "0000:41:00.0";
const SECOND: &str = "0000:61:00.0";
const ADMIN: &str = "/opt/nvidia/nvidia_gpu_tools.py";

fn host() -> FakeHost {
    let host = FakeHost::empty();
    host.driver("vfio-pci");
    host.file("/dev/iommu", "");
    for (card, group, minor) in [(FIRST, 42, 0), (SECOND, 43, 1)] {
        host.card(&Card::h100(card, group));
        host.describe(card, minor);
    }
    host
}

fn name(text: &str) -> GuestName {
    text.parse().expect("a name")
}

/// Guests by name with their GPUs.
fn shared(host: &FakeHost, guests: &[(&str, &[&str])]) -> Result<Shared, String> {
    let owned: Vec<(GuestName, Vec<PciAddress>)> =
        guests.iter().map(|(guest, gpus)| (name(guest), gpus.iter().map(|a| address(a)).collect())).collect();
    let wishes: Vec<Wish<'_>> =
        owned.iter().map(|(guest, gpus)| Wish { guest, gpus, mmio64_mib: Some(262_144) }).collect();
    share(host, host, Iommu::Iommufd, &wishes).map_err(|error| error.to_string())
}

#[test]
fn each_guest_gets_exactly_its_own_gpus() {
    let host = host();
    let shared = shared(&host, &[("a", &[SECOND]), ("none", &[]), ("b", &[FIRST])]).expect("both are free");
    let names: Vec<&str> = shared.shares.iter().map(|share| share.guest.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let given = shared.gpus(&name("a"));
    let [gpu] = given.devices.as_slice() else { panic!("one GPU, not {given:?}") };
    assert_eq!((gpu.address, gpu.aperture_mib), (address(SECOND), 131_120));
    assert_eq!((given.iommu, given.mmio64_mib), (Iommu::Iommufd, Some(262_144)));
    assert_eq!(given.needed_mmio64_mib(), 262_144, "the profile's hole is just enough");
    assert!(shared.gpus(&name("none")).devices.is_empty());
}

#[test]
fn a_kernel_without_iommufd_hands_over_the_old_way() {
    let host = host();
    host.remove("/dev/iommu");
    let given = shared(&host, &[("a", &[FIRST])]).expect("it is free").gpus(&name("a"));
    assert_eq!(given.iommu, Iommu::Legacy);
}

#[test]
fn no_gpu_is_reset_while_a_driver_works_with_another() {
    let host = host();
    let plan =
        shared(&host, &[("a", &[FIRST]), ("b", &[SECOND])]).expect("both are free").plan.expect("GPUs");
    let before = host.state();
    let folder = tempfile::tempdir().expect("a folder");
    prepare(&host, &host, &plan, &folder.path().join("gpus.json")).expect("it goes well");
    let log = host.log();
    let last_unbound = log.iter().rposition(|step| step.contains("unbind")).expect("they had a driver");
    let first_reset = log.iter().position(|step| step.contains("CC mode") || step.contains("cc"));
    assert!(first_reset.is_some_and(|reset| reset > last_unbound), "{log:#?}");
    restore(&host, &host, &folder.path().join("gpus.json")).expect("they are given back");
    assert_eq!(host.state(), before);
}

#[test]
fn guests_that_would_share_are_refused_by_name() {
    let host = host();
    let twice = shared(&host, &[("a", &[FIRST]), ("b", &[FIRST])]).expect_err("one GPU for two");
    assert!(twice.contains("guests a and b both need 0000:41:00.0"), "{twice}");
    let missing = shared(&host, &[("a", &[FIRST]), ("b", &["0000:99:00.0"])]).expect_err("no such GPU");
    assert!(missing.starts_with("guest b: ") && missing.contains(SECOND), "{missing}");
    // The kernel hands over whole groups: one that holds two guests' GPUs can be given to neither.
    host.card(&Card::h100(SECOND, 42));
    let one_group = shared(&host, &[("a", &[FIRST]), ("b", &[SECOND])]).expect_err("one group for two");
    assert!(one_group.starts_with("guest a: ") && one_group.contains("IOMMU group 42"), "{one_group}");
}

#[test]
fn a_board_of_eight_brings_its_switches_into_the_launch_plan() {
    let host = FakeHost::empty();
    host.driver("vfio-pci");
    const BOARD: [&str; 8] = [
        "0000:11:00.0",
        "0000:12:00.0",
        "0000:13:00.0",
        "0000:14:00.0",
        "0000:15:00.0",
        "0000:16:00.0",
        "0000:17:00.0",
        "0000:18:00.0",
    ];
    for (gpu, group) in BOARD.into_iter().zip(100..) {
        host.card(&Card::h100(gpu, group));
    }
    host.card(&Card::nvswitch("0000:05:00.0", 200));
    let whole = shared(&host, &[("a", &BOARD)]).expect("all are free");
    let [Share { topology: Topology::ProtectedPcie, gpus, .. }] = whole.shares.as_slice() else {
        panic!("one board, not {whole:?}")
    };
    assert_eq!(gpus.devices.len(), 9);
    assert_eq!(gpus.needed_mmio64_mib(), 2 << 20, "eight of 256 GiB; the switch fits into a gap");
    let halves = shared(&host, &[("a", &BOARD[..4]), ("b", &BOARD[4..])]).expect("all are free");
    assert!(halves.shares.iter().all(|share| share.topology == Topology::Each), "half a board is none");
}

#[test]
fn a_dry_run_says_who_gets_what_and_can_be_pasted_into_a_shell() {
    let host = host();
    let shared = shared(&host, &[("a", &[FIRST]), ("b", &[SECOND])]).expect("both are free");
    let text = shared.describe(Path::new(ADMIN));
    assert!(text.contains("# GPUs of guest a: CC mode on in each GPU"), "{text}");
    assert!(text.contains("#   0000:61:00.0 H100 SXM5, now with nvidia"), "{text}");
    // The same lines on the folder, with a program that notes how NVIDIA's tool would be called.
    let folder = host.root().path("/").to_string_lossy().trim_end_matches('/').to_owned();
    let pasted = text.replace(" /sys/", &format!(" {folder}/sys/")).replace("python3 ", "echo python3 ");
    host.file("/sys/bus/pci/drivers_probe", "");
    let output = Command::new("sh").arg("-e").arg("-c").arg(&pasted).output().expect("a shell");
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).expect("text");
    let calls: Vec<String> = [FIRST, SECOND]
        .map(|gpu| format!("python3 {ADMIN} --gpu-bdf={gpu} --set-cc-mode=on --reset-after-cc-mode-switch"))
        .into();
    assert_eq!(said.lines().collect::<Vec<_>>(), calls);
    for gpu in [FIRST, SECOND] {
        let pinned = host.text(&format!("/sys/bus/pci/devices/{gpu}/driver_override")).expect("it is there");
        assert_eq!(pinned, "vfio-pci");
    }
    assert_eq!(
        host.text("/sys/bus/pci/drivers_probe").expect("it is there"),
        SECOND,
        "the last that was bound"
    );
    assert_eq!(host.text("/sys/bus/pci/drivers/nvidia/unbind").expect("it is there"), SECOND);
}

#[test]
fn without_gpus_there_is_nothing_to_say() {
    let none = shared(&FakeHost::empty(), &[("a", &[])]).expect("nothing is wanted");
    assert_eq!((none.plan.clone(), none.describe(Path::new(ADMIN))), (None, String::new()));
}
