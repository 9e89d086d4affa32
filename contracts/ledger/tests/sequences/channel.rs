//! The model of a channel: the rules in other words than the contract's.

use cocoon_contracts::channel::{self, OPEN_RESERVE, SETTLE_RESERVE, Terms};
use cocoon_contracts::{Address, Cell, Nanotons, SignedVoucher, SigningKey, Voucher};
use tycho_types::cell::{CellBuilder, HashBytes};

use super::net::{Effect, NO_STATE, Request};
use super::world::{NETWORK, Who};

#[derive(Debug, Clone)]
pub(crate) enum ChannelAct {
    /// With this limit for the session key.
    Open(Nanotons),
    TopUp,
    Settle(Claim),
    /// So much more than the limit is.
    Authorize(Nanotons),
    StartClose,
    FinishClose,
    Close(Option<Claim>),
    Collect,
    /// An opcode that is none, or no body at all.
    Nonsense(Option<u32>),
}

/// A voucher, by how it relates to what is there.
#[derive(Debug, Clone)]
pub(crate) enum Claim {
    /// This share (of 1000) of what there is beyond what was paid.
    Share(u16),
    /// What the contract can settle to the nanoton, and so much beyond.
    Most(i8),
    /// The session key's limit, and so much beyond.
    Limit(i8),
    /// What was paid already, and so much beyond.
    Paid(i8),
    /// An older voucher of this channel.
    Replay(u8),
    /// A bit of the signature is another.
    Forged,
    /// Signed by the payer's wallet's key, which is not the session key.
    Stolen,
    /// One nanoton more than was signed.
    Altered,
    OtherNetwork,
    OtherChannel,
    OtherNonce,
}

/// One life of a channel, from its opening to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Life {
    pub(crate) deadline: Option<u32>,
    pub(crate) paid: Nanotons,
    pub(crate) limit: Nanotons,
    pub(crate) collected: Nanotons,
}

pub(crate) struct Channel {
    pub(crate) terms: Terms,
    pub(crate) payer: Who,
    payee: Who,
    session_key: SigningKey,
    wallet_key: SigningKey,
    pub(crate) life: Option<Life>,
    /// All that was ever attached to what passed, in this life.
    pub(crate) put_in: Nanotons,
    vouchers: Vec<(SignedVoucher, bool)>,
}

/// A message that is about to be sent: its body, and the voucher in it with whether it is genuine.
pub(crate) struct Prepared {
    pub(crate) body: Cell,
    claim: Option<(Nanotons, bool)>,
}

impl Channel {
    pub(crate) fn new(
        terms: Terms,
        payer: Who,
        payee: Who,
        session_key: SigningKey,
        wallet_key: SigningKey,
    ) -> Self {
        Self { terms, payer, payee, session_key, wallet_key, life: None, put_in: 0, vouchers: Vec::new() }
    }

    fn fee_waiting(&self, life: &Life) -> Nanotons {
        self.terms.network_fee(life.paid) - life.collected
    }

    /// Builds the message. `held` is what the account will hold when it arrives, rent paid.
    pub(crate) fn prepare(&mut self, act: &ChannelAct, held: Nanotons) -> Prepared {
        let (body, claim) = match act {
            ChannelAct::Open(limit) => (channel::open_body(*limit), None),
            ChannelAct::TopUp => (channel::top_up_body(), None),
            ChannelAct::Settle(claim) => {
                let (signed, genuine) = self.sign(claim, held);
                (channel::settle_body(&signed), Some((signed.voucher.cumulative, genuine)))
            }
            ChannelAct::Authorize(more) => (channel::authorize_body(self.raised(*more)), None),
            ChannelAct::StartClose => (channel::start_close_body(), None),
            ChannelAct::FinishClose => (channel::finish_close_body(), None),
            ChannelAct::Close(None) => (channel::cooperative_close_body(None), None),
            ChannelAct::Close(Some(claim)) => {
                let (signed, genuine) = self.sign(claim, held);
                (channel::cooperative_close_body(Some(&signed)), Some((signed.voucher.cumulative, genuine)))
            }
            ChannelAct::Collect => (channel::collect_body(), None),
            ChannelAct::Nonsense(op) => (nonsense(*op), None),
        };
        Prepared { body, claim }
    }

