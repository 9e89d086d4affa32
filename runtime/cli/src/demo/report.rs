//! What a demo found, as one object.

use serde::Serialize;

/// Balances of one party in nanotons, before the channels were opened and after everything was settled and closed.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Balance {
    pub(crate) before: u64,
    pub(crate) after: u64,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
pub(crate) struct Balances {
    pub(crate) client: Balance,
    pub(crate) gateway: Balance,
    pub(crate) operator: Balance,
    pub(crate) treasury: Balance,
}

impl Balances {
    pub(crate) fn all(&self) -> [(&'static str, Balance); 4] {
        [
            ("client", self.client),
            ("gateway", self.gateway),
            ("operator", self.operator),
            ("treasury", self.treasury),
        ]
    }

    /// What left everybody's hands: the chain's own fees, and rent that contracts still hold.
    pub(crate) fn gone(&self) -> u64 {
        let before: u64 = self.all().iter().map(|(_, b)| b.before).sum();
        let after: u64 = self.all().iter().map(|(_, b)| b.after).sum();
        before.saturating_sub(after)
    }
}

#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct UsageReport {
    pub(crate) prompt_tokens: u32,
    pub(crate) completion_tokens: u32,
}

/// The object of `cocoon demo --json`. Amounts are nanotons.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) verdict: &'static str,
    pub(crate) simulated: bool,
    pub(crate) answer: String,
    pub(crate) usage: UsageReport,
    pub(crate) receipt_verified: bool,
    /// The cumulative amount of the client's last voucher.
    pub(crate) voucher_nanotons: u64,
    /// What the gateway's channel paid out on chain: payee's part and network fee.
    pub(crate) settled_nanotons: u64,
    /// What the operator's channel paid out on chain.
    pub(crate) operator_settled_nanotons: u64,
    /// What reached the treasury, from both channels.
    pub(crate) network_fee_nanotons: u64,
    /// What the chain itself took for all transactions of the run.
    pub(crate) chain_fees_nanotons: u64,
    pub(crate) balances: Balances,
    pub(crate) ttft_ms: f64,
    pub(crate) tokens_per_second: f64,
    /// Where the evidence was kept.
    pub(crate) kept: std::path::PathBuf,
}

impl Report {
    /// Everything that the journey promises.
    pub(crate) fn holds(&self) -> bool {
        self.verdict == "trusted"
            && self.receipt_verified
            && !self.answer.is_empty()
            && self.voucher_nanotons > 0
            && self.settled_nanotons == self.voucher_nanotons
            && self.operator_settled_nanotons > 0
            && self.network_fee_nanotons > 0
    }
}
