//! The certificates that the host of an SNP guest hands in (GHCB specification, publication 56421, 4.1.8.1).
//!
//! A table of entries, ended by one that is all zero, then the certificates.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 16 | GUID: what it is |
//! | 16 | 4 | offset from the start of the table, little-endian |
//! | 20 | 4 | length, little-endian |
//!
//! All of it is the host's word: it is carried to the verifier, which believes none of it without a chain to AMD's root.

use super::TeeError;

/// Bytes of an entry.
const ENTRY: usize = 24;
/// Most entries; AMD names five kinds.
const MAX_ENTRIES: usize = 16;

/// The kinds that a verifier has use for. GUIDs in the byte order of their text, as the specification's tools write
/// them.
const KINDS: [(&str, [u8; 16]); 5] = [
    ("VCEK", guid(0x63da_758d_e664_4564_adc5_f4b9_3be8_accd)),
    ("VLEK", guid(0xa807_4bc2_a25a_483e_aae6_39c0_45a0_b8a1)),
    ("ASK", guid(0x4ab7_b379_bbac_4fe4_a02f_05ae_f327_c782)),
    ("ARK", guid(0xc0b4_06a4_a803_4952_9743_3fb6_014c_d0ae)),
    ("CRL", guid(0x92f8_1bc3_5811_4d3d_97ff_d19f_88dc_67ea)),
];

const fn guid(text: u128) -> [u8; 16] {
    text.to_be_bytes()
}

/// The certificates of known kinds, each as it came (DER, or PEM), in the order of [`KINDS`]: VCEK, VLEK, ASK, ARK,
/// CRL. An empty table gives none.
///
/// # Errors
/// `Malformed` with the entry, if one points out of the table or the end is missing.
pub(super) fn parse(table: &[u8]) -> Result<Vec<Vec<u8>>, TeeError> {
    if table.is_empty() {
        return Ok(Vec::new());
    }
    let mut found: Vec<(usize, Vec<u8>)> = Vec::new();
    for (number, entry) in table.chunks(ENTRY).take(MAX_ENTRIES + 1).enumerate() {
        if entry == [0; ENTRY] {
            found.sort_by_key(|(kind, _)| *kind);
            return Ok(found.into_iter().map(|(_, certificate)| certificate).collect());
        }
        let Some((guid, offset, length)) = fields(entry) else { break };
        let certificate = table
            .get(offset..offset.saturating_add(length))
            .ok_or_else(|| malformed(number, format!("{length} bytes at {offset} of {}", table.len())))?;
        let Some(kind) = KINDS.iter().position(|(_, known)| *known == guid) else { continue };
        if found.iter().any(|(other, _)| *other == kind) {
            return Err(malformed(number, format!("a second {}", KINDS[kind].0)));
        }
        if !certificate.is_empty() {
            found.push((kind, certificate.to_vec()));
        }
    }
    Err(TeeError::Malformed(format!("a certificate table without an end in its first {MAX_ENTRIES} entries")))
}

fn fields(entry: &[u8]) -> Option<([u8; 16], usize, usize)> {
    let (guid, rest) = entry.split_first_chunk()?;
    let (offset, rest) = rest.split_first_chunk()?;
    let (length, _) = rest.split_first_chunk()?;
    let number = |bytes: &[u8; 4]| u32::from_le_bytes(*bytes) as usize;
    Some((*guid, number(offset), number(length)))
}

fn malformed(number: usize, what: String) -> TeeError {
    TeeError::Malformed(format!("a certificate table whose entry {number} is wrong: {what}"))
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A table as a host builds it.
    pub(in super::super) fn table(certificates: &[([u8; 16], &[u8])]) -> Vec<u8> {
        let mut offset = ENTRY * (certificates.len() + 1);
        let (mut head, mut tail) = (Vec::new(), Vec::new());
        for (guid, bytes) in certificates {
            head.extend(guid);
            head.extend(u32::try_from(offset).expect("small").to_le_bytes());
            head.extend(u32::try_from(bytes.len()).expect("small").to_le_bytes());
            tail.extend(*bytes);
            offset += bytes.len();
        }
        [head, vec![0; ENTRY], tail].concat()
    }

    pub(in super::super) const VCEK: [u8; 16] = KINDS[0].1;
    pub(in super::super) const ASK: [u8; 16] = KINDS[2].1;
    const OTHER: [u8; 16] = [0xee; 16];

    #[test]
    fn known_certificates_come_out_in_order_and_others_not_at_all() {
        let all = table(&[(ASK, b"ask"), (OTHER, b"other"), (VCEK, b"vcek"), (KINDS[4].1, b"")]);
        assert_eq!(parse(&all).expect("good"), [b"vcek".to_vec(), b"ask".to_vec()]);
        assert_eq!(parse(&[]).expect("none"), Vec::<Vec<u8>>::new());
        assert_eq!(parse(&table(&[])).expect("none"), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn the_guids_are_those_that_the_crate_sev_knows() {
        use sev::firmware::host::CertType;
        let theirs = [CertType::VCEK, CertType::VLEK, CertType::ASK, CertType::ARK, CertType::CRL];
        for ((name, ours), theirs) in KINDS.into_iter().zip(theirs) {
            assert_eq!(hex::encode(ours), theirs.to_string().replace('-', ""), "{name}");
        }
    }

    #[test]
    fn a_table_that_points_out_of_itself_or_never_ends_is_refused() {
        let good = table(&[(VCEK, b"vcek")]);
        let changed = |at: usize, bytes: [u8; 4]| {
            let mut table = good.clone();
            table[at..at + 4].copy_from_slice(&bytes);
            table
        };
        let full: Vec<_> = (0..=MAX_ENTRIES).map(|_| (OTHER, b"x".as_slice())).collect();
        for (what, bad) in [
            ("an offset beyond the end", changed(16, [0xff; 4])),
            ("a length beyond the end", changed(20, [0xff; 4])),
            ("a length one too long", changed(20, [5, 0, 0, 0])),
            ("two of a kind", table(&[(VCEK, b"a"), (VCEK, b"b")])),
            ("too many entries", table(&full)),
            ("no end", good[..ENTRY].to_vec()),
            ("a cut entry", good[..ENTRY - 1].to_vec()),
            ("a cut end", good[..2 * ENTRY - 1].to_vec()),
        ] {
            let error = parse(&bad).expect_err(what);
            assert!(matches!(error, TeeError::Malformed(_)), "{what}: {error}");
        }
        assert!(parse(&changed(20, [4, 0, 0, 0])).is_ok());
    }

    #[test]
    fn no_single_changed_byte_of_a_table_panics() {
        let good = table(&[(VCEK, b"vcek"), (ASK, b"ask")]);
        for at in 0..good.len() {
            for value in 0..=255 {
                let mut changed = good.clone();
                changed[at] = value;
                let _ = parse(&changed); // either is an answer
            }
        }
    }
}
