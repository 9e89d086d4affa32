//! Netlink messages (`include/uapi/linux/netlink.h`): enough of them to set up a card and a firewall.

use crate::failure::{Explain, Failure, Outcome};
use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with,
};
use std::time::Duration;

/// `NLM_F_REQUEST | NLM_F_ACK`: every message is answered.
pub(crate) const REQUEST: u16 = 5;
/// `NLM_F_CREATE | NLM_F_EXCL`: something that is there already is an error.
pub(crate) const CREATE: u16 = 0x600;
/// `NLM_F_CREATE | NLM_F_APPEND`.
pub(crate) const APPEND: u16 = 0xc00;
const ERROR: u16 = 2;
const HEADER: usize = 16;

/// A message: length, type, flags, sequence number, sender 0; then the body.
pub(crate) fn message(kind: u16, flags: u16, sequence: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + body.len()).expect("messages are ours, and short");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend([0; 4]);
    bytes.extend(body);
    padded(bytes)
}

/// An attribute: length, type, payload, zeros to a multiple of four.
pub(crate) fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + payload.len()).expect("attributes are ours, and short");
    padded([&length.to_ne_bytes(), kind.to_ne_bytes().as_slice(), payload].concat())
}

fn padded(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Sends messages in one piece and waits until `answers` of them are acknowledged.
///
/// # Errors
/// The first refusal, with the kernel's reason.
pub(crate) fn talk(protocol: Option<Protocol>, messages: &[u8], answers: usize) -> Outcome {
    let remedy = "use the image's kernel and modules";
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, protocol)
        .explain("a netlink socket", remedy)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(Duration::from_secs(5)))
        .explain("a netlink socket", remedy)?;
    send(&socket, messages, SendFlags::empty()).explain("the kernel takes no netlink message", remedy)?;
    let mut seen = 0;
    let mut buffer = [0; 8192];
    while seen < answers {
        let (count, _) =
            recv(&socket, &mut buffer, RecvFlags::empty()).explain("the kernel's answer", remedy)?;
        for (number, code) in refusals(&buffer[..count]) {
            if code != 0 {
                let error = std::io::Error::from_raw_os_error(-code);
                return Err(Failure::new(format!(
                    "the kernel refuses netlink message {number}: {error}; {remedy}"
                )));
            }
            seen += 1;
        }
    }
    Ok(())
}

/// Sequence number and error code of each answer; 0 is a good one.
fn refusals(mut bytes: &[u8]) -> Vec<(u32, i32)> {
    let word = |bytes: &[u8], at: usize| Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    let mut found = Vec::new();
    while let Some(length) = word(bytes, 0) {
        let kind = word(bytes, 4).map(|word| word as u16); // the lower half, on a little-endian machine
        if let (Some(ERROR), Some(sequence), Some(code)) = (kind, word(bytes, 8), word(bytes, HEADER)) {
            found.push((sequence, code.cast_signed()));
        }
        let next = (length as usize).max(HEADER).next_multiple_of(4);
        bytes = bytes.get(next..).unwrap_or_default();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_and_attributes_have_the_kernels_layout() {
        assert_eq!(attribute(3, b"abcde"), [9, 0, 3, 0, b'a', b'b', b'c', b'd', b'e', 0, 0, 0]);
        let expected = [17, 0, 0, 0, 16, 0, 5, 6, 7, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0];
        assert_eq!(message(16, REQUEST | CREATE, 7, &[9]), expected);
    }

    #[test]
    fn every_answer_is_seen_and_rubbish_ends() {
        let answer = |sequence, code: i32| {
            message(ERROR, 0, sequence, &[&code.to_ne_bytes(), [0; 16].as_slice()].concat())
        };
        let bytes = [answer(1, 0), message(3, 0, 9, &[0; 8]), answer(2, -17)].concat();
        assert_eq!(refusals(&bytes), [(1, 0), (2, -17)]);
        for length in 0..bytes.len() {
            let _ = refusals(&bytes[..length]);
        }
        let _ = refusals(&[0; 64]); // lengths of zero do not stand still
        let _ = refusals(&[0xff; 64]);
    }
}
