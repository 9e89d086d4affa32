use super::*;

fn bits(value: f32) -> u64 {
    u64::from(value.to_bits())
}

fn apply2(name: &str, a: u64, b: u64) -> u64 {
    two(name).unwrap_or_else(|| panic!("{name}"))(a, b)
}

fn apply3(name: &str, a: u64, b: u64, c: u64) -> u64 {
    three(name).unwrap_or_else(|| panic!("{name}"))(a, b, c)
}

#[test]
fn integers_wrap_at_their_width() {
    assert_eq!(apply2("add.s32", 0xffff_ffff, 1), 0);
    assert_eq!(apply2("add.s64", u64::MAX, 1), 0);
    assert_eq!(apply2("sub.s32", 0, 1), 0xffff_ffff);
    assert_eq!(apply2("mul.lo.s32", 0x1_0001, 0x1_0001), 0x2_0001);
    assert_eq!(apply2("mul.hi.u32", 0xffff_ffff, 0xffff_ffff), 0xffff_fffe);
    assert_eq!(apply2("mul.hi.s32", 0xffff_ffff, 2), 0xffff_ffff);
    assert_eq!(apply3("mad.lo.s32", 0x8000_0000, 2, 5), 5);
}

#[test]
fn halves_of_a_word_are_packed_and_masked_at_their_width() {
    assert_eq!(apply2("pack.halves", 0x1_2345, 0xf_abcd), 0xabcd_2345);
    assert_eq!(apply2("and.b16", 0x3_ff0f, 0x3_f0ff), 0xf00f);
}

#[test]
fn wide_products_have_the_sign_of_their_type() {
    assert_eq!(apply2("mul.wide.u32", 0xffff_ffff, 4), 0x3_ffff_fffc);
    assert_eq!(apply2("mul.wide.s32", 0xffff_ffff, 4), (-4i64) as u64);
    assert_eq!(apply3("mad.wide.s32", 0xffff_ffff, 4, 100), 96);
    assert_eq!(apply3("mad.wide.u32", 0xffff_ffff, 4, 100), 0x4_0000_0060);
}

#[test]
fn shifts_by_more_than_the_width_give_zero_or_the_sign() {
    assert_eq!(apply2("shl.b32", 1, 31), 0x8000_0000);
    assert_eq!(apply2("shl.b32", 1, 32), 0);
    assert_eq!(apply2("shl.b64", 1, 64), 0);
    assert_eq!(apply2("shr.u16", 0x1_8000, 15), 1);
    assert_eq!(apply2("shr.u16", 0x8000, 16), 0);
    assert_eq!(apply2("shr.u32", 0x8000_0000, 40), 0);
    assert_eq!(apply2("shr.s32", 0x8000_0000, 40), 0xffff_ffff);
    assert_eq!(apply2("shr.s64", 1 << 63, 200), u64::MAX);
    assert_eq!(apply3("shf.l.wrap.b32", 0x8000_0001, 0x7, 33), 0xf);
    assert_eq!(apply3("shf.r.wrap.b32", 0x8000_0001, 0x1, 1), 0xc000_0000);
}

#[test]
fn a_fused_product_rounds_once_and_a_separate_one_twice() {
    let (a, rounded) = (1.0f32 + 2f32.powi(-12), 1.0f32 + 2f32.powi(-11));
    let product = apply2("mul.rn.f32", bits(a), bits(a));
    assert_eq!(product, bits(rounded), "1 + 2^-11 + 2^-24 is a tie, and goes to the even one");
    assert_eq!(apply3("fma.rn.f32", bits(a), bits(a), bits(-rounded)), bits(2f32.powi(-24)));
    assert_eq!(apply2("add.rn.f32", product, bits(-rounded)), bits(0.0));
}

#[test]
fn floats_round_to_nearest_ties_to_even_and_keep_subnormals() {
    assert_eq!(apply2("add.rn.f32", bits(16_777_216.0), bits(1.0)), bits(16_777_216.0));
    assert_eq!(apply2("add.rn.f32", bits(16_777_218.0), bits(1.0)), bits(16_777_220.0));
    assert_eq!(apply2("div.rn.f32", bits(1.0), bits(3.0)), 0x3eaa_aaab);
    assert_eq!(apply2("mul.rn.f32", bits(f32::MIN_POSITIVE), bits(0.5)), 0x0040_0000);
    assert_eq!(one("sqrt.rn.f32").expect("known")(bits(2.0)), 0x3fb5_04f3);
    assert_eq!(apply2("mul.rn.f64", 3f64.to_bits(), 0.1f64.to_bits()), 0x3fd3_3333_3333_3334);
}

