//! The bond, `bond.tolk`: what an operator or a gateway loses if its key said two things at once.

mod statement;

use std::sync::LazyLock;

use tycho_types::boc::Boc;
use tycho_types::cell::{Cell, CellBuilder, CellFamily, HashBytes, Load, Store};
use tycho_types::dict::Dict;
use tycho_types::error::Error;
use tycho_types::models::StateInit;

pub use statement::{
    Contradiction, KIND_LIABILITIES, KIND_LISTING, Liabilities, SIGNED_STATEMENT_BYTES, SignedStatement,
    Statement, StatementError, contradiction,
};

use crate::{Address, KeyError, Malformed, Nanotons, TON, VerifyingKey, build_cell, check_key};

/// Messages and constants, as in `bond.tolk`.
const BACK: u32 = 0x424e_0001;
const TOP_UP: u32 = 0x424e_0002;
const PUBLISH: u32 = 0x424e_0003;
const UNBOND: u32 = 0x424e_0004;
const WITHDRAW: u32 = 0x424e_0005;
const FORFEIT: u32 = 0x424e_0006;
/// The release time's values that are no time.
const UNBACKED: u32 = 0;
const BONDED: u32 = u32::MAX;

/// What a bond must hold at its beginning, rent included. 1 TON.
pub const MIN_STAKE: Nanotons = TON;
/// Value to attach to a publication, a forfeiture or a withdrawal; what is not used comes back. 0.02 TON.
pub const ACTION_VALUE: Nanotons = 20_000_000;
/// Value that pays for the transaction of backing, topping up or unbonding; what is not used joins the stake. 0.005 TON.
pub const BACK_VALUE: Nanotons = 5_000_000;
/// The shortest release delay that the contract takes, in seconds; for development networks.
pub const MIN_DELAY_SECONDS: u32 = 1;
/// The longest one, in seconds: a year.
pub const MAX_DELAY_SECONDS: u32 = 365 * 24 * 3600;
/// Most machines that one bond may name.
pub const MAX_PLATFORMS: usize = 256;

static CODE: LazyLock<Cell> = LazyLock::new(|| {
    Boc::decode(include_bytes!("../../bond.boc")).expect("the committed code is a valid bag of cells")
});

/// The contract's code.
pub fn code() -> Cell {
    CODE.clone()
}

/// The hash of the contract's code: what an account must have to be a bond.
pub fn code_hash() -> [u8; 32] {
    CODE.repr_hash().0
}

