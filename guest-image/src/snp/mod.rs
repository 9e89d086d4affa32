//! The launch digest of an SEV-SNP guest that QEMU starts.
//!
//! AMD, "SEV Secure Nested Paging Firmware ABI" 1.57, 8.17.2 (PAGE_INFO: what each page adds to the digest), and OVMF's
//! ResetVector/X64/OvmfSevMetadata.asm (which pages there are). Every step hashes 112 bytes:
//!
//! | bytes | content |
//! | --- | --- |
//! | 48 | the digest so far |
//! | 48 | SHA-384 of the page; zero for pages whose content is not measured |
//! | 2, 1, 1 | 112, page type, 0 (no migration image) |
//! | 4 | permissions of VMPL 3, 2, 1: none; reserved |
//! | 8 | guest physical address |
//!
//! The order: firmware, its metadata's pages in the order of the file (one of them holds the hashes of kernel, initrd and
//! command line), then one page for each vCPU's first registers ([`vmsa`]). It is written out here because a verifier's crate
//! reads no files; the tests hold it against `sev-snp-measure`.

mod hashes;
mod vmsa;

use crate::digest::sha384;
use crate::guids;
use crate::reader::{bytes, length, u32};
use crate::tdvf::FIRMWARE_MAX;

pub use vmsa::VcpuType;

/// Most vCPUs of a guest: bounds the work.
pub const VCPUS_MAX: u32 = 1024;
/// Most pages of metadata in all.
const PAGES_MAX: u32 = 4096;
/// Most descriptions of pages in the metadata.
const SECTIONS_MAX: usize = 64;

/// dc886566-984a-4798-a75e-5585a7bf67cc
const METADATA: [u8; 16] =
    [0x66, 0x65, 0x88, 0xdc, 0x4a, 0x98, 0x98, 0x47, 0xa7, 0x5e, 0x55, 0x85, 0xa7, 0xbf, 0x67, 0xcc];
/// 00f771de-1a7e-4fcb-890e-68c77e2fb44e: where the other vCPUs begin.
const RESET: [u8; 16] =
    [0xde, 0x71, 0xf7, 0x00, 0x7e, 0x1a, 0xcb, 0x4f, 0x89, 0x0e, 0x68, 0xc7, 0x7e, 0x2f, 0xb4, 0x4e];
/// 7255371f-3a3b-4b04-927b-1da6efa8d454: where the hashes of kernel, initrd and command line go.
const HASHES: [u8; 16] =
    [0x1f, 0x37, 0x55, 0x72, 0x3b, 0x3a, 0x04, 0x4b, 0x92, 0x7b, 0x1d, 0xa6, 0xef, 0xa8, 0xd4, 0x54];
const HEAD: usize = 16;
const SECTION: usize = 12;
const PAGE: usize = 4096;
/// Where SNP records a page of first registers, whatever vCPU it is for.
const VMSA_ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// Why a file is no firmware for an SNP guest that is started with a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no firmware for SEV-SNP with a measured kernel: {0}")]
pub struct NotSnp(&'static str);

/// What makes the launch digest, beside the firmware.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// The bytes of the kernel's file.
    pub kernel: &'a [u8],
    /// The bytes of the initrd.
    pub initrd: &'a [u8],
    /// The kernel's command line, without a closing zero.
    pub command_line: &'a str,
    /// How many vCPUs: 1 to [`VCPUS_MAX`].
    pub vcpus: u32,
    /// Their model.
    pub vcpu_type: VcpuType,
    /// SEV_FEATURES of the guest (AMD64 APM volume 2, B-4); bit 0, SNP is active, is always set.
    pub guest_features: u64,
}

/// A step of the digest, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The digest of what was added: of the page, or of all firmware pages.
    pub digest: [u8; 48],
    /// What it was.
    pub what: String,
}

/// The launch digest, and the steps that lead to it.
///
/// # Errors
/// If the firmware's metadata is not exact, has no page for the hashes, or there are no vCPUs or too many.
pub fn launch_digest(firmware: &[u8], launch: &Launch<'_>) -> Result<([u8; 48], Vec<Step>), NotSnp> {
    if !(1..=VCPUS_MAX).contains(&launch.vcpus) {
        return Err(NotSnp("a guest has 1 to 1024 vCPUs"));
    }
    let pages = Pages::parse(firmware)?;
    let mut digest = Digest { value: [0; 48], steps: Vec::new() };
    digest.firmware(firmware);
    let mut hashed = false;
    for section in &pages.sections {
        match section.kind {
            Kind::Zero => digest.repeated(3, section, "memory that begins as zeros"),
            Kind::Secrets => digest.add(5, section.address, [0; 48], "the page for the guest's secrets"),
            Kind::Cpuid => digest.add(6, section.address, [0; 48], "the page for CPUID"),
            Kind::Hashes => {
                let page =
                    hashes::page(pages.hashes, launch).ok_or(NotSnp("its hashes do not fit their page"))?;
                digest.add(1, section.address, sha384(&[&page]), "hashes of command line, initrd and kernel");
                hashed = true;
            }
        }
    }
    if !hashed {
        return Err(NotSnp("it has no page for the hashes of kernel, initrd and command line"));
    }
    for vcpu in 0..launch.vcpus {
        let start = if vcpu == 0 { vmsa::RESET_VECTOR } else { pages.reset };
        let page = vmsa::page(start, launch.vcpu_type, launch.guest_features | 1);
        digest.add(2, VMSA_ADDRESS, sha384(&[&page]), &format!("first registers of vCPU {vcpu}"));
    }
    Ok((digest.value, digest.steps))
}