    /// A limit that is this much above the one in force; the very same for 0.
    fn raised(&self, more: Nanotons) -> Nanotons {
        self.life.as_ref().map_or(more, |life| life.limit.saturating_add(more))
    }

    fn sign(&mut self, claim: &Claim, held: Nanotons) -> (SignedVoucher, bool) {
        let life = self.life.clone().unwrap_or(Life { deadline: None, paid: 0, limit: held, collected: 0 });
        let waiting = self.fee_waiting(&life);
        let most = life.paid + held.saturating_sub(waiting + SETTLE_RESERVE);
        let cumulative = match claim {
            Claim::Share(share) => {
                life.paid + (most.min(life.limit).saturating_sub(life.paid)) / 1000 * u64::from(*share)
            }
            Claim::Most(beyond) => most.saturating_add_signed(i64::from(*beyond)),
            Claim::Limit(beyond) => life.limit.saturating_add_signed(i64::from(*beyond)),
            Claim::Paid(beyond) => life.paid.saturating_add_signed(i64::from(*beyond)),
            Claim::Replay(at) if !self.vouchers.is_empty() => {
                return self.vouchers[usize::from(*at) % self.vouchers.len()].clone();
            }
            _ => life.paid + 1 + most.min(life.limit).saturating_sub(life.paid) / 2,
        };
        let good =
            Voucher { network: NETWORK, channel: self.terms.address(), nonce: self.terms.nonce, cumulative };
        let signed = self.forge(claim, good);
        self.vouchers.push(signed.clone());
        signed
    }

    fn forge(&self, claim: &Claim, good: Voucher) -> (SignedVoucher, bool) {
        let cumulative = good.cumulative;
        let key = &self.session_key;
        let mut signed = match claim {
            Claim::Stolen => good.sign(&self.wallet_key),
            Claim::Altered => Voucher { cumulative: cumulative - 1, ..good }.sign(key),
            Claim::OtherNetwork => Voucher { network: -239, ..good }.sign(key),
            Claim::OtherChannel => Voucher { channel: Address::new(0, HashBytes([7; 32])), ..good }.sign(key),
            Claim::OtherNonce => Voucher { nonce: good.nonce + 1, ..good }.sign(key),
            _ => good.sign(key),
        };
        if matches!(claim, Claim::Forged) {
            signed.signature[0] ^= 1;
        }
        let forged = matches!(
            claim,
            Claim::Forged
                | Claim::Stolen
                | Claim::Altered
                | Claim::OtherNetwork
                | Claim::OtherChannel
                | Claim::OtherNonce
        );
        signed.voucher.cumulative = cumulative;
        (signed, !forged)
    }

