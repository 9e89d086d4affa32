//! Who may spend a channel: its address is public, so a request names it and proves that the channel's payer sent it.
//!
//! The header [`AUTHORIZATION_HEADER`] holds `<unix seconds> <hex Ed25519 signature>`. Signed, by the payer key in the
//! channel's terms, are `"cocoon authorization v1"`, the channel's address (workchain as one byte, then 32 bytes),
//! the seconds (8 bytes, big-endian), and the SHA-256 of the request's body, or 32 zero bytes for a read.
//!
//! A request that is repeated within [`TOLERANCE_SECONDS`] passes here again; the guest refuses its request id.

use cocoon_contracts::{Address, SigningKey, VerifyingKey, verify_signature};
use cocoon_protocol::http::AUTHORIZATION_HEADER;

/// How far the clocks of payer and payee may differ, in seconds, either way.
pub const TOLERANCE_SECONDS: u64 = 300;
const DOMAIN: &[u8] = b"cocoon authorization v1";

/// Why a request may not use the channel that it names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthorizationError {
    /// There is no such header.
    #[error(
        "the request names a channel and does not prove whose it is; send the header {AUTHORIZATION_HEADER}"
    )]
    Missing,
    /// The header is not as described.
    #[error("the header {AUTHORIZATION_HEADER} is not `<unix seconds> <128 hex digits>`")]
    Malformed,
    /// Signed too long ago, or in the future.
    #[error(
        "the authorization is of second {signed}, now is {now}; at most {TOLERANCE_SECONDS} s may lie between: check both clocks"
    )]
    Expired {
        /// When it says that it was made.
        signed: u64,
        /// The clock here.
        now: u64,
    },
    /// Not by the channel's payer, or for another channel or another body.
    #[error("the authorization is not by the payer key of this channel over this request")]
    Signature,
}

/// The header's value for a request with this `body` (`None` for a read) on `channel`, made at second `now`.
pub fn authorize(key: &SigningKey, channel: &Address, now: u64, body: Option<&[u8]>) -> String {
    format!("{now} {}", hex::encode(key.sign(&message(channel, now, body))))
}

/// Checks a header's value against the payer key in the channel's terms.
///
/// # Errors
/// [`AuthorizationError`]: the request must have no effect.
pub fn check(
    header: Option<&str>,
    payer_key: &VerifyingKey,
    channel: &Address,
    now: u64,
    body: Option<&[u8]>,
) -> Result<(), AuthorizationError> {
    use AuthorizationError as E;
    let (seconds, signature) = header.ok_or(E::Missing)?.split_once(' ').ok_or(E::Malformed)?;
    let signed: u64 = seconds.parse().map_err(|_| E::Malformed)?;
    let mut bytes = [0; 64];
    hex::decode_to_slice(signature, &mut bytes).map_err(|_| E::Malformed)?;
    if signed.abs_diff(now) > TOLERANCE_SECONDS {
        return Err(E::Expired { signed, now });
    }
    let good = verify_signature(payer_key, &message(channel, signed, body), &bytes);
    good.then_some(()).ok_or(E::Signature)
}

fn message(channel: &Address, seconds: u64, body: Option<&[u8]>) -> Vec<u8> {
    let digest = |body| ring::digest::digest(&ring::digest::SHA256, body);
    let mut message = DOMAIN.to_vec();
    message.extend_from_slice(&channel.workchain.to_be_bytes());
    message.extend_from_slice(&channel.address.0);
    message.extend_from_slice(&seconds.to_be_bytes());
    match body {
        Some(body) => message.extend_from_slice(digest(body).as_ref()),
        None => message.extend_from_slice(&[0; 32]),
    }
    message
}
