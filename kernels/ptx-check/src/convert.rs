//! `cvt`: between integers, halves, singles and doubles.

use crate::arith::single;

/// A type that `cvt` knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Bits, and whether they have a sign.
    Int(u8, bool),
    F16,
    F32,
    F64,
}

/// One `cvt`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conversion {
    pub(crate) to: Kind,
    pub(crate) from: Kind,
    pub(crate) rounding: Rounding,
}

/// How a float becomes an integer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rounding {
    /// Nothing to round, or a float to nearest.
    Nearest,
    /// `.rni`: to the nearest, ties to even.
    Even,
    /// `.rzi`: towards zero.
    Zero,
    /// `.rmi`: down.
    Down,
    /// `.rpi`: up.
    Up,
}

impl Conversion {
    /// Of what follows `cvt.`: rounding where it is needed, then the types.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut parts: Vec<&str> = name.split('.').collect();
        let from = Kind::parse(parts.pop()?)?;
        let to = Kind::parse(parts.pop()?)?;
        // Floats that become integers always saturate (*cvt*): saying so is allowed.
        let to_int = matches!((to, from), (Kind::Int(..), Kind::F32 | Kind::F64));
        if to_int && parts.last() == Some(&"sat") {
            parts.pop();
        }
        let rounding = match (parts.as_slice(), to_int) {
            ([], false) if !narrows(to, from) => Rounding::Nearest,
            (["rn"], false) if narrows(to, from) => Rounding::Nearest,
            (["rni"], true) => Rounding::Even,
            (["rzi"], true) => Rounding::Zero,
            (["rmi"], true) => Rounding::Down,
            (["rpi"], true) => Rounding::Up,
            _ => return None,
        };
        let halves = (to == Kind::F16 && from != Kind::F32) || (from == Kind::F16 && to != Kind::F32);
        (!halves).then_some(Self { to, from, rounding })
    }

    pub(crate) fn apply(self, bits: u64) -> u64 {
        match (self.from, self.to) {
            (Kind::Int(from, signed), Kind::Int(to, _)) => mask(extend(bits, from, signed) as u64, to),
            (Kind::Int(from, true), Kind::F32) => single(extend(bits, from, true) as f32),
            (Kind::Int(from, false), Kind::F32) => single(mask(bits, from) as f32),
            (Kind::Int(from, true), Kind::F64) => (extend(bits, from, true) as f64).to_bits(),
            (Kind::Int(from, false), Kind::F64) => (mask(bits, from) as f64).to_bits(),
            (Kind::F32, Kind::Int(to, signed)) => {
                self.integer(f64::from(f32::from_bits(bits as u32)), to, signed)
            }
            (Kind::F64, Kind::Int(to, signed)) => self.integer(f64::from_bits(bits), to, signed),
            (Kind::F32, Kind::F64) => f64::from(f32::from_bits(bits as u32)).to_bits(),
            (Kind::F64, Kind::F32) => single(f64::from_bits(bits) as f32),
            (Kind::F16, _) => single(widen(bits as u16)),
            (_, Kind::F16) => u64::from(narrow(f32::from_bits(bits as u32))),
            (Kind::F32 | Kind::F64, _) => bits,
        }
    }

    /// Rounds, and stays within the type's bounds; what is not a number becomes 0.
    fn integer(self, value: f64, bits: u8, signed: bool) -> u64 {
        let rounded = match self.rounding {
            Rounding::Nearest | Rounding::Even => value.round_ties_even(),
            Rounding::Zero => value.trunc(),
            Rounding::Down => value.floor(),
            Rounding::Up => value.ceil(),
        };
        // `as` saturates.
        let value = match (bits, signed) {
            (8, true) => i64::from(rounded as i8) as u64,
            (8, false) => u64::from(rounded as u8),
            (16, true) => i64::from(rounded as i16) as u64,
            (16, false) => u64::from(rounded as u16),
            (32, true) => i64::from(rounded as i32) as u64,
            (32, false) => u64::from(rounded as u32),
            (_, true) => rounded as i64 as u64,
            (_, false) => rounded as u64,
        };
        mask(value, bits)
    }
}

/// Whether a conversion can lose something, so that it has to name its rounding.
fn narrows(to: Kind, from: Kind) -> bool {
    matches!(
        (to, from),
        (Kind::F32 | Kind::F64, Kind::Int(..)) | (Kind::F16, Kind::F32) | (Kind::F32, Kind::F64)
    )
}

impl Kind {
    fn parse(name: &str) -> Option<Self> {
        Some(match name {
            "f16" => Self::F16,
            "f32" => Self::F32,
            "f64" => Self::F64,
            _ => {
                let bits = name.get(1..)?.parse().ok().filter(|bits| [8, 16, 32, 64].contains(bits))?;
                Self::Int(bits, name.starts_with('s'))
            }
        })
    }
}

fn mask(value: u64, bits: u8) -> u64 {
    value & (u64::MAX >> (64 - bits))
}

/// The value of the low `bits`, with their sign or without.
pub(crate) fn extend(value: u64, bits: u8, signed: bool) -> i64 {
    let spare = 64 - bits;
    if signed { (value << spare) as i64 >> spare } else { mask(value, bits) as i64 }
}

/// By its definition: sign, exponent and fraction.
fn widen(half: u16) -> f32 {
    let (exponent, fraction) = (i32::from(half >> 10 & 31), f64::from(half & 1023));
    let magnitude = match exponent {
        0 => fraction * 2f64.powi(-24),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        _ => (1024.0 + fraction) * 2f64.powi(exponent - 25),
    };
    (if half & 0x8000 == 0 { magnitude } else { -magnitude }) as f32
}

