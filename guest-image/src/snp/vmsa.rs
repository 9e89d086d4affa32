//! The page with a vCPU's first registers (VMSA).
//!
//! Offsets: AMD64 Architecture Programmer's Manual, volume 2, table B-4. Values: the state after reset (volume 2, table 14-1) as
//! QEMU and KVM set it.

use serde::{Deserialize, Serialize};

use super::PAGE;

/// Where the first vCPU begins.
pub(super) const RESET_VECTOR: u32 = 0xffff_fff0;

/// QEMU's models of AMD processors that have SNP; their CPUID signature is in EDX after reset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VcpuType {
    /// `-cpu EPYC-v4`: the model that runs on every processor with SNP.
    #[serde(rename = "EPYC-v4")]
    EpycV4,
    /// Zen 3.
    #[serde(rename = "EPYC-Milan")]
    EpycMilan,
    /// Zen 4.
    #[serde(rename = "EPYC-Genoa")]
    EpycGenoa,
    /// Zen 5.
    #[serde(rename = "EPYC-Turin")]
    EpycTurin,
}

impl VcpuType {
    /// The word for it after `-cpu`.
    pub fn word(self) -> &'static str {
        match self {
            Self::EpycV4 => "EPYC-v4",
            Self::EpycMilan => "EPYC-Milan",
            Self::EpycGenoa => "EPYC-Genoa",
            Self::EpycTurin => "EPYC-Turin",
        }
    }

    /// CPUID Fn0000_0001_EAX (AMD, "CPUID Specification", 25481).
    fn signature(self) -> u32 {
        let (family, model, stepping) = match self {
            Self::EpycV4 => (23, 1, 2),
            Self::EpycMilan => (25, 1, 1),
            Self::EpycGenoa => (25, 17, 0),
            Self::EpycTurin => (26, 0, 0),
        };
        // Families from 15 on are 15 and the rest.
        (family - 15) << 20 | (model >> 4) << 16 | 15 << 8 | (model & 15) << 4 | stepping
    }
}

/// The page of a vCPU that begins at `start`.
pub(super) fn page(start: u32, vcpu_type: VcpuType, features: u64) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    let mut segment = |at: usize, selector: u16, attributes: u16, base: u64| {
        put(&mut page, at, &selector.to_le_bytes());
        put(&mut page, at + 2, &attributes.to_le_bytes());
        put(&mut page, at + 4, &0xffff_u32.to_le_bytes());
        put(&mut page, at + 8, &base.to_le_bytes());
    };
    segment(0x00, 0, 0x93, 0); // ES
    segment(0x10, 0xf000, 0x9b, u64::from(start & 0xffff_0000)); // CS
    for data in [0x20, 0x30, 0x40, 0x50] {
        segment(data, 0, 0x93, 0); // SS, DS, FS, GS
    }
    segment(0x60, 0, 0, 0); // GDTR
    segment(0x70, 0, 0x82, 0); // LDTR
    segment(0x80, 0, 0, 0); // IDTR
    segment(0x90, 0, 0x8b, 0); // TR
    let registers: [(usize, u64); 11] = [
        (0x0d0, 0x1000),                           // EFER: SVME
        (0x148, 0x40),                             // CR4: MCE
        (0x158, 0x10),                             // CR0: ET
        (0x160, 0x400),                            // DR7
        (0x168, 0xffff_0ff0),                      // DR6
        (0x170, 0x2),                              // RFLAGS
        (0x178, u64::from(start & 0xffff)),        // RIP
        (0x268, 0x0007_0406_0007_0406),            // PAT
        (0x310, u64::from(vcpu_type.signature())), // RDX
        (0x3b0, features),                         // SEV_FEATURES
        (0x3e8, 0x1),                              // XCR0: x87
    ];
    for (at, value) in registers {
        put(&mut page, at, &value.to_le_bytes());
    }
    put(&mut page, 0x408, &0x1f80_u32.to_le_bytes()); // MXCSR
    put(&mut page, 0x410, &0x037f_u16.to_le_bytes()); // x87 control word
    page
}

fn put(page: &mut [u8; PAGE], at: usize, bytes: &[u8]) {
    page[at..at + bytes.len()].copy_from_slice(bytes);
}
