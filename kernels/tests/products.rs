//! Matrix products, norms and activations: equal to the CPU engine's bits, and near what double precision says.

mod common;

use cocoon_kernels::{Arg, BLOCK, Format, Grid, Kernel, Packed};
use common::{Interpreter, Random, assert_near, bits, law};

const FORMATS: [Format; 3] = [Format::Q4_0, Format::Q4_1, Format::Q8_0];

fn packed_input(input: &[Vec<law::Quants>]) -> Vec<u8> {
    input.iter().flatten().flat_map(law::Quants::bytes).collect()
}

/// Rows, columns, tokens: less than a tile, more than a chunk of blocks, more than a group of tokens.
const SHAPES: [(usize, usize, usize); 6] =
    [(1, 32, 1), (16, 64, 2), (17, 544, 3), (40, 96, 8), (5, 1056, 9), (33, 32, 17)];

#[test]
fn products_have_the_bits_of_the_cpu_engine_and_are_near_double_precision() {
    let mut random = Random(1);
    for format in FORMATS {
        for (rows, columns, tokens) in SHAPES {
            let blocks = columns / BLOCK;
            let data = random.blocks(format, rows * blocks);
            let floats: Vec<Vec<f32>> = (0..tokens).map(|_| random.floats(columns, 3.0)).collect();
            let input: Vec<_> = floats.iter().map(|floats| law::quantise(floats)).collect();
            let weights: Vec<&[u8]> = data.chunks_exact(blocks * format.block_bytes()).collect();
            let expected: Vec<f32> = input
                .iter()
                .flat_map(|input| weights.iter().map(|row| law::product(format, row, input)))
                .collect();
            let exact: Vec<f64> = input
                .iter()
                .flat_map(|input| weights.iter().map(|row| exact_product(format, row, input)))
                .collect();
            assert_near(&bits(&expected), &exact, 1e-5, 1e-4, "the law itself");
            let packed = Packed::new(format, rows, columns, &data).expect("fits");
            for mut device in Interpreter::all() {
                let quants = device.device.upload(&packed.quants);
                let scales = device.device.upload(&packed.scales);
                let input = device.device.upload(&packed_input(&input));
                let out = device.device.allocate(rows * tokens * 4);
                let args = [
                    Arg::In(&quants, 0),
                    Arg::In(&scales, 0),
                    Arg::In(&input, 0),
                    Arg::Out(&out, 0),
                    Arg::U32(rows as u32),
                    Arg::U32(columns as u32),
                    Arg::U32(tokens as u32),
                ];
                device.go(Kernel::Matmul(format), Grid::matmul(rows, tokens), &args);
                assert_eq!(device.bits(out), bits(&expected), "{format:?} {rows}x{columns}, {tokens} tokens");
            }
        }
    }
}

fn exact_product(format: Format, row: &[u8], input: &[law::Quants]) -> f64 {
    let blocks = row.chunks_exact(format.block_bytes()).zip(input);
    let each = blocks.map(|(block, input)| {
        let (scale, least, quants) = law::read_block(format, block);
        let weight = |quant: i32| f64::from(quant) * f64::from(scale) + f64::from(least);
        let pairs = quants.iter().zip(input.quants);
        pairs.map(|(w, a)| weight(*w) * f64::from(a) * f64::from(input.scale)).sum::<f64>()
    });
    each.sum()
}

#[test]
fn the_largest_quants_do_not_overflow_a_dot() {
    // All bytes -128 or 127 against all activations 127 or -127.
    for (weight, value) in [(0x80u8, 1.0f32), (0x7f, 1.0), (0x80, -1.0)] {
        let block: Vec<u8> = law::narrow(1.0).to_le_bytes().into_iter().chain([weight; 32]).collect();
        let input = law::quantise(&[value; 32]);
        let packed = Packed::new(Format::Q8_0, 1, 32, &block).expect("fits");
        for mut device in Interpreter::all() {
            let (quants, scales) =
                (device.device.upload(&packed.quants), device.device.upload(&packed.scales));
            let words = device.device.upload(&input[0].bytes());
            let out = device.device.allocate(4);
            let args = [
                Arg::In(&quants, 0),
                Arg::In(&scales, 0),
                Arg::In(&words, 0),
                Arg::Out(&out, 0),
                Arg::U32(1),
                Arg::U32(32),
                Arg::U32(1),
            ];
            device.go(Kernel::Matmul(Format::Q8_0), Grid::matmul(1, 1), &args);
            let dot = i32::from(weight as i8) * 127 * 32 * value as i32;
            assert_eq!(device.bits(out), [(dot as f32 * (1.0 / 127.0f32)).to_bits()]);
        }
    }
}

#[test]
fn embeddings_are_rows_of_their_matrix() {
    let mut random = Random(2);
    for format in FORMATS {
        let (rows, columns) = (37, 160);
        let data = random.blocks(format, rows * columns / BLOCK);
        let tokens = [0, 36, 15, 16, 16];
        let row_bytes = columns / BLOCK * format.block_bytes();
        let expected: Vec<f32> = tokens
            .iter()
            .flat_map(|token| data[token * row_bytes..][..row_bytes].chunks_exact(format.block_bytes()))
            .flat_map(|block| {
                let (scale, least, quants) = law::read_block(format, block);
                quants.map(|quant| (quant as f32).mul_add(scale, least))
            })
            .collect();
        let packed = Packed::new(format, rows, columns, &data).expect("fits");
        for mut device in Interpreter::all() {
            let (quants, scales) =
                (device.device.upload(&packed.quants), device.device.upload(&packed.scales));
            let list = device.words(&tokens.map(|token| token as u32));
            let out = device.device.allocate(expected.len() * 4);
            let args = [
                Arg::In(&quants, 0),
                Arg::In(&scales, 0),
                Arg::In(&list, 0),
                Arg::Out(&out, 0),
                Arg::U32(columns as u32),
            ];
            device.go(Kernel::Embed(format), Grid::each(tokens.len()), &args);
            assert_eq!(device.bits(out), bits(&expected), "{format:?}");
        }
    }
}

