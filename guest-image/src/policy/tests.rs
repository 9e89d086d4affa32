use cocoon_attestation::Policy;

use super::*;
use crate::digest::{extended, sha384};
use crate::hex_bytes::HexBytes;
use crate::manifest::{File, Files, MANIFEST_VERSION, Provenance, Root, TdxRegisters, Variant, Verity};

const CONFIGURATION: Configuration<'_> = Configuration { bytes: b"network = -3\n", weights_sha256: [7; 32] };

fn manifest() -> Manifest {
    let tdx = TdxRegisters { mrtd: HexBytes([1; 48]), rtmr: [2, 3, 4].map(|byte| HexBytes([byte; 48])) };
    let measurement = |profile: &str, registers| Measurement {
        profile: profile.to_owned(),
        firmware: HexBytes([5; 32]),
        qemu: "11.1".to_owned(),
        provenance: Provenance::Emulated,
        registers,
        events: Vec::new(),
    };
    let verity = Verity { root_hash: HexBytes([0; 32]), data_blocks: 1 };
    Manifest {
        version: MANIFEST_VERSION,
        name: "cocoon-guest".to_owned(),
        variant: Variant::Production,
        lock: HexBytes([0; 32]),
        command_line: String::new(),
        files: Files {
            kernel: File::of(b""),
            initrd: File::of(b""),
            root: Root { sha256: HexBytes([0; 32]), size: 8192, verity },
            cmdline: File::of(b""),
        },
        firmware: Vec::new(),
        packages: Vec::new(),
        programs: Vec::new(),
        measurements: vec![
            measurement("snp-h100-1", Registers::Snp { launch_digest: HexBytes([6; 48]) }),
            measurement("tdx-h100-1", Registers::Tdx(tdx)),
        ],
    }
}

#[test]
fn every_register_of_the_boot_is_pinned() {
    let (release, left_out) = release(&manifest(), Some(&CONFIGURATION));
    assert_eq!(left_out, [""; 0]);
    let [snp, tdx] = release.images.as_slice() else { panic!("two profiles") };
    let (snp, tdx) = (snp.snp.as_ref().unwrap(), tdx.tdx.as_ref().unwrap());
    assert_eq!(snp.measurement, Pin::to([6; 48]));
    assert_eq!(snp.host_data, Pin::to(sha256(&[CONFIGURATION.bytes])));
    assert_eq!(
        [&tdx.mrtd, &tdx.rtmr0, &tdx.rtmr1, &tdx.rtmr2],
        [1, 2, 3, 4].map(|b| Pin::to([b; 48])).each_ref()
    );
    let configured = extended(&ZERO, &sha384(&[CONFIGURATION.bytes]));
    let weights = sha384(&[b"cocoon weights v1", &[7; 32]]);
    assert_eq!(tdx.rtmr3, Pin::to(extended(&configured, &weights)));
}

#[test]
fn without_a_configuration_snp_is_left_out_and_rtmr3_is_free() {
    let (release, left_out) = release(&manifest(), None);
    assert_eq!(left_out, ["snp-h100-1"]);
    assert_eq!(release.images.len(), 1);
    assert_eq!(release.images[0].tdx.as_ref().unwrap().rtmr3, Pin::Free);
}

#[test]
fn each_image_of_a_release_is_told_how_far_it_is_proved() {
    let manifest = manifest();
    for (configuration, standings) in [(None, 1), (Some(&CONFIGURATION), 2)] {
        let (release, _) = release(&manifest, configuration);
        let text = to_toml_with_standing(&release, &manifest);
        let notes =
            text.matches("# NOT COMPARED WITH HARDWARE: recorded from QEMU without the TEE\n[[images]]\n");
        assert_eq!(notes.count(), standings, "{text}");
        assert_eq!(Release::from_toml(&text), Ok(release));
    }
}

#[test]
fn the_text_is_a_release_and_its_images_are_a_policys() {
    let (release, _) = release(&manifest(), None);
    let text = to_toml(&release);
    let images = text.split_once('\n').unwrap().1;
    let rules = "[tdx]\nmr_seam = \"free\"\ntee_tcb_svn = \"00000000000000000000000000000000\"\nattributes = \"free\"\n\
                 xfam = \"free\"\n";
    let policy =
        Policy::from_toml(&format!("network = -3\nmax_age_seconds = 3600\n{images}\n{rules}")).unwrap();
    assert_eq!(policy.images, release.images);
    assert_eq!(Release::from_toml(&text), Ok(release));
}
