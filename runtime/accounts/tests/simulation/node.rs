//! A member's machine: a disk and a clock that stay, and a process that dies and comes back.

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::Router;
use cocoon_accounts::{
    AgentOptions, PayeeAgent, PayeeBook, PayeeOptions, PayerAgent, PayerBook, PayerKeeper, PayerOptions,
    PayerPolicy, WallClock, http::channel_routes, with_clock,
};
use cocoon_chain::Wallet;
use cocoon_contracts::{Address, SigningKey};
use futures_util::FutureExt as _;
use tokio::task::AbortHandle;

use crate::{
    chain::View,
    disk::MachineDisk,
    net::Link,
    payee, payer,
    plan::{Member, Role, Vice},
    world::{NETWORK, START, World},
};

pub(crate) type Lane = PayerAgent<Link>;

pub(crate) struct Node {
    pub(crate) number: usize,
    pub(crate) name: String,
    pub(crate) member: Member,
    pub(crate) disk: Arc<MachineDisk>,
    /// When it could do nothing: from when until when.
    pub(crate) away: Mutex<Vec<(Duration, Duration)>>,
    life: Mutex<Life>,
}

#[derive(Default)]
struct Life {
    processes: u64,
    running: Option<Arc<Running>>,
    tasks: Vec<AbortHandle>,
    gone: bool,
}

/// A process.
pub(crate) struct Running {
    pub(crate) process: u64,
    pub(crate) wallet: Arc<Wallet>,
    pub(crate) payer: PayerBook,
    pub(crate) payee: Option<Payee>,
    pub(crate) lanes: BTreeMap<Address, Arc<Lane>>,
}

pub(crate) struct Payee {
    pub(crate) book: PayeeBook,
    pub(crate) agent: Arc<PayeeAgent>,
    pub(crate) routes: Router,
}

impl Node {
    pub(crate) fn new(number: usize, member: Member) -> Arc<Self> {
        let role = match member.role {
            Role::Client => "client",
            Role::Gateway => "gateway",
            Role::Host => "host",
        };
        let name = format!("{role}-{number}");
        let (disk, away, life) = Default::default();
        Arc::new(Self { number, name, member, disk, away, life })
    }

    /// Its wallet's key.
    pub(crate) fn key(&self) -> SigningKey {
        self.seeded(0x10)
    }

    /// What signs its vouchers.
    pub(crate) fn session(&self) -> SigningKey {
        self.seeded(0x80)
    }

    fn seeded(&self, kind: u8) -> SigningKey {
        SigningKey::from_seed(&[kind + u8::try_from(self.number).expect("a few members"); 32])
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().expect("nobody panics here")
    }

    pub(crate) fn running(&self) -> Option<Arc<Running>> {
        self.life().running.clone()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.life().gone
    }

    /// Whether it has this vice, and it is time for it.
    pub(crate) fn has(&self, world: &World, vice: Vice) -> bool {
        self.member.vice.is_some_and(|(it, from)| it == vice && world.trace.time() >= from)
    }

    /// Ends its process between two instructions; the disk keeps what it has.
    pub(crate) fn kill(&self) {
        let (running, tasks) = {
            let mut life = self.life();
            (life.running.take(), std::mem::take(&mut life.tasks))
        };
        tasks.iter().for_each(AbortHandle::abort);
        drop(self.disk.abandon());
        drop(running);
    }

    pub(crate) fn go(&self) {
        self.life().gone = true;
        self.kill();
    }

    pub(crate) fn clock(&self, world: &Arc<World>) -> WallClock {
        let (trace, skew) = (Arc::clone(&world.trace), self.member.skew);
        Arc::new(move || (u64::from(START) + trace.time().as_secs()).saturating_add_signed(skew))
    }
}

impl World {
    /// Runs something in a process of a member, by its clock, until it ends or the process dies.
    pub(crate) fn spawn(
        self: &Arc<Self>,
        node: &Arc<Node>,
        process: u64,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let (world, name, clock) = (Arc::clone(self), node.name.clone(), node.clock(self));
        let mut life = node.life();
        if life.running.as_ref().is_none_or(|running| running.process != process) {
            return;
        }
        let task = tokio::spawn(async move {
            let work = AssertUnwindSafe(with_clock(clock, work)).catch_unwind();
            if let Err(panic) = work.await {
                let words = panic.downcast_ref::<String>().map(String::as_str);
                let words = words.or_else(|| panic.downcast_ref::<&str>().copied());
                world.trace.fail(format_args!("{name} panicked: {}", words.unwrap_or("?")));
            }
        });
        life.tasks.retain(|task| !task.is_finished());
        life.tasks.push(task.abort_handle());
    }

