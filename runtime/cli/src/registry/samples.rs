//! Contents of registries for the tests of this folder.

use cocoon_contracts::registry::{
    Change, Coefficients, Content, Gateway, Image, Measurements, Model, Owners, Prices, SnpFloors, Status,
    TcbFloor, TdxRegisters, TurinFloor,
};
use cocoon_contracts::{Address, SigningKey, VerifyingKey};

fn key(seed: u8) -> VerifyingKey {
    SigningKey::from_seed(&[seed; 32]).public()
}

fn owners(required: u8, seeds: &[u8]) -> Owners {
    Owners::new(required, seeds.iter().map(|seed| key(*seed))).expect("sound keys")
}

fn address(byte: &str) -> Address {
    cocoon_contracts::parse_address(&format!("0:{}", byte.repeat(32))).expect("an address")
}

/// One owner, and nothing trusted.
pub(super) fn empty() -> Change {
    Change { owners: owners(1, &[1]), content: Content::empty(0, address("11")) }
}

/// Every kind of entry.
pub(super) fn full() -> Change {
    let registers = TdxRegisters { mrtd: [1; 48], rtmr: [[2; 48], [3; 48], [4; 48], [5; 48]] };
    let image = |name: &str, measurements| Image {
        name: name.to_owned(),
        profile: String::new(),
        status: Status::Allowed,
        measurements,
        configuration: None,
    };
    let pcrs = [(4, [6; 32]), (11, [7; 32])].into();
    let mut booted = image("guest 1", Measurements::Snp { launch: [8; 48] });
    booted.profile = "qemu-4".to_owned();
    booted.configuration = Some([9; 32]);
    let old = Image { status: Status::Barred, ..image("old", Measurements::Tdx(Box::new(registers))) };
    let prices = Prices { prompt: 20_000_000, cached: 5_000_000, completion: 160_000_000 };
    let model = Model { name: "tiny".to_owned(), status: Status::Allowed, weights: [10; 32], prices };
    let gateway = Gateway { name: "https://one".to_owned(), status: Status::Allowed, address: address("22") };
    let floor = TcbFloor { boot_loader: 9, tee: 0, snp: 21, microcode: 84 };
    let content = Content {
        coefficients: Coefficients { min_permille: 100, max_permille: 10_000 },
        images: vec![old, booted, image("cloud", Measurements::Vtpm { pcrs })],
        models: vec![model],
        gateways: vec![gateway],
        barred: vec!["chip:00ff".parse().expect("a machine")],
        snp: SnpFloors { milan: None, genoa: Some(floor), turin: Some(TurinFloor { fmc: 1, tcb: floor }) },
        ..Content::empty(500, address("11"))
    };
    Change { owners: owners(1, &[1, 2]), content }
}

/// [`full`] with one thing changed, each in its own way.
pub(super) fn variations() -> Vec<Change> {
    let of = |change: &dyn Fn(&mut Change)| {
        let mut changed = full();
        change(&mut changed);
        changed
    };
    vec![
        of(&|it| it.owners = owners(2, &[1, 2])),
        of(&|it| it.owners = owners(1, &[1, 3])),
        of(&|it| it.content.fee_bps += 1),
        of(&|it| it.content.treasury = address("33")),
        of(&|it| it.content.coefficients.min_permille += 1),
        of(&|it| it.content.coefficients.max_permille += 1),
        of(&|it| it.content.images[0].status = Status::Allowed),
        of(&|it| it.content.images[0].configuration = Some([1; 32])),
        of(&|it| it.content.images[1].configuration = None),
        of(&|it| it.content.images[1].profile = "qemu-8".to_owned()),
        of(&|it| it.content.images[1].measurements = Measurements::Snp { launch: [1; 48] }),
        of(&|it| it.content.images[2].measurements = Measurements::Vtpm { pcrs: [(4, [6; 32])].into() }),
        of(&|it| it.content.images[2].name = "clouds".to_owned()),
        of(&|it| it.content.images.swap(0, 1)),
        of(&|it| it.content.models[0].weights[31] ^= 1),
        of(&|it| it.content.models[0].prices.cached += 1),
        of(&|it| it.content.models.push(full().content.models[0].clone())),
        of(&|it| it.content.gateways[0].address = address("33")),
        of(&|it| it.content.gateways[0].status = Status::Barred),
        of(&|it| it.content.barred.clear()),
        of(&|it| it.content.snp.milan = it.content.snp.genoa),
        of(&|it| it.content.snp.genoa = None),
        of(&|it| it.content.snp.turin.as_mut().expect("a floor").fmc += 1),
        of(&|it| it.content.snp.turin.as_mut().expect("a floor").tcb.microcode += 1),
    ]
}
