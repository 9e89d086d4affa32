//! The body of an entry, statement by statement.

use std::collections::BTreeMap;

use crate::{
    decode,
    error::ParseError,
    instruction::{Instruction, Op, SINK, Slot},
    parse::{Entry, SlotKind, Special},
};

/// Most registers and constants of an entry.
const MAX_SLOTS: usize = 30_000;
/// Most instructions of an entry.
const MAX_CODE: usize = 60_000;
/// Most shared memory of a block without asking for more, in bytes (*CUDA C++ Programming Guide, Compute Capabilities*).
const MAX_SHARED: u64 = 48 << 10;
/// Most bytes of parameters.
const MAX_PARAMS: u64 = 4096;

/// An entry in the making.
pub(crate) struct Body {
    entry: Entry,
    names: BTreeMap<String, Slot>,
    constants: BTreeMap<u64, Slot>,
    /// Offsets of parameters and shared variables.
    symbols: BTreeMap<String, u64>,
    labels: BTreeMap<String, u32>,
    /// Branches to labels: instruction, label, line.
    branches: Vec<(usize, String, usize)>,
    param_end: u64,
    place: (u32, u32),
}

impl Body {
    pub(crate) fn new(name: &str) -> Self {
        let entry = Entry {
            name: name.to_owned(),
            params: Vec::new(),
            shared_bytes: 0,
            slots: Vec::new(),
            code: Vec::new(),
            max_threads: None,
            files: BTreeMap::new(),
        };
        Self {
            entry,
            names: BTreeMap::new(),
            constants: BTreeMap::new(),
            symbols: BTreeMap::new(),
            labels: BTreeMap::new(),
            branches: Vec::new(),
            param_end: 0,
            place: (0, 0),
        }
    }

    /// `.param .u64 [.ptr .align n] name` or `.param .align a .b8 name[bytes]`.
    pub(crate) fn param(&mut self, line: &str) -> Result<(), String> {
        let (align, size, name) = variable(line, ".param")?;
        let offset = self.param_end.next_multiple_of(align);
        self.param_end = offset + size;
        if self.param_end > MAX_PARAMS {
            return Err(format!("more than {MAX_PARAMS} bytes of parameters"));
        }
        self.entry.params.push((offset, size));
        self.symbols.insert(name.to_owned(), offset);
        Ok(())
    }

    pub(crate) fn directive(&mut self, line: &str) -> Result<(), String> {
        let rest = line.strip_prefix(".maxntid").ok_or_else(|| format!("{line:?} is not of the subset"))?;
        let sizes: Option<Vec<u32>> = rest.split(',').map(|size| size.trim().parse().ok()).collect();
        let sizes = sizes.ok_or_else(|| format!("{line:?} names no numbers"))?;
        self.entry.max_threads = Some(sizes.into_iter().fold(1, u32::saturating_mul));
        Ok(())
    }

