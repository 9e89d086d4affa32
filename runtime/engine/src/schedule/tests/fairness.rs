//! Payers share the budget: in virtual steps, so that the machine does not matter.

use super::*;
use crate::request::Payer;

const MANY: Payer = Payer([1; 32]);
const ONE: Payer = Payer([2; 32]);

fn request(payer: Payer, prompt_tokens: usize, max_tokens: usize) -> Request {
    let prompt = (0..prompt_tokens as u32).map(|n| 300 + n * 7 % 600).collect();
    let params = Params { ignore_eos: true, ..sampled(prompt_tokens as u64, max_tokens) };
    Request::new(prompt, params).with_payer(payer)
}

/// Steps from now until an answer has its first token, and until it ends. All answers are read on.
fn steps_of(world: &mut World<'_>, mut watched: Answer, others: &mut [Answer]) -> (usize, usize) {
    let (mut reading, mut first) = (Reading::default(), None);
    for step in 1..50_000 {
        world.step();
        others.iter_mut().for_each(|answer| Reading::default().take(answer));
        reading.take(&mut watched);
        if let Some(read) = reading.choices.get(&0) {
            first.get_or_insert(step);
            if read.outcome.is_some() {
                return (first.expect("just set"), step);
            }
        }
    }
    panic!("it never ends");
}

fn submit(world: &mut World<'_>, count: usize, request: impl Fn() -> Request) -> Vec<Answer> {
    (0..count).map(|_| world.submit(request()).expect("taken").1).collect()
}

#[test]
fn a_hundred_requests_of_one_payer_do_not_starve_the_one_of_another() {
    let limits = SchedulerLimits { blocks: 80, ..limits() };
    let mut world = World::new(limits);
    let (_, watched) = world.submit(request(ONE, 100, 40)).expect("taken");
    let (first_alone, all_alone) = steps_of(&mut world, watched, &mut []);

    let mut world = World::new(limits);
    let mut crowd = submit(&mut world, 100, || request(MANY, 100, 40));
    for _ in 0..20 {
        world.step();
        crowd.iter_mut().for_each(|answer| Reading::default().take(answer));
    }
    assert_eq!(world.scheduler.status().running, limits.running, "every place is taken");
    let (_, watched) = world.submit(request(ONE, 100, 40)).expect("taken");
    let (first, all) = steps_of(&mut world, watched, &mut crowd);
    println!("alone {first_alone} and {all_alone} steps, in the crowd {first} and {all}");
    assert!(first <= 2 * first_alone + 2, "the first token after {first} steps, {first_alone} alone");
    assert!(all <= 2 * all_alone, "all after {all} steps, {all_alone} alone");
    assert!(world.scheduler.status().waiting > 80, "the crowd still waits");
}

#[test]
fn a_payer_alone_has_the_whole_machine() {
    let mut world = World::new(limits());
    let _crowd = submit(&mut world, 20, || request(MANY, 100, 40));
    world.step();
    world.step();
    assert!(matches!(world.step(), Progress::Ran(64)), "a step is full");
}

#[test]
fn prompts_of_two_payers_are_read_at_the_same_pace() {
    let mut world = World::new(SchedulerLimits { step_tokens: 32, ..limits() });
    let _crowd = submit(&mut world, 5, || request(MANY, 480, 1));
    world.step();
    let (_, _watched) = world.submit(request(ONE, 480, 1)).expect("taken");
    for _ in 0..20 {
        world.step();
    }
    let read = |payer| {
        let jobs = world.scheduler.jobs.values().filter(move |job| job.payer == payer);
        jobs.map(|job| job.computed).sum::<usize>()
    };
    let (many, one) = (read(MANY), read(ONE));
    assert!(one.abs_diff(many) <= 64, "{one} and {many} tokens");
}

#[test]
fn what_is_computed_again_is_not_charged_again() {
    // The cache holds one of two long answers, so the younger is put back again and again.
    let mut world = World::new(SchedulerLimits { context: 320, blocks: 21, ..limits() });
    let mut answers = submit(&mut world, 2, || request(MANY, 100, 150));
    let mut readings = [Reading::default(), Reading::default()];
    while world.step() != Progress::Idle(None) {
        answers.iter_mut().zip(&mut readings).for_each(|(answer, reading)| reading.take(answer));
    }
    assert!(world.scheduler.preemptions > 0);
    answers.iter_mut().zip(&mut readings).for_each(|(answer, reading)| reading.take(answer));
    let (tokens, _, _) = alone(&request(MANY, 100, 150).prompt, &request(MANY, 100, 150).params, 0, 320);
    assert!(readings.iter().all(|reading| reading.choices[&0].tokens == tokens));
}

