//! Tokens and what they cost. All money is in nanotons, all arithmetic in integers, and this is the one place where a
//! bill is computed: guest, host, gateway, client and auditor call [`Price::bill`].

use serde::{Deserialize, Serialize};

/// Prices are per this many tokens.
pub const TOKENS_PER_PRICE: u64 = 1_000_000;

/// Tokens used so far (in frames) or in all (in receipts).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the rendered prompt, those from a cache among them.
    pub prompt_tokens: u32,
    /// Of these, how many were read from a cache of the payer's own earlier prompts.
    pub cached_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
}

impl Usage {
    /// Whether no more tokens came from the cache than the prompt has. Decoders refuse any other.
    pub fn is_consistent(&self) -> bool {
        self.cached_tokens <= self.prompt_tokens
    }

    /// Whether neither count exceeds the budget.
    pub fn within(&self, budget: &Budget) -> bool {
        self.prompt_tokens <= budget.prompt_tokens && self.completion_tokens <= budget.completion_tokens
    }

    /// Whether the tokens of no class are fewer than in `earlier`: cumulative usage never goes back, and so no bill does.
    pub fn follows(&self, earlier: &Usage) -> bool {
        self.computed() >= earlier.computed()
            && self.cached_tokens >= earlier.cached_tokens
            && self.completion_tokens >= earlier.completion_tokens
    }

    /// Prompt tokens that were computed, not read from a cache.
    fn computed(&self) -> u32 {
        self.prompt_tokens.saturating_sub(self.cached_tokens)
    }
}

/// The worst case that a client accepts to pay for; in the clear, and bound to the sealed request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Most prompt tokens.
    pub prompt_tokens: u32,
    /// Most completion tokens.
    pub completion_tokens: u32,
}

/// What a worker asks of the registry's prices, in thousandths of them. Written as a decimal number: `1`, `0.85`, `1.125`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Coefficient(u32);

impl Coefficient {
    /// The registry's price itself.
    pub const ONE: Self = Self(1_000);

    /// So many thousandths of the registry's price.
    pub const fn from_thousandths(thousandths: u32) -> Self {
        Self(thousandths)
    }

    /// In thousandths.
    pub const fn thousandths(self) -> u32 {
        self.0
    }

    /// With a margin of so many basis points on top, rounded up to a whole thousandth; `None` where that cannot be counted.
    pub fn with_margin(self, basis_points: u32) -> Option<Self> {
        let scaled = u64::from(self.0) * (10_000 + u64::from(basis_points));
        u32::try_from(scaled.div_ceil(10_000)).ok().map(Self)
    }
}

/// What was written is no coefficient.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no coefficient: write a number with at most three decimals, such as 0.85")]
pub struct CoefficientError(String);

impl std::str::FromStr for Coefficient {
    type Err = CoefficientError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let read = || {
            let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
            let digits =
                |part: &str| (1..=9).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            if !digits(whole) || !digits(decimals) || decimals.len() > 3 {
                return None;
            }
            let thousandths: u32 = format!("{decimals:0<3}").parse().ok()?;
            whole.parse::<u32>().ok()?.checked_mul(1_000)?.checked_add(thousandths)
        };
        read().map(Self).ok_or_else(|| CoefficientError(text.chars().take(32).collect()))
    }
}

impl std::fmt::Display for Coefficient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, thousandths) = (self.0 / 1_000, self.0 % 1_000);
        if thousandths == 0 {
            return write!(f, "{whole}");
        }
        write!(f, "{whole}.{}", format!("{thousandths:03}").trim_end_matches('0'))
    }
}

/// Nanotons per million tokens of each class, as the registry has them for a model, and the worker's coefficient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Price {
    /// For prompt tokens that are computed.
    pub prompt: u64,
    /// For prompt tokens that are read from a cache.
    pub cached: u64,
    /// For completion tokens.
    pub completion: u64,
    /// What the worker asks of these prices.
    pub coefficient: Coefficient,
}

impl Price {
    /// These prices as they are.
    pub const fn new(prompt: u64, cached: u64, completion: u64) -> Self {
        Self { prompt, cached, completion, coefficient: Coefficient::ONE }
    }

    /// The same prices at another coefficient.
    pub const fn at(self, coefficient: Coefficient) -> Self {
        Self { prompt: self.prompt, cached: self.cached, completion: self.completion, coefficient }
    }

    /// Whether both are the same price list, whatever the coefficients.
    pub fn same_list(&self, other: &Self) -> bool {
        self.at(Coefficient::ONE) == other.at(Coefficient::ONE)
    }

