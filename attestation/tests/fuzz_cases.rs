//! Every real case, damaged over and over: an answer, within a bound of time and of memory, and never a yes to a changed
//! meaning. `COCOON_FUZZ_ITERATIONS` sets the rounds for each case, `COCOON_FUZZ_SEED` another start.

mod common;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cocoon_attestation::{Endorsements, Evidence, Exceptions, TrustAnchors, UnixTime, verify};
use common::mutate::{Random, mutate};
use common::vectors::Vectors;

/// The longest that one input may take: generous, since other tests run beside it.
const PATIENCE: Duration = Duration::from_secs(5);
/// The most memory that one verification may hold beyond its input, in bytes.
const MOST_MEMORY: usize = 2 * 1024 * 1024;

/// Counts what is held, and the most that ever was.
struct Counting;

static HELD: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn took(bytes: usize) {
    let held = HELD.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(held, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator with the layout it came with; only numbers are kept beside it.
#[expect(unsafe_code, reason = "an allocator is the one place where memory can be counted")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: `pointer` came from `System.alloc` with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

struct Case {
    id: String,
    evidence: Vec<u8>,
    files: Vec<Vec<u8>>,
    at: UnixTime,
    exceptions: Exceptions,
}

impl Case {
    fn read(vectors: &Vectors, case: &serde_json::Value) -> Self {
        let names = |key: &str| -> Vec<String> {
            let list = case[key].as_array().into_iter().flatten();
            list.map(|name| name.as_str().expect("text").to_owned()).collect()
        };
        Self {
            id: case["id"].as_str().expect("text").to_owned(),
            evidence: vectors.read(case["evidence"].as_str().expect("a file name")),
            files: names("endorsements").iter().map(|name| vectors.read(name)).collect(),
            at: UnixTime(case["at"].as_u64().expect("seconds")),
            exceptions: Exceptions::parse(names("allow").iter().map(String::as_str)).expect("known names"),
        }
    }

    /// One verification of whatever this has become.
    fn answer(&self, what: &str) {
        let (started, held) = (Instant::now(), HELD.load(Ordering::Relaxed));
        PEAK.store(held, Ordering::Relaxed);
        if let Ok(evidence) = Evidence::detect(&self.evidence)
            && let Ok(own) = Endorsements::from_files(self.files.clone())
        {
            let _ = verify(&evidence, &own, &TrustAnchors::hardware(), &self.exceptions, self.at);
        }
        let (took, peak) = (started.elapsed(), PEAK.load(Ordering::Relaxed) - held);
        assert!(took < PATIENCE, "{} {what}: {took:?}", self.id);
        assert!(peak < MOST_MEMORY, "{} {what}: {peak} bytes held", self.id);
    }
}

#[test]
fn every_damaged_case_gets_an_answer_within_its_bounds() {
    let Some(vectors) = Vectors::find() else { return };
    let (rounds, seed) = (number("COCOON_FUZZ_ITERATIONS", 400), number("COCOON_FUZZ_SEED", 0xca5e_5eed));
    println!("seed {seed:#x}, {rounds} rounds for each case");
    let mut random = Random(seed);
    for listed in vectors.cases() {
        let honest = Case::read(&vectors, &listed);
        honest.answer("as it is");
        for round in 0..rounds {
            let mut damaged = Case::read(&vectors, &listed);
            let target = random.below(1 + damaged.files.len());
            match target.checked_sub(1) {
                None => damaged.evidence = mutate(&damaged.evidence, &mut random),
                Some(file) => damaged.files[file] = mutate(&damaged.files[file], &mut random),
            }
            damaged.answer(&format!("round {round}"));
        }
    }
}

#[test]
fn announced_lengths_take_no_memory() {
    let large = |head: &[u8]| [head, &[0xff; 64]].concat();
    for (what, bytes) in [
        ("CBOR map", large(&[0xa6])),
        ("CBOR byte string of 2^63", large(&[0xa3, 0x5b, 0x7f])),
        ("CBOR array of 2^32", large(&[0xa3, 0x9a])),
        ("DER of 16 MiB", large(&[0x30, 0x83])),
        ("SPDM record", large(&[0x11, 0xe0, 1, 0xff])),
        ("quote", large(&[4, 0, 2, 0, 0x81, 0, 0, 0])),
        ("JSON", [&b"[{\"evidence\":\""[..], &[b'A'; 4096]].concat()),
        ("JSON deep", [b'['; 100_000].to_vec()),
    ] {
        let held = HELD.load(Ordering::Relaxed);
        PEAK.store(held, Ordering::Relaxed);
        if let Ok(evidence) = Evidence::detect(&bytes) {
            let (anchors, none) = (TrustAnchors::hardware(), Exceptions::none());
            let _ = verify(&evidence, &Endorsements::none(), &anchors, &none, UnixTime(0));
        }
        let peak = PEAK.load(Ordering::Relaxed) - held;
        assert!(peak < 256 * 1024, "{what}: {peak} bytes held");
    }
}
