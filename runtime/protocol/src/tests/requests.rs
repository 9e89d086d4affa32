//! Requests: tampered, cut, replayed, or for somebody else.

use super::*;
use crate::frame::FRAME_HEADER;

/// What no error may do: give a prompt.
fn refused(guest: &Guest, wire: &[u8]) -> RequestError {
    match guest.open(wire) {
        Ok(_) => panic!("a wrong request was opened"),
        Err(error) => error,
    }
}

#[test]
fn a_request_opens_to_what_was_sealed() {
    let guest = Guest::new();
    let (wire, _) = guest.sealed(&guest.header, BODY);
    let relayed = SealedRequest::from_wire(wire.clone()).expect("well formed");
    assert_eq!(relayed.header(), &guest.header);
    assert_eq!(relayed.as_bytes(), wire);
    let Ok(opened) = guest.open(&wire) else { panic!("an honest request opens") };
    assert_eq!(opened.header, guest.header);
    assert_eq!(opened.prompt.expose(), BODY);
    assert_eq!(opened.endpoint, Endpoint::ChatCompletions);
    assert!(
        !wire.windows(10).any(|window| BODY.windows(10).any(|body| body == window)),
        "plaintext on the wire"
    );
}

#[test]
fn every_flipped_byte_of_a_request_is_refused() {
    let guest = Guest::new();
    let (wire, _) = guest.sealed(&guest.header, BODY);
    for at in 0..wire.len() {
        for mask in [0x01, 0x80, 0xff] {
            let mut changed = wire.clone();
            changed[at] ^= mask;
            refused(&guest, &changed);
        }
    }
    // None of them used up the request's id.
    assert!(guest.open(&wire).is_ok());
}

#[test]
fn a_request_cut_at_any_length_is_refused() {
    let guest = Guest::new();
    let (wire, _) = guest.sealed(&guest.header, BODY);
    for length in 0..wire.len() {
        let error = refused(&guest, &wire[..length]);
        assert!(matches!(error, RequestError::Wire(WireError::Truncated { .. })), "at {length}: {error}");
        assert!(SealedRequest::from_wire(wire[..length].to_vec()).is_err());
    }
    let longer = [wire.as_slice(), &[0]].concat();
    assert_eq!(refused(&guest, &longer), RequestError::Wire(WireError::TrailingBytes));
}

#[test]
fn a_request_of_many_frames_keeps_their_order() {
    let guest = Guest::new();
    let body: Vec<u8> = (0..200_000u32).map(|i| i as u8).collect();
    let (wire, _) = guest.sealed(&guest.header, &body);
    let prefix = 8 + guest.header.encode().len() + crate::keys::ENCAPPED_BYTES;
    let frame = FRAME_HEADER + MAX_FRAME;
    let mut swapped = wire.clone();
    swapped[prefix..prefix + frame].copy_from_slice(&wire[prefix + frame..prefix + 2 * frame]);
    swapped[prefix + frame..prefix + 2 * frame].copy_from_slice(&wire[prefix..prefix + frame]);
    let out_of_order = RequestError::Wire(WireError::OutOfOrder { expected: 0, got: 1 });
    assert_eq!(refused(&guest, &swapped), out_of_order);
    // Counters mended: the seal itself knows the order.
    swapped[prefix + 1..prefix + 5].copy_from_slice(&0u32.to_be_bytes());
    swapped[prefix + frame + 1..prefix + frame + 5].copy_from_slice(&1u32.to_be_bytes());
    assert_eq!(refused(&guest, &swapped), RequestError::Forged);
    let dropped = [&wire[..prefix], &wire[prefix + frame..]].concat();
    assert_eq!(refused(&guest, &dropped), out_of_order);
    let Ok(opened) = guest.open(&wire) else { panic!("an honest request opens") };
    assert!(opened.prompt.expose() == body);
}

#[test]
fn a_replayed_request_is_refused() {
    let guest = Guest::new();
    let (wire, _) = guest.sealed(&guest.header, BODY);
    assert!(guest.open(&wire).is_ok());
    assert_eq!(refused(&guest, &wire), RequestError::Replayed);
    // Sealed anew under the same id: refused as well, or two receipts would carry one id.
    let (again, _) = guest.sealed(&guest.header, BODY);
    assert_eq!(refused(&guest, &again), RequestError::Replayed);
}

#[test]
fn a_request_for_another_guest_network_model_or_statement_is_refused() {
    let guest = Guest::new();
    let (wire, _) = Guest::new().sealed(&guest.header, BODY);
    assert_eq!(refused(&guest, &wire), RequestError::Forged);
    let header = RequestHeader { network: -239, ..guest.header.clone() };
    let expected = RequestError::WrongNetwork { expected: -3, got: -239 };
    assert_eq!(refused(&guest, &guest.sealed(&header, BODY).0), expected);
    let header = RequestHeader { model: [9; 32], ..guest.header.clone() };
    assert_eq!(refused(&guest, &guest.sealed(&header, BODY).0), RequestError::UnknownModel);
    let header = RequestHeader { statement: [9; 32], ..guest.header.clone() };
    assert_eq!(refused(&guest, &guest.sealed(&header, BODY).0), RequestError::StaleStatement);
}

