//! The rows on the disk: CBOR maps, schema 1. The key of a row is the channel's address.

use cocoon_contracts::{Address, Nanotons, SignedVoucher, channel::Terms};
use serde::{Deserialize, Serialize};

use crate::{
    payee::{ChannelFacts, State},
    payer::PayerState,
};

/// The terms of a channel, in this schema's own words.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TermsRow {
    payer: String,
    payee: String,
    payer_key: [u8; 32],
    network: i32,
    nonce: u64,
    challenge_seconds: u32,
    fee_bps: u16,
    treasury: String,
}

impl TermsRow {
    fn new(terms: &Terms) -> Self {
        Self {
            payer: terms.payer.to_string(),
            payee: terms.payee.to_string(),
            payer_key: terms.payer_key,
            network: terms.network,
            nonce: terms.nonce,
            challenge_seconds: terms.challenge_seconds,
            fee_bps: terms.fee_bps,
            treasury: terms.treasury.to_string(),
        }
    }

    fn terms(&self) -> Result<Terms, String> {
        Ok(Terms {
            payer: address(&self.payer)?,
            payee: address(&self.payee)?,
            payer_key: self.payer_key,
            network: self.network,
            nonce: self.nonce,
            challenge_seconds: self.challenge_seconds,
            fee_bps: self.fee_bps,
            treasury: address(&self.treasury)?,
        })
    }
}

fn address(text: &str) -> Result<Address, String> {
    cocoon_contracts::parse_address(text).map_err(|e| e.to_string())
}

/// A channel that pays us.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PayeeRow {
    terms: TermsRow,
    deposit: Nanotons,
    paid: Nanotons,
    voucher: Option<Vec<u8>>,
    pub(crate) owed: Nanotons,
    closing: bool,
}

impl PayeeRow {
    pub(crate) fn new(terms: &Terms, state: &State) -> Self {
        Self {
            terms: TermsRow::new(terms),
            deposit: state.deposit,
            paid: state.paid,
            voucher: state.voucher.as_ref().map(SignedVoucher::encode),
            owed: state.owed,
            closing: state.closing,
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_cbor::to_vec(self).expect("plain data always encodes")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        serde_cbor::from_slice(bytes).map_err(|e| e.to_string())
    }

    pub(crate) fn facts(&self, key: &str) -> Result<ChannelFacts, String> {
        Ok(ChannelFacts {
            address: address(key)?,
            terms: self.terms.terms()?,
            deposit: self.deposit,
            paid: self.paid,
            closing: self.closing,
        })
    }

    pub(crate) fn voucher(&self) -> Result<Option<SignedVoucher>, String> {
        let decode = |bytes: &Vec<u8>| SignedVoucher::decode(bytes).map_err(|e| e.to_string());
        self.voucher.as_ref().map(decode).transpose()
    }
}

/// A channel that we pay into.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PayerRow {
    terms: TermsRow,
    deposit: Nanotons,
    owed: Nanotons,
    signed: Nanotons,
    #[serde(default)]
    conceded: Nanotons,
    /// Answers were under way, or one had broken, when this was written.
    #[serde(default)]
    pub(crate) marked: bool,
}

impl PayerRow {
    pub(crate) fn new(terms: &Terms, state: &PayerState, marked: bool) -> Self {
        let PayerState { deposit, owed, conceded, signed, acknowledged: _ } = *state;
        Self { terms: TermsRow::new(terms), deposit, owed, signed, conceded, marked }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        serde_cbor::to_vec(self).expect("plain data always encodes")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        serde_cbor::from_slice(bytes).map_err(|e| e.to_string())
    }

    pub(crate) fn terms(&self) -> Result<Terms, String> {
        self.terms.terms()
    }

    pub(crate) fn state(&self) -> PayerState {
        let Self { deposit, owed, signed, conceded, .. } = *self;
        PayerState { deposit, owed, conceded, signed, acknowledged: 0 }
    }
}
