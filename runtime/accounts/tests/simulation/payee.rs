//! Those who are paid: hosts work, gateways have the work done by hosts.

use std::{sync::Arc, time::Duration};

use cocoon_accounts::{PayeeBook, Reservation, authorization, http, unix_seconds};
use cocoon_contracts::Address;
use cocoon_protocol::{Budget, Price, Usage};
use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::{
    dice::Dice,
    node::{Node, Running},
    payer::{Upstream, short},
    plan::{Role, Vice},
    world::World,
};

/// What stands for a request's body.
pub(crate) const BODY: &[u8] = b"a question";
/// How many frames the connection holds that nobody has read.
const BUFFERED: usize = 4;
/// How long a stream over its window waits for a voucher, and how long for a receiver that does not read.
const PATIENCE: Duration = Duration::from_secs(20);

/// A question, and the proof of who asks.
#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) channel: Address,
    pub(crate) proof: String,
    pub(crate) budget: Budget,
}

/// A part of an answer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Frame {
    /// So many tokens so far.
    Tokens(Usage),
    /// That was all.
    Receipt,
}

pub(crate) fn budget(dice: &Dice) -> Budget {
    let tokens = |least, most| u32::try_from(dice.between(least, most)).expect("it is small");
    Budget { prompt_tokens: tokens(50, 1_000), completion_tokens: tokens(10, 250) }
}

/// The answer to a question, or why there is none.
pub(crate) type Answer = Result<mpsc::Receiver<Frame>, String>;

/// Takes a question. Boxed, since gateways ask in turn.
pub(crate) fn serve(
    world: Arc<World>,
    node: Arc<Node>,
    running: Arc<Running>,
    ask: Ask,
) -> BoxFuture<'static, Answer> {
    Box::pin(take(world, node, running, ask))
}

async fn take(world: Arc<World>, node: Arc<Node>, running: Arc<Running>, ask: Ask) -> Answer {
    let payee = running.payee.as_ref().ok_or("nobody is paid here")?;
    let terms = payee.book.terms(&ask.channel).await.map_err(|error| error.to_string())?;
    let key = terms.ok_or("unknown channel")?.payer_key;
    authorization::check(Some(&ask.proof), &key, &ask.channel, unix_seconds(), Some(BODY))
        .map_err(|error| error.to_string())?;
    let gateway = node.member.role == Role::Gateway;
    let price = if gateway { world.plan.client_price } else { world.plan.host_price };
    let worst = price.worst_case(&ask.budget);
    let reservation = http::reserve(&payee.book, &*payee.agent, &ask.channel, worst).await;
    let reservation = reservation.map_err(|refusal| refusal.error.code().to_owned())?;
    let (frames, answer) = mpsc::channel(BUFFERED);
    let (book, budget) = (payee.book.clone(), ask.budget);
    let account = Metered { world: Arc::clone(&world), book, reservation, price, frames };
    let process = running.process;
    if gateway {
        let lanes: Vec<_> = running.lanes.values().cloned().collect();
        if lanes.is_empty() {
            return Err("no worker".to_owned());
        }
        let lane = world.dice.pick(&lanes);
        let price = world.plan.host_price;
        let upstream = Upstream::begin(&world, &node, process, lane, price, ask.budget).await?;
        world.spawn(&node, process, relay(account, upstream));
    } else {
        world.spawn(&node, process, work(Arc::clone(&node), account, budget));
    }
    Ok(answer)
}

/// An answer that is charged as it goes out.
struct Metered {
    world: Arc<World>,
    book: PayeeBook,
    reservation: Reservation,
    price: Price,
    frames: mpsc::Sender<Frame>,
}

impl Metered {
    /// Charges for all tokens so far; `None` when the answer must end.
    async fn charge(&mut self, usage: &Usage) -> Option<()> {
        let before = self.reservation.charged();
        let charged = self.reservation.charge(self.price.bill(usage), PATIENCE).await;
        let channel = self.reservation.channel();
        self.world.receipts.charged(channel, self.reservation.charged() - before);
        let status = self.book.status(channel).await.ok().flatten().expect("it has an account");
        let open = status.owed.saturating_sub(status.voucher);
        if open > self.world.plan.window / 2 * 3 {
            self.world.trace.fail(format_args!("{open} are unpaid on {}", short(channel)));
        }
        charged.inspect_err(|error| self.cut(error)).ok()
    }

