//! GPUs are taken from a host and given back, on a machine that is a folder.

mod fake_host;

use std::path::PathBuf;

use cocoon_launch::gpu::{
    CcMode, Generation, Journal, NoTool, NotPrepared, NotRestored, Plan, Refusal, Request, Selection,
    Topology, find, plan, prepare, restore, restore_steps,
};
use cocoon_launch::root::Files;
use fake_host::{Card, FakeHost, address};

const GPU: &str = "0000:41:00.0";
const SECOND: &str = "0000:61:00.0";

/// One H100 with NVIDIA's driver, alone in its group but for the port it is plugged into.
fn one() -> FakeHost {
    let host = FakeHost::empty();
    host.driver("vfio-pci");
    host.card(&Card::h100(GPU, 42));
    host.card(&Card {
        vendor: "0x8086",
        device: "0x352a",
        class: "0x060400",
        driver: Some("pcieport"),
        resource: "",
        ..Card::h100("0000:40:01.0", 42)
    });
    host.describe(GPU, 0);
    host
}

/// A board: eight H100 and four switches.
fn board() -> FakeHost {
    const GPUS: [&str; 8] = [
        "0000:18:00.0",
        "0000:2a:00.0",
        "0000:3a:00.0",
        "0000:5d:00.0",
        "0000:9a:00.0",
        "0000:ab:00.0",
        "0000:ba:00.0",
        "0000:db:00.0",
    ];
    const SWITCHES: [&str; 4] = ["0000:05:00.0", "0000:06:00.0", "0000:07:00.0", "0000:08:00.0"];
    let host = FakeHost::empty();
    host.driver("vfio-pci");
    for (group, gpu) in (100..).zip(GPUS) {
        host.card(&Card::h100(gpu, group));
    }
    for (group, switch) in (200..).zip(SWITCHES) {
        host.card(&Card::nvswitch(switch, group));
    }
    host
}

/// Two GPUs, each in its own group.
fn two() -> FakeHost {
    let host = one();
    host.card(&Card::h100(SECOND, 43));
    host.describe(SECOND, 1);
    host
}

fn request(addresses: &[&str]) -> Request {
    let selection = match addresses {
        [] => Selection::All,
        some => Selection::Only(some.iter().map(|text| address(text)).collect()),
    };
    Request { selection, confidential: true }
}

fn planned(host: &FakeHost) -> Plan {
    plan(host, host, &request(&[])).expect("the GPUs can be had")
}

fn run_file(folder: &tempfile::TempDir) -> PathBuf {
    folder.path().join("gpus.json")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

#[test]
fn a_gpu_is_found_with_all_that_matters() {
    let host = one();
    let found = find(&host).expect("a bus");
    let [gpu] = found.gpus.as_slice() else { panic!("one GPU, not {found:?}") };
    assert_eq!((gpu.name.as_str(), gpu.generation), ("H100 SXM5", Some(Generation::Hopper)));
    assert_eq!((gpu.driver.as_deref(), gpu.group, gpu.numa_node), (Some("nvidia"), Some(42), Some(0)));
    assert_eq!(gpu.vbios.as_deref(), Some("96.00.5e.00.01"));
    assert_eq!(gpu.bars.iter().map(|bar| bar.bytes >> 20).collect::<Vec<_>>(), [16, 128 << 10, 32]);
    assert_eq!(gpu.aperture_mib(), (128 << 10) + 32 + 16);
    assert_eq!(find(&FakeHost::empty()).expect("no bus is no error").gpus, []);
}

#[test]
fn a_dry_run_says_every_step_and_touches_nothing() {
    let host = one();
    let before = host.state();
    let plan = planned(&host);
    assert_eq!(plan.topology, Topology::Each);
    assert_eq!(plan.hole_mib, 262_144);
    assert_eq!(
        plan.steps.iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            r#"write "0000:41:00.0" to /sys/bus/pci/devices/0000:41:00.0/driver/unbind"#,
            "set the CC mode of 0000:41:00.0 to on and reset it (NVIDIA's admin tool)",
            r#"write "vfio-pci" to /sys/bus/pci/devices/0000:41:00.0/driver_override"#,
            r#"write "0000:41:00.0" to /sys/bus/pci/drivers_probe"#,
        ]
    );
    assert_eq!((host.state(), host.log()), (before, vec![]));
}