    pub(crate) fn statement(&mut self, line: &str, number: usize) -> Result<(), String> {
        if let Some(inner) = line.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            return self.scope(inner, number);
        }
        if let Some(label) = line.strip_suffix(':') {
            self.labels.insert(label.to_owned(), self.entry.code.len() as u32);
            return Ok(());
        }
        if let Some(rest) = line.strip_prefix(".loc").filter(|rest| rest.starts_with(char::is_whitespace)) {
            let mut numbers =
                rest.split_whitespace().map_while(|word| word.trim_end_matches(',').parse().ok());
            if let (Some(file), Some(line)) = (numbers.next(), numbers.next()) {
                // Line 0 is no line: what follows belongs to where we were.
                self.place = if line == 0 { self.place } else { (file, line) };
            }
            return Ok(());
        }
        let text = line.strip_suffix(';').ok_or_else(|| format!("{line:?} does not end"))?.trim();
        match text.split_whitespace().next().unwrap_or_default() {
            ".reg" => self.registers(text),
            ".shared" => self.shared(text),
            ".pragma" => Ok(()),
            word if word.starts_with('.') => Err(format!("{word} is not of the subset")),
            _ => self.instruction(text, number),
        }
    }

    /// `{ .reg .b32 tmp; mov.b64 {tmp, %r1}, %rd1; }`: names of its own, in one line.
    fn scope(&mut self, inner: &str, number: usize) -> Result<(), String> {
        let outer = self.names.clone();
        let statements = inner.split_inclusive(';').map(str::trim).filter(|statement| !statement.is_empty());
        for statement in statements {
            if statement.starts_with('{') {
                return Err("a scope in a scope is not of the subset".to_owned());
            }
            self.statement(statement, number)?;
        }
        self.names = outer;
        Ok(())
    }

    /// `.reg .f32 %f<10>` or `.reg .b64 %SP`.
    fn registers(&mut self, text: &str) -> Result<(), String> {
        let name = text.split_whitespace().nth(2).ok_or("a .reg without a name")?;
        let Some((prefix, count)) = name.split_once('<') else {
            return self.register(name.to_owned());
        };
        let count: u32 = count.trim_end_matches('>').parse().map_err(|_| format!("{name:?} is no range"))?;
        if count as usize > MAX_SLOTS {
            return Err(format!("{count} registers"));
        }
        (0..count).try_for_each(|number| self.register(format!("{prefix}{number}")))
    }

    fn register(&mut self, name: String) -> Result<(), String> {
        let slot = self.slot(SlotKind::Register(name.clone()))?;
        match self.names.insert(name, slot) {
            None => Ok(()),
            Some(_) => Err("a register is declared twice".to_owned()),
        }
    }

    fn slot(&mut self, kind: SlotKind) -> Result<Slot, String> {
        if self.entry.slots.len() >= MAX_SLOTS {
            return Err(format!("more than {MAX_SLOTS} registers and constants"));
        }
        self.entry.slots.push(kind);
        Ok((self.entry.slots.len() - 1) as Slot)
    }

    fn shared(&mut self, text: &str) -> Result<(), String> {
        let (align, size, name) = variable(text, ".shared")?;
        let offset = self.entry.shared_bytes.next_multiple_of(align);
        self.entry.shared_bytes = offset + size;
        if self.entry.shared_bytes > MAX_SHARED {
            return Err(format!("more than {MAX_SHARED} bytes of shared memory"));
        }
        self.symbols.insert(name.to_owned(), offset);
        Ok(())
    }

    fn instruction(&mut self, text: &str, line: usize) -> Result<(), String> {
        let (guard, text) = match text.strip_prefix('@') {
            None => (None, text),
            Some(rest) => {
                let (predicate, rest) = rest.split_once(char::is_whitespace).ok_or("a guard of nothing")?;
                let (name, value) =
                    predicate.strip_prefix('!').map_or((predicate, true), |name| (name, false));
                (Some((self.read(name)?, value)), rest.trim())
            }
        };
        if self.entry.code.len() >= MAX_CODE {
            return Err(format!("more than {MAX_CODE} instructions"));
        }
        let op = decode::decode(self, text, line)?;
        self.entry.code.push(Instruction { guard, op, place: self.place });
        Ok(())
    }

    /// The slot of a register that is written; `_` is nowhere.
    pub(crate) fn write(&self, name: &str) -> Result<Slot, String> {
        if name == "_" {
            return Ok(SINK);
        }
        self.names.get(name).copied().ok_or_else(|| format!("{name:?} is not a register"))
    }

    /// The slot of an operand that is read: a register, an immediate, a special register or a symbol's address.
    pub(crate) fn read(&mut self, name: &str) -> Result<Slot, String> {
        if let Some(slot) = self.names.get(name) {
            return Ok(*slot);
        }
        if let Some(special) = special(name) {
            let slot = self.slot(SlotKind::Special(special))?;
            self.names.insert(name.to_owned(), slot);
            return Ok(slot);
        }
        let value = match self.symbols.get(name) {
            Some(offset) => *offset,
            None => immediate(name).ok_or_else(|| format!("{name:?} is not an operand"))?,
        };
        self.constant(value)
    }

    pub(crate) fn constant(&mut self, value: u64) -> Result<Slot, String> {
        if let Some(slot) = self.constants.get(&value) {
            return Ok(*slot);
        }
        let slot = self.slot(SlotKind::Constant(value))?;
        self.constants.insert(value, slot);
        Ok(slot)
    }

    /// A branch whose target is found when all labels are known.
    pub(crate) fn branch(&mut self, label: &str, line: usize) -> Op {
        self.branches.push((self.entry.code.len(), label.to_owned(), line));
        Op::Branch { target: 0 }
    }

    pub(crate) fn finish(mut self) -> Result<Entry, ParseError> {
        for (index, label, line) in std::mem::take(&mut self.branches) {
            let target = self.labels.get(&label).copied();
            let target = target.ok_or_else(|| ParseError { line, what: format!("no label {label:?}") })?;
            self.entry.code[index].op = Op::Branch { target };
        }
        // Who runs over the end returns.
        self.entry.code.push(Instruction { guard: None, op: Op::Return, place: self.place });
        Ok(self.entry)
    }
}

