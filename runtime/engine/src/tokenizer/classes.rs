//! The classes of characters on which words are split, from Unicode's own tables.

use regex_syntax::hir::HirKind;

/// A set of characters as sorted ranges, with a table for ASCII.
pub(super) struct Class {
    ascii: [bool; 128],
    ranges: Vec<(char, char)>,
}

impl Class {
    /// A class in regular-expression syntax, such as `\p{L}`: one of this crate's own constants.
    pub(super) fn new(pattern: &str) -> Self {
        let hir = regex_syntax::parse(pattern).expect("the class is a constant that parses");
        let ranges: Vec<(char, char)> = match hir.kind() {
            HirKind::Class(regex_syntax::hir::Class::Unicode(class)) => {
                class.ranges().iter().map(|range| (range.start(), range.end())).collect()
            }
            _ => panic!("the class is a constant Unicode class"),
        };
        let mut class = Self { ascii: [false; 128], ranges };
        for byte in 0..128u8 {
            class.ascii[usize::from(byte)] = class.search(char::from(byte));
        }
        class
    }

    pub(super) fn contains(&self, c: char) -> bool {
        if c.is_ascii() { self.ascii[c as usize] } else { self.search(c) }
    }

    fn search(&self, c: char) -> bool {
        let after = self.ranges.partition_point(|range| range.0 <= c);
        after > 0 && c <= self.ranges[after - 1].1
    }
}