    /// In one line of four numbers, as [`crate::http::PRICE_HEADER`] carries it: prompt, cached, completion, thousandths.
    pub fn to_words(&self) -> String {
        let Self { prompt, cached, completion, coefficient } = self;
        format!("{prompt} {cached} {completion} {}", coefficient.0)
    }

    /// Reads [`Price::to_words`]; `None` for anything else.
    pub fn from_words(text: &str) -> Option<Self> {
        let mut words = text.split(' ');
        let mut next = || words.next()?.parse::<u64>().ok();
        let (prompt, cached, completion, thousandths) = (next()?, next()?, next()?, next()?);
        let price = Self::new(prompt, cached, completion).at(Coefficient(thousandths.try_into().ok()?));
        (price.to_words() == text).then_some(price)
    }

    /// What `usage` costs, in nanotons: ⌊Σ tokens·price · coefficient / 10⁹⌋, rounded once, in the payee's disfavour. A bill
    /// beyond `u64` is `u64::MAX`, which no deposit covers.
    pub fn bill(&self, usage: &Usage) -> u64 {
        self.sum([
            (self.prompt, usage.computed()),
            (self.cached, usage.cached_tokens),
            (self.completion, usage.completion_tokens),
        ])
    }

    /// The most that a request with this budget can cost, in nanotons: every prompt token at the dearer of its classes.
    pub fn worst_case(&self, budget: &Budget) -> u64 {
        let prompt = self.prompt.max(self.cached);
        self.sum([(prompt, budget.prompt_tokens), (self.completion, budget.completion_tokens), (0, 0)])
    }

    fn sum(&self, classes: [(u64, u32); 3]) -> u64 {
        const DIVISOR: u128 = TOKENS_PER_PRICE as u128 * Coefficient::ONE.0 as u128;
        // Three products of 64 and 32 bits fit in 98; with the coefficient they may not fit in 128.
        let sum: u128 = classes.iter().map(|(price, tokens)| u128::from(*price) * u128::from(*tokens)).sum();
        let bill = sum.checked_mul(self.coefficient.0.into()).map(|scaled| scaled / DIVISOR);
        bill.and_then(|bill| u64::try_from(bill).ok()).unwrap_or(u64::MAX)
    }
}

impl std::fmt::Display for Price {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { prompt, cached, completion, coefficient } = self;
        write!(
            f,
            "{prompt} / {cached} / {completion} nanotons per million prompt / cached / completion tokens"
        )?;
        write!(f, ", times {coefficient}")
    }
}

#[cfg(test)]
mod tests {
    use num_bigint::BigUint;
    use proptest::prelude::*;

    use super::*;

    fn usage(prompt_tokens: u32, completion_tokens: u32) -> Usage {
        Usage { prompt_tokens, cached_tokens: 0, completion_tokens }
    }

    #[test]
    fn a_bill_is_rounded_once_and_down() {
        let price = Price::new(600_000, 0, 500_000);
        // 0.6 + 0.5 = 1.1: rounding each part alone would give 0.
        assert_eq!(price.bill(&usage(1, 1)), 1);
        assert_eq!(price.bill(&usage(1, 0)), 0);
        assert_eq!(price.bill(&usage(1_000_000, 2_000_000)), 1_600_000);
        // 1.1 × 1.818 = 1.9998 and 1.1 × 1.819 = 2.0009: rounding before the coefficient would give 1.
        assert_eq!(price.at(Coefficient(1_818)).bill(&usage(1, 1)), 1);
        assert_eq!(price.at(Coefficient(1_819)).bill(&usage(1, 1)), 2);
    }

    #[test]
    fn each_class_has_its_price() {
        let price = Price::new(4_000_000, 1_000_000, 9_000_000);
        let used = Usage { prompt_tokens: 10, cached_tokens: 7, completion_tokens: 2 };
        assert_eq!(price.bill(&used), 3 * 4 + 7 + 2 * 9);
    }

    #[test]
    fn a_bill_beyond_u64_saturates() {
        let price = Price {
            prompt: u64::MAX,
            cached: u64::MAX,
            completion: u64::MAX,
            coefficient: Coefficient(u32::MAX),
        };
        assert_eq!(price.bill(&usage(u32::MAX, u32::MAX)), u64::MAX);
        assert_eq!(price.at(Coefficient::ONE).bill(&usage(1_000_000, 0)), u64::MAX);
        assert_eq!(price.at(Coefficient::ONE).bill(&usage(1_000_001, 0)), u64::MAX);
        assert_eq!(price.at(Coefficient(0)).bill(&usage(u32::MAX, u32::MAX)), 0);
    }

    #[test]
    fn usage_is_within_a_budget_only_if_both_counts_are() {
        let budget = Budget { prompt_tokens: 10, completion_tokens: 5 };
        assert!(usage(10, 5).within(&budget));
        assert!(!usage(11, 5).within(&budget));
        assert!(!usage(10, 6).within(&budget));
    }

