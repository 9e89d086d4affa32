//! Why the books refuse: one enum per question, each with the difference that made it refuse.

use std::time::Duration;

use cocoon_contracts::{Address, Nanotons};

use crate::{MAX_CHANNELS, MAX_STREAMS_PER_CHANNEL, StoreError};

/// Why a channel was not taken into the book.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AnnounceError {
    /// Made for another TON network.
    #[error("the channel is for network {found}, this is network {expected}")]
    WrongNetwork {
        /// Ours.
        expected: i32,
        /// Theirs.
        found: i32,
    },
    /// The book is full.
    #[error("this book already holds {MAX_CHANNELS} channels")]
    Full,
    /// The disk refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a voucher was refused. The account is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VoucherError {
    /// Nobody announced this channel.
    #[error("channel {0} is not known here; announce it first")]
    UnknownChannel(Address),
    /// Made for another TON network.
    #[error("the voucher is for network {found}, this is network {expected}")]
    WrongNetwork {
        /// Ours.
        expected: i32,
        /// Theirs.
        found: i32,
    },
    /// Made for another channel.
    #[error("the voucher is for channel {found}, not for {expected}")]
    WrongChannel {
        /// The channel it was handed in for.
        expected: Address,
        /// The channel it names.
        found: Address,
    },
    /// Made for another life of the channel.
    #[error("the voucher has nonce {found}, the channel has {expected}")]
    WrongNonce {
        /// The channel's.
        expected: u64,
        /// The voucher's.
        found: u64,
    },
    /// The signature is not by the key that the channel names.
    #[error("the voucher is not signed by the channel's payer key")]
    WrongSigner,
    /// What the chain says of the channel was read too long ago to take more on it.
    #[error("the channel was last looked at too long ago; it must be read from the chain first")]
    Unchecked,
    /// Lower than what is already held.
    #[error("the voucher is stale: {found} nanotons, and {held} are held already")]
    Stale {
        /// The best held.
        held: Nanotons,
        /// The one handed in.
        found: Nanotons,
    },
    /// More than the channel can pay.
    #[error("the voucher is for {found} nanotons, the channel's deposit is {deposit}")]
    ExceedsDeposit {
        /// The channel's deposit.
        deposit: Nanotons,
        /// The voucher's amount.
        found: Nanotons,
    },
    /// The disk refused: nothing was acknowledged.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why work was refused before it began. Nothing is owed for it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReserveError {
    /// Nobody announced this channel.
    #[error("channel {0} is not known here; announce it first")]
    UnknownChannel(Address),
    /// The deposit does not cover the worst case.
    #[error(
        "the request may cost {wanted} nanotons, and {free} are left of the channel's deposit; top up, or ask for less"
    )]
    InsufficientDeposit {
        /// The worst case.
        wanted: Nanotons,
        /// Deposit less what is owed and reserved.
        free: Nanotons,
    },
    /// An answer was cut for want of a voucher, and that debt stands.
    #[error("{owed} nanotons are owed and vouchers cover {voucher}; send a voucher first")]
    VoucherRequired {
        /// Charged so far.
        owed: Nanotons,
        /// Covered so far.
        voucher: Nanotons,
    },
    /// What the chain says of the channel was read too long ago to work on it.
    #[error("the channel was last looked at too long ago; it must be read from the chain first")]
    Unchecked,
    /// Too many answers at once on this channel.
    #[error("{MAX_STREAMS_PER_CHANNEL} answers are under way on this channel already")]
    TooManyStreams,
    /// The payer has started to close the channel.
    #[error("the channel is being closed; open another")]
    Closing,
    /// The accounts could not be asked.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an answer cannot go on.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChargeError {
    /// The payer has started to close the channel, or it is gone.
    #[error("the channel is being closed")]
    Closing,
    /// No voucher came in time.
    #[error("{owed} nanotons are owed, vouchers cover {voucher}, and none came within {waited:?}")]
    VoucherRequired {
        /// Charged so far on the channel.
        owed: Nanotons,
        /// Covered so far.
        voucher: Nanotons,
        /// How long the stream waited.
        waited: Duration,
    },
    /// One frame costs more than may ever be unpaid at once.
    #[error(
        "one frame would cost {by} nanotons, and at most {window} may be unpaid; ask for less at once, or elsewhere"
    )]
    Jump {
        /// What the frame would add.
        by: Nanotons,
        /// The window.
        window: Nanotons,
    },
    /// More than was reserved: the worker counts outside the budget.
    #[error("{wanted} nanotons would be charged, and {reserved} were reserved")]
    OverReservation {
        /// The cumulative charge asked for.
        wanted: Nanotons,
        /// The reservation.
        reserved: Nanotons,
    },
    /// Less than before.
    #[error("the charge went back from {charged} to {wanted} nanotons")]
    Backwards {
        /// Charged so far.
        charged: Nanotons,
        /// Asked for now.
        wanted: Nanotons,
    },
    /// The disk refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why nothing was signed or noted as payer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayError {
    /// The channel was never opened in this book.
    #[error("channel {0} is not in this book")]
    UnknownChannel(Address),
    /// More than the channel holds.
    #[error("{wanted} nanotons would be owed on a deposit of {deposit}; top the channel up")]
    ExceedsDeposit {
        /// The channel's deposit.
        deposit: Nanotons,
        /// What would be owed in all.
        wanted: Nanotons,
    },
    /// The payee claims more beyond what we counted than broken answers explain.
    #[error(
        "the payee claims {claimed} nanotons, we counted {owed}, and at most {allowance} may lie between"
    )]
    Overcharged {
        /// What the payee says.
        claimed: Nanotons,
        /// What we counted.
        owed: Nanotons,
        /// The greatest difference that lost frames explain.
        allowance: Nanotons,
    },
    /// The key is not the one that the channel names.
    #[error("this key is not the channel's payer key")]
    WrongSigner,
    /// We close the channel.
    #[error("the channel is being closed; open another")]
    Closing,
    /// The disk refused: nothing was signed.
    #[error(transparent)]
    Store(#[from] StoreError),
}
