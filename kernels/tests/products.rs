//! Matrix products, norms and activations: equal to the CPU engine's bits, and near what double precision says.

mod common;

use cocoon_kernels::{Arg, BLOCK, Format, Grid, Kernel, Packed};
use common::{Interpreter, Random, assert_near, bits, law};

/// Rows, columns, tokens: less than a tile, more than a chunk of blocks, more than a group of tokens.
const SHAPES: [(usize, usize, usize); 6] =
    [(1, 32, 1), (16, 64, 2), (17, 544, 3), (40, 96, 8), (5, 1056, 9), (33, 32, 17)];
/// For formats of 256 columns.
const LARGE_SHAPES: [(usize, usize, usize); 4] = [(1, 256, 1), (17, 512, 3), (33, 768, 9), (5, 256, 17)];

/// A matrix on a device, its input and its output.
struct Product {
    weights: Vec<cocoon_ptx_check::Buffer>,
    input: cocoon_ptx_check::Buffer,
    out: cocoon_ptx_check::Buffer,
}

impl Product {
    fn new(device: &mut Interpreter, packed: &Packed, floats: &[Vec<f32>]) -> Self {
        let mut weights = vec![device.device.upload(&packed.quants)];
        let input = if packed.format.is_numbers() {
            device.floats(&floats.concat())
        } else {
            weights.push(device.device.upload(&packed.scales));
            device.device.upload(&quants_bytes(floats))
        };
        let out = device.device.allocate(packed.rows * floats.len() * 4);
        Self { weights, input, out }
    }

    /// All bits of what comes out.
    fn run(&self, device: &mut Interpreter, packed: &Packed, tokens: usize) -> Vec<u32> {
        let mut args: Vec<Arg<'_, _>> = self.weights.iter().map(|buffer| Arg::In(buffer, 0)).collect();
        args.extend([
            Arg::In(&self.input, 0),
            Arg::Out(&self.out, 0),
            Arg::U32(packed.rows as u32),
            Arg::U32(packed.columns as u32),
            Arg::U32(tokens as u32),
        ]);
        let grid = Grid::matmul(packed.format, packed.rows, tokens);
        device.go(Kernel::Matmul(packed.format), grid, &args);
        device.bits(self.out)
    }
}

#[test]
fn products_have_the_bits_of_the_cpu_engine_and_are_near_double_precision() {
    let mut random = Random(1);
    for format in Format::ALL {
        let shapes = if format.block_len() > BLOCK { &LARGE_SHAPES[..] } else { &SHAPES };
        for (rows, columns, tokens) in shapes.iter().copied() {
            let blocks = columns / format.block_len();
            let data = random.blocks(format, rows * blocks);
            let floats: Vec<Vec<f32>> = (0..tokens).map(|_| random.floats(columns, 3.0)).collect();
            let weights: Vec<&[u8]> = data.chunks_exact(blocks * format.block_bytes()).collect();
            let each = |of: &dyn Fn(&[u8], &[f32]) -> f64| -> Vec<f64> {
                floats.iter().flat_map(|floats| weights.iter().map(|row| of(row, floats))).collect()
            };
            let expected: Vec<f32> = floats
                .iter()
                .flat_map(|floats| weights.iter().map(|row| law::product(format, row, floats)))
                .collect();
            let exact = each(&|row, floats| exact_product(format, row, floats));
            assert_near(&bits(&expected), &exact, 1e-5, 3e-4, "the law itself");
            let packed = Packed::new(format, rows, columns, &data).expect("fits");
            for mut device in Interpreter::all() {
                let product = Product::new(&mut device, &packed, &floats);
                let found = product.run(&mut device, &packed, tokens);
                assert_eq!(found, bits(&expected), "{format:?} {rows}x{columns}, {tokens} tokens");
            }
        }
    }
}

