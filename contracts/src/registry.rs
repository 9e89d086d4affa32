//! The registry, `registry.tolk`: what the network trusts, and how that changes.

use std::sync::LazyLock;

use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, CellFamily, CellSlice, HashBytes, Load, Store};
use tycho_types::dict::Dict;
use tycho_types::error::Error;
use tycho_types::models::StateInit;

use crate::{Address, Malformed, Nanotons, build_cell};

const PROPOSE: u32 = 0x5247_0001;
const CANCEL: u32 = 0x5247_0002;
const ACTIVATE: u32 = 0x5247_0003;
const TOP_UP: u32 = 0x5247_0004;

/// The layout of [`Content`]. A client refuses any other.
const CONTENT_FORMAT: u8 = 1;
/// The highest network fee that the contract lets anybody propose, in basis points.
pub const MAX_FEE_BPS: u16 = 2000;
/// Longest name of an image or a model, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 64;
/// Most images, and most models, in one registry.
pub const MAX_ENTRIES: usize = 256;
/// Value to attach to a proposal, cancellation or activation; what is not used comes back. 0.05 TON.
pub const CHANGE_VALUE: Nanotons = 50_000_000;
/// Value to deploy with: it pays rent for years. 0.2 TON.
pub const DEPLOY_VALUE: Nanotons = 200_000_000;

static CODE: LazyLock<Cell> = LazyLock::new(|| {
    Boc::decode(include_bytes!("../registry.boc")).expect("the committed code is a valid bag of cells")
});

/// The contract's code.
pub fn code() -> Cell {
    CODE.clone()
}

/// The hash of the contract's code: what an account must have to be a registry.
pub fn code_hash() -> [u8; 32] {
    CODE.repr_hash().0
}

/// Whether an entry counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It counts.
    Allowed,
    /// Named, and not to be trusted any more.
    Barred,
}

/// The registers of a TDX guest image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measurements {
    /// What was loaded: firmware, or the guest binary in process mode.
    pub mrtd: [u8; 48],
    /// The four runtime registers.
    pub rtmr: [[u8; 48]; 4],
}

/// A guest image that the network knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// Its name, such as `cocoon-guest 0.1 process`.
    pub name: String,
    /// Whether it counts.
    pub status: Status,
    /// Its registers.
    pub measurements: Measurements,
    /// The digest of the configuration it must run with, if one is fixed.
    pub configuration: Option<[u8; 32]>,
}

/// A model that the network knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Model {
    /// Its name, as in the API.
    pub name: String,
    /// Whether it counts.
    pub status: Status,
    /// SHA-256 of its weights file, or their verity root.
    pub weights: [u8; 32],
    /// The price of prompt tokens, in nanotons per million.
    pub prompt_price: Nanotons,
    /// The price of completion tokens, in nanotons per million.
    pub completion_price: Nanotons,
}

/// What the network trusts at one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Content {
    /// The network's share of every payment, in basis points. At most [`MAX_FEE_BPS`].
    pub fee_bps: u16,
    /// Who gets it.
    pub treasury: Address,
    /// Guest images, at most [`MAX_ENTRIES`].
    pub images: Vec<Image>,
    /// Models, at most [`MAX_ENTRIES`].
    pub models: Vec<Model>,
}

impl Content {
    /// The cell that the contract keeps.
    ///
    /// # Errors
    /// A name, a list or the fee is over its limit.
    pub fn to_cell(&self) -> Result<Cell, Malformed> {
        self.check()?;
        let images = store_list(self.images.iter().map(store_image))?;
        let models = store_list(self.models.iter().map(store_model))?;
        Ok(build_cell(|b| {
            b.store_u8(CONTENT_FORMAT)?;
            b.store_u16(self.fee_bps)?;
            let context = Cell::empty_context();
            self.treasury.store_into(b, context)?;
            images.store_into(b, context)?;
            models.store_into(b, context)
        }))
    }

    /// Reads what [`Content::to_cell`] wrote.
    pub fn parse(cell: &Cell) -> Result<Self, Malformed> {
        let content = Self::load(cell).map_err(|error| Malformed::new("registry content", error))?;
        content.check()?;
        Ok(content)
    }

    fn check(&self) -> Result<(), Malformed> {
        let refuse = |why: String| Err(Malformed::new("registry content", why));
        if self.fee_bps > MAX_FEE_BPS {
            return refuse(format!("a fee of {} basis points is over {MAX_FEE_BPS}", self.fee_bps));
        }
        if self.treasury.workchain != 0 {
            return refuse(format!("the treasury {} is not in workchain 0", self.treasury));
        }
        if self.images.len() > MAX_ENTRIES || self.models.len() > MAX_ENTRIES {
            return refuse(format!("more than {MAX_ENTRIES} images or models"));
        }
        let names = self.images.iter().map(|i| &i.name).chain(self.models.iter().map(|m| &m.name));
        for name in names {
            if name.is_empty() || name.len() > MAX_NAME_BYTES {
                return refuse(format!("a name of {} bytes (1 to {MAX_NAME_BYTES} are allowed)", name.len()));
            }
        }
        Ok(())
    }

