//! Every byte of a report, and what judges it: nothing that hardware signs is passed over by accident.
//!
//! A field is *hard* (a rule of this crate that no configuration relaxes), *vendor* (held against the vendor's own signed
//! word), *policy* (pinned, bounded or declared free there), *bound* (carries the statement), or *name* (says which guest or
//! machine, and is no claim about it). The test below holds that the rows cover each report without gap or overlap.

use std::ops::Range;

/// Who judges a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Judge {
    Hard,
    Vendor,
    Policy,
    Bound,
    Name,
}

impl Judge {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Hard => "hard rule",
            Self::Vendor => "held against the vendor's word",
            Self::Policy => "by the policy",
            Self::Bound => "carries the statement",
            Self::Name => "a name, free",
        }
    }
}

/// A field by its bytes in the report.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) bytes: Range<usize>,
    pub(super) judge: Judge,
    /// The check that judges it.
    pub(super) check: &'static str,
}

const fn field(name: &'static str, start: usize, end: usize, judge: Judge, check: &'static str) -> Field {
    Field { name, bytes: start..end, judge, check }
}

/// TD report (Intel TDX DCAP Quoting Library API, A.3): 1.0 to byte 584, 1.5 to 648, 1.5ex to 885.
pub(super) const TD_REPORT: [Field; 26] = {
    use Judge::{Bound, Hard, Name, Policy, Vendor};
    [
        field("TEE_TCB_SVN", 0, 16, Policy, "policy.tee_tcb_svn, tdx.tcb"),
        field("MRSEAM", 16, 64, Policy, "policy.mr_seam"),
        field("MRSIGNERSEAM", 64, 112, Vendor, "tdx.module"),
        field("SEAMATTRIBUTES", 112, 120, Vendor, "tdx.module"),
        field("TDATTRIBUTES", 120, 128, Policy, "policy.attributes, tdx.debug, tdx.attributes"),
        field("XFAM", 128, 136, Policy, "policy.xfam, tdx.xfam"),
        field("MRTD", 136, 184, Policy, "policy.mrtd"),
        field("MRCONFIGID", 184, 232, Policy, "policy.mrconfigid"),
        field("MROWNER", 232, 280, Policy, "policy.mrowner"),
        field("MROWNERCONFIG", 280, 328, Policy, "policy.mrownerconfig"),
        field("RTMR0", 328, 376, Policy, "policy.rtmr0"),
        field("RTMR1", 376, 424, Policy, "policy.rtmr1"),
        field("RTMR2", 424, 472, Policy, "policy.rtmr2"),
        field("RTMR3", 472, 520, Policy, "policy.rtmr3"),
        field("REPORTDATA", 520, 584, Bound, "binding.report_data"),
        field("TEE_TCB_SVN_2", 584, 600, Vendor, "tdx.tcb"),
        field("MRSERVICETD", 600, 648, Hard, "tdx.service_td"),
        field("VM_ID", 648, 649, Name, ""),
        field("TD_ID", 649, 681, Name, ""),
        field("DEV_INFO", 681, 729, Name, ""),
        field("INIT_SERVTD_HASH", 729, 777, Hard, "tdx.service_td"),
        field("INIT_SERVTD_ATTR", 777, 785, Hard, "tdx.service_td"),
        field("INIT_TCB", 785, 829, Name, ""),
        field("CURR_SERVTD_HASH", 829, 877, Hard, "tdx.service_td"),
        field("CURR_SERVTD_ATTR", 877, 885, Hard, "tdx.service_td"),
        field("(end)", 885, 885, Hard, "tdx.format"),
    ]
};

