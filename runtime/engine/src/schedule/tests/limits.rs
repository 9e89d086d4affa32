//! Limits, readers that leave or do not read, and what becomes of blocks.

use super::*;
use crate::{error::Busy, request::Payer, schedule::answer::ANSWER_EVENTS};

fn long(seed: u64) -> Request {
    let params = Params { ignore_eos: true, ..sampled(seed, 300) };
    Request::new(prompt("The method returns a list."), params)
}

#[test]
fn a_reader_that_leaves_gives_its_blocks_back_at_the_next_step() {
    let mut world = World::new(limits());
    let (_, answer) = world.submit(long(1)).expect("taken");
    let (_, mut other) = world.submit(long(2)).expect("taken");
    for _ in 0..20 {
        world.step();
    }
    let both = world.scheduler.blocks.held();
    drop(answer);
    world.step();
    assert_eq!(world.scheduler.status().running, 1);
    assert!(world.scheduler.blocks.held() <= both / 2 + 1);
    let mut reading = Reading::default();
    reading.take(&mut other);
    assert!(reading.choices[&0].outcome.is_none());
    drop(other);
    world.run_dry();
    world.assert_empty();
}

#[test]
fn a_reader_that_leaves_while_it_waits_is_not_begun_with() {
    let mut world = World::new(SchedulerLimits { running: 1, ..limits() });
    let (_, first) = world.submit(long(1)).expect("taken");
    let (_, second) = world.submit(long(2)).expect("taken");
    world.step();
    assert_eq!(world.lobby.status().waiting, 1);
    drop(second);
    world.step();
    assert_eq!((world.lobby.status().waiting, world.lobby.status().running), (0, 1));
    drop(first);
    world.run_dry();
    world.assert_empty();
}

#[test]
fn a_slow_reader_pauses_its_own_answer_and_is_given_up_on_in_the_end() {
    let mut world = World::new(limits());
    let (_, mut deaf) = world.submit(long(1)).expect("taken");
    let (_, mut keen) = world.submit(long(2)).expect("taken");
    let mut reading = Reading::default();
    for _ in 0..100 {
        world.step();
        reading.take(&mut keen);
    }
    assert!(reading.choices[&0].tokens.len() > 80, "the other goes on");
    assert!(world.scheduler.jobs[&0].is_paused());
    let written = world.scheduler.jobs[&0].tokens.len();
    world.step();
    assert_eq!(world.scheduler.jobs[&0].tokens.len(), written, "it stands still");
    // It may read on...
    let mut slow = Reading::default();
    slow.take(&mut deaf);
    world.step();
    assert!(world.scheduler.jobs[&0].tokens.len() > written);
    // ...or not.
    for _ in 0..ANSWER_EVENTS + 2 {
        world.step();
    }
    drop(keen);
    assert!(matches!(world.step(), Progress::Idle(Some(_))), "it says when to look again");
    world.now += world.limits.patience;
    world.step();
    slow.take(&mut deaf);
    assert_eq!(slow.choices[&0].outcome, Some(Err(GenerateError::SlowReader { seconds: 25 })));
    world.run_dry();
    world.assert_empty();
}

#[test]
fn paused_answers_give_their_places_and_blocks_up_to_those_who_read() {
    let mut world = World::new(SchedulerLimits { running: 2, ..limits() });
    let deaf: Vec<Answer> = (0..2).map(|seed| world.submit(long(seed)).expect("taken").1).collect();
    for _ in 0..ANSWER_EVENTS + 5 {
        world.step();
    }
    assert_eq!(
        world.step(),
        Progress::Idle(Some(world.scheduler.jobs[&0].paused.expect("paused") + world.limits.patience))
    );
    let (_, mut keen) = world.submit(long(9)).expect("taken");
    let mut reading = Reading::default();
    for _ in 0..20 {
        world.step();
        reading.take(&mut keen);
    }
    assert!(reading.choices[&0].tokens.len() > 10);
    // Those who were put back go on where they stood when they are read.
    drop(keen);
    let (mut first, mut second) = (Reading::default(), Reading::default());
    let mut deaf = deaf;
    for _ in 0..400 {
        first.take(&mut deaf[0]);
        second.take(&mut deaf[1]);
        world.step();
    }
    let expected: Vec<_> =
        (0..2).map(|seed| alone(&long(seed).prompt, &long(seed).params, 0, 512).0).collect();
    assert_eq!((&first.choices[&0].tokens, &second.choices[&0].tokens), (&expected[0], &expected[1]));
}

