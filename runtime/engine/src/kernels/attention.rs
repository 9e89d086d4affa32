//! Keys and values in pages of 16 tokens, and attention over them in one pass.

use std::ops::Range;

use zeroize::Zeroize;

use super::{
    half::{Widen, narrow},
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
}

/// Keys and values of 16 tokens in all layers, as halves: for each layer and head the keys, dimension by dimension
/// with the 16 tokens of a dimension beside each other, then the values, token by token. They tell what was said, so
/// they are wiped when the page goes.
pub(crate) struct Page(Box<[u16]>);

impl Drop for Page {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl Page {
    pub(crate) fn new(shape: PageShape) -> Self {
        Self(vec![0; shape.halves()].into_boxed_slice())
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

on_each_set! {
    /// Attention of one query, which carries its factor already, over the tokens `seen` of a sequence.
    pub(crate) fn attend(
        query: &[f32],
        sequence: Paged<'_>,
        layer: usize,
        head: usize,
        seen: Range<usize>,
        out: &mut [f32],
    ) = attend_body
}

/// Page by page, with a running maximum, so that no list of scores is needed however long the context is.
#[inline(always)]
fn attend_body<W: Widen>(
    query: &[f32],
    sequence: Paged<'_>,
    layer: usize,
    head: usize,
    seen: Range<usize>,
    out: &mut [f32],
) {
    let Paged { pages, table, shape } = sequence;
    let mut sums = [0.0f32; MAX_HEAD];
    let sums = &mut sums[..shape.head_len];
    let (mut highest, mut weight) = (f32::NEG_INFINITY, 0.0f32);
    for (index, page) in table[..seen.end.div_ceil(PAGE)].iter().enumerate().skip(seen.start / PAGE) {
        let (keys, values) = pages[*page as usize].head(shape, layer, head);
        let mut scores = [0.0f32; PAGE];
        for (query, keys) in query.iter().zip(keys.chunks_exact(PAGE)) {
            let keys = W::widen(keys.try_into().expect("16 tokens"));
            for lane in 0..PAGE {
                scores[lane] = keys[lane].mul_add(*query, scores[lane]);
            }
        }
        let (hidden, filled) = (seen.start.saturating_sub(index * PAGE), (seen.end - index * PAGE).min(PAGE));
        scores[..hidden].fill(f32::NEG_INFINITY);
        scores[filled..].fill(f32::NEG_INFINITY);
        let top = scores.iter().fold(highest, |top, &score| if score > top { score } else { top });
        let fade = exp(highest - top);
        for score in &mut scores {
            *score = exp(*score - top);
        }
        weight = weight.mul_add(fade, total(scores));
        highest = top;
        if fade != 1.0 {
            sums.iter_mut().for_each(|sum| *sum *= fade);
        }
        let values = values.chunks_exact(shape.head_len).skip(hidden);
        for (score, values) in scores[hidden..filled].iter().zip(values) {
            for (sums, values) in sums.chunks_exact_mut(16).zip(values.chunks_exact(16)) {
                let values = W::widen(values.try_into().expect("16 dimensions"));
                for lane in 0..16 {
                    sums[lane] = values[lane].mul_add(*score, sums[lane]);
                }
            }
        }
    }
    let inverse = 1.0 / weight;
    for (out, sum) in out.iter_mut().zip(sums) {
        *out = *sum * inverse;
    }
}
