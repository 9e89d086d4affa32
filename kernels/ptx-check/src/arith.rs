//! Arithmetic on registers, by mnemonic and type. Registers are 64 bits; narrower values lie in the low bits, and
//! every result has the bits above cleared.

type One = fn(u64) -> u64;
type Two = fn(u64, u64) -> u64;
type Three = fn(u64, u64, u64) -> u64;

/// The one value that is not a number which `f32` instructions give (*Floating Point Instructions*).
const NAN: u32 = 0x7fff_ffff;

fn f(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

/// A result of single precision.
pub(crate) fn single(value: f32) -> u64 {
    u64::from(if value.is_nan() { NAN } else { value.to_bits() })
}

fn d(bits: u64) -> f64 {
    f64::from_bits(bits)
}

fn double(value: f64) -> u64 {
    value.to_bits()
}

fn int(bits: u64) -> i32 {
    bits as i32
}

fn word(value: i32) -> u64 {
    u64::from(value as u32)
}

/// Instructions of one operand.
pub(crate) fn one(name: &str) -> Option<One> {
    Some(match name {
        "mov.b32" | "mov.u32" | "mov.s32" | "mov.f32" => |a| u64::from(a as u32),
        "mov.b64" | "mov.u64" | "mov.s64" | "mov.f64" | "cvta.to.global.u64" => |a| a,
        "mov.b16" | "mov.u16" | "mov.s16" => |a| u64::from(a as u16),
        "mov.pred" => |a| a,
        "not.b32" => |a| u64::from(!(a as u32)),
        "not.b64" => |a| !a,
        "not.pred" => |a| a ^ 1,
        "neg.s32" => |a| word(int(a).wrapping_neg()),
        "neg.s64" => |a| a.wrapping_neg(),
        "neg.f32" => |a| a ^ 0x8000_0000,
        "abs.f32" => |a| a & 0x7fff_ffff,
        "abs.s32" => |a| word(int(a).wrapping_abs()),
        "sqrt.rn.f32" => |a| single(f(a).sqrt()),
        "popc.b32" => |a| u64::from((a as u32).count_ones()),
        "clz.b32" => |a| u64::from((a as u32).leading_zeros()),
        _ => return None,
    })
}

/// Instructions of two operands.
pub(crate) fn two(name: &str) -> Option<Two> {
    integer_two(name).or_else(|| float_two(name)).or_else(|| compare(name))
}

fn integer_two(name: &str) -> Option<Two> {
    Some(match name {
        "add.s32" | "add.u32" => |a, b| u64::from((a as u32).wrapping_add(b as u32)),
        "add.s64" | "add.u64" => u64::wrapping_add,
        "sub.s32" | "sub.u32" => |a, b| u64::from((a as u32).wrapping_sub(b as u32)),
        "sub.s64" | "sub.u64" => u64::wrapping_sub,
        "mul.lo.s32" | "mul.lo.u32" => |a, b| u64::from((a as u32).wrapping_mul(b as u32)),
        "mul.lo.s64" | "mul.lo.u64" => u64::wrapping_mul,
        "mul.hi.u32" => |a, b| (u64::from(a as u32) * u64::from(b as u32)) >> 32,
        "mul.hi.s32" => |a, b| word(((i64::from(int(a)) * i64::from(int(b))) >> 32) as i32),
        "mul.wide.u32" => |a, b| u64::from(a as u32) * u64::from(b as u32),
        "mul.wide.s32" => |a, b| (i64::from(int(a)) * i64::from(int(b))) as u64,
        // Division by zero gives an unspecified value (*Integer Arithmetic Instructions*): here all ones.
        "div.u32" => |a, b| u64::from((a as u32).checked_div(b as u32).unwrap_or(u32::MAX)),
        "rem.u32" => |a, b| u64::from((a as u32).checked_rem(b as u32).unwrap_or(u32::MAX)),
        "min.u32" => |a, b| u64::from((a as u32).min(b as u32)),
        "max.u32" => |a, b| u64::from((a as u32).max(b as u32)),
        "min.s32" => |a, b| word(int(a).min(int(b))),
        "max.s32" => |a, b| word(int(a).max(int(b))),
        "and.b16" => |a, b| u64::from(a as u16 & b as u16),
        "and.b32" => |a, b| u64::from(a as u32 & b as u32),
        "or.b32" => |a, b| u64::from(a as u32 | b as u32),
        "xor.b32" => |a, b| u64::from(a as u32 ^ b as u32),
        "and.b64" | "and.pred" => |a, b| a & b,
        "or.b64" | "or.pred" => |a, b| a | b,
        "xor.b64" | "xor.pred" => |a, b| a ^ b,
        // Shifts by more than the width give zero, or the sign (*Logic and Shift Instructions*).
        "shl.b32" => |a, b| u64::from((a as u32).checked_shl(b as u32).unwrap_or(0)),
        "shl.b64" => |a, b| a.checked_shl(b as u32).unwrap_or(0),
        "shr.u16" | "shr.b16" => |a, b| u64::from((a as u16).checked_shr(b as u32).unwrap_or(0)),
        "shr.u32" | "shr.b32" => |a, b| u64::from((a as u32).checked_shr(b as u32).unwrap_or(0)),
        "shr.u64" | "shr.b64" => |a, b| a.checked_shr(b as u32).unwrap_or(0),
        "shr.s32" => |a, b| word(int(a) >> (b as u32).min(31)),
        "shr.s64" => |a, b| ((a as i64) >> (b as u32).min(63)) as u64,
        "pack" => |a, b| u64::from(a as u32) | b << 32,
        "pack.halves" => |a, b| u64::from(a as u16) | u64::from(b as u16) << 16,
        _ => return None,
    })
}

fn float_two(name: &str) -> Option<Two> {
    Some(match name {
        "add.rn.f32" => |a, b| single(f(a) + f(b)),
        "sub.rn.f32" => |a, b| single(f(a) - f(b)),
        "mul.rn.f32" => |a, b| single(f(a) * f(b)),
        "div.rn.f32" => |a, b| single(f(a) / f(b)),
        "min.f32" => |a, b| single(-larger(-f(a), -f(b))),
        "max.f32" => |a, b| single(larger(f(a), f(b))),
        "add.rn.f64" => |a, b| double(d(a) + d(b)),
        "sub.rn.f64" => |a, b| double(d(a) - d(b)),
        "mul.rn.f64" => |a, b| double(d(a) * d(b)),
        "div.rn.f64" => |a, b| double(d(a) / d(b)),
        _ => return None,
    })
}

/// What is a number wins over what is none, and +0 over -0.
fn larger(a: f32, b: f32) -> f32 {
    if a == b { if a.is_sign_negative() { b } else { a } } else { a.max(b) }
}

/// `setp`. The letter `u` behind an operator says that what is not a number makes it true.
fn compare(name: &str) -> Option<Two> {
    let (operator, kind) = name.strip_prefix("setp.")?.split_once('.')?;
    match kind {
        "s32" => signed(operator),
        "u32" | "b32" => unsigned32(operator),
        "u64" | "b64" => unsigned(operator),
        "s64" => signed64(operator),
        "f32" => singles(operator),
        "f64" => doubles(operator),
        _ => None,
    }
}

macro_rules! comparisons {
    ($name:ident, $read:expr) => {
        fn $name(operator: &str) -> Option<Two> {
            Some(match operator {
                "eq" => |a, b| u64::from($read(a) == $read(b)),
                "ne" => |a, b| u64::from($read(a) != $read(b)),
                "lt" | "lo" => |a, b| u64::from($read(a) < $read(b)),
                "le" | "ls" => |a, b| u64::from($read(a) <= $read(b)),
                "gt" | "hi" => |a, b| u64::from($read(a) > $read(b)),
                "ge" | "hs" => |a, b| u64::from($read(a) >= $read(b)),
                _ => return None,
            })
        }
    };
}
comparisons!(signed, int);
comparisons!(signed64, |a| a as i64);
comparisons!(unsigned32, |a| a as u32);
comparisons!(unsigned, |a: u64| a);

macro_rules! float_comparisons {
    ($name:ident, $read:expr) => {
        #[expect(clippy::neg_cmp_op_on_partial_ord, reason = "not less is what the unordered operators mean")]
        fn $name(operator: &str) -> Option<Two> {
            Some(match operator {
                "eq" => |a, b| u64::from($read(a) == $read(b)),
                // Ordered: false where one is not a number.
                "ne" => |a, b| u64::from($read(a) < $read(b) || $read(a) > $read(b)),
                "lt" => |a, b| u64::from($read(a) < $read(b)),
                "le" => |a, b| u64::from($read(a) <= $read(b)),
                "gt" => |a, b| u64::from($read(a) > $read(b)),
                "ge" => |a, b| u64::from($read(a) >= $read(b)),
                "equ" => |a, b| u64::from(!($read(a) < $read(b) || $read(a) > $read(b))),
                "neu" => |a, b| u64::from($read(a) != $read(b)),
                "ltu" => |a, b| u64::from(!($read(a) >= $read(b))),
                "leu" => |a, b| u64::from(!($read(a) > $read(b))),
                "gtu" => |a, b| u64::from(!($read(a) <= $read(b))),
                "geu" => |a, b| u64::from(!($read(a) < $read(b))),
                "num" => |a, b| u64::from(!$read(a).is_nan() && !$read(b).is_nan()),
                "nan" => |a, b| u64::from($read(a).is_nan() || $read(b).is_nan()),
                _ => return None,
            })
        }
    };
}
float_comparisons!(singles, f);
float_comparisons!(doubles, d);

/// Instructions of three operands.
pub(crate) fn three(name: &str) -> Option<Three> {
    Some(match name {
        "fma.rn.f32" => |a, b, c| single(f(a).mul_add(f(b), f(c))),
        "fma.rn.f64" => |a, b, c| double(d(a).mul_add(d(b), d(c))),
        "mad.lo.s32" | "mad.lo.u32" => {
            |a, b, c| u64::from((a as u32).wrapping_mul(b as u32).wrapping_add(c as u32))
        }
        "mad.lo.s64" | "mad.lo.u64" => |a, b, c| a.wrapping_mul(b).wrapping_add(c),
        "mad.wide.u32" => |a, b, c| (u64::from(a as u32) * u64::from(b as u32)).wrapping_add(c),
        "mad.wide.s32" => |a, b, c| ((i64::from(int(a)) * i64::from(int(b))) as u64).wrapping_add(c),
        "selp.b32" | "selp.u32" | "selp.s32" | "selp.f32" => {
            |a, b, p| u64::from(if p & 1 == 1 { a as u32 } else { b as u32 })
        }
        "selp.b64" | "selp.u64" | "selp.s64" | "selp.f64" => |a, b, p| if p & 1 == 1 { a } else { b },
        // The operands stand as (low, high, shift); the count wraps at 32.
        "shf.l.wrap.b32" => |a, b, c| u64::from(((pair(a, b) << (c & 31)) >> 32) as u32),
        "shf.r.wrap.b32" => |a, b, c| u64::from((pair(a, b) >> (c & 31)) as u32),
        "dp4a.s32.s32" => |a, b, c| dot(a, b, c, |a| i32::from(a as i8), |b| i32::from(b as i8)),
        "dp4a.u32.s32" => |a, b, c| dot(a, b, c, i32::from, |b| i32::from(b as i8)),
        "dp4a.u32.u32" => |a, b, c| dot(a, b, c, i32::from, i32::from),
        "prmt.b32" => permute,
        "bfe.u32" => |a, b, c| extract(a, b, c, false),
        "bfe.s32" => |a, b, c| extract(a, b, c, true),
        _ => return None,
    })
}

fn pair(low: u64, high: u64) -> u64 {
    u64::from(low as u32) | high << 32
}

fn dot(a: u64, b: u64, c: u64, left: fn(u8) -> i32, right: fn(u8) -> i32) -> u64 {
    let bytes = (a as u32).to_le_bytes().into_iter().zip((b as u32).to_le_bytes());
    word(bytes.fold(int(c), |sum, (a, b)| sum.wrapping_add(left(a) * right(b))))
}

/// `prmt`: each nibble of the selector takes one of eight bytes, or its sign eight times.
fn permute(a: u64, b: u64, selector: u64) -> u64 {
    let bytes = pair(a, b).to_le_bytes();
    let byte = |k: u32| {
        let nibble = selector >> (4 * k) & 15;
        let byte = bytes[(nibble & 7) as usize];
        if nibble & 8 == 0 { byte } else { (byte as i8 >> 7) as u8 }
    };
    u64::from(u32::from_le_bytes([byte(0), byte(1), byte(2), byte(3)]))
}

/// `bfe`: bits from `start` on, as many as `length` says, with the sign of the last one or with zeros above.
fn extract(a: u64, start: u64, length: u64, signed: bool) -> u64 {
    let (start, length) = ((start & 255) as u32, (length & 255) as u32);
    let source = if signed { i64::from(int(a)) } else { i64::from(a as u32) };
    if length == 0 {
        return 0;
    }
    let shifted = source >> start.min(63);
    let spare = 64 - length.min(32);
    let value = if signed { shifted << spare >> spare } else { ((shifted as u64) << spare >> spare) as i64 };
    u64::from(value as u32)
}

/// `bfi`: the low `length` bits of `a` go into `b`, from bit `start` on.
pub(crate) fn insert(wide: bool, a: u64, b: u64, start: u64, length: u64) -> u64 {
    let (start, length) = ((start & 255) as u32, (length & 255) as u32);
    let ones = 1u64.checked_shl(length).map_or(u64::MAX, |bit| bit - 1);
    let mask = ones.checked_shl(start).unwrap_or(0);
    let merged = b & !mask | a.checked_shl(start).unwrap_or(0) & mask;
    if wide { merged } else { u64::from(merged as u32) }
}

#[cfg(test)]
#[path = "arith_tests.rs"]
mod tests;
