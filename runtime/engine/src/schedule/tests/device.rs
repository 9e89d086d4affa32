//! The scheduler over a device: a twin of the CPU that holds it to its books of pages, and that can be made to fail.

use std::sync::Mutex;

use super::{
    bits::{history, history_in},
    *,
};
use crate::{
    accelerator::{Accelerator, AcceleratorError, Needs, Pick, StepAnswer, StepWork},
    cache::{Cache, Table},
    forward::{Forward, Place},
    schedule::{Device, Salt},
};

/// What a twin does wrong, and at which of its calls.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// The step of this number fails.
    Step(u64),
    /// It panics there.
    Panic(u64),
    /// It does not come back from there before the test ends.
    Hang(u64),
    /// It answers with a token less.
    Short(u64),
    /// It gives tokens that there are not.
    Strange(u64),
    /// It says that logits are no numbers.
    NoNumber(u64),
    /// It wipes nothing.
    Dirty,
    /// It can do nothing at all from that step on, not even wipe.
    Dead(u64),
}

#[derive(Default)]
struct Tally {
    steps: u64,
    by_token: usize,
    by_logits: usize,
    scrubbed: usize,
    proven: usize,
    retired: bool,
}

/// A device that computes on the CPU.
struct Twin {
    machine: Machine,
    needs: Needs,
    cache: Cache,
    work: Forward,
    /// Pages that were proven clean since they were wiped: they alone may be computed on.
    proven: Vec<bool>,
    fault: Fault,
    tally: Arc<Mutex<Tally>>,
}

fn error(what: &str) -> AcceleratorError {
    AcceleratorError::new(what)
}

impl Twin {
    fn new(needs: Needs, fault: Fault, tally: Arc<Mutex<Tally>>) -> Self {
        let machine = Machine::new(model(), Pool::new(1, InstructionSet::detect()));
        let mut cache = Cache::new(machine.model.shape.page(), needs.pages);
        while cache.take().is_some() {}
        Self {
            machine,
            cache,
            work: Forward::default(),
            proven: vec![false; needs.pages],
            needs,
            fault,
            tally,
        }
    }

