//! Rotation, pages and attention: equal to the CPU engine's bits, near double precision, and blind to other pages.

mod common;

use cocoon_kernels::{Arg, Grid, Kernel, PAGE};
use cocoon_ptx_check::Buffer;
use common::{Interpreter, Random, assert_near, bits, law};

/// Some sequences in pages that are not in order.
struct Case {
    layers: usize,
    layer: usize,
    heads: usize,
    kv_heads: usize,
    head_len: usize,
    pairs: usize,
    /// Tokens of each sequence, the one of this step among them.
    tokens: Vec<usize>,
}

const TABLE_WIDTH: usize = 40;

impl Case {
    fn sizes(&self) -> Vec<u8> {
        let sizes = [self.layers, self.heads, self.kv_heads, self.head_len, self.pairs, TABLE_WIDTH];
        sizes.iter().flat_map(|size| (*size as u32).to_le_bytes()).collect()
    }

    /// Halves from the begin of the pool to the keys of a head.
    fn part(&self, page: usize, head: usize) -> usize {
        ((page * self.layers + self.layer) * self.kv_heads + head) * 2 * self.head_len * PAGE
    }

    /// The page of each 16 tokens of each sequence: backwards, and the sequences between each other.
    fn table(&self) -> (Vec<u32>, usize) {
        let each: Vec<usize> = self.tokens.iter().map(|tokens| tokens.div_ceil(PAGE)).collect();
        let pages: usize = each.iter().sum::<usize>() + 1;
        let mut next = pages as u32;
        let mut table = vec![u32::MAX; self.tokens.len() * TABLE_WIDTH];
        for index in 0..TABLE_WIDTH {
            for (sequence, _) in each.iter().enumerate().filter(|(_, each)| index < **each) {
                next -= 1;
                table[sequence * TABLE_WIDTH + index] = next;
            }
        }
        (table, pages)
    }
}

fn cases() -> Vec<Case> {
    let case = |heads, kv_heads, head_len, pairs, tokens: &[usize]| Case {
        layers: 2,
        layer: 1,
        heads,
        kv_heads,
        head_len,
        pairs,
        tokens: tokens.to_vec(),
    };
    vec![
        case(4, 2, 32, 16, &[1, 16, 17, 15]),
        case(3, 3, 16, 5, &[33, 2]),
        // More than one round of 16 pages, with a rest and without.
        case(2, 1, 48, 24, &[259, 512, 256, 5]),
        case(1, 1, 256, 128, &[40]),
    ]
}

/// What stands in the pages: key and value of each token of each sequence and KV head, as halves widened.
type Kept = Vec<Vec<Vec<(Vec<f32>, Vec<f32>)>>>;

struct Prepared {
    query: Vec<f32>,
    key: Vec<f32>,
    value: Vec<f32>,
    angles: Vec<f32>,
    before: Kept,
}

fn prepare(case: &Case, random: &mut Random) -> Prepared {
    let rows = case.tokens.len();
    let halves = |random: &mut Random| -> Vec<f32> {
        (0..case.head_len).map(|_| law::widen(law::narrow(random.unit() * 2.0))).collect()
    };
    let before = case.tokens.iter().map(|tokens| {
        let token = |random: &mut Random| (halves(random), halves(random));
        (0..case.kv_heads).map(|_| (1..*tokens).map(|_| token(random)).collect()).collect()
    });
    let before = before.collect();
    Prepared {
        before,
        query: random.floats(rows * case.heads * case.head_len, 2.0),
        key: random.floats(rows * case.kv_heads * case.head_len, 2.0),
        value: random.floats(rows * case.kv_heads * case.head_len, 2.0),
        angles: random.floats(rows * case.pairs * 2, 1.0),
    }
}

/// By the law: turned queries, all keys and values, and the result of attention.
fn expected(case: &Case, given: &Prepared) -> (Vec<f32>, Kept, Vec<f32>) {
    let factor = 1.0 / (case.head_len as f32).sqrt();
    let (mut query, mut key) = (given.query.clone(), given.key.clone());
    for row in 0..case.tokens.len() {
        let angles = given.angles[row * case.pairs * 2..][..case.pairs * 2].chunks_exact(2);
        let angles: Vec<(f32, f32)> = angles.map(|pair| (pair[0], pair[1])).collect();
        for (values, heads) in [(&mut query, case.heads), (&mut key, case.kv_heads)] {
            let width = heads * case.head_len;
            values[row * width..][..width]
                .chunks_exact_mut(case.head_len)
                .for_each(|head| law::rotate(head, &angles));
        }
    }
    query.iter_mut().for_each(|value| *value *= factor);
    assert_near(&bits(&query), &exact_turn(case, given), 1e-5, 1e-6, "the law's rotation");
    let mut kept = given.before.clone();
    let mut out = Vec::new();
    for (row, kept) in kept.iter_mut().enumerate() {
        for (head, kept) in kept.iter_mut().enumerate() {
            let at = (row * case.kv_heads + head) * case.head_len;
            let through = |values: &[f32]| -> Vec<f32> {
                values[at..at + case.head_len].iter().map(|value| law::widen(law::narrow(*value))).collect()
            };
            kept.push((through(&key), through(&given.value)));
        }
        for (head, query) in query[row * case.heads * case.head_len..][..case.heads * case.head_len]
            .chunks_exact(case.head_len)
            .enumerate()
        {
            let (keys, values): (Vec<_>, Vec<_>) =
                kept[head / (case.heads / case.kv_heads)].iter().cloned().unzip();
            let attended = law::attend(query, &keys, &values);
            assert_near(&bits(&attended), &exact(query, &keys, &values), 1e-5, 1e-5, "the law itself");
            out.extend(attended);
        }
    }
    (query, kept, out)
}

