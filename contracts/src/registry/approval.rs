//! What owners sign, and its way from one to the next until enough have signed: without a server, as a file.

use std::collections::BTreeMap;

use tycho_types::cell::{Cell, CellFamily, HashBytes, Load, Store};
use tycho_types::error::Error;

use super::{Change, Owners, Registry};
use crate::{Address, Malformed, SigningKey, VerifyingKey, build_cell, message, verify_signature};

/// The tag of the signed cell, `Decision` in `registry.tolk`.
const DECISION_TAG: u32 = 0x5247_4101;
/// The tag of an approval that travels as bytes.
const FILE_TAG: u32 = 0x5247_4102;
/// The largest approval that is read, in bytes. What goes to the chain must be smaller still: a wallet's message has room for
/// [`message::MAX_MESSAGE_BYTES`].
pub const MAX_APPROVAL_BYTES: usize = 256 * 1024;
/// Most cells that may hang in the chain of signatures.
const MAX_SIGNATURES: usize = super::MAX_OWNERS;

/// What is decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// To announce a change.
    Propose,
    /// To take the announced change back.
    Cancel,
}

impl Action {
    const fn tag(self) -> u8 {
        match self {
            Self::Propose => 1,
            Self::Cancel => 2,
        }
    }
}

/// Why an approval is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApprovalError {
    /// The bytes are no approval, or its change is none.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// This key owns nothing here.
    #[error("the key {} is none of the registry's owners: sign with an owner's key", hex::encode(.0))]
    NotAnOwner(VerifyingKey),
    /// A signature is not the owner's, or of something else.
    #[error("the signature of owner {0} does not verify: let him sign this very file again")]
    WrongSignature(u8),
    /// Not enough owners have signed.
    #[error("{have} of {need} necessary owners have signed: hand the file to another owner")]
    TooFew {
        /// Signatures that are there.
        have: u8,
        /// Signatures that it takes.
        need: u8,
    },
    /// The registry is not what this was signed for.
    #[error("this approval is for another {0} than the registry's: make a new one")]
    Stale(&'static str),
    /// It is too late.
    #[error("this approval was valid until {valid_until}, and it is {now}: make a new one")]
    Expired {
        /// Its last second, Unix time.
        valid_until: u32,
        /// The clock's second, Unix time.
        now: u64,
    },
    /// There is nothing to cancel.
    #[error("nothing is proposed: there is nothing to cancel")]
    NothingProposed,
    /// Two files that are not about the same.
    #[error("these two approvals are of different decisions: they cannot be put together")]
    Different,
}

/// A decision and the signatures collected for it. Whatever is in here verified: signatures are added one by one, and bytes
/// with a wrong one are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    decision: Decision,
    owners: Owners,
    change: Option<Change>,
    signatures: BTreeMap<u8, [u8; 64]>,
}

impl Approval {
    /// To announce a change of the registry as it stands; `valid_until` is the last second (Unix time) in which the contract
    /// takes the signatures.
    ///
    /// # Errors
    /// A content outside its bounds.
    pub fn to_propose(
        network: i32,
        address: &Address,
        registry: &Registry,
        change: Change,
        valid_until: u32,
    ) -> Result<Self, ApprovalError> {
        let subject = change.hash()?;
        let decision = Decision::of(Action::Propose, network, address, registry, subject, valid_until);
        Ok(Self {
            decision,
            owners: registry.owners.clone(),
            change: Some(change),
            signatures: BTreeMap::new(),
        })
    }

    /// To take back what is announced.
    ///
    /// # Errors
    /// [`ApprovalError::NothingProposed`].
    pub fn to_cancel(
        network: i32,
        address: &Address,
        registry: &Registry,
        valid_until: u32,
    ) -> Result<Self, ApprovalError> {
        let subject = registry.proposal.as_ref().ok_or(ApprovalError::NothingProposed)?.subject;
        let decision = Decision::of(Action::Cancel, network, address, registry, subject, valid_until);
        Ok(Self { decision, owners: registry.owners.clone(), change: None, signatures: BTreeMap::new() })
    }

    /// What is decided.
    pub fn action(&self) -> Action {
        self.decision.action
    }

    /// The registry that it is for.
    pub fn registry(&self) -> &Address {
        &self.decision.registry
    }

    /// What would count, for a proposal: to be looked at before signing.
    pub fn change(&self) -> Option<&Change> {
        self.change.as_ref()
    }

    /// The last second in which it counts, Unix time.
    pub fn valid_until(&self) -> u32 {
        self.decision.valid_until
    }

    /// The hash that owners sign.
    pub fn hash(&self) -> [u8; 32] {
        self.decision.cell().repr_hash().0
    }

    /// Who has signed, by number.
    pub fn signers(&self) -> impl Iterator<Item = u8> {
        self.signatures.keys().copied()
    }