#[test]
fn a_prompt_gets_its_piece_of_every_step_however_many_write() {
    let limits = SchedulerLimits { running: 30, step_tokens: 46, ..limits() };
    let mut world = World::new(limits);
    let mut crowd = submit(&mut world, 29, || request(MANY, 17, 400));
    for _ in 0..30 {
        world.step();
        crowd.iter_mut().for_each(|answer| Reading::default().take(answer));
    }
    let (_, watched) = world.submit(request(MANY, 161, 5)).expect("taken");
    let (first, _) = steps_of(&mut world, watched, &mut crowd);
    assert!(first <= 161usize.div_ceil(46 - 29) + 1, "{first} steps");
}

/// Both places are taken, and a claim to one of them is there; but what would be freed is not room enough.
#[test]
fn nobody_is_put_back_in_vain() {
    let mut world = World::new(SchedulerLimits { running: 2, blocks: 32, ..limits() });
    let mut crowd = submit(&mut world, 2, || request(MANY, 200, 38));
    while world.scheduler.status().held_blocks < 26 {
        world.step();
    }
    let (_, mut watched) = world.submit(request(ONE, 400, 5)).expect("taken");
    let mut readings = [Reading::default(), Reading::default()];
    while readings.iter().any(|reading| reading.choices.get(&0).is_none_or(|read| read.outcome.is_none())) {
        world.step();
        crowd.iter_mut().zip(&mut readings).for_each(|(answer, reading)| reading.take(answer));
        assert_eq!(world.scheduler.preemptions, 0);
    }
    world.run_dry();
    let mut reading = Reading::default();
    reading.take(&mut watched);
    assert_eq!(reading.choices[&0].outcome, Some(Ok(Finish::Length)), "its turn came afterwards");
}

/// Who holds more than his share gives a whole answer up for another payer, and only so much.
#[test]
fn a_payer_with_most_of_the_blocks_gives_some_up_for_another() {
    let mut world = World::new(SchedulerLimits { running: 8, blocks: 40, ..limits() });
    let mut crowd = submit(&mut world, 4, || request(MANY, 120, 100));
    while world.scheduler.status().running < 4 || world.scheduler.status().held_blocks < 32 {
        world.step();
    }
    let (_, watched) = world.submit(request(ONE, 150, 5)).expect("taken");
    let (first, _) = steps_of(&mut world, watched, &mut crowd);
    assert!(first <= 4, "{first} steps");
    assert_eq!(world.scheduler.preemptions, 1);
}

/// A prompt that needs most of the cache, while short ones of others come again and again.
#[test]
fn a_long_prompt_is_not_overtaken_for_ever() {
    let mut world = World::new(SchedulerLimits { running: 4, blocks: 40, ..limits() });
    let mut readings = Vec::new();
    let mut short = |world: &mut World<'_>, number: u8| {
        let request = request(Payer([100 + number % 7; 32]), 60, 20);
        readings.push((world.submit(request).expect("taken").1, Reading::default()));
        readings.retain_mut(|(answer, reading)| {
            reading.take(answer);
            reading.choices.get(&0).is_none_or(|read| read.outcome.is_none())
        });
        readings.len()
    };
    for number in 0..10 {
        short(&mut world, number);
        world.step();
    }
    // Its payer's name is the last in any order, so nothing but the rule helps it.
    let (_, mut watched) = world.submit(request(Payer([255; 32]), 500, 2)).expect("taken");
    let mut reading = Reading::default();
    for step in 0..3_000u32 {
        if step % 5 == 0 {
            short(&mut world, (step / 5) as u8);
        }
        world.step();
        reading.take(&mut watched);
        if reading.choices.get(&0).is_some_and(|read| read.outcome.is_some()) {
            println!("it ended after {step} steps");
            return;
        }
    }
    panic!("it waits for ever: {:?}", world.scheduler.status());
}

