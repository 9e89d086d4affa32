//! Frames: the unit that is sealed, counted and forwarded. Requests and answers share the layout.

use crate::crypto::TAG;
use crate::{Budget, Usage, WireError};
use zeroize::Zeroizing;

/// Bytes of a frame's header, all of them authenticated.
pub const FRAME_HEADER: usize = 21;
/// Most bytes of a frame's ciphertext.
pub const MAX_FRAME: usize = 64 * 1024;
/// Fewest bytes of a frame's ciphertext: the smallest bucket and the tag.
pub const MIN_FRAME: usize = BUCKETS[0] + TAG;
/// Most frames in one answer.
pub const MAX_FRAMES: u32 = 1 << 20;

/// Plaintexts are padded to one of these sizes, so that lengths tell little (token lengths tell topics). A chunk of one
/// token is some 250 bytes of JSON: the first bucket holds it whatever the token.
const BUCKETS: [usize; 8] = [512, 1024, 2048, 4096, 8192, 16384, 32768, MAX_FRAME - TAG];
/// The payload's real length stands before it, inside the seal.
const LENGTH: usize = 4;
/// Most payload bytes in one frame.
pub(crate) const MAX_PAYLOAD: usize = BUCKETS[BUCKETS.len() - 1] - LENGTH;

const FLAG_LAST: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FrameHeader {
    pub(crate) last: bool,
    pub(crate) counter: u32,
    pub(crate) usage: Usage,
    /// Ciphertext bytes that follow, tag included.
    pub(crate) length: usize,
}

impl FrameHeader {
    pub(crate) fn encode(&self) -> [u8; FRAME_HEADER] {
        let mut bytes = [0; FRAME_HEADER];
        bytes[0] = if self.last { FLAG_LAST } else { 0 };
        bytes[1..5].copy_from_slice(&self.counter.to_be_bytes());
        bytes[5..9].copy_from_slice(&self.usage.prompt_tokens.to_be_bytes());
        bytes[9..13].copy_from_slice(&self.usage.cached_tokens.to_be_bytes());
        bytes[13..17].copy_from_slice(&self.usage.completion_tokens.to_be_bytes());
        let length = u32::try_from(self.length).expect("a frame is at most MAX_FRAME long");
        bytes[17..21].copy_from_slice(&length.to_be_bytes());
        bytes
    }

    /// Reads a header; the announced length is one that a bucket can have, so nothing larger is ever awaited.
    pub(crate) fn decode(bytes: &[u8; FRAME_HEADER]) -> Result<Self, WireError> {
        let word = |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let last = match bytes[0] {
            0 => false,
            FLAG_LAST => true,
            _ => return Err(WireError::Malformed { what: "frame flags" }),
        };
        let length = word(17) as usize;
        if length > MAX_FRAME {
            return Err(WireError::Oversized { what: "frame", limit: MAX_FRAME, got: length });
        }
        if !BUCKETS.iter().any(|bucket| bucket + TAG == length) {
            return Err(WireError::Malformed { what: "frame length" });
        }
        let usage = Usage { prompt_tokens: word(5), cached_tokens: word(9), completion_tokens: word(13) };
        if !usage.is_consistent() {
            return Err(WireError::Malformed { what: "frame usage" });
        }
        Ok(Self { last, counter: word(1), usage, length })
    }
}

/// What a run of frames must obey in the clear: counters in order, usage never back and never over budget.
pub(crate) struct FrameRules {
    budget: Budget,
    next: u32,
    limit: u32,
    usage: Usage,
}

impl FrameRules {
    pub(crate) fn new(budget: Budget, limit: u32) -> Self {
        Self { budget, next: 0, limit, usage: Usage::default() }
    }

    /// Accepts the next frame's header, or says what is wrong with it.
    pub(crate) fn accept(&mut self, header: &FrameHeader) -> Result<(), WireError> {
        if header.counter != self.next {
            return Err(WireError::OutOfOrder { expected: self.next, got: header.counter });
        }
        if header.counter >= self.limit {
            return Err(WireError::TooManyFrames { limit: self.limit });
        }
        if !header.usage.follows(&self.usage) {
            return Err(WireError::UsageWentBack { frame: header.counter });
        }
        if !header.usage.within(&self.budget) {
            return Err(WireError::OverBudget { frame: header.counter });
        }
        self.next += 1;
        self.usage = header.usage;
        Ok(())
    }

    /// The usage of the last frame accepted.
    pub(crate) fn usage(&self) -> Usage {
        self.usage
    }
}

/// Length, payload and zeros up to the smallest bucket that holds them; room is left for the tag.
pub(crate) fn pad(payload: &[u8]) -> Zeroizing<Vec<u8>> {
    let needed = payload.len() + LENGTH;
    let bucket =
        *BUCKETS.iter().find(|bucket| **bucket >= needed).expect("callers cut payloads at MAX_PAYLOAD");
    let mut plain = Zeroizing::new(Vec::with_capacity(bucket + TAG));
    plain.extend_from_slice(&u32::try_from(payload.len()).expect("below MAX_FRAME").to_be_bytes());
    plain.extend_from_slice(payload);
    plain.resize(bucket, 0);
    plain
}

/// The payload inside a padded plaintext; `None` if the length lies or the padding is not zero.
pub(crate) fn unpad(plain: &[u8]) -> Option<&[u8]> {
    let (length, rest) = plain.split_first_chunk::<LENGTH>()?;
    let (payload, padding) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
    padding.iter().all(|byte| *byte == 0).then_some(payload)
}

/// The ciphertext length of the frame that carries a payload of this length.
pub(crate) fn sealed_length(payload: usize) -> usize {
    let bucket = BUCKETS.iter().find(|bucket| **bucket >= payload + LENGTH);
    bucket.expect("callers cut payloads at MAX_PAYLOAD") + TAG
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_hides_the_length_within_a_bucket() {
        for (length, bucket) in [(0, 512), (508, 512), (509, 1024), (MAX_PAYLOAD, MAX_FRAME - TAG)] {
            let plain = pad(&vec![7; length]);
            assert_eq!(plain.len(), bucket);
            assert_eq!(unpad(&plain).map(<[u8]>::len), Some(length));
            assert_eq!(sealed_length(length), bucket + TAG);
        }
    }

    #[test]
    fn padding_that_lies_is_refused() {
        let mut plain = pad(b"payload").to_vec();
        plain[200] = 1;
        assert_eq!(unpad(&plain), None);
        let mut plain = pad(b"payload").to_vec();
        plain[0] = 0xff;
        assert_eq!(unpad(&plain), None);
        assert_eq!(unpad(&[0, 0]), None);
    }

    #[test]
    fn a_frame_header_refuses_lengths_that_no_bucket_has() {
        let header = FrameHeader { last: true, counter: 3, usage: Usage::default(), length: MIN_FRAME };
        assert_eq!(FrameHeader::decode(&header.encode()), Ok(header));
        let huge = FrameHeader { length: MAX_FRAME + 1, ..header };
        let got = MAX_FRAME + 1;
        let error = WireError::Oversized { what: "frame", limit: MAX_FRAME, got };
        assert_eq!(FrameHeader::decode(&huge.encode()), Err(error));
        let odd = FrameHeader { length: MIN_FRAME + 1, ..header };
        assert_eq!(FrameHeader::decode(&odd.encode()), Err(WireError::Malformed { what: "frame length" }));
        let mut flags = header.encode();
        flags[0] = 2;
        assert_eq!(FrameHeader::decode(&flags), Err(WireError::Malformed { what: "frame flags" }));
    }
}
