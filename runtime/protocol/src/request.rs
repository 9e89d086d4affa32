//! Requests: sealed by the client to a trusted peer, opened by the guest.

use crate::crypto::{AnswerSecret, HpkeAead, HpkeKdf, Label, Receiver, aad, sha256};
use crate::frame::{FRAME_HEADER, FrameHeader, FrameRules, MAX_PAYLOAD, pad, sealed_length, unpad};
use crate::keys::{ENCAPPED_BYTES, EncappedKey, Kem, PublicKey, public_key};
use crate::{
    AnswerOpener, AnswerSealer, Budget, Endpoint, MAX_HEADER, Prompt, ReplayGuard, RequestError,
    RequestHeader, SealError, SealKey, Usage, WireError,
};
use cocoon_attestation::Trusted;
use hpke::{Deserializable, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

/// Most bytes of a sealed request.
pub const MAX_REQUEST: usize = 1024 * 1024;
/// Most bytes of the body inside it.
pub const MAX_BODY: usize = MAX_REQUEST - 64 * 1024;

pub(crate) const MAGIC: &[u8; 4] = b"CRQ1";
const FIXED: usize = 4 + 4; // magic, header length
const MAX_REQUEST_FRAMES: u32 = 32;

/// The wire bytes of a request, with its header read. Relays make one with [`SealedRequest::from_wire`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedRequest {
    header: RequestHeader,
    wire: Vec<u8>,
}

impl SealedRequest {
    /// Reads what a relay may read: sizes, the header and the frames' outlines. Says nothing about who sealed it.
    ///
    /// # Errors
    /// [`WireError`] if it is oversized or malformed.
    pub fn from_wire(wire: Vec<u8>) -> Result<Self, WireError> {
        let header = Layout::read(&wire)?.header;
        Ok(Self { header, wire })
    }

    /// The open part.
    pub fn header(&self) -> &RequestHeader {
        &self.header
    }

    /// All bytes, to send on unchanged.
    pub fn as_bytes(&self) -> &[u8] {
        &self.wire
    }

    /// All bytes, to send on unchanged.
    pub fn into_bytes(self) -> Vec<u8> {
        self.wire
    }
}

/// The parts of a request on the wire, each within its limits.
struct Layout<'a> {
    header: RequestHeader,
    /// Everything before the frames: authenticated by its digest.
    prefix: &'a [u8],
    enc: &'a [u8],
    frames: Vec<SealedFrame<'a>>,
}

/// A raw header and its ciphertext.
type SealedFrame<'a> = (&'a [u8; FRAME_HEADER], &'a [u8]);

impl<'a> Layout<'a> {
    fn read(wire: &'a [u8]) -> Result<Self, WireError> {
        if wire.len() > MAX_REQUEST {
            return Err(WireError::Oversized { what: "request", limit: MAX_REQUEST, got: wire.len() });
        }
        let fixed = wire.split_at_checked(FIXED).ok_or(WireError::Truncated { what: "request" })?.0;
        if fixed[..4] != *MAGIC {
            return Err(WireError::Magic { expected: "sealed request" });
        }
        let header_length = u32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]) as usize;
        if header_length > MAX_HEADER {
            return Err(WireError::Oversized { what: "header", limit: MAX_HEADER, got: header_length });
        }
        let prefix_length = FIXED + header_length + ENCAPPED_BYTES;
        let (prefix, rest) =
            wire.split_at_checked(prefix_length).ok_or(WireError::Truncated { what: "request header" })?;
        let (header, enc) = prefix[FIXED..].split_at(header_length);
        Ok(Self { header: RequestHeader::decode(header)?, prefix, enc, frames: read_frames(rest)? })
    }
}

fn read_frames(mut rest: &[u8]) -> Result<Vec<SealedFrame<'_>>, WireError> {
    let truncated = WireError::Truncated { what: "request frame" };
    // A request has used nothing yet: any usage in its frames is over this budget.
    let mut rules = FrameRules::new(Budget::default(), MAX_REQUEST_FRAMES);
    let mut frames = Vec::new();
    loop {
        let (raw, body) = rest.split_first_chunk::<FRAME_HEADER>().ok_or(truncated.clone())?;
        let header = FrameHeader::decode(raw)?;
        rules.accept(&header)?;
        let (ciphertext, after) = body.split_at_checked(header.length).ok_or(truncated.clone())?;
        frames.push((raw, ciphertext));
        rest = after;
        if header.last {
            return if rest.is_empty() { Ok(frames) } else { Err(WireError::TrailingBytes) };
        }
    }
}

/// Seals an OpenAI request to a trusted peer. There is no other way to seal one.
///
/// `header` must name the peer's statement and network and a model that it serves.
///
/// # Errors
/// [`SealError`] if the header does not fit the peer or the body is too long.
pub fn seal(
    peer: &Trusted,
    header: &RequestHeader,
    endpoint: Endpoint,
    body: Prompt,
) -> Result<(SealedRequest, AnswerOpener), SealError> {
    let statement = peer.statement();
    if header.statement != peer.statement_digest() {
        return Err(SealError::WrongStatement);
    }
    if header.network != statement.network {
        return Err(SealError::WrongNetwork { header: header.network, peer: statement.network });
    }
    if !statement.models.iter().any(|model| model.weights == header.model) {
        return Err(SealError::ModelNotServed);
    }
    let key = public_key(peer.seal_key()).ok_or(SealError::PeerKey)?;
    seal_to(&key, peer.receipt_key(), header, endpoint, body)
}

