//! Who may spend a channel.

mod common;

use cocoon_accounts::{AuthorizationError as E, authorization::TOLERANCE_SECONDS, authorize, check};
use cocoon_contracts::SigningKey;
use common::{account, key};

const NOW: u64 = 1_700_000_000;
const BODY: &[u8] = b"a sealed request";

fn checked(header: Option<&str>, body: Option<&[u8]>) -> Result<(), E> {
    check(header, &key().public(), &account(1), NOW, body)
}

#[test]
fn the_payer_is_let_through_for_requests_and_reads() {
    let request = authorize(&key(), &account(1), NOW, Some(BODY));
    assert_eq!(checked(Some(&request), Some(BODY)), Ok(()));
    let read = authorize(&key(), &account(1), NOW, None);
    assert_eq!(checked(Some(&read), None), Ok(()));
    assert_eq!(checked(Some(&read), Some(b"")), Err(E::Signature), "an empty body is not a read");
}

#[test]
fn a_missing_or_misshapen_header_is_refused() {
    assert_eq!(checked(None, Some(BODY)), Err(E::Missing));
    let good = authorize(&key(), &account(1), NOW, Some(BODY));
    let (seconds, signature) = good.split_once(' ').expect("two words");
    let wrong = [
        String::new(),
        seconds.to_owned(),
        format!("x {signature}"),
        format!("{seconds} 00"),
        format!("{good}0"),
    ];
    for header in wrong {
        assert_eq!(checked(Some(&header), Some(BODY)), Err(E::Malformed), "{header:?}");
    }
}

#[test]
fn another_key_body_channel_or_time_is_refused() {
    let stranger = authorize(&SigningKey::from_seed(&[9; 32]), &account(1), NOW, Some(BODY));
    assert_eq!(checked(Some(&stranger), Some(BODY)), Err(E::Signature));
    let other_body = authorize(&key(), &account(1), NOW, Some(b"another request"));
    assert_eq!(checked(Some(&other_body), Some(BODY)), Err(E::Signature));
    let other_channel = authorize(&key(), &account(2), NOW, Some(BODY));
    assert_eq!(checked(Some(&other_channel), Some(BODY)), Err(E::Signature));
    let moved = authorize(&key(), &account(1), NOW - 1, Some(BODY));
    let moved = moved.replacen(&(NOW - 1).to_string(), &NOW.to_string(), 1);
    assert_eq!(checked(Some(&moved), Some(BODY)), Err(E::Signature), "the time is signed");
}

#[test]
fn an_authorization_ends_five_minutes_to_either_side() {
    for signed in [NOW - TOLERANCE_SECONDS, NOW + TOLERANCE_SECONDS] {
        let header = authorize(&key(), &account(1), signed, None);
        assert_eq!(checked(Some(&header), None), Ok(()));
    }
    for signed in [NOW - TOLERANCE_SECONDS - 1, NOW + TOLERANCE_SECONDS + 1] {
        let header = authorize(&key(), &account(1), signed, None);
        assert_eq!(checked(Some(&header), None), Err(E::Expired { signed, now: NOW }));
    }
}
