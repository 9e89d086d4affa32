//! Kernels against each other, bit for bit, and against plain double precision.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::container::Format;

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
            Format::Bf16 => data.extend(((numbers.float().to_bits() >> 16) as u16).to_le_bytes()),
            _ => {
                let mut block: Vec<u8> = (0..format.block_bytes()).map(|_| numbers.next() as u8).collect();
                let mut scale = |at: usize, size: f32| {
                    block[at..at + 2].copy_from_slice(&half::narrow(numbers.float() * size).to_le_bytes());
                };
                match format {
                    Format::Q6K => scale(208, 0.003),
                    Format::Q4K | Format::Q5K => (scale(0, 0.003), scale(2, 0.03)).1,
                    Format::Q4_1 => (scale(0, 0.1), scale(2, 1.0)).1,
                    _ => scale(0, 0.1),
                }
                data.extend(block);
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

const FORMATS: [(Format, &str); 10] = [
    (Format::F32, "F32"),
    (Format::F16, "F16"),
    (Format::Bf16, "BF16"),
    (Format::Q4_0, "Q4_0"),
    (Format::Q4_1, "Q4_1"),
    (Format::Q5_0, "Q5_0"),
    (Format::Q8_0, "Q8_0"),
    (Format::Q4K, "Q4_K"),
    (Format::Q5K, "Q5_K"),
    (Format::Q6K, "Q6_K"),
];

#[test]
fn products_have_the_same_bits_on_every_set_and_with_any_number_of_tokens() {
    for (seed, (format, _)) in (1..).zip(FORMATS) {
        for (rows, blocks, tokens) in [(16, 1, 1), (40, 3, 3), (33, 18, 8), (64, 2, 13), (7, 1, 20)] {
            let columns = blocks * format.block_len().max(32);
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

/// Bytes of hexadecimal digits.
#[test]
fn a_matrix_gives_back_the_bytes_that_it_was_packed_from() {
    let mut numbers = Numbers(77);
    for (format, name) in FORMATS {
        for (rows, columns) in [(1, 256), (16, 512), (37, 768)] {
            let data = tensor(&mut numbers, format, rows, columns);
            let matrix = Matrix::pack(format, rows, columns, &data);
            assert_eq!((matrix.format(), matrix.columns()), (format, columns));
            assert!(matrix.unpack() == data, "{name}, {rows} rows of {columns}");
        }
    }
}

fn bytes_of(hex: &serde_json::Value) -> Vec<u8> {
    let digits = hex.as_str().expect("text").as_bytes().chunks_exact(2);
    digits.map(|two| u8::from_str_radix(str::from_utf8(two).expect("ASCII"), 16).expect("digits")).collect()
}

/// What `scripts/oracle/blocks.py` wrote down.
#[test]
fn all_formats_widen_to_the_bits_of_ggmls_reference() {
    let cases: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../../tests/fixtures/blocks.json")).expect("it is JSON");
    for (format, name) in FORMATS {
        let case = cases.iter().find(|case| case["format"] == name).expect("every format has its case");
        let matrix = Matrix::pack(format, 1, 512, &bytes_of(&case["data"]));
        let mut row = vec![0.0; 512];
        matrix.row(0, &mut row);
        for (column, (found, bits)) in row.iter().zip(bytes_of(&case["floats"]).chunks_exact(4)).enumerate() {
            let expected = f32::from_le_bytes(bits.try_into().expect("four bytes"));
            // Zero times a negative scale: ggml's own order of factors decides on the sign of a zero.
            assert!(*found == expected, "{name}, column {column}: {found:e}, not {expected:e}");
        }
    }
}

#[test]
fn no_sum_of_six_bit_weights_is_too_large_to_be_exact() {
    // The largest weights and scales with the largest activations, all of one sign.
    let mut block = vec![0u8; 210];
    block[192..208].fill(0x80); // -128 times (0 - 32)
    block[208..].copy_from_slice(&half::narrow(1.0).to_le_bytes());
    let matrix = Matrix::pack(Format::Q6K, 1, 256, &block);
    for set in sets() {
        let mut input = Activations::new(256);
        input.floats.fill(127.0);
        input.quantise(set, 256);
        let mut out = vec![0.0; TILE];
        multiply(&Pool::new(1, set), &[&matrix], &[input], &mut out);
        assert_eq!(out[0], 256.0 * 32.0 * 128.0 * 127.0, "{}", set.name());
    }
}

#[test]
fn weights_and_scales_that_are_not_numbers_are_seen() {
    for (seed, (format, name)) in (1..).zip(FORMATS) {
        let columns = format.block_len().max(32);
        let data = tensor(&mut Numbers(seed * 31), format, 3, columns);
        assert!(Matrix::pack(format, 3, columns, &data).is_finite(), "{name}");
        let at = data.len() / 3 * 2; // in the last row
        let (place, bad) = match format {
            Format::F32 => (at, f32::NAN.to_le_bytes().to_vec()),
            Format::Bf16 => (at + 4, 0x7f80u16.to_le_bytes().to_vec()),
            Format::Q6K => (at + 208, 0x7e00u16.to_le_bytes().to_vec()),
            Format::Q4K | Format::Q5K | Format::Q4_1 => (at + 2, 0xfc00u16.to_le_bytes().to_vec()),
            _ => (at, 0x7c00u16.to_le_bytes().to_vec()),
        };
        let mut data = data;
        data[place..place + bad.len()].copy_from_slice(&bad);
        assert!(!Matrix::pack(format, 3, columns, &data).is_finite(), "{name}");
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
        geglu(set, &tiles, &tiles, 3, 1, &mut out);
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
    for (first, tokens) in [(0, 1), (0, 15), (0, 16), (0, 17), (0, 50), (3, 17), (16, 40), (31, 32), (49, 50)]
    {
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
            attend(set, &[Query { values: &query, first, end: tokens }], sequence, 1, 1, &mut out);
            out
        };
        let expected = result(InstructionSet::Scalar);
        for set in sets() {
            assert_eq!(result(set), expected, "{} over {first}..{tokens}", set.name());
        }
        let score = |key: &Vec<f32>| -> f64 {
            query.iter().zip(&key[32..]).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>().exp()
        };
        let total: f64 = keys[first..].iter().map(score).sum();
        for lane in 0..32 {
            let mean: f64 = keys
                .iter()
                .zip(&values)
                .skip(first)
                .map(|(k, v)| score(k) / total * f64::from(v[32 + lane]))
                .sum();
            assert!((mean - f64::from(expected[lane])).abs() < 1e-5, "tokens {first}..{tokens}, lane {lane}");
        }
    }
}

#[test]
fn gelu_is_right_to_a_millionth() {
    let gate: Vec<f32> = (-160..160).map(|step| step as f32 * 0.05).collect();
    let up = vec![1.0; gate.len()];
    let mut out = vec![0.0; gate.len()];
    for set in sets() {
        geglu(set, &gate, &up, 1, 0, &mut out);
        for (x, found) in gate.iter().map(|x| f64::from(*x)).zip(&out) {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            let exact = 0.5 * x * (1.0 + libm::tanh(inner));
            assert!(
                (f64::from(*found) - exact).abs() < 1e-6 + exact.abs() * 1e-6,
                "gelu({x}) is {exact}, not {found}"
            );
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
            assert_eq!(block.first, quants[..16].iter().map(|q| i32::from(*q)).sum::<i32>());
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
                let mut firsts = vec![usize::MAX; count];
                pool.each_run(&mut firsts, 3, |first, run| {
                    run.iter_mut().enumerate().for_each(|(i, place)| *place = first * 3 + i);
                });
                assert!(firsts.iter().enumerate().all(|(i, place)| *place == i), "{threads} threads");
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

#[test]
fn kernels_of_encoders_have_the_same_bits_on_every_set_and_are_right() {
    let mut numbers = Numbers(17);
    let mut floats =
        |count: usize, size: f32| -> Vec<f32> { (0..count).map(|_| numbers.float() * size).collect() };
    let (x, weight, bias) = (floats(104, 9.0), floats(104, 2.0), floats(104, 1.0));
    let (query, keys, values) = (floats(32, 1.0), floats(96 * 7, 2.0), floats(96 * 7, 1.0));
    let results = |set| {
        let mut normed = x.clone();
        layer_norm(set, &mut normed, &weight, &bias, 1e-6);
        let mut curved = x.clone();
        gelu(set, &mut curved);
        let (mut scores, mut out) = (vec![0.0; 7], vec![0.0; 32]);
        attend_to_all(set, &query, &keys[32..], &values[32..], 96, &mut scores, &mut out);
        [normed, curved, out]
    };
    let expected = results(InstructionSet::Scalar);
    for set in sets() {
        assert_eq!(results(set), expected, "{}", set.name());
    }
    let mean = x.iter().map(|v| f64::from(*v)).sum::<f64>() / 104.0;
    let deviation = (x.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / 104.0 + 1e-6).sqrt();
    let score = |token: usize| -> f64 {
        let key = &keys[token * 96 + 32..];
        query.iter().zip(key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>().exp()
    };
    let total: f64 = (0..7).map(score).sum();
    for at in 0..104 {
        let exact = (f64::from(x[at]) - mean) / deviation * f64::from(weight[at]) + f64::from(bias[at]);
        assert!((f64::from(expected[0][at]) - exact).abs() < 2e-6, "norm of {}", x[at]);
        let exact = f64::from(x[at]) / 2.0 * (1.0 + libm::erf(f64::from(x[at]) / 2f64.sqrt()));
        assert!((f64::from(expected[1][at]) - exact).abs() < 2e-6, "gelu({})", x[at]);
    }
    for lane in 0..32 {
        let exact: f64 =
            (0..7).map(|token| score(token) / total * f64::from(values[token * 96 + 32 + lane])).sum();
        assert!((f64::from(expected[2][lane]) - exact).abs() < 1e-6, "lane {lane}");
    }
}
