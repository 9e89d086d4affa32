use super::*;
use crate::testing::{SECURITY_AT, program, put};

/// The bytes of [`program`] that a signature may change: its checksum, where its certificates are, and those.
fn is_free(at: usize) -> bool {
    let checksum = 0x58 + CHECKSUM;
    (checksum..checksum + 4).contains(&at) || (SECURITY_AT..SECURITY_AT + 8).contains(&at) || at >= 0x410
}

/// Computed with Python's hashlib over the parts of the table in this module's head.
#[test]
fn the_digest_is_that_of_the_parts_in_the_order_of_the_file() {
    let file = program();
    let parsed = Program::parse(&file).unwrap();
    assert_eq!(hex::encode(parsed.sha256()), "9219f89ec7617893e3c045c057326c7e1ef3407b192977cdac93dcb04156399f");
    assert_eq!(hex::encode(parsed.sha384()), "dba45d1f150d099208bb7d1b3691ccfad75b51c5a5dcd53f60ef5c24f7f32bffecca0a8f90bd2174c6e7a6788477dded");
}

#[test]
fn every_byte_counts_but_those_that_a_signature_changes() {
    let file = program();
    let whole = Program::parse(&file).unwrap().sha384();
    for at in 0..file.len() {
        let mut changed = file.clone();
        changed[at] ^= 1;
        match Program::parse(&changed) {
            Ok(parsed) => assert_eq!(parsed.sha384() == whole, is_free(at), "byte {at:#x}"),
            Err(_) => assert!(at < 0x200, "byte {at:#x} is no header, and was refused"),
        }
    }
}

#[test]
fn the_order_of_the_section_table_does_not_count() {
    let file = program();
    let mut swapped = file.clone();
    let (first, second) = (0x148, 0x148 + 40);
    swapped.copy_within(second..second + 40, first);
    put(&mut swapped, second, &file[first..first + 40]);
    let digest = |file: &[u8]| Program::parse(file).unwrap().parts.len();
    assert_eq!(digest(&file), digest(&swapped));
    let tail = |file: &[u8]| sha384(&Program::parse(file).unwrap().parts[3..].to_vec());
    assert_eq!(tail(&file), tail(&swapped));
}

#[test]
fn a_program_without_certificates_is_hashed_to_its_end() {
    let mut file = program();
    file.truncate(0x410);
    put(&mut file, SECURITY_AT, &[0; 8]);
    let signed = program();
    assert_eq!(Program::parse(&file).unwrap().sha384(), Program::parse(&signed).unwrap().sha384());
}

#[test]
fn every_cut_is_refused() {
    let file = program();
    for length in 0..file.len() {
        assert!(Program::parse(&file[..length]).is_err(), "cut to {length} bytes");
    }
}

#[test]
fn layouts_without_one_digest_are_refused_by_name() {
    let refused = |at: usize, bytes: &[u8], reason: &str| {
        let mut file = program();
        put(&mut file, at, bytes);
        assert_eq!(Program::parse(&file).unwrap_err(), NotPe(Box::leak(reason.to_owned().into_boxed_str())));
    };
    let gap = "its sections overlap or leave gaps";
    refused(0x148 + 20, &0x308_u32.to_le_bytes(), gap);
    refused(0x148 + 20, &0x2f8_u32.to_le_bytes(), gap);
    refused(0x148 + 16, &0x200_u32.to_le_bytes(), "its certificates lie inside a section");
    refused(SECURITY_AT, &0x400_u32.to_le_bytes(), "its certificates are not at the end of the file");
    refused(SECURITY_AT + 4, &u32::MAX.to_le_bytes(), "its certificates are not at the end of the file");
    refused(0x46, &97_u16.to_le_bytes(), "it has more than 96 sections");
    refused(0x58, &0x107_u16.to_le_bytes(), "its optional header is neither PE32 nor PE32+");
    refused(0x3c, &u32::MAX.to_le_bytes(), "its DOS header leads to no PE header");
}