    fn wrong(&self) -> Result<(), AcceleratorError> {
        let step = self.tally.lock().expect("nobody panics here").steps;
        match self.fault {
            Fault::Step(at) if at == step => Err(error("the device fell off the bus")),
            Fault::Dead(from) if from <= step => Err(error("the device fell off the bus")),
            Fault::Panic(at) if at == step => panic!("as planned"),
            Fault::Hang(at) if at == step => {
                std::thread::sleep(Duration::from_secs(5));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

impl Accelerator for Twin {
    fn kernels(&self) -> [u8; 32] {
        [7; 32]
    }

    fn step(&mut self, work: &StepWork, answer: &mut StepAnswer) -> Result<(), AcceleratorError> {
        self.tally.lock().expect("nobody panics here").steps += 1;
        self.wrong()?;
        assert!(work.rows.len() <= self.needs.rows && work.tables.len() <= work.rows.len());
        assert!(work.picks.is_sorted_by_key(|pick| matches!(pick, Pick::Token(_))), "logits come first");
        assert!(answer.tokens.is_empty() && answer.logits.is_empty());
        let first = work.rows.len() - work.picks.len();
        let places: Vec<Place> = work
            .rows
            .iter()
            .enumerate()
            .map(|(index, row)| Place {
                token: row.token,
                position: row.position as usize,
                table: row.table as usize,
                logits: index >= first,
            })
            .collect();
        let tables: Vec<Table> = work
            .tables
            .iter()
            .map(|pages| {
                let mut table = Table::default();
                for page in pages {
                    assert!(self.proven[*page as usize], "page {page} was not proven clean for its tenant");
                    table.push(*page);
                }
                table
            })
            .collect();
        let tables: Vec<&Table> = tables.iter().collect();
        self.work.run(&self.machine.model, &self.machine.pool, &mut self.cache, &tables, &places);
        let mut tally = self.tally.lock().expect("nobody panics here");
        for (nth, pick) in work.picks.iter().enumerate() {
            match pick {
                Pick::Logits => answer.logits.extend_from_slice(self.work.logits(nth)),
                Pick::Token(choice) => {
                    let token = Sampler::at(choice).choose(self.work.logits(nth)).ok();
                    answer.tokens.push(token);
                }
            }
        }
        tally.by_token += answer.tokens.len();
        tally.by_logits += work.picks.len() - answer.tokens.len();
        match self.fault {
            Fault::Short(at) if at == tally.steps => drop(answer.tokens.pop()),
            Fault::Strange(at) if at == tally.steps => answer.tokens.fill(Some(u32::MAX)),
            Fault::NoNumber(at) if at == tally.steps => answer.tokens.fill(None),
            _ => {}
        }
        Ok(())
    }

    fn scrub(&mut self, pages: &[u32]) -> Result<(), AcceleratorError> {
        self.wrong()?;
        for page in pages {
            self.proven[*page as usize] = false;
            if self.fault != Fault::Dirty {
                self.cache.give_back(*page); // which wipes it
                assert_eq!(self.cache.take(), Some(*page));
            }
        }
        self.tally.lock().expect("nobody panics here").scrubbed += pages.len();
        // That it is clean is said when it is handed out.
        Ok(())
    }

    fn prove_clean(&mut self, pages: &[u32]) -> Result<(), AcceleratorError> {
        for page in pages {
            if !self.cache.is_blank(*page) {
                return Err(error("a page is not clean"));
            }
            self.proven[*page as usize] = true;
        }
        self.tally.lock().expect("nobody panics here").proven += pages.len();
        Ok(())
    }

    fn retire(&mut self) -> Result<(), AcceleratorError> {
        if matches!(self.fault, Fault::Dead(_)) {
            self.wrong()?;
        }
        self.tally.lock().expect("nobody panics here").retired = true;
        Ok(())
    }
}

/// A world whose steps run on a twin.
fn world(limits: SchedulerLimits, fault: Fault) -> (World<'static>, Arc<Mutex<Tally>>) {
    let tally = Arc::<Mutex<Tally>>::default();
    let needs = Needs { context: limits.context, rows: limits.step_tokens, pages: limits.blocks };
    let of_twin = Arc::clone(&tally);
    let open = move |_: &Model, needs| Ok(Box::new(Twin::new(needs, fault, of_twin)) as Box<dyn Accelerator>);
    let patience = if matches!(fault, Fault::Hang(_)) { 200 } else { 60_000 };
    let device = Device::open(model(), needs, Duration::from_millis(patience), open).expect("it opens");
    let lobby = Lobby::new(waiting());
    let scheduler = Scheduler::on_device(machine(), Arc::clone(&lobby), limits, device);
    (World::of(scheduler, lobby, limits, true), tally)
}

#[test]
fn every_answer_of_a_device_has_the_tokens_that_the_cpu_gives_it_alone() {
    let (mut whole, mut preemptions, mut by_token, mut by_logits) = (0, 0, 0, 0);
    for seed in 0..12 {
        let kept = std::cell::OnceCell::new();
        let on_device = history_in(seed, |limits| {
            let (world, tally) = world(limits, Fault::None);
            kept.set(tally).unwrap_or_else(|_| panic!("one world"));
            world
        });
        assert_eq!(on_device, history(seed), "the same history, step by step");
        whole += on_device.whole;
        preemptions += on_device.preemptions;
        let tally = kept.get().expect("it was made").lock().expect("nobody panics here");
        assert!(tally.retired, "what ends is wiped");
        assert!(tally.scrubbed > 0 && tally.proven >= tally.scrubbed / 2);
        by_token += tally.by_token;
        by_logits += tally.by_logits;
    }
    println!("{whole} answers, {preemptions} preemptions, {by_token} tokens by device, {by_logits} by host");
    assert!(whole > 100 && preemptions > 50 && by_token > 1000 && by_logits > 1000);
}

#[test]
fn the_pages_of_an_answer_that_ended_are_wiped_without_waiting_for_the_next() {
    let (mut world, tally) = world(limits(), Fault::None);
    let text =
        prompt("A class can define methods, and objects of the class can be used in a with statement.");
    let (_, mut answer) = world.submit(Request::new(text.clone(), sampled(1, 20))).expect("taken");
    world.run_dry();
    assert!(answer.by_ref().count() > 3);
    let pages = |tally: &Mutex<Tally>| tally.lock().expect("nobody panics here").scrubbed;
    assert_eq!(
        pages(&tally),
        world.scheduler.blocks.cache().limit() - world.scheduler.blocks.cache().unmade()
    );
    // What a salt keeps is not wiped before it is forgotten.
    let before = pages(&tally);
    let request = Request::new(text, sampled(1, 20)).with_salt(Salt::new(b"mine"));
    let (_, answer) = world.submit(request).expect("taken");
    world.run_dry();
    drop(answer);
    assert!(world.scheduler.status().cached_blocks > 0);
    assert!(pages(&tally) - before <= 2, "the last block, which is not full");
}

#[test]
fn a_device_that_fails_ends_every_answer_and_takes_no_more() {
    let faults = [
        (Fault::Step(5), "fell off the bus", true),
        (Fault::Panic(5), "panicked", false),
        (Fault::Hang(5), "did not answer", false),
        (Fault::Short(5), "were asked for", true),
        (Fault::Strange(5), "not in the vocabulary", true),
        (Fault::Dirty, "not clean", true),
        (Fault::Dead(5), "could not be wiped", false),
    ];
    for (fault, words, retired) in faults {
        // Few blocks, so that they change hands.
        let (mut world, tally) = world(SchedulerLimits { blocks: 34, running: 4, ..limits() }, fault);
        let text = prompt("The iterator returns the next item of the list, and raises an exception.");
        let mut answers: Vec<Answer> = (0..9)
            .map(|seed| {
                let params = Params { ignore_eos: true, ..sampled(seed, 100) };
                let request = Request::new(text.clone(), params).with_choices(1 + seed as u32 % 3);
                world.submit(request).expect("taken").1
            })
            .collect();
        let failed = (0..3000).any(|_| world.step() == Progress::Failed);
        assert!(failed, "{words}");
        let mut ended = 0;
        for answer in &mut answers {
            for event in answer {
                if let Event::End { outcome, .. } = event {
                    ended += usize::from(outcome == Err(GenerateError::Device));
                }
            }
        }
        assert!(ended >= 3, "{words}: {ended} answers were told");
        let failure = world.lobby.failure().expect("it says how").to_string();
        assert!(failure.contains(words), "{failure}");
        assert_eq!(failure.contains("reset"), !retired, "{failure}");
        assert_eq!(tally.lock().is_ok_and(|tally| tally.retired), retired, "{words}");
        let refused = world.submit(Request::new(text, sampled(1, 5))).map(drop);
        assert_eq!(refused, Err(SubmitError::Device));
        world.assert_empty();
    }
}

#[test]
fn logits_of_a_device_that_are_no_numbers_end_their_answer_alone() {
    let (mut world, _) = world(limits(), Fault::NoNumber(3));
    let text = prompt("def function(argument)");
    let by_token = Params { ignore_eos: true, ..sampled(1, 9) };
    let by_logits = Params { logprobs: Some(1), ..by_token.clone() };
    let (_, damaged) = world.submit(Request::new(text.clone(), by_token)).expect("taken");
    let (_, spared) = world.submit(Request::new(text, by_logits)).expect("taken");
    world.run_dry();
    let end = |answer: Answer| match answer.last() {
        Some(Event::End { outcome, .. }) => outcome,
        _ => panic!("it has an end"),
    };
    assert_eq!(end(damaged), Err(GenerateError::NotANumber));
    assert_eq!(end(spared), Ok(Finish::Length));
}

#[test]
fn a_device_that_does_not_open_is_said_by_its_own_words() {
    let needs = Needs { context: 16, rows: 32, pages: 1 };
    let refused = |_: &Model, _: Needs| Err(error("the canary is dead"));
    let opened = Device::open(model(), needs, Duration::from_secs(1), refused).map(drop);
    assert_eq!(opened, Err(error("the canary is dead")));
    let panics =
        |_: &Model, _: Needs| -> Result<Box<dyn Accelerator>, AcceleratorError> { panic!("as planned") };
    let opened = Device::open(model(), needs, Duration::from_secs(1), panics).map(drop);
    assert!(opened.is_err_and(|error| error.to_string().contains("panicked")));
}

#[test]
fn a_choice_that_a_device_makes_is_the_samplers_own() {
    let logits: Vec<f32> = (0..300).map(|i| ((i * 7919 % 301) as f32).sin() * 4.0).collect();
    for sampling in [
        Sampling { seed: 3, ..Sampling::default() },
        Sampling { top_p: 1.0, repetition_penalty: 1.0, ..Sampling::default() },
        Sampling::greedy(),
    ] {
        for choice in 0..3 {
            let mut sampler = Sampler::new(sampling, &[5, 6]).expect("in range").for_choice(choice);
            sampler.observe(&[5, 9, 9, 11]);
            for _ in 0..40 {
                let told = sampler.next_choice().expect("plain");
                assert!(sampling.repetition_penalty == 1.0 || !told.recent.contains(&5), "it is spared");
                let token = Sampler::at(&told).choose(&logits).expect("numbers");
                assert_eq!(sampler.choose(&logits).expect("numbers"), token);
            }
        }
    }
    let further = |sampling| Sampler::new(sampling, &[]).expect("in range").next_choice().is_none();
    assert!(further(Sampling { top_k: 1, ..Sampling::default() }));
    assert!(further(Sampling { min_p: 0.1, ..Sampling::default() }));
    assert!(further(Sampling { presence_penalty: 0.1, ..Sampling::default() }));
    assert!(further(Sampling { frequency_penalty: 0.1, ..Sampling::default() }));
    let biased = Sampler::new(Sampling::default(), &[]).expect("in range").with_bias(&[(1, 1.0)]);
    assert!(biased.next_choice().is_none());
}