    fn load(cell: &Cell) -> Result<Self, Error> {
        let mut slice = cell.as_slice()?;
        if slice.load_u8()? != CONTENT_FORMAT {
            return Err(Error::InvalidTag);
        }
        let fee_bps = slice.load_u16()?;
        let treasury = Address::load_from(&mut slice)?;
        let images = load_list(&mut slice, load_image)?;
        let models = load_list(&mut slice, load_model)?;
        Ok(Self { fee_bps, treasury, images, models })
    }
}

/// A change that was announced and waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// From when on anybody may activate it (Unix time).
    pub ready_at: u32,
    /// Who owns the registry afterwards.
    pub owner: Address,
    /// What will count.
    pub content: Content,
}

/// A registry's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// Grows by one with every change that counts. A client refuses one older than it has seen.
    pub version: u32,
    /// How long a change waits, in seconds. Fixed at deployment.
    pub delay: u32,
    /// Who may propose.
    pub owner: Address,
    /// What counts now.
    pub content: Content,
    /// What was announced.
    pub proposal: Option<Proposal>,
}

impl Registry {
    /// Reads a registry's data cell.
    pub fn parse(data: &Cell) -> Result<Self, Malformed> {
        let raw = Data::load(data).map_err(|error| Malformed::new("registry data", error))?;
        let proposal = raw.proposal.map(|(ready_at, owner, content)| {
            Ok::<_, Malformed>(Proposal { ready_at, owner, content: Content::parse(&content)? })
        });
        Ok(Self {
            version: raw.version,
            delay: raw.delay,
            owner: raw.owner,
            content: Content::parse(&raw.content)?,
            proposal: proposal.transpose()?,
        })
    }

    /// Whether this is older than version `seen`: then whoever showed it is behind, or hides a change.
    pub fn is_older_than(&self, seen: u32) -> bool {
        self.version < seen
    }

    /// Images that count: allowed, and their measurements not barred by another entry, whatever it is called.
    pub fn images(&self) -> impl Iterator<Item = &Image> {
        let images = &self.content.images;
        let barred = |image: &Image| {
            images.iter().any(|it| it.status == Status::Barred && it.measurements == image.measurements)
        };
        images.iter().filter(move |image| image.status == Status::Allowed && !barred(image))
    }

    /// Models that count: allowed, and their weights not barred by another entry, whatever it is called.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        let models = &self.content.models;
        let barred = |model: &Model| {
            models.iter().any(|it| it.status == Status::Barred && it.weights == model.weights)
        };
        models.iter().filter(move |model| model.status == Status::Allowed && !barred(model))
    }
}

/// What a new registry is deployed with.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Who may propose.
    pub owner: Address,
    /// How long a change waits, in seconds; at least 1.
    pub delay: u32,
    /// Makes the address unique.
    pub salt: u64,
    /// What counts from the start, as version 1.
    pub content: Content,
}

impl Deployment {
    /// Code and first data.
    pub fn state_init(&self) -> Result<StateInit, Malformed> {
        let content = self.content.to_cell()?;
        let data = build_cell(|b| {
            b.store_u32(1)?;
            b.store_u32(self.delay)?;
            b.store_u64(self.salt)?;
            self.owner.store_into(b, Cell::empty_context())?;
            b.store_reference(content)?;
            b.store_bit_zero()
        });
        Ok(StateInit { code: Some(code()), data: Some(data), ..Default::default() })
    }

    /// The registry's address.
    pub fn address(&self) -> Result<Address, Malformed> {
        let cell = CellBuilder::build_from(self.state_init()?).expect("a state init fits in a cell");
        Ok(Address::new(0, *cell.repr_hash()))
    }
}

/// The owner announces a change: `owner` is who owns the registry once it counts.
pub fn propose_body(owner: &Address, content: &Content) -> Result<Cell, Malformed> {
    let content = content.to_cell()?;
    Ok(build_cell(|b| {
        b.store_u32(PROPOSE)?;
        owner.store_into(b, Cell::empty_context())?;
        b.store_reference(content)
    }))
}

/// The owner takes the announcement back.
pub fn cancel_body() -> Cell {
    build_cell(|b| b.store_u32(CANCEL))
}

