//! The registry, `registry.tolk`: what the network trusts, and how that changes.

mod approval;
mod content;
mod floors;
mod operation;
mod owners;

use std::sync::LazyLock;

use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, CellFamily, Load, Store};
use tycho_types::error::Error;
use tycho_types::models::StateInit;

pub use approval::{Action, Approval, ApprovalError, MAX_APPROVAL_BYTES};
pub use content::{
    Coefficients, Content, Gateway, Image, MAX_BARRED, MAX_COEFFICIENT_PERMILLE, MAX_ENTRIES, MAX_FEE_BPS,
    MAX_NAME_BYTES, MAX_PLATFORM_ID_BYTES, Measurements, Model, PlatformId, PlatformKind, Prices, Status,
    TdxRegisters,
};
pub use floors::{SnpFloors, TcbFloor, TurinFloor};
pub use operation::Operation;
pub use owners::{MAX_OWNERS, Owners, OwnersError};

use crate::{Address, Malformed, Nanotons, build_cell};

const PROPOSE: u32 = 0x5247_0001;
const CANCEL: u32 = 0x5247_0002;
const ACTIVATE: u32 = 0x5247_0003;
const TOP_UP: u32 = 0x5247_0004;

/// The shortest delay that the contract takes, in seconds; for development networks.
pub const MIN_DELAY_SECONDS: u32 = 1;
/// The longest one, in seconds: a year.
pub const MAX_DELAY_SECONDS: u32 = 365 * 24 * 3600;
/// Value to attach to a proposal, cancellation or activation; what is not used comes back. 0.05 TON.
pub const CHANGE_VALUE: Nanotons = 50_000_000;
/// Value to deploy with: rent of more than a year for the largest content with an announcement as large beside it, of many
/// years for a small one. Then somebody must top it up. 0.2 TON.
pub const DEPLOY_VALUE: Nanotons = 200_000_000;

static CODE: LazyLock<Cell> = LazyLock::new(|| {
    Boc::decode(include_bytes!("../../registry.boc")).expect("the committed code is a valid bag of cells")
});

/// The contract's code.
pub fn code() -> Cell {
    CODE.clone()
}

/// The hash of the contract's code: what an account must have to be a registry.
pub fn code_hash() -> [u8; 32] {
    CODE.repr_hash().0
}

/// What may come to count: a whole new content, and who owns the registry from then on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// The owners afterwards.
    pub owners: Owners,
    /// What will count.
    pub content: Content,
}

impl Change {
    fn to_cell(&self) -> Result<Cell, Malformed> {
        let (owners, content) = (self.owners.to_cell(), self.content.to_cell()?);
        Ok(build_cell(|b| {
            b.store_reference(owners)?;
            b.store_reference(content)
        }))
    }

    /// What owners sign for: the hash of the change's cell.
    ///
    /// # Errors
    /// A content outside its bounds.
    pub fn hash(&self) -> Result<[u8; 32], Malformed> {
        Ok(self.to_cell()?.repr_hash().0)
    }

    fn parse(cell: &Cell) -> Result<Self, Malformed> {
        let load = || {
            let mut slice = cell.as_slice()?;
            Ok::<_, Error>((slice.load_reference_cloned()?, slice.load_reference_cloned()?))
        };
        let (owners, content) = load().map_err(|error| Malformed::new("registry change", error))?;
        Ok(Self { owners: Owners::parse(&owners)?, content: Content::parse(&content)? })
    }
}

/// A change that was announced and waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proposal {
    /// From when on anybody may activate it (Unix time).
    pub ready_at: u32,
    /// The hash of the announced change, to be signed for its cancellation.
    pub subject: [u8; 32],
    /// What was announced. The contract reads its head alone: what cannot be read by us says why, and is a reason to cancel,
    /// but none to lose sight of what is in force.
    pub change: Result<Change, Malformed>,
}

/// A registry's state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registry {
    /// Grows by one with every change that counts. A client refuses one older than it has seen.
    pub version: u32,
    /// How long a change waits, in seconds. Fixed at deployment.
    pub delay: u32,
    /// How many changes were ever announced.
    pub proposals: u32,
    /// Who may announce, and take back.
    pub owners: Owners,
    /// What counts now.
    pub content: Content,
    /// What was announced.
    pub proposal: Option<Proposal>,
}

