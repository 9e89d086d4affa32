//! TDX virtual firmware: which parts of it become a TD's first memory, and what that makes of MRTD.
//!
//! Intel, "TDX Virtual Firmware Design Guide" 1.01, chapter 11 (the metadata); "TDX Module ABI Reference", TDH.MEM.PAGE.ADD
//! and TDH.MR.EXTEND (what is hashed).
//!
//! | descriptor | bytes | content |
//! | --- | --- | --- |
//! | head | 4, 4, 4, 4 | "TDVF", its length, version 1, number of sections |
//! | section | 4, 4 | offset and length of its data in the file |
//! | | 8, 8 | where it goes in the guest's memory, and how long it is there |
//! | | 4, 4 | [`Kind`], attributes: bit 0 is measured (MR.EXTEND), bit 1 is added later by the guest (PAGE.AUG) |
//!
//! **Order.** MRTD is one SHA-384 over everything, so it depends on the order. QEMU hands the sections to KVM in the order of
//! the file, and KVM adds a page and then extends it in 16 steps of 256 bytes before it goes on (one pass). Early QEMU forks
//! of vendors (those numbered 8.x) added all pages of a section first (two passes): such hosts show another MRTD, and are
//! refused.

mod hob;

use ring::digest::{Context, SHA384};

use crate::guids;
use crate::reader::{bytes, length, u32, u64};

/// The largest firmware, in bytes: what fits below 4 GiB in QEMU.
pub const FIRMWARE_MAX: usize = 16 << 20;
/// Most sections of a descriptor.
pub const SECTIONS_MAX: usize = 64;
/// Most memory of all sections, in bytes: bounds the work for MRTD.
pub const MEMORY_MAX: u64 = 64 << 20;

/// e47a6535-984a-4798-865e-4685a7bf8ec2
const METADATA: [u8; 16] =
    [0x35, 0x65, 0x7a, 0xe4, 0x4a, 0x98, 0x98, 0x47, 0x86, 0x5e, 0x46, 0x85, 0xa7, 0xbf, 0x8e, 0xc2];
const HEAD: usize = 16;
const SECTION: usize = 32;
const PAGE: u64 = 4096;
const CHUNK: usize = 256;
const MEASURED: u32 = 1;
const ADDED_LATER: u32 = 2;

/// Why a file is no firmware for TDX.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no TDX virtual firmware: {0}")]
pub struct NotTdvf(&'static str);

/// What a section is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// BFV: the firmware's code.
    Code,
    /// CFV: its variables, as they are in the file.
    Variables,
    /// Where the host puts the list of memory (TD HOB).
    HandOff,
    /// Memory for the firmware's first steps.
    Memory,
}

/// A part of a TD's first memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section<'a> {
    /// What it is for.
    pub kind: Kind,
    /// Its bytes in the file; empty for memory that begins as zeros.
    pub data: &'a [u8],
    /// Guest physical address: a multiple of 4096.
    pub address: u64,
    /// Bytes of memory: a multiple of 4096, never less than the data.
    pub size: u64,
    /// Where its data is in the file.
    offset: usize,
    measured: bool,
    added_later: bool,
}

/// A firmware file with its sections, in the order of the file.
#[derive(Debug, Clone)]
pub struct Tdvf<'a> {
    sections: Vec<Section<'a>>,
}

impl<'a> Tdvf<'a> {
    /// Finds and checks the metadata.
    ///
    /// # Errors
    /// If there is none, or it is not exact.
    pub fn parse(firmware: &'a [u8]) -> Result<Self, NotTdvf> {
        if firmware.len() > FIRMWARE_MAX {
            return Err(NotTdvf("it is larger than 16 MiB"));
        }
        let entry = guids::find(firmware, &METADATA).ok_or(NotTdvf("it has no metadata entry"))?;
        let from_end = length(entry, 0).filter(|_| entry.len() == 4);
        let start = from_end.and_then(|from_end| firmware.len().checked_sub(from_end));
        let descriptor = start
            .and_then(|start| firmware.get(start..))
            .ok_or(NotTdvf("its metadata entry points outside of it"))?;
        let (head, version) = (bytes::<4>(descriptor, 0), u32(descriptor, 8));
        if head != Some(*b"TDVF") || version != Some(1) {
            return Err(NotTdvf("its metadata does not begin with TDVF, version 1"));
        }
        let count = length(descriptor, 12).filter(|count| (1..=SECTIONS_MAX).contains(count));
        let count = count.ok_or(NotTdvf("it has no sections, or more than 64"))?;
        if length(descriptor, 4) != Some(HEAD + count * SECTION) {
            return Err(NotTdvf("its metadata's length is not that of its sections"));
        }
        let mut sections = Vec::with_capacity(count);
        for index in 0..count {
            let header = bytes::<SECTION>(descriptor, HEAD + index * SECTION)
                .ok_or(NotTdvf("it ends inside its metadata"))?;
            sections.push(section(firmware, &header)?);
        }
        let memory = sections.iter().try_fold(0_u64, |sum, section| sum.checked_add(section.size));
        if memory.is_none_or(|memory| memory > MEMORY_MAX) {
            return Err(NotTdvf("its sections take more than 64 MiB"));
        }
        Ok(Self { sections })
    }

