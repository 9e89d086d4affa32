//! DER (ITU-T X.690), read in place: definite, minimal lengths and nothing else.

use crate::Malformed;

/// Tags that are read here.
pub(crate) mod tag {
    pub(crate) const BOOLEAN: u8 = 0x01;
    pub(crate) const INTEGER: u8 = 0x02;
    pub(crate) const BIT_STRING: u8 = 0x03;
    pub(crate) const OCTET_STRING: u8 = 0x04;
    pub(crate) const OID: u8 = 0x06;
    pub(crate) const ENUMERATED: u8 = 0x0a;
    pub(crate) const UTF8_STRING: u8 = 0x0c;
    pub(crate) const IA5_STRING: u8 = 0x16;
    pub(crate) const UTC_TIME: u8 = 0x17;
    pub(crate) const GENERALIZED_TIME: u8 = 0x18;
    pub(crate) const SEQUENCE: u8 = 0x30;
    pub(crate) const SET: u8 = 0x31;

    /// A constructed context tag, `[number]`.
    pub(crate) const fn context(number: u8) -> u8 {
        0xa0 | number
    }

    /// A primitive context tag, `[number] IMPLICIT`.
    pub(crate) const fn context_primitive(number: u8) -> u8 {
        0x80 | number
    }
}

/// One element: its tag, its content, and all of its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Element<'a> {
    pub(crate) tag: u8,
    pub(crate) content: &'a [u8],
    /// With tag and length: what a signature covers.
    pub(crate) raw: &'a [u8],
    /// Where `content` begins, from the start of the outermost input.
    at: usize,
}

impl<'a> Element<'a> {
    /// A reader of the content.
    pub(crate) fn reader(&self, what: &'static str) -> Reader<'a> {
        Reader { bytes: self.content, at: self.at, what }
    }
}

/// Reads elements one after the other.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    what: &'static str,
}

impl<'a> Reader<'a> {
    /// `what` names the input in errors, for example "certificate".
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { bytes, at: 0, what }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn error(&self, field: &'static str, reason: impl Into<String>) -> Malformed {
        Malformed::at(self.what, self.at, field, reason)
    }

