//! What happened, when, to whom: hashed whole, kept at its end, and printed for a seed that is looked at.

use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use tokio::time::Instant;

/// How much of its end is kept.
const TAIL: usize = 120;

pub(crate) struct Trace {
    began: Instant,
    loud: bool,
    inside: Mutex<Inside>,
}

#[derive(Default)]
struct Inside {
    hash: u64,
    lines: u64,
    tail: VecDeque<String>,
    failures: Vec<String>,
    counts: BTreeMap<&'static str, u64>,
}

/// What is left of a run.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) hash: u64,
    pub(crate) lines: u64,
    pub(crate) tail: Vec<String>,
    pub(crate) failures: Vec<String>,
    pub(crate) counts: BTreeMap<&'static str, u64>,
}

impl Trace {
    pub(crate) fn new(loud: bool) -> Self {
        let inside = Inside { hash: 0xcbf2_9ce4_8422_2325, ..Inside::default() };
        Self { began: Instant::now(), loud, inside: Mutex::new(inside) }
    }

    /// Since the world began.
    pub(crate) fn time(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn say(&self, who: &str, what: fmt::Arguments<'_>) {
        let time = self.time();
        let line = format!("{:>6}.{:03} {who:<10} {what}", time.as_secs(), time.subsec_millis());
        if self.loud {
            println!("{line}");
        }
        let mut inside = self.inside();
        for byte in line.bytes() {
            inside.hash = (inside.hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        inside.lines += 1;
        if inside.tail.len() == TAIL {
            inside.tail.pop_front();
        }
        inside.tail.push_back(line);
    }

    /// Something of a kind that the suite wants to have seen.
    pub(crate) fn count(&self, kind: &'static str) {
        *self.inside().counts.entry(kind).or_default() += 1;
    }

    /// A rule was broken.
    pub(crate) fn fail(&self, what: fmt::Arguments<'_>) {
        self.say("BROKEN", what);
        let text = what.to_string();
        let mut inside = self.inside();
        if inside.failures.len() < 20 {
            inside.failures.push(text);
        }
    }

    pub(crate) fn report(&self) -> Report {
        let inside = std::mem::take(&mut *self.inside());
        let Inside { hash, lines, tail, failures, counts } = inside;
        Report { hash, lines, tail: tail.into(), failures, counts }
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().expect("nobody panics here")
    }
}
