//! Statements: what an operator's key says once for each kind and number, and the proof that it said two things.

use tycho_types::cell::{Cell, CellFamily, HashBytes, Store};

use super::Terms;
use crate::{Address, Nanotons, SigningKey, VerifyingKey, build_cell, verify_signature};

/// The tags of the hashed cells, `Statement` and `Liabilities` in `bond.tolk`.
const STATEMENT_TAG: u32 = 0x424e_4401;
const LIABILITIES_TAG: u32 = 0x424e_4402;
/// The first bytes of an encoded statement: the form and its version.
const MAGIC: &[u8; 4] = b"CST1";
/// Bytes of an encoded signed statement: magic, network, workchain, hash, kind, number, digest, signature.
pub const SIGNED_STATEMENT_BYTES: usize = 4 + 4 + 1 + 32 + 1 + 8 + 32 + 64;

/// A root of liabilities: the number is its epoch, the digest that of [`Liabilities`].
pub const KIND_LIABILITIES: u8 = 1;
/// A gateway's listing of workers: the number is its sequence, the digest that of the listing's bytes.
pub const KIND_LISTING: u8 = 2;

/// Why a statement or a proof is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StatementError {
    /// The bytes are not an encoded statement.
    #[error("the statement is malformed: {0}")]
    Malformed(&'static str),
    /// The signature is not of the bond's key.
    #[error("the statement's signature does not verify under the bond's key")]
    WrongSigner,
    /// Made for another network or another bond.
    #[error("the statement is for bond {bond} of network {network}: not for this one")]
    WrongBond {
        /// The statement's network.
        network: i32,
        /// The statement's bond.
        bond: Box<Address>,
    },
    /// Of different kinds or numbers, or the same twice.
    #[error(
        "the two statements do not contradict each other: they must be of one kind and number, and differ"
    )]
    NoContradiction,
}

/// One thing that an operator's key says. Unsigned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// The network's global id.
    pub network: i32,
    /// The bond that answers for it.
    pub bond: Address,
    /// What it is about: [`KIND_LIABILITIES`], [`KIND_LISTING`], or what others agree on.
    pub kind: u8,
    /// Which one of its kind. **Never sign two with one number**: the stake is lost.
    pub number: u64,
    /// What is said.
    pub digest: [u8; 32],
}

impl Statement {
    /// The hash that is signed.
    pub fn hash(&self) -> [u8; 32] {
        let cell = build_cell(|b| {
            b.store_u32(STATEMENT_TAG)?;
            b.store_u32(self.network.cast_unsigned())?;
            self.bond.store_into(b, Cell::empty_context())?;
            b.store_u8(self.kind)?;
            b.store_u64(self.number)?;
            b.store_u256(&HashBytes(self.digest))
        });
        cell.repr_hash().0
    }

    /// Signs with the operator's key.
    pub fn sign(self, key: &SigningKey) -> SignedStatement {
        let signature = key.sign(&self.hash());
        SignedStatement { statement: self, signature }
    }
}

/// A statement with a signature that nobody has checked yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedStatement {
    /// What is said.
    pub statement: Statement,
    /// Ed25519 over [`Statement::hash`].
    pub signature: [u8; 64],
}

impl SignedStatement {
    /// Checks that this key signed it, whatever bond it is for.
    ///
    /// # Errors
    /// [`StatementError::WrongSigner`].
    pub fn verify(&self, key: &VerifyingKey) -> Result<(), StatementError> {
        let good = verify_signature(key, &self.statement.hash(), &self.signature);
        good.then_some(()).ok_or(StatementError::WrongSigner)
    }

    /// Checks that it is a statement that this bond answers for.
    ///
    /// # Errors
    /// [`StatementError::WrongBond`] or [`StatementError::WrongSigner`].
    pub fn verify_for(&self, terms: &Terms) -> Result<(), StatementError> {
        let Statement { network, bond, .. } = &self.statement;
        if (*network, bond) != (terms.network, &terms.address()) {
            return Err(StatementError::WrongBond { network: *network, bond: Box::new(bond.clone()) });
        }
        self.verify(&terms.operator_key)
    }

    /// The form in which statements travel: [`SIGNED_STATEMENT_BYTES`] bytes, big-endian.
    pub fn encode(&self) -> Vec<u8> {
        let Statement { network, bond, kind, number, digest } = &self.statement;
        let mut bytes = Vec::with_capacity(SIGNED_STATEMENT_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&network.to_be_bytes());
        bytes.extend_from_slice(&bond.workchain.to_be_bytes());
        bytes.extend_from_slice(&bond.address.0);
        bytes.push(*kind);
        bytes.extend_from_slice(&number.to_be_bytes());
        bytes.extend_from_slice(digest);
        bytes.extend_from_slice(&self.signature);
        bytes
    }

