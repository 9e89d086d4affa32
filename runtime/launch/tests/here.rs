//! The doctor on the machine that runs the tests: what it says is compared with what others say.

use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use cocoon_launch::doctor::{
    Machine, Network, Outcome, Programs, Question, Report, Tee, TeeChoice, ThisMachine, examine,
};
use cocoon_launch::gpu::NoTool;
use cocoon_launch::program::Program;
use cocoon_launch::root::Root;

fn here(qemu: &str) -> ThisMachine {
    let (qemu, swtpm) = (Program::at(qemu), Program::at("/no/such/swtpm"));
    let programs = Programs { qemu, swtpm, origin: "named by a test".into() };
    ThisMachine::new(programs, Box::new(NoTool), Network::default())
}

fn examined(question: &Question) -> Report {
    examine(&Root::machine(), &here("/no/such/qemu"), question)
}

fn says(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("it is on every Linux");
    String::from_utf8(output.stdout).expect("text").trim().to_owned()
}

fn found(report: &Report, id: &str) -> (Outcome, String) {
    let check = report.check(id).expect("it is there");
    (check.result, check.found.clone())
}

#[test]
fn the_kernel_is_the_one_that_uname_names() {
    let report = examined(&Question::default());
    assert_eq!(found(&report, "kernel.version").1, says("uname", &["-r"]));
}

#[test]
fn the_processor_and_whether_it_is_virtual_are_as_grep_finds_them() {
    let report = examined(&Question { tee: Some(Tee::Emulation), ..Question::default() });
    let line = says("grep", &["-m1", "^model name", "/proc/cpuinfo"]);
    let name = line.split_once(':').expect("a value").1.trim();
    assert!(found(&report, "cpu.tee").1.starts_with(name), "{report:#?}");
    let virtual_machine = says("grep", &["-m1", "-ow", "hypervisor", "/proc/cpuinfo"]) == "hypervisor";
    let expected = if virtual_machine { "a virtual machine" } else { "bare metal" };
    assert_eq!(found(&report, "machine.bare-metal").1, expected);
    if virtual_machine {
        let unasked = examined(&Question::default());
        assert_eq!((unasked.tee, unasked.tee_choice), (Tee::Emulation, TeeChoice::Neither));
        let asked = examined(&Question { tee: Some(Tee::Tdx), ..Question::default() });
        assert_eq!(asked.verdict.failed.first(), Some(&"machine.bare-metal"));
    }
}

#[test]
fn a_device_that_is_not_there_is_not_said_to_be() {
    let report = examined(&Question { tee: Some(Tee::Snp), ..Question::default() });
    for (id, path) in [("kvm.device", "/dev/kvm"), ("vsock.device", "/dev/vhost-vsock")] {
        let (result, found) = found(&report, id);
        assert!(
            Path::new(path).exists() || (result == Outcome::Fail && found == format!("no {path}")),
            "{id}"
        );
    }
}

#[test]
fn the_disk_has_as_much_room_as_df_says() {
    let root = Path::new("/");
    let ours = here("").free(root).expect("it can be asked");
    let line = says("df", &["--output=avail", "-B1", "/"]);
    let theirs: u64 = line.lines().last().and_then(|word| word.trim().parse().ok()).expect("a number");
    assert!(ours.abs_diff(theirs) < 1 << 30, "{ours} and {theirs}");
    let report =
        examined(&Question { disk: u64::MAX, state: "/no/such/folder".into(), ..Question::default() });
    assert_eq!(found(&report, "disk.free").0, Outcome::Fail);
}

#[test]
fn a_port_that_is_taken_is_found_taken_and_free_again_afterwards() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let question = Question { ports: vec![address], ..Question::default() };
    let (result, said) = found(&examined(&question), "ports.free");
    assert_eq!(result, Outcome::Fail);
    assert!(said.contains(&address.to_string()), "{said}");
    drop(listener);
    assert_eq!(found(&examined(&question), "ports.free").0, Outcome::Ok);
}

#[test]
fn memory_is_what_free_says() {
    let report = examined(&Question { memory: 1 << 60, ..Question::default() });
    let (result, said) = found(&report, "memory.free");
    assert_eq!(result, Outcome::Fail);
    let table = says("free", &["-b"]);
    let line = table.lines().find(|line| line.starts_with("Mem:")).expect("a line");
    let theirs: f64 = line.split_whitespace().last().and_then(|word| word.parse().ok()).expect("a number");
    let ours: f64 = said.trim_end_matches(" GiB").parse().expect("a number");
    assert!((ours - theirs / f64::from(1 << 30)).abs() < 2.0, "{said} and {line}");
}

#[test]
fn a_qemu_that_is_not_there_is_a_failure_that_names_it() {
    let report = examined(&Question { tee: Some(Tee::Emulation), ..Question::default() });
    let check = report.check("qemu.version").expect("it is there");
    assert!(check.result == Outcome::Fail && check.reason.contains("/no/such/qemu"), "{check:?}");
}

#[test]
fn a_program_of_a_tree_is_asked_through_the_trees_command() {
    let script = "case \"$1\" in --version) echo 'QEMU emulator version 11.1.3 (tree)';; \
                  *) printf 'List of user creatable objects:\\n  iommufd\\n  tdx-guest\\n';; esac";
    let qemu =
        Program { executable: "/bin/sh".into(), before: vec!["-c".into(), script.into(), "qemu".into()] };
    let programs = Programs { qemu, swtpm: Program::at("/no/such/swtpm"), origin: "the pinned one".into() };
    let machine = ThisMachine::new(programs, Box::new(NoTool), Network::default());
    let qemu = machine.qemu().expect("it answers");
    assert_eq!(qemu.version.to_string(), "11.1.3");
    assert_eq!(qemu.objects, ["iommufd", "tdx-guest"]);
}
