//! Faults planted into the PTX that ships, one at a time: each is found, in every order, and its clean twin passes.

mod common;

use cocoon_kernels::{Arg, BLOCK, Backend as _, Format, Grid, Kernel, PAGE, Packed, TARGETS, Target, ptx};
use cocoon_ptx_check::{Buffer, FaultKind, Grid as CheckGrid, LaunchError, Module, Order, Space};
use common::{Interpreter, ORDERS, Random, law, translate};

/// Runs a kernel from this text, on input that it passes with when nothing is planted.
type Bed = fn(&str, Target, Order) -> Result<(), LaunchError>;

fn launch(
    device: &mut Interpreter,
    text: &str,
    kernel: Kernel,
    grid: Grid,
    args: &[Arg<'_, Buffer>],
) -> Result<(), LaunchError> {
    let module = Module::parse(text).unwrap_or_else(|error| panic!("{error}"));
    let args: Vec<_> = args.iter().map(translate).collect();
    let grid = CheckGrid::new(grid.x, grid.y, grid.threads);
    device.device.launch(&module, kernel.entry(), grid, &args, device.order).map(drop)
}

fn matmul(text: &str, target: Target, order: Order) -> Result<(), LaunchError> {
    // 33 blocks of columns: three chunks, so that both buffers are used twice.
    product(text, target, order, Format::Q8_0, 33 * BLOCK)
}

fn matmul_q6_k(text: &str, target: Target, order: Order) -> Result<(), LaunchError> {
    product(text, target, order, Format::Q6K, 40 * BLOCK)
}

fn product(
    text: &str,
    target: Target,
    order: Order,
    format: Format,
    columns: usize,
) -> Result<(), LaunchError> {
    let (mut device, mut random) = (Interpreter::new(target, order), Random(1));
    let (rows, tokens) = (20, 3);
    let data = random.blocks(format, rows * columns / format.block_len());
    let packed = Packed::new(format, rows, columns, &data).expect("fits");
    let input: Vec<u8> =
        law::quantise(&random.floats(columns * tokens, 2.0)).iter().flat_map(law::Quants::bytes).collect();
    let (quants, scales) = (device.device.upload(&packed.quants), device.device.upload(&packed.scales));
    let input = device.device.upload(&input);
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
    launch(&mut device, text, Kernel::Matmul(format), Grid::matmul(format, rows, tokens), &args)
}

fn matmul_f16(text: &str, target: Target, order: Order) -> Result<(), LaunchError> {
    let (mut device, mut random) = (Interpreter::new(target, order), Random(5));
    let (rows, columns, tokens) = (20, 64, 5);
    let packed = Packed::new(Format::F16, rows, columns, &random.blocks(Format::F16, rows * columns));
    let weights = device.device.upload(&packed.expect("fits").quants);
    let (input, out) = (random.floats(columns * tokens, 2.0), device.device.allocate(rows * tokens * 4));
    let input = device.floats(&input);
    let args = [
        Arg::In(&weights, 0),
        Arg::In(&input, 0),
        Arg::Out(&out, 0),
        Arg::U32(rows as u32),
        Arg::U32(columns as u32),
        Arg::U32(tokens as u32),
    ];
    let grid = Grid::matmul(Format::F16, rows, tokens);
    launch(&mut device, text, Kernel::Matmul(Format::F16), grid, &args)
}

fn residual(text: &str, target: Target, order: Order) -> Result<(), LaunchError> {
    let mut device = Interpreter::new(target, order);
    let (x, y) = (device.floats(&[1.0; 300]), device.floats(&[2.0; 300]));
    let args = [Arg::Out(&x, 0), Arg::In(&y, 0), Arg::U32(300)];
    launch(&mut device, text, Kernel::Residual, Grid::numbers(300), &args)
}

fn rms_norm(text: &str, target: Target, order: Order) -> Result<(), LaunchError> {
    let mut device = Interpreter::new(target, order);
    let (x, weight) = (device.floats(&[1.0; 192]), device.floats(&[2.0; 96]));
    let (out, floats) = (device.device.allocate(6 * 48), device.device.allocate(192 * 4));
    let args = [
        Arg::In(&x, 0),
        Arg::In(&weight, 0),
        Arg::Out(&floats, 0),
        Arg::Out(&out, 0),
        Arg::U32(96),
        Arg::F32(1e-5),
    ];
    launch(&mut device, text, Kernel::RmsNorm, Grid::each(2), &args)
}

fn attention(text: &str, target: Target, order: Order) -> Result<(), LaunchError> {
    let (mut device, mut random) = (Interpreter::new(target, order), Random(2));
    let (tokens, head_len, pages) = (300usize, 16usize, 19usize);
    let query = random.floats(head_len, 1.0);
    let query = device.floats(&query);
    let halves = random.floats(pages * 2 * head_len * PAGE, 1.0);
    let halves: Vec<u8> = halves.iter().flat_map(|value| law::narrow(*value).to_le_bytes()).collect();
    let pool = device.device.upload(&halves);
    let (sequence, position) = (device.words(&[0]), device.words(&[tokens as u32 - 1]));
    let table = device.words(&(0..pages as u32).collect::<Vec<_>>());
    let sizes: Vec<u8> =
        [1, 1, 1, head_len as u32, 8, pages as u32].iter().flat_map(|size| size.to_le_bytes()).collect();
    let out = device.device.allocate(head_len * 4);
    let args = [
        Arg::In(&query, 0),
        Arg::In(&pool, 0),
        Arg::In(&sequence, 0),
        Arg::In(&position, 0),
        Arg::In(&table, 0),
        Arg::Out(&out, 0),
        Arg::Bytes(&sizes),
        Arg::U32(0),
    ];
    launch(&mut device, text, Kernel::Attention, Grid::attention(1, 1), &args)
}

fn likeliest(text: &str, target: Target, order: Order) -> Result<(), LaunchError> {
    let (mut device, mut random) = (Interpreter::new(target, order), Random(3));
    let logits = device.floats(&random.floats(600, 3.0));
    let recent = device.words(&(0..256).rev().collect::<Vec<_>>());
    let mut choice = [0u8; 40];
    choice[8..12].copy_from_slice(&1.5f32.to_le_bytes());
    choice[12] = 200;
    let (choices, chosen) = (device.device.upload(&choice), device.device.allocate(16));
    let args = [
        Arg::Out(&logits, 0),
        Arg::In(&recent, 0),
        Arg::In(&choices, 0),
        Arg::Out(&chosen, 0),
        Arg::U32(600),
    ];
    launch(&mut device, text, Kernel::Likeliest, Grid::each(1), &args)?;
    assert!(device.read(&chosen, 16).is_ok());
    Ok(())
}

/// Two sequences: one that sorts its candidates, and one that takes all.
fn draw(text: &str, target: Target, order: Order) -> Result<(), LaunchError> {
    let (mut device, mut random) = (Interpreter::new(target, order), Random(4));
    let logits = device.floats(&random.floats(1200, 1.0));
    let mut choices = [0u8; 80];
    for (at, top_p) in [(0, 0.9f32), (40, 1.0)] {
        choices[at..at + 4].copy_from_slice(&1.5f32.to_le_bytes());
        choices[at + 4..at + 8].copy_from_slice(&top_p.to_le_bytes());
    }
    let (keys, choices) = (device.device.allocate(2 * 1024 * 8), device.device.upload(&choices));
    let chosen = device.words(&[7, 1.0f32.to_bits(), 0, 1, 7, 1.0f32.to_bits(), 0, 1]);
    let args = [
        Arg::Out(&logits, 0),
        Arg::Out(&keys, 0),
        Arg::In(&choices, 0),
        Arg::Out(&chosen, 0),
        Arg::U32(600),
        Arg::U32(1024),
    ];
    launch(&mut device, text, Kernel::Draw, Grid::each(2), &args)
}

fn canary(text: &str, target: Target, order: Order) -> Result<(), LaunchError> {
    let mut device = Interpreter::new(target, order);
    let (words, out) = (device.words(&cocoon_kernels::canary::question(1)), device.device.allocate(1024));
    launch(&mut device, text, Kernel::Canary, Grid::each(1), &[Arg::In(&words, 0), Arg::Out(&out, 0)])
}

fn scrub_check(text: &str, target: Target, order: Order) -> Result<(), LaunchError> {
    let mut device = Interpreter::new(target, order);
    let pages = device.device.upload(&[1; 512 * 16]);
    let (list, dirty) = (device.words(&[0]), device.words(&[0]));
    let args = [Arg::In(&pages, 0), Arg::In(&list, 0), Arg::Out(&dirty, 0), Arg::U32(512)];
    launch(&mut device, text, Kernel::ScrubCheck, Grid::each(1), &args)
}

/// The text with the `index`th line that holds `mark` edited; `None` when there are fewer.
fn edit(text: &str, mark: &str, index: usize, change: impl Fn(&str) -> String) -> Option<String> {
    let mut seen = 0;
    let lines: Vec<String> = text
        .lines()
        .map(|line| {
            let here = line.contains(mark);
            seen += usize::from(here);
            if here && seen == index + 1 { change(line) } else { line.to_owned() }
        })
        .collect();
    (seen > index).then(|| lines.join("\n"))
}

/// The entry of this name alone, with what stands before and after all of them.
fn only(text: &str, entry: &str) -> String {
    let mut pieces = text.split(".visible .entry ");
    let head = pieces.next().unwrap_or_default();
    let body = pieces.find(|piece| piece.starts_with(&format!("{entry}("))).expect("the entry");
    let body = &body[..body.rfind('}').expect("its end") + 1];
    let files: String = text
        .lines()
        .filter(|line| line.trim_start().starts_with(".file"))
        .map(|l| format!("{l}\n"))
        .collect();
    format!("{head}.visible .entry {body}\n{files}")
}

const BEDS: [(&str, &str, Bed); 10] = [
    ("matmul", "matmul_q8_0", matmul),
    ("matmul", "matmul_q6_k", matmul_q6_k),
    ("matmul_numbers", "matmul_f16", matmul_f16),
    ("residual", "residual", residual),
    ("rms_norm", "rms_norm", rms_norm),
    ("attention", "attention", attention),
    ("likeliest", "likeliest", likeliest),
    ("scrub_check", "scrub_check", scrub_check),
    ("draw", "draw", draw),
    ("canary", "canary", canary),
];

fn texts() -> impl Iterator<Item = (&'static str, Target, String, Bed)> {
    BEDS.into_iter().flat_map(|(module, entry, bed)| {
        TARGETS.map(|target| (module, target, only(ptx(module, target).expect("listed"), entry), bed))
    })
}

/// What each order finds.
fn faults(text: &str, target: Target, bed: Bed) -> Vec<FaultKind> {
    faults_of("", text, target, bed)
}

fn faults_of(what: &str, text: &str, target: Target, bed: Bed) -> Vec<FaultKind> {
    let found = ORDERS.iter().map(|order| match bed(text, target, *order) {
        Err(error) => error.fault().unwrap_or_else(|| panic!("{error}")).kind.clone(),
        Ok(()) => panic!("{what} {order:?}, {target:?}: the planted fault is not found"),
    });
    found.collect()
}

#[test]
fn what_ships_passes() {
    for (module, target, text, bed) in texts() {
        for order in ORDERS {
            bed(&text, target, order)
                .unwrap_or_else(|error| panic!("{module}, {target:?}, {order:?}: {error}"));
        }
    }
}

#[test]
fn every_removed_barrier_is_found() {
    let mut planted = 0;
    for (module, target, text, bed) in texts() {
        for index in 0.. {
            let Some(broken) = edit(&text, "bar.sync", index, |_| String::new()) else { break };
            for kind in faults(&broken, target, bed) {
                assert!(
                    matches!(kind, FaultKind::Race { .. } | FaultKind::UninitialisedMemory { .. }),
                    "{module}, {target:?}, barrier {index}: {kind}"
                );
            }
            planted += 1;
        }
    }
    assert!(planted >= 3 * 9, "{planted} barriers");
}

#[test]
fn a_bound_that_is_off_by_one_is_found() {
    for target in TARGETS {
        for (module, entry, bed, mark) in [
            ("residual", "residual", residual as Bed, "setp."),
            ("scrub_check", "scrub_check", scrub_check as Bed, "setp.ge.u32"),
        ] {
            let text = only(ptx(module, target).expect("listed"), entry);
            // `>=` and `<` take the bound in; `>` and `<=` let one more through.
            let broken = edit(&text, mark, 0, |line| line.replace(".ge.", ".gt.").replace(".lt.", ".le."));
            let broken = broken.expect("a comparison");
            assert_ne!(broken, text.lines().collect::<Vec<_>>().join("\n"));
            let order = Order::Forward;
            let result = bed(&broken, target, order);
            // 512 vectors and 256 threads: no thread stands at the bound when it first looks; the loop's end does.
            if module == "residual" {
                assert!(matches!(
                    result.expect_err("off by one").fault().expect("a fault").kind,
                    FaultKind::OutOfBounds { .. }
                ));
            }
        }
        let text = only(ptx("scrub_check", target).expect("listed"), "scrub_check");
        let more = (0..)
            .map_while(|index| edit(&text, "setp.lt.u32", index, |line| line.replace(".lt.", ".le.")))
            .map(|broken| scrub_check(&broken, target, Order::Forward));
        let found = more.filter(|result| {
            result.as_ref().is_err_and(|error| {
                error.fault().is_some_and(|fault| matches!(fault.kind, FaultKind::OutOfBounds { .. }))
            })
        });
        assert!(found.count() >= 1, "{target:?}: the loop over a page runs one too far");
    }
}

#[test]
fn a_sum_that_is_not_atomic_is_a_race() {
    for target in TARGETS {
        let text = only(ptx("scrub_check", target).expect("listed"), "scrub_check");
        let broken = edit(&text, "atom.", 0, |line| {
            let address = line.split(['[', ']']).nth(1).expect("an address");
            format!("\tld.global.u32 %r1, [{address}];\n\tst.global.u32 [{address}], %r1;")
        });
        for kind in faults(&broken.expect("an atomic"), target, scrub_check) {
            assert!(matches!(kind, FaultKind::Race { space: Space::Global, .. }), "{target:?}: {kind}");
        }
    }
}

#[test]
fn a_value_that_is_not_stored_is_missed() {
    let mut planted = 0;
    for (module, target, text, bed) in texts() {
        for index in 0.. {
            let Some(broken) = edit(&text, "st.shared", index, |_| String::new()) else { break };
            // A store that another path makes as well leaves no hole; most do.
            let result = bed(&broken, target, Order::Forward);
            if let Err(error) = result {
                let kind = &error.fault().unwrap_or_else(|| panic!("{error}")).kind;
                assert!(
                    matches!(kind, FaultKind::UninitialisedMemory { space: Space::Shared, .. }),
                    "{module}, {target:?}, store {index}: {kind}"
                );
                planted += 1;
            }
        }
    }
    assert!(planted >= 30, "{planted} of the removed stores were found");
}

#[test]
fn a_register_that_is_not_written_and_an_address_that_is_not_aligned_are_found() {
    for target in TARGETS {
        let text = only(ptx("residual", target).expect("listed"), "residual");
        let broken = edit(&text, "add.rn.f32", 0, |_| String::new()).expect("an addition");
        for kind in faults(&broken, target, residual) {
            assert!(matches!(kind, FaultKind::UninitialisedRegister { .. }), "{kind}");
        }
        let broken = edit(&text, "ld.global", 0, |line| line.replace("];", "+2];")).expect("a load");
        for kind in faults(&broken, target, residual) {
            assert!(matches!(kind, FaultKind::Misaligned { .. }), "{kind}");
        }
    }
}

#[test]
fn a_barrier_in_a_branch_is_found() {
    for target in TARGETS {
        let text = only(ptx("rms_norm", target).expect("listed"), "rms_norm");
        // The first branch is taken by the threads that run no lane: they now end, and never come to the barrier.
        let broken = edit(&text, " bra ", 0, |line| {
            format!("{} ret;", line.split(" bra ").next().unwrap_or_default())
        });
        for kind in faults(&broken.expect("a branch"), target, rms_norm) {
            assert!(matches!(kind, FaultKind::DivergentBarrier { ended: true, .. }), "{target:?}: {kind}");
        }
    }
}

#[test]
fn a_fault_names_the_line_of_the_source() {
    let text = only(ptx("matmul", Target::Sm90).expect("listed"), "matmul_q8_0");
    let broken = edit(&text, "bar.sync", 0, |_| String::new()).expect("a barrier");
    let error = matmul(&broken, Target::Sm90, Order::Reversed).expect_err("no barrier");
    let place = error.fault().expect("a fault").place.clone();
    let source = include_str!("../cuda/matmul.cu").lines().nth(place.line as usize - 1).unwrap_or_default();
    assert_eq!(place.file, "matmul.cu");
    assert!(source.contains("halves[turn]") || source.contains("dots[turn]"), "{place}: {source}");
}
