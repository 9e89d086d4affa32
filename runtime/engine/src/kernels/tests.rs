//! Kernels against each other, bit for bit, and against plain double precision.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::gguf::Format;

#[path = "identity_tests.rs"]
mod identity;

/// A sequence of numbers that look random, from a seed that a failure prints.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Between -1 and 1.
    fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }
}

fn sets() -> impl Iterator<Item = InstructionSet> {
    InstructionSet::ALL.into_iter().filter(|set| set.is_supported())
}

/// A tensor of random bytes with sane scales.
fn tensor(numbers: &mut Numbers, format: Format, rows: usize, columns: usize) -> Vec<u8> {
    let count = rows * columns / format.block_len();
    let mut data = Vec::new();
    for _ in 0..count {
        match format {
            Format::F32 => data.extend(numbers.float().to_le_bytes()),
            Format::F16 => data.extend(half::narrow(numbers.float()).to_le_bytes()),
            _ => {
                data.extend(half::narrow(numbers.float() * 0.1).to_le_bytes());
                if format == Format::Q4_1 {
                    data.extend(half::narrow(numbers.float()).to_le_bytes());
                }
                let rest = format.block_bytes() - if format == Format::Q4_1 { 4 } else { 2 };
                data.extend((0..rest).map(|_| numbers.next() as u8));
            }
        }
    }
    data
}

fn inputs(numbers: &mut Numbers, set: InstructionSet, tokens: usize, columns: usize) -> Vec<Activations> {
    (0..tokens)
        .map(|_| {
            let mut input = Activations::new(columns);
            input.floats.iter_mut().for_each(|value| *value = numbers.float() * 3.0);
            input.quantise(set, columns);
            input
        })
        .collect()
}

impl AsRef<Activations> for Activations {
    fn as_ref(&self) -> &Activations {
        self
    }
}

const FORMATS: [Format; 5] = [Format::F32, Format::F16, Format::Q4_0, Format::Q4_1, Format::Q8_0];

#[test]
fn products_have_the_same_bits_on_every_set_and_with_any_number_of_tokens() {
    for (seed, format) in (1..).zip(FORMATS) {
        for (rows, columns, tokens) in [(16, 32, 1), (40, 96, 3), (33, 576, 8), (64, 64, 13), (7, 32, 20)] {
            let mut numbers = Numbers(seed * 7919);
            let data = tensor(&mut numbers, format, rows, columns);
            let matrix = Matrix::pack(format, rows, columns, &data);
            let seed_of_inputs = numbers.next();
            let product = |set, threads| {
                let all = inputs(&mut Numbers(seed_of_inputs), set, tokens, columns);
                let mut out = vec![0.0; matrix.tiles() * TILE * tokens];
                multiply(&Pool::new(threads, set), &[&matrix], &all, &mut out);
                (all, out.into_iter().map(f32::to_bits).collect::<Vec<_>>())
            };
            let (all, expected) = product(InstructionSet::Scalar, 1);
            for set in sets() {
                assert_eq!(
                    product(set, 2).1,
                    expected,
                    "{} {format:?} {rows}x{columns} {tokens}",
                    set.name()
                );
            }
            near_double_precision(&matrix, &all, &expected, tokens, &format!("{format:?} {rows}x{columns}"));
        }
    }
}

/// Against weights row by row and the floats before quantisation: right up to the rounding of activations.
fn near_double_precision(matrix: &Matrix, inputs: &[Activations], bits: &[u32], tokens: usize, name: &str) {
    let mut weights = vec![0.0; matrix.columns];
    for row in 0..matrix.rows() {
        matrix.row(row, &mut weights);
        for (token, input) in inputs.iter().enumerate() {
            let terms = weights.iter().zip(&input.floats).map(|(w, x)| f64::from(*w) * f64::from(*x));
            let exact: f64 = terms.clone().sum();
            let size = terms.map(|term| term * term).sum::<f64>().sqrt();
            let found = f32::from_bits(bits[(row / TILE * tokens + token) * TILE + row % TILE]);
            let bound = size * 0.05 + 1e-6;
            assert!((f64::from(found) - exact).abs() < bound, "{name} row {row}: {found} is not {exact}");
        }
    }
}

