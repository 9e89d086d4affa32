//! Every reader of files that an image or a host may bring, fed with rubbish and with damaged good input: an answer, never a
//! panic, and in time.
//!
//! `COCOON_FUZZ_ITERATIONS` sets the budget, `COCOON_FUZZ_SEED` another start.

use std::time::{Duration, Instant};

use cocoon_attestation::EventLog;
use cocoon_image::manifest::Manifest;
use cocoon_image::pe::Program;
use cocoon_image::profile::{Profile, Record};
use cocoon_image::snp::{Launch, VcpuType, launch_digest};
use cocoon_image::tdvf::{Tdvf, with_variables_of};

/// The longest that one input may take: generous, since other tests run beside it.
const PATIENCE: Duration = Duration::from_secs(5);

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// xorshift64*: small, seeded, the same everywhere.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit.max(1) as u64).expect("below a usize")
    }

    /// One to four changes: bits, extreme fields of four bytes, cuts, doubled pieces. Half of them near `focus`, where the
    /// structure is.
    fn damage(&mut self, original: &[u8], focus: std::ops::Range<usize>) -> Vec<u8> {
        let mut bytes = original.to_vec();
        for _ in 0..=self.below(4) {
            let near = focus.start + self.below(focus.len());
            let at = if self.below(2) == 0 { near } else { self.below(bytes.len()) };
            let at = at.min(bytes.len().saturating_sub(1));
            let end = (at + 4).min(bytes.len());
            match self.below(6) {
                _ if bytes.is_empty() => bytes.push(0),
                0 | 1 => bytes[at] ^= 1 << self.below(8),
                2 => bytes[at..end].fill([0, 0xff, 0x7f][self.below(3)]),
                3 => bytes[at] = self.next() as u8,
                4 => {
                    let doubled = bytes[at..end].to_vec();
                    bytes.splice(at..at, doubled);
                }
                _ if self.below(8) == 0 => bytes.truncate(at),
                _ => drop(bytes.drain(at..end)),
            }
        }
        bytes
    }
}

fn read_all(bytes: &[u8]) {
    let start = Instant::now();
    if let Ok(program) = Program::parse(bytes) {
        let _ = program.sha384();
    }
    if let Ok(tdvf) = Tdvf::parse(bytes) {
        let _ = tdvf.mrtd();
        let _ = tdvf.variables();
        for memory in [0, 1 << 30, 1 << 40, u64::MAX] {
            let _ = tdvf.hand_off(memory);
        }
        let _ = with_variables_of(bytes, bytes).map(|joined| assert_eq!(joined, bytes));
    }
    let launch = Launch {
        kernel: b"",
        initrd: b"",
        command_line: "",
        vcpus: 1,
        vcpu_type: VcpuType::EpycV4,
        guest_features: 1,
    };
    let _ = launch_digest(bytes, &launch);
    if let Ok(manifest) = Manifest::from_json(bytes) {
        assert_eq!(manifest.to_json().as_bytes(), bytes, "accepted, but not canonical");
    }
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Profile::from_toml(text);
        let _ = Record::from_toml(text);
    }
    if let Ok(log) = EventLog::parse(bytes) {
        let _ = Record::from_log(&log);
    }
    assert!(start.elapsed() < PATIENCE, "{} bytes took {:?}", bytes.len(), start.elapsed());
}

/// The good inputs, each with where its structure is.
fn seeds() -> Vec<(Vec<u8>, std::ops::Range<usize>)> {
    let firmware = include_bytes!("golden/firmware.bin").to_vec();
    let program = include_bytes!("golden/program.bin").to_vec();
    let profile = include_bytes!("../profiles/snp-h100-1.toml").to_vec();
    let record = include_bytes!("../profiles/tdx-cpu-1.record.toml").to_vec();
    let log = include_bytes!("golden/ovmf-2026.08-tpm.log").to_vec();
    // A development image's; its words and hashes need not be those of today.
    let manifest = include_bytes!("golden/manifest.json").to_vec();
    let whole = |bytes: Vec<u8>| {
        let length = bytes.len();
        (bytes, 0..length)
    };
    vec![
        (firmware.clone(), 0xf000..0xf300),
        (firmware, 0xff00..0x1_0000),
        (program, 0..0x200),
        whole(profile),
        whole(record),
        whole(log),
        whole(manifest),
    ]
}

#[test]
fn damaged_files_get_an_answer() {
    let seed = number("COCOON_FUZZ_SEED", 0x0c0c_00dc_0de5_eed5).max(1); // xorshift stands still at zero
    let count = number("COCOON_FUZZ_ITERATIONS", 20_000) / 20;
    println!("seed {seed}, {count} inputs of each kind");
    let mut random = Random(seed);
    for (good, focus) in seeds() {
        read_all(&good);
        for _ in 0..count {
            read_all(&random.damage(&good, focus.clone()));
        }
    }
    for _ in 0..count {
        let length = random.below(4096);
        let rubbish: Vec<u8> = (0..length).map(|_| random.next() as u8).collect();
        read_all(&rubbish);
    }
}

/// The seeds are good: otherwise the damage would test only the first check.
#[test]
fn undamaged_files_are_read() {
    let [firmware, _, program, profile, record, log, manifest] =
        seeds().try_into().map_err(drop).expect("seven");
    assert!(Tdvf::parse(&firmware.0).is_ok());
    assert!(Program::parse(&program.0).is_ok());
    assert!(Profile::from_toml(std::str::from_utf8(&profile.0).unwrap()).is_ok());
    assert!(Record::from_toml(std::str::from_utf8(&record.0).unwrap()).is_ok());
    assert!(Record::from_log(&EventLog::parse(&log.0).unwrap()).is_ok());
    assert!(Manifest::from_json(&manifest.0).is_ok());
}
