//! Who owns a registry: m of n keys.

use tycho_types::cell::{Cell, CellFamily, HashBytes, Load, Store};
use tycho_types::dict::Dict;
use tycho_types::error::Error;

use crate::{KeyError, Malformed, VerifyingKey, build_cell, check_key};

/// Most keys that may own a registry.
pub const MAX_OWNERS: usize = 16;

/// Why keys cannot own a registry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnersError {
    /// There are none, or too many.
    #[error("{0} keys cannot own a registry: 1 to {MAX_OWNERS} can")]
    Count(usize),
    /// More signatures would be required than there are keys, or none.
    #[error("{required} of {count} signatures cannot be required: 1 to {count} can")]
    Required {
        /// What was asked for.
        required: u8,
        /// How many keys there are.
        count: usize,
    },
    /// One key twice would count twice.
    #[error("the key {} is named twice: every owner has a key of his own", hex::encode(.0))]
    Twice(VerifyingKey),
    /// A key proves nothing.
    #[error("the owner's key {} cannot be used: {why}", hex::encode(.key))]
    Key {
        /// The key.
        key: VerifyingKey,
        /// What is wrong with it.
        why: KeyError,
    },
}

/// Keys of which a number must agree. Only made of distinct, sound keys; in ascending order, so that each has a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owners {
    required: u8,
    keys: Vec<VerifyingKey>,
}

impl Owners {
    /// Any `required` of these keys, in whatever order.
    ///
    /// # Errors
    /// [`OwnersError`]: keys or a number with which a registry could not be deployed.
    pub fn new(required: u8, keys: impl IntoIterator<Item = VerifyingKey>) -> Result<Self, OwnersError> {
        let mut keys: Vec<VerifyingKey> = keys.into_iter().take(MAX_OWNERS + 1).collect();
        keys.sort_unstable();
        let count = keys.len();
        if !(1..=MAX_OWNERS).contains(&count) {
            return Err(OwnersError::Count(count));
        }
        if required == 0 || usize::from(required) > count {
            return Err(OwnersError::Required { required, count });
        }
        if let Some(twice) = keys.array_windows().find_map(|[a, b]| (a == b).then_some(*a)) {
            return Err(OwnersError::Twice(twice));
        }
        for key in &keys {
            check_key(key).map_err(|why| OwnersError::Key { key: *key, why })?;
        }
        Ok(Self { required, keys })
    }

    /// How many must agree to propose.
    pub fn required(&self) -> u8 {
        self.required
    }

    /// How many suffice to cancel: as many as can deny a proposal its number.
    pub fn blocking(&self) -> u8 {
        let count = u8::try_from(self.keys.len()).expect("there are at most 16");
        count - self.required + 1
    }

    /// The keys, ascending; a key's place is its number.
    pub fn keys(&self) -> &[VerifyingKey] {
        &self.keys
    }

    /// The number of a key, if it is an owner's.
    pub fn number(&self, key: &VerifyingKey) -> Option<u8> {
        self.keys.binary_search(key).ok().and_then(|at| u8::try_from(at).ok())
    }

    pub(super) fn to_cell(&self) -> Cell {
        let mut keys = Dict::<u8, HashBytes>::new();
        for (number, key) in (0u8..).zip(&self.keys) {
            keys.set(number, HashBytes(*key)).expect("a number and a key fit in a dictionary");
        }
        build_cell(|b| {
            b.store_u8(self.required)?;
            b.store_u8(u8::try_from(self.keys.len()).expect("there are at most 16"))?;
            keys.store_into(b, Cell::empty_context())
        })
    }

    pub(super) fn parse(cell: &Cell) -> Result<Self, Malformed> {
        let malformed = |why: &dyn std::fmt::Display| Malformed::new("registry owners", why);
        let (required, count, keys) = Self::load(cell).map_err(|error| malformed(&error))?;
        let owners = Self::new(required, keys.iter().copied()).map_err(|error| malformed(&error))?;
        if usize::from(count) != keys.len() || owners.keys != keys {
            return Err(malformed(&"the keys are not as many as they say, or not in ascending order"));
        }
        Ok(owners)
    }

    fn load(cell: &Cell) -> Result<(u8, u8, Vec<VerifyingKey>), Error> {
        let mut slice = cell.as_slice()?;
        let (required, count) = (slice.load_u8()?, slice.load_u8()?);
        let mut keys = Vec::new();
        for (expected, entry) in (0u8..).zip(Dict::<u8, HashBytes>::load_from(&mut slice)?.iter()) {
            let (number, key) = entry?;
            if number != expected || keys.len() == MAX_OWNERS {
                return Err(Error::InvalidData);
            }
            keys.push(key.0);
        }
        Ok((required, count, keys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SigningKey;

    fn key(seed: u8) -> VerifyingKey {
        SigningKey::from_seed(&[seed; 32]).public()
    }

    #[test]
    fn keys_survive_their_cell_in_one_order() {
        let owners = Owners::new(2, [key(3), key(1), key(2)]).unwrap();
        assert_eq!(Owners::new(2, [key(1), key(2), key(3)]).unwrap(), owners);
        assert_eq!(Owners::parse(&owners.to_cell()).unwrap(), owners);
        assert_eq!((owners.required(), owners.blocking()), (2, 2));
        for seed in 1..=3 {
            let number = owners.number(&key(seed)).unwrap();
            assert_eq!(owners.keys()[usize::from(number)], key(seed));
        }
        assert_eq!(owners.number(&key(4)), None);
    }

    #[test]
    fn a_minority_that_can_block_is_what_a_majority_leaves() {
        for (required, count, blocking) in [(1, 1, 1), (1, 3, 3), (2, 3, 2), (3, 3, 1), (11, 16, 6)] {
            assert_eq!(Owners::new(required, (1..=count).map(key)).unwrap().blocking(), blocking);
        }
    }

    #[test]
    fn refuses_keys_that_could_not_own_a_registry() {
        assert_eq!(Owners::new(1, []), Err(OwnersError::Count(0)));
        assert_eq!(Owners::new(1, (1..=17).map(key)), Err(OwnersError::Count(17)));
        assert_eq!(Owners::new(0, [key(1)]), Err(OwnersError::Required { required: 0, count: 1 }));
        assert_eq!(Owners::new(2, [key(1)]), Err(OwnersError::Required { required: 2, count: 1 }));
        assert_eq!(Owners::new(1, [key(1), key(1)]), Err(OwnersError::Twice(key(1))));
        let zero = [0; 32];
        let refused = OwnersError::Key { key: zero, why: KeyError::SmallOrder };
        assert_eq!(Owners::new(1, [key(1), zero]), Err(refused));
    }
}