/// The name under which a bond lists a machine: SHA-256 of its spelling in policies, such as `chip:HEX`. A digest, so that
/// the chain does not tell which machines an operator has to those who do not know them already.
pub fn platform_digest(id: &str) -> [u8; 32] {
    let digest = ring::digest::digest(&ring::digest::SHA256, id.as_bytes());
    digest.as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Why terms are not acceptable, whoever proposes them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TermsError {
    /// The operator's key proves nothing.
    #[error("the bond's key cannot be used: {0}")]
    Key(#[from] KeyError),
    /// An address is not in the basic workchain.
    #[error("the bond's {who} is {address}: bonds work in workchain 0 only")]
    Workchain {
        /// Which of the parties.
        who: &'static str,
        /// Its address.
        address: Box<Address>,
    },
    /// The delay is out of bounds.
    #[error("a release delay of {0} s is outside {MIN_DELAY_SECONDS}..={MAX_DELAY_SECONDS}")]
    Delay(u32),
    /// Too many machines for one bond.
    #[error("{0} machines are more than the {MAX_PLATFORMS} of one bond: use another bond for the rest")]
    Platforms(usize),
}

/// What never changes in a bond. Its address is made of these and of the code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Whose stake it is: backs it, and takes it home.
    pub operator: Address,
    /// The key whose statements it answers for.
    pub operator_key: VerifyingKey,
    /// Who gets a forfeited stake.
    pub treasury: Address,
    /// The network's global id.
    pub network: i32,
    /// From unbonding to withdrawal, in seconds: so long a contradiction can still be shown.
    pub delay_seconds: u32,
    /// Makes the address unique.
    pub salt: u64,
    /// The machines that it answers for, each by its [`platform_digest`].
    pub platforms: Vec<[u8; 32]>,
}

impl Terms {
    /// Refuses terms that the contract would refuse, or that would hurt a party.
    ///
    /// # Errors
    /// [`TermsError`].
    pub fn check(&self) -> Result<(), TermsError> {
        check_key(&self.operator_key)?;
        for (who, address) in [("operator", &self.operator), ("treasury", &self.treasury)] {
            if address.workchain != 0 || address.anycast.is_some() {
                return Err(TermsError::Workchain { who, address: Box::new(address.clone()) });
            }
        }
        if !(MIN_DELAY_SECONDS..=MAX_DELAY_SECONDS).contains(&self.delay_seconds) {
            return Err(TermsError::Delay(self.delay_seconds));
        }
        if self.platforms.len() > MAX_PLATFORMS {
            return Err(TermsError::Platforms(self.platforms.len()));
        }
        Ok(())
    }

    /// The bond's address.
    pub fn address(&self) -> Address {
        let cell = CellBuilder::build_from(self.state_init()).expect("a state init fits in a cell");
        Address::new(0, *cell.repr_hash())
    }

    /// Code and first data, as deployed with the backing message.
    pub fn state_init(&self) -> StateInit {
        let data = build_cell(|b| {
            b.store_u32(UNBACKED)?;
            b.store_reference(self.to_cell())?;
            b.store_bit_zero()
        });
        StateInit { code: Some(code()), data: Some(data), ..Default::default() }
    }

    fn to_cell(&self) -> Cell {
        let mut list = Dict::<u16, HashBytes>::new();
        for (number, digest) in (0u16..).zip(&self.platforms) {
            list.set(number, HashBytes(*digest)).expect("a number and a digest fit in a dictionary");
        }
        let context = Cell::empty_context();
        let platforms = build_cell(|b| list.store_into(b, context));
        build_cell(|b| {
            self.operator.store_into(b, context)?;
            b.store_u256(&HashBytes(self.operator_key))?;
            self.treasury.store_into(b, context)?;
            b.store_u32(self.network.cast_unsigned())?;
            b.store_u32(self.delay_seconds)?;
            b.store_u64(self.salt)?;
            b.store_reference(platforms)
        })
    }

    fn load(cell: &Cell) -> Result<Self, Error> {
        let mut slice = cell.as_slice()?;
        let operator = Address::load_from(&mut slice)?;
        let operator_key = slice.load_u256()?.0;
        let treasury = Address::load_from(&mut slice)?;
        let network = slice.load_u32()?.cast_signed();
        let delay_seconds = slice.load_u32()?;
        let salt = slice.load_u64()?;
        let mut list = slice.load_reference_as_slice()?;
        let mut platforms = Vec::new();
        for entry in Dict::<u16, HashBytes>::load_from(&mut list)?.iter() {
            if platforms.len() == MAX_PLATFORMS {
                return Err(Error::InvalidData);
            }
            platforms.push(entry?.1.0);
        }
        Ok(Self { operator, operator_key, treasury, network, delay_seconds, salt, platforms })
    }
}

/// The newest root of liabilities that a gateway published.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// What was published.
    pub liabilities: Liabilities,
    /// When, Unix time.
    pub at: u32,
}

/// What a bond's account says now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What never changes.
    pub terms: Terms,
    /// When releasing: the first second (Unix time) in which the operator may withdraw.
    pub release_at: Option<u32>,
    /// The newest root of liabilities.
    pub published: Option<Published>,
    /// What the account holds: the stake.
    pub balance: Nanotons,
}

impl State {
    /// Reads a backed bond's data cell. `balance` is the account's.
    ///
    /// # Errors
    /// Data of another shape, or of a bond that its operator never backed.
    pub fn parse(data: &Cell, balance: Nanotons) -> Result<Self, Malformed> {
        let malformed = |why: &dyn std::fmt::Display| Malformed::new("bond data", why);
        let (release_at, terms, published) = Self::load(data).map_err(|error| malformed(&error))?;
        let release_at = match release_at {
            UNBACKED => return Err(malformed(&"the bond was never backed by its operator")),
            BONDED => None,
            releasing => Some(releasing),
        };
        Ok(Self { terms, release_at, published, balance })
    }

