//! Vouchers: what a payer signs, off chain, for what it owes in total.
//!
//! A voucher is a TON cell: tag, network, channel address, channel nonce, cumulative amount. The signature is Ed25519
//! over that cell's hash, so a voucher is good for one channel of one network only, and a newer one replaces an older.

use tycho_types::cell::{Cell, CellFamily, HashBytes, Store};

use crate::{Address, Nanotons, SigningKey, VerifyingKey, build_cell, verify_signature};

/// The tag of the signed cell, `Voucher` in `channel.tolk`.
const VOUCHER_TAG: u32 = 0x4356_0001;
/// The first bytes of an encoded voucher: the form and its version.
const MAGIC: &[u8; 4] = b"CVO1";
/// Bytes of an encoded signed voucher: magic, network, workchain, hash, nonce, cumulative, signature.
pub const SIGNED_VOUCHER_BYTES: usize = 4 + 4 + 1 + 32 + 8 + 8 + 64;

/// Why a voucher is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VoucherError {
    /// The bytes are not an encoded voucher.
    #[error("the voucher is malformed: {0}")]
    Malformed(&'static str),
    /// The signature was not made by the payer's key of this channel.
    #[error("the voucher's signature does not verify under the channel's payer key: sign it with that key")]
    WrongSigner,
    /// Made for another network.
    #[error("the voucher is for network {got}, this is network {expected}")]
    WrongNetwork {
        /// This network's global id.
        expected: i32,
        /// The voucher's.
        got: i32,
    },
    /// Made for another channel, or for another life of it.
    #[error("the voucher is for channel {got}, expected {expected}")]
    WrongChannel {
        /// The channel at hand.
        expected: Box<Address>,
        /// The voucher's.
        got: Box<Address>,
    },
    /// The nonce is not this channel's.
    #[error("the voucher's nonce {got} is not the channel's {expected}")]
    WrongNonce {
        /// The channel's nonce.
        expected: u64,
        /// The voucher's.
        got: u64,
    },
}

/// What is owed in total on one channel. Unsigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Voucher {
    /// The network's global id.
    pub network: i32,
    /// The channel contract.
    pub channel: Address,
    /// The channel's nonce, from its terms.
    pub nonce: u64,
    /// All that was ever owed on this channel, in nanotons. Only grows.
    pub cumulative: Nanotons,
}

impl Voucher {
    /// The hash that is signed.
    pub fn hash(&self) -> [u8; 32] {
        self.cell().repr_hash().0
    }

    /// Signs with the payer's key.
    pub fn sign(self, key: &SigningKey) -> SignedVoucher {
        let signature = key.sign(&self.hash());
        SignedVoucher { voucher: self, signature }
    }

    fn cell(&self) -> Cell {
        build_cell(|b| {
            b.store_u32(VOUCHER_TAG)?;
            b.store_u32(self.network.cast_unsigned())?;
            self.channel.store_into(b, Cell::empty_context())?;
            b.store_u64(self.nonce)?;
            b.store_u64(self.cumulative)
        })
    }
}

/// A voucher with a signature that nobody has checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedVoucher {
    /// What is claimed.
    pub voucher: Voucher,
    /// Ed25519 over [`Voucher::hash`].
    pub signature: [u8; 64],
}

impl SignedVoucher {
    /// The form in which vouchers travel: [`SIGNED_VOUCHER_BYTES`] bytes, big-endian.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(SIGNED_VOUCHER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&self.voucher.network.to_be_bytes());
        bytes.extend_from_slice(&self.voucher.channel.workchain.to_be_bytes());
        bytes.extend_from_slice(&self.voucher.channel.address.0);
        bytes.extend_from_slice(&self.voucher.nonce.to_be_bytes());
        bytes.extend_from_slice(&self.voucher.cumulative.to_be_bytes());
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    /// Reads [`SignedVoucher::encode`]'s form. Exactly as long, nothing after it.
    pub fn decode(bytes: &[u8]) -> Result<Self, VoucherError> {
        if bytes.len() != SIGNED_VOUCHER_BYTES {
            return Err(VoucherError::Malformed("its length is not that of a voucher"));
        }
        let rest = bytes.strip_prefix(MAGIC).ok_or(VoucherError::Malformed("it does not begin with CVO1"))?;
        let mut rest = Fields(rest);
        let network = i32::from_be_bytes(rest.take());
        let workchain = i8::from_be_bytes(rest.take());
        let channel = Address::new(workchain, HashBytes(rest.take()));
        let nonce = u64::from_be_bytes(rest.take());
        let cumulative = Nanotons::from_be_bytes(rest.take());
        Ok(Self { voucher: Voucher { network, channel, nonce, cumulative }, signature: rest.take() })
    }

