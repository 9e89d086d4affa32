//! What a row of a step costs. A token far into a context looks back at all of it, and that takes longer than its products
//! with the weights: a budget of tokens alone would let steps grow with the context.

use crate::model::Shape;

/// What a token's products with the weights cost.
pub(crate) const TOKEN: u64 = 1 << 16;
/// How much more a product of attention takes, which is in single precision, than one with a weight, which is of integers.
/// Measured on AVX-512: 9 with Q4_1 and heads that share keys, 7 with Q8_0 and heads that do not.
const ATTENTION: u64 = 8;

/// Costs of rows, in 1/65536 of a token's products with the weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cost {
    /// For each token that is seen in layers that see all.
    all: u64,
    /// For each token that is seen in layers with a window.
    local: u64,
    window: usize,
}

impl Cost {
    /// Every row costs the same.
    #[cfg(test)]
    pub(crate) const FLAT: Self = Self { all: 0, local: 0, window: usize::MAX };

    /// Of a model.
    pub(crate) fn of(shape: &Shape) -> Self {
        let wide = |number: usize| number as u64;
        let heads = wide(shape.heads * shape.head_len);
        let keys = wide(shape.kv_heads * shape.head_len);
        let layer = wide(shape.width) * (2 * heads + 2 * keys + 3 * wide(shape.feed_width));
        let weights = (wide(shape.layers) * layer).max(1);
        let local = (0..shape.layers).filter(|layer| shape.unseen(*layer, usize::MAX - 1) > 0).count();
        // Sizes are limited where they are read: below 2^20 layers and 2^20 dimensions, so this is far below 2^64.
        let seen = |layers: usize| TOKEN * ATTENTION * wide(layers) * 2 * heads / weights;
        Self {
            all: seen(shape.layers - local),
            local: seen(local),
            window: shape.window.unwrap_or(usize::MAX),
        }
    }

    /// Of a row at this position.
    pub(crate) fn at(self, position: usize) -> u64 {
        let seen = position + 1;
        TOKEN + self.all * seen as u64 + self.local * seen.min(self.window) as u64
    }

    /// Of some rows, the first at this position.
    pub(crate) fn rows(self, first: usize, rows: usize) -> u64 {
        (first..first + rows).map(|position| self.at(position)).sum()
    }

    /// How many of `rows` rows from this position on cost no more than `most`; one at least.
    pub(crate) fn within(self, most: u64, first: usize, rows: usize) -> usize {
        let mut spent = 0;
        let fits = |position: &usize| {
            spent += self.at(*position);
            spent <= most
        };
        (first..first + rows).take_while(fits).count().max(1)
    }

    /// The same for other tests: so much for each token that is seen.
    #[cfg(test)]
    pub(crate) fn steep(all: u64) -> Self {
        Self { all, ..Self::FLAT }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_row_costs_grows_with_what_it_sees() {
        let cost = Cost { all: 10, local: 100, window: 5 };
        assert_eq!((cost.at(0), cost.at(3), cost.at(9)), (TOKEN + 110, TOKEN + 440, TOKEN + 600));
        assert_eq!(cost.rows(2, 3), cost.at(2) + cost.at(3) + cost.at(4));
        assert_eq!((cost.within(u64::MAX, 7, 9), cost.within(0, 7, 9)), (9, 1), "never none");
        assert_eq!(cost.within(cost.rows(7, 4), 7, 9), 4);
        assert_eq!(cost.within(cost.rows(7, 4) - 1, 7, 9), 3);
        assert_eq!(Cost::FLAT.rows(1 << 20, 3), 3 * TOKEN);
    }
}