    /// The sections, in the order of the file.
    pub fn sections(&self) -> &[Section<'a>] {
        &self.sections
    }

    /// The firmware's variables: data of the section of that kind.
    ///
    /// # Errors
    /// If there is not exactly one.
    pub fn variables(&self) -> Result<&'a [u8], NotTdvf> {
        self.only(Kind::Variables).map(|section| section.data)
    }

    /// MRTD of a TD that is built from this file, page by page.
    pub fn mrtd(&self) -> [u8; 48] {
        let mut context = Context::new(&SHA384);
        for section in &self.sections {
            for page in 0..section.size / PAGE {
                let address = section.address + page * PAGE;
                if !section.added_later {
                    context.update(&step(b"MEM.PAGE.ADD", address));
                }
                if section.measured {
                    section.extend_page(page, &mut context);
                }
            }
        }
        context.finish().as_ref().try_into().expect("SHA-384 gives 48 bytes")
    }

    fn only(&self, kind: Kind) -> Result<&Section<'a>, NotTdvf> {
        let mut found = self.sections.iter().filter(|section| section.kind == kind);
        match (found.next(), found.next()) {
            (Some(section), None) => Ok(section),
            _ => Err(NotTdvf("it has not exactly one section for variables and one for the TD HOB")),
        }
    }
}

impl Section<'_> {
    /// TDH.MR.EXTEND over one page. Memory behind the data is zero.
    fn extend_page(&self, page: u64, context: &mut Context) {
        for chunk in 0..PAGE / CHUNK as u64 {
            let offset = page * PAGE + chunk * CHUNK as u64;
            context.update(&step(b"MR.EXTEND", self.address + offset));
            let mut bytes = [0; CHUNK];
            let offset = usize::try_from(offset).expect("at most MEMORY_MAX");
            let data = self.data.get(offset..).unwrap_or_default();
            let data = data.get(..CHUNK).unwrap_or(data);
            bytes[..data.len()].copy_from_slice(data);
            context.update(&bytes);
        }
    }
}

/// What the module hashes for one step: its name and the address, in 128 bytes.
fn step(name: &[u8], address: u64) -> [u8; 128] {
    let mut buffer = [0; 128];
    buffer[..name.len()].copy_from_slice(name);
    buffer[16..24].copy_from_slice(&address.to_le_bytes());
    buffer
}

fn section<'a>(firmware: &'a [u8], header: &[u8; SECTION]) -> Result<Section<'a>, NotTdvf> {
    let short = NotTdvf("it ends inside its metadata");
    let (offset, length) = (length(header, 0).ok_or(short)?, length(header, 4).ok_or(short)?);
    let (address, size) = (u64(header, 8).ok_or(short)?, u64(header, 16).ok_or(short)?);
    let kind = match u32(header, 24).ok_or(short)? {
        0 => Kind::Code,
        1 => Kind::Variables,
        2 => Kind::HandOff,
        3 => Kind::Memory,
        _ => return Err(NotTdvf("it has a section of a kind that QEMU does not load")),
    };
    let attributes = u32(header, 28).ok_or(short)?;
    let data = offset.checked_add(length).and_then(|end| firmware.get(offset..end));
    let data = data.ok_or(NotTdvf("a section lies outside of it"))?;
    if address % PAGE != 0 || size % PAGE != 0 || size == 0 || address.checked_add(size).is_none() {
        return Err(NotTdvf("a section is not made of whole pages"));
    }
    if data.len() as u64 > size || attributes & !(MEASURED | ADDED_LATER) != 0 {
        return Err(NotTdvf("a section has more data than memory, or attributes that are not known"));
    }
    if matches!(kind, Kind::Code | Kind::Variables) && data.len() as u64 != size {
        return Err(NotTdvf("its code or its variables are not as long in the file as in memory"));
    }
    if matches!(kind, Kind::HandOff | Kind::Memory) && (!data.is_empty() || attributes != 0) {
        return Err(NotTdvf("memory that begins empty is measured, or has data"));
    }
    let (measured, added_later) = (attributes & MEASURED != 0, attributes & ADDED_LATER != 0);
    if measured && added_later {
        return Err(NotTdvf("a section is measured and added later"));
    }
    Ok(Section { kind, data, address, size, offset, measured, added_later })
}

/// A firmware of which code and reset vector come from `code`, and the variables from `variables`.
///
/// Debian's TDX firmware comes with Microsoft's Secure Boot keys. With them it starts no kernel directly, since none is signed
/// by Microsoft; without them it starts the one that is measured, which is what a relying party checks.
///
/// # Errors
/// If one of them is no TDX firmware, or their variables are not of the same length at the same place.
pub fn with_variables_of(code: &[u8], variables: &[u8]) -> Result<Vec<u8>, NotTdvf> {
    let (own, other) = (Tdvf::parse(code)?, Tdvf::parse(variables)?);
    let (own, other) = (own.only(Kind::Variables)?, other.only(Kind::Variables)?);
    if own.data.len() != other.data.len() || own.address != other.address {
        return Err(NotTdvf("the two have variables of different length or place"));
    }
    let mut joined = code.to_vec();
    joined[own.offset..own.offset + own.data.len()].copy_from_slice(other.data);
    Ok(joined)
}

#[cfg(test)]
mod tests;
