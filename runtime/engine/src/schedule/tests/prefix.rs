//! The prefix cache: who meets whose blocks, and what is told of it.

use super::*;
use crate::schedule::Salt;

fn text() -> Vec<u32> {
    prompt(&"The object is a list of the items that the method returns. ".repeat(6))
}

/// Tokens from the cache of a request that runs alone now.
fn cached(world: &mut World<'_>, prompt: &[u32], salt: Option<&str>) -> usize {
    let mut request = Request::new(prompt.to_vec(), sampled(1, 4));
    if let Some(salt) = salt {
        request = request.with_salt(Salt::new(salt.as_bytes()));
    }
    let (_, mut answer) = world.submit(request).expect("taken");
    world.run_dry();
    let mut reading = Reading::default();
    reading.take(&mut answer);
    assert_eq!(reading.choices[&0].outcome.as_ref().map(Result::is_ok), Some(true));
    reading.started[0]
}

#[test]
fn equal_beginnings_are_read_once_under_one_salt() {
    let mut world = World::new(limits());
    let text = text();
    assert_eq!(cached(&mut world, &text, Some("mine")), 0);
    let full = (text.len() - 1) / 16 * 16;
    assert_eq!(cached(&mut world, &text, Some("mine")), full);
    assert_eq!(cached(&mut world, &text[..40], Some("mine")), 32);
    assert_eq!(cached(&mut world, &text[..33], Some("mine")), 32);
    assert_eq!(cached(&mut world, &text[..32], Some("mine")), 16, "the last token is always computed");
    let mut other = text.clone();
    other[20] ^= 1;
    assert_eq!(cached(&mut world, &other, Some("mine")), 16, "up to the first difference");
    let mut longer = text.clone();
    longer.extend(prompt(" And more of it."));
    assert_eq!(cached(&mut world, &longer, Some("mine")), full);
}

#[test]
fn nobody_meets_the_blocks_of_another_salt_or_of_none() {
    let mut world = World::new(limits());
    let text = text();
    assert_eq!(cached(&mut world, &text, Some("mine")), 0);
    assert_eq!(cached(&mut world, &text, Some("yours")), 0);
    assert_eq!(cached(&mut world, &text, None), 0);
    assert_eq!(cached(&mut world, &text, None), 0);
    assert!(cached(&mut world, &text, Some("yours")) > 0);
}

/// What another can see of a cache is time: the steps that a prompt takes.
#[test]
fn under_another_salt_a_prompt_takes_as_long_as_if_nobody_had_asked() {
    let steps = |world: &mut World<'_>, salt: &str| {
        let before = world.scheduler.status().steps;
        cached(world, &text(), Some(salt));
        world.scheduler.status().steps - before
    };
    let mut world = World::new(SchedulerLimits { step_tokens: 24, ..limits() });
    let first = steps(&mut world, "mine");
    assert_eq!(steps(&mut world, "yours"), first);
    assert!(steps(&mut world, "mine") < first);
}

#[test]
fn what_is_kept_gives_way_before_anybody_is_put_back() {
    let blocks = 32;
    let mut world = World::new(SchedulerLimits { blocks, ..limits() });
    for salt in 0..20 {
        cached(&mut world, &text(), Some(&salt.to_string()));
        assert!(world.scheduler.blocks.held() + world.scheduler.blocks.idle() <= blocks);
    }
    assert!(world.scheduler.blocks.idle() > 16, "it is full of what was");
    assert_eq!(world.scheduler.preemptions, 0);
    assert!(cached(&mut world, &text(), Some("19")) > 0, "the last is kept");
    assert_eq!(cached(&mut world, &text(), Some("0")), 0, "the first is forgotten");
}

#[test]
fn answers_that_run_at_the_same_time_share_their_beginning() {
    let mut world = World::new(limits());
    let text = text();
    let salted = |seed| Request::new(text.clone(), sampled(seed, 30)).with_salt(Salt::new(b"s"));
    let (_, _first) = world.submit(salted(1)).expect("taken");
    while world.scheduler.status().running == 0 || world.scheduler.jobs[&0].computed < text.len() {
        world.step();
    }
    let alone = world.scheduler.blocks.held();
    let (_, mut second) = world.submit(salted(2)).expect("taken");
    world.step();
    let mut reading = Reading::default();
    reading.take(&mut second);
    assert_eq!(reading.started, [(text.len() - 1) / 16 * 16]);
    assert!(world.scheduler.blocks.held() <= alone + 2, "one or two blocks of its own");
}
