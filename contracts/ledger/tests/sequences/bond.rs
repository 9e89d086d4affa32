//! The model of a bond.

use cocoon_contracts::bond::{
    self, KIND_LISTING, Liabilities, MIN_STAKE, Published, SignedStatement, Statement, Terms,
};
use cocoon_contracts::{Address, Cell, Nanotons, SigningKey};
use tycho_types::cell::{CellBuilder, HashBytes};

use super::channel::{allowed, nonsense};
use super::net::{Effect, NO_STATE, Request};
use super::world::{NETWORK, Who};

#[derive(Debug, Clone)]
pub(crate) enum BondAct {
    Back,
    TopUp,
    /// The liabilities of this epoch.
    Publish(u64, Said),
    Unbond,
    Withdraw,
    /// Statement 0 of number 0, and another: contradicting it when the number is 0 and the digest is not 0's.
    Forfeit {
        first: u8,
        number: u64,
        said: Said,
    },
    Nonsense(Option<u32>),
}

/// Whether the operator's key said it, of this bond.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    Genuine,
    Forged,
    OtherBond,
    OtherNetwork,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) release_at: Option<u32>,
    pub(crate) published: Option<Published>,
}

pub(crate) struct Bond {
    pub(crate) terms: Terms,
    pub(crate) operator: Who,
    key: SigningKey,
    pub(crate) life: Option<Life>,
}

impl Bond {
    pub(crate) fn new(terms: Terms, operator: Who, key: SigningKey) -> Self {
        Self { terms, operator, key, life: None }
    }

    fn sign(&self, mut statement: Statement, said: Said) -> SignedStatement {
        match said {
            Said::OtherBond => statement.bond = Address::new(0, HashBytes([9; 32])),
            Said::OtherNetwork => statement.network = -239,
            Said::Genuine | Said::Forged => {}
        }
        let mut signed = statement.sign(&self.key);
        signed.signature[0] ^= u8::from(said == Said::Forged);
        signed
    }

    fn listing(&self, number: u64, digest: u8, said: Said) -> SignedStatement {
        let (bond, digest) = (self.terms.address(), [digest; 32]);
        self.sign(Statement { network: NETWORK, bond, kind: KIND_LISTING, number, digest }, said)
    }

    pub(crate) fn body(&self, act: &BondAct) -> Cell {
        match act {
            BondAct::Back => bond::back_body(),
            BondAct::TopUp => bond::top_up_body(),
            BondAct::Publish(epoch, said) => {
                let owed = liabilities(*epoch);
                let signed = self.sign(owed.statement(NETWORK, &self.terms.address()), *said);
                bond::publish_body(&owed, &signed.signature)
            }
            BondAct::Unbond => bond::unbond_body(),
            BondAct::Withdraw => bond::withdraw_body(),
            BondAct::Forfeit { first, number, said } => {
                forfeit_body(&self.listing(0, 0, Said::Genuine), &self.listing(*number, *first, *said))
            }
            BondAct::Nonsense(op) => nonsense(*op),
        }
    }

    /// What the rules say: the effect, or the exit code.
    pub(crate) fn predict(&self, act: &BondAct, request: &Request) -> Result<(Option<Life>, Effect), i32> {
        let Request { by, now, held, value, runs, .. } = request;
        let sender = request.sender;
        if !runs {
            return Err(NO_STATE);
        }
        if matches!(act, BondAct::Nonsense(_)) {
            return Err(0xffff);
        }
        let Some(life) = &self.life else {
            allowed(matches!(act, BondAct::Back), 0x300)?;
            allowed(*by == self.operator, 0x302)?;
            allowed(held + value >= MIN_STAKE, 0x305)?;
            return Ok((Some(Life { release_at: None, published: None }), Effect::joins()));
        };
        let operator = *by == self.operator;
        match act {
            BondAct::Back => Err(0x301),
            BondAct::TopUp => Ok((Some(life.clone()), Effect::joins())),
            BondAct::Publish(epoch, said) => {
                allowed(life.published.is_none_or(|newest| *epoch > newest.liabilities.epoch), 0x308)?;
                allowed(*said == Said::Genuine, 0x307)?;
                let published = Some(Published { liabilities: liabilities(*epoch), at: *now });
                Ok((Some(Life { published, ..life.clone() }), Effect::leaves(*held, [(sender, None)])))
            }
            BondAct::Unbond => {
                allowed(operator, 0x302)?;
                allowed(life.release_at.is_none(), 0x309)?;
                let release_at = Some(now + self.terms.delay_seconds);
                Ok((Some(Life { release_at, ..life.clone() }), Effect::joins()))
            }
            BondAct::Withdraw => {
                allowed(operator, 0x302)?;
                allowed(*now >= life.release_at.ok_or(0x30a)?, 0x30b)?;
                Ok((None, Effect::leaves(0, [(sender, None)])))
            }
            BondAct::Forfeit { first, number, said } => {
                allowed(*first != 0, 0x306)?;
                allowed(*number == 0 && *said == Said::Genuine, 0x307)?;
                Ok((None, Effect::leaves(0, [(&self.terms.treasury, Some(*held)), (sender, None)])))
            }
            BondAct::Nonsense(_) => Err(0xffff),
        }
    }
}

/// Nothing is said twice of one epoch.
fn liabilities(epoch: u64) -> Liabilities {
    Liabilities { epoch, root: [u8::try_from(epoch).unwrap(); 32], sum: epoch * 1000 as Nanotons }
}

/// Also of what is no contradiction: the library would not build that.
fn forfeit_body(first: &SignedStatement, second: &SignedStatement) -> Cell {
    let signed = |it: &SignedStatement| {
        let mut builder = CellBuilder::new();
        builder.store_u256(&HashBytes(it.statement.digest)).unwrap();
        builder.store_raw(&it.signature, 512).unwrap();
        builder.build().unwrap()
    };
    let mut builder = CellBuilder::new();
    builder.store_u32(0x424e_0006).unwrap();
    builder.store_u8(first.statement.kind).unwrap();
    builder.store_u64(first.statement.number).unwrap();
    builder.store_reference(signed(first)).unwrap();
    builder.store_reference(signed(second)).unwrap();
    builder.build().unwrap()
}
