//! JSON (RFC 8259), read in place, for documents that vendors sign as text.
//!
//! Nothing is built but what the caller asks for, every error has its offset, and a name that stands twice where it is
//! read is refused: two readers must never see two documents in one text.

use std::borrow::Cow;

use crate::Malformed;

/// Deepest nesting; Intel's documents have 7 levels.
const MAX_DEPTH: u8 = 32;

/// Reads one value after the other.
pub(crate) struct Reader<'a> {
    text: &'a str,
    at: usize,
    depth: u8,
    what: &'static str,
}

type Read<T> = Result<T, Malformed>;

impl<'a> Reader<'a> {
    /// `what` names the document in errors.
    pub(crate) fn new(text: &'a str, what: &'static str) -> Self {
        Self { text, at: 0, depth: 0, what }
    }

    /// An error at the place where reading stands.
    pub(crate) fn error(&self, field: &'static str, reason: impl Into<String>) -> Malformed {
        Malformed::at(self.what, self.at, field, reason)
    }

    /// The next byte that is no white space.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = bytes.get(self.at) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    /// Does a string come next?
    pub(crate) fn at_string(&mut self) -> bool {
        self.peek() == Some(b'"')
    }

    fn take(&mut self, byte: u8, field: &'static str) -> Read<()> {
        if self.peek() != Some(byte) {
            return Err(self.error(field, format!("no {:?}", char::from(byte))));
        }
        self.at += 1;
        Ok(())
    }

