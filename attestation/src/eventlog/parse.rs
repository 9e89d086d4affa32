//! The bytes of a log: header event, events, padding.

use super::bank::{BANKS, Bank};
use super::kind::EventType;
use super::{
    Event, EventLog, MAX_ALGORITHMS, MAX_EVENT, MAX_EVENTS, MAX_LOG, MAX_REGISTER, NO_REGISTER, origin,
};
use crate::Malformed;

const WHAT: &str = "event log";
const SIGNATURE: &[u8; 16] = b"Spec ID Event03\0";
/// The largest digest an algorithm of the header may have, in bytes.
const MAX_DIGEST: usize = 64;

/// A [`Malformed`] that says where: the offset in the log and the field.
pub(super) fn malformed(at: usize, field: &str, reason: impl std::fmt::Display) -> Malformed {
    Malformed::new(WHAT, format!("at byte {at}, {field}: {reason}"))
}

/// Reads from a slice, knowing the offset in the whole log.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    pub(super) at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], at: usize) -> Self {
        Self { rest: bytes, at }
    }

    pub(super) fn take(&mut self, length: usize, field: &str) -> Result<&'a [u8], Malformed> {
        let Some((taken, rest)) = self.rest.split_at_checked(length) else {
            return Err(malformed(self.at, field, format_args!("{length} bytes, {} left", self.rest.len())));
        };
        self.rest = rest;
        self.at += length;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &str) -> Result<[u8; N], Malformed> {
        self.take(N, field).map(|bytes| bytes.try_into().expect("just taken so"))
    }

    fn u8(&mut self, field: &str) -> Result<u8, Malformed> {
        self.array(field).map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self, field: &str) -> Result<u16, Malformed> {
        self.array(field).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, field: &str) -> Result<u32, Malformed> {
        self.array(field).map(u32::from_le_bytes)
    }

    /// A u32 length within a limit, then that many bytes.
    fn counted(&mut self, most: usize, field: &str) -> Result<&'a [u8], Malformed> {
        let (at, length) = (self.at, self.u32(field)?);
        match usize::try_from(length) {
            Ok(length) if length <= most => self.take(length, field),
            _ => Err(malformed(at, field, format_args!("{length} bytes, at most {most}"))),
        }
    }

    /// What fills the rest of the ACPI table's area: 0x00 or 0xff, and nothing else behind it.
    fn padding(&self) -> Result<bool, Malformed> {
        let Some(first) = self.rest.first().copied() else { return Ok(true) };
        let starts = matches!(first, 0 | 0xff) && self.rest.iter().take(8).all(|byte| *byte == first);
        match self.rest.iter().position(|byte| *byte != first) {
            _ if !starts => Ok(false),
            None => Ok(true),
            Some(other) => Err(malformed(
                self.at + other,
                "padding",
                format_args!("bytes behind the end of the log that are not {first:#04x}"),
            )),
        }
    }
}

/// An algorithm of the header's list.
struct Listed {
    id: u16,
    size: usize,
}

pub(super) fn log(bytes: &[u8]) -> Result<EventLog<'_>, Malformed> {
    if bytes.len() > MAX_LOG {
        return Err(malformed(MAX_LOG, "log", format_args!("{} bytes, at most {MAX_LOG}", bytes.len())));
    }
    let mut reader = Reader::new(bytes, 0);
    let listed = header(&mut reader)?;
    let mut events = Vec::new();
    while !reader.padding()? {
        if events.len() == MAX_EVENTS {
            return Err(malformed(reader.at, "events", format_args!("more than {MAX_EVENTS}")));
        }
        events.push(event(&mut reader, &listed, events.len() + 1)?);
    }
    let banks = listed.iter().filter_map(|algorithm| Bank::of_id(algorithm.id)).collect();
    Ok(EventLog { events, banks, used: reader.at })
}

