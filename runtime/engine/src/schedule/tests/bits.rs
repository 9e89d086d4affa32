//! The same bits alone or in a batch, whatever came in between.

use super::*;
use crate::{
    request::Payer,
    schedule::{Salt, answer::ANSWER_EVENTS},
    tokenizer::TextStream,
};

/// SplitMix64.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ z >> 31) % bound as u64) as usize
    }

    fn one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }
}

struct Client {
    id: u64,
    prompt: Vec<u32>,
    params: Params,
    choices: u32,
    answer: Option<Answer>,
    reading: Reading,
    /// Reads once in so many steps.
    pace: usize,
    /// Leaves at this step.
    leaves: Option<usize>,
    /// Never reads.
    deaf: bool,
}

/// What happened in a run, so that a test can say that it tried something.
#[derive(Default, Debug, PartialEq, Eq, Clone, Copy)]
pub(super) struct Tally {
    pub(super) whole: usize,
    cancelled: usize,
    deaf: usize,
    cached: usize,
    pub(super) preemptions: u64,
    steps: u64,
}

const TEXTS: [&str; 3] = [
    "The iterator returns the next item of the list, and raises an exception when there are no more items in it. ",
    "A class can define methods, and objects of the class can be used in a with statement as context managers. ",
    "def function(argument): return value ",
];

fn request(dice: &mut Dice) -> (Client, Request) {
    let mut prompt = prompt(&TEXTS[dice.below(3)].repeat(1 + dice.below(3)));
    prompt.truncate(1 + dice.below(prompt.len()));
    if dice.one_in(3) {
        prompt.push(dice.below(1000) as u32);
    }
    let mut params = sampled(dice.below(1000) as u64, dice.below(60));
    match dice.below(4) {
        0 => params.sampling = Sampling::greedy(),
        1 => params.sampling = Sampling { presence_penalty: 0.7, top_k: 20, ..params.sampling },
        2 => params.ignore_eos = true,
        _ => params.logit_bias = vec![(dice.below(1000) as u32, 3.0)],
    }
    let choices = if dice.one_in(5) { 2 + dice.below(3) as u32 } else { 1 };
    let mut request = Request::new(prompt.clone(), params.clone()).with_choices(choices);
    request = request.with_payer(Payer([dice.below(3) as u8; 32]));
    if !dice.one_in(3) {
        request = request.with_salt(Salt::new(&[dice.below(2) as u8]));
    }
    let deaf = dice.one_in(12);
    let leaves = dice.one_in(5).then(|| dice.below(60));
    let pace = 1 + dice.below(4) * dice.below(12);
    let reading = Reading::default();
    (Client { id: 0, prompt, params, choices, answer: None, reading, pace, leaves, deaf }, request)
}

/// A random history. Every answer that was not cancelled is what it would be alone, to the last bit of each logit.
pub(super) fn history(seed: u64) -> Tally {
    history_on(machine(), seed)
}

fn history_on(machine: &Machine, seed: u64) -> Tally {
    history_in(seed, |limits| World::on(machine, limits, waiting()))
}

/// The same in a world of any kind.
pub(super) fn history_in<'m>(seed: u64, world: impl FnOnce(SchedulerLimits) -> World<'m>) -> Tally {
    let mut dice = Dice(seed);
    let limits = SchedulerLimits {
        context: 200,
        step_tokens: 24 + dice.below(60),
        cost: Cost::steep(dice.below(3) as u64 * 700),
        running: 1 + dice.below(8),
        blocks: 13 + dice.below(30),
        patience: Duration::from_millis(400),
    };
    let mut world = world(limits);
    let mut clients: Vec<Client> = Vec::new();
    for step in 0.. {
        if step < 150 && dice.one_in(6) {
            let (mut client, request) = request(&mut dice);
            let (id, answer) = world.submit(request).expect("limits are wide");
            (client.id, client.answer) = (id, Some(answer));
            client.leaves = client.leaves.map(|after| after + step);
            clients.push(client);
        }
        let progress = world.step();
        for client in &mut clients {
            if client.leaves == Some(step) {
                client.answer = None;
            }
            let reads = !client.deaf && step % client.pace == 0;
            if let Some(answer) = client.answer.as_mut().filter(|_| reads) {
                client.reading.take(answer);
            }
        }
        // Whoever paces slowly is read on, whoever is deaf is given up on.
        if step >= 150 && progress == Progress::Idle(None) {
            break;
        }
        assert!(step < 20_000, "it does not end");
    }
    let mut tally = Tally { preemptions: world.scheduler.preemptions, ..Tally::default() };
    for client in &mut clients {
        judge(client, &world, &mut tally);
    }
    clients.clear();
    world.run_dry();
    world.assert_empty();
    tally.steps = world.lobby.status().steps;
    tally
}