    /// Checks that the payer's key signed this voucher, whatever channel it is for.
    pub fn verify(&self, payer_key: &VerifyingKey) -> Result<VerifiedVoucher, VoucherError> {
        if verify_signature(payer_key, &self.voucher.hash(), &self.signature) {
            Ok(VerifiedVoucher { signed: self.clone() })
        } else {
            Err(VoucherError::WrongSigner)
        }
    }

    /// Checks that the voucher is for this channel and signed by its payer: what a payee asks.
    pub fn verify_for(&self, terms: &crate::channel::Terms) -> Result<VerifiedVoucher, VoucherError> {
        let Voucher { network, channel, nonce, .. } = &self.voucher;
        if *network != terms.network {
            return Err(VoucherError::WrongNetwork { expected: terms.network, got: *network });
        }
        let expected = terms.address();
        if *channel != expected {
            return Err(VoucherError::WrongChannel {
                expected: Box::new(expected),
                got: Box::new(channel.clone()),
            });
        }
        if *nonce != terms.nonce {
            return Err(VoucherError::WrongNonce { expected: terms.nonce, got: *nonce });
        }
        self.verify(&terms.payer_key)
    }
}

/// A voucher whose signature was verified. Only [`SignedVoucher::verify`] and [`SignedVoucher::verify_for`] make one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedVoucher {
    signed: SignedVoucher,
}

impl VerifiedVoucher {
    /// The voucher.
    pub fn voucher(&self) -> &Voucher {
        &self.signed.voucher
    }

    /// The cumulative amount, in nanotons.
    pub fn cumulative(&self) -> Nanotons {
        self.signed.voucher.cumulative
    }

    /// The voucher with its signature, to be stored, forwarded or settled.
    pub fn signed(&self) -> &SignedVoucher {
        &self.signed
    }
}

/// Reads fixed fields from bytes whose whole length was checked.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    /// The next field.
    pub(crate) fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the length was checked before");
        self.0 = rest;
        *field
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn voucher() -> Voucher {
        Voucher {
            network: -217,
            channel: Address::new(0, HashBytes([9; 32])),
            nonce: 77,
            cumulative: 1_234_567_890_123,
        }
    }

    #[test]
    fn survives_the_wire() {
        let signed = voucher().sign(&SigningKey::from_seed(&[1; 32]));
        let bytes = signed.encode();
        assert_eq!(bytes.len(), SIGNED_VOUCHER_BYTES);
        assert_eq!(SignedVoucher::decode(&bytes).unwrap(), signed);
    }

    /// What is settled in public tells nothing of what was asked: a voucher is these fields and their signature, and two for
    /// one amount are one.
    #[test]
    fn carries_an_amount_and_nothing_of_a_request() {
        let key = SigningKey::from_seed(&[1; 32]);
        let Voucher { network, channel, nonce, cumulative } = voucher();
        let signature = key.sign(&voucher().hash());
        let fields = [
            &MAGIC[..],
            &network.to_be_bytes(),
            &channel.workchain.to_be_bytes(),
            &channel.address.0,
            &nonce.to_be_bytes(),
            &cumulative.to_be_bytes(),
            &signature,
        ];
        assert_eq!(voucher().sign(&key).encode(), fields.concat());
        assert_eq!(voucher().sign(&key), voucher().sign(&key), "nothing in it was chosen by the payer");
    }

    #[test]
    fn every_flipped_bit_is_refused() {
        let key = SigningKey::from_seed(&[1; 32]);
        let bytes = voucher().sign(&key).encode();
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let outcome = SignedVoucher::decode(&flipped).and_then(|v| v.verify(&key.public()));
            assert!(outcome.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn lengths_other_than_the_one_are_refused() {
        let bytes = voucher().sign(&SigningKey::from_seed(&[1; 32])).encode();
        for length in 0..bytes.len() {
            assert!(SignedVoucher::decode(&bytes[..length]).is_err());
        }
        assert!(SignedVoucher::decode(&[bytes.as_slice(), &[0]].concat()).is_err());
    }

    #[test]
    fn another_key_does_not_verify() {
        let signed = voucher().sign(&SigningKey::from_seed(&[1; 32]));
        let other = SigningKey::from_seed(&[2; 32]).public();
        assert_eq!(signed.verify(&other), Err(VoucherError::WrongSigner));
    }
}