    fn load(data: &Cell) -> Result<(u32, Terms, Option<Published>), Error> {
        let mut slice = data.as_slice()?;
        let release_at = slice.load_u32()?;
        let terms = Terms::load(&slice.load_reference_cloned()?)?;
        let published = match Option::<Cell>::load_from(&mut slice)? {
            None => None,
            Some(cell) => {
                let mut slice = cell.as_slice()?;
                let (epoch, root, sum) = (slice.load_u64()?, slice.load_u256()?.0, slice.load_u64()?);
                Some(Published { liabilities: Liabilities { epoch, root, sum }, at: slice.load_u32()? })
            }
        };
        Ok((release_at, terms, published))
    }

    /// Whether this bond answers for a machine, by its spelling in policies, such as `chip:HEX`.
    pub fn answers_for(&self, platform: &str) -> bool {
        self.terms.platforms.contains(&platform_digest(platform))
    }
}

/// The operator's first message: deploys with [`Terms::state_init`] and backs the bond.
pub fn back_body() -> Cell {
    build_cell(|b| b.store_u32(BACK))
}

/// Adds the message's value to the stake. From anyone.
pub fn top_up_body() -> Cell {
    build_cell(|b| b.store_u32(TOP_UP))
}

/// Publishes the liabilities of an epoch later than the one published before. From anyone: the signature counts, which must
/// be of [`Liabilities::statement`].
pub fn publish_body(liabilities: &Liabilities, signature: &[u8; 64]) -> Cell {
    build_cell(|b| {
        b.store_u32(PUBLISH)?;
        b.store_u64(liabilities.epoch)?;
        b.store_u256(&HashBytes(liabilities.root))?;
        b.store_u64(liabilities.sum)?;
        b.store_raw(signature, 512)
    })
}

/// What a publication's body says and by which signature; `None` for any other body. It was published if its transaction was
/// not aborted.
pub fn publication(body: &Cell) -> Option<(Liabilities, [u8; 64])> {
    let mut slice = body.as_slice().ok()?;
    if slice.load_u32().ok()? != PUBLISH {
        return None;
    }
    let (epoch, root) = (slice.load_u64().ok()?, slice.load_u256().ok()?.0);
    let sum = slice.load_u64().ok()?;
    let mut signature = [0; 64];
    slice.load_raw(&mut signature, 512).ok()?;
    Some((Liabilities { epoch, root, sum }, signature))
}

/// The operator starts the release: the delay runs.
pub fn unbond_body() -> Cell {
    build_cell(|b| b.store_u32(UNBOND))
}

/// After the delay the operator takes the stake home.
pub fn withdraw_body() -> Cell {
    build_cell(|b| b.store_u32(WITHDRAW))
}

/// Anyone proves that the operator's key contradicted itself: the stake goes to the treasury.
pub fn forfeit_body(proof: &Contradiction) -> Cell {
    let signed = |statement: &SignedStatement| {
        build_cell(|b| {
            b.store_u256(&HashBytes(statement.statement.digest))?;
            b.store_raw(&statement.signature, 512)
        })
    };
    let (first, second) = (proof.first(), proof.second());
    build_cell(|b| {
        b.store_u32(FORFEIT)?;
        b.store_u8(first.statement.kind)?;
        b.store_u64(first.statement.number)?;
        b.store_reference(signed(first))?;
        b.store_reference(signed(second))
    })
}

/// The exit codes of `bond.tolk`, in words: what was refused and why.
pub fn exit_code_meaning(code: i32) -> Option<&'static str> {
    Some(match code {
        0x300 => "the bond is not backed",
        0x301 => "the bond is backed already",
        0x302 => "only the bond's operator may do this",
        0x303 => "the bond is for another network",
        0x304 => "the terms are not acceptable",
        0x305 => "the stake is below 1 TON",
        0x306 => "the two statements do not contradict each other",
        0x307 => "a signature is not of the operator's key, or of another statement",
        0x308 => "this epoch or a later one was published already",
        0x309 => "the stake is being released already",
        0x30a => "the stake is not being released: unbond first",
        0x30b => "the delay has not passed yet",
        0xffff => "the message is none of a bond's",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_is_read_back() {
        let said = Liabilities { epoch: 7, root: [3; 32], sum: 9 };
        assert_eq!(publication(&publish_body(&said, &[5; 64])), Some((said, [5; 64])));
        assert_eq!(publication(&back_body()), None);
        assert_eq!(publication(&build_cell(|b| b.store_u32(PUBLISH))), None, "cut short");
    }
}