    fn cut(&self, why: &dyn std::fmt::Display) {
        self.world.trace.count("answer cut");
        self.world.trace.say("", format_args!("cut on {}: {why}", short(self.reservation.channel())));
    }

    async fn send(&self, frame: Frame) -> Option<()> {
        self.frames.send_timeout(frame, PATIENCE).await.ok()
    }

    /// What was charged is on the disk before the receipt goes out.
    async fn finish(self) {
        let Self { reservation, frames, .. } = self;
        if reservation.finish().await.is_ok() {
            frames.send_timeout(Frame::Receipt, PATIENCE).await.ok();
        }
    }
}

/// A host at work.
async fn work(node: Arc<Node>, mut answer: Metered, budget: Budget) {
    let world = Arc::clone(&answer.world);
    let cached = u32::try_from(world.dice.between(0, budget.prompt_tokens.into())).expect("it is small");
    let mut usage =
        Usage { prompt_tokens: budget.prompt_tokens, cached_tokens: cached, completion_tokens: 0 };
    let last = u32::try_from(world.dice.between(1, budget.completion_tokens.into())).expect("it is small");
    while usage.completion_tokens < last {
        tokio::time::sleep(world.dice.millis(50, 900)).await;
        let more = u32::try_from(world.dice.between(1, 12)).expect("it is small");
        usage.completion_tokens = (usage.completion_tokens + more).min(last);
        if answer.charge(&usage).await.is_none() {
            return;
        }
        if node.has(&world, Vice::ChargesAndCuts) && world.dice.chance(300) {
            return world.trace.count("charged and cut");
        }
        if answer.send(Frame::Tokens(usage)).await.is_none() {
            return;
        }
    }
    answer.finish().await;
}

/// A gateway: what the host sent is charged to the client before it is owed to the host and given out.
async fn relay(mut answer: Metered, mut upstream: Upstream) {
    loop {
        match upstream.next().await {
            Some(Frame::Tokens(usage)) => {
                if answer.charge(&usage).await.is_none()
                    || upstream.owe(&usage).is_err()
                    || answer.send(Frame::Tokens(usage)).await.is_none()
                {
                    return;
                }
            }
            Some(Frame::Receipt) => {
                upstream.finish();
                return answer.finish().await;
            }
            None => return,
        }
    }
}

/// Ends every channel at once, with the best voucher that it has, once it is time for it.
pub(crate) async fn end_channels(world: Arc<World>, node: Arc<Node>, running: Arc<Running>) {
    let (Some(payee), Some((Vice::Ends, from))) = (&running.payee, node.member.vice) else { return };
    tokio::time::sleep(from.saturating_sub(world.trace.time())).await;
    for account in payee.book.accounts().await.unwrap_or_default() {
        let channel = account.address;
        // No more work first; what is handed in later is not counted on.
        while payee.book.close(&channel).await.is_err() {
            tokio::time::sleep(Duration::from_secs(5)).await;
        }
        let held = payee.book.accounts().await.unwrap_or_default();
        let Some(account) = held.into_iter().find(|account| account.address == channel) else { continue };
        let covered = account.state.covered();
        world.receipts.ends(&channel, covered);
        let voucher =
            account.state.voucher.map(|signed| signed.verify_for(&account.terms).expect("it was taken"));
        loop {
            match cocoon_chain::cooperative_close(&running.wallet, &channel, voucher.as_ref()).await {
                Ok(()) | Err(cocoon_chain::ChainError::WrongAccount { .. }) => break,
                Err(_) => tokio::time::sleep(Duration::from_secs(20)).await,
            }
        }
        world.trace.count("cooperative close");
        world.trace.say(&node.name, format_args!("ends {}", short(&channel)));
        drop(payee.book.settled(&channel, covered).await);
    }
}