    #[test]
    fn tokens_that_move_into_the_cache_are_usage_that_went_back() {
        let earlier = usage(10, 5);
        assert!(earlier.follows(&earlier));
        assert!(!Usage { cached_tokens: 1, ..earlier }.follows(&earlier));
        assert!(Usage { prompt_tokens: 11, cached_tokens: 1, ..earlier }.follows(&earlier));
    }

    #[test]
    fn a_margin_is_rounded_up_to_a_thousandth() {
        let one = Coefficient::ONE;
        assert_eq!(one.with_margin(1_000), Some(Coefficient(1_100)));
        assert_eq!(one.with_margin(1), Some(Coefficient(1_001)));
        assert_eq!(one.with_margin(0), Some(one));
        assert_eq!(Coefficient(u32::MAX).with_margin(1), None);
    }

    #[test]
    fn a_coefficient_is_a_decimal_number_of_thousandths() {
        for (text, thousandths) in [("1", 1_000), ("0.85", 850), ("1.125", 1_125), ("0", 0), ("12.5", 12_500)]
        {
            let coefficient: Coefficient = text.parse().unwrap();
            assert_eq!((coefficient.thousandths(), coefficient.to_string()), (thousandths, text.to_owned()));
        }
        for wrong in
            ["", ".", "1.", ".5", "-1", "+1", "1e3", "1.2345", "1,5", "4294968", "99999999999", "NaN"]
        {
            assert!(wrong.parse::<Coefficient>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_price_survives_its_words_and_nothing_else_is_one() {
        let price = Price::new(1, u64::MAX, 0).at(Coefficient(1_100));
        assert_eq!(price.to_words(), "1 18446744073709551615 0 1100");
        assert_eq!(Price::from_words(&price.to_words()), Some(price));
        for wrong in
            ["", "1 2 3", "1 2 3 4 5", "1 2 3 4294967296", "01 2 3 4", "+1 2 3 4", " 1 2 3 4", "1 2 3 4 "]
        {
            assert_eq!(Price::from_words(wrong), None, "{wrong}");
        }
    }

    fn prices() -> impl Strategy<Value = Price> {
        // Real prices, and any at all.
        let amount = || prop_oneof![0..10_000_000_000u64, any::<u64>()];
        let coefficient = prop_oneof![0..5_000u32, any::<u32>()].prop_map(Coefficient);
        (amount(), amount(), amount(), coefficient).prop_map(|(prompt, cached, completion, coefficient)| {
            Price { prompt, cached, completion, coefficient }
        })
    }

    fn usages() -> impl Strategy<Value = Usage> {
        let tokens = || prop_oneof![0..200_000u32, any::<u32>()];
        (tokens(), tokens(), tokens()).prop_map(|(prompt_tokens, cached, completion_tokens)| Usage {
            prompt_tokens,
            cached_tokens: cached.min(prompt_tokens),
            completion_tokens,
        })
    }

    /// The bill before rounding, as a numerator over 10⁹: in integers without a limit.
    fn exact(price: &Price, usage: &Usage) -> BigUint {
        let term = |tokens: u32, amount: u64| BigUint::from(tokens) * amount;
        let sum = term(usage.prompt_tokens - usage.cached_tokens, price.prompt)
            + term(usage.cached_tokens, price.cached)
            + term(usage.completion_tokens, price.completion);
        sum * price.coefficient.0
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        /// Against exact rationals: the bill is the largest whole number that is not above the exact price.
        #[test]
        fn a_bill_is_the_exact_price_rounded_down(price in prices(), usage in usages()) {
            let floor = exact(&price, &usage) / 1_000_000_000u64;
            prop_assert_eq!(price.bill(&usage), u64::try_from(floor).unwrap_or(u64::MAX));
        }

        #[test]
        fn a_bill_never_goes_back_and_stays_within_the_worst_case(
            price in prices(), a in usages(), more in usages()
        ) {
            let plus = |x: u32, y: u32| x.saturating_add(y);
            let cached_tokens = plus(a.cached_tokens, more.cached_tokens);
            let later = Usage {
                prompt_tokens: plus(cached_tokens, plus(a.computed(), more.computed())),
                cached_tokens,
                completion_tokens: plus(a.completion_tokens, more.completion_tokens),
            };
            prop_assume!(later.follows(&a));
            prop_assert!(price.bill(&later) >= price.bill(&a));
            let budget =
                Budget { prompt_tokens: later.prompt_tokens, completion_tokens: later.completion_tokens };
            prop_assert!(price.worst_case(&budget) >= price.bill(&later));
        }
    }
}
