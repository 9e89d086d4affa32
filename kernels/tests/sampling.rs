//! Tokens: those of the CPU engine's sampler, for the same logits, history, seed and position.

mod common;

use cocoon_engine::{Sampler, Sampling};
use cocoon_kernels::{Arg, Backend as _, Grid, Kernel, MAX_RECENT, TARGETS};
use cocoon_ptx_check::Order;
use common::{Interpreter, ORDERS, Random};

/// One draw: the engine's parameters, its history, and how many tokens it chose before.
struct Draw {
    sampling: Sampling,
    recent: Vec<u32>,
    spared: Vec<u32>,
    position: u64,
    choice: u32,
}

/// The engine's token: `position` tokens of another history are chosen before.
fn engine(draw: &Draw, logits: &[f32]) -> Option<u32> {
    let sampler = Sampler::new(draw.sampling, &draw.spared).expect("in range");
    let mut sampler = sampler.for_choice(draw.choice);
    for _ in 0..draw.position {
        sampler.choose(&[0.0]).expect("a number");
    }
    sampler.observe(&vec![0; 256]); // forgets what was chosen to come here
    sampler.observe(&draw.recent);
    sampler.choose(logits).ok()
}

/// The list that the host sends: what the engine's window holds, each once, without those that are spared.
fn list(draw: &Draw) -> Vec<u32> {
    let mut list: Vec<u32> = Vec::new();
    let history: Vec<u32> = [0; 256].iter().chain(&draw.recent).copied().collect();
    for token in &history[history.len() - MAX_RECENT..] {
        if !list.contains(token) && !draw.spared.contains(token) {
            list.push(*token);
        }
    }
    list
}

fn choices(draws: &[Draw]) -> (Vec<u8>, Vec<u32>) {
    let mut recent = vec![u32::MAX; draws.len() * MAX_RECENT];
    let mut bytes = Vec::new();
    for (index, draw) in draws.iter().enumerate() {
        let list = list(draw);
        recent[index * MAX_RECENT..][..list.len()].copy_from_slice(&list);
        let sampling = &draw.sampling;
        for float in [sampling.temperature, sampling.top_p, sampling.repetition_penalty] {
            bytes.extend(float.to_le_bytes());
        }
        bytes.extend((list.len() as u32).to_le_bytes());
        bytes.extend(sampling.seed.to_le_bytes());
        bytes.extend(draw.position.to_le_bytes());
        bytes.extend(77u32.to_le_bytes());
        bytes.extend(draw.choice.to_le_bytes());
    }
    (bytes, recent)
}

fn device_tokens(mut device: Interpreter, draws: &[Draw], logits: &[Vec<f32>]) -> Vec<Option<u32>> {
    let vocabulary = logits[0].len();
    let (choices, recent) = choices(draws);
    let keys_len = vocabulary.next_power_of_two();
    let logits = device.floats(&logits.concat());
    let (choices, recent) = (device.device.upload(&choices), device.words(&recent));
    let (keys, chosen) =
        (device.device.allocate(draws.len() * keys_len * 8), device.device.allocate(draws.len() * 16));
    let likeliest = [
        Arg::Out(&logits, 0),
        Arg::In(&recent, 0),
        Arg::In(&choices, 0),
        Arg::Out(&chosen, 0),
        Arg::U32(vocabulary as u32),
    ];
    device.go(Kernel::Likeliest, Grid::each(draws.len()), &likeliest);
    let draw = [
        Arg::Out(&logits, 0),
        Arg::Out(&keys, 0),
        Arg::In(&choices, 0),
        Arg::Out(&chosen, 0),
        Arg::U32(vocabulary as u32),
        Arg::U32(keys_len as u32),
    ];
    device.go(Kernel::Draw, Grid::each(draws.len()), &draw);
    let words = device.read(&chosen, draws.len() * 16).expect("it is there");
    let words: Vec<u32> =
        words.chunks_exact(4).map(|word| u32::from_le_bytes(word.try_into().expect("four"))).collect();
    assert!(words.chunks_exact(4).all(|chosen| chosen[3] == 77), "each answer names its step");
    words.chunks_exact(4).map(|chosen| (chosen[2] == 0).then_some(chosen[0])).collect()
}