/// Rows with a bit of everything: usual numbers, zeros, tiny ones, huge ones, and one alone.
fn rows(random: &mut Random, count: usize, columns: usize) -> Vec<Vec<f32>> {
    (0..count)
        .map(|row| match row % 5 {
            0 => random.floats(columns, 2.0),
            1 => vec![0.0; columns],
            2 => random.floats(columns, 1e-32),
            3 => random.floats(columns, 1e15),
            _ => (0..columns).map(|column| if column == 40 % columns { -3.5 } else { 0.0 }).collect(),
        })
        .collect()
}

fn quants_bytes(rows: &[Vec<f32>]) -> Vec<u8> {
    rows.iter().flat_map(|row| law::quantise(row)).flat_map(|quants| quants.bytes()).collect()
}

#[test]
fn norms_have_the_bits_of_the_cpu_engine_and_are_near_double_precision() {
    let mut random = Random(3);
    for columns in [32, 96, 288, 576] {
        let x = rows(&mut random, 5, columns);
        let weight = random.floats(columns, 1.5);
        let expected: Vec<Vec<f32>> = x.iter().map(|x| law::rms_norm(x, &weight, 1e-5)).collect();
        for (x, norm) in x.iter().zip(&expected) {
            let mean = x.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / columns as f64;
            let factor = 1.0 / (mean + 1e-5).sqrt();
            let exact: Vec<f64> =
                x.iter().zip(&weight).map(|(x, w)| f64::from(*x) * factor * f64::from(*w)).collect();
            assert_near(&bits(norm), &exact, 1e-5, 1e-30, "the law itself");
        }
        for mut device in Interpreter::all() {
            let (x, weight) = (device.floats(&x.concat()), device.floats(&weight));
            let out = device.device.allocate(5 * columns / BLOCK * 48);
            let args = [
                Arg::In(&x, 0),
                Arg::In(&weight, 0),
                Arg::Out(&out, 0),
                Arg::U32(columns as u32),
                Arg::F32(1e-5),
            ];
            device.go(Kernel::RmsNorm, Grid::each(5), &args);
            assert_eq!(
                device.device.read(out),
                Some(quants_bytes(&expected).as_slice()),
                "{columns} columns"
            );
        }
    }
}

#[test]
fn quantised_rows_have_the_bits_of_the_cpu_engine() {
    let mut random = Random(4);
    let mut x = rows(&mut random, 10, 96);
    // Ties: halves of a step, for a scale of one.
    x.push((0..96).map(|column| if column % 32 == 0 { 127.0 } else { column as f32 - 47.5 }).collect());
    for mut device in Interpreter::all() {
        let from = device.floats(&x.concat());
        let out = device.device.allocate(33 * 48);
        device.go(Kernel::Quantise, Grid::blocks(33), &[Arg::In(&from, 0), Arg::Out(&out, 0), Arg::U32(33)]);
        assert_eq!(device.device.read(out), Some(quants_bytes(&x).as_slice()));
    }
    for (values, quants) in
        x.iter().flat_map(|row| row.chunks(32)).zip(x.iter().flat_map(|row| law::quantise(row)))
    {
        let largest = values.iter().fold(0.0f64, |most, value| most.max(f64::from(value.abs())));
        for (value, quant) in values.iter().zip(quants.quants) {
            let back = f64::from(quants.scale) * f64::from(quant);
            assert!(
                (back - f64::from(*value)).abs() <= largest / 127.0 * 0.5001 + 2e-30,
                "{value} became {back}"
            );
        }
    }
}

#[test]
fn gated_activations_have_the_bits_of_the_cpu_engine_and_are_near_double_precision() {
    let mut random = Random(5);
    let mut gate = random.floats(32 * 9, 20.0);
    let extremes = [0.0, -0.0, 87.0, -87.0, 88.1, -88.1, 1e30, -1e4, 1e-40];
    gate[..extremes.len()].copy_from_slice(&extremes);
    let up = random.floats(gate.len(), 2.0);
    let expected = law::swiglu(&gate, &up);
    let exact: Vec<f64> = gate
        .iter()
        .zip(&up)
        .map(|(gate, up)| f64::from(*gate) / (1.0 + (-f64::from(*gate)).exp()) * f64::from(*up))
        .collect();
    assert_near(&bits(&expected), &exact, 1e-6, 1e-33, "the law itself");
    for mut device in Interpreter::all() {
        let (gate, up) = (device.floats(&gate), device.floats(&up));
        let out = device.device.allocate(9 * 48);
        let args = [Arg::In(&gate, 0), Arg::In(&up, 0), Arg::Out(&out, 0), Arg::U32(9)];
        device.go(Kernel::Swiglu, Grid::blocks(9), &args);
        assert_eq!(device.device.read(out), Some(quants_bytes(std::slice::from_ref(&expected)).as_slice()));
    }
}

#[test]
fn residuals_add_what_is_there_and_no_more() {
    let mut random = Random(6);
    for count in [1, 255, 256, 300] {
        let (x, y) = (random.floats(count, 5.0), random.floats(count, 5.0));
        let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| x + y).collect();
        for mut device in Interpreter::all() {
            let (x, y) = (device.floats(&x), device.floats(&y));
            device.go(
                Kernel::Residual,
                Grid::numbers(count),
                &[Arg::Out(&x, 0), Arg::In(&y, 0), Arg::U32(count as u32)],
            );
            assert_eq!(device.bits(x), bits(&expected));
        }
    }
}