    /// The next element, whatever its tag. Tags above 30 and lengths of 4 bytes and more do not occur here.
    pub(crate) fn any(&mut self, field: &'static str) -> Result<Element<'a>, Malformed> {
        let (tag, header, length) = match *self.bytes {
            [tag, length @ 0..=0x7f, ..] => (tag, 2, usize::from(length)),
            [tag, 0x81, length @ 0x80..=0xff, ..] => (tag, 3, usize::from(length)),
            [tag, 0x82, high @ 1..=0xff, low, ..] => (tag, 4, usize::from(u16::from_be_bytes([high, low]))),
            [tag, 0x83, a @ 1..=0xff, b, c, ..] => (tag, 5, u32::from_be_bytes([0, a, b, c]) as usize),
            _ => return Err(self.error(field, "no element with a minimal, definite length")),
        };
        if tag & 0x1f == 0x1f {
            return Err(self.error(field, "a tag of several bytes"));
        }
        let Some((raw, rest)) = self.bytes.split_at_checked(header + length) else {
            let left = self.bytes.len() - header;
            return Err(self.error(field, format!("{length} bytes announced, {left} left")));
        };
        let element = Element { tag, content: &raw[header..], raw, at: self.at + header };
        (self.bytes, self.at) = (rest, self.at + raw.len());
        Ok(element)
    }

    /// The next element, which must have this tag.
    pub(crate) fn expect(&mut self, tag: u8, field: &'static str) -> Result<Element<'a>, Malformed> {
        match self.bytes.first() {
            Some(found) if *found == tag => self.any(field),
            Some(found) => Err(self.error(field, format!("tag {found:#04x}, must be {tag:#04x}"))),
            None => Err(self.error(field, "missing")),
        }
    }

    /// The next element, if it has this tag.
    pub(crate) fn optional(
        &mut self,
        tag: u8,
        field: &'static str,
    ) -> Result<Option<Element<'a>>, Malformed> {
        if self.bytes.first() == Some(&tag) { self.any(field).map(Some) } else { Ok(None) }
    }

    /// A sequence's content.
    pub(crate) fn sequence(&mut self, field: &'static str) -> Result<Reader<'a>, Malformed> {
        self.expect(tag::SEQUENCE, field).map(|element| element.reader(self.what))
    }

    /// An object identifier's encoded content.
    pub(crate) fn oid(&mut self, field: &'static str) -> Result<&'a [u8], Malformed> {
        self.expect(tag::OID, field).map(|element| element.content)
    }

    /// A non-negative integer, minimal, without its sign byte.
    pub(crate) fn unsigned(&mut self, field: &'static str) -> Result<&'a [u8], Malformed> {
        let content = self.expect(tag::INTEGER, field)?.content;
        match content {
            [0] => Ok(content),
            [0, 0x80..=0xff, ..] => Ok(&content[1..]),
            [1..=0x7f, ..] => Ok(content),
            _ => Err(self.error(field, "not a minimal non-negative integer")),
        }
    }

    /// A non-negative integer of at most 8 bytes.
    pub(crate) fn number(&mut self, field: &'static str) -> Result<u64, Malformed> {
        let content = self.unsigned(field)?;
        if content.len() > 8 {
            return Err(self.error(field, "an integer of more than 64 bits"));
        }
        Ok(content.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }

    /// DER's TRUE or FALSE.
    pub(crate) fn boolean(&mut self, field: &'static str) -> Result<bool, Malformed> {
        match self.expect(tag::BOOLEAN, field)?.content {
            [0xff] => Ok(true),
            [0] => Ok(false),
            _ => Err(self.error(field, "neither TRUE nor FALSE in DER")),
        }
    }

    /// A bit string of whole bytes.
    pub(crate) fn bits(&mut self, field: &'static str) -> Result<&'a [u8], Malformed> {
        match self.expect(tag::BIT_STRING, field)?.content {
            [0, bytes @ ..] => Ok(bytes),
            _ => Err(self.error(field, "not a bit string of whole bytes")),
        }
    }

    pub(crate) fn octets(&mut self, field: &'static str) -> Result<&'a [u8], Malformed> {
        self.expect(tag::OCTET_STRING, field).map(|element| element.content)
    }

    /// Nothing may follow.
    pub(crate) fn end(&self, field: &'static str) -> Result<(), Malformed> {
        match self.bytes.len() {
            0 => Ok(()),
            left => Err(self.error(field, format!("{left} bytes too many"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_minimal_and_definite() {
        for bad in [
            &[0x30, 0x80, 0, 0][..],
            &[0x30, 0x81, 0x7f],
            &[0x30, 0x82, 0, 0x80],
            &[0x30, 0x84, 0, 0, 0, 1, 0],
            &[0x30, 2, 0],
            &[0x30],
            &[],
            &[0x1f, 0x81, 1, 0],
        ] {
            assert!(Reader::new(bad, "test").any("element").is_err(), "{bad:x?}");
        }
        let mut long = vec![0x04, 0x81, 0x80];
        long.extend([7; 0x80]);
        assert_eq!(Reader::new(&long, "test").octets("bytes"), Ok(&[7; 0x80][..]));
    }

    #[test]
    fn errors_name_the_offset_and_the_field() {
        let mut outer = Reader::new(&[0x30, 3, 0x02, 1, 0x80], "test").sequence("outer").expect("a sequence");
        let error = outer.unsigned("serial").expect_err("a negative integer");
        assert_eq!((error.what, error.field), ("test", "serial"));
        assert!(error.to_string().contains("at byte"), "{error}");
    }

    #[test]
    fn integers_have_one_encoding() {
        for (bytes, expected) in [
            (&[2, 1, 0][..], Some(0)),
            (&[2, 2, 0, 0x80], Some(0x80)),
            (&[2, 2, 0, 0x7f], None),
            (&[2, 1, 0x80], None),
            (&[2, 0], None),
            (&[2, 9, 0, 255, 255, 255, 255, 255, 255, 255, 255], Some(u64::MAX)),
            (&[2, 9, 1, 255, 255, 255, 255, 255, 255, 255, 255], None),
        ] {
            assert_eq!(Reader::new(bytes, "test").number("n").ok(), expected, "{bytes:x?}");
        }
    }
}
