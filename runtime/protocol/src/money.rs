//! Tokens and what they cost. All money is in nanotons, all arithmetic in integers.

use serde::{Deserialize, Serialize};

/// Prices are per this many tokens.
pub const TOKENS_PER_PRICE: u64 = 1_000_000;

/// Tokens used so far (in frames) or in all (in receipts).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the rendered prompt.
    pub prompt_tokens: u32,
    /// Tokens generated.
    pub completion_tokens: u32,
}

impl Usage {
    /// Whether neither count exceeds the budget.
    pub fn within(&self, budget: &Budget) -> bool {
        self.prompt_tokens <= budget.prompt_tokens && self.completion_tokens <= budget.completion_tokens
    }

    /// Whether neither count is below `earlier`: cumulative usage never goes back.
    pub fn follows(&self, earlier: &Usage) -> bool {
        self.prompt_tokens >= earlier.prompt_tokens && self.completion_tokens >= earlier.completion_tokens
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

impl Budget {
    /// The usage that spends the whole budget.
    pub fn as_usage(&self) -> Usage {
        Usage { prompt_tokens: self.prompt_tokens, completion_tokens: self.completion_tokens }
    }
}

/// Nanotons per million tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Price {
    /// For prompt tokens.
    pub prompt: u64,
    /// For completion tokens.
    pub completion: u64,
}

impl Price {
    /// What `usage` costs, in nanotons: rounded once, down, in the payee's disfavour. A sum beyond `u64` is `u64::MAX`,
    /// which no deposit covers.
    pub fn bill(&self, usage: &Usage) -> u64 {
        let sum = u128::from(self.prompt) * u128::from(usage.prompt_tokens)
            + u128::from(self.completion) * u128::from(usage.completion_tokens);
        u64::try_from(sum / u128::from(TOKENS_PER_PRICE)).unwrap_or(u64::MAX)
    }

    /// The most that a request with this budget can cost, in nanotons.
    pub fn worst_case(&self, budget: &Budget) -> u64 {
        self.bill(&budget.as_usage())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn usage(prompt_tokens: u32, completion_tokens: u32) -> Usage {
        Usage { prompt_tokens, completion_tokens }
    }

    #[test]
    fn a_bill_is_rounded_once_and_down() {
        let price = Price { prompt: 600_000, completion: 500_000 };
        // 0.6 + 0.5 = 1.1: rounding each part alone would give 0.
        assert_eq!(price.bill(&usage(1, 1)), 1);
        assert_eq!(price.bill(&usage(1, 0)), 0);
        assert_eq!(price.bill(&usage(1_000_000, 2_000_000)), 1_600_000);
    }

    #[test]
    fn a_bill_beyond_u64_saturates() {
        let price = Price { prompt: u64::MAX, completion: u64::MAX };
        assert_eq!(price.bill(&usage(u32::MAX, u32::MAX)), u64::MAX);
        assert_eq!(price.bill(&usage(1_000_000, 0)), u64::MAX);
    }

    #[test]
    fn usage_is_within_a_budget_only_if_both_counts_are() {
        let budget = Budget { prompt_tokens: 10, completion_tokens: 5 };
        assert!(usage(10, 5).within(&budget));
        assert!(!usage(11, 5).within(&budget));
        assert!(!usage(10, 6).within(&budget));
    }
}