#[test]
fn a_prepared_gpu_is_handed_over_by_both_ways_of_vfio_and_given_back_as_it_was() {
    let (host, folder) = (one(), folder());
    let before = host.state();
    let handles = prepare(&host, &host, &planned(&host), &run_file(&folder)).expect("it goes well");
    let [handle] = handles.as_slice() else { panic!("one device") };
    assert_eq!(handle.cdev, Some(PathBuf::from("/dev/vfio/devices/vfio0")));
    assert_eq!(handle.group, Some(PathBuf::from("/dev/vfio/42")));
    assert_eq!(host.modes()[&address(GPU)], (Some(CcMode::On), Some(false)));
    let journal = Journal::read(&run_file(&folder)).expect("readable").expect("there");
    assert_eq!(
        restore_steps(&host, &host, &journal).iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            r#"write "0000:41:00.0" to /sys/bus/pci/devices/0000:41:00.0/driver/unbind"#,
            "set the CC mode of 0000:41:00.0 to off and reset it (NVIDIA's admin tool)",
            r#"write "nvidia" to /sys/bus/pci/devices/0000:41:00.0/driver_override"#,
            r#"write "0000:41:00.0" to /sys/bus/pci/drivers_probe"#,
            r#"write "\n" to /sys/bus/pci/devices/0000:41:00.0/driver_override"#,
        ]
    );
    restore(&host, &host, &run_file(&folder)).expect("it goes well");
    assert_eq!(host.state(), before);
    assert!(!run_file(&folder).exists());
    assert_eq!(restore(&host, &host, &run_file(&folder)).expect("nothing to do"), []);
}

#[test]
fn killed_at_any_point_a_run_is_undone_from_its_run_file() {
    let whole = planned(&two()).steps.len();
    assert_eq!(whole, 8, "so many chances to die");
    for writes in 0..=whole {
        let (host, folder) = (two(), folder());
        let before = host.state();
        host.dies_after(writes);
        let plan = planned(&host);
        let died = prepare(&host, &host, &plan, &run_file(&folder));
        assert_eq!(died.is_ok(), writes == whole, "after {writes} writes");
        assert!(run_file(&folder).exists() || writes == 0, "the run file is the way back");
        host.lives_again();
        restore(&host, &host, &run_file(&folder)).expect("everything can be given back");
        assert_eq!(host.state(), before, "after {writes} writes");
    }
}

#[test]
fn undoing_that_was_killed_is_undone_by_the_next() {
    for writes in 0..=10 {
        let (host, folder) = (two(), folder());
        let before = host.state();
        prepare(&host, &host, &planned(&host), &run_file(&folder)).expect("it goes well");
        host.dies_after(writes);
        let _ = restore(&host, &host, &run_file(&folder));
        host.lives_again();
        restore(&host, &host, &run_file(&folder)).expect("the second goes well");
        assert_eq!(host.state(), before, "after {writes} writes");
    }
}

#[test]
fn a_step_that_fails_is_undone_at_once() {
    let (host, folder) = (one(), folder());
    let before = host.state();
    let plan = planned(&host);
    host.remove("/sys/bus/pci/drivers/vfio-pci");
    let error = prepare(&host, &host, &plan, &run_file(&folder)).expect_err("no such driver");
    assert!(matches!(error, NotPrepared::Undone(_)), "{error}");
    assert!(error.to_string().contains("vfio-pci") && error.to_string().contains("undone"), "{error}");
    assert_eq!(host.state(), before);
    assert!(!run_file(&folder).exists());
}

#[test]
fn a_second_run_does_not_start_over_the_first() {
    let (host, folder) = (one(), folder());
    let plan = planned(&host);
    prepare(&host, &host, &plan, &run_file(&folder)).expect("it goes well");
    let error = prepare(&host, &host, &plan, &run_file(&folder)).expect_err("there is a run file");
    assert!(error.to_string().contains("cocoon host down"), "{error}");
}

