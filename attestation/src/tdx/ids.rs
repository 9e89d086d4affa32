//! The checks by name: the same for TDX and SGX, each under its own word.

use super::quote;
use crate::RefusalKind;
use crate::check::Finding;

/// Ids of the checks that both kinds of quote share.
pub(super) struct Ids {
    pub(super) tee_type: u32,
    /// The kind by name, for people.
    pub(super) name: &'static str,
    pub(super) format: &'static str,
    pub(super) header: &'static str,
    pub(super) signature: &'static str,
    pub(super) qe_report_data: &'static str,
    pub(super) root: &'static str,
    pub(super) collateral: &'static str,
    pub(super) validity: &'static str,
    pub(super) crl: &'static str,
    pub(super) chain: &'static str,
    pub(super) tcb_info: &'static str,
    pub(super) qe_identity: &'static str,
    pub(super) platform: &'static str,
    pub(super) tcb: &'static str,
    pub(super) rollback: &'static str,
}

macro_rules! ids {
    ($prefix:literal, $name:literal, $tee_type:expr) => {
        Ids {
            tee_type: $tee_type,
            name: $name,
            format: concat!($prefix, ".format"),
            header: concat!($prefix, ".header"),
            signature: concat!($prefix, ".signature"),
            qe_report_data: concat!($prefix, ".qe_report_data"),
            root: concat!($prefix, ".root"),
            collateral: concat!($prefix, ".collateral"),
            validity: concat!($prefix, ".validity"),
            crl: concat!($prefix, ".crl"),
            chain: concat!($prefix, ".chain"),
            tcb_info: concat!($prefix, ".tcb_info"),
            qe_identity: concat!($prefix, ".qe_identity"),
            platform: concat!($prefix, ".platform"),
            tcb: concat!($prefix, ".tcb"),
            rollback: concat!($prefix, ".rollback"),
        }
    };
}

pub(super) const TDX: Ids = ids!("tdx", "TDX", quote::TDX);
pub(super) const SGX: Ids = ids!("sgx", "SGX", quote::SGX);

pub(super) const REFETCH: &str = "Fetch fresh collateral for this platform";
pub(super) const NOT_THIS_HOST: &str = "Fetch the evidence again; if it repeats, do not use this host";

pub(super) fn finding(
    kind: RefusalKind,
    expected: impl Into<String>,
    got: impl Into<String>,
    likely: &str,
    remedy: &str,
) -> Finding {
    Finding { kind, expected: expected.into(), got: got.into(), likely: likely.into(), remedy: remedy.into() }
}
