//! The one suite, its labels and the answer's cipher.

use crate::frame::FRAME_HEADER;
use crate::keys::Kem;
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::{digest, hkdf};
use zeroize::Zeroizing;

pub(crate) use hpke::aead::ChaCha20Poly1305 as HpkeAead;
pub(crate) use hpke::kdf::HkdfSha256 as HpkeKdf;

pub(crate) type Sender = hpke::aead::AeadCtxS<HpkeAead, HpkeKdf, Kem>;
pub(crate) type Receiver = hpke::aead::AeadCtxR<HpkeAead, HpkeKdf, Kem>;

/// Bytes that a seal adds to a frame.
pub(crate) const TAG: usize = 16;

/// Labels: every key names its protocol, version and direction.
pub(crate) enum Label {
    /// HPKE `info`: client to guest, with the statement's digest behind it.
    Request,
    /// HPKE exporter context and HKDF info: guest to client.
    Answer,
}

impl Label {
    pub(crate) fn bytes(&self) -> &'static [u8] {
        match self {
            Self::Request => b"cocoon seal v1 request client>guest",
            Self::Answer => b"cocoon seal v1 answer guest>client",
        }
    }

    /// HPKE `info` for requests sealed under `statement`.
    pub(crate) fn info(&self, statement: &[u8; 32]) -> Vec<u8> {
        [self.bytes(), statement].concat()
    }
}

pub(crate) fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    context.finish().as_ref().try_into().expect("SHA-256 gives 32 bytes")
}

/// Authenticated beside each frame: the digest of all that precedes the frames, and the frame's own header.
pub(crate) fn aad(prefix: &[u8; 32], header: &[u8; FRAME_HEADER]) -> [u8; 32 + FRAME_HEADER] {
    let mut aad = [0; 32 + FRAME_HEADER];
    aad[..32].copy_from_slice(prefix);
    aad[32..].copy_from_slice(header);
    aad
}

/// The secret that both ends export from the request's HPKE context; it never leaves this crate.
pub(crate) struct AnswerSecret(Zeroizing<[u8; 32]>);

impl AnswerSecret {
    pub(crate) fn of_sender(context: &Sender) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        context.export(Label::Answer.bytes(), secret.as_mut()).expect("32 bytes is a length HKDF can give");
        Self(secret)
    }

    pub(crate) fn of_receiver(context: &Receiver) -> Self {
        let mut secret = Zeroizing::new([0; 32]);
        context.export(Label::Answer.bytes(), secret.as_mut()).expect("32 bytes is a length HKDF can give");
        Self(secret)
    }

    /// The key of one answer. The guest's random nonce makes it new even where a request is opened twice.
    pub(crate) fn key(&self, nonce: &[u8; 32], prefix: &[u8; 32]) -> AnswerKey {
        let info = [Label::Answer.bytes(), prefix.as_slice()];
        let key: UnboundKey = hkdf::Salt::new(hkdf::HKDF_SHA256, nonce)
            .extract(self.0.as_slice())
            .expand(&info, &CHACHA20_POLY1305)
            .expect("a ChaCha20-Poly1305 key is a length HKDF can give")
            .into();
        AnswerKey(LessSafeKey::new(key))
    }
}

/// Seals and opens the frames of one answer; the frame counter is the nonce.
pub(crate) struct AnswerKey(LessSafeKey);

impl AnswerKey {
    fn nonce(counter: u32) -> Nonce {
        let mut nonce = [0; NONCE_LEN];
        nonce[NONCE_LEN - 4..].copy_from_slice(&counter.to_be_bytes());
        Nonce::assume_unique_for_key(nonce)
    }

    pub(crate) fn seal(&self, counter: u32, aad: &[u8], buffer: &mut Vec<u8>) {
        self.0
            .seal_in_place_append_tag(Self::nonce(counter), Aad::from(aad), buffer)
            .expect("a frame is far below the cipher's limit");
    }

    /// Opens in place; `None` if the frame is not authentic.
    pub(crate) fn open<'a>(&self, counter: u32, aad: &[u8], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
        self.0.open_in_place(Self::nonce(counter), Aad::from(aad), buffer).ok().map(|plain| &*plain)
    }
}

pub(crate) fn random<const N: usize>() -> [u8; N] {
    use ring::rand::SecureRandom;
    let mut bytes = [0; N];
    ring::rand::SystemRandom::new().fill(&mut bytes).expect("the system has a random generator");
    bytes
}
