//! Rules about enclaves: the quoting enclave, and an application's (Intel SDM volume 3D, "ATTRIBUTES" and "REPORT").

use super::body::EnclaveReport;
use super::documents::{QeIdentity, Verdict};
use super::ids::finding;
use super::status::OF_ENCLAVES;
use crate::RefusalKind::Rejected;
use crate::check::Checklist;

const INIT: u64 = 1;
const DEBUG: u64 = 1 << 1;
/// Bits that must be zero: 3, 8, 9, 11–63.
const RESERVED: u64 = (1 << 3) | (0b11 << 8) | (u64::MAX << 11);
/// XFRM bits that are always one: x87 and SSE.
const XFRM_FIXED_1: u64 = 0x3;

/// The checks that only SGX has.
pub(super) fn check(report: &EnclaveReport, list: &mut Checklist) {
    let flags = report.flags();
    let debug = flags & DEBUG != 0;
    list.require(!debug, "sgx.debug", "the host cannot look into the enclave", || {
        finding(
            Rejected,
            "DEBUG (bit 1) clear",
            if debug { "set" } else { "clear" },
            "The host can read and change this enclave's memory",
            "Never send it anything. Its operator must launch a production enclave",
        )
    });
    let xfrm = u64::from_le_bytes(report.attributes[8..].try_into().expect("eight of sixteen bytes"));
    let rules = [
        (flags & INIT != 0, "INIT clear"),
        (flags & RESERVED == 0, "reserved bits set"),
        (xfrm & XFRM_FIXED_1 == XFRM_FIXED_1, "XFRM without x87 and SSE"),
        (report.reserved_is_zero, "reserved bytes of the report set"),
    ];
    let broken: Vec<&str> = rules.into_iter().filter(|(holds, _)| !holds).map(|(_, name)| name).collect();
    list.require(broken.is_empty(), "sgx.attributes", "the enclave is what its measurement says", || {
        let broken = if broken.is_empty() { "as expected".to_owned() } else { broken.join(", ") };
        finding(
            Rejected,
            "INIT set; reserved bits and bytes clear",
            format!("{}: {broken}", hex::encode(report.attributes)),
            "The enclave was not initialised, or uses features this verifier does not know",
            "Do not use this enclave",
        )
    });
}

/// Is this quoting enclave the one that was published? (Intel PCS API v4, "Enclave Identity V2", verification steps: MRSIGNER
/// and ISVPRODID equal, MISCSELECT and ATTRIBUTES equal under their masks, ISVSVN by level.) Leaving this out was
/// CVE-2026-22696.
pub(super) fn quoting(report: &EnclaveReport, identity: &QeIdentity) -> Result<Verdict, String> {
    let masked = |got: &[u8], wanted: &[u8], mask: &[u8]| {
        got.iter().zip(wanted).zip(mask).all(|((got, wanted), mask)| got & mask == wanted & mask)
    };
    let (misc, misc_mask) = &identity.misc_select;
    let (attributes, attributes_mask) = &identity.attributes;
    let rules = [
        (report.mr_signer == identity.mrsigner, "MRSIGNER"),
        (report.isv_prod_id == identity.isv_prod_id, "ISVPRODID"),
        (masked(&report.misc_select, misc, misc_mask), "MISCSELECT"),
        (masked(&report.attributes, attributes, attributes_mask), "ATTRIBUTES"),
        (report.flags() & DEBUG == 0, "DEBUG"),
        (report.reserved_is_zero, "the reserved bytes"),
    ];
    if let Some((_, name)) = rules.into_iter().find(|(holds, _)| !holds) {
        return Err(format!("the QE report differs in {name}"));
    }
    let svn = report.isv_svn;
    let level = identity.levels.iter().find(|level| svn >= level.isv_svn);
    let verdict = &level.ok_or_else(|| format!("no level is met by ISVSVN {svn}"))?.verdict;
    if OF_ENCLAVES.contains(&verdict.status) {
        Ok(verdict.clone())
    } else {
        Err(format!("status {} of a quoting enclave, which Intel does not define", verdict.status.name()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(change: impl FnOnce(&mut EnclaveReport)) -> Vec<&'static str> {
        let mut bytes = [0; 384];
        (bytes[48], bytes[56]) = (5, 3);
        let mut report = EnclaveReport::parse(&bytes);
        change(&mut report);
        let mut list = Checklist::new(&["sgx.debug", "sgx.attributes"]);
        check(&report, &mut list);
        list.outcome().err().map(|refusal| refusal.failed().collect()).unwrap_or_default()
    }

    #[test]
    fn every_flag_has_its_verdict() {
        for bit in 0..64_usize {
            let expected = match bit {
                1 => vec!["sgx.debug"],
                0 | 3 | 8 | 9 | 11.. => vec!["sgx.attributes"],
                _ => vec![],
            };
            assert_eq!(failed(|report| report.attributes[bit / 8] ^= 1 << (bit % 8)), expected, "bit {bit}");
        }
        assert_eq!(failed(|report| report.attributes[8] = 1), ["sgx.attributes"]);
    }

    #[test]
    fn every_reserved_byte_must_be_zero() {
        for at in 0..384 {
            let mut bytes = [0; 384];
            bytes[at] = 1;
            let reserved = matches!(at, 20..32 | 96..128 | 160..192 | 262..304);
            assert_eq!(EnclaveReport::parse(&bytes).reserved_is_zero, !reserved, "byte {at}");
        }
    }
}
