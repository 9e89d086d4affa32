//! One step's input, in one piece: in confidential mode each copy to the device is encrypted and waits for the host, so
//! there is one in and one out.

use std::collections::HashSet;

use zeroize::Zeroizing;

use crate::{PAGE, error::DecodeError, model::Shape};

/// Most tokens that the repetition penalty looks at: `RECENT` in `cuda/sampling.cuh`.
pub const MAX_RECENT: usize = 256;
/// Bytes of a `Choice` of `cuda/sampling.cuh`.
const CHOICE_BYTES: usize = 40;

/// One token of a step.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its number in the vocabulary.
    pub token: u32,
    /// Which of the step's tables has its pages.
    pub sequence: u32,
    /// Tokens before it in its sequence.
    pub position: u32,
}

/// How the token after a row is chosen. The values are those of the CPU engine's `Sampling`.
#[derive(Clone, PartialEq)]
pub struct Choice {
    /// 0 takes the likeliest token; up to 2.
    pub temperature: f32,
    /// Over 0, up to 1.
    pub top_p: f32,
    /// Of repetition; 1 is off.
    pub penalty: f32,
    /// Chooses one of all possible answers.
    pub seed: u64,
    /// Tokens chosen so far for this answer.
    pub position: u64,
    /// Which of a request's answers it is: each draws other numbers.
    pub choice: u32,
    /// Recent tokens, each once and without those that the penalty spares; [`MAX_RECENT`] at most.
    pub recent: Zeroizing<Vec<u32>>,
}

impl Choice {
    /// The likeliest token, without a penalty.
    pub fn greedy() -> Self {
        let (temperature, top_p, penalty) = (0.0, 1.0, 1.0);
        Self { temperature, top_p, penalty, seed: 0, position: 0, choice: 0, recent: Zeroizing::default() }
    }

    fn bytes(&self, step: u32) -> [u8; CHOICE_BYTES] {
        let mut bytes = [0; CHOICE_BYTES];
        let words = [self.temperature.to_bits(), self.top_p.to_bits(), self.penalty.to_bits()];
        let words = words.into_iter().chain([self.recent.len() as u32]).flat_map(u32::to_le_bytes);
        let last = u64::from(self.choice) << 32 | u64::from(step);
        let rest = [self.seed, self.position, last].into_iter().flat_map(u64::to_le_bytes);
        bytes.iter_mut().zip(words.chain(rest)).for_each(|(place, byte)| *place = byte);
        bytes
    }
}

/// Where the parts of a step's input lie, in bytes; for as many rows and sequences as there can be.
#[derive(Clone, Copy)]
pub(crate) struct Offsets {
    pub(crate) tokens: u64,
    pub(crate) sequences: u64,
    pub(crate) positions: u64,
    pub(crate) angles: u64,
    pub(crate) tables: u64,
    pub(crate) choices: u64,
    pub(crate) recent: u64,
    pub(crate) end: u64,
}

impl Offsets {
    pub(crate) fn new(shape: &Shape, pairs: usize) -> Self {
        let mut end = 0u64;
        let mut part = |bytes: usize| {
            let start = end;
            end = (start + bytes as u64).next_multiple_of(16);
            start
        };
        Self {
            tokens: part(shape.rows * 4),
            sequences: part(shape.rows * 4),
            positions: part(shape.rows * 4),
            angles: part(shape.rows * pairs * 8),
            tables: part(shape.rows * shape.table_width * 4),
            choices: part(shape.rows * CHOICE_BYTES),
            recent: part(shape.rows * MAX_RECENT * 4),
            end,
        }
    }
}