#[test]
fn packed_rows_are_the_rows_of_the_file() {
    let mut numbers = Numbers(77);
    let data = tensor(&mut numbers, Format::Q4_1, 20, 64);
    let matrix = Matrix::pack(Format::Q4_1, 20, 64, &data);
    let mut row = [0.0; 64];
    matrix.row(17, &mut row);
    let block = &data[(17 * 2 + 1) * 20..][..20];
    let number = |at: usize| half::widen(u16::from_le_bytes([block[at], block[at + 1]]));
    for column in 0..32 {
        let byte = block[4 + column % 16];
        let nibble = if column < 16 { byte & 15 } else { byte >> 4 };
        assert_eq!(row[32 + column], f32::from(nibble).mul_add(number(0), number(2)));
    }
}

#[test]
fn element_wise_kernels_have_the_same_bits_on_every_set() {
    let mut numbers = Numbers(5);
    let x: Vec<f32> = (0..100).map(|_| numbers.float() * 9.0).collect();
    let tiles: Vec<f32> = (0..112 * 3).map(|_| numbers.float() * 20.0).collect();
    let results = |set| {
        let mut bits = Vec::new();
        let mut out = vec![0.0; 100];
        rms_norm(set, &x, &x, 1e-5, &mut out);
        bits.extend(out.iter().map(|v| v.to_bits()));
        add(set, &mut out, &tiles, 3, 1);
        bits.extend(out.iter().map(|v| v.to_bits()));
        swiglu(set, &tiles, &tiles, 3, 2, &mut out);
        bits.extend(out.iter().map(|v| v.to_bits()));
        bits
    };
    let expected = results(InstructionSet::Scalar);
    for set in sets() {
        assert_eq!(results(set), expected, "{}", set.name());
    }
}

#[test]
fn attention_has_the_same_bits_on_every_set_and_is_a_weighted_mean() {
    let shape = PageShape { layers: 2, heads: 2, head_len: 32 };
    let mut numbers = Numbers(11);
    for tokens in [1, 15, 16, 17, 50] {
        let mut pages: Vec<Page> = (0..4).map(|_| Page::new(shape)).collect();
        let table = [2, 0, 3, 1];
        let (mut keys, mut values) = (Vec::new(), Vec::new());
        for position in 0..tokens {
            let key: Vec<f32> = (0..64).map(|_| half::widen(half::narrow(numbers.float()))).collect();
            let value: Vec<f32> = (0..64).map(|_| half::widen(half::narrow(numbers.float()))).collect();
            pages[table[position / PAGE] as usize].write(shape, 1, position % PAGE, &key, &value);
            keys.push(key);
            values.push(value);
        }
        let query: Vec<f32> = (0..32).map(|_| numbers.float() * 2.0).collect();
        let result = |set| {
            let mut out = vec![0.0; 32];
            let sequence = Paged { pages: &pages, table: &table, shape };
            attend(set, &[Query { values: &query, first: 0, end: tokens }], sequence, 1, 1, &mut out);
            out
        };
        let expected = result(InstructionSet::Scalar);
        for set in sets() {
            assert_eq!(result(set), expected, "{} over {tokens}", set.name());
        }
        let score = |key: &Vec<f32>| -> f64 {
            query.iter().zip(&key[32..]).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>().exp()
        };
        let total: f64 = keys.iter().map(score).sum();
        for lane in 0..32 {
            let mean: f64 =
                keys.iter().zip(&values).map(|(k, v)| score(k) / total * f64::from(v[32 + lane])).sum();
            assert!((mean - f64::from(expected[lane])).abs() < 1e-5, "{tokens} tokens, lane {lane}");
        }
    }
}

#[test]
fn a_query_among_others_has_the_bits_that_it_has_alone() {
    let shape = PageShape { layers: 1, heads: 1, head_len: 48 };
    let mut numbers = Numbers(12);
    let mut pages: Vec<Page> = (0..5).map(|_| Page::new(shape)).collect();
    let table = [4, 1, 3, 0, 2];
    for position in 0..80 {
        let [key, value]: [Vec<f32>; 2] = std::array::from_fn(|_| (0..48).map(|_| numbers.float()).collect());
        pages[table[position / PAGE] as usize].write(shape, 0, position % PAGE, &key, &value);
    }
    let values: Vec<Vec<f32>> = (0..19).map(|_| (0..48).map(|_| numbers.float()).collect()).collect();
    // What they see ends at a page's border, before and after it, and begins at windows of any length.
    let seen = (0..19usize).map(|q| (q * 5 % 23, 24 + q * 3 % 57));
    let queries: Vec<_> =
        values.iter().zip(seen).map(|(values, (first, end))| Query { values, first, end }).collect();
    let sequence = Paged { pages: &pages, table: &table, shape };
    for set in sets() {
        for count in 1..=queries.len() {
            let mut together = vec![0.0; count * 48];
            attend(set, &queries[..count], sequence, 0, 0, &mut together);
            for (query, found) in queries.iter().zip(together.chunks_exact(48)) {
                let mut alone = vec![0.0; 48];
                attend(set, std::slice::from_ref(query), sequence, 0, 0, &mut alone);
                assert_eq!(found, alone, "{} of {count}", set.name());
            }
        }
    }
}

