//! Keys and values in pages of 16 tokens, and attention over them in one pass.

use std::ops::Range;

use zeroize::Zeroize;

use super::{
    half::{Widen, narrow},
    memory::fetch,
    on_each_set,
    vector::{exp, total},
};

/// Tokens in a page.
pub(crate) const PAGE: usize = 16;
/// Longest head that attention keeps its sums for.
pub(crate) const MAX_HEAD: usize = 256;

/// What a page holds for each of its tokens.
#[derive(Clone, Copy)]
pub(crate) struct PageShape {
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) head_len: usize,
}

impl PageShape {
    /// Halves for the keys, or the values, of one head of one layer.
    fn part(self) -> usize {
        self.head_len * PAGE
    }

    /// Halves in a page.
    fn halves(self) -> usize {
        self.layers * self.heads * 2 * self.part()
    }

    /// Bytes of a page.
    pub(crate) fn bytes(self) -> usize {
        self.halves() * size_of::<u16>()
    }
}

/// Keys and values of 16 tokens in all layers, as halves: for each layer and head the keys, dimension by dimension
/// with the 16 tokens of a dimension beside each other, then the values, token by token. They tell what was said, so
/// they are wiped when the page goes.
pub(crate) struct Page(Box<[u16]>);

impl Drop for Page {
    fn drop(&mut self) {
        self.wipe();
    }
}

impl Page {
    pub(crate) fn new(shape: PageShape) -> Self {
        Self(vec![0; shape.halves()].into_boxed_slice())
    }

    /// Makes it as new, for another owner.
    pub(crate) fn wipe(&mut self) {
        self.0.zeroize();
    }

    #[cfg(test)]
    pub(crate) fn is_blank(&self) -> bool {
        self.0.iter().all(|half| *half == 0)
    }

    /// Writes the keys and values of one token in one layer.
    pub(crate) fn write(
        &mut self,
        shape: PageShape,
        layer: usize,
        slot: usize,
        keys: &[f32],
        values: &[f32],
    ) {
        let part = shape.part();
        let heads = keys.chunks_exact(shape.head_len).zip(values.chunks_exact(shape.head_len));
        for (head, (keys, values)) in heads.enumerate() {
            let start = (layer * shape.heads + head) * 2 * part;
            let (key_part, value_part) = self.0[start..start + 2 * part].split_at_mut(part);
            for (target, key) in key_part.chunks_exact_mut(PAGE).zip(keys) {
                target[slot] = narrow(*key);
            }
            for (target, value) in value_part[slot * shape.head_len..].iter_mut().zip(values) {
                *target = narrow(*value);
            }
        }
    }

    /// Keys and values of one head in one layer.
    fn head(&self, shape: PageShape, layer: usize, head: usize) -> (&[u16], &[u16]) {
        let part = shape.part();
        let start = (layer * shape.heads + head) * 2 * part;
        self.0[start..start + 2 * part].split_at(part)
    }
}

/// A sequence in the cache: all pages, and which of them are its own, in order.
#[derive(Clone, Copy)]
pub(crate) struct Paged<'a> {
    pub(crate) pages: &'a [Page],
    pub(crate) table: &'a [u32],
    pub(crate) shape: PageShape,
}

/// One query: a head of a token, which carries its factor already, and what it sees of its sequence.
#[derive(Clone, Copy)]
pub(crate) struct Query<'a> {
    pub(crate) values: &'a [f32],
    /// The first token that it sees, and the one after the last; at least one.
    pub(crate) first: usize,
    pub(crate) end: usize,
}

impl Query<'_> {
    /// Which tokens of a page it sees.
    #[inline(always)]
    fn slots(&self, page: usize) -> (usize, usize) {
        let within = |token: usize| token.saturating_sub(page * PAGE).min(PAGE);
        (within(self.first), within(self.end))
    }
}