/// Anybody makes the announced change count, once its delay has passed. `version` is the one in force before.
pub fn activate_body(version: u32) -> Cell {
    build_cell(|b| {
        b.store_u32(ACTIVATE)?;
        b.store_u32(version)
    })
}

/// Pays rent; the first one deploys.
pub fn top_up_body() -> Cell {
    build_cell(|b| b.store_u32(TOP_UP))
}

/// The exit codes of `registry.tolk`, in words.
pub fn exit_code_meaning(code: i32) -> Option<&'static str> {
    Some(match code {
        0x200 => "the sender is not the registry's owner",
        0x201 => "a change is proposed already: cancel or activate it first",
        0x202 => "nothing is proposed on this version",
        0x203 => "the delay has not passed yet",
        0x204 => "the content's format, fee or treasury is not acceptable",
        0x205 => "the registry was deployed with a delay or version that is not acceptable",
        0xffff => "the message is none of a registry's",
        _ => return None,
    })
}

struct Data {
    version: u32,
    delay: u32,
    owner: Address,
    content: Cell,
    proposal: Option<(u32, Address, Cell)>,
}

impl Data {
    fn load(cell: &Cell) -> Result<Self, Error> {
        let mut slice = cell.as_slice()?;
        let version = slice.load_u32()?;
        let delay = slice.load_u32()?;
        let _salt = slice.load_u64()?;
        let owner = Address::load_from(&mut slice)?;
        let content = slice.load_reference_cloned()?;
        let proposal = if slice.load_bit()? {
            let mut proposal = slice.load_reference_as_slice()?;
            let ready_at = proposal.load_u32()?;
            let owner = Address::load_from(&mut proposal)?;
            Some((ready_at, owner, proposal.load_reference_cloned()?))
        } else {
            None
        };
        Ok(Self { version, delay, owner, content, proposal })
    }
}

fn store_list(entries: impl Iterator<Item = Cell>) -> Result<Dict<u16, Cell>, Malformed> {
    let mut list = Dict::new();
    for (index, entry) in (0u16..).zip(entries) {
        list.set(index, entry).map_err(|error| Malformed::new("registry content", error))?;
    }
    Ok(list)
}