/// Everything that kernels will follow without looking, checked.
pub(crate) fn check(
    shape: &Shape,
    rows: &[Row],
    tables: &[&[u32]],
    choices: &[Choice],
) -> Result<(), DecodeError> {
    let refuse = |what: &'static str, found: u64, limit: u64| Err(DecodeError::Step { what, found, limit });
    if rows.is_empty() || rows.len() > shape.rows {
        return refuse("rows", rows.len() as u64, shape.rows as u64);
    }
    if tables.len() > shape.rows {
        return refuse("sequences", tables.len() as u64, shape.rows as u64);
    }
    if choices.len() > rows.len() {
        return refuse("choices", choices.len() as u64, rows.len() as u64);
    }
    for table in tables {
        if table.len() > shape.table_width {
            return refuse("pages of a sequence", table.len() as u64, shape.table_width as u64);
        }
        if let Some(page) = table.iter().find(|page| **page as usize >= shape.pages) {
            return refuse("page", (*page).into(), shape.pages as u64);
        }
    }
    let mut places = HashSet::new();
    for row in rows {
        if row.token as usize >= shape.vocabulary {
            return refuse("token", row.token.into(), shape.vocabulary as u64);
        }
        let Some(table) = tables.get(row.sequence as usize) else {
            return refuse("sequence", row.sequence.into(), tables.len() as u64);
        };
        let Some(page) = table.get(row.position as usize / PAGE) else {
            return refuse("position", row.position.into(), (table.len() * PAGE) as u64);
        };
        // Two that write one place would be a race, and one of them another tenant's.
        if !places.insert((*page, row.position as usize % PAGE)) {
            return refuse("rows at one place of a page", 2, 1);
        }
    }
    choices.iter().try_for_each(|choice| check_choice(shape, choice))
}

fn check_choice(shape: &Shape, choice: &Choice) -> Result<(), DecodeError> {
    let refuse = |what: &'static str, found: u64, limit: u64| Err(DecodeError::Step { what, found, limit });
    let in_range = (0.0..=2.0).contains(&choice.temperature)
        && (choice.top_p > 0.0 && choice.top_p <= 1.0)
        && (0.5..=2.0).contains(&choice.penalty);
    if !in_range {
        return Err(DecodeError::Sampling);
    }
    if choice.recent.len() > MAX_RECENT {
        return refuse("recent tokens", choice.recent.len() as u64, MAX_RECENT as u64);
    }
    let mut seen = HashSet::new();
    for token in choice.recent.iter() {
        if *token as usize >= shape.vocabulary {
            return refuse("recent token", (*token).into(), shape.vocabulary as u64);
        }
        if !seen.insert(token) {
            return refuse("times of one recent token", 2, 1);
        }
    }
    Ok(())
}

/// The input of a step that was checked, the device's `step`th.
pub(crate) fn pack(
    shape: &Shape,
    offsets: &Offsets,
    frequencies: &[f64],
    rows: &[Row],
    tables: &[&[u32]],
    choices: &[Choice],
    step: u32,
) -> Vec<u8> {
    let mut bytes = vec![0; offsets.end as usize];
    let mut put = |offset: u64, index: usize, content: &[u8]| {
        let start = offset as usize + index * content.len();
        bytes[start..start + content.len()].copy_from_slice(content);
    };
    for (index, row) in rows.iter().enumerate() {
        put(offsets.tokens, index, &row.token.to_le_bytes());
        put(offsets.sequences, index, &row.sequence.to_le_bytes());
        put(offsets.positions, index, &row.position.to_le_bytes());
        for (pair, frequency) in frequencies.iter().enumerate() {
            let angle = f64::from(row.position) * frequency;
            let at = (index * frequencies.len() + pair) * 2;
            put(offsets.angles, at, &(libm::cos(angle) as f32).to_le_bytes());
            put(offsets.angles, at + 1, &(libm::sin(angle) as f32).to_le_bytes());
        }
    }
    for (index, table) in tables.iter().enumerate() {
        for (place, page) in table.iter().enumerate() {
            put(offsets.tables, index * shape.table_width + place, &page.to_le_bytes());
        }
    }
    for (index, choice) in choices.iter().enumerate() {
        put(offsets.choices, index, &choice.bytes(step));
        for (place, token) in choice.recent.iter().enumerate() {
            put(offsets.recent, index * MAX_RECENT + place, &token.to_le_bytes());
        }
    }
    bytes
}

#[cfg(test)]
#[path = "step_tests.rs"]
mod tests;
