//! The text of a module: entries with their parameters, registers, shared memory and instructions.

use std::collections::BTreeMap;

use crate::{
    body::Body,
    error::{ParseError, Place},
    instruction::Instruction,
};

/// Longest text, in bytes.
const MAX_TEXT: usize = 16 << 20;
/// The entries of one PTX file.
#[derive(Clone, Debug)]
pub struct Module {
    entries: BTreeMap<String, Entry>,
    target: String,
}

/// One kernel.
#[derive(Clone, Debug)]
pub struct Entry {
    pub(crate) name: String,
    /// Offset and size of each parameter.
    pub(crate) params: Vec<(u64, u64)>,
    pub(crate) shared_bytes: u64,
    pub(crate) slots: Vec<SlotKind>,
    pub(crate) code: Vec<Instruction>,
    pub(crate) max_threads: Option<u32>,
    pub(crate) files: BTreeMap<u32, String>,
}

/// What a slot holds when a thread begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SlotKind {
    /// Nothing yet.
    Register(String),
    Constant(u64),
    Special(Special),
}

/// What a thread knows of its place in the grid; an index is 0 for x, 1 for y, 2 for z.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Special {
    Thread(u8),
    Threads(u8),
    Block(u8),
    Blocks(u8),
    Lane,
}

impl Module {
    /// Reads the text of a PTX file.
    ///
    /// # Errors
    /// Something in it is not of the subset that ships; the error names the line.
    pub fn parse(text: &str) -> Result<Self, ParseError> {
        if text.len() > MAX_TEXT {
            return Err(ParseError { line: 1, what: format!("more than {MAX_TEXT} bytes") });
        }
        let mut parser = Parser { lines: text.lines().enumerate(), line: 0 };
        let mut module = Self { entries: BTreeMap::new(), target: String::new() };
        let mut files = BTreeMap::new();
        while let Some(line) = parser.next() {
            let mut words = line.split_whitespace();
            match words.next().unwrap_or_default() {
                ".version" | ".address_size" => {}
                ".target" => module.target = words.next().unwrap_or_default().to_owned(),
                ".file" => {
                    let number = words.next().and_then(|word| word.parse().ok());
                    let name = line.split('"').nth(1);
                    let (Some(number), Some(name)) = (number, name) else {
                        return Err(parser.error("a .file without number and name"));
                    };
                    files.insert(number, name.to_owned());
                }
                ".visible" if words.next() == Some(".entry") => {
                    let entry = parser.entry(line)?;
                    module.entries.insert(entry.name.clone(), entry);
                }
                other => return Err(parser.error(format!("{other:?} at the top is not of the subset"))),
            }
        }
        module.entries.values_mut().for_each(|entry| entry.files.clone_from(&files));
        Ok(module)
    }

    /// The entry of that name.
    pub fn entry(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// All entries.
    pub fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// What it is compiled for: `sm_90`.
    pub fn target(&self) -> &str {
        &self.target
    }
}

impl Entry {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Bytes of each parameter.
    pub fn params(&self) -> impl Iterator<Item = u64> {
        self.params.iter().map(|(_, size)| *size)
    }

    /// Bytes of shared memory of a block.
    pub fn shared_bytes(&self) -> u64 {
        self.shared_bytes
    }

    /// Most threads of a block, where the source promises it.
    pub fn max_threads(&self) -> Option<u32> {
        self.max_threads
    }

    /// The source line of an instruction.
    pub(crate) fn place(&self, pc: u32) -> Place {
        let (file, line) = self.code.get(pc as usize).map_or((0, 0), |instruction| instruction.place);
        let file = self.files.get(&file).cloned().unwrap_or_else(|| "?".to_owned());
        Place { file, line }
    }
}

struct Parser<'t> {
    lines: std::iter::Enumerate<std::str::Lines<'t>>,
    line: usize,
}

impl<'t> Parser<'t> {
    /// The next line that says something, without comments.
    fn next(&mut self) -> Option<&'t str> {
        for (number, line) in self.lines.by_ref() {
            self.line = number + 1;
            let line = line.split("//").next().unwrap_or_default().trim();
            if !line.is_empty() {
                return Some(line);
            }
        }
        None
    }

    fn expect(&mut self, what: &str) -> Result<&'t str, ParseError> {
        self.next().ok_or_else(|| self.error(format!("the text ends before {what}")))
    }

    fn error(&self, what: impl Into<String>) -> ParseError {
        ParseError { line: self.line, what: what.into() }
    }

    fn entry(&mut self, first: &str) -> Result<Entry, ParseError> {
        let name = first.split(".entry").nth(1).unwrap_or_default().trim();
        let (name, rest) = name.split_once('(').ok_or_else(|| self.error("an entry without parameters"))?;
        let mut body = Body::new(name.trim());
        if !rest.contains(')') {
            loop {
                let line = self.expect("the end of the parameters")?;
                if line == ")" {
                    break;
                }
                body.param(line.trim_end_matches(',')).map_err(|what| self.error(what))?;
            }
        }
        loop {
            match self.expect("the entry's body")? {
                "{" => break,
                line => body.directive(line).map_err(|what| self.error(what))?,
            }
        }
        let mut depth = 1;
        while depth > 0 {
            match self.expect("the end of the entry")? {
                "{" => depth += 1,
                "}" => depth -= 1,
                line => body.statement(line, self.line).map_err(|what| self.error(what))?,
            }
        }
        body.finish()
    }
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
