use super::*;
use crate::digest::sha384;
use crate::testing::{TDVF_AT, firmware, put};

/// Where attribute and kind of section `index` are.
fn attributes(index: usize) -> usize {
    TDVF_AT + HEAD + index * SECTION + 28
}

/// `tests/golden` has these files for the tests outside of this crate, and for other programs.
#[test]
fn the_golden_files_are_those_that_tests_make() {
    assert_eq!(firmware(), include_bytes!("../../tests/golden/firmware.bin"));
    assert_eq!(crate::testing::program(), include_bytes!("../../tests/golden/program.bin"));
}

/// Computed with a program of its own (Python), page by page.
#[test]
fn mrtd_is_that_of_the_table() {
    let image = firmware();
    let tdvf = Tdvf::parse(&image).unwrap();
    assert_eq!(
        hex::encode(tdvf.mrtd()),
        "308aa5764552f0d970815ebf862d09ebce1954f30ea2353f0ac3b870fc5a5ab129fa8b8fba1997bf1382b9ccc937b0aa"
    );
    assert_eq!(tdvf.sections().len(), 6);
}

/// Two passes over a section, as old forks of QEMU did, give another value: order is a part of the measurement.
#[test]
fn pages_are_added_and_extended_one_by_one() {
    let image = firmware();
    let tdvf = Tdvf::parse(&image).unwrap();
    let mut context = Context::new(&SHA384);
    for section in tdvf.sections() {
        for page in 0..section.size / PAGE {
            context.update(&step(b"MEM.PAGE.ADD", section.address + page * PAGE));
        }
        for page in (0..section.size / PAGE).filter(|_| section.measured) {
            section.extend_page(page, &mut context);
        }
    }
    assert_ne!(context.finish().as_ref(), tdvf.mrtd());
}

#[test]
fn each_page_of_code_moves_mrtd_and_variables_do_not() {
    let image = firmware();
    let mrtd = Tdvf::parse(&image).unwrap().mrtd();
    for at in (0..0xf000).step_by(255) {
        let mut changed = image.clone();
        changed[at] ^= 1;
        assert_eq!(Tdvf::parse(&changed).unwrap().mrtd() == mrtd, at < 0x1000, "byte {at:#x}");
    }
}

#[test]
fn variables_can_be_taken_from_another_firmware() {
    let (code, mut other) = (firmware(), firmware());
    other[7] = 0;
    let joined = with_variables_of(&code, &other).unwrap();
    assert_eq!(joined, other);
    assert_eq!(Tdvf::parse(&joined).unwrap().variables().unwrap(), &other[..0x1000]);
    put(&mut other, attributes(1) - 4, &0_u32.to_le_bytes());
    assert!(with_variables_of(&code, &other).is_err(), "the other has no variables");
}

/// From the CCEL of two machines with Intel TDX, which have this firmware's memory layout.
#[test]
fn the_list_of_memory_is_what_real_machines_measured() {
    let image = firmware();
    let tdvf = Tdvf::parse(&image).unwrap();
    let measured = |gibibytes: u64| hex::encode(sha384(&[&tdvf.hand_off(gibibytes << 30).unwrap()]));
    assert_eq!(
        measured(1),
        "2b630fa1d8fa9b6e8c6507d2256803ed227888f7d1f62ca5cfbddfe495338b1c6a0fc339ea64700f0835c0897a662789"
    );
    assert_eq!(
        measured(2),
        "0e35f1b315ba6c912cf791e5c79dd9d3a2b8704516aa27d4e5aa78fb09ede04aef2bbd02ac7a8734c48562b9c26ba35d"
    );
}

#[test]
fn the_list_of_memory_splits_at_four_gibibytes() {
    let image = firmware();
    let tdvf = Tdvf::parse(&image).unwrap();
    let entries = |memory: u64| (tdvf.hand_off(memory).unwrap().len() - 56) / 48;
    assert_eq!([entries(0xaff0_0000), entries(0xb000_0000)], [8, 9]);
    assert!(tdvf.hand_off(1 << 20).is_err(), "less memory than the firmware itself wants");
    assert!(tdvf.hand_off(u64::MAX).is_err());
}

#[test]
fn metadata_that_is_not_exact_is_refused() {
    let refused = |at: usize, bytes: &[u8]| {
        let mut image = firmware();
        put(&mut image, at, bytes);
        Tdvf::parse(&image).unwrap_err().to_string()
    };
    for (at, bytes, reason) in [
        (TDVF_AT, b"TDVX".as_slice(), "TDVF, version 1"),
        (TDVF_AT + 8, &[2], "TDVF, version 1"),
        (TDVF_AT + 4, &[17], "length is not that of its sections"),
        (TDVF_AT + 12, &[0], "no sections"),
        (TDVF_AT + 12, &[0xff; 4], "no sections, or more than 64"),
        (TDVF_AT + 16, &[0xff; 4], "a section lies outside"),
        (TDVF_AT + 24, &[1], "whole pages"),
        (TDVF_AT + 40, &[4], "kind that QEMU does not load"),
        (attributes(0), &[8], "attributes that are not known"),
        (attributes(0), &[3], "measured and added later"),
        (attributes(2), &[1], "memory that begins empty is measured"),
        (0xffff - 32, &[0], "no metadata entry"),
    ] {
        let got = refused(at, bytes);
        assert!(got.contains(reason), "{at:#x}: {got}");
    }
}

#[test]
fn every_cut_is_refused() {
    let image = firmware();
    for length in (0..image.len()).step_by(97).chain(image.len() - 300..image.len()) {
        assert!(Tdvf::parse(&image[..length]).is_err());
    }
}
