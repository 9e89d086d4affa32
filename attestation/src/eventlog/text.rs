//! Text of a stranger, made harmless.

/// Longest text shown, in characters of the original.
const MAX_TEXT: usize = 4096;

/// Characters with everything but printable ASCII escaped, cut at [`MAX_TEXT`]. A backslash stands for itself.
fn harmless(characters: impl Iterator<Item = char>) -> String {
    let mut out = String::new();
    let mut characters = characters.enumerate();
    for (at, character) in characters.by_ref() {
        if at == MAX_TEXT {
            out.push_str("… (cut)");
            break;
        }
        match character {
            ' '..='~' => out.push(character),
            other => out.extend(other.escape_default()),
        }
    }
    out
}

/// Bytes as ASCII, up to a closing zero if there is one; other bytes as `\u{…}`.
pub(super) fn ascii(bytes: &[u8]) -> String {
    let bytes = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    harmless(bytes.iter().map(|byte| char::from(*byte)))
}

/// Bytes as UTF-16, little endian, up to the first zero; an odd byte at the end is left out.
pub(super) fn utf16(bytes: &[u8]) -> String {
    let (units, _odd) = bytes.as_chunks::<2>();
    let units = units.iter().map(|unit| u16::from_le_bytes(*unit)).take_while(|unit| *unit != 0);
    harmless(char::decode_utf16(units).map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)))
}

/// Text whose encoding is not said: UTF-16 if every second byte is zero, else ASCII, else a count of bytes.
pub(super) fn guessed(bytes: &[u8]) -> String {
    let (units, odd) = bytes.as_chunks::<2>();
    if !units.is_empty() && odd.is_empty() && units.iter().all(|unit| unit[1] == 0) {
        return utf16(bytes);
    }
    let text = bytes.strip_suffix(b"\0").unwrap_or(bytes);
    if text.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n' | b'\t' | b'\r')) {
        return ascii(bytes);
    }
    format!("{} bytes", bytes.len())
}

/// A GUID as it is written: the first three groups are little endian.
pub(super) fn guid(bytes: &[u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
    let rest = hex::encode(rest);
    let (head, tail) = rest.split_at(4);
    format!("{d:02x}{c:02x}{b:02x}{a:02x}-{f:02x}{e:02x}-{h:02x}{g:02x}-{head}-{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_printable_ascii_comes_out() {
        let nasty = "a\n\u{202e}b\u{0}\u{1b}[31m\u{e9}";
        assert_eq!(ascii(b"a\n\x1b[31m\xff\0"), r"a\n\u{1b}[31m\u{ff}");
        let units: Vec<u8> =
            nasty.replace('\0', "").encode_utf16().flat_map(u16::to_le_bytes).chain([0, 0, 65, 0]).collect();
        assert_eq!(utf16(&units), r"a\n\u{202e}b\u{1b}[31m\u{e9}");
        assert_eq!(utf16(&[0x00, 0xd8, 65, 0]), r"\u{fffd}A", "a lone surrogate");
        assert!(guessed(&[1, 2, 3]).ends_with("3 bytes"));
    }

    #[test]
    fn long_text_is_cut() {
        let text = ascii(&vec![b'x'; 1 << 20]);
        assert!(text.len() < MAX_TEXT + 16 && text.ends_with("(cut)"), "{}", text.len());
    }

    #[test]
    fn guids_are_written_as_people_write_them() {
        let global =
            [0x61, 0xdf, 0xe4, 0x8b, 0xca, 0x93, 0xd2, 0x11, 0xaa, 0x0d, 0, 0xe0, 0x98, 0x03, 0x2b, 0x8c];
        assert_eq!(guid(&global), "8be4df61-93ca-11d2-aa0d-00e098032b8c");
    }
}