fn load_list<T>(
    slice: &mut CellSlice<'_>,
    load: impl Fn(CellSlice<'_>) -> Result<T, Error>,
) -> Result<Vec<T>, Error> {
    let list = Dict::<u16, Cell>::load_from(slice)?;
    let mut entries = Vec::new();
    for entry in list.iter() {
        if entries.len() == MAX_ENTRIES {
            return Err(Error::InvalidData);
        }
        entries.push(load(entry?.1.as_slice()?)?);
    }
    Ok(entries)
}

fn store_image(image: &Image) -> Cell {
    let Measurements { mrtd, rtmr: [rtmr0, rtmr1, rtmr2, rtmr3] } = &image.measurements;
    let pair = |a: &[u8; 48], b: &[u8; 48]| {
        build_cell(|c| {
            c.store_raw(a, 384)?;
            c.store_raw(b, 384)
        })
    };
    let first = pair(mrtd, rtmr0);
    let second = pair(rtmr1, rtmr2);
    let third = build_cell(|c| {
        c.store_raw(rtmr3, 384)?;
        image.configuration.map(HashBytes).store_into(c, Cell::empty_context())
    });
    build_cell(|b| {
        store_name(b, &image.name, image.status)?;
        b.store_reference(first)?;
        b.store_reference(second)?;
        b.store_reference(third)
    })
}

fn load_image(mut slice: CellSlice<'_>) -> Result<Image, Error> {
    let (name, status) = load_name(&mut slice)?;
    let mut first = slice.load_reference_as_slice()?;
    let mut second = slice.load_reference_as_slice()?;
    let mut third = slice.load_reference_as_slice()?;
    let mrtd = load_register(&mut first)?;
    let rtmr0 = load_register(&mut first)?;
    let rtmr1 = load_register(&mut second)?;
    let rtmr2 = load_register(&mut second)?;
    let rtmr3 = load_register(&mut third)?;
    let configuration = Option::<HashBytes>::load_from(&mut third)?.map(|digest| digest.0);
    let measurements = Measurements { mrtd, rtmr: [rtmr0, rtmr1, rtmr2, rtmr3] };
    Ok(Image { name, status, measurements, configuration })
}

fn store_model(model: &Model) -> Cell {
    build_cell(|b| {
        store_name(b, &model.name, model.status)?;
        b.store_u256(&HashBytes(model.weights))?;
        b.store_u64(model.prompt_price)?;
        b.store_u64(model.completion_price)
    })
}

fn load_model(mut slice: CellSlice<'_>) -> Result<Model, Error> {
    let (name, status) = load_name(&mut slice)?;
    let weights = slice.load_u256()?.0;
    Ok(Model { name, status, weights, prompt_price: slice.load_u64()?, completion_price: slice.load_u64()? })
}

fn store_name(b: &mut CellBuilder, name: &str, status: Status) -> Result<(), Error> {
    b.store_bit(status == Status::Allowed)?;
    b.store_u8(u8::try_from(name.len()).map_err(|_| Error::InvalidData)?)?;
    b.store_raw(name.as_bytes(), u16::try_from(name.len() * 8).map_err(|_| Error::InvalidData)?)
}

fn load_name(slice: &mut CellSlice<'_>) -> Result<(String, Status), Error> {
    let status = if slice.load_bit()? { Status::Allowed } else { Status::Barred };
    let length = slice.load_u8()?;
    let mut bytes = [0; MAX_NAME_BYTES];
    let bytes = bytes.get_mut(..usize::from(length)).ok_or(Error::InvalidData)?;
    slice.load_raw(bytes, u16::from(length) * 8)?;
    let name = std::str::from_utf8(bytes).map_err(|_| Error::InvalidData)?;
    Ok((name.to_owned(), status))
}

fn load_register(slice: &mut CellSlice<'_>) -> Result<[u8; 48], Error> {
    let mut register = [0; 48];
    slice.load_raw(&mut register, 384)?;
    Ok(register)
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn content() -> Content {
        Content {
            fee_bps: 500,
            treasury: Address::new(0, HashBytes([3; 32])),
            images: vec![Image {
                name: "guest".into(),
                status: Status::Allowed,
                measurements: Measurements { mrtd: [1; 48], rtmr: [[2; 48], [3; 48], [4; 48], [5; 48]] },
                configuration: Some([6; 32]),
            }],
            models: (0..3)
                .map(|i| Model {
                    name: format!("model-{i}"),
                    status: if i == 1 { Status::Barred } else { Status::Allowed },
                    weights: [i; 32],
                    prompt_price: 1000,
                    completion_price: 4000,
                })
                .collect(),
        }
    }

    #[test]
    fn content_survives_its_cell() {
        let content = content();
        assert_eq!(Content::parse(&content.to_cell().unwrap()).unwrap(), content);
        let empty = Content { images: vec![], models: vec![], ..content };
        assert_eq!(Content::parse(&empty.to_cell().unwrap()).unwrap(), empty);
    }

    #[test]
    fn a_deployment_reads_back_as_version_one() {
        let owner = Address::new(0, HashBytes([8; 32]));
        let deployment = Deployment { owner: owner.clone(), delay: 60, salt: 1, content: content() };
        let data = deployment.state_init().unwrap().data.unwrap();
        let registry = Registry::parse(&data).unwrap();
        assert_eq!((registry.version, registry.delay, registry.owner.clone()), (1, 60, owner));
        assert_eq!(registry.proposal, None);
        assert_eq!(registry.models().count(), 2);
    }

    #[test]
    fn what_is_barred_once_does_not_count_under_another_name() {
        let mut content = content();
        let (image, model) = (content.images[0].clone(), content.models[0].clone());
        let other = Measurements { mrtd: [9; 48], ..image.measurements };
        content.images.push(Image { name: "other".into(), measurements: other, ..image.clone() });
        // The barred entry comes last, under another name, and says nothing of the configuration.
        content.images.push(Image {
            name: "renamed".into(),
            status: Status::Barred,
            configuration: None,
            ..image
        });
        content.models.push(Model {
            name: "renamed".into(),
            status: Status::Barred,
            prompt_price: 0,
            ..model
        });
        let owner = Address::new(0, HashBytes([8; 32]));
        let deployment = Deployment { owner, delay: 60, salt: 1, content };
        let registry = Registry::parse(&deployment.state_init().unwrap().data.unwrap()).unwrap();
        assert_eq!(registry.images().map(|image| image.name.as_str()).collect::<Vec<_>>(), ["other"]);
        assert_eq!(registry.models().map(|model| model.name.as_str()).collect::<Vec<_>>(), ["model-2"]);
        assert!(registry.is_older_than(2) && !registry.is_older_than(1) && !registry.is_older_than(0));
    }

    #[test]
    fn limits_are_refused_on_both_sides() {
        let long = Content {
            models: vec![Model { name: "x".repeat(MAX_NAME_BYTES + 1), ..content().models.remove(0) }],
            ..content()
        };
        assert!(long.to_cell().is_err());
        assert!(Content { fee_bps: MAX_FEE_BPS + 1, ..content() }.to_cell().is_err());
        assert!(Content::parse(&Cell::default()).is_err());
        assert!(Registry::parse(&Cell::default()).is_err());
    }
}
