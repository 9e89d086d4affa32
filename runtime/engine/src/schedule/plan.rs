//! Which tokens of whom a step computes, and who is put back when places or blocks run out.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{
    cost::{Cost, TOKEN},
    fair::Lane,
    job::Job,
    scheduler::{Scheduler, SchedulerLimits},
};
use crate::{kernels::PAGE, request::Payer};

/// Payers whose next answer may be turned away in one step; after them nobody is asked.
const MOST_TURNED_AWAY: usize = 16;
/// Answers that may be begun before one that was turned away; then nobody else is until it is. A long prompt would
/// otherwise wait for as long as short ones come.
const MOST_OVERTAKING: u32 = 64;

/// How many of its next tokens each answer gets computed.
pub(super) struct Plan {
    /// Rows that may still be planned.
    rows_left: usize,
    /// What the planned rows cost, and what they may.
    spent: u64,
    allowance: u64,
    /// Rows of each answer, and what they cost.
    picks: BTreeMap<u64, (usize, u64)>,
    /// Answers that were put back while this was planned: they wait for another step, so that planning ends.
    put_back: BTreeSet<u64>,
}

impl Plan {
    fn new(limits: &SchedulerLimits) -> Self {
        let (rows_left, allowance) = (limits.step_tokens, u64::MAX);
        Self { rows_left, spent: 0, allowance, picks: BTreeMap::new(), put_back: BTreeSet::new() }
    }

    /// What reading may cost beside what is planned by now: what is left of a step of tokens that see nothing, and half as
    /// much as writing takes or the cost of a block at least, so that prompts are read however much is being written.
    fn allow_reading(&mut self, limits: &SchedulerLimits) {
        let step = limits.step_tokens as u64 * TOKEN;
        self.allowance = step.max(self.spent + (self.spent / 2).max(PAGE as u64 * TOKEN));
    }

    fn has_room(&self) -> bool {
        self.rows_left > 0 && self.spent < self.allowance
    }

    /// How many rows from this position on have room, one at least.
    fn room(&self, cost: Cost, first: usize, rows: usize) -> usize {
        cost.within(self.allowance.saturating_sub(self.spent), first, rows.min(self.rows_left))
    }

    fn add(&mut self, id: u64, rows: usize, cost: u64) {
        let pick = self.picks.entry(id).or_default();
        *pick = (pick.0 + rows, pick.1 + cost);
        self.rows_left -= rows;
        self.spent += cost;
    }

    /// Takes an answer's rows out again, and says how many there were.
    fn take_out(&mut self, id: u64) -> usize {
        let (rows, cost) = self.picks.remove(&id).unwrap_or_default();
        self.rows_left += rows;
        self.spent -= cost;
        rows
    }

    /// Tokens in all.
    pub(super) fn rows(&self) -> usize {
        self.picks.values().map(|(rows, _)| rows).sum()
    }

    /// What all rows cost.
    #[cfg(test)]
    pub(super) fn cost(&self) -> u64 {
        self.spent
    }

    /// Numbers of answers with how many of their tokens are computed, in the order of their numbers.
    pub(super) fn picks(&self) -> impl Iterator<Item = (u64, usize)> {
        self.picks.iter().map(|(id, (rows, _))| (*id, *rows))
    }

    /// Whether something of this answer is computed.
    pub(super) fn has(&self, id: u64) -> bool {
        self.picks.contains_key(&id)
    }

    fn of(&self, id: u64) -> usize {
        self.picks.get(&id).map_or(0, |(rows, _)| *rows)
    }
}

