use super::*;
use crate::error::Space;

const ORDERS: [Order; 4] = [Order::Forward, Order::Reversed, Order::Seeded(1), Order::Seeded(2)];

/// A kernel of one pointer `out`: `%rd1` points to the thread's own word, `%rd2` to the first; `%r1` is the thread.
fn kernel(body: &str) -> Module {
    let text = format!(
        ".version 9.5\n.target sm_80\n.address_size 64\n.visible .entry k(\n.param .u64 k_0\n)\n{{\n.reg .pred %p<9>;\n\
         .reg .b32 %r<20>;\n.reg .b64 %rd<9>;\n.shared .align 16 .b8 s[256];\n.loc 1 1 1\n\
         ld.param.u64 %rd2, [k_0];\nmov.u32 %r1, %tid.x;\nmul.wide.u32 %rd1, %r1, 4;\nadd.s64 %rd1, %rd1, %rd2;\n\
         shl.b32 %r2, %r1, 2;\nmov.u32 %r3, s;\nadd.s32 %r3, %r3, %r2;\n.loc 1 2 1\n{body}\n}}\n.file 1 \"k.cu\"\n"
    );
    Module::parse(&text).expect("PTX")
}

fn run(
    module: &Module,
    blocks: u32,
    threads: u32,
    words: usize,
    order: Order,
) -> Result<Vec<u32>, LaunchError> {
    let mut device = Device::new(Limits { instructions: 100_000, memory: 1 << 20 });
    let out = device.upload(&vec![0; words * 4]);
    device.launch(module, "k", Grid::new(blocks, 1, threads), &[Arg::Out(out, 0)], order)?;
    let bytes = device.read(out).expect("written").chunks_exact(4);
    Ok(bytes.map(|word| u32::from_le_bytes(word.try_into().expect("four"))).collect())
}

/// The same in every order.
fn answer(body: &str, threads: u32) -> Vec<u32> {
    let module = kernel(body);
    let answers: Vec<_> =
        ORDERS.iter().map(|order| run(&module, 1, threads, threads as usize, *order)).collect();
    let first = answers[0].clone().unwrap_or_else(|error| panic!("{error}"));
    assert!(answers.iter().all(|answer| answer.as_ref() == Ok(&first)), "{answers:?}");
    first
}

/// The fault that every order finds.
fn fault(body: &str, blocks: u32, threads: u32) -> FaultKind {
    let module = kernel(body);
    let faults = ORDERS.iter().map(|order| {
        let error = run(&module, blocks, threads, threads as usize, *order).expect_err("a fault");
        let fault = error.fault().unwrap_or_else(|| panic!("{error}")).clone();
        assert_eq!(fault.place.file, "k.cu");
        fault.kind
    });
    let faults: Vec<_> = faults.collect();
    assert!(faults.windows(2).all(|two| discriminant(&two[0]) == discriminant(&two[1])), "{faults:?}");
    faults.into_iter().next().expect("four orders")
}

fn discriminant(kind: &FaultKind) -> std::mem::Discriminant<FaultKind> {
    std::mem::discriminant(kind)
}

#[test]
fn threads_exchange_through_shared_memory_across_a_barrier() {
    let body = "st.shared.u32 [%r3], %r1;\n.loc 1 3 1\nbar.sync 0;\nmov.u32 %r4, s;\nsub.s32 %r5, 252, %r2;\n\
                add.s32 %r4, %r4, %r5;\nld.shared.u32 %r6, [%r4];\nst.global.u32 [%rd1], %r6;\nret;";
    assert_eq!(answer(body, 64), (0..64).rev().collect::<Vec<_>>());
    let broken = body.replace("bar.sync 0;", "");
    // Forward, the first thread to read finds nothing there yet; in other orders it is a race: never an answer.
    for order in ORDERS {
        let error = run(&kernel(&broken), 1, 64, 64, order).expect_err("no barrier");
        let kind = error.fault().expect("a fault").kind.clone();
        assert!(
            matches!(
                kind,
                FaultKind::UninitialisedMemory { space: Space::Shared, .. } | FaultKind::Race { .. }
            ),
            "{kind}"
        );
    }
}

