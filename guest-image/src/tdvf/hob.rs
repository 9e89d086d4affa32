//! The TD HOB: the list of memory that QEMU hands to the firmware, which measures it first of all.
//!
//! PI 1.8, volume 3, chapter 5 (the structures); QEMU's hw/i386/tdvf-hob.c, target/i386/kvm/tdx.c and pc_q35.c (which memory is
//! listed). Compared with the logs of two machines with Intel TDX: 1 GiB and 2 GiB, this firmware family, QEMU 9 and later.

use super::{Kind, NotTdvf, Tdvf};

/// q35 puts this much memory below 4 GiB when there is at least [`SPLIT`] of it, and all of it when there is less.
const BELOW: u64 = 0x8000_0000;
const SPLIT: u64 = 0xb000_0000;
const ABOVE: u64 = 1 << 32;
/// EFI_HOB_HANDOFF_INFO_TABLE.
const HANDOFF: u16 = 56;
/// EFI_HOB_RESOURCE_DESCRIPTOR.
const RESOURCE: u16 = 48;
/// EFI_HOB_GENERIC_HEADER, which ends the list.
const END: u64 = 8;
const SYSTEM_MEMORY: u32 = 0;
const UNACCEPTED_MEMORY: u32 = 7;
/// Present, initialised, tested.
const ATTRIBUTES: u32 = 7;

/// A piece of memory.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Range {
    start: u64,
    end: u64,
    /// Whether it belongs to a section, and so is accepted from the start.
    added: bool,
}

impl Tdvf<'_> {
    /// The bytes of the list for a machine with `memory` bytes, without the entry that ends it: what is measured.
    ///
    /// # Errors
    /// If the firmware has not exactly one place for it, or wants memory that the machine does not have.
    pub fn hand_off(&self, memory: u64) -> Result<Vec<u8>, NotTdvf> {
        let place = self.only(Kind::HandOff)?;
        let mut ranges = installed(memory).ok_or(NotTdvf("the machine's memory is past all addresses"))?;
        for section in self.sections.iter().filter(|s| matches!(s.kind, Kind::HandOff | Kind::Memory)) {
            accept(&mut ranges, section.address, section.address + section.size)?;
        }
        ranges.sort_unstable();
        let length = u64::from(HANDOFF) + ranges.len() as u64 * u64::from(RESOURCE);
        if length + END > place.size {
            return Err(NotTdvf("the list of memory does not fit its place"));
        }
        let mut list = Vec::with_capacity(usize::try_from(length).expect("a few pages"));
        hand_off_head(&mut list, place.address + length + END);
        for range in ranges {
            resource(&mut list, range);
        }
        Ok(list)
    }
}

/// The memory that QEMU's q35 machine installs; `None` if its end is past all addresses.
fn installed(memory: u64) -> Option<Vec<Range>> {
    let range = |start, end| Range { start, end, added: false };
    if memory < SPLIT {
        return Some(vec![range(0, memory)]);
    }
    Some(vec![range(0, BELOW), range(ABOVE, ABOVE.checked_add(memory - BELOW)?)])
}

/// Marks a section's memory as added: its range is cut out of the one that it lies in.
fn accept(ranges: &mut Vec<Range>, start: u64, end: u64) -> Result<(), NotTdvf> {
    let within = |range: &Range| !range.added && range.start <= start && end <= range.end;
    let at = ranges.iter().position(within);
    let at = at.ok_or(NotTdvf("its sections overlap, or want memory that the machine does not have"))?;
    let outer = ranges.swap_remove(at);
    ranges.push(Range { start, end, added: true });
    let rest = [Range { end: start, ..outer }, Range { start: end, ..outer }];
    ranges.extend(rest.into_iter().filter(|range| range.start < range.end));
    Ok(())
}

fn hand_off_head(list: &mut Vec<u8>, end_of_list: u64) {
    const KIND: u16 = 1;
    const VERSION: u32 = 9;
    list.extend_from_slice(&KIND.to_le_bytes());
    list.extend_from_slice(&HANDOFF.to_le_bytes());
    list.extend_from_slice(&[0; 4]);
    list.extend_from_slice(&VERSION.to_le_bytes());
    // Boot mode, and four limits of memory that TDX firmware ignores.
    list.extend_from_slice(&[0; 4 + 4 * 8]);
    list.extend_from_slice(&end_of_list.to_le_bytes());
}

fn resource(list: &mut Vec<u8>, range: Range) {
    const KIND: u16 = 3;
    let memory = if range.added { SYSTEM_MEMORY } else { UNACCEPTED_MEMORY };
    list.extend_from_slice(&KIND.to_le_bytes());
    list.extend_from_slice(&RESOURCE.to_le_bytes());
    // Reserved, and the owner's GUID.
    list.extend_from_slice(&[0; 4 + 16]);
    list.extend_from_slice(&memory.to_le_bytes());
    list.extend_from_slice(&ATTRIBUTES.to_le_bytes());
    list.extend_from_slice(&range.start.to_le_bytes());
    list.extend_from_slice(&(range.end - range.start).to_le_bytes());
}
