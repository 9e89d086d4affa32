//! Those who pay: they ask for answers, count what arrives, and keep their channels.

use std::{collections::HashSet, sync::Arc, time::Duration};

use cocoon_accounts::{PayError, PayerStream, authorize, unix_seconds};
use cocoon_contracts::{Address, Nanotons};
use cocoon_protocol::{Budget, Price, Usage};
use tokio::sync::mpsc;

use crate::{
    audit,
    net::{self, LinkError, Serve},
    node::{Lane, Node, Running},
    payee::{self, Ask, Frame},
    plan::Vice,
    world::World,
};

/// Tells the payee about the channel until it knows.
pub(crate) async fn announce(world: Arc<World>, lane: Arc<Lane>) {
    while let Err(error) = lane.announce().await {
        if let LinkError::Refused(400, _) = error {
            return;
        }
        tokio::time::sleep(world.dice.seconds(5, 30)).await;
    }
}

/// Tops up, and finishes closes.
pub(crate) async fn keep(world: Arc<World>, node: Arc<Node>, running: Arc<Running>) {
    let keeper = world.keeper(&running, None);
    if node.member.vice.is_some_and(|(vice, _)| vice == Vice::ClosesEarly) {
        close_early(&world, &node, &running).await;
        return;
    }
    loop {
        tokio::time::sleep(world.dice.seconds(30, 120)).await;
        for (channel, kept) in keeper.keep_once(&HashSet::new()).await {
            world.trace.say(&node.name, format_args!("keeps {}: {kept:?}", short(&channel)));
            if let Ok(kept) = kept {
                world.trace.count(if kept == cocoon_accounts::Kept::ToppedUp { "top up" } else { "close" });
            }
        }
        if !world.is_calm() {
            open_others(&world, &node, &running).await;
        }
    }
}

/// Opens a channel in the place of each that its payee has ended, and goes on with one that was noted only.
async fn open_others(world: &Arc<World>, node: &Arc<Node>, running: &Arc<Running>) {
    for channel in running.lanes.keys() {
        let ended = world.receipts.channel(channel).ended.is_some();
        let noted = running.payer.state(channel).is_some_and(|state| state.deposit == 0);
        let terms = match (noted, ended) {
            (true, _) => running.payer.terms(channel),
            (false, true) if audit::is_gone(world, channel) => world.receipts.replace(channel),
            _ => None,
        };
        let Some(terms) = terms else { continue };
        // In the book before any coin moves, as everybody does.
        let address = terms.address();
        if running.payer.open_channel(&address, &terms, 0).await.is_err() {
            continue;
        }
        let (deposit, limit) = (world.plan.deposit, world.plan.limit);
        let opened = cocoon_chain::open_channel(&running.wallet, &terms, deposit, limit).await;
        world.trace.say(&node.name, format_args!("opens {}: {:?}", short(&address), opened.is_ok()));
        let Ok(state) = opened else { continue };
        drop(running.payer.open_channel(&address, &terms, state.deposit()).await);
        world.trace.count("another channel");
        // A process knows the lanes that it started with.
        return world.crash(node, "start with another channel");
    }
}