on_each_set! {
    /// Attention of some queries to one head of their sequence. What comes of one does not depend on the others: they share
    /// the work of reading keys and values, and their sums do not wait for each other.
    pub(crate) fn attend(
        queries: &[Query<'_>],
        sequence: Paged<'_>,
        layer: usize,
        head: usize,
        out: &mut [f32],
    ) = attend_body
}

/// As many queries as the registers of a set hold, or what is left. Few of them take several pages' scores at a time: one sum
/// alone waits for each of its additions.
#[inline(always)]
fn attend_body<W: Widen>(
    mut queries: &[Query<'_>],
    sequence: Paged<'_>,
    layer: usize,
    head: usize,
    mut out: &mut [f32],
) {
    while !queries.is_empty() {
        (queries, out) = match queries.len() {
            6.. => group::<W, 6, 1>(queries, sequence, layer, head, out),
            4.. => group::<W, 4, 1>(queries, sequence, layer, head, out),
            3 => group::<W, 3, 2>(queries, sequence, layer, head, out),
            2 => group::<W, 2, 2>(queries, sequence, layer, head, out),
            _ => group::<W, 1, 4>(queries, sequence, layer, head, out),
        };
    }
}

/// The first `Q` queries; returns the others. Page by page, with a running maximum, so that no list of scores is needed
/// however long the context is.
#[inline(always)]
fn group<'q, 'v, 'o, W: Widen, const Q: usize, const P: usize>(
    queries: &'q [Query<'v>],
    sequence: Paged<'_>,
    layer: usize,
    head: usize,
    out: &'o mut [f32],
) -> (&'q [Query<'v>], &'o mut [f32]) {
    let Paged { pages, table, shape } = sequence;
    let len = shape.head_len;
    let (now, later) = queries.split_at(Q);
    let (sums, rest) = out.split_at_mut(Q * len);
    let queries: &[Query<'_>; Q] = now.try_into().expect("split so");
    // Beside each other, dimension by dimension: the loop over them has no bound to check, so its sums stay in registers.
    let mut dimensions = [[0.0f32; Q]; MAX_HEAD];
    for (q, query) in queries.iter().enumerate() {
        dimensions.iter_mut().zip(query.values).for_each(|(dimension, value)| dimension[q] = *value);
    }
    let mut softmax = [Softmax::default(); Q];
    sums.fill(0.0);
    let first = queries.iter().map(|query| query.first).min().unwrap_or(0) / PAGE;
    let end = queries.iter().map(|query| query.end).max().unwrap_or(0).div_ceil(PAGE);
    let ask = |range: Range<usize>| {
        for page in &table[range.start.min(end)..range.end.min(end)] {
            let (keys, values) = pages[*page as usize].head(shape, layer, head);
            fetch(keys);
            fetch(values);
        }
    };
    ask(first..first + P);
    let mut page = first;
    while page < end {
        // Pages lie anywhere: the processor does not see the next one coming.
        ask(page + P..page + 2 * P);
        let mut parts = [([].as_slice(), [].as_slice()); P];
        let pages_here = (end - page).min(P);
        for (part, table) in parts.iter_mut().zip(&table[page..page + pages_here]) {
            *part = pages[*table as usize].head(shape, layer, head);
        }
        let mut scores = match pages_here == P {
            true => scores::<W, Q, P>(parts.map(|(keys, _)| keys), &dimensions[..len]),
            false => {
                let mut scores = [[[0.0; PAGE]; Q]; P];
                for (scores_here, (keys, _)) in scores.iter_mut().zip(&parts[..pages_here]) {
                    [*scores_here] = self::scores::<W, Q, 1>([keys], &dimensions[..len]);
                }
                scores
            }
        };
        for (scores, (_, values)) in scores.iter_mut().zip(&parts[..pages_here]) {
            let slots: [(usize, usize); Q] = std::array::from_fn(|q| queries[q].slots(page));
            for q in 0..Q {
                if slots[q].0 < slots[q].1 {
                    let fade = softmax[q].weigh(&mut scores[q], slots[q]);
                    if fade != 1.0 {
                        sums[q * len..][..len].iter_mut().for_each(|sum| *sum *= fade);
                    }
                }
            }
            add_values::<W, Q>(sums, len, scores, values, &slots);
            page += 1;
        }
    }
    for (sums, softmax) in sums.chunks_exact_mut(len).zip(softmax) {
        let inverse = 1.0 / softmax.weight;
        sums.iter_mut().for_each(|sum| *sum *= inverse);
    }
    (later, rest)
}

