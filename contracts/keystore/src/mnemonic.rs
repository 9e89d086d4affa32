//! TON mnemonics: 24 words of the English list of BIP-39, with a derivation of TON's own (`tonlib/keys/Mnemonic.cpp`; the
//! npm package @ton/crypto does the same).
//!
//! ```text
//! entropy = HMAC-SHA512(key: the words with spaces between them, message: password)
//! valid     when PBKDF2-SHA512(entropy, "TON seed version", 390)[0] == 0
//! password  is needed when, of the entropy without one, PBKDF2-SHA512(…, "TON fast seed version", 1)[0] == 1
//!           and it is not valid itself
//! seed    = PBKDF2-SHA512(entropy, "TON default seed", 100 000)[..32]
//! ```

use std::num::NonZeroU32;
use std::sync::LazyLock;

use cocoon_contracts::{KeyError, SigningKey};
use ring::rand::{SecureRandom, SystemRandom};
use ring::{hmac, pbkdf2};
use zeroize::{Zeroize, Zeroizing};

use crate::{KeystoreError, MnemonicError, Passphrase};

/// How many words a mnemonic has.
pub const WORDS: usize = 24;
/// The longest word of the list has so many letters.
const LONGEST: usize = 8;
const ITERATIONS: u32 = 100_000;

static LIST: LazyLock<Vec<&'static str>> = LazyLock::new(|| include_str!("english.txt").lines().collect());

/// 24 words that stand for a key. Has no `Debug`, no `Display`, and is wiped when dropped:
///
/// ```compile_fail
/// println!("{:?}", cocoon_keystore::Mnemonic::generate(None));
/// ```
pub struct Mnemonic {
    places: Zeroizing<[u16; WORDS]>,
}