/// Starts to close with vouchers out, and takes the rest the moment that the deadline is over.
async fn close_early(world: &Arc<World>, node: &Arc<Node>, running: &Arc<Running>) {
    let (_, from) = node.member.vice.expect("it is why we are here");
    tokio::time::sleep(from.saturating_sub(world.trace.time())).await;
    for channel in running.lanes.keys() {
        let state = loop {
            match cocoon_chain::start_close(&running.wallet, channel).await {
                Ok(state) => break state,
                Err(cocoon_chain::ChainError::WrongAccount { .. }) => return,
                Err(_) => tokio::time::sleep(Duration::from_secs(20)).await,
            }
        };
        let deadline = state.deadline.expect("it closes");
        let began = world.network.time_of(deadline) - Duration::from_secs(world.plan.challenge.into());
        world.receipts.closes_early(channel, began, deadline);
        world.trace.count("early close");
        world.trace.say(&node.name, format_args!("closes {} with vouchers out", short(channel)));
    }
    for channel in running.lanes.keys() {
        let deadline = world.receipts.channel(channel).closed_early.expect("just above").1;
        let over = world.network.time_of(deadline) + Duration::from_secs(1);
        tokio::time::sleep(over.saturating_sub(world.trace.time())).await;
        while let Err(error) = cocoon_chain::finish_close(&running.wallet, channel).await {
            if matches!(error, cocoon_chain::ChainError::WrongAccount { .. }) {
                break;
            }
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
        world.trace.say(&node.name, format_args!("finished {}", short(channel)));
    }
}

/// A client at its leisure; answers overlap.
pub(crate) async fn ask_now_and_then(world: Arc<World>, node: Arc<Node>) {
    loop {
        tokio::time::sleep(world.dice.seconds(5, world.plan.leisure)).await;
        let Some(running) = node.running().filter(|_| !world.is_calm()) else { return };
        let lanes: Vec<Arc<Lane>> = running.lanes.values().cloned().collect();
        if lanes.is_empty() {
            return;
        }
        let lane = Arc::clone(world.dice.pick(&lanes));
        let process = running.process;
        world.spawn(&node, process, ask(Arc::clone(&world), Arc::clone(&node), process, lane));
    }
}

async fn ask(world: Arc<World>, node: Arc<Node>, process: u64, lane: Arc<Lane>) {
    let channel = short(lane.channel());
    let budget = payee::budget(&world.dice);
    let began = Upstream::begin(&world, &node, process, &lane, world.plan.client_price, budget).await;
    let mut answer = match began {
        Ok(answer) => answer,
        Err(why) => return world.trace.say(&node.name, format_args!("is not answered on {channel}: {why}")),
    };
    let patience = if world.dice.chance(50) { world.dice.between(1, 6) } else { u64::MAX };
    for number in 0.. {
        match answer.next().await {
            Some(Frame::Tokens(usage)) if number < patience => {
                if let Err(error) = answer.owe(&usage) {
                    return world.trace.say(&node.name, format_args!("cannot owe on {channel}: {error}"));
                }
            }
            Some(Frame::Receipt) => {
                world.trace.count("whole answer");
                world.trace.say(&node.name, format_args!("has an answer for {} on {channel}", answer.owed));
                return answer.finish();
            }
            _ => {
                world.trace.count("broken answer");
                return world.trace.say(&node.name, format_args!("lost an answer on {channel}"));
            }
        }
    }
}

/// An answer on its way to its payer.
pub(crate) struct Upstream {
    world: Arc<World>,
    node: Arc<Node>,
    process: u64,
    lane: Arc<Lane>,
    price: Price,
    stream: Option<PayerStream>,
    frames: mpsc::Receiver<Frame>,
    pub(crate) owed: Nanotons,
}

impl Upstream {
    /// Asks the payee at the lane's other end.
    pub(crate) async fn begin(
        world: &Arc<World>,
        node: &Arc<Node>,
        process: u64,
        lane: &Arc<Lane>,
        price: Price,
        budget: Budget,
    ) -> Result<Self, String> {
        if !node.has(world, Vice::StopsPaying) {
            lane.look().await.map_err(|error| error.to_string())?;
        }
        let stream = lane.begin(price.worst_case(&budget)).await.map_err(|error| error.to_string())?;
        // From here on, whatever ends this but a refusal or a receipt is a broken answer.
        let (_, none) = mpsc::channel(1);
        let mut answer = Self {
            world: Arc::clone(world),
            node: Arc::clone(node),
            process,
            lane: Arc::clone(lane),
            price,
            stream: Some(stream),
            frames: none,
            owed: 0,
        };
        let proof = authorize(&node.session(), lane.channel(), unix_seconds(), Some(payee::BODY));
        let ask = Ask { channel: lane.channel().clone(), proof, budget };
        let to = &lane.link().to;
        let (server, peer) = (Arc::clone(world), Arc::clone(to));
        let serve: Serve<payee::Answer> = Arc::new(move |running| {
            payee::serve(Arc::clone(&server), Arc::clone(&peer), running, ask.clone())
        });
        match net::call(world, to, false, serve).await {
            Ok(Ok(frames)) => answer.frames = frames,
            Ok(Err(refusal)) => {
                lane.note_difference();
                answer.finish();
                return Err(refusal);
            }
            Err(error) => return Err(error.to_string()),
        }
        Ok(answer)
    }

    /// The next frame, a moment later; `None` when the connection broke or the payee gave up.
    pub(crate) async fn next(&mut self) -> Option<Frame> {
        let frame = self.frames.recv().await?;
        tokio::time::sleep(self.world.dice.millis(5, 200)).await;
        let cut = if self.world.is_calm() { 0 } else { self.world.plan.cut };
        if !self.world.dice.chance(cut) {
            return Some(frame);
        }
        self.world.trace.count("connection cut");
        if self.world.dice.chance(500) {
            // The other end does not notice for a while, and goes on until its buffers are full.
            let (_, none) = mpsc::channel(1);
            let frames = std::mem::replace(&mut self.frames, none);
            let away = self.world.dice.seconds(1, 60);
            tokio::spawn(async move {
                tokio::time::sleep(away).await;
                drop(frames);
            });
        }
        None
    }

    /// Counts what has arrived as owed.
    pub(crate) fn owe(&mut self, usage: &Usage) -> Result<(), PayError> {
        let bill = self.price.bill(usage);
        let stream = self.stream.as_mut().expect("it lives until the answer is over");
        stream.owe_up_to(bill)?;
        self.world.receipts.received(self.lane.channel(), bill.saturating_sub(self.owed));
        self.owed = self.owed.max(bill);
        Ok(())
    }

    /// It came whole, or was refused.
    pub(crate) fn finish(mut self) {
        if let Some(stream) = self.stream.take() {
            stream.finish();
        }
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let lives = self.node.running().is_some_and(|running| running.process == self.process);
        if self.stream.is_some() && lives {
            self.world.receipts.broke(self.lane.channel());
        }
    }
}

/// A channel's name in the trace.
pub(crate) fn short(channel: &Address) -> String {
    channel.to_string()[2..8].to_owned()
}
