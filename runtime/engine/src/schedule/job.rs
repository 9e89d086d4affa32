//! One answer in the making, as the scheduler sees it.

use std::{sync::Arc, time::Duration};

use zeroize::Zeroizing;

use super::{
    answer::{Event, Outlet},
    cost::Cost,
    lobby::{Arrival, Presence, Ticket},
    prefix::{Chain, Name, Salt},
    writer::Writer,
};
use crate::{
    cache::Table,
    constraint::Constraint,
    kernels::PAGE,
    model::Model,
    request::{Params, Payer, Request},
};

/// A choice of a request: the prompt and the answer so far, of which some tokens are in the cache.
pub(crate) struct Job<'m> {
    /// In the order of arrival.
    pub(crate) id: u64,
    pub(crate) payer: Payer,
    /// Prompt and answer.
    pub(crate) tokens: Zeroizing<Vec<u32>>,
    prompt: usize,
    /// The most tokens that it can come to.
    most: usize,
    /// Tokens whose keys and values are in the table.
    pub(crate) computed: usize,
    /// The most that ever were: what is computed again after a preemption is not charged again.
    charged: usize,
    pub(crate) table: Table,
    chain: Chain,
    salt: Option<Salt>,
    pub(crate) writer: Writer<'m>,
    pub(crate) outlet: Outlet,
    /// Since when its reader has no room for more.
    pub(crate) paused: Option<Duration>,
    /// Answers that were begun since it was first turned away.
    pub(crate) overtaken: u32,
    /// Until it is begun.
    ticket: Option<Ticket>,
    presence: Arc<Presence>,
    started: bool,
    /// Tokens of the prompt that the reader was told of.
    told: usize,
    /// Other choices of its request, which begin when its prompt is read.
    forks: Vec<Fork>,
    params: Arc<Params>,
}

struct Fork {
    choice: u32,
    constraint: Option<Box<dyn Constraint>>,
}

impl<'m> Job<'m> {
    /// The first choice of a request; the others wait inside it. A context of so many tokens was checked to hold more than
    /// its prompt.
    pub(crate) fn new(model: &'m Model, arrival: Arrival, context: usize) -> Self {
        let Arrival { id, request, outlet, ticket, presence } = arrival;
        let Request { prompt, params, choices, payer, salt, constraints } = request;
        let params = Arc::new(params);
        let mut constraints = constraints.into_iter();
        let own = constraints.next();
        let writer = Writer::new(model, Arc::clone(&params), 0, &prompt, own);
        let forks = (1..choices).map(|choice| Fork { choice, constraint: constraints.next() }).collect();
        Self {
            id,
            payer,
            prompt: prompt.len(),
            most: context.min(prompt.len().saturating_add(params.max_tokens)),
            tokens: prompt,
            computed: 0,
            charged: 0,
            table: Table::default(),
            chain: Chain::new(salt, id),
            salt,
            writer,
            outlet,
            paused: None,
            overtaken: 0,
            ticket: Some(ticket),
            presence,
            started: false,
            told: 0,
            forks,
            params,
        }
    }

    /// The other choices of its request, once its prompt is read. They share the prompt's full blocks with it.
    pub(crate) fn fork(&mut self, model: &'m Model) -> Vec<Self> {
        let prompt = &self.tokens[..self.prompt];
        let forked = std::mem::take(&mut self.forks).into_iter().map(|fork| Self {
            id: self.id + u64::from(fork.choice),
            payer: self.payer,
            tokens: prompt.to_vec().into(),
            prompt: self.prompt,
            most: self.most,
            computed: 0,
            charged: 0,
            table: Table::default(),
            chain: Chain::new(self.salt, self.id),
            salt: self.salt,
            writer: Writer::new(model, Arc::clone(&self.params), fork.choice, prompt, fork.constraint),
            outlet: self.outlet.clone(),
            paused: None,
            overtaken: 0,
            ticket: None,
            presence: Arc::clone(&self.presence),
            started: true,
            told: self.prompt,
            forks: Vec::new(),
            params: Arc::clone(&self.params),
        });
        forked.collect()
    }

    /// Tokens that are to be computed before a token can be chosen; at least one.
    pub(crate) fn todo(&self) -> usize {
        self.tokens.len() - self.computed
    }

    /// Whether its reader has no room for what the next step may say.
    pub(crate) fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// Whether its blocks are kept for others when it ends.
    pub(crate) fn is_shared(&self) -> bool {
        self.salt.is_some()
    }

    /// Names of the blocks that it could share with others: the last token has to be computed for its logits.
    pub(crate) fn shareable(&mut self) -> &[Name] {
        let blocks = (self.tokens.len() - 1) / PAGE;
        self.chain.names(&self.tokens, blocks)
    }

    /// Blocks that its tokens and the next one need.
    pub(crate) fn blocks_needed(&self) -> usize {
        (self.tokens.len() + 1).div_ceil(PAGE)
    }

    /// Blocks of these that it does not have yet.
    pub(crate) fn blocks_promised(&self) -> usize {
        self.blocks_needed().saturating_sub(self.table.pages().len())
    }

    /// Begins, or goes on after a preemption, with so many tokens out of the cache.
    pub(crate) fn begin(&mut self, cached: usize) {
        self.computed = cached;
        self.charged = self.charged.max(cached);
        self.ticket = None;
        if self.tokens.capacity() < self.most {
            // Room for all of it now: a list that grows leaves copies of itself behind.
            let mut tokens = Zeroizing::new(Vec::with_capacity(self.most));
            tokens.extend_from_slice(&self.tokens);
            self.tokens = tokens;
        }
        if !self.started {
            self.started = true;
            self.outlet.push(Event::Started { cached_tokens: cached });
        }
    }

    /// What is new work of the rows from `first` on.
    pub(crate) fn new_work(&self, cost: Cost, first: usize, rows: usize) -> u64 {
        let new = self.charged.clamp(first, first + rows);
        cost.rows(new, first + rows - new)
    }

    /// Takes note of `rows` more tokens in the cache, and gives the full blocks among them with their names.
    pub(crate) fn advance(&mut self, rows: usize) -> Vec<(u32, Name)> {
        let first = self.computed / PAGE;
        self.computed += rows;
        self.charged = self.charged.max(self.computed);
        let read = self.computed.min(self.prompt);
        if read > self.told && self.outlet.has_room() {
            self.told = read;
            self.outlet.push(Event::Read { prompt_tokens: read });
        }
        let full = self.computed / PAGE;
        let names = self.chain.names(&self.tokens, full);
        self.table.pages()[first..full].iter().copied().zip(names[first..full].iter().copied()).collect()
    }

    /// Whether all its tokens are in the cache, so that the next can be chosen.
    pub(crate) fn is_ready(&self) -> bool {
        self.todo() == 0
    }
}
