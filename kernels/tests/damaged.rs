//! PTX that was damaged: an error, a fault or an answer, and never a panic, a hang or memory without end.

mod common;

use cocoon_kernels::{Target, ptx};
use cocoon_ptx_check::{Arg, Device, Grid, LaunchError, Limits, Module, Order};
use common::Random;

/// One change somewhere: letters, a line less, a line twice, a line elsewhere, two words exchanged.
fn damage(text: &str, random: &mut Random) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let (at, other) = (random.below(lines.len()), random.below(lines.len()));
    match random.below(6) {
        0 => drop(lines.remove(at)),
        1 => lines.insert(other, lines[at].clone()),
        2 => lines.swap(at, other),
        3 => {
            let mut letters: Vec<char> = lines[at].chars().collect();
            if !letters.is_empty() {
                let place = random.below(letters.len());
                letters[place] = b"%r0192,;[]{}@.-+\0"[random.below(17)].into();
            }
            lines[at] = letters.into_iter().collect();
        }
        4 => {
            let words: Vec<String> = lines[at].split_whitespace().map(str::to_owned).collect();
            lines[at] = words.into_iter().rev().collect::<Vec<_>>().join(" ");
        }
        _ => {
            let number = ["4294967295", "-1", "18446744073709551615", "0x7fffffff", "99999999999999999999"];
            let digits = lines[at].find(|letter: char| letter.is_ascii_digit());
            if let Some(place) = digits {
                lines[at].insert_str(place, number[random.below(number.len())]);
            }
        }
    }
    lines.join("\n")
}

#[test]
fn damaged_ptx_never_panics_hangs_or_takes_memory() {
    let mut random = Random(9);
    let (mut refused, mut faults, mut answers) = (0, 0, 0);
    for round in 0..3000 {
        let (name, entry) =
            [("rms_norm", "rms_norm"), ("canary", "canary"), ("scrub_check", "scrub_check")][round % 3];
        let mut text = ptx(name, [Target::Sm80, Target::Sm100][round % 2]).expect("listed").to_owned();
        for _ in 0..=random.below(3) {
            text = damage(&text, &mut random);
        }
        let Ok(module) = Module::parse(&text) else {
            refused += 1;
            continue;
        };
        let mut device = Device::new(Limits { instructions: 100_000, memory: 1 << 20 });
        let (words, floats) = (device.upload(&[1; 1024]), device.upload(&[0; 1024]));
        let (out, normed) = (device.upload(&[0; 1024]), device.upload(&[0; 1024]));
        let args: &[Arg<'_>] = match name {
            "rms_norm" => &[
                Arg::In(words, 0),
                Arg::In(floats, 0),
                Arg::Out(normed, 0),
                Arg::Out(out, 0),
                Arg::U32(64),
                Arg::F32(1e-5),
            ],
            "canary" => &[Arg::In(words, 0), Arg::Out(out, 0)],
            _ => &[Arg::In(words, 0), Arg::In(floats, 0), Arg::Out(out, 0), Arg::U32(64)],
        };
        match device.launch(&module, entry, Grid::new(1, 1, 256), args, Order::Seeded(round as u64)) {
            Err(LaunchError::Fault(_)) => faults += 1,
            Err(_) => refused += 1,
            Ok(_) => answers += 1,
        }
    }
    println!("{refused} refused, {faults} faults, {answers} answers");
    assert!(
        refused > 300 && faults > 300 && answers > 300,
        "{refused} refused, {faults} faults, {answers} answers"
    );
}