#[test]
fn a_race_names_both_sides() {
    let module = kernel("@%p1 bra $L_1;\n$L_1:\nret;");
    assert!(run(&module, 1, 1, 1, Order::Forward).is_err(), "%p1 was never written");
    let module = kernel(".loc 1 5 1\nst.global.u32 [%rd2], %r1;\nret;");
    let error = run(&module, 1, 2, 1, Order::Forward).expect_err("two threads write one word");
    let fault = error.fault().expect("a fault");
    assert_eq!(
        fault.to_string(),
        "k: k.cu:5: block 0, thread 1: global memory at offset 0 is a race with thread 0 of block 0 at k.cu:5, which wrote it"
    );
}

#[test]
fn one_writes_what_many_read_only_with_a_barrier_between() {
    let body = "ld.global.u32 %r4, [%rd2];\n.loc 1 3 1\nbar.sync 0;\nsetp.eq.s32 %p1, %r1, 5;\n@%p1 st.global.u32 [%rd2], %r1;\nret;";
    assert_eq!(answer(body, 40)[0], 5);
    assert!(matches!(fault(&body.replace("bar.sync 0;", ""), 1, 40), FaultKind::Race { .. }));
    // Two blocks have no barrier between them.
    assert!(matches!(fault(body, 2, 40), FaultKind::Race { .. }));
}

#[test]
fn a_barrier_of_the_warp_orders_the_warp_and_nobody_else() {
    let body = "st.shared.u32 [%r3], %r1;\nbar.warp.sync -1;\nxor.b32 %r4, %r3, 4;\nld.shared.u32 %r6, [%r4];\n\
                st.global.u32 [%rd1], %r6;\nret;";
    assert_eq!(answer(body, 64), (0..64).map(|thread| thread ^ 1).collect::<Vec<_>>());
    let across = body.replace("%r3, 4;", "%r3, 128;");
    let kind = fault_of_any(&across, 64);
    assert!(matches!(kind, FaultKind::UninitialisedMemory { .. } | FaultKind::Race { .. }), "{kind}");
    // A shuffle exchanges registers, and orders no memory.
    let shuffled = body.replace("bar.warp.sync -1;", "shfl.sync.bfly.b32 %r9, %r1, 1, 31, -1;");
    assert!(matches!(fault_of_any(&shuffled, 32), FaultKind::Race { .. }));
}

fn fault_of_any(body: &str, threads: u32) -> FaultKind {
    let error = run(&kernel(body), 1, threads, threads as usize, Order::Reversed).expect_err("a fault");
    error.fault().unwrap_or_else(|| panic!("{error}")).kind.clone()
}

#[test]
fn atomics_do_not_race_with_each_other_and_do_with_plain_accesses() {
    let add = "atom.global.add.u32 %r4, [%rd2], %r1;\n";
    assert_eq!(answer(&format!("{add}ret;"), 64)[0], 63 * 32);
    assert!(matches!(
        fault(&format!("{add}ld.global.u32 %r5, [%rd2];\nret;"), 1, 64),
        FaultKind::Race { .. }
    ));
    let ordered = format!("{add}bar.sync 0;\nld.global.u32 %r5, [%rd2];\nret;");
    assert_eq!(answer(&ordered, 64)[0], 63 * 32);
    assert!(matches!(fault(&ordered, 2, 64), FaultKind::Race { .. }), "the other block's may come later");
    let relaxed =
        "atom.relaxed.gpu.global.max.u32 %r4, [%rd2], %r1;\nbar.sync 0;\nred.global.or.b32 [%rd2], 64;\nret;";
    assert_eq!(answer(relaxed, 33)[0], 32 | 64);
}

