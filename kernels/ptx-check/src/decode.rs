//! From the words of an instruction to what is run.

use crate::{
    arith,
    body::Body,
    convert::Conversion,
    error::Space,
    instruction::{Access, Op, SINK, Slot, Warp},
};

/// Decodes one instruction without its guard and semicolon. `line` is where it stands, for branches.
pub(crate) fn decode(body: &mut Body, text: &str, line: usize) -> Result<Op, String> {
    let (name, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let operands = operands(rest)?;
    let operands: Vec<&str> = operands.iter().map(String::as_str).collect();
    let unknown = || format!("{name} with {} operands is not of the subset", operands.len());
    match (name, operands.as_slice()) {
        ("ret" | "exit", []) => return Ok(Op::Return),
        ("bra" | "bra.uni", [label]) => return Ok(body.branch(label, line)),
        ("bar.sync" | "barrier.sync", ["0"]) => return Ok(Op::Barrier),
        ("mov.b64", [d, a]) if d.starts_with('{') => {
            let parts = list(d);
            let [low, high] = parts.as_slice() else { return Err(unknown()) };
            return Ok(Op::Unpack { low: body.write(low)?, high: body.write(high)?, a: body.read(a)? });
        }
        ("mov.b64" | "mov.b32", [d, a]) if a.starts_with('{') => {
            let parts = list(a);
            let [low, high] = parts.as_slice() else { return Err(unknown()) };
            let pack = if name == "mov.b64" { "pack" } else { "pack.halves" };
            let f = arith::two(pack).expect("it is known");
            return Ok(Op::Two { f, d: body.write(d)?, a: body.read(low)?, b: body.read(high)? });
        }
        ("bfi.b32" | "bfi.b64", [d, a, b, start, length]) => {
            return Ok(Op::Insert {
                wide: name == "bfi.b64",
                d: body.write(d)?,
                a: body.read(a)?,
                b: body.read(b)?,
                start: body.read(start)?,
                length: body.read(length)?,
            });
        }
        _ => {}
    }
    if let Some(op) = memory(body, name, &operands)? {
        return Ok(op);
    }
    if let Some(op) = warp(body, name, &operands)? {
        return Ok(op);
    }
    if let Some(kinds) = name.strip_prefix("cvt.")
        && let [d, a] = operands.as_slice()
    {
        let conversion = Conversion::parse(kinds).ok_or_else(unknown)?;
        return Ok(Op::Convert { conversion, d: body.write(d)?, a: body.read(a)? });
    }
    match operands.as_slice() {
        [d, a] => {
            let f = arith::one(name).ok_or_else(unknown)?;
            Ok(Op::One { f, d: body.write(d)?, a: body.read(a)? })
        }
        [d, a, b] => {
            let f = arith::two(name).ok_or_else(unknown)?;
            Ok(Op::Two { f, d: body.write(d)?, a: body.read(a)?, b: body.read(b)? })
        }
        [d, a, b, c] => {
            let f = arith::three(name).ok_or_else(unknown)?;
            Ok(Op::Three { f, d: body.write(d)?, a: body.read(a)?, b: body.read(b)?, c: body.read(c)? })
        }
        _ => Err(unknown()),
    }
}

/// Operands lie between commas, but not those inside of `{}` or `[]`.
fn operands(text: &str) -> Result<Vec<String>, String> {
    let (mut found, mut depth) = (vec![String::new()], 0i32);
    for letter in text.chars() {
        match letter {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ => {}
        }
        match found.last_mut() {
            _ if letter == ',' && depth == 0 => found.push(String::new()),
            Some(last) if !letter.is_whitespace() => last.push(letter),
            _ => {}
        }
    }
    if depth != 0 {
        return Err(format!("brackets of {text:?} do not close"));
    }
    if found.len() == 1 && found[0].is_empty() {
        found.clear();
    }
    Ok(found)
}

fn list(operand: &str) -> Vec<&str> {
    operand.trim_matches(|letter| letter == '{' || letter == '}').split(',').collect()
}

/// `ld`, `st`, `atom` and `red`.
fn memory(body: &mut Body, name: &str, operands: &[&str]) -> Result<Option<Op>, String> {
    let parts: Vec<&str> = name.split('.').collect();
    let (space, lanes, kind, operation) = match parts.as_slice() {
        ["ld" | "st", space, kind] => (*space, 1, *kind, None),
        ["ld" | "st", space, "v2", kind] => (*space, 2, *kind, None),
        ["ld" | "st", space, "v4", kind] => (*space, 4, *kind, None),
        ["atom" | "red", space, operation, kind]
        | ["atom" | "red", "relaxed", "gpu", space, operation, kind] => (*space, 1, *kind, Some(*operation)),
        _ => return Ok(None),
    };
    let unknown = || format!("{name} is not of the subset");
    let space = match space {
        "global" => Space::Global,
        "shared" => Space::Shared,
        "param" if parts[0] == "ld" => Space::Param,
        _ => return Err(unknown()),
    };
    let bits: u8 = kind.get(1..).and_then(|bits| bits.parse().ok()).ok_or_else(unknown)?;
    if ![8, 16, 32, 64].contains(&bits) {
        return Err(unknown());
    }
    let access =
        |base, offset| Access { space, width: bits / 8, lanes, signed: kind.starts_with('s'), base, offset };
    match (parts[0], operands) {
        ("ld", [d, at]) => {
            let (base, offset) = address(body, at)?;
            let d = slots(lanes, d, |name| body.write(name))?;
            Ok(Some(Op::Load { access: access(base, offset), d }))
        }
        ("st", [at, a]) => {
            let (base, offset) = address(body, at)?;
            let a = slots(lanes, a, |name| body.read(name))?;
            Ok(Some(Op::Store { access: access(base, offset), a }))
        }
        ("atom", [d, at, a]) => {
            let (base, offset) = address(body, at)?;
            let f = atomic(operation, kind).ok_or_else(unknown)?;
            Ok(Some(Op::Atomic { access: access(base, offset), f, d: body.write(d)?, a: body.read(a)? }))
        }
        ("red", [at, a]) => {
            let (base, offset) = address(body, at)?;
            let f = atomic(operation, kind).ok_or_else(unknown)?;
            Ok(Some(Op::Atomic { access: access(base, offset), f, d: SINK, a: body.read(a)? }))
        }
        _ => Err(unknown()),
    }
}

/// What an atomic makes of the value in memory and its operand.
fn atomic(operation: Option<&str>, kind: &str) -> Option<fn(u64, u64) -> u64> {
    match operation? {
        "exch" if kind == "b32" => Some(|_, new| new & 0xffff_ffff),
        operation @ ("add" | "min" | "max" | "and" | "or" | "xor") => {
            arith::two(&format!("{operation}.{kind}")).filter(|_| !kind.starts_with('f'))
        }
        _ => None,
    }
}

fn slots(
    lanes: u8,
    operand: &str,
    mut slot: impl FnMut(&str) -> Result<Slot, String>,
) -> Result<[Slot; 4], String> {
    let names = list(operand);
    if names.len() != usize::from(lanes) {
        return Err(format!("{operand} are not {lanes} registers"));
    }
    let mut found = [SINK; 4];
    for (place, name) in found.iter_mut().zip(names) {
        *place = slot(name)?;
    }
    Ok(found)
}

/// `[register]`, `[symbol]`, and either with an offset.
fn address(body: &mut Body, operand: &str) -> Result<(Slot, i64), String> {
    let inner = operand.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let inner = inner.ok_or_else(|| format!("{operand} is not an address"))?;
    let (base, offset) = match inner.split_once('+') {
        Some((base, offset)) => {
            (base, offset.parse().map_err(|_| format!("{offset:?} in {operand} is not an offset"))?)
        }
        None => (inner, 0),
    };
    Ok((body.read(base)?, offset))
}

/// Shuffles, votes and `bar.warp.sync`.
fn warp(body: &mut Body, name: &str, operands: &[&str]) -> Result<Option<Op>, String> {
    let what = match name {
        "shfl.sync.up.b32" => Warp::ShuffleUp,
        "shfl.sync.down.b32" => Warp::ShuffleDown,
        "shfl.sync.bfly.b32" => Warp::ShuffleXor,
        "shfl.sync.idx.b32" => Warp::ShuffleIndex,
        "vote.sync.all.pred" => Warp::VoteAll,
        "vote.sync.any.pred" => Warp::VoteAny,
        "vote.sync.ballot.b32" => Warp::VoteBallot,
        "bar.warp.sync" => Warp::Sync,
        _ => return Ok(None),
    };
    let zero = body.constant(0)?;
    match operands {
        [d, a, b, c, mask] => {
            let (d, p) = d.split_once('|').unwrap_or((d, "_"));
            let (d, p) = (body.write(d)?, body.write(p)?);
            let (a, b, c) = (body.read(a)?, body.read(b)?, body.read(c)?);
            Ok(Some(Op::Warp { what, d, p, a, b, c, mask: body.read(mask)? }))
        }
        [d, a, mask] => {
            let (d, a) = (body.write(d)?, body.read(a)?);
            Ok(Some(Op::Warp { what, d, p: SINK, a, b: zero, c: zero, mask: body.read(mask)? }))
        }
        [mask] if what == Warp::Sync => {
            let mask = body.read(mask)?;
            Ok(Some(Op::Warp { what, d: SINK, p: SINK, a: zero, b: zero, c: zero, mask }))
        }
        _ => Err(format!("{name} with {} operands is not of the subset", operands.len())),
    }
}