struct Digest {
    value: [u8; 48],
    steps: Vec<Step>,
}

impl Digest {
    fn page(&mut self, kind: u8, address: u64, content: &[u8; 48]) {
        let head = [112, 0, kind, 0, 0, 0, 0, 0];
        self.value = sha384(&[&self.value, content, &head, &address.to_le_bytes()]);
    }

    fn add(&mut self, kind: u8, address: u64, content: [u8; 48], what: &str) {
        self.page(kind, address, &content);
        self.steps.push(Step { digest: content, what: what.to_owned() });
    }

    /// Normal pages that end at 4 GiB.
    fn firmware(&mut self, firmware: &[u8]) {
        let start = (1_u64 << 32) - firmware.len() as u64;
        for (index, page) in firmware.chunks(PAGE).enumerate() {
            self.page(1, start + (index * PAGE) as u64, &sha384(&[page]));
        }
        self.steps.push(Step { digest: sha384(&[firmware]), what: "the firmware, page by page".to_owned() });
    }

    fn repeated(&mut self, kind: u8, section: &Section, what: &str) {
        for page in 0..section.size / PAGE as u32 {
            self.page(kind, section.address + u64::from(page) * PAGE as u64, &[0; 48]);
        }
        self.steps.push(Step { digest: [0; 48], what: format!("{what}, at {:#x}", section.address) });
    }
}

/// What a page of the metadata is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Zero,
    Secrets,
    Cpuid,
    Hashes,
}

struct Section {
    address: u64,
    /// In bytes: whole pages.
    size: u32,
    kind: Kind,
}

/// The metadata, checked.
struct Pages {
    sections: Vec<Section>,
    /// Where the other vCPUs begin.
    reset: u32,
    /// Offset of the table of hashes in its page.
    hashes: usize,
}

impl Pages {
    fn parse(firmware: &[u8]) -> Result<Self, NotSnp> {
        if firmware.len() > FIRMWARE_MAX || firmware.is_empty() || !firmware.len().is_multiple_of(PAGE) {
            return Err(NotSnp("it is not made of whole pages, or larger than 16 MiB"));
        }
        let reset = guids::find(firmware, &RESET).filter(|entry| entry.len() == 4).and_then(|e| u32(e, 0));
        let reset = reset.ok_or(NotSnp("it does not say where other vCPUs begin"))?;
        let table = guids::find(firmware, &HASHES).and_then(|entry| length(entry, 0)).filter(|at| *at != 0);
        let table =
            table.ok_or(NotSnp("it has no place for the hashes of kernel, initrd and command line"))?;
        let entry = guids::find(firmware, &METADATA).filter(|entry| entry.len() == 4);
        let from_end = entry.and_then(|entry| length(entry, 0)).ok_or(NotSnp("it has no metadata entry"))?;
        let start = firmware.len().checked_sub(from_end).ok_or(NotSnp("its metadata lies outside of it"))?;
        let metadata = &firmware[start..];
        if bytes::<4>(metadata, 0) != Some(*b"ASEV") || u32(metadata, 8) != Some(1) {
            return Err(NotSnp("its metadata does not begin with ASEV, version 1"));
        }
        let count = length(metadata, 12).filter(|count| (1..=SECTIONS_MAX).contains(count));
        let count = count.ok_or(NotSnp("its metadata has no sections, or more than 64"))?;
        if length(metadata, 4) != Some(HEAD + count * SECTION) {
            return Err(NotSnp("its metadata's length is not that of its sections"));
        }
        let sections: Option<Vec<Section>> =
            (0..count).map(|index| section(metadata, HEAD + index * SECTION)).collect();
        let sections =
            sections.ok_or(NotSnp("a section of its metadata is not of a known kind and whole pages"))?;
        let pages =
            sections.iter().try_fold(0_u32, |sum, section| sum.checked_add(section.size / PAGE as u32));
        if pages.is_none_or(|pages| pages > PAGES_MAX) {
            return Err(NotSnp("its metadata has more than 4096 pages"));
        }
        let single = |section: &Section| section.kind == Kind::Zero || section.size as usize == PAGE;
        if !sections.iter().all(single) {
            return Err(NotSnp("a page for secrets, CPUID or hashes is not one page"));
        }
        Ok(Self { sections, reset, hashes: table % PAGE })
    }
}

fn section(metadata: &[u8], at: usize) -> Option<Section> {
    let (address, size) = (u32(metadata, at)?, u32(metadata, at + 4)?);
    let kind = match u32(metadata, at + 8)? {
        // Memory of the first code; the calling area of an SVSM, of which there is none.
        1 | 4 => Kind::Zero,
        2 => Kind::Secrets,
        3 => Kind::Cpuid,
        0x10 => Kind::Hashes,
        _ => return None,
    };
    let whole = |value: u32| (value as usize).is_multiple_of(PAGE);
    (whole(address) && whole(size)).then_some(Section { address: u64::from(address), size, kind })
}

#[cfg(test)]
mod tests;