/// Seals to a bare key. Never public: outside this crate keys come out of [`Trusted`].
pub(crate) fn seal_to(
    key: &PublicKey,
    receipt_key: &[u8; 32],
    header: &RequestHeader,
    endpoint: Endpoint,
    body: Prompt,
) -> Result<(SealedRequest, AnswerOpener), SealError> {
    if body.len() > MAX_BODY {
        return Err(SealError::BodyTooLarge { limit: MAX_BODY, got: body.len() });
    }
    let info = Label::Request.info(&header.statement);
    let (enc, mut context) = hpke::setup_sender::<HpkeAead, HpkeKdf, Kem>(&OpModeS::Base, key, &info)
        .map_err(|_| SealError::PeerKey)?;
    let encoded = header.encode();
    let mut wire = Vec::with_capacity(FIXED + encoded.len() + ENCAPPED_BYTES + body.len() * 2 + 1024);
    wire.extend_from_slice(MAGIC);
    wire.extend_from_slice(
        &u32::try_from(encoded.len()).expect("a header is below MAX_HEADER").to_be_bytes(),
    );
    wire.extend_from_slice(&encoded);
    wire.extend_from_slice(&enc.to_bytes());
    let prefix = sha256(&[&wire]);

    let request_hash = request_hash(endpoint, body.expose());
    let mut payload = Zeroizing::new(Vec::with_capacity(1 + body.len()));
    payload.push(endpoint.code());
    payload.extend_from_slice(body.expose());
    let count = payload.chunks(MAX_PAYLOAD).len();
    for (index, piece) in payload.chunks(MAX_PAYLOAD).enumerate() {
        let counter = u32::try_from(index).expect("MAX_BODY is a few frames");
        let length = sealed_length(piece.len());
        let header = FrameHeader { last: index + 1 == count, counter, usage: Usage::default(), length };
        let raw = header.encode();
        let sealed = context.seal(&pad(piece), &aad(&prefix, &raw)).expect("a request is a few frames");
        wire.extend_from_slice(&raw);
        wire.extend_from_slice(&sealed);
    }
    let opener = AnswerOpener::new(
        header.clone(),
        AnswerSecret::of_sender(&context),
        prefix,
        request_hash,
        *receipt_key,
    );
    Ok((SealedRequest { header: header.clone(), wire }, opener))
}

/// What a guest is: requests for anything else are refused.
pub struct Expected<'a> {
    /// TON global id.
    pub network: i32,
    /// Weights of the models it serves.
    pub models: &'a [[u8; 32]],
    /// The statements it issued and the requests it took.
    pub guard: &'a ReplayGuard,
}

/// An opened request.
pub struct Opened {
    /// The open part, now known to be what the client wrote.
    pub header: RequestHeader,
    /// What the body is for.
    pub endpoint: Endpoint,
    /// The body.
    pub prompt: Prompt,
    /// Seals the answer to whoever sealed the request.
    pub answer: AnswerSealer,
}

/// Opens a request in the guest; each request id is taken once.
///
/// # Errors
/// [`RequestError`]; nothing of the body is given away with it.
pub fn open(key: &SealKey, expected: &Expected<'_>, wire: &[u8]) -> Result<Opened, RequestError> {
    let layout = Layout::read(wire)?;
    let header = &layout.header;
    // Cheap refusals first; they reveal only what the header says in the clear.
    if header.network != expected.network {
        return Err(RequestError::WrongNetwork { expected: expected.network, got: header.network });
    }
    if !expected.guard.is_current(&header.statement) {
        return Err(RequestError::StaleStatement);
    }
    if !expected.models.contains(&header.model) {
        return Err(RequestError::UnknownModel);
    }
    let prefix = sha256(&[layout.prefix]);
    let mut context = receiver(key, &header.statement, layout.enc)?;
    let payload = open_frames(&mut context, &prefix, &layout)?;
    // Only now is the id known to be the client's own.
    expected.guard.take(&header.statement, header.request_id)?;

    let (code, body) = payload.split_first().ok_or(WireError::Malformed { what: "request body" })?;
    let endpoint = Endpoint::from_code(*code).ok_or(WireError::Malformed { what: "endpoint" })?;
    let request_hash = request_hash(endpoint, body);
    let answer =
        AnswerSealer::new(header.clone(), &AnswerSecret::of_receiver(&context), prefix, request_hash);
    Ok(Opened { header: layout.header, endpoint, prompt: Prompt::new(body.to_vec()), answer })
}

fn receiver(key: &SealKey, statement: &[u8; 32], enc: &[u8]) -> Result<Receiver, RequestError> {
    let enc = EncappedKey::from_bytes(enc).map_err(|_| RequestError::Forged)?;
    let info = Label::Request.info(statement);
    hpke::setup_receiver(&OpModeR::Base, key.private(), &enc, &info).map_err(|_| RequestError::Forged)
}

fn open_frames(
    context: &mut Receiver,
    prefix: &[u8; 32],
    layout: &Layout<'_>,
) -> Result<Zeroizing<Vec<u8>>, RequestError> {
    let total = layout.frames.iter().map(|(_, ciphertext)| ciphertext.len()).sum();
    let mut payload = Zeroizing::new(Vec::with_capacity(total)); // never grows, so no copy is left behind
    for (raw, ciphertext) in &layout.frames {
        let plain = context.open(ciphertext, &aad(prefix, raw)).map_err(|_| RequestError::Forged)?;
        let plain = Zeroizing::new(plain);
        payload.extend_from_slice(unpad(&plain).ok_or(WireError::Malformed { what: "padding" })?);
    }
    Ok(payload)
}

fn request_hash(endpoint: Endpoint, body: &[u8]) -> [u8; 32] {
    sha256(&[&[endpoint.code()], body])
}