    /// Starts a member's process from what is on its disk.
    pub(crate) fn start(self: &Arc<Self>, node: &Arc<Node>) {
        let process = {
            let mut life = node.life();
            if life.gone || life.running.is_some() {
                return;
            }
            life.processes += 1;
            life.processes
        };
        let running = Arc::new(self.open(node, process));
        self.check_durable(node, &running);
        self.trace.say(&node.name, format_args!("starts ({process})"));
        node.life().running = Some(Arc::clone(&running));
        if let Some(payee) = &running.payee {
            self.spawn(node, process, Arc::clone(&payee.agent).watch());
            self.spawn(
                node,
                process,
                payee::end_channels(Arc::clone(self), Arc::clone(node), Arc::clone(&running)),
            );
        }
        for lane in running.lanes.values() {
            self.spawn(node, process, Lane::follow(Arc::downgrade(lane)));
            self.spawn(node, process, payer::announce(Arc::clone(self), Arc::clone(lane)));
        }
        if !running.lanes.is_empty() {
            self.spawn(node, process, payer::keep(Arc::clone(self), Arc::clone(node), Arc::clone(&running)));
        }
        if node.member.role == Role::Client {
            self.spawn(node, process, payer::ask_now_and_then(Arc::clone(self), Arc::clone(node)));
        }
    }

    fn open(self: &Arc<Self>, node: &Arc<Node>, process: u64) -> Running {
        let store = node.disk.open(process);
        let payer = PayerBook::open(store.clone()).expect("what was written parses");
        let wallet = Arc::new(Wallet::new(node.key(), Arc::new(View::new(&self.network))));
        let payee = (node.member.role != Role::Client).then(|| {
            let options = PayeeOptions { network: NETWORK, window: self.plan.window };
            let book = PayeeBook::open(store, options).expect("what was written parses");
            let options = AgentOptions {
                registry: self.registry.clone(),
                min_challenge_seconds: 600,
                settle_at: self.plan.settle_at,
                watch_every: self.plan.watch,
            };
            let agent = Arc::new(PayeeAgent::new(Arc::clone(&wallet), book.clone(), options));
            let routes = channel_routes(book.clone(), Arc::clone(&agent) as Arc<_>);
            Payee { book, agent, routes }
        });
        let lane = |channel: Address| {
            let to = Arc::clone(&self.nodes[self.receipts.channel(&channel).payee]);
            let (world, from) = (Arc::clone(self), Arc::clone(node));
            let link = Link { world, from, to, key: node.session() };
            let (cap, gather) = (self.plan.window, Duration::from_secs(1));
            let options = PayerOptions { cap, gather, hold: node.member.role == Role::Gateway };
            let lane = Lane::new(payer.clone(), node.session(), channel.clone(), link, options);
            (channel, Arc::new(lane))
        };
        let lanes = payer.channels().into_iter().map(lane).collect();
        Running { process, wallet, payer, payee, lanes }
    }

    /// What was acknowledged or signed before is there.
    fn check_durable(&self, node: &Node, running: &Running) {
        let accounts = running.payee.as_ref().map(|payee| payee.book.accounts());
        let accounts = accounts.and_then(|all| all.now_or_never()).and_then(Result::ok).unwrap_or_default();
        for account in accounts {
            let receipt = self.receipts.channel(&account.address);
            if account.state.covered() < receipt.acknowledged() {
                let (held, said) = (account.state.covered(), receipt.acknowledged());
                self.trace.fail(format_args!("{} holds {held} after a crash and said {said}", node.name));
            }
        }
        for channel in running.payer.channels() {
            let receipt = self.receipts.channel(&channel);
            let signed = running.payer.state(&channel).map_or(0, |state| state.signed);
            if signed < receipt.signed {
                let said = receipt.signed;
                self.trace.fail(format_args!("{} remembers {signed} and signed {said}", node.name));
            }
        }
    }

    /// The policy by which payers keep their channels.
    pub(crate) fn keeper(&self, running: &Running, close_idle: Option<Duration>) -> PayerKeeper {
        let policy = PayerPolicy {
            close_idle,
            top_up_below: self.plan.deposit / 4,
            top_up_by: self.plan.deposit / 2,
            most: self.plan.most,
        };
        PayerKeeper::new(Arc::clone(&running.wallet), running.payer.clone(), policy)
    }

    /// Lets a member's process die now, and come back after a while, if ever.
    pub(crate) fn crash(self: &Arc<Self>, node: &Arc<Node>, why: &'static str) {
        self.trace.count(why);
        self.receipts.crashed(node.number);
        let away =
            if self.dice.chance(100) { self.dice.seconds(60, 1_800) } else { self.dice.seconds(1, 60) };
        self.trace.say(&node.name, format_args!("dies: {why}; back in {} s", away.as_secs()));
        let now = self.trace.time();
        node.away.lock().expect("nobody panics here").push((now, now + away));
        node.kill();
        let (world, node) = (Arc::clone(self), Arc::clone(node));
        tokio::spawn(async move {
            tokio::time::sleep(away).await;
            world.start(&node);
        });
    }
}
