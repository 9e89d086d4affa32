//! Vouchers that are somebody else's, messages that are nobody's, and bytes that are nothing.

use cocoon_contracts::channel::{self, SETTLE_VALUE};
use cocoon_contracts::{Cell, SigningKey, TON, Voucher, message};
use cocoon_ledger::SubmitError;
use proptest::prelude::*;
use tycho_types::cell::{CellBuilder, CellFamily as _};

use super::world::{NETWORK, Who, World, to_contract};

#[test]
fn vouchers_of_other_keys_channels_nonces_and_networks_are_refused() {
    let mut world = World::new();
    let terms = world.open(1, TON);
    let other = world.open(2, TON);
    let key = world.session_key();
    let good = Voucher { network: NETWORK, channel: terms.address(), nonce: 1, cumulative: 7_000_000 };
    let wallet_key = SigningKey::from_seed(&[1; 32]);
    let cases = [
        ("another key", good.clone().sign(&wallet_key)),
        ("another channel", Voucher { channel: other.address(), ..good.clone() }.sign(&key)),
        ("another nonce", Voucher { nonce: 2, ..good.clone() }.sign(&key)),
        ("another network", Voucher { network: -239, ..good.clone() }.sign(&key)),
        ("another amount", {
            let mut signed = good.clone().sign(&key);
            signed.voucher.cumulative += 1;
            signed
        }),
    ];
    for (what, voucher) in cases {
        assert!(voucher.verify_for(&terms).is_err(), "{what}: the payee's own check refuses it");
        let body = channel::settle_body(&voucher);
        let tx = world.send(Who::Payee, to_contract(&terms.address(), SETTLE_VALUE, body));
        assert_eq!((tx.exit_code, tx.aborted), (Some(0x107), true), "{what}");
    }
    let signed = good.sign(&key);
    assert!(signed.verify_for(&terms).is_ok());
    let settle = |who| (who, to_contract(&terms.address(), SETTLE_VALUE, channel::settle_body(&signed)));
    for who in [Who::Payer, Who::Stranger] {
        let (who, transfer) = settle(who);
        assert_eq!(world.send(who, transfer).exit_code, Some(0x102));
    }
    assert!(!world.send(Who::Payee, settle(Who::Payee).1).aborted);
}

#[test]
fn messages_that_are_nobodys_bounce() {
    let mut world = World::new();
    let terms = world.open(1, TON);
    let before = world.channel(&terms).unwrap();
    let op = |op: u32| {
        let mut builder = CellBuilder::new();
        builder.store_u32(op).unwrap();
        builder.build().unwrap()
    };
    // Unknown operations, no operation, an operation cut short.
    for body in [op(0), op(0xdead_beef), op(0x4348_0003), op(0x4348_0006), Cell::empty_cell()] {
        let payer_before = world.balance(&world.payer.address);
        let tx = world.send(Who::Payer, to_contract(&terms.address(), TON, body));
        assert!(tx.aborted);
        assert!(payer_before - world.balance(&world.payer.address) < 2_000_000, "the money came back");
    }
    assert_eq!(world.channel(&terms).unwrap(), before);
}

#[test]
fn garbage_is_refused_without_a_trace() {
    let mut world = World::new();
    for bytes in [vec![], vec![0xb5, 0xee, 0x9c, 0x72], vec![0xff; 65_536], vec![0; 100_000]] {
        assert!(matches!(world.ledger.submit(&bytes), Err(SubmitError::Malformed(_))));
    }
    // The right form, and nobody there.
    let empty = message::encode(&Cell::empty_cell());
    assert!(matches!(world.ledger.submit(&empty), Err(SubmitError::Malformed(_))));
    assert!(!world.ledger.has_work());
}

#[test]
fn a_very_deep_bag_of_cells_is_refused() {
    // A chain of 16 000 cells, in the 64 KiB that a message may have: magic, header, then each cell pointing at the next.
    let count: u16 = 13_000;
    let mut cells = Vec::new();
    for index in 0..count - 1 {
        cells.extend_from_slice(&[1, 0]);
        cells.extend_from_slice(&(index + 1).to_be_bytes());
    }
    cells.extend_from_slice(&[0, 0]);
    let mut bag = vec![0xb5, 0xee, 0x9c, 0x72, 0x02, 0x03];
    bag.extend_from_slice(&count.to_be_bytes());
    bag.extend_from_slice(&1u16.to_be_bytes());
    bag.extend_from_slice(&0u16.to_be_bytes());
    bag.extend_from_slice(&u32::try_from(cells.len()).unwrap().to_be_bytes()[1..]);
    bag.extend_from_slice(&0u16.to_be_bytes());
    bag.extend_from_slice(&cells);
    assert!(bag.len() <= message::MAX_MESSAGE_BYTES);
    assert!(matches!(World::new().ledger.submit(&bag), Err(SubmitError::Malformed(_))));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Random changes of a good message never panic, and never pass for it.
    #[test]
    fn damaged_messages_never_panic(at in 0usize..400, value: u8, cut in 0usize..400, tail: Vec<u8>) {
        let mut world = World::new();
        let transfer = to_contract(&world.payee.address, 1, channel::top_up_body());
        let good = cocoon_contracts::wallet::external_message(
            &world.payer.key, 0, world.now + 60, true, &[transfer]).unwrap();
        let good = message::encode(&good);
        let mut bytes = good.clone();
        let at = at % bytes.len();
        bytes[at] = value;
        bytes.truncate(bytes.len() - cut.min(bytes.len() - 1) / 4);
        bytes.extend_from_slice(&tail);
        let outcome = world.ledger.submit(&bytes);
        prop_assert!(outcome.is_err() || bytes == good);
        world.block();
    }
}
