//! Seeded damage to every form in which a peer's or a chain's bytes reach this crate: nothing may panic or hang, what
//! is accepted has one encoding, and nothing changed passes for signed.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where by panicking")]

mod fuzzing;

use cocoon_contracts::channel::{self, State, Terms};
use cocoon_contracts::registry::{
    Approval, Change, Coefficients, Content, Deployment, Gateway, Image, Measurements, Model, Owners,
    PlatformId, PlatformKind, Prices, Registry, SnpFloors, Status, TcbFloor, TdxRegisters, TurinFloor,
};
use cocoon_contracts::{
    Address, Cell, SignedVoucher, SigningKey, Voucher, check_key, friendly, message, parse_address, wallet,
};
use fuzzing::{Random, iterations, timed};
use tycho_types::cell::{CellBuilder, CellFamily as _, HashBytes, Store as _};

const LIMIT: usize = 1 << 20;

fn terms() -> Terms {
    let address = |byte| Address::new(0, HashBytes([byte; 32]));
    Terms {
        payer: address(1),
        payee: address(2),
        payer_key: SigningKey::from_seed(&[1; 32]).public(),
        network: -217,
        nonce: 5,
        challenge_seconds: 600,
        fee_bps: 500,
        treasury: address(3),
    }
}

/// An open channel's data cell: the first one, with another deadline.
fn channel_data() -> Cell {
    let first = terms().state_init().data.unwrap();
    let mut rest = first.as_slice().unwrap();
    rest.load_u32().unwrap();
    let mut builder = CellBuilder::new();
    builder.store_u32(u32::MAX).unwrap();
    builder.store_slice(rest).unwrap();
    builder.build().unwrap()
}

fn content() -> Content {
    let image = |index: u8| Image {
        name: format!("image {index}"),
        profile: "machine".into(),
        status: if index == 2 { Status::Barred } else { Status::Allowed },
        measurements: match index % 3 {
            0 => Measurements::Tdx(Box::new(TdxRegisters { mrtd: [index; 48], rtmr: [[index; 48]; 4] })),
            1 => Measurements::Snp { launch: [index; 48] },
            _ => Measurements::Vtpm { pcrs: (0..index).map(|number| (number, [index; 32])).collect() },
        },
        configuration: (index != 1).then_some([index; 32]),
    };
    let model = |index: u8| Model {
        name: format!("model {index}"),
        status: Status::Allowed,
        weights: [index; 32],
        prices: Prices { prompt: u64::MAX, cached: 0, completion: 1 },
    };
    let gateway = |index: u8| Gateway {
        name: format!("gateway {index}"),
        status: Status::Allowed,
        address: Address::new(0, HashBytes([index; 32])),
    };
    let kinds = [PlatformKind::Ppid, PlatformKind::Chip, PlatformKind::Gpu];
    let barred = |kind: PlatformKind| PlatformId { kind, id: vec![kind as u8; 16] };
    let floor = TcbFloor { boot_loader: 9, tee: 0, snp: 21, microcode: 255 };
    Content {
        fee_bps: 500,
        treasury: Address::new(0, HashBytes([3; 32])),
        coefficients: Coefficients { min_permille: 500, max_permille: 3000 },
        images: (0..5).map(image).collect(),
        models: (0..5).map(model).collect(),
        gateways: (0..3).map(gateway).collect(),
        barred: kinds.map(barred).to_vec(),
        snp: SnpFloors { milan: None, genoa: Some(floor), turin: Some(TurinFloor { fmc: 1, tcb: floor }) },
    }
}

fn registry_data() -> Cell {
    let owners = Owners::new(2, (8..11).map(|seed| SigningKey::from_seed(&[seed; 32]).public())).unwrap();
    Deployment { owners, delay: 60, salt: 1, content: content() }.state_init().unwrap().data.unwrap()
}