impl Scheduler<'_> {
    /// Answers that write come first, then prompts; among them the payer who got least so far, and of a payer the
    /// oldest answer.
    pub(super) fn plan(&mut self) -> Plan {
        let mut plan = Plan::new(&self.limits);
        while plan.has_room() {
            let Some((_, id)) = self.lanes.least_active(|_, lane| self.next_to_write(lane, &plan)) else {
                break;
            };
            self.grant(id, &mut plan);
        }
        plan.allow_reading(&self.limits);
        // Payers whose next answer finds no place in this step, and these answers.
        let (mut turned_away, mut overtaken) = (BTreeSet::new(), Vec::new());
        let mut all_may_begin = true;
        while plan.has_room() {
            let reads = |lane: &Lane| self.next_to_read(lane, &plan);
            let begins = |payer, lane: &Lane| {
                let waits = || self.next_to_begin(lane, &plan).filter(|_| !turned_away.contains(&payer));
                reads(lane).or_else(waits)
            };
            let next = match all_may_begin {
                true => self.lanes.least(begins),
                false => self.lanes.least_active(|_, lane| reads(lane)),
            };
            let Some((payer, id)) = next else { break };
            if self.lanes.is_running(payer, id) {
                self.grant(id, &mut plan);
            } else if self.admit(id, &mut plan) {
                self.overtake(&overtaken);
                self.grant(id, &mut plan);
            } else {
                turned_away.insert(payer);
                overtaken.push(id);
                let waits = self.jobs[&id].overtaken >= MOST_OVERTAKING;
                all_may_begin = !waits && turned_away.len() < MOST_TURNED_AWAY;
            }
        }
        plan
    }

    /// Somebody was begun before these.
    fn overtake(&mut self, waiting: &[u64]) {
        for id in waiting {
            self.jobs.get_mut(id).expect("it waits").overtaken += 1;
        }
    }

    /// The next answer of a payer that writes a token.
    fn next_to_write(&self, lane: &Lane, plan: &Plan) -> Option<u64> {
        let wants = |id: &&u64| {
            let job = &self.jobs[*id];
            !job.is_paused() && job.todo() == 1 && !plan.has(job.id)
        };
        lane.running.iter().find(wants).copied()
    }

    /// The next answer of a payer in progress that has something to be computed.
    fn next_to_read(&self, lane: &Lane, plan: &Plan) -> Option<u64> {
        let wants = |id: &&u64| {
            let job = &self.jobs[*id];
            !job.is_paused() && job.todo() > plan.of(job.id)
        };
        lane.running.iter().find(wants).copied()
    }

    /// The next answer of a payer to begin with, or to go on with.
    fn next_to_begin(&self, lane: &Lane, plan: &Plan) -> Option<u64> {
        let may = |id: &&u64| !self.jobs[*id].is_paused() && !plan.put_back.contains(*id);
        lane.waiting.iter().find(may).copied()
    }

    /// Plans the next tokens of an answer in progress, up to the end of a block, with a block to write them to.
    fn grant(&mut self, id: u64, plan: &mut Plan) {
        let (job, cost) = (&self.jobs[&id], self.limits.cost);
        let planned = plan.of(id);
        let first = job.computed + planned;
        let rows = plan.room(cost, first, (job.todo() - planned).min(PAGE - first % PAGE));
        let (payer, charge) = (job.payer, job.new_work(cost, first, rows));
        if job.table.room() < first + rows && !self.find_block(id, plan) {
            return; // it was put back itself
        }
        plan.add(id, rows, cost.rows(first, rows));
        self.lanes.charge(payer, charge);
    }

    /// Gets an answer one more block, at the cost of others if need be. False if it was the one to be put back.
    fn find_block(&mut self, id: u64, plan: &mut Plan) -> bool {
        loop {
            let job = self.jobs.get_mut(&id).expect("it is being planned");
            if self.blocks.extend(&mut job.table) {
                return true;
            }
            let victim = self.who_gives_way().expect("one answer alone has room for a whole context");
            self.put_back(victim, plan);
            if victim == id {
                return false;
            }
        }
    }

    /// Begins with an answer that waits, if there is a place and room for all its tokens.
    fn admit(&mut self, id: u64, plan: &mut Plan) -> bool {
        // Room first: whoever gives his blocks up for it gives his place up as well, so that nobody is put back in vain.
        if !self.make_room(id, plan) || !self.make_place(id, plan) {
            return false;
        }
        let job = self.jobs.get_mut(&id).expect("it waits");
        let names = job.shareable().to_vec();
        let (shared, _) = self.blocks.find(&names);
        self.blocks.share(&names[..shared], &mut job.table);
        job.begin(shared * PAGE);
        job.overtaken = 0;
        self.lanes.start(job.payer, id);
        true
    }

    /// A place among the answers in progress. Where all are taken, paused ones give way, and a payer who has at least
    /// two more than this one.
    fn make_place(&mut self, id: u64, plan: &mut Plan) -> bool {
        let payer = self.jobs[&id].payer;
        while self.running().count() >= self.limits.running {
            let own = self.lanes.running(payer);
            let gives_way = |job: &&Job<'_>| job.is_paused() || self.lanes.running(job.payer) >= own + 2;
            let share = |job: &Job<'_>| self.lanes.running(job.payer);
            let Some(victim) = self.last_of(gives_way, share) else { return false };
            self.put_back(victim, plan);
        }
        true
    }

    /// Room for all tokens of an answer that waits. Where there is not enough, paused answers give way, and a payer who
    /// still has no less than this one when he gave a whole answer's blocks; but only if that makes room enough.
    fn make_room(&mut self, id: u64, plan: &mut Plan) -> bool {
        let mut victims = Vec::new();
        let mut lacking = self.blocks_lacking(id);
        let own = self.blocks_of(self.jobs[&id].payer, &[]) + self.jobs[&id].blocks_needed();
        while lacking > 0 {
            let share = |job: &Job<'_>| self.blocks_of(job.payer, &victims);
            let gives_way = |job: &&Job<'_>| {
                let can_spare = || share(job) >= own + job.table.pages().len();
                !victims.contains(&job.id) && (job.is_paused() || can_spare())
            };
            let Some(victim) = self.last_of(gives_way, share) else { return false };
            let job = &self.jobs[&victim];
            lacking = lacking.saturating_sub(self.blocks.held_alone(&job.table) + job.blocks_promised());
            victims.push(victim);
        }
        victims.into_iter().for_each(|victim| self.put_back(victim, plan));
        self.blocks_lacking(id) == 0
    }

    /// Blocks that are missing before an answer that waits has room for all its tokens.
    fn blocks_lacking(&mut self, id: u64) -> usize {
        let job = self.jobs.get_mut(&id).expect("it waits");
        let all = job.blocks_needed();
        let (shared, idle) = self.blocks.find(job.shareable());
        // What those in progress have still to read is theirs.
        let promised: usize = self.running().map(Job::blocks_promised).sum();
        (all - shared + promised).saturating_sub(self.blocks.available() - idle)
    }

    /// Who is put back when an answer in progress needs a block: a paused one, or the youngest of the payer with most.
    fn who_gives_way(&self) -> Option<u64> {
        self.last_of(|_| true, |job| self.blocks_of(job.payer, &[]))
    }

    /// Of the answers in progress that `may` be put back: a paused one first, then of the payer with the largest
    /// `share`, and of his the youngest. Never the oldest of all: so one always comes to its end.
    fn last_of(&self, may: impl Fn(&&Job<'_>) -> bool, share: impl Fn(&Job<'_>) -> usize) -> Option<u64> {
        let oldest = self.running().filter(|job| !job.is_paused()).map(|job| job.id).min();
        let candidates = self.running().filter(|job| Some(job.id) != oldest).filter(may);
        let last = candidates.max_by_key(|job| (job.is_paused(), share(job), Reverse(job.payer), job.id));
        last.map(|job| job.id)
    }

    /// Takes an answer's blocks; it waits until there is room, and is computed again then.
    fn put_back(&mut self, id: u64, plan: &mut Plan) {
        let job = self.jobs.get_mut(&id).expect("it is in progress");
        let rows = plan.take_out(id);
        self.lanes.refund(job.payer, job.new_work(self.limits.cost, job.computed, rows));
        self.blocks.release(&mut job.table, true);
        job.writer.rest();
        job.computed = 0;
        self.lanes.put_back(job.payer, id);
        plan.put_back.insert(id);
        self.preemptions += 1;
    }

    fn running(&self) -> impl Iterator<Item = &Job<'_>> {
        self.lanes.all_running().map(|id| &self.jobs[&id])
    }

    /// Blocks that a payer's answers hold, but for some of them.
    fn blocks_of(&self, payer: Payer, but_for: &[u64]) -> usize {
        let answers = self.running().filter(|job| job.payer == payer && !but_for.contains(&job.id));
        answers.map(|job| job.table.pages().len()).sum()
    }
}