impl Mnemonic {
    /// New words from the system's random generator; with a password of their own if one is given: without it they open
    /// nothing. Takes about a tenth of a second.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn generate(password: Option<&Passphrase>) -> Result<Self, KeystoreError> {
        let random = SystemRandom::new();
        loop {
            let mut bytes = Zeroizing::new([0; 2 * WORDS]);
            random.fill(&mut *bytes).map_err(|_| KeyError::NoRandom)?;
            let mut places = Zeroizing::new([0; WORDS]);
            for (place, pair) in places.iter_mut().zip(bytes.as_chunks().0) {
                *place = u16::from_le_bytes(*pair) % 2048; // 2^16 is a multiple of it: no word is likelier
            }
            let candidate = Self { places };
            if candidate.check(password).is_ok() {
                return Ok(candidate);
            }
        }
    }

    /// Reads words: in any case, with any space between them.
    ///
    /// # Errors
    /// Not 24, a word that is not on the list, or words that do not belong together (under this password).
    pub fn parse(text: &str, password: Option<&Passphrase>) -> Result<Self, MnemonicError> {
        let count = text.split_whitespace().count();
        if count != WORDS {
            return Err(MnemonicError::Count(count));
        }
        let mut places = Zeroizing::new([0; WORDS]);
        for (i, (place, word)) in places.iter_mut().zip(text.split_whitespace()).enumerate() {
            let lower = Zeroizing::new(word.to_ascii_lowercase());
            let found = LIST.binary_search(&lower.as_str()).map_err(|_| MnemonicError::UnknownWord(i + 1))?;
            *place = u16::try_from(found).expect("the list has 2048 words");
        }
        let mnemonic = Self { places };
        mnemonic.check(password)?;
        Ok(mnemonic)
    }

    /// The words themselves, one space between two: to be shown once and written down. Named loudly on purpose.
    pub fn expose_words(&self) -> Zeroizing<String> {
        // Large enough from the start: growing would leave a copy behind.
        let mut words = Zeroizing::new(String::with_capacity(WORDS * (LONGEST + 1)));
        for place in self.places.iter() {
            if !words.is_empty() {
                words.push(' ');
            }
            words.push_str(LIST[usize::from(*place)]);
        }
        words
    }

    /// The key that the words stand for, under their password.
    pub fn signing_key(&self, password: Option<&Passphrase>) -> SigningKey {
        let mut derived = self.derive(password, b"TON default seed", ITERATIONS);
        let seed = Zeroizing::new(*derived.first_chunk::<32>().expect("64 bytes were derived"));
        derived.zeroize();
        SigningKey::from_seed(&seed)
    }

    fn check(&self, password: Option<&Passphrase>) -> Result<(), MnemonicError> {
        let basic = |password| self.derive(password, b"TON seed version", ITERATIONS / 256)[0] == 0;
        // The cheap question first: for most random words its answer is no.
        if password.is_some() && (self.derive(None, b"TON fast seed version", 1)[0] != 1 || basic(None)) {
            return Err(MnemonicError::NoPasswordNeeded);
        }
        if basic(password) { Ok(()) } else { Err(MnemonicError::DoNotBelong) }
    }

    fn derive(&self, password: Option<&Passphrase>, salt: &[u8], iterations: u32) -> Zeroizing<[u8; 64]> {
        let key = hmac::Key::new(hmac::HMAC_SHA512, self.expose_words().as_bytes());
        let entropy = hmac::sign(&key, password.map_or(&[], |password| password.expose()));
        let iterations = NonZeroU32::new(iterations).expect("all three counts are more than zero");
        let mut out = Zeroizing::new([0; 64]);
        pbkdf2::derive(pbkdf2::PBKDF2_HMAC_SHA512, iterations, salt, entropy.as_ref(), &mut *out);
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by @ton/crypto 3.3: `mnemonicNew(24, password)`, `mnemonicToPrivateKey`. Words, password, seed, public key.
    const VECTORS: [(&str, Option<&str>, &str, &str); 3] = [
        (
            "portion bamboo cancel cupboard silk silent squirrel rule fish stool correct industry exotic lift merge \
             sister fatigue wheel flat repair climb vehicle jump divorce",
            None,
            "a34732c1f82c2136b6efb352b58757e22d5127b6d769b681af97fd62a82ed79d",
            "80a6f98dba4d1192d62685b8d0a9f85186c78f9a6a302dc03d344ccee0a01671",
        ),
        (
            "aspect sick hurry survey tiny deny menu ribbon total alcohol bulb above august honey nest glare balcony \
             film target plunge scatter syrup blanket rebel",
            None,
            "598d61217c4ea229f6d4b2e1abd3bc007eb897033aaef20f3257deacb002025d",
            "140c8a0cfc612018b8456a3733d070ccc0787deac2e0e30d27f666d307eb70d6",
        ),
        (
            "empower describe sort sausage law dumb victory venue absurd laptop silly piano acoustic grief chunk seat \
             fog shrug spread ticket urban all bicycle tortoise",
            Some("correct horse"),
            "f0b5dc0eff88b7dc63cd81ed4944d0a4a8aac6dae456e6bb3c7e749791eb3d4f",
            "1292c28bed53246b2ec25885a5a8cbe4bd957e9a8852b24666a36f8421fd616e",
        ),
    ];

    fn password(text: &str) -> Passphrase {
        Passphrase::new(text).expect("a passphrase")
    }

    fn error(text: &str, password: Option<&Passphrase>) -> MnemonicError {
        Mnemonic::parse(text, password).err().expect("it is refused")
    }

    #[test]
    fn the_list_is_that_of_bip_39() {
        let digest = ring::digest::digest(&ring::digest::SHA256, include_bytes!("english.txt"));
        assert_eq!(hex::encode(digest), "2f5eed53a4727b4bf8880d8f3f199efc90e58503646d9ff8eff3a2ed3b24dbda");
        assert_eq!(LIST.len(), 2048);
        assert!(LIST.is_sorted());
        assert_eq!(LIST.iter().map(|word| word.len()).max(), Some(LONGEST));
    }

    #[test]
    fn words_give_the_keys_that_ton_crypto_gives() {
        for (words, secret, seed, public) in VECTORS {
            let secret = secret.map(password);
            let mnemonic = Mnemonic::parse(words, secret.as_ref()).expect("the words are good");
            let key = mnemonic.signing_key(secret.as_ref());
            assert_eq!(hex::encode(key.expose_seed()), seed);
            assert_eq!(hex::encode(key.public()), public);
            assert_eq!(
                mnemonic.expose_words().split(' ').collect::<Vec<_>>(),
                words.split_whitespace().collect::<Vec<_>>()
            );
        }
    }

    #[test]
    fn new_words_are_good_words_and_never_the_same() {
        for secret in [None, Some(password("a password of its own"))] {
            let (one, two) =
                [(); 2].map(|()| Mnemonic::generate(secret.as_ref()).expect("random bytes")).into();
            assert!(*one.expose_words() != *two.expose_words());
            let again = Mnemonic::parse(&one.expose_words(), secret.as_ref()).expect("they are good");
            assert_eq!(
                again.signing_key(secret.as_ref()).public(),
                one.signing_key(secret.as_ref()).public()
            );
            if secret.is_some() {
                assert!(Mnemonic::parse(&one.expose_words(), None).is_err(), "nothing without the password");
            }
        }
    }

    #[test]
    fn wrong_words_are_refused_by_their_place_and_not_repeated() {
        let good = VECTORS[0].0;
        assert_eq!(error("", None), MnemonicError::Count(0));
        assert_eq!(error(&format!("{good} above"), None), MnemonicError::Count(25));
        assert_eq!(error(&good.replace("cupboard", "kubbord"), None), MnemonicError::UnknownWord(4));
        assert!(!error(&good.replace("cupboard", "kubbord"), None).to_string().contains("kubbord"));
        assert_eq!(error(&good.replace("bamboo cancel", "cancel bamboo"), None), MnemonicError::DoNotBelong);
        assert_eq!(error(good, Some(&password("none is needed"))), MnemonicError::NoPasswordNeeded);
        let protected = VECTORS[2].0;
        assert_eq!(error(protected, None), MnemonicError::DoNotBelong);
        assert_eq!(error(protected, Some(&password("wrong horse"))), MnemonicError::DoNotBelong);
        assert!(Mnemonic::parse(&good.to_uppercase().replace(' ', "\n\t "), None).is_ok());
    }
}
