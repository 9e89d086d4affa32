//! A seed under a passphrase: Argon2id (RFC 9106) makes the key, ChaCha20-Poly1305 (RFC 8439) seals.

use argon2::{Algorithm, Argon2, Params, Version};
use cocoon_contracts::KeyError;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::rand::{SecureRandom, SystemRandom};
use zeroize::Zeroizing;

use crate::Passphrase;

const SALT: usize = 16;
/// The seed and the tag behind it.
const SEALED: usize = 32 + 16;

/// What guessing a passphrase costs. In the file, so that it can grow with machines; bounded when read, so that a foreign
/// file can ask for neither all memory nor an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cost {
    /// Memory, in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
}

impl Cost {
    /// For new keys: 64 MiB, three passes (the second choice of RFC 9106, section 4). A fifth of a second.
    pub const DEFAULT: Self = Self { memory_kib: 64 * 1024, passes: 3 };
    /// The most memory that a file may ask for: 1 GiB.
    pub const MAX_MEMORY_KIB: u32 = 1024 * 1024;
    /// The most passes.
    pub const MAX_PASSES: u32 = 16;
    const MIN_MEMORY_KIB: u32 = 8;

    /// Whether it is within the bounds.
    pub fn is_bounded(self) -> bool {
        (Self::MIN_MEMORY_KIB..=Self::MAX_MEMORY_KIB).contains(&self.memory_kib)
            && (1..=Self::MAX_PASSES).contains(&self.passes)
    }
}

/// A sealed seed, as it lies in a file: `argon2id MEMORY PASSES SALT NONCE SEALED`, numbers in decimal, bytes in hex.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sealed {
    cost: Cost,
    salt: [u8; SALT],
    nonce: [u8; NONCE_LEN],
    sealed: [u8; SEALED],
}

impl Sealed {
    pub(crate) const WORD: &'static str = "argon2id";

    /// Seals a seed. `header` is bound to it: opening with another one fails.
    pub(crate) fn seal(
        seed: &[u8; 32],
        passphrase: &Passphrase,
        cost: Cost,
        header: &str,
    ) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let (mut salt, mut nonce) = ([0; SALT], [0; NONCE_LEN]);
        random.fill(&mut salt).and_then(|()| random.fill(&mut nonce)).map_err(|_| KeyError::NoRandom)?;
        let mut new = Self { cost, salt, nonce, sealed: [0; SEALED] };
        let mut text = Zeroizing::new(*seed);
        let tag = new
            .cipher(passphrase)
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::from(new.bound(header)),
                &mut *text,
            )
            .expect("32 bytes are not too long to seal");
        let (head, tail) = new.sealed.split_at_mut(32);
        head.copy_from_slice(&*text);
        tail.copy_from_slice(tag.as_ref());
        Ok(new)
    }

    /// The seed; `None` when the passphrase is wrong, or a bit of file or header was changed.
    pub(crate) fn open(&self, passphrase: &Passphrase, header: &str) -> Option<Zeroizing<[u8; 32]>> {
        let mut text = Zeroizing::new(self.sealed);
        let nonce = Nonce::assume_unique_for_key(self.nonce);
        let opened =
            self.cipher(passphrase).open_in_place(nonce, Aad::from(self.bound(header)), &mut *text).ok()?;
        Some(Zeroizing::new(*opened.first_chunk().expect("what was sealed is a seed")))
    }

    pub(crate) fn to_line(&self) -> String {
        let Self { cost: Cost { memory_kib, passes }, salt, nonce, sealed } = self;
        let [salt, nonce, sealed] = [hex::encode(salt), hex::encode(nonce), hex::encode(sealed)];
        format!("{} {memory_kib} {passes} {salt} {nonce} {sealed}", Self::WORD)
    }

    /// Reads what stands behind the word.
    pub(crate) fn parse(words: &[&str]) -> Result<Self, &'static str> {
        let [memory, passes, salt, nonce, sealed] = words else {
            return Err("the sealed key is not complete");
        };
        let number = |text: &str| text.parse().map_err(|_| "the cost of its passphrase is not a number");
        let cost = Cost { memory_kib: number(memory)?, passes: number(passes)? };
        if !cost.is_bounded() {
            return Err("it asks for more memory or time than any key of ours does");
        }
        Ok(Self { cost, salt: bytes(salt)?, nonce: bytes(nonce)?, sealed: bytes(sealed)? })
    }

    fn cipher(&self, passphrase: &Passphrase) -> LessSafeKey {
        let params = Params::new(self.cost.memory_kib, self.cost.passes, 1, Some(32))
            .expect("the cost is within bounds that Argon2 takes");
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase.expose(), &self.salt, &mut *key)
            .expect("lengths are within the bounds of Argon2");
        LessSafeKey::new(UnboundKey::new(&CHACHA20_POLY1305, &*key).expect("its keys have 32 bytes"))
    }

    /// What is authenticated beside the seed: what the file says of the key, and the cost. (Salt and nonce make themselves
    /// felt.)
    fn bound(&self, header: &str) -> Vec<u8> {
        format!("{header}{} {} {}", Self::WORD, self.cost.memory_kib, self.cost.passes).into_bytes()
    }
}

fn bytes<const N: usize>(text: &str) -> Result<[u8; N], &'static str> {
    let mut out = [0; N];
    hex::decode_to_slice(text, &mut out).map_err(|_| "the sealed key is not complete")?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_of_today_open_with_other_implementations_too() {
        let sealed = Sealed {
            cost: Cost { memory_kib: 8, passes: 1 },
            salt: [1; SALT],
            nonce: [2; NONCE_LEN],
            sealed: [0; SEALED],
        };
        let mut text = [0; 32];
        let passphrase = Passphrase::new("open sesame").ok().unwrap();
        let _tag = sealed
            .cipher(&passphrase)
            .seal_in_place_separate_tag(Nonce::assume_unique_for_key([2; NONCE_LEN]), Aad::empty(), &mut text)
            .unwrap();
        assert_eq!(hex::encode(text), KEYSTREAM);
    }

    /// Of argon2-cffi and cryptography (Python): `hash_secret_raw(b"open sesame", b"\x01" * 16, 1, 8, 1, 32, Type.ID)`,
    /// then `ChaCha20Poly1305(key).encrypt(b"\x02" * 12, bytes(32), None)[:32]`.
    const KEYSTREAM: &str = "d4955d14c43565fdb96756836ff277445e5f3fb2d8df38a42d51b6ba79c82b5d";
}
