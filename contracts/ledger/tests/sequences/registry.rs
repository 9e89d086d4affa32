//! The model of a registry: two of three owners.

use cocoon_contracts::registry::{self, Approval, Change, Content, Deployment, Owners, Registry};
use cocoon_contracts::{Address, Cell, SigningKey};
use tycho_types::cell::{CellBuilder, CellFamily as _, Store as _};
use tycho_types::models::StateInit;

use super::channel::{allowed, nonsense};
use super::net::{Effect, Request};
use super::world::NETWORK;

pub(crate) const DELAY: u32 = 900;
const REQUIRED: u8 = 2;
const OWNERS: u8 = 3;

#[derive(Debug, Clone)]
pub(crate) enum RegistryAct {
    /// Valid until so many seconds from now.
    Propose(Votes, i32),
    Cancel(Votes, i32),
    /// The version in force, or one beside it.
    Activate(i8),
    /// An older proposal or cancellation, word by word.
    Replay(u8),
    TopUp,
    Nonsense(Option<u32>),
}

/// Who signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Votes {
    Enough,
    TooFew,
    Twice,
    /// One who is no owner.
    Unknown,
    Forged,
}

/// A proposal or a cancellation as it is sent.
#[derive(Clone)]
pub(crate) struct Ballot {
    body: Cell,
    propose: bool,
    votes: Votes,
    until: u32,
    /// What it was signed for: version, proposals so far, and what is announced.
    basis: (u32, u32, [u8; 32]),
    change: Option<(Change, [u8; 32])>,
}

pub(crate) struct Model {
    pub(crate) address: Address,
    pub(crate) state: Registry,
    keys: Vec<SigningKey>,
    ballots: Vec<Ballot>,
}

pub(crate) fn deployment(treasury: &Address) -> Deployment {
    let keys = keys();
    let owners = Owners::new(REQUIRED, keys.iter().map(SigningKey::public)).unwrap();
    Deployment { owners, delay: DELAY, salt: 1, content: Content::empty(500, treasury.clone()) }
}

fn keys() -> Vec<SigningKey> {
    let mut keys: Vec<_> = (0..OWNERS).map(|number| SigningKey::from_seed(&[120 + number; 32])).collect();
    keys.sort_by_key(SigningKey::public);
    keys
}

impl Model {
    pub(crate) fn new(deployment: &Deployment) -> Self {
        let init: StateInit = deployment.state_init().unwrap();
        let state = Registry::parse(&init.data.unwrap()).unwrap();
        Self { address: deployment.address().unwrap(), state, keys: keys(), ballots: Vec::new() }
    }

    /// Builds the message, with the ballot that it is.
    pub(crate) fn prepare(&mut self, act: &RegistryAct, now: u32) -> (Cell, Option<Ballot>) {
        match act {
            RegistryAct::Propose(votes, seconds) => {
                self.ballot(true, *votes, now.saturating_add_signed(*seconds))
            }
            RegistryAct::Cancel(votes, seconds) => {
                self.ballot(false, *votes, now.saturating_add_signed(*seconds))
            }
            RegistryAct::Replay(at) if !self.ballots.is_empty() => {
                let ballot = self.ballots[usize::from(*at) % self.ballots.len()].clone();
                (ballot.body.clone(), Some(ballot))
            }
            RegistryAct::Replay(_) => (nonsense(None), None),
            RegistryAct::Activate(off) => {
                (registry::activate_body(self.state.version.saturating_add_signed(i32::from(*off))), None)
            }
            RegistryAct::TopUp => (registry::top_up_body(), None),
            RegistryAct::Nonsense(op) => (nonsense(*op), None),
        }
    }

    fn ballot(&mut self, propose: bool, votes: Votes, until: u32) -> (Cell, Option<Ballot>) {
        let fee_bps = u16::try_from(self.state.proposals % 2000).unwrap();
        let content = Content::empty(fee_bps, self.state.content.treasury.clone());
        let change = Change { owners: self.state.owners.clone(), content };
        let made = if propose {
            Approval::to_propose(NETWORK, &self.address, &self.state, change.clone(), until)
        } else {
            Approval::to_cancel(NETWORK, &self.address, &self.state, until)
        };
        let Ok(mut approval) = made else {
            // Nothing is announced: whatever stands here is not even looked at.
            return (cancel_of_nothing(until), None);
        };
        let hash = approval.hash();
        self.keys.iter().for_each(|key| approval.sign(key).unwrap());
        let body = rebuilt(&approval.body().unwrap(), propose, &self.signatures(votes, &hash));
        let subject = self.subject();
        let change = propose.then(|| (change.clone(), change.hash().unwrap()));
        let basis = (self.state.version, self.state.proposals, subject);
        let ballot = Ballot { body: body.clone(), propose, votes, until, basis, change };
        self.ballots.push(ballot.clone());
        (body, Some(ballot))
    }

