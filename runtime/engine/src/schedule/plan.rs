//! Which tokens of whom a step computes, and who is put back when places or blocks run out.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use super::{fair::Lane, job::Job, scheduler::Scheduler};
use crate::{kernels::PAGE, request::Payer};

/// How many of its next tokens each answer gets computed.
pub(super) struct Plan {
    /// Tokens that may still be planned.
    budget: usize,
    picks: BTreeMap<u64, usize>,
    /// Answers that were put back while this was planned: they wait for another step, so that planning ends.
    put_back: BTreeSet<u64>,
}

impl Plan {
    fn new(budget: usize) -> Self {
        Self { budget, picks: BTreeMap::new(), put_back: BTreeSet::new() }
    }

    /// Tokens in all.
    pub(super) fn rows(&self) -> usize {
        self.picks.values().sum()
    }

    /// Numbers of answers with how many of their tokens are computed, in the order of their numbers.
    pub(super) fn picks(&self) -> impl Iterator<Item = (u64, usize)> {
        self.picks.iter().map(|(id, rows)| (*id, *rows))
    }

    /// Whether something of this answer is computed.
    pub(super) fn has(&self, id: u64) -> bool {
        self.picks.contains_key(&id)
    }

    fn of(&self, id: u64) -> usize {
        self.picks.get(&id).copied().unwrap_or(0)
    }
}

/// Which kind of work is planned.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// One token each for the answers that write.
    Writing,
    /// Pieces of prompts, and beginning with those that wait.
    Reading,
}

impl Scheduler<'_> {
    /// Answers that write come first, then prompts; among them the payer who got least so far, and of a payer the
    /// oldest answer.
    pub(super) fn plan(&mut self) -> Plan {
        let mut plan = Plan::new(self.limits.step_tokens);
        for phase in [Phase::Writing, Phase::Reading] {
            // Payers whose next answer finds no place in this step.
            let mut turned_away = BTreeSet::new();
            while plan.budget > 0 {
                let wanted =
                    |payer, lane: &Lane| self.next_of(lane, phase, &plan, turned_away.contains(&payer));
                let Some((payer, id)) = self.lanes.least(wanted) else { break };
                if !self.lanes.is_running(payer, id) && !self.admit(id, &mut plan) {
                    turned_away.insert(payer);
                    continue;
                }
                self.grant(id, &mut plan);
            }
        }
        plan
    }

    /// What a payer's next work is in this phase.
    fn next_of(&self, lane: &Lane, phase: Phase, plan: &Plan, turned_away: bool) -> Option<u64> {
        let wants = |id: &&u64| {
            let job = &self.jobs[*id];
            let todo = job.todo() - plan.of(job.id);
            !job.is_paused()
                && match phase {
                    Phase::Writing => todo == 1 && plan.of(job.id) == 0,
                    Phase::Reading => todo > 0,
                }
        };
        let running = lane.running.iter().find(wants);
        let may_begin = |id: &&u64| !self.jobs[*id].is_paused() && !plan.put_back.contains(*id);
        let waiting = || lane.waiting.iter().find(may_begin);
        match phase {
            Phase::Writing => running.copied(),
            Phase::Reading if turned_away => running.copied(),
            Phase::Reading => running.or_else(waiting).copied(),
        }
    }

    /// Plans the next tokens of an answer in progress, up to the end of a block, with a block to write them to.
    fn grant(&mut self, id: u64, plan: &mut Plan) {
        let job = &self.jobs[&id];
        let planned = plan.of(id);
        let first = job.computed + planned;
        let rows = (job.todo() - planned).min(plan.budget).min(PAGE - first % PAGE);
        let (payer, charge) = (job.payer, job.new_work(planned, rows));
        if job.table.room() < first + rows && !self.find_block(id, plan) {
            return; // it was put back itself
        }
        *plan.picks.entry(id).or_default() += rows;
        plan.budget -= rows;
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
        if let Some(rows) = plan.picks.remove(&id) {
            plan.budget += rows;
            self.lanes.refund(job.payer, job.new_work(0, rows));
        }
        self.blocks.release(&mut job.table, true);
        job.computed = 0;
        self.lanes.put_back(job.payer, id);
        plan.put_back.insert(id);
        self.preemptions += 1;
    }

    fn running(&self) -> impl Iterator<Item = &Job<'_>> {
        self.lanes.iter().flat_map(|(_, lane)| &lane.running).map(|id| &self.jobs[id])
    }

    /// Blocks that a payer's answers hold, but for some of them.
    fn blocks_of(&self, payer: Payer, but_for: &[u64]) -> usize {
        let answers = self.running().filter(|job| job.payer == payer && !but_for.contains(&job.id));
        answers.map(|job| job.table.pages().len()).sum()
    }
}