#[test]
fn a_gpu_is_not_torn_from_a_running_vm() {
    let (host, folder) = (one(), folder());
    prepare(&host, &host, &planned(&host), &run_file(&folder)).expect("it goes well");
    host.process(900, "qemu-system-x86", "/dev/vfio/devices/vfio0");
    let error = restore(&host, &host, &run_file(&folder)).expect_err("QEMU has it");
    assert!(matches!(&error, NotRestored::InUse { holder, .. } if holder.pid == 900), "{error}");
    let refusal = plan(&host, &host, &request(&[])).expect_err("QEMU has it");
    assert!(matches!(&refusal, Refusal::InUse { holders, .. } if holders[0].pid == 900), "{refusal}");
    host.remove("/proc/900");
    restore(&host, &host, &run_file(&folder)).expect("QEMU is gone");
}

#[test]
fn a_gpu_with_vfio_already_and_cc_mode_on_is_left_alone() {
    let host = one();
    let folder = folder();
    host.write("/sys/bus/pci/devices/0000:41:00.0/driver/unbind", GPU).expect("it is bound");
    host.write("/sys/bus/pci/devices/0000:41:00.0/driver_override", "vfio-pci").expect("it is there");
    host.write("/sys/bus/pci/drivers_probe", GPU).expect("it is there");
    host.set_modes(GPU, (Some(CcMode::On), Some(false)));
    let before = host.state();
    let plan = planned(&host);
    assert_eq!(plan.steps, []);
    prepare(&host, &host, &plan, &run_file(&folder)).expect("nothing to do");
    assert_eq!(restore(&host, &host, &run_file(&folder)).expect("nothing to do"), []);
    assert_eq!(host.state(), before);
}

#[test]
fn the_sound_function_of_the_card_goes_with_it_but_not_into_the_vm() {
    let (host, folder) = (one(), folder());
    host.card(&Card {
        device: "0x22ba",
        class: "0x040300",
        driver: Some("snd_hda_intel"),
        resource: "",
        ..Card::h100("0000:41:00.1", 42)
    });
    let before = host.state();
    let plan = planned(&host);
    assert_eq!(plan.devices.iter().map(|d| d.address).collect::<Vec<_>>(), [address(GPU)]);
    prepare(&host, &host, &plan, &run_file(&folder)).expect("it goes well");
    assert_eq!(host.state()["0000:41:00.1"].0.as_deref(), Some("vfio-pci"));
    restore(&host, &host, &run_file(&folder)).expect("it goes well");
    assert_eq!(host.state(), before);
}

#[test]
fn a_board_of_eight_goes_whole_with_its_switches_in_protected_pcie() {
    let (host, folder) = (board(), folder());
    let before = host.state();
    let plan = planned(&host);
    assert_eq!((plan.topology, plan.devices.len()), (Topology::ProtectedPcie, 12));
    assert!(plan.topology.about().contains("all eight"));
    prepare(&host, &host, &plan, &run_file(&folder)).expect("it goes well");
    for (device, modes) in host.modes() {
        assert_eq!(modes.1, Some(true), "{device}");
        assert_ne!(modes.0, Some(CcMode::On), "{device}");
    }
    restore(&host, &host, &run_file(&folder)).expect("it goes well");
    assert_eq!(host.state(), before);
}

#[test]
fn a_board_leaves_cc_mode_before_it_enters_protected_pcie() {
    let host = board();
    host.set_modes("0000:18:00.0", (Some(CcMode::On), Some(false)));
    let plan = planned(&host);
    prepare(&host, &host, &plan, &run_file(&folder())).expect("the tool refuses both at once");
}

#[test]
fn two_gpus_of_a_board_are_protected_each_and_the_switches_stay() {
    let host = board();
    let plan = plan(&host, &host, &request(&["0000:18:00.0", "2a:00.0"])).expect("they can be had");
    assert_eq!((plan.topology, plan.devices.len()), (Topology::Each, 2));
    assert_eq!(plan.hole_mib, 524_288);
}

