//! One world of one seed: it is set up in calm, lives through everything that its plan holds, and comes to rest.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use cocoon_accounts::{StoreError, with_clock};
use cocoon_chain::Wallet;
use cocoon_contracts::{
    Address, SigningKey, TON,
    channel::Terms,
    message,
    registry::{Content, Deployment, Owners},
    wallet,
};
use cocoon_ledger::{Genesis, GenesisAccount, STORAGE_2026_SINCE, Schedule};

use crate::{
    audit,
    chain::{Network, View},
    dice::Dice,
    node::{Node, Running},
    payer::short,
    plan::{Plan, Role, Vice},
    receipts::Receipts,
    trace::{Report, Trace},
};

pub(crate) const NETWORK: i32 = -217;
/// Everybody's clock begins here, but for its own error.
pub(crate) const START: u32 = STORAGE_2026_SINCE + 1_000_000;
/// An odd share, so that it is rounded.
const FEE_BPS: u16 = 137;

pub(crate) struct World {
    pub(crate) dice: Arc<Dice>,
    pub(crate) trace: Arc<Trace>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) network: Arc<Network>,
    pub(crate) registry: Address,
    pub(crate) nodes: Vec<Arc<Node>>,
    pub(crate) receipts: Receipts,
    calm: Arc<AtomicBool>,
}

/// Runs the world of a seed from its beginning to its audit.
pub(crate) fn run(seed: u64, loud: bool) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime of one thread");
    runtime.block_on(async {
        let world = World::new(seed, loud);
        world.live().await;
        world.nodes.iter().for_each(|node| node.go());
        world.trace.report()
    })
}

pub(crate) fn treasury() -> Address {
    message::basechain([0x77; 32])
}

impl World {
    fn new(seed: u64, loud: bool) -> Arc<Self> {
        let (dice, trace) = (Arc::new(Dice::new(seed)), Arc::new(Trace::new(loud)));
        let (plan, calm) = (Arc::new(Plan::of(&dice)), Arc::new(AtomicBool::new(true)));
        trace.say("plan", format_args!("{plan:?}"));
        let members = plan.members.iter().enumerate();
        let nodes: Vec<_> = members.map(|(number, member)| Node::new(number, *member)).collect();
        let owners = Owners::new(1, [SigningKey::from_seed(&[1; 32]).public()]).expect("one owner");
        let content = Content::empty(FEE_BPS, treasury());
        let deployment = Deployment { owners, delay: 1, salt: 1, content };
        let registry = deployment.address().expect("the content fits");
        let contract = GenesisAccount {
            address: registry.clone(),
            balance: TON,
            state_init: Some(deployment.state_init().expect("the content fits")),
        };
        let rich = |node: &Arc<Node>| GenesisAccount {
            address: wallet::address(&node.key().public()),
            balance: 100 * TON,
            state_init: None,
        };
        let accounts = nodes.iter().map(rich).chain([contract]).collect();
        let time = u32::try_from(i64::from(START) + plan.chain_skew).expect("before 2106");
        let genesis = Genesis { network: NETWORK, schedule: Schedule::Mainnet2026, time, accounts };
        let network = Arc::new(Network::new(&dice, &trace, &calm, &plan, &genesis));
        let receipts = Receipts::default();
        Arc::new(Self { dice, trace, plan, network, registry, nodes, receipts, calm })
    }

    /// No more faults, and no more questions.
    pub(crate) fn is_calm(&self) -> bool {
        self.calm.load(Ordering::Relaxed)
    }

    /// How often the network between members misbehaves, in a thousand.
    pub(crate) fn loss(&self) -> u64 {
        if self.is_calm() { 0 } else { self.plan.loss }
    }

    async fn live(self: &Arc<Self>) {
        let supply = self.network.with_ledger(|ledger| ledger.supply().total());
        for node in &self.nodes {
            tokio::spawn(Arc::clone(self).write(Arc::clone(node)));
            self.start(node);
        }
        self.open_channels().await;
        for node in &self.nodes {
            node.kill();
            self.start(node);
            tokio::spawn(Arc::clone(self).vanish(Arc::clone(node)));
        }
        self.calm.store(false, Ordering::Relaxed);
        tokio::time::sleep(self.plan.length).await;
        self.calm.store(true, Ordering::Relaxed);
        self.trace.say("world", format_args!("is calm"));
        self.come_to_rest().await;
        audit::audit(self, supply);
    }

    /// The disk of one machine: each commit takes a moment, may fail, and may be the process's last.
    async fn write(self: Arc<Self>, node: Arc<Node>) {
        loop {
            let batch = node.disk.batch().await;
            let process = node.disk.process();
            tokio::time::sleep(self.dice.millis(1, 25)).await;
            if node.disk.process() != process {
                // It died meanwhile for another reason. What a new process has read stays as it was.
                continue;
            }
            let (crash, full) = if self.is_calm() { (0, 0) } else { (self.plan.crash, self.plan.full) };
            if self.dice.chance(full) {
                self.trace.count("disk full");
                node.disk.tell(batch, &Err(StoreError::Write { why: "no space".to_owned() }));
            } else if self.dice.chance(crash) {
                let is_durable = self.dice.chance(500);
                if is_durable {
                    node.disk.commit(&batch);
                }
                self.crash(&node, if is_durable { "crash after a write" } else { "crash before a write" });
                drop(batch);
            } else {
                node.disk.commit(&batch);
                node.disk.tell(batch, &Ok(()));
            }
        }
    }