#[test]
fn bounds_alignment_and_rights_are_held() {
    assert!(matches!(
        fault("st.global.u32 [%rd1+4], %r1;\nret;", 1, 1),
        FaultKind::OutOfBounds { space: Space::Global, offset: 4, bytes: 4, size: 4 }
    ));
    assert!(matches!(
        fault("ld.global.u32 %r4, [%rd2+-4];\nret;", 1, 1),
        FaultKind::OutOfBounds { space: Space::Global, size: 0, .. }
    ));
    assert!(matches!(fault("ld.shared.u32 %r4, [%r3+256];\nret;", 1, 1), FaultKind::OutOfBounds { .. }));
    assert!(matches!(
        fault("ld.global.u32 %r4, [%rd2+1];\nret;", 1, 2),
        FaultKind::Misaligned { bytes: 4, .. }
    ));
    assert!(matches!(
        fault("ld.global.v2.u32 {%r4, %r5}, [%rd2+4];\nret;", 1, 4),
        FaultKind::Misaligned { bytes: 8, .. }
    ));
    assert!(matches!(
        fault("ld.shared.u32 %r4, [%r3];\nret;", 1, 1),
        FaultKind::UninitialisedMemory { space: Space::Shared, offset: 0 }
    ));
    let FaultKind::UninitialisedRegister { register } = fault("add.s32 %r4, %r15, 1;\nret;", 1, 1) else {
        panic!("another fault")
    };
    assert_eq!(register, "%r15");
    let mut device = Device::new(Limits::default());
    let out = device.upload(&[0; 4]);
    let module = kernel("st.global.u32 [%rd1], %r1;\nret;");
    let error = device.launch(&module, "k", Grid::new(1, 1, 1), &[Arg::In(out, 0)], Order::Forward);
    assert_eq!(
        error.expect_err("only to be read").fault().expect("a fault").kind,
        FaultKind::ReadOnly { offset: 0 }
    );
}

#[test]
fn a_barrier_that_not_all_reach_is_a_fault() {
    let early = "setp.eq.s32 %p1, %r1, 3;\n@%p1 bra $L_end;\nbar.sync 0;\n$L_end:\nret;";
    assert!(matches!(fault(early, 1, 8), FaultKind::DivergentBarrier { other: 3, ended: true }));
    let two = "setp.eq.s32 %p1, %r1, 3;\n@%p1 bra $L_1;\nbar.sync 0;\nret;\n$L_1:\nbar.sync 0;\nret;";
    assert!(matches!(fault(two, 1, 8), FaultKind::DivergentBarrier { ended: false, .. }));
    let shuffle =
        "setp.eq.s32 %p1, %r1, 3;\n@%p1 bra $L_end;\nshfl.sync.bfly.b32 %r4, %r1, 1, 31, -1;\n$L_end:\nret;";
    assert!(matches!(fault(shuffle, 1, 32), FaultKind::DivergentWarp { other: 3 }));
    let named = "shfl.sync.bfly.b32 %r4, %r1, 1, 31, 1;\nret;";
    assert!(matches!(fault(named, 1, 32), FaultKind::Mask { mask: 1 }));
}

#[test]
fn shuffles_give_what_the_manual_says() {
    let shuffle = |name: &str, b: u32, c: u32| {
        let body = format!(
            "shfl.sync.{name}.b32 %r4|%p1, %r1, {b}, {c}, -1;\nselp.b32 %r5, 100, 0, %p1;\nadd.s32 %r4, %r4, %r5;\n\
             st.global.u32 [%rd1], %r4;\nret;"
        );
        answer(&body, 32)
    };
    let expect = |f: fn(u32) -> u32| (0..32).map(f).collect::<Vec<u32>>();
    assert_eq!(shuffle("bfly", 1, 31), expect(|lane| (lane ^ 1) + 100));
    assert_eq!(shuffle("down", 3, 31), expect(|lane| if lane + 3 < 32 { lane + 103 } else { lane }));
    assert_eq!(shuffle("up", 2, 0), expect(|lane| if lane >= 2 { lane + 98 } else { lane }));
    assert_eq!(shuffle("idx", 7, 31), expect(|_| 107));
    // In groups of eight: the mask of the segment is 11000b, the clamp 7.
    assert_eq!(shuffle("idx", 2, 0x1807), expect(|lane| (lane & 24) + 102));
    assert_eq!(shuffle("down", 1, 0x1807), expect(|lane| if lane % 8 < 7 { lane + 101 } else { lane }));
}