#[test]
fn vouchers_have_one_encoding_and_no_changed_one_verifies() {
    let key = SigningKey::from_seed(&[1; 32]);
    let voucher =
        Voucher { network: -217, channel: terms().address(), nonce: 5, cumulative: 1_234_567_890_123 };
    let valid = voucher.sign(&key).encode();
    let mut random = Random::seeded("voucher");
    for round in 0..iterations() {
        let bytes = random.bytes(&valid);
        timed(round, || {
            let Ok(decoded) = SignedVoucher::decode(&bytes) else { return };
            assert_eq!(decoded.encode(), bytes, "round {round}: accepted, but not canonical");
            let verified = decoded.verify(&key.public()).is_ok() || decoded.verify_for(&terms()).is_ok();
            assert!(!verified || bytes == valid, "round {round}: a changed voucher verifies");
        });
        let rubbish: [u8; 32] = std::array::from_fn(|_| random.next() as u8);
        let _ = check_key(&rubbish);
        let _ = decoded_by_another_key(&valid, &rubbish);
    }
}

fn decoded_by_another_key(voucher: &[u8], key: &[u8; 32]) -> bool {
    let verifies = SignedVoucher::decode(voucher).is_ok_and(|voucher| voucher.verify(key).is_ok());
    assert!(!verifies, "a key made of rubbish verifies");
    verifies
}

#[test]
fn channel_data_has_one_reading() {
    let valid = channel_data();
    assert_eq!(State::parse(&valid, 1).unwrap().terms, terms());
    let mut random = Random::seeded("channel data");
    let mut accepted = 0;
    for round in 0..iterations() {
        let cell = random.tree(&valid);
        timed(round, || {
            let Ok(state) = State::parse(&cell, u64::MAX) else { return };
            accepted += 1;
            // Behind deadline and amounts lie the terms, all of them and nothing else.
            let again = state.terms.state_init().data.unwrap();
            let fixed = |cell: &Cell| {
                let mut slice = cell.as_slice().unwrap();
                slice.skip_first(32 + 3 * 64, 0).unwrap();
                let mut builder = CellBuilder::new();
                builder.store_slice(slice).unwrap();
                builder.build().unwrap()
            };
            assert_eq!(fixed(&again), fixed(&cell), "round {round}: two readings");
            let _ = (state.deposit(), state.terms.check(), state.terms.network_fee(u64::MAX));
        });
    }
    assert!(accepted > iterations() / 100, "the damage is too coarse: {accepted} were read");
}

#[test]
fn registries_survive_their_cell_or_are_refused() {
    let (data, cell) = (registry_data(), content().to_cell().unwrap());
    let mut random = Random::seeded("registry");
    let mut accepted = 0;
    for round in 0..iterations() {
        let (data, cell) = (random.tree(&data), random.tree(&cell));
        timed(round, || {
            if let Ok(registry) = Registry::parse(&data) {
                let barred = |name: &str| registry.content.images.iter().any(|i| i.name == name);
                assert!(
                    registry.images().all(|image| image.status == Status::Allowed && barred(&image.name))
                );
                assert!(registry.models().count() <= registry.content.models.len());
                let Registry { owners, content, .. } = registry.clone();
                let change = Change { owners, content };
                Approval::to_propose(-217, &terms().payer, &registry, change, 1).unwrap().to_bytes().unwrap();
            }
            if let Ok(content) = Content::parse(&cell) {
                accepted += 1;
                let again = content.to_cell().unwrap();
                assert_eq!(Content::parse(&again).unwrap(), content, "round {round}");
            }
        });
    }
    assert!(accepted > iterations() / 100, "the damage is too coarse: {accepted} were read");
}

#[test]
fn bags_of_cells_survive_or_are_refused() {
    let mut state_init = CellBuilder::new();
    terms().state_init().store_into(&mut state_init, Cell::empty_context()).unwrap();
    let valid = [
        message::encode(&state_init.build().unwrap()),
        message::encode(&registry_data()),
        message::encode(&channel::code()),
    ];
    let mut random = Random::seeded("bags of cells");
    for round in 0..iterations() {
        let mut bytes = random.bytes(&valid[round as usize % valid.len()]);
        if round % 8 == 0 {
            bytes = [&[0xb5, 0xee, 0x9c, 0x72][..], &random.rubbish(200)].concat();
        }
        timed(round, || {
            let Ok(cell) = message::decode(&bytes, LIMIT) else { return };
            assert_eq!(message::decode(&message::encode(&cell), LIMIT).unwrap(), cell, "round {round}");
            read_all(&cell);
        });
    }
}

