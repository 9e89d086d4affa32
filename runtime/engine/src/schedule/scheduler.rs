//! The step: who came, who left, what is computed, what was written.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use super::{
    answer::Event,
    blocks::Blocks,
    cost::Cost,
    device::Device,
    fair::Lanes,
    job::Job,
    lobby::{EngineStatus, Lobby},
    plan::Plan,
    writer::{Given, Spoken, Writer},
};
use crate::{
    accelerator::AcceleratorError,
    cache::{Cache, Table},
    error::GenerateError,
    forward::{Forward, Place},
    machine::Machine,
};

/// What a scheduler keeps to.
#[derive(Clone, Copy)]
pub(crate) struct SchedulerLimits {
    /// Tokens of prompt and answer together.
    pub(crate) context: usize,
    /// Tokens of one step, and by what they cost what all of them may.
    pub(crate) step_tokens: usize,
    /// What a token costs.
    pub(crate) cost: Cost,
    /// Answers in progress.
    pub(crate) running: usize,
    /// Blocks of the cache: enough for one whole context at least.
    pub(crate) blocks: usize,
    /// How long an answer whose reader has no room waits for it.
    pub(crate) patience: Duration,
}

/// What a step came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// So many tokens were computed.
    Ran(usize),
    /// There is nothing to do before the bell rings, or until this time.
    Idle(Option<Duration>),
    /// The device failed, and everybody was told. There is nothing to do any more.
    Failed,
}

/// Sees the logits of each answer's steps: number of the answer, and the logits that its next token is chosen by.
pub(crate) type Observer<'o> = &'o mut dyn FnMut(u64, &[f32]);

pub(crate) struct Scheduler<'m> {
    pub(super) machine: &'m Machine,
    lobby: Arc<Lobby>,
    pub(super) limits: SchedulerLimits,
    pub(super) jobs: BTreeMap<u64, Job<'m>>,
    pub(super) lanes: Lanes,
    pub(super) blocks: Blocks,
    pub(super) preemptions: u64,
    work: Forward,
    /// What computes in the CPU's place, and has the pages.
    device: Option<Device>,
    steps: u64,
    /// What the last step cost.
    #[cfg(test)]
    pub(super) cost: u64,
}

impl<'m> Scheduler<'m> {
    pub(crate) fn new(machine: &'m Machine, lobby: Arc<Lobby>, limits: SchedulerLimits) -> Self {
        let cache = Cache::new(machine.model.shape.page(), limits.blocks);
        Self::with(machine, lobby, limits, cache, None)
    }

    /// One that computes on a device with as many clean pages as there are blocks.
    pub(crate) fn on_device(
        machine: &'m Machine,
        lobby: Arc<Lobby>,
        limits: SchedulerLimits,
        device: Device,
    ) -> Self {
        let cache = Cache::on_device(machine.model.shape.page(), limits.blocks);
        Self::with(machine, lobby, limits, cache, Some(device))
    }

    fn with(
        machine: &'m Machine,
        lobby: Arc<Lobby>,
        limits: SchedulerLimits,
        cache: Cache,
        device: Option<Device>,
    ) -> Self {
        Self {
            machine,
            lobby,
            limits,
            jobs: BTreeMap::new(),
            lanes: Lanes::default(),
            blocks: Blocks::new(cache),
            preemptions: 0,
            work: Forward::default(),
            device,
            steps: 0,
            #[cfg(test)]
            cost: 0,
        }
    }

    /// Makes one step. `now` is time since any fixed moment.
    pub(crate) fn step(&mut self, now: Duration, observer: Observer<'_>) -> Progress {
        for arrival in self.lobby.newcomers() {
            let job = Job::new(&self.machine.model, arrival, self.limits.context);
            self.lanes.enter(job.payer, job.id);
            self.jobs.insert(job.id, job);
        }
        self.look_after_readers(now);
        let plan = self.plan();
        let rows = plan.rows();
        #[cfg(test)]
        {
            self.cost = plan.cost();
        }
        let mut done = Ok(());
        if rows > 0 {
            self.steps += 1;
            done = self.run(&plan, observer);
        }
        // What ended is wiped now, not when somebody needs the room.
        if let Err(error) = done.and_then(|()| self.settle()) {
            return self.fail(error);
        }
        self.lobby.report(self.status());
        match rows {
            0 => Progress::Idle(self.next_end_of_patience()),
            rows => Progress::Ran(rows),
        }
    }

    /// Ends the answers whose readers are gone, pauses those whose readers have no room, and ends those that paused
    /// for too long.
    fn look_after_readers(&mut self, now: Duration) {
        let patience = self.limits.patience;
        let mut gone = Vec::new();
        for (id, job) in &mut self.jobs {
            if job.outlet.is_abandoned() {
                gone.push(*id);
            } else if job.outlet.has_room() {
                job.paused = None;
            } else if now.saturating_sub(*job.paused.get_or_insert(now)) >= patience {
                let outcome = Err(GenerateError::SlowReader { seconds: patience.as_secs() });
                job.outlet.push(Event::End { choice: job.writer.choice(), outcome });
                gone.push(*id);
            }
        }
        gone.into_iter().for_each(|id| self.remove(id));
    }

    /// When the first of the paused answers will have paused for too long.
    fn next_end_of_patience(&self) -> Option<Duration> {
        self.jobs.values().filter_map(|job| job.paused).min().map(|since| since + self.limits.patience)
    }

