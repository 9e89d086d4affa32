//! What was asked of a registry, read from the bodies of the messages that it took: the material of its history.

use tycho_types::cell::{Cell, Load};
use tycho_types::error::Error;

use super::{ACTIVATE, CANCEL, Change, PROPOSE, TOP_UP, approval};
use crate::Malformed;

/// A message's request. That it was granted, its transaction says: one that was not aborted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A change was announced.
    Propose {
        /// What was announced; an error where the lists behind its head, which the contract does not read, are not
        /// readable.
        change: Box<Result<Change, Malformed>>,
        /// The numbers of the owners who signed. The contract verified them.
        signers: Vec<u8>,
    },
    /// The announcement was taken back.
    Cancel {
        /// As in [`Operation::Propose`].
        signers: Vec<u8>,
    },
    /// The announcement came to count.
    Activate {
        /// The version in force before.
        version: u32,
    },
    /// Rent was paid, or the registry deployed.
    TopUp,
}

impl Operation {
    /// Reads a message's body; `None` when it is none that a registry takes.
    pub fn parse(body: &Cell) -> Option<Self> {
        Self::load(body).ok()
    }

    fn load(body: &Cell) -> Result<Self, Error> {
        let mut slice = body.as_slice()?;
        let opcode = slice.load_u32()?;
        Ok(match opcode {
            PROPOSE => {
                slice.load_u32()?;
                let change = Box::new(Change::parse(&slice.load_reference_cloned()?));
                Self::Propose { change, signers: signers(slice.load_reference_cloned()?)? }
            }
            CANCEL => {
                slice.load_u32()?;
                Self::Cancel { signers: signers(slice.load_reference_cloned()?)? }
            }
            ACTIVATE => Self::Activate { version: u32::load_from(&mut slice)? },
            TOP_UP => Self::TopUp,
            _ => return Err(Error::InvalidTag),
        })
    }
}

fn signers(chain: Cell) -> Result<Vec<u8>, Error> {
    Ok(approval::signatures(Some(chain))?.into_iter().map(|(number, _)| number).collect())
}

#[cfg(test)]
mod tests {
    use super::super::{Approval, Content, Owners, Registry, activate_body, top_up_body};
    use super::*;
    use crate::{Address, SigningKey};

    #[test]
    fn what_owners_sent_is_read_back() {
        let keys = [SigningKey::from_seed(&[1; 32]), SigningKey::from_seed(&[2; 32])];
        let owners = Owners::new(2, keys.iter().map(SigningKey::public)).unwrap();
        let content = Content::empty(5, Address::ZERO);
        let (before, change) = (content.clone(), Change { owners: owners.clone(), content });
        let mut registry =
            Registry { version: 1, delay: 1, proposals: 0, owners, content: before, proposal: None };
        let mut approval = Approval::to_propose(-3, &Address::ZERO, &registry, change.clone(), 9).unwrap();
        keys.iter().for_each(|key| approval.sign(key).unwrap());
        let read = Operation::parse(&approval.body().unwrap()).unwrap();
        assert_eq!(read, Operation::Propose { change: Box::new(Ok(change.clone())), signers: vec![0, 1] });

        let subject = change.hash().unwrap();
        registry.proposal = Some(super::super::Proposal { ready_at: 5, subject, change: Ok(change) });
        let mut cancel = Approval::to_cancel(-3, &Address::ZERO, &registry, 9).unwrap();
        cancel.sign(&keys[1]).unwrap();
        let signer = registry.owners.number(&keys[1].public()).unwrap();
        assert_eq!(
            Operation::parse(&cancel.body().unwrap()),
            Some(Operation::Cancel { signers: vec![signer] })
        );
        assert_eq!(Operation::parse(&activate_body(7)), Some(Operation::Activate { version: 7 }));
        assert_eq!(Operation::parse(&top_up_body()), Some(Operation::TopUp));
    }

    #[test]
    fn what_no_registry_takes_is_nothing() {
        assert_eq!(Operation::parse(&Cell::default()), None);
        assert_eq!(Operation::parse(&crate::channel::collect_body()), None);
        assert_eq!(
            Operation::parse(&crate::build_cell(|b| b.store_u32(PROPOSE))),
            None,
            "without its change"
        );
    }
}