/// However many payers wait, a step does not look at all of them again and again.
#[test]
fn thousands_of_payers_that_wait_do_not_hold_a_step_up() {
    let mut world = World::new(limits());
    let payer = |number: u32| {
        let mut name = [0; 32];
        name[..4].copy_from_slice(&number.to_be_bytes());
        Payer(name)
    };
    let _crowd: Vec<Answer> =
        (0..4_000).map(|number| world.submit(request(payer(number), 20, 300)).expect("taken").1).collect();
    world.step();
    let start = std::time::Instant::now();
    for _ in 0..15 {
        assert!(matches!(world.step(), Progress::Ran(_)));
    }
    println!("15 steps took {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    assert_eq!(world.scheduler.status().waiting, 4_000 - 8);
}

/// Payers share the work, and a token far into a context is more of it.
#[test]
fn a_payer_with_long_contexts_gets_fewer_tokens_for_the_same_work() {
    let mut world = World::new(SchedulerLimits { cost: Cost::steep(2_000), step_tokens: 32, ..limits() });
    let mut answers = submit(&mut world, 1, || request(MANY, 500, 1));
    answers.extend(submit(&mut world, 8, || request(ONE, 60, 1)));
    let mut readings: Vec<Reading> = answers.iter().map(|_| Reading::default()).collect();
    while readings[0].read.last().is_none_or(|read| *read < 400) {
        world.step();
        answers.iter_mut().zip(&mut readings).for_each(|(answer, reading)| reading.take(answer));
    }
    let short: usize = readings[1..].iter().filter_map(|reading| reading.read.last()).sum();
    assert!(short >= 480, "the other's prompts were all read by then: {short}");
}

/// A step's budget holds however far into a context its tokens are, and everybody gets on.
#[test]
fn a_step_costs_no_more_at_the_end_of_a_long_prompt_than_at_its_beginning() {
    let limits = SchedulerLimits { cost: Cost::steep(4_000), step_tokens: 48, ..limits() };
    let budget = 48 * crate::schedule::cost::TOKEN;
    let mut world = World::new(limits);
    let (_, mut stream) = world.submit(request(ONE, 20, 300)).expect("taken");
    let (_, mut arriving) = world.submit(request(MANY, 500, 1)).expect("taken");
    let (mut reading, mut there) = (Reading::default(), Reading::default());
    let mut steps: Vec<(u64, usize)> = Vec::new();
    while there.choices.is_empty() {
        let Progress::Ran(rows) = world.step() else { panic!("there is work") };
        let before = reading.choices.get(&0).map_or(0, |read| read.tokens.len());
        reading.take(&mut stream);
        there.take(&mut arriving);
        steps.push((world.scheduler.cost, rows));
        let written = reading.choices.get(&0).map_or(0, |read| read.tokens.len());
        assert!(written == before + 1 || steps.len() < 3, "a token in every step");
    }
    let row = limits.cost.at(limits.context);
    assert!(steps.iter().all(|(cost, _)| *cost <= budget + row), "{steps:?}");
    let (first, last) = (steps[0].1, steps[steps.len() - 2].1);
    assert!(first > 3 * last && last >= 2, "fewer tokens the farther they look back: {steps:?}");
    assert!(
        steps[1..steps.len() - 1].iter().all(|(cost, _)| *cost > budget / 2),
        "steps are full: {steps:?}"
    );
}

/// Writing alone may cost more than a step's budget: prompts are read beside it all the same, half as much.
#[test]
fn a_prompt_is_read_however_much_writing_costs() {
    let limits = SchedulerLimits { cost: Cost::steep(1 << 14), step_tokens: 48, ..limits() };
    let mut world = World::new(limits);
    let mut crowd = submit(&mut world, 6, || request(MANY, 100, 400));
    let is_writing = |world: &World<'_>| world.scheduler.jobs.values().all(|job| job.tokens.len() > 150);
    for _ in 0..400 {
        world.step();
        crowd.iter_mut().for_each(|answer| Reading::default().take(answer));
        if is_writing(&world) {
            break;
        }
    }
    assert!(is_writing(&world) && world.scheduler.status().running == 6);
    assert!(world.scheduler.cost > 48 * crate::schedule::cost::TOKEN, "they cost more than a step may");
    let (_, watched) = world.submit(request(ONE, 200, 2)).expect("taken");
    let (first, _) = steps_of(&mut world, watched, &mut crowd);
    println!("{first} steps");
    assert!(first < 40, "{first} steps");
}

/// The gap between a stream's tokens is one step, and a step is no longer than its budget.
#[test]
fn a_running_stream_gets_a_token_in_every_step_while_a_long_prompt_arrives() {
    let mut world = World::new(limits());
    let (_, mut stream) = world.submit(request(ONE, 20, 100)).expect("taken");
    let mut reading = Reading::default();
    while reading.choices.is_empty() {
        world.step();
        reading.take(&mut stream);
    }
    let (_, mut arriving) = world.submit(request(MANY, 500, 1)).expect("taken");
    let mut there = Reading::default();
    while there.choices.is_empty() {
        let before = reading.choices[&0].tokens.len();
        let Progress::Ran(rows) = world.step() else { panic!("there is work") };
        assert!(rows <= world.limits.step_tokens);
        reading.take(&mut stream);
        there.take(&mut arriving);
        assert_eq!(reading.choices[&0].tokens.len(), before + 1);
    }
    assert!(there.read.len() >= 500 / world.limits.step_tokens, "it came in pieces: {:?}", there.read);
}