/// Each query's products with the keys of some pages, dimension after dimension.
#[inline(always)]
fn scores<W: Widen, const Q: usize, const P: usize>(
    keys: [&[u16]; P],
    dimensions: &[[f32; Q]],
) -> [[[f32; PAGE]; Q]; P] {
    let mut scores = [[[0.0f32; PAGE]; Q]; P];
    let keys = keys.map(|keys| &keys.as_chunks::<PAGE>().0[..dimensions.len()]);
    for (dimension, query) in dimensions.iter().enumerate() {
        for p in 0..P {
            let keys = W::widen(&keys[p][dimension]);
            for q in 0..Q {
                for lane in 0..PAGE {
                    scores[p][q][lane] = keys[lane].mul_add(query[q], scores[p][q][lane]);
                }
            }
        }
    }
    scores
}

/// What a query has seen so far: its highest score, and the sum of all weights beside it.
#[derive(Clone, Copy)]
struct Softmax {
    highest: f32,
    weight: f32,
}

impl Default for Softmax {
    fn default() -> Self {
        Self { highest: f32::NEG_INFINITY, weight: 0.0 }
    }
}

impl Softmax {
    /// Turns a page's scores into weights, and returns what the weights before them fade by.
    #[inline(always)]
    fn weigh(&mut self, scores: &mut [f32; PAGE], (from, to): (usize, usize)) -> f32 {
        scores[..from].fill(f32::NEG_INFINITY);
        scores[to..].fill(f32::NEG_INFINITY);
        let top = scores.iter().fold(self.highest, |top, &score| if score > top { score } else { top });
        let fade = exp(self.highest - top);
        for score in scores.iter_mut() {
            *score = exp(*score - top);
        }
        self.weight = self.weight.mul_add(fade, total(*scores));
        self.highest = top;
        fade
    }
}

/// Adds a page's values by their weights, token after token. Those that all queries see are read once for all.
#[inline(always)]
fn add_values<W: Widen, const Q: usize>(
    sums: &mut [f32],
    len: usize,
    weights: &[[f32; PAGE]; Q],
    values: &[u16],
    slots: &[(usize, usize); Q],
) {
    // Where all begin at the same token, as all do but under a window that ends in this page.
    let from = slots[0].0;
    let end = slots.iter().map(|slots| slots.1).min().unwrap_or(0);
    let shared = if slots.iter().all(|slots| slots.0 == from) { from..end.max(from) } else { 0..0 };
    let mut of_slot = [[0.0f32; Q]; PAGE];
    for (q, weights) in weights.iter().enumerate() {
        of_slot.iter_mut().zip(weights).for_each(|(of_slot, weight)| of_slot[q] = *weight);
    }
    let (values, pieces) = (values.as_chunks::<16>().0, len / 16);
    for piece in 0..pieces {
        let column = |from: usize, to: usize| {
            let values = values[(from * pieces + piece).min(values.len())..].iter().step_by(pieces);
            values.zip(&of_slot[from..to.max(from)])
        };
        let at = |q: usize| q * len + piece * 16..q * len + piece * 16 + 16;
        let mut lanes: [[f32; 16]; Q] =
            std::array::from_fn(|q| sums[at(q)].try_into().expect("16 dimensions"));
        for (values, weights) in column(shared.start, shared.end) {
            let values = W::widen(values);
            for q in 0..Q {
                for lane in 0..16 {
                    lanes[q][lane] = values[lane].mul_add(weights[q], lanes[q][lane]);
                }
            }
        }
        for q in 0..Q {
            let (from, end) = slots[q];
            for (values, weights) in column(from.max(shared.end), end) {
                let values = W::widen(values);
                for lane in 0..16 {
                    lanes[q][lane] = values[lane].mul_add(weights[q], lanes[q][lane]);
                }
            }
            sums[at(q)].copy_from_slice(&lanes[q]);
        }
    }
}