    /// Takes an answer out, and its blocks back.
    fn remove(&mut self, id: u64) {
        let Some(mut job) = self.jobs.remove(&id) else { return };
        self.lanes.leave(job.payer, id);
        let shared = job.is_shared();
        self.blocks.release(&mut job.table, shared);
        if !shared {
            self.blocks.purge(job.shareable());
        }
    }

    /// Computes what is planned, and writes on where all tokens of an answer are in the cache.
    fn run(&mut self, plan: &Plan, observer: Observer<'_>) -> Result<(), AcceleratorError> {
        self.settle()?;
        match &mut self.device {
            None => self.forward(plan),
            Some(device) => device.step(plan.picks().map(|(id, rows)| (&self.jobs[&id], rows)))?,
        }
        for (id, rows) in plan.picks() {
            let job = self.jobs.get_mut(&id).expect("what is planned is here");
            for (block, name) in job.advance(rows) {
                self.blocks.name(block, name);
            }
        }
        self.fork(plan);
        for (id, spoken) in self.write(plan, observer) {
            let job = self.jobs.get_mut(&id).expect("what has written is here");
            spoken.events.into_iter().for_each(|event| job.outlet.push(event));
            match spoken.token {
                Some(token) => job.tokens.push(token),
                None => self.remove(id),
            }
        }
        Ok(())
    }

    /// Tells a device which pages changed hands.
    fn settle(&mut self) -> Result<(), AcceleratorError> {
        match (&mut self.device, self.blocks.cache().untold()) {
            (Some(device), Some(untold)) => device.settle(untold),
            _ => Ok(()),
        }
    }

    /// Ends everything: a device that failed once is not asked for anything but to wipe what is there.
    fn fail(&mut self, error: AcceleratorError) -> Progress {
        // Nobody is let in, and whoever reads is told: wiping may take as long as a device that hangs is waited for.
        self.lobby.fail(error.clone());
        let all: Vec<u64> = self.jobs.keys().copied().collect();
        all.into_iter().for_each(|id| self.remove(id));
        self.lobby.report(self.status());
        if let Err(why) = self.device.as_mut().map_or(Ok(()), Device::retire) {
            self.lobby.fail(AcceleratorError::new(format!(
                "{error}; and what conversations left there could not be wiped ({why}): reset the device"
            )));
        }
        Progress::Failed
    }

    fn forward(&mut self, plan: &Plan) {
        let mut tables: Vec<&Table> = Vec::new();
        let mut places = Vec::with_capacity(plan.rows());
        for (id, rows) in plan.picks() {
            let job = &self.jobs[&id];
            let (first, end) = (job.computed, job.computed + rows);
            places.extend((first..end).map(|position| Place {
                token: job.tokens[position],
                position,
                table: tables.len(),
                logits: position + 1 == job.tokens.len(),
            }));
            tables.push(&job.table);
        }
        let (work, blocks) = (&mut self.work, &mut self.blocks);
        self.machine.in_turn(|model, pool| work.run(model, pool, blocks.cache(), &tables, &places));
    }

    /// Where a prompt with several choices was read, the others begin.
    fn fork(&mut self, plan: &Plan) {
        for (id, _) in plan.picks() {
            let job = self.jobs.get_mut(&id).expect("what is planned is here");
            if !job.is_ready() {
                continue;
            }
            for fork in job.fork(&self.machine.model) {
                self.lanes.enter(fork.payer, fork.id);
                self.jobs.insert(fork.id, fork);
            }
        }
    }

    /// Chooses the next tokens, on all threads.
    fn write(&mut self, plan: &Plan, observer: Observer<'_>) -> Vec<(u64, Spoken)> {
        struct Turn<'t, 'm> {
            id: u64,
            writer: &'t mut Writer<'m>,
            given: Given<'t>,
            room: usize,
            spoken: Option<Spoken>,
        }
        let context = self.limits.context;
        let ready = self.jobs.values_mut().filter(|job| job.is_ready() && plan.has(job.id));
        let mut turns: Vec<Turn<'_, 'm>> = ready
            .enumerate()
            .map(|(nth, job)| Turn {
                id: job.id,
                writer: &mut job.writer,
                given: match &self.device {
                    None => Given::Logits(self.work.logits(nth)),
                    Some(device) => device.given(nth),
                },
                room: context - job.tokens.len(),
                spoken: None,
            })
            .collect();
        for turn in &turns {
            if let Given::Logits(logits) = turn.given {
                observer(turn.id, logits);
            }
        }
        self.machine.pool.each_chunk(&mut turns, 1, |_, turn| {
            let turn = &mut turn[0];
            turn.spoken = Some(turn.writer.next(turn.given, turn.room));
        });
        let spoken = turns.into_iter().map(|turn| (turn.id, turn.spoken.expect("each has had its turn")));
        spoken.collect()
    }

    /// What there is at the moment.
    pub(crate) fn status(&self) -> EngineStatus {
        let running = self.lanes.all_running().count();
        EngineStatus {
            running,
            waiting: self.jobs.len() - running,
            payers: self.lanes.len(),
            held_blocks: self.blocks.held(),
            cached_blocks: self.blocks.idle(),
            limit_blocks: self.limits.blocks,
            steps: self.steps,
            preemptions: self.preemptions,
        }
    }
}

impl Drop for Scheduler<'_> {
    /// The readers of what is not finished are told.
    fn drop(&mut self) {
        for job in self.jobs.values() {
            let outcome = Err(GenerateError::Stopped);
            job.outlet.push(Event::End { choice: job.writer.choice(), outcome });
        }
    }
}