    /// How many signatures are missing; 0 when it can be sent.
    pub fn missing(&self) -> u8 {
        let have = u8::try_from(self.signatures.len()).expect("there are at most 16 owners");
        self.needed().saturating_sub(have)
    }

    /// Adds an owner's signature. Signing again changes nothing.
    ///
    /// # Errors
    /// [`ApprovalError::NotAnOwner`].
    pub fn sign(&mut self, key: &SigningKey) -> Result<(), ApprovalError> {
        let public = key.public();
        let number = self.owners.number(&public).ok_or(ApprovalError::NotAnOwner(public))?;
        self.signatures.insert(number, key.sign(&self.hash()));
        Ok(())
    }

    /// Adds a signature that an owner made elsewhere over [`Approval::hash`].
    ///
    /// # Errors
    /// [`ApprovalError::NotAnOwner`] or [`ApprovalError::WrongSignature`].
    pub fn add(&mut self, key: &VerifyingKey, signature: [u8; 64]) -> Result<(), ApprovalError> {
        let number = self.owners.number(key).ok_or(ApprovalError::NotAnOwner(*key))?;
        if !verify_signature(key, &self.hash(), &signature) {
            return Err(ApprovalError::WrongSignature(number));
        }
        self.signatures.insert(number, signature);
        Ok(())
    }

    /// Takes over the signatures of another copy, whose owners signed at the same time.
    ///
    /// # Errors
    /// [`ApprovalError::Different`] when it is of another decision.
    pub fn merge(&mut self, other: &Self) -> Result<(), ApprovalError> {
        if (&self.decision, &self.owners) != (&other.decision, &other.owners) {
            return Err(ApprovalError::Different);
        }
        self.signatures.extend(&other.signatures);
        Ok(())
    }

    /// Compares with the registry that the chain shows now, and with the clock (Unix time): before signing, and before
    /// sending.
    ///
    /// # Errors
    /// What differs, as [`ApprovalError::Stale`]; or [`ApprovalError::Expired`].
    pub fn check(
        &self,
        network: i32,
        address: &Address,
        registry: &Registry,
        now: u64,
    ) -> Result<(), ApprovalError> {
        let Decision {
            network: its_network,
            registry: its_address,
            version,
            proposals,
            action,
            subject,
            valid_until,
        } = &self.decision;
        let proposed = registry.proposal.as_ref().map(|proposal| proposal.subject);
        let subject_holds = match action {
            Action::Propose => true,
            Action::Cancel => proposed == Some(*subject),
        };
        for (holds, what) in [
            (*its_network == network, "network"),
            (its_address == address, "address"),
            (*version == registry.version, "version"),
            (*proposals == registry.proposals, "number of proposals"),
            (self.owners == registry.owners, "set of owners"),
            (subject_holds, "announced change"),
        ] {
            if !holds {
                return Err(ApprovalError::Stale(what));
            }
        }
        if now > u64::from(*valid_until) {
            return Err(ApprovalError::Expired { valid_until: *valid_until, now });
        }
        Ok(())
    }

    /// The message's body that carries the decision out, from whatever wallet.
    ///
    /// # Errors
    /// [`ApprovalError::TooFew`].
    pub fn body(&self) -> Result<Cell, ApprovalError> {
        let (need, missing) = (self.needed(), self.missing());
        let signatures = self.signature_cells().filter(|_| missing == 0);
        let signatures = signatures.ok_or(ApprovalError::TooFew { have: need - missing, need })?;
        let change = self.change.as_ref().map(Change::to_cell).transpose()?;
        let op = match self.decision.action {
            Action::Propose => super::PROPOSE,
            Action::Cancel => super::CANCEL,
        };
        Ok(build_cell(|b| {
            b.store_u32(op)?;
            b.store_u32(self.decision.valid_until)?;
            change.map_or(Ok(()), |change| b.store_reference(change))?;
            b.store_reference(signatures)
        }))
    }

    /// The form in which it goes from owner to owner: a bag of cells.
    ///
    /// # Errors
    /// A content outside its bounds.
    pub fn to_bytes(&self) -> Result<Vec<u8>, ApprovalError> {
        let change = self.change.as_ref().map(Change::to_cell).transpose()?;
        Ok(message::encode(&build_cell(|b| {
            b.store_u32(FILE_TAG)?;
            b.store_reference(self.decision.cell())?;
            b.store_reference(self.owners.to_cell())?;
            change.store_into(b, Cell::empty_context())?;
            self.signature_cells().store_into(b, Cell::empty_context())
        })))
    }