fn judge(client: &mut Client, world: &World<'_>, tally: &mut Tally) {
    let Client { id, prompt, params, choices, answer, reading, deaf, .. } = client;
    if let Some(answer) = answer {
        reading.take(answer);
    }
    tally.cached += reading.started.iter().sum::<usize>();
    assert!(reading.started.len() <= 1 && reading.read.is_sorted_by(|a, b| a < b));
    for choice in 0..*choices {
        let (tokens, finish, bits) = alone(prompt, params, choice, world.limits.context);
        let read = reading.choices.get(&choice).cloned().unwrap_or_default();
        assert!(tokens.starts_with(&read.tokens), "tokens of {id}, choice {choice}");
        match read.outcome {
            Some(Ok(found)) => {
                assert_eq!((&read.tokens, found), (&tokens, finish), "answer {id}, choice {choice}");
                if !world.on_device {
                    let seen = world.seen[&(*id + u64::from(choice))];
                    assert_eq!(seen, bits, "logits of {id}, choice {choice}");
                }
                assert_eq!(read.text, text_of(&tokens));
                tally.whole += 1;
            }
            Some(Err(error)) => {
                assert_eq!(error, GenerateError::SlowReader { seconds: 0 });
                assert!(
                    *deaf && read.tokens.len() + 4 * *choices as usize >= ANSWER_EVENTS / *choices as usize
                );
                tally.deaf += 1;
            }
            None => {
                assert!(answer.is_none() || *deaf, "answer {id} has no end");
                tally.cancelled += 1;
            }
        }
    }
}

fn text_of(tokens: &[u32]) -> String {
    let mut stream = TextStream::new(machine().model.tokenizer());
    let mut text = String::new();
    tokens.iter().for_each(|token| stream.push(*token, &mut text));
    stream.finish(&mut text);
    text
}

#[test]
fn every_answer_has_the_bits_that_it_has_alone() {
    let rounds = std::env::var("COCOON_FUZZ_ITERATIONS").ok().and_then(|text| text.parse().ok());
    let mut all = Tally::default();
    for seed in 0..rounds.unwrap_or(24u64).min(2_000) {
        let tally = history(seed);
        all.whole += tally.whole;
        all.cancelled += tally.cancelled;
        all.deaf += tally.deaf;
        all.cached += tally.cached;
        all.preemptions += tally.preemptions;
        all.steps += tally.steps;
    }
    println!("{all:?}");
    assert!(all.whole > 200 && all.cancelled > 30 && all.deaf > 3, "{all:?}");
    assert!(all.cached > 1_000 && all.preemptions > 100, "it was tried under pressure: {all:?}");
}

/// What runs alone runs on the best set that the machine has.
#[test]
fn a_batch_has_the_same_bits_on_every_instruction_set_and_any_number_of_threads() {
    let tally = history(5);
    for set in InstructionSet::ALL.into_iter().filter(|set| set.is_supported()) {
        for threads in [1, 3] {
            assert_eq!(
                history_on(&Machine::new(model(), Pool::new(threads, set)), 5),
                tally,
                "{}",
                set.name()
            );
        }
    }
}

#[test]
fn a_history_is_the_same_every_time() {
    assert_eq!(history(77), history(77));
}

#[test]
fn the_pieces_of_a_prompt_change_no_bit() {
    let text = prompt(&TEXTS[0].repeat(4));
    let (tokens, _, bits) = alone(&text, &sampled(3, 30), 0, 512);
    for step_tokens in [1, 2, 7, 16, 33, 64, 500] {
        let mut world = World::new(SchedulerLimits { step_tokens, ..limits() });
        let (id, mut answer) = world.submit(Request::new(text.clone(), sampled(3, 30))).expect("taken");
        let mut reading = Reading::default();
        while world.step() != Progress::Idle(None) {
            reading.take(&mut answer);
        }
        reading.take(&mut answer);
        assert_eq!(
            (&reading.choices[&0].tokens, world.seen[&id]),
            (&tokens, bits),
            "{step_tokens} tokens a step"
        );
        let pieces = text.len().div_ceil(step_tokens);
        assert!(reading.read.len() >= pieces.min(20) && reading.read.last() == Some(&text.len()));
    }
}

#[test]
fn choices_differ_among_each_other_and_are_those_of_a_sequence() {
    let mut world = World::new(limits());
    let text = prompt(TEXTS[1]);
    let (id, mut answer) =
        world.submit(Request::new(text.clone(), sampled(5, 20)).with_choices(4)).expect("taken");
    let mut reading = Reading::default();
    while world.step() != Progress::Idle(None) {
        reading.take(&mut answer);
    }
    reading.take(&mut answer);
    assert!(answer.try_next().is_none() && reading.choices.len() == 4);
    for (choice, read) in &reading.choices {
        let (tokens, finish, bits) = alone(&text, &sampled(5, 20), *choice, 512);
        assert_eq!((&read.tokens, read.outcome.clone()), (&tokens, Some(Ok(finish))));
        assert_eq!(world.seen[&(id + u64::from(*choice))], bits);
    }
    let different: std::collections::BTreeSet<_> =
        reading.choices.values().map(|read| &read.tokens).collect();
    assert_eq!(different.len(), 4);
    world.assert_empty();
    assert_eq!(world.scheduler.status().cached_blocks, 0, "without a salt nothing is kept");
}