    /// What the rules say: the effect, or the exit code.
    pub(crate) fn predict(
        &self,
        act: &ChannelAct,
        prepared: &Prepared,
        request: &Request,
    ) -> Result<(Option<Life>, Effect), i32> {
        let Request { by, now, held, value, runs, .. } = request;
        let sender = request.sender;
        if !runs {
            return Err(NO_STATE);
        }
        if matches!(act, ChannelAct::Nonsense(_)) {
            return Err(0xffff);
        }
        let Some(life) = &self.life else { return self.predict_unopened(act, request) };
        let next = |change: &dyn Fn(&mut Life)| {
            let mut next = life.clone();
            change(&mut next);
            Some(next)
        };
        let (payer, payee) = (*by == self.payer, *by == self.payee);
        let waiting = self.fee_waiting(life);
        let treasury = &self.terms.treasury;
        match act {
            ChannelAct::Open(_) => Err(0x101),
            ChannelAct::TopUp => Ok((next(&|_| {}), Effect::joins())),
            ChannelAct::Settle(_) => {
                in_time(life, *now)?;
                allowed(payee, 0x102)?;
                let due = self.due(life, prepared)?;
                allowed(*held >= due.saturating_add(waiting + SETTLE_RESERVE), 0x108)?;
                let paid = life.paid + due;
                let payout = due - (self.terms.network_fee(paid) - self.terms.network_fee(life.paid));
                Ok((next(&|it| it.paid = paid), Effect::leaves(held - payout, [(sender, None)])))
            }
            ChannelAct::Authorize(more) => {
                allowed(payer, 0x102)?;
                let limit = self.raised(*more);
                allowed(limit > life.limit, 0x10e)?;
                Ok((next(&|it| it.limit = limit), Effect::joins()))
            }
            ChannelAct::StartClose => {
                allowed(payer, 0x102)?;
                allowed(life.deadline.is_none(), 0x10a)?;
                Ok((next(&|it| it.deadline = Some(now + self.terms.challenge_seconds)), Effect::joins()))
            }
            ChannelAct::FinishClose => {
                let deadline = life.deadline.ok_or(0x10b)?;
                allowed(*now > deadline, 0x10c)?;
                allowed(*value >= 3_000_000, 0x110)?;
                let fee = waiting.min(*held);
                let fee = (fee > 0).then_some((treasury, Some(fee)));
                Ok((None, Effect::leaves(0, fee.into_iter().chain([(&self.terms.payer, None)]))))
            }
            ChannelAct::Close(claim) => {
                allowed(payee, 0x102)?;
                let due = match claim {
                    None => 0,
                    Some(_) => in_time(life, *now).and_then(|()| self.due(life, prepared))?,
                };
                let home = held.checked_sub(due.saturating_add(waiting)).ok_or(0x108)?;
                let fee = self.terms.network_fee(life.paid + due) - life.collected;
                let fee = (fee > 0).then_some((treasury, Some(fee)));
                let outs = [(&self.terms.payer, Some(home))].into_iter().chain(fee).chain([(sender, None)]);
                Ok((None, Effect::leaves(0, outs)))
            }
            ChannelAct::Collect => {
                allowed(waiting > 0, 0x10f)?;
                // Rent may have eaten what waits: a balance below it cannot be kept.
                let rest = held.checked_sub(waiting).ok_or(5)?;
                let outs = [(treasury, Some(waiting)), (sender, None)];
                Ok((next(&|it| it.collected += waiting), Effect::leaves(rest, outs)))
            }
            ChannelAct::Nonsense(_) => Err(0xffff),
        }
    }

    fn predict_unopened(&self, act: &ChannelAct, request: &Request) -> Result<(Option<Life>, Effect), i32> {
        match act {
            ChannelAct::Settle(_) => Err(0x109),
            ChannelAct::Open(limit) => {
                allowed(request.by == self.payer, 0x102)?;
                allowed(request.held + request.value >= OPEN_RESERVE, 0x105)?;
                Ok((Some(Life { deadline: None, paid: 0, limit: *limit, collected: 0 }), Effect::joins()))
            }
            _ => Err(0x100),
        }
    }

    /// How much of the voucher is new.
    fn due(&self, life: &Life, prepared: &Prepared) -> Result<Nanotons, i32> {
        let (cumulative, genuine) = prepared.claim.expect("a claim brings a voucher");
        allowed(cumulative > life.paid, 0x106)?;
        allowed(cumulative <= life.limit, 0x10d)?;
        allowed(genuine, 0x107)?;
        Ok(cumulative - life.paid)
    }
}

pub(crate) fn allowed(holds: bool, otherwise: i32) -> Result<(), i32> {
    if holds { Ok(()) } else { Err(otherwise) }
}

fn in_time(life: &Life, now: u32) -> Result<(), i32> {
    allowed(life.deadline.is_none_or(|deadline| now <= deadline), 0x109)
}

pub(crate) fn nonsense(op: Option<u32>) -> Cell {
    let mut builder = CellBuilder::new();
    op.iter().for_each(|op| builder.store_u32(*op).unwrap());
    builder.build().unwrap()
}