    /// Reads [`Approval::to_bytes`]'s form and verifies all that is in it. That the owners are the registry's, and the
    /// decision is about its present version, only [`Approval::check`] tells.
    ///
    /// # Errors
    /// Bytes that are no approval, a change that is not the decision's, a wrong signature.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ApprovalError> {
        let root = message::decode(bytes, MAX_APPROVAL_BYTES)?;
        let raw = Raw::load(&root).map_err(|error| malformed(&error))?;
        let owners = Owners::parse(&raw.owners)?;
        let change = raw.change.as_ref().map(Change::parse).transpose()?;
        if change.is_some() != (raw.decision.action == Action::Propose) {
            return Err(malformed(&"a proposal brings a change, and nothing else does").into());
        }
        if let Some(change) = &change
            && change.hash()? != raw.decision.subject
        {
            return Err(malformed(&"its change is not the one that is decided").into());
        }
        let mut approval = Self { decision: raw.decision, owners, change, signatures: BTreeMap::new() };
        for (number, signature) in raw.signatures {
            let key = approval.owners.keys().get(usize::from(number)).copied();
            approval.add(&key.ok_or(ApprovalError::WrongSignature(number))?, signature)?;
        }
        Ok(approval)
    }

    fn needed(&self) -> u8 {
        match self.decision.action {
            Action::Propose => self.owners.required(),
            Action::Cancel => self.owners.blocking(),
        }
    }

    /// The signatures as the contract reads them: a chain of cells, by ascending numbers.
    fn signature_cells(&self) -> Option<Cell> {
        self.signatures.iter().rev().fold(None, |next, (number, signature)| {
            Some(build_cell(|b| {
                b.store_u8(*number)?;
                b.store_raw(signature, 512)?;
                next.store_into(b, Cell::empty_context())
            }))
        })
    }
}

/// The signed cell's content.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Decision {
    network: i32,
    registry: Address,
    version: u32,
    /// How many were announced before: a signature counts once.
    proposals: u32,
    action: Action,
    /// The hash of the change.
    subject: [u8; 32],
    valid_until: u32,
}

impl Decision {
    fn of(
        action: Action,
        network: i32,
        address: &Address,
        registry: &Registry,
        subject: [u8; 32],
        valid_until: u32,
    ) -> Self {
        let (version, proposals) = (registry.version, registry.proposals);
        Self { network, registry: address.clone(), version, proposals, action, subject, valid_until }
    }

    fn cell(&self) -> Cell {
        build_cell(|b| {
            b.store_u32(DECISION_TAG)?;
            b.store_u32(self.network.cast_unsigned())?;
            self.registry.store_into(b, Cell::empty_context())?;
            b.store_u32(self.version)?;
            b.store_u32(self.proposals)?;
            b.store_u8(self.action.tag())?;
            b.store_u256(&HashBytes(self.subject))?;
            b.store_u32(self.valid_until)
        })
    }

    fn load(cell: &Cell) -> Result<Self, Error> {
        let mut slice = cell.as_slice()?;
        if slice.load_u32()? != DECISION_TAG {
            return Err(Error::InvalidTag);
        }
        Ok(Self {
            network: slice.load_u32()?.cast_signed(),
            registry: Address::load_from(&mut slice)?,
            version: slice.load_u32()?,
            proposals: slice.load_u32()?,
            action: match slice.load_u8()? {
                1 => Action::Propose,
                2 => Action::Cancel,
                _ => return Err(Error::InvalidTag),
            },
            subject: slice.load_u256()?.0,
            valid_until: slice.load_u32()?,
        })
    }
}

/// An approval's bytes, taken apart and not verified.
struct Raw {
    decision: Decision,
    owners: Cell,
    change: Option<Cell>,
    signatures: Vec<(u8, [u8; 64])>,
}

impl Raw {
    fn load(root: &Cell) -> Result<Self, Error> {
        let mut slice = root.as_slice()?;
        if slice.load_u32()? != FILE_TAG {
            return Err(Error::InvalidTag);
        }
        let decision = Decision::load(&slice.load_reference_cloned()?)?;
        let owners = slice.load_reference_cloned()?;
        let change = Option::<Cell>::load_from(&mut slice)?;
        let signatures = signatures(Option::<Cell>::load_from(&mut slice)?)?;
        Ok(Self { decision, owners, change, signatures })
    }
}

/// A chain of signatures by their owners' numbers, as it travels. Nothing is verified.
pub(super) fn signatures(mut next: Option<Cell>) -> Result<Vec<(u8, [u8; 64])>, Error> {
    let mut signatures = Vec::new();
    while let Some(cell) = next {
        if signatures.len() == MAX_SIGNATURES {
            return Err(Error::InvalidData);
        }
        let mut slice = cell.as_slice()?;
        let number = slice.load_u8()?;
        let mut signature = [0; 64];
        slice.load_raw(&mut signature, 512)?;
        signatures.push((number, signature));
        next = Option::<Cell>::load_from(&mut slice)?;
    }
    Ok(signatures)
}

fn malformed(why: &dyn std::fmt::Display) -> Malformed {
    Malformed::new("approval", why)
}