/// By its definition: to the nearest multiple of the half's last place, ties to even.
fn narrow(value: f32) -> u16 {
    let sign = if value.is_sign_negative() { 0x8000 } else { 0 };
    let magnitude = f64::from(value.abs());
    if magnitude.is_nan() {
        return 0x7fff;
    }
    // 2^exponent is the last place: 2^-24 for the smallest halves, 2^5 for the largest.
    let exponent = (((f64::to_bits(magnitude) >> 52) as i32 - 1023) - 10).max(-24);
    let steps = (magnitude * 2f64.powi(-exponent)).round_ties_even();
    if magnitude.is_infinite() || steps * 2f64.powi(exponent) >= 65536.0 {
        return sign | 0x7c00;
    }
    // Each exponent begins where the steps of the one before end, at 1024: a carry is right by itself.
    let steps = steps as i32;
    let bits = if steps < 1024 { steps } else { (exponent + 24) * 1024 + steps };
    sign | bits as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    fn convert(name: &str, bits: u64) -> u64 {
        Conversion::parse(name).unwrap_or_else(|| panic!("{name}")).apply(bits)
    }

    fn single_bits(value: f32) -> u64 {
        u64::from(value.to_bits())
    }

    #[test]
    fn halves_widen_exactly() {
        for (half, value) in [
            (0x0000, 0.0f32),
            (0x8000, -0.0),
            (0x0001, 5.960_464_5e-8),
            (0x03ff, 6.097_555e-5),
            (0x0400, 6.103_515_6e-5),
            (0x3c00, 1.0),
            (0xc000, -2.0),
            (0x3555, 0.333_251_95),
            (0x7bff, 65504.0),
            (0x7c00, f32::INFINITY),
        ] {
            assert_eq!(convert("f32.f16", half), single_bits(value), "{half:#x}");
        }
        assert_eq!(convert("f32.f16", 0x7c01), 0x7fff_ffff);
    }

    #[test]
    fn singles_narrow_to_the_nearest_half_ties_to_even() {
        for (value, half) in [
            (1.0f32, 0x3c00),
            (1.000_488_3, 0x3c00), // halfway to the next: even
            (1.001_464_8, 0x3c02), // halfway again: even above
            (1.000_488_4, 0x3c01), // a little over
            (-65504.0, 0xfbff),
            (65519.996, 0x7bff),
            (65520.0, 0x7c00),
            (2.980_232_2e-8, 0x0000), // half of the smallest
            (2.980_232_6e-8, 0x0001),
            (6.103_515_6e-5, 0x0400),
            (6.100_535_4e-5, 0x0400), // rounds up into the normal ones
            (f32::NEG_INFINITY, 0xfc00),
            (-1e-30, 0x8000),
        ] {
            assert_eq!(convert("rn.f16.f32", single_bits(value)), half, "{value}");
        }
        assert_eq!(convert("rn.f16.f32", single_bits(f32::NAN)), 0x7fff);
    }

    #[test]
    fn every_half_comes_back() {
        for half in (0..0x7c00u64).chain(0x8000..0xfc00) {
            assert_eq!(convert("rn.f16.f32", convert("f32.f16", half)), half);
        }
    }

    #[test]
    fn floats_become_integers_by_their_rounding_and_saturate() {
        for (name, value, expected) in [
            ("rni.s32.f32", 2.5f32, 2),
            ("rni.s32.f32", 3.5, 4),
            ("rzi.s32.f32", -2.9, 0xffff_fffe),
            ("rmi.s32.f32", -2.1, 0xffff_fffd),
            ("rpi.s32.f32", 2.1, 3),
            ("rni.sat.s8.f32", 300.0, 127),
            ("rni.sat.s8.f32", -300.0, 0x80),
            ("rni.sat.u8.f32", -1.0, 0),
            ("rzi.u32.f32", 1e20, 0xffff_ffff),
            ("rzi.s32.f32", f32::NAN, 0),
        ] {
            assert_eq!(convert(name, single_bits(value)), expected, "{name} of {value}");
        }
    }

    #[test]
    fn integers_extend_and_become_the_nearest_float() {
        assert_eq!(convert("s32.s8", 0x1ff), 0xffff_ffff);
        assert_eq!(convert("u32.u8", 0x1ff), 0xff);
        assert_eq!(convert("u64.u32", 0xffff_ffff_8000_0000), 0x8000_0000);
        assert_eq!(convert("s64.s32", 0x8000_0000), 0xffff_ffff_8000_0000);
        assert_eq!(convert("u32.u64", 0x1_2345_6789), 0x2345_6789);
        assert_eq!(convert("rn.f32.s32", 0xffff_ffff), single_bits(-1.0));
        assert_eq!(convert("rn.f32.u32", 0xffff_ffff), single_bits(4_294_967_296.0));
        assert_eq!(convert("rn.f32.s32", 16_777_217), single_bits(16_777_216.0));
        assert_eq!(convert("rn.f32.s32", 16_777_219), single_bits(16_777_220.0));
        assert_eq!(convert("rn.f32.s16", 0xffff), single_bits(-1.0));
        assert_eq!(convert("rn.f64.u64", 1 << 60), 2f64.powi(60).to_bits());
        assert_eq!(convert("rn.f32.f64", (1.0f64 + 2f64.powi(-24)).to_bits()), single_bits(1.0));
        assert_eq!(convert("f64.f32", single_bits(0.1)), f64::from(0.1f32).to_bits());
    }

    #[test]
    fn a_conversion_that_loses_something_has_to_name_its_rounding() {
        for name in
            ["f16.f32", "f32.s32", "s32.f32", "f32.f64", "rn.f64.f32", "rn.f32.f16", "rn.f16.f64", "b32.b32x"]
        {
            assert_eq!(Conversion::parse(name), None, "{name}");
        }
    }
}