#[test]
fn blackwell_gpus_need_no_protected_pcie() {
    let host = FakeHost::empty();
    host.driver("vfio-pci");
    for (group, gpu) in [(1, GPU), (2, SECOND)] {
        host.card(&Card { device: "0x2901", ..Card::h100(gpu, group) });
        host.set_modes(gpu, (Some(CcMode::Off), None));
    }
    let plan = planned(&host);
    assert_eq!(plan.topology, Topology::Linked);
    prepare(&host, &host, &plan, &run_file(&folder())).expect("it goes well");
    assert!(host.modes().values().all(|modes| *modes == (Some(CcMode::On), None)));
}

#[test]
fn a_development_guest_takes_a_gpu_as_it_is() {
    let host = one();
    host.edit("/sys/bus/pci/devices/0000:41:00.0/device", "0x2330", "0x20b2");
    let request = Request { confidential: false, ..request(&[]) };
    let plan = plan(&host, &NoTool, &request).expect("no mode is asked for");
    assert_eq!((plan.topology, plan.steps.len()), (Topology::Unprotected, 3));
}

/// Each flips one thing of a good host, and is refused by a message with these words.
#[test]
fn what_cannot_be_had_is_refused_with_its_reason() {
    type Flip = (&'static str, fn(&FakeHost), &'static [&'static str]);
    let flips: &[Flip] = &[
        ("used", |h| h.process(812, "python3", "/dev/nvidia0"), &["process 812 (python3)", "/dev/nvidia0"]),
        (
            "daemon",
            |h| h.process(7, "nvidia-persiste", "/dev/nvidia0"),
            &["systemctl stop nvidia-persistenced"],
        ),
        (
            "no group",
            |h| h.remove("/sys/bus/pci/devices/0000:41:00.0/iommu_group"),
            &["IOMMU", "intel_iommu=on"],
        ),
        ("no vfio", |h| h.remove("/sys/bus/pci/drivers/vfio-pci"), &["modprobe vfio-pci"]),
        (
            "A100",
            |h| h.edit("/sys/bus/pci/devices/0000:41:00.0/device", "0x2330", "0x20b2"),
            &["10de:20b2", "Hopper"],
        ),
        ("gone", |h| h.remove("/sys/bus/pci/devices/0000:41:00.0"), &["no NVIDIA GPU"]),
        (
            "shared",
            |h| {
                h.card(&Card {
                    vendor: "0x144d",
                    class: "0x010802",
                    driver: Some("nvme"),
                    ..Card::h100("0000:42:00.0", 42)
                });
            },
            &["group 42", "0000:42:00.0 (nvme)", "ACS"],
        ),
    ];
    for (name, flip, words) in flips {
        let host = one();
        plan(&host, &host, &request(&[])).expect("the host is good");
        flip(&host);
        let before = host.state();
        let refusal = plan(&host, &host, &request(&[])).expect_err(name).to_string();
        for word in *words {
            assert!(refusal.contains(word), "{name}: no {word:?} in {refusal}");
        }
        assert_eq!(host.state(), before, "{name}: nothing is touched");
    }
}

#[test]
fn a_gpu_that_is_not_there_is_refused_with_those_that_are() {
    let host = one();
    let refusal = plan(&host, &host, &request(&[SECOND])).expect_err("there is none").to_string();
    assert!(refusal.contains(SECOND) && refusal.contains(GPU), "{refusal}");
}

#[test]
fn without_the_admin_tool_a_confidential_vm_gets_no_gpu() {
    let refusal = plan(&one(), &NoTool, &request(&[])).expect_err("no tool").to_string();
    assert!(refusal.contains("nvidia_gpu_tools.py"), "{refusal}");
}

#[test]
fn another_process_with_another_gpu_does_not_matter() {
    let host = two();
    host.process(812, "python3", "/dev/nvidia1");
    plan(&host, &host, &request(&[GPU])).expect("that one is free");
    plan(&host, &host, &request(&[SECOND])).expect_err("this one is not");
}
