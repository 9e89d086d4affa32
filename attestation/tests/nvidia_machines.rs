//! Rules over several devices, and the forms in which their evidence travels.

#[path = "kit/nvidia/mod.rs"]
mod nvidia;

use cocoon_attestation::{RefusalKind::Malformed, Status};
use nvidia::{DevicePlan, Plan};

type Edit = fn(&mut Plan);

/// Rows over a machine of two GPUs and a switch.
const BAD_MACHINES: &[(&str, Edit, &str, &str)] = &[
    (
        "two nonces",
        |p| {
            p.devices[1].nonce = [7; 32];
            p.devices[1].claimed_nonce = Some([7; 32]);
            p.challenge = None;
        },
        "gpu.devices",
        "device 1 answers another nonce",
    ),
    (
        "a device twice",
        |p| p.devices[1] = DevicePlan::gpu_behind_a_switch(0),
        "gpu.devices",
        "device 1 is a device",
    ),
    ("a GPU in another mode", |p| p.devices[1] = DevicePlan::gpu(1), "gpu.devices", "modes"),
    ("a switch that the GPUs do not see", |p| p.devices[2].set(22, &[9; 8]), "gpu.devices", "switches 0909"),
    (
        "a GPU that sees other switches",
        |p| p.devices[1].set(22, &[9; 8]),
        "gpu.devices",
        "different switches",
    ),
    ("a GPU that sees none", |p| p.devices[0].remove(22), "gpu.devices", "without ids of switches"),
    ("a GPU left out", |p| drop(p.devices.remove(1)), "gpu.devices", "2 GPUs, 1 shown"),
    (
        "a forged report of the second",
        |p| p.devices[1].after = |r| r[60] ^= 1,
        "gpu.signature",
        "device 1 (GH100 21): does not hold",
    ),
    ("a forged chain of the third", |p| p.devices[2].family.forged = true, "gpu.chain", "device 2: "),
    ("no report of the second", |p| p.devices[1].after = |r| r.truncate(9), "gpu.format", "device 1: "),
];

#[test]
fn a_machine_of_several_devices_is_judged_as_a_whole() {
    let genuine = Plan::machine().verify().expect("nothing is wrong");
    let named = |id: &str| genuine.checks().iter().find(|check| check.id == id).expect("a check");
    assert_eq!(named("gpu.devices").status, Status::Pass);
    assert_eq!(named("gpu.devices").got, "GPUs: 2, switches: 1");
    assert_eq!(named("gpu.signature").got, "all 3: holds");
    assert_eq!(genuine.gpus().iter().filter(|gpu| !gpu.architecture.is_gpu()).count(), 1);
    for (what, edit, check, got) in BAD_MACHINES {
        let mut plan = Plan::machine();
        edit(&mut plan);
        let refusal = plan.verify().expect_err(what);
        assert!(refusal.check == *check && refusal.got.contains(got), "{what}: {refusal}");
    }
}

#[test]
fn evidence_in_a_form_nobody_writes_is_malformed() {
    type Row = (&'static str, fn(String) -> String);
    let rows: [Row; 7] = [
        ("an unknown field", |text| text.replacen("\"arch\"", "\"arch2\"", 1)),
        ("a field twice", |text| text.replacen("{", "{\"arch\":\"HOPPER\",", 1)),
        ("no devices", |_| "{\"nonce\":\"00\",\"evidence_list\":[]}".into()),
        ("a nonce that is not hex", |text| text.replacen("4e4e", "4x4e", 1)),
        ("evidence that is not base64", |text| text.replacen("\"evidence\":\"", "\"evidence\":\"!", 1)),
        ("a version nobody knows", |text| text.replacen('{', "{\"version\":\"2.0\",", 1)),
        ("81 devices", |text| format!("[{}]", vec![&text[1..text.len() - 1]; 81].join(","))),
    ];
    for (what, edit) in rows {
        let mut plan = Plan::honest();
        plan.json = edit;
        let refusal = plan.verify().expect_err(what);
        assert_eq!((refusal.check, refusal.kind), ("evidence.form", Malformed), "{what}: {refusal}");
    }
}
