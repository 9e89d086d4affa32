//! The channel to the gateway: opened once, kept in the book, paid by a task that follows what is owed.

use std::time::Duration;

use cocoon_accounts::{PayeeLink, PayerAgent, PayerOptions};
use cocoon_contracts::{Address, Nanotons, SignedVoucher};
use cocoon_protocol::http::{AccountStatus, code};

use crate::{ClientError, GatewayApi};

/// The most that a client concedes for a broken answer beyond what it counted, whatever window the gateway claims, in
/// nanotons: 0.001 TON, the window that gateways have by default.
pub const MAX_CONCESSION: Nanotons = 1_000_000;

pub(crate) const PAYER_OPTIONS: PayerOptions = PayerOptions {
    cap: MAX_CONCESSION,
    gather: Duration::from_secs(1),
    // The gateway says it better: its refusal names what is free by its count.
    hold: false,
};

/// What a new channel is made with.
#[derive(Clone, Debug)]
pub struct ChannelOptions {
    /// Put in at opening, in nanotons.
    pub deposit: Nanotons,
    /// The most that the channel may hold in all its life, in nanotons: the deposit grows by steps of itself as it is used
    /// up, and the session key's limit with it. 0: it never grows.
    pub most: Nanotons,
    /// Channels to other payees without work for this long are closed; `None` closes none.
    pub close_idle: Option<Duration>,
    /// How long the payee may still settle after a close was started.
    pub challenge_seconds: u32,
}

/// The channel in use.
#[derive(Clone, Debug)]
pub struct OpenChannel {
    /// Its contract.
    pub address: Address,
    /// Its deposit when it was last read.
    pub deposit: Nanotons,
    /// Whether it was opened just now.
    pub fresh: bool,
}

/// Pays on one channel. One for all answers of a client, so that vouchers are cumulative over them.
pub(crate) type Payer = PayerAgent<GatewayApi>;

impl PayeeLink for GatewayApi {
    type Error = ClientError;

    async fn announce(&self, channel: &Address) -> Result<AccountStatus, ClientError> {
        Self::announce(self, channel).await
    }

    async fn voucher(&self, signed: &SignedVoucher) -> Result<AccountStatus, ClientError> {
        Self::voucher(self, signed).await
    }

    async fn account(&self, channel: &Address) -> Result<AccountStatus, ClientError> {
        Self::account(self, channel).await
    }

    fn unknown_channel(error: &ClientError) -> bool {
        matches!(error, ClientError::Refused { status: 404, .. })
    }

    fn stale_voucher(error: &ClientError) -> bool {
        matches!(error, ClientError::Refused { code, .. } if code == code::STALE_VOUCHER)
    }
}
