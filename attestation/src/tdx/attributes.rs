//! Rules about a TD. No configuration relaxes them; the one named exception is Azure's paravisor, which runs without
//! SEPT_VE_DISABLE. (TDX Module ABI specification 348551, "TD attributes", "XFAM"; Intel TDX DCAP Quoting Library API,
//! A.3.2.)

use crate::RefusalKind::Rejected;
use crate::check::{Checklist, Finding};
use crate::exceptions::PROFILE_AZURE;
use crate::tdx::Body;
use crate::verifier::Given;

const DEBUG: u64 = 1;
/// Bits 4 to 6: the host may profile the TD.
const PROFILING: u64 = 0b111 << 4;
const SERVTD_EXT: u64 = 1 << 17;
const SEPT_VE_DISABLE: u64 = 1 << 28;
const MIGRATABLE: u64 = 1 << 29;
/// Bits that must be zero: 1–3, 7–15, 23–26, 32–61 (TDX Module ABI 348551-008US, table 3.23).
const RESERVED: u64 = 0b1110 | (0x1FF << 7) | (0b1111 << 23) | (((1 << 30) - 1) << 32);

/// XFAM bits that are always one: x87 and SSE.
const XFAM_FIXED_1: u64 = 0x3;
/// XFAM bits that may be one: what the TDX module lets a TD use.
const XFAM_ALLOWED: u64 = 0x0006_DBE7;

pub(super) fn check(body: &Body, given: &Given<'_>, list: &mut Checklist) {
    judge(body, given.exceptions.in_force(PROFILE_AZURE, given.now), list);
}

fn judge(body: &Body, azure: bool, list: &mut Checklist) {
    debug(body.attributes, list);
    attributes(body.attributes, azure, list);
    xfam(body.xfam, list);
    service_td(&body.service_td, list);
}

fn rejected(expected: &str, got: String, likely: &str, remedy: &str) -> Finding {
    Finding { kind: Rejected, expected: expected.into(), got, likely: likely.into(), remedy: remedy.into() }
}

fn debug(attributes: u64, list: &mut Checklist) {
    let set = attributes & (DEBUG | PROFILING);
    list.require(set == 0, "tdx.debug", "the host cannot look into the TD", || {
        rejected(
            "DEBUG (bit 0) and profiling (bits 4 to 6) clear",
            if set == 0 { "clear".into() } else { format!("bits {set:#x} set") },
            "The host can read and change this TD's memory",
            "Never send it anything. Its operator must launch the guest without debug",
        )
    });
}

fn attributes(attributes: u64, azure: bool, list: &mut Checklist) {
    let tolerated = azure && attributes & SEPT_VE_DISABLE == 0;
    let rules = [
        (attributes & SEPT_VE_DISABLE != 0 || tolerated, "SEPT_VE_DISABLE clear"),
        (attributes & MIGRATABLE == 0, "MIGRATABLE set"),
        (attributes & SERVTD_EXT == 0, "SERVTD_EXT set"),
        (attributes & RESERVED == 0, "reserved bits set"),
    ];
    let broken: Vec<&str> = rules.into_iter().filter(|(holds, _)| !holds).map(|(_, name)| name).collect();
    let why = match tolerated {
        true => "SEPT_VE_DISABLE clear is tolerated by the named exception profile:azure",
        false => "the TD's attributes keep the host out",
    };
    list.require(broken.is_empty(), "tdx.attributes", why, || {
        let broken = if broken.is_empty() { "as expected".to_owned() } else { broken.join(", ") };
        rejected(
            "SEPT_VE_DISABLE set; MIGRATABLE, SERVTD_EXT and reserved bits clear",
            format!("{attributes:#018x}: {broken}"),
            "The host can inject faults, move the TD, or uses features this verifier does not know",
            "Its operator must launch the guest with the attributes of the published image",
        )
    });
}

fn xfam(xfam: u64, list: &mut Checklist) {
    let sane = xfam & XFAM_FIXED_1 == XFAM_FIXED_1 && xfam & !XFAM_ALLOWED == 0;
    list.require(sane, "tdx.xfam", "only known processor features", || {
        rejected(
            &format!("bits {XFAM_FIXED_1:#x} set, none outside {XFAM_ALLOWED:#x}"),
            format!("{xfam:#x}"),
            "The TD uses processor features that no TDX module offers",
            "Do not use this machine",
        )
    });
}

fn service_td(fields: &[u8], list: &mut Checklist) {
    let bound = fields.iter().any(|byte| *byte != 0);
    list.require(!bound, "tdx.service_td", "no other TD has power over this one", || {
        rejected(
            "MRSERVICETD and service TD fields zero",
            if bound { hex::encode(fields) } else { "zero".into() },
            "A service TD chosen by the host can read or migrate this TD",
            "Its operator must launch the guest without service TDs",
        )
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(attributes: u64, xfam: u64, service_td: Vec<u8>) -> Body {
        Body {
            tee_tcb_svn: [0; 16],
            tee_tcb_svn2: None,
            mr_signer_seam: [0; 48],
            seam_attributes: [0; 8],
            mr_seam: [0; 48],
            attributes,
            xfam,
            mrtd: [0; 48],
            mrconfigid: [0; 48],
            mrowner: [0; 48],
            mrownerconfig: [0; 48],
            rtmr: [[0; 48]; 4],
            report_data: [0; 64],
            service_td,
        }
    }

    fn failed(body: &Body) -> Vec<&'static str> {
        failed_with(body, false)
    }

    fn failed_with(body: &Body, azure: bool) -> Vec<&'static str> {
        let mut list = Checklist::new(&["tdx.debug", "tdx.attributes", "tdx.xfam", "tdx.service_td"]);
        judge(body, azure, &mut list);
        list.outcome().err().map(|refusal| refusal.failed().collect()).unwrap_or_default()
    }

    const GOOD: u64 = SEPT_VE_DISABLE;
    const XFAM: u64 = 0x602e7;

    #[test]
    fn every_attribute_bit_has_its_verdict() {
        for bit in 0..64 {
            let expected = match bit {
                0 | 4..=6 => vec!["tdx.debug"],
                1..=3 | 7..=15 | 17 | 23..=26 | 28 | 29 | 32..=61 => vec!["tdx.attributes"],
                _ => vec![],
            };
            assert_eq!(failed(&body(GOOD ^ (1 << bit), XFAM, vec![])), expected, "bit {bit}");
        }
    }

    #[test]
    fn the_azure_profile_tolerates_one_bit() {
        for bit in 0..64 {
            let body = body(GOOD ^ (1 << bit), XFAM, vec![]);
            let expected = if bit == 28 { vec![] } else { failed(&body) };
            assert_eq!(failed_with(&body, true), expected, "bit {bit}");
        }
    }

    #[test]
    fn every_xfam_bit_has_its_verdict() {
        for bit in 0..64 {
            let refused = bit < 2 || XFAM_ALLOWED & (1 << bit) == 0;
            assert_eq!(!failed(&body(GOOD, XFAM ^ (1 << bit), vec![])).is_empty(), refused, "bit {bit}");
        }
    }

    #[test]
    fn a_bound_service_td_is_refused() {
        for at in 0..48 {
            let mut fields = vec![0; 48];
            fields[at] = 1;
            assert_eq!(failed(&body(GOOD, XFAM, fields)), ["tdx.service_td"]);
        }
        assert!(failed(&body(GOOD, XFAM, vec![0; 48])).is_empty());
    }
}
