//! The TDREPORT from which Azure's host had the TD quote made (Intel TDX Module ABI 348551, TDREPORT_STRUCT).
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4, 12 | type 0x81, subtype 0, version 0 (no service TD), reserved |
//! | 16 | 16 | CPUSVN, by the processor: not in a quote |
//! | 32 | 48, 48 | SHA-384 of TEE_TCB_INFO and of TDINFO |
//! | 128 | 64, 32 | report data, reserved |
//! | 224 | 32 | MAC, for the processor that made it alone |
//! | 256 | 239, 17 | TEE_TCB_INFO, reserved |
//! | 512 | 512 | TDINFO; from 912 on MRSERVICETD and reserved bytes, which must be zero |

use super::hcl::TD_REPORT;
use crate::crypto::sha384;

/// TEE_TCB_INFO from TEE_TCB_SVN to ATTRIBUTES: the quote's body begins with it.
const TCB: std::ops::Range<usize> = 264..384;
/// TDINFO from ATTRIBUTES to RTMR3: it follows in the body.
const TD: std::ops::Range<usize> = 512..912;
const REPORT_DATA: std::ops::Range<usize> = 128..192;

/// Does this TDREPORT say what the quote's body says, and nothing beside it? CPUSVN and MAC cannot be judged from afar, and
/// mean nothing.
pub(crate) fn agrees(report: &[u8], quoted_body: &[u8]) -> Result<(), &'static str> {
    let (Ok(report), Some(body)) = (<&[u8; TD_REPORT]>::try_from(report), quoted_body.get(..584)) else {
        return Err("it is not 1024 bytes long");
    };
    let zero = |range: std::ops::Range<usize>| report[range].iter().all(|byte| *byte == 0);
    if report[0] != 0x81 || !zero(1..16) || !zero(192..224) || !zero(495..512) || !zero(912..1024) {
        return Err("it is not a TDREPORT, or reserved bytes are not zero");
    }
    if report[32..80] != sha384(&[&report[256..495]]) || report[80..128] != sha384(&[&report[512..]]) {
        return Err("its hashes are not of its parts");
    }
    if report[TCB] != body[..120] || report[TD] != body[120..520] || report[REPORT_DATA] != body[520..584] {
        return Err("it is not the one that was quoted");
    }
    Ok(())
}