/// Queries turned and multiplied in double precision.
fn exact_turn(case: &Case, given: &Prepared) -> Vec<f64> {
    let factor = 1.0 / (case.head_len as f64).sqrt();
    let each = given.query.chunks_exact(2).enumerate().flat_map(|(index, pair)| {
        let (row, at) = (index / (case.heads * case.head_len / 2), index % (case.head_len / 2));
        let (a, b) = (f64::from(pair[0]), f64::from(pair[1]));
        let angle = (row * case.pairs + at) * 2;
        if at >= case.pairs {
            return [a * factor, b * factor];
        }
        let (cos, sin) = (f64::from(given.angles[angle]), f64::from(given.angles[angle + 1]));
        [(a * cos - b * sin) * factor, (a * sin + b * cos) * factor]
    });
    each.collect()
}

fn exact(query: &[f32], keys: &[Vec<f32>], values: &[Vec<f32>]) -> Vec<f64> {
    let dot = |key: &Vec<f32>| key.iter().zip(query).map(|(k, q)| f64::from(*k) * f64::from(*q)).sum::<f64>();
    let scores: Vec<f64> = keys.iter().map(dot).collect();
    let top = scores.iter().fold(f64::NEG_INFINITY, |top, score| top.max(*score));
    let weights: Vec<f64> = scores.iter().map(|score| (score - top).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let each = (0..query.len())
        .map(|d| weights.iter().zip(values).map(|(w, v)| w * f64::from(v[d])).sum::<f64>() / sum);
    each.collect()
}

/// The pool, with what was kept before; all else was never written, so that reading it is a fault.
fn pool(device: &mut Interpreter, case: &Case, before: &Kept, table: &[u32], pages: usize) -> Buffer {
    let halves = pages * case.layers * case.kv_heads * 2 * case.head_len * PAGE;
    let pool = device.device.allocate(halves * 2);
    let mut put =
        |at: usize, value: f32| device.device.write(pool, at * 2, &law::narrow(value).to_le_bytes());
    for (sequence, heads) in before.iter().enumerate() {
        for (head, tokens) in heads.iter().enumerate() {
            for (token, (key, value)) in tokens.iter().enumerate() {
                let page = table[sequence * TABLE_WIDTH + token / PAGE] as usize;
                let (start, slot) = (case.part(page, head), token % PAGE);
                for d in 0..case.head_len {
                    put(start + d * PAGE + slot, key[d]);
                    put(start + case.head_len * PAGE + slot * case.head_len + d, value[d]);
                }
            }
        }
    }
    pool
}

#[test]
fn attention_over_pages_has_the_bits_of_the_cpu_engine_and_is_near_double_precision() {
    let mut random = Random(7);
    for case in cases() {
        let given = prepare(&case, &mut random);
        let (query, kept, out) = expected(&case, &given);
        let (table, pages) = case.table();
        for mut device in Interpreter::all() {
            run(&mut device, &case, &given, (&query, &kept, &out), &table, pages);
        }
    }
}

fn run(
    device: &mut Interpreter,
    case: &Case,
    given: &Prepared,
    (query, kept, out): (&[f32], &Kept, &[f32]),
    table: &[u32],
    pages: usize,
) {
    let rows = case.tokens.len();
    let pool_buffer = pool(device, case, &given.before, table, pages);
    let queries = device.floats(&given.query);
    let (key, value) = (device.floats(&given.key), device.floats(&given.value));
    let angles = device.floats(&given.angles);
    let sequence = device.words(&(0..rows as u32).collect::<Vec<_>>());
    let position = device.words(&case.tokens.iter().map(|tokens| *tokens as u32 - 1).collect::<Vec<_>>());
    let table = device.words(table);
    let sizes = case.sizes();
    let layer = Arg::U32(case.layer as u32);
    let factor = 1.0 / (case.head_len as f32).sqrt();
    let rope = [
        Arg::Out(&queries, 0),
        Arg::In(&key, 0),
        Arg::In(&value, 0),
        Arg::In(&angles, 0),
        Arg::In(&sequence, 0),
        Arg::In(&position, 0),
        Arg::In(&table, 0),
        Arg::Out(&pool_buffer, 0),
        Arg::Bytes(&sizes),
        Arg::U32(case.layer as u32),
        Arg::F32(factor),
    ];
    device.go(Kernel::RopeKv, Grid::each(rows), &rope);
    assert_eq!(device.bits(queries), bits(query));
    let (tables, _) = case.table();
    let fresh = pool(device, case, kept, &tables, pages);
    assert_eq!(device.device.read_any(pool_buffer), device.device.read_any(fresh), "pages");

    let attended = device.device.allocate(out.len() * 4);
    let args = [
        Arg::In(&queries, 0),
        Arg::In(&pool_buffer, 0),
        Arg::In(&sequence, 0),
        Arg::In(&position, 0),
        Arg::In(&table, 0),
        Arg::Out(&attended, 0),
        Arg::Bytes(&sizes),
        layer,
    ];
    device.go(Kernel::Attention, Grid::attention(case.heads, rows), &args);
    assert_eq!(
        device.bits(attended),
        bits(out),
        "{} heads of {}, {:?}",
        case.heads,
        case.head_len,
        case.tokens
    );
}