#[test]
fn votes_count_every_lane_of_the_mask() {
    let body = "setp.lt.u32 %p1, %r1, 3;\nvote.sync.ballot.b32 %r4, %p1, -1;\nvote.sync.any.pred %p2, %p1, -1;\n\
                vote.sync.all.pred %p3, %p1, -1;\nselp.b32 %r5, 8, 0, %p2;\nselp.b32 %r6, 16, 0, %p3;\n\
                or.b32 %r4, %r4, %r5;\nor.b32 %r4, %r4, %r6;\nst.global.u32 [%rd1], %r4;\nret;";
    assert_eq!(answer(body, 32), [15; 32]);
}

#[test]
fn values_of_several_registers_are_loaded_stored_packed_and_unpacked() {
    let body = "st.shared.v4.u32 [s], {1, 2, 3, 4};\nld.shared.v2.u32 {%r4, %r5}, [s+8];\nmov.b64 %rd5, {%r4, %r5};\n\
                mov.b64 {_, %r6}, %rd5;\nst.global.u32 [%rd1], %r6;\nret;";
    assert_eq!(answer(body, 1), [4]);
    let signs = "st.shared.u16 [s], 65408;\nld.shared.s8 %r4, [s];\nld.shared.u8 %r5, [s+1];\nadd.s32 %r6, %r4, %r5;\n\
                 st.global.u32 [%rd1], %r6;\nret;";
    assert_eq!(answer(signs, 1), [127], "-128 and 255");
}

#[test]
fn limits_end_what_does_not_end() {
    assert!(matches!(
        fault("$L_1:\nbra $L_1;", 1, 1),
        FaultKind::Limit { what: "instructions", limit: 100_000 }
    ));
}

#[test]
fn launches_that_do_not_fit_do_not_begin() {
    let module = kernel("ret;");
    let mut device = Device::new(Limits::default());
    let out = device.upload(&[0; 4]);
    let mut launch =
        |name: &str, grid, args: &[Arg<'_>]| device.launch(&module, name, grid, args, Order::Forward);
    let grid = Grid::new(1, 1, 1);
    assert!(matches!(launch("other", grid, &[]), Err(LaunchError::NoEntry(_))));
    assert!(matches!(launch("k", grid, &[]), Err(LaunchError::Argument { index: 0, .. })));
    assert!(matches!(launch("k", grid, &[Arg::U32(1)]), Err(LaunchError::Argument { index: 0, .. })));
    let args = [Arg::Out(out, 0)];
    for grid in [Grid::new(0, 1, 1), Grid::new(1, 1, 1025), Grid::new(1 << 20, 1 << 20, 1)] {
        assert!(matches!(launch("k", grid, &args), Err(LaunchError::Grid(_))), "{grid:?}");
    }
    assert!(launch("k", grid, &args).is_ok());
}

#[test]
fn what_one_launch_did_is_before_the_next() {
    let module = kernel("st.global.u32 [%rd1], %r1;\nret;");
    let mut device = Device::new(Limits::default());
    let out = device.allocate(16);
    for order in ORDERS {
        device.launch(&module, "k", Grid::new(1, 1, 4), &[Arg::Out(out, 0)], order).expect("no race");
    }
    assert_eq!(device.read(out).expect("written")[12], 3);
}