    async fn vanish(self: Arc<Self>, node: Arc<Node>) {
        if let Some((Vice::Vanishes, at)) = node.member.vice {
            tokio::time::sleep(at.saturating_sub(self.trace.time())).await;
            self.trace.count("vanished");
            self.trace.say(&node.name, format_args!("vanishes"));
            node.go();
        }
    }

    /// Every client has a channel to a gateway at least, every gateway one to each host.
    async fn open_channels(self: &Arc<Self>) {
        let of = |role| self.nodes.iter().filter(move |node| node.member.role == role);
        let mut pairs = Vec::new();
        for client in of(Role::Client) {
            let first = pairs.len();
            pairs.extend(of(Role::Gateway).filter(|_| self.dice.chance(600)).map(|to| (client, to)));
            if pairs.len() == first {
                pairs.extend(of(Role::Gateway).take(1).map(|to| (client, to)));
            }
        }
        pairs.extend(of(Role::Gateway).flat_map(|from| of(Role::Host).map(move |to| (from, to))));
        let opened =
            pairs.into_iter().enumerate().map(|(nonce, (from, to))| self.open_channel(nonce, from, to));
        futures_util::future::join_all(opened).await;
    }

    async fn open_channel(&self, nonce: usize, from: &Arc<Node>, to: &Arc<Node>) {
        let terms = Terms {
            payer: wallet::address(&from.key().public()),
            payee: wallet::address(&to.key().public()),
            payer_key: from.session().public(),
            network: NETWORK,
            nonce: nonce as u64,
            challenge_seconds: self.plan.challenge,
            fee_bps: FEE_BPS,
            treasury: treasury(),
        };
        let running = from.running().expect("it was started");
        let (deposit, limit) = (self.plan.deposit, self.plan.limit);
        let state = cocoon_chain::open_channel(&running.wallet, &terms, deposit, limit).await;
        let deposit = state.expect("it is calm").deposit();
        let channel = terms.address();
        running.payer.open_channel(&channel, &terms, deposit).await.expect("it is calm");
        self.receipts.opened(&terms, from.number, to.number);
        let (from, to) = (&from.name, &to.name);
        self.trace.say("world", format_args!("{from} pays {to} on {}, {deposit}", short(&channel)));
    }

    /// Answers end, debts are paid, vouchers settled, channels closed.
    async fn come_to_rest(self: &Arc<Self>) {
        tokio::time::sleep(Duration::from_secs(240)).await;
        self.nodes.iter().for_each(|node| self.start(node));
        tokio::time::sleep(Duration::from_secs(120)).await;
        let running = || self.nodes.iter().filter_map(|node| Some((node, node.running()?)));
        for (node, running) in running() {
            for lane in running.lanes.values().filter(|_| !node.has(self, Vice::StopsPaying)) {
                let reconciled = with_clock(node.clock(self), lane.reconcile()).await;
                let paid = lane.settle_up().await.map(|signed| signed.map(|it| it.voucher.cumulative));
                let name = short(lane.channel());
                self.trace.say(&node.name, format_args!("ends {name}: {reconciled:?}, {paid:?}"));
            }
        }
        for (node, running) in running() {
            if let Some(payee) = &running.payee {
                let settled = payee.agent.settle_all(Duration::from_secs(300)).await;
                self.trace.say(&node.name, format_args!("settles {} vouchers", settled.len()));
            }
        }
        let rounds = self.plan.challenge / 60 + 30;
        for _ in 0..rounds {
            if self.receipts.channels().iter().all(|(channel, _)| audit::is_gone(self, channel)) {
                return;
            }
            for (node, running) in running() {
                self.close_idle(node, &running).await;
            }
            for node in self.nodes.iter().filter(|node| node.is_gone()) {
                self.close_for_its_owner(node).await;
            }
            tokio::time::sleep(Duration::from_secs(60)).await;
        }
    }

    async fn close_idle(&self, node: &Node, running: &Running) {
        let keeper = self.keeper(running, Some(Duration::ZERO));
        for (channel, kept) in keeper.keep_once(&HashSet::new()).await {
            self.trace.say(&node.name, format_args!("keeps {}: {kept:?}", short(&channel)));
        }
    }

    /// A machine is gone with all that it knew; its owner has the wallet's words on paper.
    async fn close_for_its_owner(&self, node: &Node) {
        let wallet = Wallet::new(node.key(), Arc::new(View::new(&self.network)));
        for (channel, receipt) in self.receipts.channels() {
            if receipt.payer != node.number || audit::is_gone(self, &channel) {
                continue;
            }
            let closing = cocoon_chain::start_close(&wallet, &channel).await;
            let deadline = closing.ok().and_then(|state| state.deadline);
            let time = wallet.chain().head().await.map_or(0, |head| head.time);
            if deadline.is_some_and(|deadline| time > u64::from(deadline)) {
                let closed = cocoon_chain::finish_close(&wallet, &channel).await;
                self.trace.say(&node.name, format_args!("its owner closes {}: {closed:?}", short(&channel)));
            }
        }
    }
}