    fn subject(&self) -> [u8; 32] {
        self.state.proposal.as_ref().map_or([0; 32], |proposal| proposal.subject)
    }

    fn signatures(&self, votes: Votes, hash: &[u8; 32]) -> Vec<(u8, [u8; 64])> {
        let sign = |number: u8| (number, self.keys[usize::from(number)].sign(hash));
        let mut signatures = vec![sign(0), sign(2)];
        match votes {
            Votes::Enough => {}
            Votes::TooFew => drop(signatures.pop()),
            Votes::Twice => signatures[1] = sign(0),
            Votes::Unknown => signatures[1].0 = OWNERS,
            Votes::Forged => signatures[1].1[0] ^= 1,
        }
        signatures
    }

    /// What the rules say: the effect, or the exit code.
    pub(crate) fn predict(
        &self,
        act: &RegistryAct,
        ballot: Option<&Ballot>,
        request: &Request,
    ) -> Result<(Registry, Effect), i32> {
        let mut next = self.state.clone();
        match (act, ballot) {
            (RegistryAct::TopUp, _) => return Ok((next, Effect::joins())),
            (RegistryAct::Nonsense(_) | RegistryAct::Replay(_), None) => return Err(0xffff),
            (_, Some(ballot)) if ballot.propose => {
                allowed(self.state.proposal.is_none(), 0x201)?;
                self.counts(
                    ballot,
                    request.now,
                    (ballot.basis.0, ballot.basis.1) == (next.version, next.proposals),
                )?;
                let (change, subject) = ballot.change.clone().expect("a proposal brings a change");
                let ready_at = request.now + DELAY;
                next.proposals += 1;
                next.proposal = Some(registry::Proposal { ready_at, subject, change: Ok(change) });
            }
            (RegistryAct::Activate(off), _) => {
                let waiting = self.state.proposal.as_ref().filter(|_| {
                    *off == 0 || next.version.saturating_add_signed(i32::from(*off)) == next.version
                });
                let waiting = waiting.ok_or(0x202)?;
                allowed(request.now >= waiting.ready_at, 0x203)?;
                let change = waiting.change.clone().unwrap();
                next.version += 1;
                (next.owners, next.content, next.proposal) = (change.owners, change.content, None);
            }
            (_, ballot) => {
                allowed(self.state.proposal.is_some(), 0x202)?;
                let ballot = ballot.expect("something is announced");
                self.counts(
                    ballot,
                    request.now,
                    ballot.basis == (next.version, next.proposals, self.subject()),
                )?;
                next.proposal = None;
            }
        }
        Ok((next, Effect::returns(request.held, request.sender)))
    }

    fn counts(&self, ballot: &Ballot, now: u32, of_this_decision: bool) -> Result<(), i32> {
        allowed(now <= ballot.until, 0x207)?;
        allowed(of_this_decision, 0x20a)?;
        Err(match ballot.votes {
            Votes::Enough => return Ok(()),
            Votes::TooFew => 0x200,
            Votes::Twice => 0x208,
            Votes::Unknown => 0x209,
            Votes::Forged => 0x20a,
        })
    }
}

fn cancel_of_nothing(until: u32) -> Cell {
    let mut builder = CellBuilder::new();
    builder.store_u32(0x5247_0002).unwrap();
    builder.store_u32(until).unwrap();
    builder.store_reference(Cell::default()).unwrap();
    builder.build().unwrap()
}

/// The library's message with other signatures: it would not send too few of them.
fn rebuilt(body: &Cell, propose: bool, signatures: &[(u8, [u8; 64])]) -> Cell {
    let chained = signatures.iter().rev().fold(None, |next: Option<Cell>, (number, signature)| {
        let mut builder = CellBuilder::new();
        builder.store_u8(*number).unwrap();
        builder.store_raw(signature, 512).unwrap();
        next.store_into(&mut builder, Cell::empty_context()).unwrap();
        Some(builder.build().unwrap())
    });
    let mut slice = body.as_slice().unwrap();
    let mut builder = CellBuilder::new();
    builder.store_u64(slice.load_u64().unwrap()).unwrap();
    if propose {
        builder.store_reference(slice.load_reference_cloned().unwrap()).unwrap();
    }
    builder.store_reference(chained.unwrap()).unwrap();
    builder.build().unwrap()
}