#[test]
fn exponentials_are_right_to_two_units_in_the_last_place() {
    for step in -870_000..880_000 {
        let x = step as f32 * 1e-4;
        let (found, exact) = (vector::exp(x), libm::exp(f64::from(x)));
        assert!((f64::from(found) - exact).abs() <= exact * 2.4e-7, "exp({x}) is {exact}, not {found}");
    }
    assert_eq!(vector::exp(f32::NEG_INFINITY), 0.0);
    assert_eq!(vector::exp(0.0), 1.0);
    assert!(vector::exp(f32::NAN).is_nan());
    assert!(vector::exp(1e9).is_finite());
}

#[test]
fn halves_widen_exactly_and_narrow_to_nearest() {
    for half in 0..=u16::MAX {
        let wide = half::widen(half);
        if wide.is_nan() {
            assert!(half & 0x7c00 == 0x7c00 && half & 0x3ff != 0);
            continue;
        }
        assert_eq!(half::narrow(wide), half, "{half:04x}");
        if half & 0x7fff < 0x7bff {
            // Half-way between two neighbours goes to the even one, and a little off half-way to the nearer.
            let next = half::widen(half + 1);
            let middle = (wide + next) / 2.0;
            assert_eq!(half::narrow(middle), half + (half & 1), "{half:04x}");
            assert_eq!(half::narrow(f32::from_bits(middle.to_bits() + 1)), half + 1);
            assert_eq!(half::narrow(f32::from_bits(middle.to_bits() - 1)), half);
        }
    }
    assert_eq!(half::narrow(65_520.0), 0x7c00);
    assert_eq!(half::narrow(f32::MIN), 0xfc00);
}

#[test]
fn quantised_activations_are_near_and_their_sums_are_right() {
    let mut numbers = Numbers(3);
    for set in sets() {
        let all = inputs(&mut numbers, set, 1, 64);
        for (block, values) in all[0].blocks.iter().zip(all[0].floats.chunks(32)) {
            let quants: Vec<i8> = block.words.iter().flat_map(|w| w.to_le_bytes().map(|b| b as i8)).collect();
            assert_eq!(block.sum, quants.iter().map(|q| i32::from(*q)).sum::<i32>());
            assert_eq!(quants.iter().map(|q| q.unsigned_abs()).max(), Some(127));
            for (quant, value) in quants.iter().zip(values) {
                assert!((f32::from(*quant) * block.scale - value).abs() <= block.scale * 0.501);
            }
        }
    }
}

#[test]
fn pools_of_all_sizes_do_each_piece_once() {
    for threads in [1, 2, 3, 8] {
        let pool = Pool::new(threads, InstructionSet::Scalar);
        for count in [0, 1, 2, 3, 100, 1000] {
            for _ in 0..20 {
                let mut pieces = vec![0u8; count];
                pool.each_chunk(&mut pieces, 3, |_, piece| piece.iter_mut().for_each(|p| *p += 1));
                assert!(pieces.iter().all(|&p| p == 1), "{threads} threads, {count} pieces");
            }
        }
    }
}

#[test]
fn pools_work_after_their_threads_fell_asleep() {
    let pool = Pool::new(4, InstructionSet::Scalar);
    for _ in 0..30 {
        let done = AtomicUsize::new(0);
        pool.run(64, &|_| {
            done.fetch_add(1, Ordering::Relaxed);
            std::hint::black_box((0..1000).sum::<u64>());
        });
        assert_eq!(done.into_inner(), 64);
        std::thread::sleep(std::time::Duration::from_millis(2)); // far longer than they spin
    }
}

#[test]
fn a_panic_in_a_piece_reaches_the_caller_and_the_pool_goes_on() {
    let pool = Pool::new(3, InstructionSet::Scalar);
    for bad in [0, 17, 63] {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            pool.run(64, &|index| assert!(index != bad, "piece {index}"));
        }));
        assert!(result.is_err());
        let done = AtomicUsize::new(0);
        pool.run(64, &|_| {
            done.fetch_add(1, Ordering::Relaxed);
        });
        assert_eq!(done.into_inner(), 64);
    }
}