    fn deeper(&mut self, field: &'static str) -> Read<()> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error(field, format!("nested more than {MAX_DEPTH} deep")));
        }
        Ok(())
    }

    /// Calls `member` for each name; it must read the value.
    pub(crate) fn object(
        &mut self,
        field: &'static str,
        mut member: impl FnMut(&mut Self, &str) -> Read<()>,
    ) -> Read<()> {
        self.take(b'{', field)?;
        self.deeper(field)?;
        if self.peek() == Some(b'}') {
            self.at += 1;
        } else {
            loop {
                let name = self.string(field)?;
                self.take(b':', field)?;
                member(self, &name)?;
                if !self.another(b'}', field)? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Calls `element` for each element; it must read it.
    pub(crate) fn array(
        &mut self,
        field: &'static str,
        mut element: impl FnMut(&mut Self) -> Read<()>,
    ) -> Read<()> {
        self.take(b'[', field)?;
        self.deeper(field)?;
        if self.peek() == Some(b']') {
            self.at += 1;
        } else {
            loop {
                element(self)?;
                if !self.another(b']', field)? {
                    break;
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// A comma, and so another; or the end.
    fn another(&mut self, end: u8, field: &'static str) -> Read<bool> {
        match self.peek() {
            Some(b',') => {
                self.at += 1;
                Ok(true)
            }
            Some(byte) if byte == end => {
                self.at += 1;
                Ok(false)
            }
            _ => Err(self.error(field, format!("neither ',' nor {:?}", char::from(end)))),
        }
    }

    /// A string; borrowed if nothing in it is escaped.
    pub(crate) fn string(&mut self, field: &'static str) -> Read<Cow<'a, str>> {
        self.take(b'"', field)?;
        let start = self.at;
        self.at += plain(&self.text.as_bytes()[start..]);
        if self.text.as_bytes().get(self.at) == Some(&b'"') {
            let text = &self.text[start..self.at];
            self.at += 1;
            return Ok(Cow::Borrowed(text));
        }
        // Escapes only shorten: the text that is left bounds what is taken, and the chunk is a fair first guess.
        let mut out = String::with_capacity((self.text.len() - start).min(8 * 1024));
        out.push_str(&self.text[start..self.at]);
        loop {
            match self.text.as_bytes().get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(out));
                }
                Some(b'\\') => out.push(self.escaped(field)?),
                Some(_) => return Err(self.error(field, "a control character in a string")),
                None => return Err(self.error(field, "a string without an end")),
            }
            let chunk = self.at;
            self.at += plain(&self.text.as_bytes()[chunk..]);
            out.push_str(&self.text[chunk..self.at]);
        }
    }

    fn escaped(&mut self, field: &'static str) -> Read<char> {
        let byte = self.text.as_bytes().get(self.at + 1).copied();
        let character = match byte {
            Some(b'n') => '\n',
            Some(byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'u') => return self.escaped_unit(field),
            _ => return Err(self.error(field, "an escape that JSON does not have")),
        };
        self.at += 2;
        Ok(character)
    }

    /// `\uXXXX`, or two of them that are a surrogate pair.
    fn escaped_unit(&mut self, field: &'static str) -> Read<char> {
        let unit = |at: usize| -> Option<u16> {
            let digits = self.text.get(at..at + 6)?.strip_prefix("\\u")?;
            let hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
            hex.then(|| u16::from_str_radix(digits, 16).ok()).flatten()
        };
        let units = [unit(self.at), unit(self.at + 6)];
        let [Some(first), second] = units else {
            return Err(self.error(field, "an escape without four digits"));
        };
        if let Some(character) = char::from_u32(first.into()) {
            self.at += 6;
            return Ok(character);
        }
        match char::decode_utf16([first].into_iter().chain(second)).next() {
            Some(Ok(character)) => {
                self.at += 12;
                Ok(character)
            }
            _ => Err(self.error(field, "half of a surrogate pair")),
        }
    }

    /// A whole number from 0 to 2^32 − 1, in digits alone.
    pub(crate) fn number(&mut self, field: &'static str) -> Read<u32> {
        self.peek();
        let start = self.at;
        let mut value: Option<u32> = Some(0);
        while let Some(digit @ b'0'..=b'9') = self.text.as_bytes().get(self.at) {
            value = value.and_then(|value| value.checked_mul(10)?.checked_add(u32::from(digit - b'0')));
            self.at += 1;
        }
        let digits = &self.text[start..self.at];
        let more = matches!(self.text.as_bytes().get(self.at), Some(b'.' | b'e' | b'E'));
        match value {
            Some(value) if !digits.is_empty() && !more && (digits == "0" || !digits.starts_with('0')) => {
                Ok(value)
            }
            _ => Err(self.error(field, "not a whole number below 2^32")),
        }
    }

    /// A number that fits one of the smaller types.
    pub(crate) fn small<T: TryFrom<u32>>(&mut self, field: &'static str) -> Read<T> {
        let value = self.number(field)?;
        T::try_from(value).map_err(|_| self.error(field, format!("{value} is too large")))
    }

    /// Exactly `N` bytes in hex of either case.
    pub(crate) fn hex<const N: usize>(&mut self, field: &'static str) -> Read<[u8; N]> {
        let text = self.string(field)?;
        let mut bytes = [0; N];
        match hex::decode_to_slice(text.as_bytes(), &mut bytes) {
            Ok(()) => Ok(bytes),
            Err(_) => Err(self.error(field, format!("not {N} bytes in hex"))),
        }
    }

    /// Any value, as the text it is.
    pub(crate) fn raw(&mut self, field: &'static str) -> Read<&'a str> {
        self.peek();
        let start = self.at;
        self.skip(field)?;
        Ok(&self.text[start..self.at])
    }

    /// Passes over a value, which must be well formed.
    pub(crate) fn skip(&mut self, field: &'static str) -> Read<()> {
        match self.peek() {
            Some(b'{') => self.object(field, |reader, _| reader.skip(field)),
            Some(b'[') => self.array(field, |reader| reader.skip(field)),
            Some(b'"') => self.string(field).map(drop),
            Some(b'-' | b'0'..=b'9') => self.skip_number(field),
            _ => {
                let literal = ["true", "false", "null"]
                    .into_iter()
                    .find(|literal| self.text.get(self.at..).is_some_and(|rest| rest.starts_with(literal)));
                self.at += literal.ok_or_else(|| self.error(field, "no value"))?.len();
                Ok(())
            }
        }
    }

    fn skip_number(&mut self, field: &'static str) -> Read<()> {
        let bytes = &self.text.as_bytes()[self.at..];
        let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        let sign = usize::from(bytes.first() == Some(&b'-'));
        let whole = digits(sign);
        let mut end = sign + whole;
        let mut good = whole == 1 || (whole > 1 && bytes.get(sign) != Some(&b'0'));
        if bytes.get(end) == Some(&b'.') {
            let fraction = digits(end + 1);
            good &= fraction > 0;
            end += 1 + fraction;
        }
        if let Some(b'e' | b'E') = bytes.get(end) {
            let sign = usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            let exponent = digits(end + 1 + sign);
            good &= exponent > 0;
            end += 1 + sign + exponent;
        }
        if !good {
            return Err(self.error(field, "not a number"));
        }
        self.at += end;
        Ok(())
    }

    /// Nothing but white space may follow.
    pub(crate) fn end(&mut self) -> Read<()> {
        match self.peek() {
            None => Ok(()),
            Some(_) => Err(self.error("end", "more after the end")),
        }
    }

    /// Stores what `read` gives; a name that stands twice is refused.
    pub(crate) fn once<T>(
        &mut self,
        slot: &mut Option<T>,
        field: &'static str,
        read: impl FnOnce(&mut Self, &'static str) -> Read<T>,
    ) -> Read<()> {
        if slot.is_some() {
            return Err(self.error(field, "stands there twice"));
        }
        *slot = Some(read(self, field)?);
        Ok(())
    }
}

/// How many bytes from the start are neither a quotation mark, a backslash nor a control character.
fn plain(bytes: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([0x01; 8]);
    const HIGH: u64 = u64::from_ne_bytes([0x80; 8]);
    // A byte of `word ^ x` is zero where it equals x; the subtraction borrows into the high bit there. A byte after a hit
    // may be a false hit, so eight bytes with a hit are looked at one by one.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & HIGH;
    let mut at = 0;
    for chunk in bytes.chunks_exact(8) {
        let word = u64::from_ne_bytes(chunk.try_into().expect("chunks of eight"));
        let control = word.wrapping_sub(ONES * 0x20) & !word & HIGH;
        if zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\'))) | control != 0 {
            break;
        }
        at += 8;
    }
    let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    at + bytes[at..].iter().position(special).unwrap_or(bytes.len() - at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What serde_json takes as a whole document.
    fn oracle(text: &str) -> bool {
        serde_json::from_str::<serde_json::Value>(text).is_ok()
    }

    fn ours(text: &str) -> bool {
        let mut reader = Reader::new(text, "test");
        reader.skip("document").and_then(|()| reader.end()).is_ok()
    }

    const SAMPLES: [&str; 8] = [
        r#"{"a":[1,-0,2.50,3e+7,0.1E-2,true,false,null,"x"],"b":{"c":"\"\\\/\b\f\n\r\t\u0041\ud83d\ude00"}}"#,
        "[]",
        " { } ",
        r#""0123456789abcdef\"0123456789abcdef""#,
        r#"["\ud83d","\ude00","\ud83dx"]"#,
        "[01,1.,.5,1e,+1,--1,0x1]",
        r#"{"a":1,"a":2}"#,
        "\"\u{e9}\u{20ac}\u{1f600} 0123456789\"",
    ];

    #[test]
    fn every_changed_byte_is_judged_as_serde_json_judges_it() {
        for sample in SAMPLES {
            for at in 0..sample.len() {
                for byte in 0..=0x7f_u8 {
                    let mut bytes = sample.as_bytes().to_vec();
                    bytes[at] = byte;
                    let Ok(text) = String::from_utf8(bytes) else { continue };
                    assert_eq!(ours(&text), oracle(&text), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn strings_are_what_serde_json_reads() {
        for text in [SAMPLES[3], SAMPLES[7], r#""""#, r#""\u0000""#, r#""a\ud83d\ude00b""#, r#""\n\n""#] {
            let expected: String = serde_json::from_str(text).expect("a string");
            assert_eq!(Reader::new(text, "test").string("s").as_deref(), Ok(expected.as_str()), "{text}");
        }
        let text = "\"nothing escaped\"";
        assert!(matches!(Reader::new(text, "test").string("s"), Ok(Cow::Borrowed(_))));
    }

    #[test]
    fn numbers_are_whole_and_bounded() {
        for (text, expected) in [
            ("0", Some(0)),
            (" 4294967295", Some(u32::MAX)),
            ("4294967296", None),
            ("00", None),
            ("-1", None),
            ("1.0", None),
            ("1e2", None),
            ("", None),
            ("\"1\"", None),
        ] {
            assert_eq!(Reader::new(text, "test").number("n").ok(), expected, "{text}");
        }
        assert_eq!(Reader::new("256", "test").small::<u8>("n").ok(), None);
    }

    #[test]
    fn a_name_twice_is_refused_where_it_is_read() {
        let mut found = None;
        let mut reader = Reader::new(r#"{"a":1,"\u0061":2}"#, "test");
        let result = reader.object("o", |reader, name| match name {
            "a" => reader.once(&mut found, "a", Reader::number),
            _ => reader.skip("other"),
        });
        let error = result.expect_err("twice");
        assert_eq!((error.field, error.offset), ("a", Some(16)));
    }

    #[test]
    fn nesting_is_bounded() {
        for (depth, good) in [(32, true), (33, false), (1_000_000, false)] {
            let text = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
            assert_eq!(ours(&text), good, "{depth}");
        }
    }

    #[test]
    fn special_bytes_are_found_at_every_place() {
        for length in 0..40 {
            let mut bytes = vec![b'x'; length];
            assert_eq!(plain(&bytes), length);
            for at in 0..length {
                for byte in [b'"', b'\\', 0, 0x1f, 0x20, 0x7f, 0x80, 0xff] {
                    bytes[at] = byte;
                    let expected = if byte < 0x20 || byte == b'"' || byte == b'\\' { at } else { length };
                    assert_eq!(plain(&bytes), expected, "{byte:#x} at {at} of {length}");
                }
                bytes[at] = b'x';
            }
        }
    }
}
