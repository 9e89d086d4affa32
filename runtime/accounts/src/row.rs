//! The rows on the disk: CBOR maps, schema 2. The key of a row is the channel's address. Older rows are
//! [`crate::schema`]'s.

use cocoon_contracts::{Address, Nanotons, SignedVoucher, channel::Terms};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    account::{Account, AccountState},
    payer::PayerState,
};

/// The terms of a channel, in this schema's own words.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TermsRow {
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
    pub(crate) fn new(terms: &Terms) -> Self {
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

    pub(crate) fn terms(&self) -> Result<Terms, String> {
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

/// A row's bytes.
pub(crate) fn encode<T: Serialize>(row: &T) -> Vec<u8> {
    serde_cbor::to_vec(row).expect("plain data always encodes")
}

/// A row from its bytes, or what is wrong with them.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, String> {
    serde_cbor::from_slice(bytes).map_err(|e| e.to_string())
}

/// The terms of a channel as bytes, for backends that keep them as one value.
pub fn encode_terms(terms: &Terms) -> Vec<u8> {
    encode(&TermsRow::new(terms))
}

/// The terms from [`encode_terms`]'s bytes.
///
/// # Errors
/// What is wrong with them.
pub fn decode_terms(bytes: &[u8]) -> Result<Terms, String> {
    decode::<TermsRow>(bytes)?.terms()
}

/// A channel that pays us.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PayeeRow {
    pub(crate) terms: TermsRow,
    pub(crate) deposit: Nanotons,
    pub(crate) paid: Nanotons,
    pub(crate) voucher: Option<Vec<u8>>,
    pub(crate) owed: Nanotons,
    pub(crate) closing: bool,
    pub(crate) deadline: Option<u32>,
}

impl PayeeRow {
    pub(crate) fn new(terms: &Terms, state: &AccountState) -> Self {
        Self {
            terms: TermsRow::new(terms),
            deposit: state.deposit,
            paid: state.paid,
            voucher: state.voucher.as_ref().map(SignedVoucher::encode),
            owed: state.owed,
            closing: state.closing,
            deadline: state.deadline,
        }
    }

    /// The account of a row. Its voucher was verified before it was written, and is again: a damaged one would be found
    /// out by the chain only.
    pub(crate) fn account(key: &str, bytes: &[u8]) -> Result<Account, String> {
        let row: Self = decode(bytes)?;
        let (channel, terms) = (address(key)?, row.terms.terms()?);
        let voucher = row.voucher.as_deref().map(SignedVoucher::decode).transpose();
        let voucher = voucher.map_err(|e| e.to_string())?;
        if let Some(signed) = &voucher {
            crate::check_voucher(&channel, &terms, signed).map_err(|e| e.to_string())?;
        }
        let Self { deposit, paid, owed, closing, deadline, .. } = row;
        let state =
            AccountState { deposit, paid, voucher, owed, closing, deadline, ..AccountState::default() };
        Ok(Account { address: channel, terms, state, looked: None, used: None })
    }
}

/// A channel that we pay into.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PayerRow {
    pub(crate) terms: TermsRow,
    pub(crate) deposit: Nanotons,
    pub(crate) owed: Nanotons,
    pub(crate) signed: Nanotons,
    pub(crate) conceded: Nanotons,
    /// Answers were under way, or one had broken, when this was written.
    pub(crate) marked: bool,
    /// The second (Unix time) in which work was last asked for.
    pub(crate) used: u64,
    /// We close it: no new work.
    pub(crate) closing: bool,
}

impl PayerRow {
    pub(crate) fn new(terms: &Terms, state: &PayerState, marked: bool) -> Self {
        let PayerState { deposit, owed, conceded, signed, acknowledged: _, used, closing } = *state;
        Self { terms: TermsRow::new(terms), deposit, owed, signed, conceded, marked, used, closing }
    }

    /// Address, terms, state and mark of a row.
    pub(crate) fn parse(key: &str, bytes: &[u8]) -> Result<(Address, Terms, PayerState, bool), String> {
        let row: Self = decode(bytes)?;
        let Self { deposit, owed, signed, conceded, marked, used, closing, terms } = row;
        let state = PayerState { deposit, owed, conceded, signed, acknowledged: 0, used, closing };
        Ok((address(key)?, terms.terms()?, state, marked))
    }
}
