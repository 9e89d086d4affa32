//! Seeded damage for the fuzz tests of these crates: to bytes, to JSON, and to trees of cells.
//!
//! `COCOON_FUZZ_ITERATIONS` is the budget for each decoder, `COCOON_FUZZ_SEED` another start.

#![allow(dead_code, reason = "each fuzz test uses its own part")]
#![allow(unreachable_pub, reason = "a module of test helpers, shared by several crates")]

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tycho_types::cell::{Cell, CellBuilder};

/// The longest that one input may keep a decoder busy: generous, since other tests run beside it.
const PATIENCE: Duration = Duration::from_secs(5);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// How many inputs each decoder gets.
pub fn iterations() -> u64 {
    number("COCOON_FUZZ_ITERATIONS", 20_000)
}

/// Runs `decode` on one input, and panics if it takes too long.
pub fn timed<T>(round: u64, decode: impl FnOnce() -> T) -> T {
    let start = Instant::now();
    let outcome = decode();
    let took = start.elapsed();
    assert!(took < PATIENCE, "round {round} took {took:?}");
    outcome
}

/// SplitMix64: small, seeded, good enough to choose mutations.
pub struct Random(u64);

impl Random {
    /// Starts at the seed, and says which it is.
    pub fn seeded(name: &str) -> Self {
        let seed = number("COCOON_FUZZ_SEED", 0xC0C0_0003);
        println!("{name}: seed {seed}, {} inputs", iterations());
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        if bound == 0 { 0 } else { (self.next() % bound as u64) as usize }
    }

    /// One of these.
    pub fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }

    /// Up to `most` bytes of nothing.
    pub fn rubbish(&mut self, most: usize) -> Vec<u8> {
        (0..self.below(most + 1)).map(|_| self.next() as u8).collect()
    }

    /// One to four changes: flips, boundary values, cuts, doublings, insertions, splices.
    pub fn bytes(&mut self, valid: &[u8]) -> Vec<u8> {
        let mut bytes = valid.to_vec();
        for _ in 0..=self.below(4) {
            let at = self.below(bytes.len());
            let length = self.below(40).min(bytes.len().saturating_sub(at));
            match self.below(8) {
                0 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
                1 if !bytes.is_empty() => bytes[at] = self.next() as u8,
                2 => bytes.truncate(at),
                3 => drop(bytes.drain(at..at + length)),
                4 => {
                    let copy = bytes[at..at + length].to_vec();
                    bytes.splice(at..at, copy);
                }
                5 => {
                    let value = *self.pick(&[0, 1, 0x7f, 0x80, 0xff]);
                    bytes[at..at + length.min(8)].fill(value);
                }
                6 => bytes.insert(at, self.next() as u8),
                _ => {
                    let from = self.below(bytes.len());
                    let length = length.min(bytes.len() - from);
                    bytes.copy_within(from..from + length, at);
                }
            }
        }
        bytes
    }

    /// A text with [`Random::bytes`] done to it.
    pub fn text(&mut self, valid: &str) -> String {
        String::from_utf8_lossy(&self.bytes(valid.as_bytes())).into_owned()
    }

    /// The same JSON with one to three of its values changed, dropped, doubled or nested.
    pub fn json(&mut self, valid: &Value) -> Value {
        let mut value = valid.clone();
        for _ in 0..=self.below(3) {
            self.change(&mut value);
        }
        value
    }

    fn change(&mut self, value: &mut Value) {
        // Down to some part, more often than not.
        let children = match value {
            Value::Array(items) => items.len(),
            Value::Object(fields) => fields.len(),
            _ => 0,
        };
        if children > 0 && self.below(5) > 0 {
            let child = self.below(children);
            let part = match value {
                Value::Array(items) => items.get_mut(child),
                Value::Object(fields) => fields.values_mut().nth(child),
                _ => None,
            };
            return self.change(part.expect("counted before"));
        }
        match (self.below(4), &mut *value) {
            (0, Value::Array(items)) if !items.is_empty() => drop(items.remove(self.below(items.len()))),
            (1, Value::Array(items)) if !items.is_empty() => {
                let copy = items[self.below(items.len())].clone();
                items.extend(std::iter::repeat_n(copy, 1 + self.below(300)));
            }
            (0, Value::Object(fields)) if !fields.is_empty() => {
                let name = fields.keys().nth(self.below(fields.len())).cloned().expect("counted");
                fields.remove(&name);
            }
            (0 | 1, Value::String(text)) => *text = self.text(text),
            (2, inner) => *inner = json!([inner.take()]),
            (_, other) => *other = self.extreme(),
        }
    }

    fn extreme(&mut self) -> Value {
        let deep = (0..100).fold(json!(0), |inner, _| json!([inner]));
        self.pick(&[
            Value::Null,
            json!(true),
            json!(0),
            json!(-1),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(1e308),
            json!(0.5),
            json!(""),
            json!("-1"),
            json!("0x"),
            json!("18446744073709551616"),
            json!("9".repeat(1000)),
            json!("é\u{0}\u{ffff}"),
            json!({}),
            json!([]),
            deep,
        ])
        .clone()
    }

    /// The same tree with the bits or references of one to three of its cells changed.
    pub fn tree(&mut self, valid: &Cell) -> Cell {
        let mut cell = valid.clone();
        for _ in 0..=self.below(3) {
            cell = self.tree_once(&cell);
        }
        cell
    }

    fn tree_once(&mut self, cell: &Cell) -> Cell {
        let mut references: Vec<Cell> =
            (0..cell.reference_count()).filter_map(|index| cell.reference_cloned(index)).collect();
        let mut bits = cell.bit_len();
        let mut data = cell.data().to_vec();
        let chosen = self.below(references.len() + 1);
        if let Some(reference) = references.get_mut(chosen) {
            *reference = self.tree_once(reference);
        } else {
            match self.below(6) {
                0 if !references.is_empty() => drop(references.remove(self.below(references.len()))),
                1 => references.push(references.first().cloned().unwrap_or_default()),
                2 => bits = self.below(usize::from(bits) + 1) as u16,
                3 => {
                    bits = bits.saturating_add(self.below(64) as u16).min(1023);
                    data.resize(128, 0xff);
                }
                _ => {
                    data = self.bytes(&data);
                    bits = bits.min((data.len().min(127) * 8) as u16);
                }
            }
        }
        let mut builder = CellBuilder::new();
        let stored = builder.store_raw(&data, bits).is_ok()
            && references.into_iter().take(4).all(|reference| builder.store_reference(reference).is_ok());
        // An exotic cell is kept as it is: its bits say what it refers to.
        if stored { builder.build().unwrap_or_else(|_| cell.clone()) } else { cell.clone() }
    }
}
