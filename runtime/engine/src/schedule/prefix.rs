//! Names of blocks: what a block's keys and values depend on, hashed.
//!
//! A block of 16 tokens is named by its tokens, all tokens before it and a salt:
//! `name₀ = SHA-256("cocoon prefix v1" ‖ kind ‖ salt)`, `nameₖ = SHA-256(nameₖ₋₁ ‖ 16 tokens as u32le)`. Equal names mean
//! equal contents, and without the salt nobody can make a request that meets another's block.

use sha2::{Digest, Sha256};

use crate::kernels::PAGE;

const DOMAIN: &[u8] = b"cocoon prefix v1";
const SALTED: u8 = 1;
const OWN: u8 = 2;

/// What separates the prefix caches of those who ask. It cannot be printed: it is a secret.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Salt([u8; 32]);

impl Salt {
    /// Made of a secret of any length, by SHA-256.
    pub fn new(secret: &[u8]) -> Self {
        Self(Sha256::digest(secret).into())
    }
}

/// The name of a full block.
pub(crate) type Name = [u8; 32];

/// The names of a sequence's full blocks, as far as they were asked for.
pub(crate) struct Chain {
    root: Name,
    names: Vec<Name>,
}

impl Chain {
    /// Of requests with a salt; or of one request, by its number, that shares with nobody.
    pub(crate) fn new(salt: Option<Salt>, id: u64) -> Self {
        let hash = Sha256::new().chain_update(DOMAIN);
        let root = match salt {
            Some(salt) => hash.chain_update([SALTED]).chain_update(salt.0),
            None => hash.chain_update([OWN]).chain_update(id.to_le_bytes()),
        };
        Self { root: root.finalize().into(), names: Vec::new() }
    }

    /// The names of the first `blocks` blocks of `tokens`, which begin as they did in every earlier call.
    pub(crate) fn names(&mut self, tokens: &[u32], blocks: usize) -> &[Name] {
        for block in self.names.len()..blocks {
            let mut hash = Sha256::new_with_prefix(self.names.last().unwrap_or(&self.root));
            for token in &tokens[block * PAGE..(block + 1) * PAGE] {
                hash.update(token.to_le_bytes());
            }
            self.names.push(hash.finalize().into());
        }
        &self.names[..blocks]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn last(salt: Option<Salt>, id: u64, tokens: &[u32]) -> Name {
        let blocks = tokens.len() / PAGE;
        *Chain::new(salt, id).names(tokens, blocks).last().expect("a full block")
    }

    #[test]
    fn a_name_depends_on_salt_position_and_every_token_before() {
        let tokens: Vec<u32> = (0..48).collect();
        let (salt, other) = (Some(Salt::new(b"one")), Some(Salt::new(b"two")));
        let name = last(salt, 1, &tokens);
        assert_eq!(last(salt, 2, &tokens), name, "a request's number does not matter under a salt");
        assert_ne!(last(other, 1, &tokens), name);
        assert_ne!(last(None, 1, &tokens), name);
        assert_ne!(last(None, 1, &tokens), last(None, 2, &tokens), "without a salt a request is alone");
        for changed in 0..48 {
            let mut tokens = tokens.clone();
            tokens[changed] ^= 1;
            assert_ne!(last(salt, 1, &tokens), name, "token {changed}");
        }
        assert_ne!(last(salt, 1, &tokens[16..]), name, "its place");
    }

    #[test]
    fn names_in_pieces_are_the_names_of_the_whole() {
        let tokens: Vec<u32> = (0..64).collect();
        let mut chain = Chain::new(None, 7);
        let first = chain.names(&tokens[..16], 1).to_vec();
        let all = chain.names(&tokens, 4).to_vec();
        assert_eq!(all[..1], first);
        assert_eq!(Chain::new(None, 7).names(&tokens, 4), all);
    }
}
