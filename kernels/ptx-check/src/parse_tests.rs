use super::*;
use crate::{body::immediate, instruction::Op};

const HEAD: &str = ".version 9.5\n.target sm_90\n.address_size 64\n";

fn parse(body: &str) -> Result<Module, ParseError> {
    let text = format!(
        "{HEAD}.visible .entry k(\n.param .u64 .ptr .align 1 k_0, // a pointer\n.param .align 4 .b8 k_1[24],\n.param .u32 k_2\n)\n\
         .maxntid 64, 2, 1\n{{\n.reg .pred %p<3>;\n.reg .b32 %r<4>;\n.reg .b64 %rd<3>;\n.shared .align 2 .b8 a[6];\n\
         .shared .align 16 .b8 b[32];\n{body}\n}}\n.file 1 \"k.cu\"\n"
    );
    Module::parse(&text)
}

#[test]
fn an_entry_knows_its_parameters_shared_memory_and_lines() {
    let module = parse(".loc 1 7 3\nmov.u32 %r1, b;\n$L_1:\n.loc 1 0 3\n@!%p1 bra $L_1;\nret;").expect("PTX");
    let entry = module.entry("k").expect("there");
    assert_eq!(entry.params().collect::<Vec<_>>(), [8, 24, 4]);
    assert_eq!(entry.params, [(0, 8), (8, 24), (32, 4)]);
    assert_eq!((entry.shared_bytes(), entry.max_threads()), (48, Some(128)));
    assert_eq!(module.target(), "sm_90");
    assert_eq!(entry.place(1).to_string(), "k.cu:7", "line 0 is no line");
    assert!(matches!(entry.code[1].op, Op::Branch { target: 1 }));
    assert_eq!(
        entry.slots[usize::from(entry.code[1].guard.expect("guarded").0)],
        SlotKind::Register("%p1".into())
    );
}

#[test]
fn a_scope_of_one_line_has_names_of_its_own() {
    let scope = "{ .reg .b32 tmp; mov.b64 {tmp, %r1}, %rd1; }\n";
    let module = parse(&format!("{scope}{scope}ret;")).expect("PTX");
    let entry = module.entry("k").expect("there");
    let lows = entry.code.iter().filter_map(|instruction| match instruction.op {
        Op::Unpack { low, high, .. } => Some((low, high)),
        _ => None,
    });
    let lows: Vec<_> = lows.collect();
    assert!(lows[0].0 != lows[1].0 && lows[0].1 == lows[1].1);
    assert!(parse(&format!("{scope}mov.u32 tmp, 1;")).is_err(), "outside of it the name is not known");
    assert!(parse("{ mov.u32 %r1, 1; { } }").is_err());
}

#[test]
fn immediates_are_numbers_of_every_kind() {
    assert_eq!(immediate("-1"), Some(u64::MAX));
    assert_eq!(immediate("18446744073709551615"), Some(u64::MAX));
    assert_eq!(immediate("0x1F"), Some(31));
    assert_eq!(immediate("0f3F800000"), Some(0x3f80_0000));
    assert_eq!(immediate("0d3FF0000000000000"), Some(0x3ff0_0000_0000_0000));
    assert_eq!(immediate("0f3F8000001"), None);
    assert_eq!(immediate("%r1"), None);
}

#[test]
fn what_is_not_of_the_subset_is_an_error_that_names_its_line() {
    for (body, part) in [
        ("add.f32 %r1, %r2, %r3;", "add.f32"),
        ("mul.f32 %r1, %r2, %r3;", "mul.f32"),
        ("ld.local.u32 %r1, [%rd1];", "ld.local.u32"),
        ("cp.async.ca.shared.global [%r1], [%rd1], 16;", "cp.async"),
        ("mma.sync.aligned.m16n8k16.row.col.f32 %r1, %r2, %r3;", "mma"),
        ("tex.1d.v4.f32.s32 %r1, [%r2];", "tex"),
        ("mov.u32 %r9, 1;", "%r9"),
        ("mov.u32 %r1, %clock;", "%clock"),
        ("add.s32 %r1, %r2;", "2 operands"),
        ("ld.global.v2.u32 %r1, [%rd1];", "not 2 registers"),
        ("st.param.u32 [k_2], %r1;", "st.param"),
        ("bar.sync 1;", "bar.sync"),
        ("bar.sync 0, 64;", "bar.sync"),
        (".local .align 4 .b8 depot[8];", ".local"),
        (".reg .b32 %r<2>;", "twice"),
        ("mov.u32 %r1, 1", "does not end"),
        ("ld.global.u32 %r1, [%rd1;", "do not close"),
    ] {
        let error = parse(&format!("ret;\n{body}")).expect_err(body);
        assert!(error.what.contains(part), "{body}: {error}");
        assert_eq!(error.line, 17, "{body}: {error}");
    }
    assert!(parse("bra $L_none;").expect_err("no label").what.contains("$L_none"));
    assert!(parse("{").is_err(), "it does not close");
}

#[test]
fn sizes_that_lie_take_no_memory() {
    assert!(parse(".reg .b32 %x<4000000000>;").is_err());
    assert!(parse(".shared .align 4 .b8 big[4000000000];").is_err());
    assert!(parse(".shared .align 4 .b8 big[49152];").is_err(), "with what is there it is over the limit");
    assert!(parse(".shared .align 3 .b8 odd[4];").is_err());
}