/// ATTESTATION_REPORT (AMD 56860, SEV-SNP Firmware ABI, 7.3), what is signed of it.
pub(super) const SNP_REPORT: [Field; 34] = {
    use Judge::{Bound, Hard, Name, Policy, Vendor};
    [
        field("VERSION", 0x000, 0x004, Hard, "snp.format"),
        field("GUEST_SVN", 0x004, 0x008, Policy, "policy.guest_svn"),
        field("POLICY", 0x008, 0x010, Policy, "policy.guest_policy, snp.debug, snp.policy"),
        field("FAMILY_ID", 0x010, 0x020, Policy, "policy.family_id"),
        field("IMAGE_ID", 0x020, 0x030, Policy, "policy.image_id"),
        field("VMPL", 0x030, 0x034, Hard, "snp.vmpl"),
        field("SIGNATURE_ALGO", 0x034, 0x038, Hard, "snp.signature"),
        field("CURRENT_TCB", 0x038, 0x040, Policy, "policy.tcb, snp.tcb"),
        field("PLATFORM_INFO", 0x040, 0x048, Policy, "policy.platform_info, snp.platform_info"),
        field("FLAGS", 0x048, 0x04c, Hard, "snp.signing_key"),
        field("reserved", 0x04c, 0x050, Hard, "snp.format"),
        field("REPORT_DATA", 0x050, 0x090, Bound, "binding.report_data"),
        field("MEASUREMENT", 0x090, 0x0c0, Policy, "policy.measurement"),
        field("HOST_DATA", 0x0c0, 0x0e0, Policy, "policy.host_data"),
        field("ID_KEY_DIGEST", 0x0e0, 0x110, Policy, "policy.id_key"),
        field("AUTHOR_KEY_DIGEST", 0x110, 0x140, Policy, "policy.author_key"),
        field("REPORT_ID", 0x140, 0x160, Name, ""),
        field("REPORT_ID_MA", 0x160, 0x180, Name, ""),
        field("REPORTED_TCB", 0x180, 0x188, Policy, "policy.tcb, snp.tcb"),
        field("CPUID", 0x188, 0x18b, Vendor, "snp.product"),
        field("reserved", 0x18b, 0x1a0, Hard, "snp.format"),
        field("CHIP_ID", 0x1a0, 0x1e0, Vendor, "snp.chip, policy.platform"),
        field("COMMITTED_TCB", 0x1e0, 0x1e8, Policy, "policy.tcb, snp.tcb"),
        field("CURRENT_BUILD, MINOR, MAJOR", 0x1e8, 0x1eb, Policy, "policy.firmware"),
        field("reserved", 0x1eb, 0x1ec, Hard, "snp.format"),
        field("COMMITTED_BUILD, MINOR, MAJOR", 0x1ec, 0x1ef, Policy, "policy.firmware"),
        field("reserved", 0x1ef, 0x1f0, Hard, "snp.format"),
        field("LAUNCH_TCB", 0x1f0, 0x1f8, Policy, "policy.tcb"),
        field("LAUNCH_MIT_VECTOR", 0x1f8, 0x200, Policy, "policy.mitigations"),
        field("CURRENT_MIT_VECTOR", 0x200, 0x208, Policy, "policy.mitigations"),
        field("reserved", 0x208, 0x2a0, Hard, "snp.format"),
        field("SIGNATURE r and s", 0x2a0, 0x330, Vendor, "snp.signature"),
        field("SIGNATURE tail", 0x330, 0x4a0, Hard, "snp.format"),
        field("(end)", 0x4a0, 0x4a0, Hard, "snp.format"),
    ]
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_every_report_has_one_judge() {
        for (fields, length) in [(&TD_REPORT[..], 885), (&SNP_REPORT[..], crate::snp::REPORT)] {
            let mut next = 0;
            for field in fields {
                assert_eq!(field.bytes.start, next, "{}", field.name);
                next = field.bytes.end;
            }
            assert_eq!(next, length);
        }
    }

    #[test]
    fn every_judge_is_a_check_that_is_made() {
        let known: Vec<&str> = [
            &crate::tdx::CHECKS[..],
            &crate::snp::CHECKS,
            &crate::binding::CHECKS,
            &super::super::tdx::TdxReference::CHECKS,
            &super::super::tdx::TdxRules::CHECKS,
            &super::super::snp::SnpReference::CHECKS,
            &super::super::snp::SnpRules::CHECKS,
            &["policy.platform"],
        ]
        .concat();
        for field in TD_REPORT.iter().chain(&SNP_REPORT) {
            let checks = field.check.split(", ").filter(|check| !check.is_empty());
            for check in checks {
                assert!(known.contains(&check), "{}: {check}", field.name);
            }
            let free = field.judge == Judge::Name;
            assert!(free || !field.check.is_empty(), "{} is judged by nothing", field.name);
        }
    }
}