/// Alignment, size and name of a parameter or a shared variable.
fn variable<'t>(text: &'t str, begin: &str) -> Result<(u64, u64, &'t str), String> {
    let malformed = || format!("{text:?} is not a variable of the subset");
    let mut words = text.strip_prefix(begin).ok_or_else(malformed)?.split_whitespace().peekable();
    let mut align = None;
    let mut kind = words.next().ok_or_else(malformed)?;
    if kind == ".align" {
        align = Some(words.next().and_then(|word| word.parse().ok()).ok_or_else(malformed)?);
        kind = words.next().ok_or_else(malformed)?;
    }
    // What a pointer points to is not looked at.
    if words.next_if_eq(&".ptr").is_some() && words.next_if_eq(&".align").is_some() {
        words.next();
    }
    let name = words.next().ok_or_else(malformed)?;
    let width: u64 = match kind {
        ".b8" | ".u8" | ".s8" => 1,
        ".b16" | ".u16" | ".s16" => 2,
        ".b32" | ".u32" | ".s32" | ".f32" => 4,
        ".b64" | ".u64" | ".s64" | ".f64" => 8,
        _ => return Err(malformed()),
    };
    let (name, count) = match name.split_once('[') {
        Some((name, count)) => (name, count.trim_end_matches(']').parse().map_err(|_| malformed())?),
        None => (name, 1),
    };
    let align = align.unwrap_or(width);
    if words.next().is_some() || !u64::is_power_of_two(align) || align > 128 || count > MAX_SHARED {
        return Err(malformed());
    }
    Ok((align, width * count, name))
}

fn special(name: &str) -> Option<Special> {
    if name == "%laneid" {
        return Some(Special::Lane);
    }
    let (name, axis) = name.strip_prefix('%')?.split_once('.')?;
    let axis = ["x", "y", "z"].iter().position(|known| *known == axis)? as u8;
    Some(match name {
        "tid" => Special::Thread(axis),
        "ntid" => Special::Threads(axis),
        "ctaid" => Special::Block(axis),
        "nctaid" => Special::Blocks(axis),
        _ => return None,
    })
}

/// Decimal, hexadecimal, or the bits of a float: `0f3F800000`, `0d3FF0000000000000`.
pub(crate) fn immediate(text: &str) -> Option<u64> {
    if let Some(bits) = text.strip_prefix("0f") {
        return u32::from_str_radix(bits, 16).ok().map(u64::from);
    }
    if let Some(bits) = text.strip_prefix("0d").or_else(|| text.strip_prefix("0x")) {
        return u64::from_str_radix(bits, 16).ok();
    }
    text.parse::<u64>().ok().or_else(|| text.parse::<i64>().ok().map(|value| value as u64))
}