/// TCG_PCClientPCREvent with TCG_EfiSpecIDEvent (PFP 10.2.1.1 and 10.4.5.1).
///
/// OVMF gives it register 1 in a CCEL: it maps the header's PCR 0 as it maps all others.
fn header(reader: &mut Reader<'_>) -> Result<Vec<Listed>, Malformed> {
    let register = reader.u32("header register")?;
    if register > 1 {
        return Err(malformed(0, "header register", format_args!("{register}, must be 0 or 1")));
    }
    let kind = EventType(reader.u32("header type")?);
    if kind != EventType::NO_ACTION {
        return Err(malformed(4, "header type", format_args!("{:#x}, must be EV_NO_ACTION", kind.code())));
    }
    if reader.take(20, "header digest")?.iter().any(|byte| *byte != 0) {
        return Err(malformed(8, "header digest", "must be zero"));
    }
    let (at, data) = (reader.at + 4, reader.counted(MAX_EVENT, "header size")?);
    let mut reader = Reader::new(data, at);
    if reader.take(16, "header signature")? != SIGNATURE {
        return Err(malformed(at, "header signature", "not \"Spec ID Event03\": not a crypto-agile log"));
    }
    reader.u32("platform class")?;
    let [minor, major, _errata] = reader.array("specification version")?;
    if (major, minor) != (2, 0) {
        return Err(malformed(
            at + 20,
            "specification version",
            format_args!("{major}.{minor}, must be 2.0"),
        ));
    }
    let width = reader.u8("UINTN size")?;
    if !matches!(width, 1 | 2) {
        return Err(malformed(at + 23, "UINTN size", format_args!("{width}, must be 1 or 2")));
    }
    let listed = algorithms(&mut reader)?;
    let vendor = reader.u8("vendor information size")?;
    reader.take(vendor.into(), "vendor information")?;
    match reader.rest.len() {
        0 => Ok(listed),
        left => Err(malformed(reader.at, "header", format_args!("{left} bytes left over"))),
    }
}

fn algorithms(reader: &mut Reader<'_>) -> Result<Vec<Listed>, Malformed> {
    let (at, count) = (reader.at, reader.u32("algorithm count")?);
    if count == 0 || usize::try_from(count).map_or(true, |count| count > MAX_ALGORITHMS) {
        let reason = format_args!("{count}, must be 1 to {MAX_ALGORITHMS}").to_string();
        return Err(malformed(at, "algorithm count", reason));
    }
    let mut listed: Vec<Listed> = Vec::new();
    for _ in 0..count {
        let (at, id) = (reader.at, reader.u16("algorithm")?);
        let size = usize::from(reader.u16("digest size")?);
        if listed.iter().any(|other| other.id == id) {
            return Err(malformed(at, "algorithm", format_args!("{id:#06x} is listed twice")));
        }
        if Bank::of_id(id).map_or(!(1..=MAX_DIGEST).contains(&size), |bank| bank.size() != size) {
            return Err(malformed(at + 2, "digest size", format_args!("{size} bytes for {id:#06x}")));
        }
        listed.push(Listed { id, size });
    }
    Ok(listed)
}

/// TCG_PCR_EVENT2 (PFP 10.2.2): one digest for each algorithm of the header, in any order.
fn event<'a>(reader: &mut Reader<'a>, listed: &[Listed], index: usize) -> Result<Event<'a>, Malformed> {
    let offset = reader.at;
    let register = reader.u32("register")?;
    let kind = EventType(reader.u32("event type")?);
    let nowhere = kind == EventType::NO_ACTION && register == NO_REGISTER;
    if register > MAX_REGISTER && !nowhere {
        return Err(malformed(offset, "register", format_args!("{register}, at most {MAX_REGISTER}")));
    }
    let digests = digests(reader, listed, kind)?;
    let data = reader.counted(MAX_EVENT, "event size")?;
    let mut event = Event { index, offset, register, kind, digests, data, origin: origin::UNKNOWN };
    event.origin = origin::of(&event)?;
    Ok(event)
}

fn digests<'a>(
    reader: &mut Reader<'a>,
    listed: &[Listed],
    kind: EventType,
) -> Result<[Option<&'a [u8]>; BANKS], Malformed> {
    let (at, count) = (reader.at, reader.u32("digest count")?);
    if usize::try_from(count) != Ok(listed.len()) {
        let reason = format_args!("{count}, the header lists {} algorithms", listed.len()).to_string();
        return Err(malformed(at, "digest count", reason));
    }
    let (mut digests, mut seen) = ([None; BANKS], [false; MAX_ALGORITHMS]);
    for _ in 0..count {
        let (at, id) = (reader.at, reader.u16("digest algorithm")?);
        let Some(place) = listed.iter().position(|algorithm| algorithm.id == id) else {
            return Err(malformed(at, "digest algorithm", format_args!("{id:#06x} is not in the header")));
        };
        if std::mem::replace(&mut seen[place], true) {
            return Err(malformed(at, "digest algorithm", format_args!("{id:#06x} comes twice")));
        }
        let digest = reader.take(listed[place].size, "digest")?;
        if kind == EventType::NO_ACTION && digest.iter().any(|byte| *byte != 0) {
            return Err(malformed(at + 2, "digest", "of EV_NO_ACTION, must be zero"));
        }
        if let Some(bank) = Bank::of_id(id) {
            digests[bank.place()] = Some(digest);
        }
    }
    Ok(digests)
}