/// Replaces the header and leaves the rest as it is.
fn with_header(wire: &[u8], header: &RequestHeader) -> Vec<u8> {
    let old = u32::from_be_bytes([wire[4], wire[5], wire[6], wire[7]]) as usize;
    let encoded = header.encode();
    let length = u32::try_from(encoded.len()).expect("short");
    [&wire[..4], &length.to_be_bytes(), &encoded, &wire[8 + old..]].concat()
}

#[test]
fn a_relay_cannot_change_budget_price_id_or_statement() {
    let guest = Guest::new();
    guest.guard.issue([9; 32]);
    let (wire, _) = guest.sealed(&guest.header, BODY);
    let header = &guest.header;
    let changed = [
        RequestHeader { budget: Budget { prompt_tokens: 100, completion_tokens: 201 }, ..header.clone() },
        RequestHeader { price: Price::new(1_000_001, 1_000_001, 3_000_000), ..header.clone() },
        RequestHeader { request_id: [8; 16], ..header.clone() },
        RequestHeader { statement: [9; 32], ..header.clone() },
    ];
    for header in changed {
        assert_eq!(refused(&guest, &with_header(&wire, &header)), RequestError::Forged);
    }
    assert!(guest.open(&with_header(&wire, header)).is_ok(), "the same header is the same request");
}

#[test]
fn lengths_beyond_their_limits_are_refused_first() {
    let guest = Guest::new();
    let (wire, _) = guest.sealed(&guest.header, BODY);
    let mut long_header = wire.clone();
    long_header[4..8].copy_from_slice(&u32::MAX.to_be_bytes());
    let got = u32::MAX as usize;
    let error = WireError::Oversized { what: "header", limit: MAX_HEADER, got };
    assert_eq!(refused(&guest, &long_header), RequestError::Wire(error));

    let frame = 8 + guest.header.encode().len() + crate::keys::ENCAPPED_BYTES;
    let mut long_frame = wire.clone();
    long_frame[frame + 17..frame + 21].copy_from_slice(&u32::MAX.to_be_bytes());
    let error = WireError::Oversized { what: "frame", limit: MAX_FRAME, got };
    assert_eq!(refused(&guest, &long_frame), RequestError::Wire(error));

    let error = WireError::Oversized { what: "request", limit: MAX_REQUEST, got: MAX_REQUEST + 1 };
    assert_eq!(refused(&guest, &vec![0; MAX_REQUEST + 1]), RequestError::Wire(error.clone()));
    assert_eq!(SealedRequest::from_wire(vec![0; MAX_REQUEST + 1]), Err(error));
}

#[test]
fn the_longest_body_fits_and_a_longer_one_is_refused() {
    let guest = Guest::new();
    let (wire, _) = guest.sealed(&guest.header, &vec![b'a'; MAX_BODY]);
    assert!(wire.len() <= MAX_REQUEST);
    assert!(guest.open(&wire).is_ok());
    let key = public_key(guest.seal.public_bytes()).expect("a key");
    let body = Prompt::new(vec![b'a'; MAX_BODY + 1]);
    let result = seal_to(&key, &[0; 32], &guest.header, Endpoint::ChatCompletions, body);
    let error = SealError::BodyTooLarge { limit: MAX_BODY, got: MAX_BODY + 1 };
    assert_eq!(result.err(), Some(error));
}

#[test]
fn a_header_has_one_encoding() {
    let header = Guest::new().header;
    let encoded = header.encode();
    assert_eq!(RequestHeader::decode(&encoded), Ok(header));
    // The first field, the version, written with one byte more than it needs.
    let mut longer = encoded.clone();
    assert_eq!(longer[..3], [0xa7, 0x00, 0x02]);
    longer.splice(2..3, [0x18, 0x02]);
    assert_eq!(RequestHeader::decode(&longer), Err(WireError::Malformed { what: "header" }));
    let trailing = [encoded.as_slice(), &[0]].concat();
    assert_eq!(RequestHeader::decode(&trailing), Err(WireError::Malformed { what: "header" }));
}

#[test]
fn bytes_that_are_no_key_are_not_sealed_to() {
    assert!(public_key(&[0xff; SEAL_KEY_BYTES]).is_none(), "coefficients beyond the modulus");
    assert!(public_key(&[0; SEAL_KEY_BYTES - 1]).is_none());
    assert!(public_key(Guest::new().seal.public_bytes()).is_some());
}