#[test]
fn what_is_not_a_number_is_the_one_that_hardware_gives() {
    let nan = bits(f32::from_bits(0xffc0_1234));
    assert_eq!(apply2("add.rn.f32", nan, bits(1.0)), 0x7fff_ffff);
    assert_eq!(apply2("max.f32", nan, bits(1.0)), bits(1.0));
    assert_eq!(apply2("min.f32", bits(1.0), nan), bits(1.0));
    assert_eq!(apply2("max.f32", bits(-0.0), bits(0.0)), bits(0.0));
    assert_eq!(apply2("min.f32", bits(0.0), bits(-0.0)), bits(-0.0));
    assert_eq!(apply2("min.f32", bits(3.0), bits(-2.0)), bits(-2.0));
}

#[test]
fn comparisons_differ_where_one_side_is_not_a_number() {
    let (one, nan) = (bits(1.0), bits(f32::NAN));
    for (name, expected) in [
        ("lt", 0),
        ("ltu", 1),
        ("leu", 1),
        ("gt", 0),
        ("gtu", 1),
        ("geu", 1),
        ("eq", 0),
        ("equ", 1),
        ("ne", 0),
        ("neu", 1),
        ("num", 0),
        ("nan", 1),
    ] {
        assert_eq!(apply2(&format!("setp.{name}.f32"), one, nan), expected, "{name}");
    }
    assert_eq!(apply2("setp.ltu.f32", bits(2.0), one), 0);
    assert_eq!(apply2("setp.lt.s32", 0xffff_ffff, 0), 1);
    assert_eq!(apply2("setp.lt.u32", 0xffff_ffff, 0), 0);
    assert_eq!(apply2("setp.gt.u64", 1 << 40, 1), 1);
}

#[test]
fn dots_take_the_sign_of_each_side() {
    assert_eq!(apply3("dp4a.s32.s32", 0xff01_8002, 0x7f03_80fe, 10), (10 - 127 + 3 + 128 * 128 - 4) as u64);
    assert_eq!(apply3("dp4a.u32.s32", 0xff, 0xff, 0), 0xffff_ff01);
    assert_eq!(apply3("dp4a.u32.u32", 0xff, 0xff, 0), 65025);
    assert_eq!(apply3("dp4a.s32.s32", 1, 1, 0x7fff_ffff), 0x8000_0000, "it wraps");
}

#[test]
fn bytes_are_permuted_and_fields_extracted_and_inserted() {
    assert_eq!(apply3("prmt.b32", 0x4433_2211, 0x8877_6655, 0x7410), 0x8855_2211);
    assert_eq!(apply3("prmt.b32", 0x4433_2211, 0x8877_6655, 0xf8), 0x1111_ff00, "signs of bytes 0 and 7");
    assert_eq!(apply3("bfe.u32", 0xabcd_1234, 8, 8), 0x12);
    assert_eq!(apply3("bfe.s32", 0x0000_8000, 8, 8), 0xffff_ff80);
    assert_eq!(apply3("bfe.u32", 0xabcd_1234, 28, 16), 0xa);
    assert_eq!(apply3("bfe.u32", 0xabcd_1234, 4, 0), 0);
    assert_eq!(insert(false, 0xff, 0x1234_5678, 8, 4), 0x1234_5f78);
    assert_eq!(insert(false, 0xff, 0x1234_5678, 40, 4), 0x1234_5678);
    assert_eq!(insert(true, 0xffff_ffff, 0, 32, 32), 0xffff_ffff_0000_0000);
}

#[test]
fn floats_that_do_not_name_their_rounding_are_not_known() {
    for name in [
        "add.f32",
        "mul.f32",
        "sub.f32",
        "div.approx.f32",
        "div.full.f32",
        "add.rn.ftz.f32",
        "sqrt.approx.f32",
    ] {
        assert!(one(name).is_none() && two(name).is_none() && three(name).is_none(), "{name}");
    }
}