    /// Reads [`SignedStatement::encode`]'s form. Exactly as long, nothing after it.
    ///
    /// # Errors
    /// [`StatementError::Malformed`].
    pub fn decode(bytes: &[u8]) -> Result<Self, StatementError> {
        if bytes.len() != SIGNED_STATEMENT_BYTES {
            return Err(StatementError::Malformed("its length is not that of a statement"));
        }
        let rest =
            bytes.strip_prefix(MAGIC).ok_or(StatementError::Malformed("it does not begin with CST1"))?;
        let mut rest = crate::voucher::Fields(rest);
        let network = i32::from_be_bytes(rest.take());
        let bond = Address::new(i8::from_be_bytes(rest.take()), HashBytes(rest.take()));
        let kind = u8::from_be_bytes(rest.take());
        let number = u64::from_be_bytes(rest.take());
        let statement = Statement { network, bond, kind, number, digest: rest.take() };
        Ok(Self { statement, signature: rest.take() })
    }
}

/// What a gateway owes to all its clients at the end of an epoch: root and sum of a Merkle-sum tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Liabilities {
    /// The epoch. Only grows.
    pub epoch: u64,
    /// The tree's root.
    pub root: [u8; 32],
    /// All leaves together, in nanotons.
    pub sum: Nanotons,
}

impl Liabilities {
    /// What is signed for them: [`KIND_LIABILITIES`], numbered by the epoch.
    pub fn statement(&self, network: i32, bond: &Address) -> Statement {
        let cell = build_cell(|b| {
            b.store_u32(LIABILITIES_TAG)?;
            b.store_u256(&HashBytes(self.root))?;
            b.store_u64(self.sum)
        });
        let digest = cell.repr_hash().0;
        Statement { network, bond: bond.clone(), kind: KIND_LIABILITIES, number: self.epoch, digest }
    }
}

/// Two statements of one key, kind and number that differ. Only [`contradiction`] makes one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Contradiction {
    first: SignedStatement,
    second: SignedStatement,
}

impl Contradiction {
    /// The one.
    pub fn first(&self) -> &SignedStatement {
        &self.first
    }

    /// The other.
    pub fn second(&self) -> &SignedStatement {
        &self.second
    }
}

/// The proof against a bond, if these two statements are one.
///
/// # Errors
/// A statement that this bond does not answer for, or two that do not contradict each other.
pub fn contradiction(
    terms: &Terms,
    first: &SignedStatement,
    second: &SignedStatement,
) -> Result<Contradiction, StatementError> {
    first.verify_for(terms)?;
    second.verify_for(terms)?;
    let (a, b) = (&first.statement, &second.statement);
    if (a.kind, a.number) != (b.kind, b.number) || a.digest == b.digest {
        return Err(StatementError::NoContradiction);
    }
    Ok(Contradiction { first: first.clone(), second: second.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> SigningKey {
        SigningKey::from_seed(&[1; 32])
    }

    fn terms() -> Terms {
        let address = |byte| Address::new(0, HashBytes([byte; 32]));
        Terms {
            operator: address(1),
            operator_key: key().public(),
            treasury: address(2),
            network: -217,
            delay_seconds: 60,
            salt: 3,
            platforms: vec![[9; 32]],
        }
    }

    fn statement(number: u64, digest: u8) -> Statement {
        let bond = terms().address();
        Statement { network: -217, bond, kind: KIND_LISTING, number, digest: [digest; 32] }
    }

    #[test]
    fn statements_have_one_encoding_and_every_flipped_bit_is_refused() {
        let signed = statement(7, 1).sign(&key());
        let bytes = signed.encode();
        assert_eq!(bytes.len(), SIGNED_STATEMENT_BYTES);
        assert_eq!(SignedStatement::decode(&bytes), Ok(signed));
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let outcome = SignedStatement::decode(&flipped).and_then(|it| it.verify_for(&terms()));
            assert!(outcome.is_err(), "bit {bit}");
        }
        for length in 0..bytes.len() {
            assert!(SignedStatement::decode(&bytes[..length]).is_err());
        }
    }

    #[test]
    fn a_contradiction_is_of_one_key_kind_and_number() {
        let good = statement(7, 1).sign(&key());
        let other = statement(7, 2).sign(&key());
        assert!(contradiction(&terms(), &good, &other).is_ok());
        let refused = |other: &SignedStatement| contradiction(&terms(), &good, other).unwrap_err();
        assert_eq!(refused(&good), StatementError::NoContradiction);
        assert_eq!(refused(&statement(8, 2).sign(&key())), StatementError::NoContradiction);
        let kind = Statement { kind: KIND_LIABILITIES, ..statement(7, 2) }.sign(&key());
        assert_eq!(refused(&kind), StatementError::NoContradiction);
        let stranger = statement(7, 2).sign(&SigningKey::from_seed(&[2; 32]));
        assert_eq!(refused(&stranger), StatementError::WrongSigner);
        let network = Statement { network: -1, ..statement(7, 2) }.sign(&key());
        assert!(matches!(refused(&network), StatementError::WrongBond { network: -1, .. }));
    }
}