/// All that reads a cell.
fn read_all(cell: &Cell) {
    let _ = State::parse(cell, 1);
    let _ = Content::parse(cell);
    let _ = Registry::parse(cell);
    for version in wallet::WalletVersion::ALL {
        let _ = version.seqno(cell);
    }
}

/// A bag as a peer would write it by hand: `cells` cells of one root, each referring to the next `width` times.
fn chain_of_cells(cells: u16, width: u8) -> Vec<u8> {
    let size = usize::from(cells) * (2 + 2 * usize::from(width)) - 2 * usize::from(width);
    let mut bytes = vec![0xb5, 0xee, 0x9c, 0x72, 0x02, 0x03];
    bytes.extend_from_slice(&cells.to_be_bytes());
    bytes.extend_from_slice(&[0, 1, 0, 0]); // one root, none absent
    bytes.extend_from_slice(&u32::try_from(size).unwrap().to_be_bytes()[1..]);
    bytes.extend_from_slice(&[0, 0]); // the root is the first cell
    for index in 1..cells {
        bytes.extend_from_slice(&[width, 0]);
        (0..width).for_each(|_| bytes.extend_from_slice(&index.to_be_bytes()));
    }
    bytes.extend_from_slice(&[0, 0]);
    bytes
}

#[test]
fn deep_and_bushy_trees_exhaust_nothing() {
    // Two references to the same child at each level: 2^512 paths through 512 cells.
    for (cells, width) in [(512, 2), (512, 4), (1024, 1), (1025, 1), (40_000, 1), (65_535, 1)] {
        let bytes = chain_of_cells(cells, width);
        timed(u64::from(cells), || match message::decode(&bytes, LIMIT) {
            Ok(cell) => {
                assert_eq!(cell.repr_depth(), cells - 1);
                assert_eq!(message::decode(&message::encode(&cell), LIMIT).unwrap(), cell);
                read_all(&cell);
            }
            Err(error) => assert!(cells > 1024, "{cells} cells: {error}"),
        });
    }
    // Counts that nothing backs.
    for count in [0u32, 1, 0x00ff_ffff, u32::MAX] {
        let mut bytes = vec![0xb5, 0xee, 0x9c, 0x72, 0x04, 0x04];
        (0..5).for_each(|_| bytes.extend_from_slice(&count.to_be_bytes()));
        assert!(timed(u64::from(count), || message::decode(&bytes, LIMIT)).is_err());
    }
    assert!(message::decode(&vec![0; LIMIT + 1], LIMIT).is_err());
}

#[test]
fn addresses_read_the_same_in_both_spellings() {
    let address = terms().address();
    let valid = [address.to_string(), friendly(&address, true), friendly(&address, false), "-1:".into()];
    let mut random = Random::seeded("address");
    for round in 0..iterations() {
        let text = random.text(&valid[round as usize % valid.len()]);
        timed(round, || {
            let Ok(read) = parse_address(&text) else { return };
            assert_eq!(parse_address(&read.to_string()).as_ref(), Ok(&read), "{text}");
            assert_eq!(parse_address(&friendly(&read, true)).as_ref(), Ok(&read), "{text}");
        });
    }
}

#[test]
fn approvals_are_read_as_they_were_written_or_refused() {
    let keys: Vec<_> = (8..11).map(|seed| SigningKey::from_seed(&[seed; 32])).collect();
    let registry = Registry::parse(&registry_data()).unwrap();
    let change = Change { owners: registry.owners.clone(), content: content() };
    let mut approval = Approval::to_propose(-217, &terms().payer, &registry, change, 99).unwrap();
    keys[..2].iter().for_each(|key| approval.sign(key).unwrap());
    let valid = approval.to_bytes().unwrap();
    assert_eq!(Approval::from_bytes(&valid).unwrap(), approval);
    let mut random = Random::seeded("approval");
    for round in 0..iterations() / 10 {
        let bytes = random.bytes(&valid);
        timed(round, || {
            let Ok(read) = Approval::from_bytes(&bytes) else { return };
            // Whatever signatures are left, they are good ones of this very decision.
            assert!(read.hash() == approval.hash() || read.signers().count() == 0, "round {round}");
            assert_eq!(Approval::from_bytes(&read.to_bytes().unwrap()).unwrap(), read);
        });
    }
}