impl Registry {
    /// Reads a registry's data cell.
    pub fn parse(data: &Cell) -> Result<Self, Malformed> {
        let Data { version, delay, salt: _, proposals, owners, content, proposal } =
            Data::load(data).map_err(|error| Malformed::new("registry data", error))?;
        let proposal = proposal.map(|(ready_at, change)| Proposal {
            ready_at,
            subject: change.repr_hash().0,
            change: Change::parse(&change),
        });
        let (owners, content) = (Owners::parse(&owners)?, Content::parse(&content)?);
        Ok(Self { version, delay, proposals, owners, content, proposal })
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

    /// Gateways that count: allowed, and their address not barred by another entry, whatever it is called.
    pub fn gateways(&self) -> impl Iterator<Item = &Gateway> {
        let gateways = &self.content.gateways;
        let barred = |gateway: &Gateway| {
            gateways.iter().any(|it| it.status == Status::Barred && it.address == gateway.address)
        };
        gateways.iter().filter(move |gateway| gateway.status == Status::Allowed && !barred(gateway))
    }
}

/// What a new registry is deployed with.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Who may announce changes.
    pub owners: Owners,
    /// How long a change waits, in seconds: [`MIN_DELAY_SECONDS`] to [`MAX_DELAY_SECONDS`].
    pub delay: u32,
    /// Makes the address unique.
    pub salt: u64,
    /// What counts from the start, as version 1.
    pub content: Content,
}

impl Deployment {
    /// Code and first data.
    ///
    /// # Errors
    /// A delay or a content outside its bounds.
    pub fn state_init(&self) -> Result<StateInit, Malformed> {
        if !(MIN_DELAY_SECONDS..=MAX_DELAY_SECONDS).contains(&self.delay) {
            let why =
                format!("a delay of {} s is outside {MIN_DELAY_SECONDS}..={MAX_DELAY_SECONDS}", self.delay);
            return Err(Malformed::new("registry deployment", why));
        }
        let (owners, content) = (self.owners.to_cell(), self.content.to_cell()?);
        let (delay, salt) = (self.delay, self.salt);
        let data = Data { version: 1, delay, salt, proposals: 0, owners, content, proposal: None };
        Ok(StateInit { code: Some(code()), data: Some(data.to_cell()), ..Default::default() })
    }

    /// The registry's address.
    ///
    /// # Errors
    /// As [`Deployment::state_init`].
    pub fn address(&self) -> Result<Address, Malformed> {
        let cell = CellBuilder::build_from(self.state_init()?).expect("a state init fits in a cell");
        Ok(Address::new(0, *cell.repr_hash()))
    }
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
        0x200 => "too few of the registry's owners have signed",
        0x201 => "a change is proposed already: cancel or activate it first",
        0x202 => "nothing is proposed on this version",
        0x203 => "the delay has not passed yet",
        0x204 => "the content's format, fee, treasury or coefficients are not acceptable",
        0x205 => "the registry was deployed with a delay or version that is not acceptable",
        0x206 => "the owners' number or keys are not acceptable",
        0x207 => "the signatures were valid until a time that is past",
        0x208 => "the signatures are not in the order of their owners' numbers, or one is there twice",
        0x209 => "a signature is of nobody who owns the registry",
        0x20a => "a signature does not verify: it is of another decision, version or proposal",
        0xffff => "the message is none of a registry's",
        _ => return None,
    })
}

struct Data {
    version: u32,
    delay: u32,
    salt: u64,
    proposals: u32,
    owners: Cell,
    content: Cell,
    proposal: Option<(u32, Cell)>,
}

impl Data {
    fn to_cell(&self) -> Cell {
        let proposal = self.proposal.as_ref().map(|(ready_at, change)| {
            build_cell(|b| {
                b.store_u32(*ready_at)?;
                b.store_reference(change.clone())
            })
        });
        build_cell(|b| {
            b.store_u32(self.version)?;
            b.store_u32(self.delay)?;
            b.store_u64(self.salt)?;
            b.store_u32(self.proposals)?;
            b.store_reference(self.owners.clone())?;
            b.store_reference(self.content.clone())?;
            proposal.store_into(b, Cell::empty_context())
        })
    }

    fn load(cell: &Cell) -> Result<Self, Error> {
        let mut slice = cell.as_slice()?;
        let version = slice.load_u32()?;
        let delay = slice.load_u32()?;
        let salt = slice.load_u64()?;
        let proposals = slice.load_u32()?;
        let owners = slice.load_reference_cloned()?;
        let content = slice.load_reference_cloned()?;
        let proposal = match Option::<Cell>::load_from(&mut slice)? {
            Some(cell) => {
                let mut proposal = cell.as_slice()?;
                Some((proposal.load_u32()?, proposal.load_reference_cloned()?))
            }
            None => None,
        };
        Ok(Self { version, delay, salt, proposals, owners, content, proposal })
    }
}