/// With the activations as they were rounded, if they were.
fn exact_product(format: Format, row: &[u8], floats: &[f32]) -> f64 {
    let rounded: Vec<f64> = match format.is_numbers() {
        true => floats.iter().map(|value| f64::from(*value)).collect(),
        false => {
            let values = |q: law::Quants| q.quants.map(|quant| f64::from(quant) * f64::from(q.scale));
            law::quantise(floats).into_iter().flat_map(values).collect()
        }
    };
    law::row(format, row).iter().zip(rounded).map(|(weight, value)| f64::from(*weight) * value).sum()
}

#[test]
fn the_largest_quants_do_not_overflow_a_dot() {
    // All bytes -128 or 127 against all activations 127 or -127.
    for (weight, value) in [(0x80u8, 1.0f32), (0x7f, 1.0), (0x80, -1.0)] {
        let block: Vec<u8> = law::narrow(1.0).to_le_bytes().into_iter().chain([weight; 32]).collect();
        let packed = Packed::new(Format::Q8_0, 1, 32, &block).expect("fits");
        for mut device in Interpreter::all() {
            let product = Product::new(&mut device, &packed, &[vec![value; 32]]);
            let found = product.run(&mut device, &packed, 1);
            let dot = i32::from(weight as i8) * 127 * 32 * value as i32;
            assert_eq!(found, [(dot as f32 * (1.0 / 127.0f32)).to_bits()]);
        }
    }
}

#[test]
fn no_sum_of_six_bit_weights_is_too_large_to_be_exact() {
    // All weights -32, all steps -128, all activations 127 or -127.
    let mut block = vec![0u8; 210];
    block[192..208].fill(0x80);
    block[208..].copy_from_slice(&law::narrow(1.0).to_le_bytes());
    let packed = Packed::new(Format::Q6K, 1, 256, &block).expect("fits");
    for value in [1.0f32, -1.0] {
        let expected = law::product(Format::Q6K, &block, &[value; 256]);
        for mut device in Interpreter::all() {
            let product = Product::new(&mut device, &packed, &[vec![value; 256]]);
            assert_eq!(product.run(&mut device, &packed, 1), [expected.to_bits()]);
        }
        assert!((f64::from(expected) / (8.0 * 32.0 * 32.0 * 128.0 * f64::from(value)) - 1.0).abs() < 1e-6);
    }
}

#[test]
fn embeddings_are_rows_of_their_matrix() {
    let mut random = Random(2);
    for format in Format::ALL {
        let (rows, columns) = (37, if format.block_len() > BLOCK { 512 } else { 160 });
        let data = random.blocks(format, rows * columns / format.block_len());
        let tokens = [0, 36, 15, 16, 16];
        let row_bytes = columns / format.block_len() * format.block_bytes();
        let expected: Vec<f32> = tokens
            .iter()
            .flat_map(|token| law::row(format, &data[token * row_bytes..][..row_bytes]))
            .collect();
        let packed = Packed::new(format, rows, columns, &data).expect("fits");
        for mut device in Interpreter::all() {
            let quants = device.device.upload(&packed.quants);
            let scales = device.device.upload(&packed.scales);
            let list = device.words(&tokens.map(|token| token as u32));
            let out = device.device.allocate(expected.len() * 4);
            let mut args = vec![Arg::In(&quants, 0)];
            if !format.is_numbers() {
                args.push(Arg::In(&scales, 0));
            }
            args.extend([Arg::In(&list, 0), Arg::Out(&out, 0), Arg::U32(columns as u32)]);
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
            let floats = device.device.allocate(5 * columns * 4);
            let args = [
                Arg::In(&x, 0),
                Arg::In(&weight, 0),
                Arg::Out(&floats, 0),
                Arg::Out(&out, 0),
                Arg::U32(columns as u32),
                Arg::F32(1e-5),
            ];
            device.go(Kernel::RmsNorm, Grid::each(5), &args);
            assert_eq!(device.bits(floats), bits(&expected.concat()));
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
        let floats = device.device.allocate(9 * BLOCK * 4);
        let args = [Arg::In(&gate, 0), Arg::In(&up, 0), Arg::Out(&floats, 0), Arg::Out(&out, 0), Arg::U32(9)];
        device.go(Kernel::Swiglu, Grid::blocks(9), &args);
        assert_eq!(device.bits(floats), bits(&expected));
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