#[test]
fn as_much_waits_as_may_and_no_more() {
    let payer = |n: u8, request: Request| request.with_payer(Payer([n; 32]));
    let waiting = WaitingLimits { answers: 7, of_payer: 3, tokens: 200, running: 1 };
    let mut world = World::on(machine(), SchedulerLimits { running: 1, ..limits() }, waiting);
    let busy = |result: Result<(u64, Answer), SubmitError>| match result {
        Err(SubmitError::Busy(Busy { what, limit })) => (what, limit),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was taken"),
    };
    let mut here: Vec<Answer> = Vec::new();
    for _ in 0..3 {
        here.push(world.submit(payer(1, long(1))).expect("taken").1);
    }
    assert_eq!(busy(world.submit(payer(1, long(1)))), ("answers of one payer", 3));
    assert_eq!(
        busy(world.submit(payer(2, long(1).with_choices(4)))),
        ("answers of one payer", 3),
        "each choice counts"
    );
    here.push(world.submit(payer(2, long(1).with_choices(3))).expect("taken").1);
    here.push(world.submit(payer(3, long(1))).expect("taken").1);
    assert_eq!(busy(world.submit(payer(3, long(1)))), ("answers", 7));
    world.step();
    // One is begun: there is room for one more, but not for a long one.
    let tokens = Request::new(vec![300; 190], sampled(1, 5));
    assert_eq!(busy(world.submit(payer(3, tokens))), ("tokens of prompts", 200));
    here.push(world.submit(payer(3, long(1))).expect("taken").1);
    // Who leaves makes room as well.
    assert!(world.submit(payer(3, long(1))).is_err());
    here.pop();
    world.step();
    here.push(world.submit(payer(3, long(1))).expect("taken").1);
    here.clear();
    world.run_dry();
    world.assert_empty();
}

#[test]
fn a_cache_of_one_context_serves_any_number_one_after_the_other() {
    let mut world = World::new(SchedulerLimits { context: 128, blocks: 8, ..limits() });
    let params = Params { ignore_eos: true, ..sampled(1, 200) };
    let mut answers: Vec<Answer> =
        (0..6).map(|_| world.submit(Request::new(vec![400; 40], params.clone())).expect("taken").1).collect();
    let mut readings: Vec<Reading> = (0..6).map(|_| Reading::default()).collect();
    for _ in 0..5_000 {
        let progress = world.step();
        answers.iter_mut().zip(&mut readings).for_each(|(answer, reading)| reading.take(answer));
        if progress == Progress::Idle(None) {
            break;
        }
    }
    let (tokens, finish, _) = alone(&[400; 40], &params, 0, 128);
    assert_eq!(finish, Finish::Length);
    for reading in &readings {
        assert_eq!(reading.choices[&0].tokens, tokens);
    }
    world.assert_empty();
}

#[test]
fn blocks_of_unsalted_answers_are_wiped_when_they_end_and_salted_ones_stay_by_name() {
    let mut world = World::new(SchedulerLimits { context: 256, blocks: 16, ..limits() });
    let mut answers: Vec<Answer> = (0..4).map(|seed| world.submit(long(seed)).expect("taken").1).collect();
    for _ in 0..300 {
        world.step();
        answers.iter_mut().for_each(|answer| Reading::default().take(answer));
    }
    assert!(world.scheduler.preemptions > 0, "some were put back, and left named blocks behind");
    answers.clear();
    world.run_dry();
    assert_eq!(world.scheduler.blocks.available(), 16);
    assert_eq!(world.scheduler.blocks.idle(), 0, "nothing is kept of who shares with nobody");
    for page in 0..16 - world.scheduler.blocks.cache().unmade() {
        assert!(world.scheduler.blocks.cache().is_blank(page as u32), "block {page}");
    }
}

/// Paused answers give their places up, so that a payer whose readers are deaf could have any number begun.
#[test]
fn answers_that_were_begun_and_put_back_count_until_they_end() {
    let waiting = WaitingLimits { answers: 6, of_payer: 4, tokens: 1 << 20, running: 2 };
    let mut world = World::on(machine(), SchedulerLimits { running: 2, ..limits() }, waiting);
    let (mut deaf, mut refused) = (Vec::new(), 0);
    for step in 0..400 {
        if step % 8 == 0 {
            match world.submit(long(step)) {
                Ok((_, answer)) => deaf.push(answer),
                Err(SubmitError::Busy(Busy { what, .. })) => {
                    assert_eq!(what, "answers of one payer");
                    refused += 1;
                }
                Err(other) => panic!("{other}"),
            }
        }
        world.step();
        assert!(world.scheduler.jobs.len() <= 6, "{} answers", world.scheduler.jobs.len());
    }
    assert!(world.scheduler.preemptions > 0 && refused > 20, "they were put back, and others refused");
    // Another payer is served all the while, and who ends makes room.
    let (_, mut keen) = world.submit(long(1).with_payer(Payer([9; 32]))).expect("taken");
    let mut reading = Reading::default();
    for _ in 0..20 {
        world.step();
        reading.take(&mut keen);
    }
    assert!(reading.choices[&0].tokens.len() > 10);
    deaf.truncate(deaf.len() - 1);
    world.step();
    assert!(world.submit(long(3)).is_ok());
    drop((keen, deaf));
    world.run_dry();
    world.assert_empty();
}