fn draw(temperature: f32, top_p: f32, penalty: f32, seed: u64, position: u64) -> Draw {
    let sampling = Sampling { temperature, top_p, repetition_penalty: penalty, seed, ..Sampling::default() };
    Draw { sampling, recent: Vec::new(), spared: Vec::new(), position, choice: seed as u32 % 3 }
}

#[test]
fn tokens_are_those_of_the_cpu_engine() {
    let mut random = Random(11);
    for (round, vocabulary) in [300, 257, 31, 1000].into_iter().enumerate() {
        let mut draws = vec![
            draw(0.0, 1.0, 1.0, 0, 0),
            draw(0.0, 0.5, 1.3, 1, 2),
            draw(0.4, 0.95, 1.1, 2, 0),
            draw(1.0, 1.0, 1.0, 3, 7),
            draw(2.0, 0.999, 0.7, u64::MAX, 5),
            draw(1.5, 0.3, 1.0, 5 << 40, 1),
            draw(0.05, 1.0, 1.0, 6, 0),
        ];
        for draw in &mut draws {
            draw.sampling.seed ^= round as u64;
            draw.recent = (0..random.below(300)).map(|_| random.below(vocabulary) as u32).collect();
            draw.spared = vec![random.below(vocabulary) as u32];
        }
        let logits: Vec<Vec<f32>> = draws
            .iter()
            .map(|_| {
                let mut logits = random.floats(vocabulary, 6.0);
                // Equal ones, and one that cannot be.
                let best = logits.iter().fold(0.0f32, |best, logit| best.max(*logit));
                logits[vocabulary - 1] = best;
                logits[vocabulary / 2] = best;
                logits[vocabulary / 3] = f32::NEG_INFINITY;
                logits
            })
            .collect();
        let expected: Vec<_> = draws.iter().zip(&logits).map(|(draw, logits)| engine(draw, logits)).collect();
        assert!(expected.iter().all(Option::is_some));
        for target in TARGETS {
            for order in if vocabulary > 500 { &ORDERS[1..2] } else { &ORDERS[..] } {
                let found = device_tokens(Interpreter::new(target, *order), &draws, &logits);
                assert_eq!(found, expected, "{target:?}, {order:?}, {vocabulary} tokens");
            }
        }
    }
}

#[test]
fn every_seed_and_position_draws_what_the_cpu_engine_draws() {
    // A flat distribution: any difference of the counter or of a sum would show.
    let logits: Vec<f32> = (0..97).map(|token| (token % 7) as f32 * 0.1).collect();
    for top_p in [1.0, 0.8] {
        let draws: Vec<Draw> = (0..24).map(|i| draw(1.3, top_p, 1.0, i * 0x1234_5678_9abc, i)).collect();
        let expected: Vec<_> = draws.iter().map(|draw| engine(draw, &logits)).collect();
        let kinds: std::collections::HashSet<_> = expected.iter().collect();
        assert!(kinds.len() > 10, "{kinds:?}");
        let device = Interpreter::new(TARGETS[1], Order::Forward);
        assert_eq!(device_tokens(device, &draws, &vec![logits.clone(); draws.len()]), expected);
    }
}

#[test]
fn what_is_not_a_number_is_no_token() {
    let usual = vec![0.5; 40];
    for (index, value) in [(0, f32::NAN), (39, f32::NAN), (17, f32::INFINITY)] {
        let mut logits = usual.clone();
        logits[index] = value;
        for temperature in [0.0, 1.0] {
            let draws = [draw(temperature, 0.9, 1.0, 1, 0), draw(temperature, 0.9, 1.0, 1, 0)];
            assert_eq!(engine(&draws[0], &logits), None);
            let all = [logits.clone(), usual.clone()];
            let found = device_tokens(Interpreter::new(TARGETS[0], Order::Forward), &draws, &all);
            assert!(found[0].is_none() && found[1].is_some(), "{value} at {index}: {found:?}");
        }
    }
    let lost = vec![f32::NEG_INFINITY; 40];
    let found =
        device_tokens(Interpreter::new(TARGETS[0], Order::Forward), &[draw(1.0, 1.0, 1.0, 1, 0)], &[lost]);
    assert_eq!(found, [None]);
}
