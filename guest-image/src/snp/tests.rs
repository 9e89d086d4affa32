use super::*;
use crate::testing::{ASEV_AT, firmware, put};

fn launch() -> Launch<'static> {
    Launch {
        kernel: b"kernel",
        initrd: b"initrd",
        command_line: "console=ttyS0",
        vcpus: 2,
        vcpu_type: VcpuType::EpycV4,
        guest_features: 1,
    }
}

/// Made with PyPI's sev-snp-measure 0.0.13 of the same files; `tests/oracles.rs` runs it where it is installed.
#[test]
fn the_digest_is_that_of_sev_snp_measure() {
    let image = firmware();
    let digest = |launch: &Launch<'_>| hex::encode(launch_digest(&image, launch).unwrap().0);
    assert_eq!(
        digest(&launch()),
        "fdaedf4b1505a40b3c07869844fe6b91a78cbf033ed06c0c35db1d3a58ccf4163ac133c0c0e14fb57a6c5de96c080ebb"
    );
    let other = Launch { vcpus: 1, vcpu_type: VcpuType::EpycTurin, guest_features: 0x21, ..launch() };
    assert_eq!(
        digest(&other),
        "7a1c25b6062e432616f3970fdd7dc120d625e3cbb1acb037149797ad22f8abc0ad7f102ca420bbd6e8856c52557f751b"
    );
    let milan = Launch { vcpu_type: VcpuType::EpycMilan, ..launch() };
    assert_eq!(
        digest(&milan),
        "679bad056a295bbcabadc7a59656e4c47974dd21772e3bb798da1d17d755a0bb9fac236adeab3fdeae88b3bd98ecc48a"
    );
    let genoa = Launch { vcpu_type: VcpuType::EpycGenoa, ..launch() };
    assert_eq!(
        digest(&genoa),
        "d5c71590573702fa3feff12c1d5e85aad4f0523fed5644c8c8afb3913d4746e64dd1fe898d2262a1a2602bc2870f66af"
    );
}

#[test]
fn each_input_moves_the_digest() {
    let image = firmware();
    let digest = |launch: &Launch<'_>| launch_digest(&image, launch).unwrap().0;
    let base = digest(&launch());
    for changed in [
        Launch { kernel: b"kerneL", ..launch() },
        Launch { initrd: b"initrD", ..launch() },
        Launch { command_line: "console=ttyS1", ..launch() },
        Launch { vcpus: 3, ..launch() },
        Launch { vcpu_type: VcpuType::EpycGenoa, ..launch() },
        Launch { guest_features: 0x21, ..launch() },
    ] {
        assert_ne!(digest(&changed), base);
    }
    let mut other = image.clone();
    other[0] ^= 1;
    assert_ne!(launch_digest(&other, &launch()).unwrap().0, base, "variables are measured too");
}

#[test]
fn every_step_is_told() {
    let (_, steps) = launch_digest(&firmware(), &launch()).unwrap();
    let told: Vec<&str> = steps.iter().map(|step| step.what.as_str()).collect();
    assert_eq!(told.first(), Some(&"the firmware, page by page"));
    assert!(told.contains(&"hashes of command line, initrd and kernel"));
    assert_eq!(told.last(), Some(&"first registers of vCPU 1"));
}

#[test]
fn firmware_that_measures_no_kernel_is_refused() {
    let refused = |at: usize, bytes: &[u8]| {
        let mut image = firmware();
        put(&mut image, at, bytes);
        launch_digest(&image, &launch()).unwrap_err().to_string()
    };
    // The page for hashes becomes plain memory; other fields become what they cannot be.
    let last = ASEV_AT + HEAD + 3 * SECTION;
    for (at, bytes, reason) in [
        (last + 8, [1, 0, 0, 0].as_slice(), "no page for the hashes"),
        (last + 8, &[9, 0, 0, 0], "known kind"),
        (last + 4, &[0, 0x20, 0, 0], "not one page"),
        (last, &[1], "whole pages"),
        (ASEV_AT, b"ASEX", "ASEV, version 1"),
        (ASEV_AT + 12, &[0xff; 4], "more than 64"),
        (ASEV_AT + HEAD + 4, &[0, 0xf0, 0xff, 0xff], "more than 4096 pages"),
    ] {
        let got = refused(at, bytes);
        assert!(got.contains(reason), "{at:#x}: {got}");
    }
    for vcpus in [0, VCPUS_MAX + 1] {
        assert!(launch_digest(&firmware(), &Launch { vcpus, ..launch() }).is_err());
    }
}
