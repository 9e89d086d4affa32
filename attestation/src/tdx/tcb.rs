//! The TCB level of a platform (Intel TDX DCAP Quoting Library API, "Determining TCB level"; Intel PCS API v4, "Get TDX TCB
//! Info", algorithm below the table).
//!
//! 1. FMSPC and PCEID of the PCK are the TCB info's.
//! 2. The first level counts whose SGX components, PCESVN and (TDX) TEE_TCB_SVN components are all met. Where the TDX
//!    module's major version (`TEE_TCB_SVN[1]`) is above zero, components 0 and 1 are left to the module's identity.
//! 3. The TDX module identity `TDX_xx` of that version gives the module's status by its ISVSVN (`TEE_TCB_SVN[0]`).
//! 4. A TD 1.5 has a present TCB too (`TEE_TCB_SVN2`), judged in the same way.

use super::body::Body;
use super::documents::{ModuleIdentity, TcbInfo, TdxModule, Verdict};
use super::pck::PckFacts;
use super::status::{OF_MODULES, TcbStatus};

/// What came out for a platform and its TDX module, before the quoting enclave is looked at.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// As it was when the TD started; of SGX, as it is.
    pub(super) launch: Verdict,
    /// As it is now, of a TD 1.5.
    pub(super) current: Option<Verdict>,
}

/// Holds an SGX platform against the levels.
pub(super) fn of_enclave(info: &TcbInfo, pck: &PckFacts) -> Result<Standing, String> {
    level(info, pck, None).map(|launch| Standing { launch, current: None })
}

/// Holds a TDX platform and its module against the levels.
pub(super) fn of_td(info: &TcbInfo, pck: &PckFacts, body: &Body) -> Result<Standing, String> {
    let launch = with_module(info, pck, &body.tee_tcb_svn)?;
    let current = body.tee_tcb_svn2.as_ref().map(|svns| {
        with_module(info, pck, svns).map_err(|reason| format!("of the present TCB (TEE_TCB_SVN2): {reason}"))
    });
    Ok(Standing { launch, current: current.transpose()? })
}

fn with_module(info: &TcbInfo, pck: &PckFacts, svns: &[u8; 16]) -> Result<Verdict, String> {
    let platform = level(info, pck, Some(svns))?;
    match module_identity(info, svns)? {
        None => Ok(platform),
        Some(identity) => Ok(platform.with_component(module_level(identity, svns[0])?)),
    }
}

fn level(info: &TcbInfo, pck: &PckFacts, tee: Option<&[u8; 16]>) -> Result<Verdict, String> {
    let met = |have: &[u8], wanted: &[u8]| have.iter().zip(wanted).all(|(have, wanted)| have >= wanted);
    let tdx_met = |wanted: Option<&[u8; 16]>| match (tee, wanted) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(have), Some(wanted)) => {
            let from = if have[1] > 0 { 2 } else { 0 };
            met(&have[from..], &wanted[from..])
        }
    };
    info.levels
        .iter()
        .find(|level| {
            met(&pck.components, &level.sgx) && pck.pce_svn >= level.pce_svn && tdx_met(level.tdx.as_ref())
        })
        .map(|level| level.verdict.clone())
        .ok_or_else(|| {
            let tee = tee.map(|tee| format!(", TEE_TCB_SVN {}", hex::encode(tee))).unwrap_or_default();
            let (components, pce) = (hex::encode(pck.components), pck.pce_svn);
            format!("no level is met by CPUSVN components {components}, PCESVN {pce}{tee}")
        })
}

/// The identity of a module's major version; none for version 0, of which `tdxModule` speaks.
fn module_identity<'i>(info: &'i TcbInfo, svns: &[u8; 16]) -> Result<Option<&'i ModuleIdentity>, String> {
    let version = svns[1];
    if version == 0 {
        return Ok(None);
    }
    let wanted = format!("TDX_{version:02X}");
    let found = info.module_identities.iter().find(|identity| identity.id.eq_ignore_ascii_case(&wanted));
    found.map(Some).ok_or_else(|| format!("no TDX module identity {wanted} in the TCB info"))
}

fn module_level(identity: &ModuleIdentity, isv_svn: u8) -> Result<&Verdict, String> {
    let level = identity.levels.iter().find(|level| u16::from(isv_svn) >= level.isv_svn);
    let verdict =
        &level.ok_or_else(|| format!("no level of {} is met by ISVSVN {isv_svn}", identity.id))?.verdict;
    if OF_MODULES.contains(&verdict.status) {
        Ok(verdict)
    } else {
        Err(format!("status {} of a TDX module, which Intel does not define", verdict.status.name()))
    }
}

/// The TDX module is one that Intel (or the simulated issuer) signed, with attributes as published: its MRSIGNER equal,
/// its attributes equal under the mask, and zero beside it ("TDX Module identity" in the same documents).
pub(super) fn module(info: &TcbInfo, body: &Body) -> Result<&'static str, String> {
    let identity = module_identity(info, &body.tee_tcb_svn)?;
    // Intel's verifier demands the field even where an identity replaces it.
    let base = info.module.as_ref().ok_or("the TCB info has no tdxModule")?;
    let TdxModule { mrsigner, attributes, attributes_mask } =
        identity.map_or(base, |identity| &identity.module);
    if body.mr_signer_seam != *mrsigner {
        return Err(format!(
            "MRSIGNERSEAM {}, must be {}",
            hex::encode(body.mr_signer_seam),
            hex::encode(mrsigner)
        ));
    }
    let fits = body.seam_attributes.iter().zip(attributes).zip(attributes_mask);
    if !fits.into_iter().all(|((got, wanted), mask)| got & mask == wanted & mask && got & !mask == 0) {
        return Err(format!(
            "SEAM attributes {}, must be {} under {}",
            hex::encode(body.seam_attributes),
            hex::encode(attributes),
            hex::encode(attributes_mask)
        ));
    }
    Ok("the signer's, attributes as published")
}

/// The statuses that must each be tolerated by name: the converged one, the present one of a TD 1.5, and that of a quoting
/// enclave where convergence drops it. And what is shown as the platform's.
pub(super) fn converge(standing: &Standing, enclave: &Verdict) -> (Verdict, Vec<TcbStatus>) {
    let mut verdict = standing.launch.with_component(enclave);
    let current = standing.current.as_ref().map(|current| current.with_component(enclave));
    let mut statuses = Vec::with_capacity(3);
    if let Some(current) = &current {
        // A revoked present TCB is fatal too, which Intel's own verifier leaves open.
        let revoked = [verdict.status, current.status].contains(&TcbStatus::Revoked);
        verdict.status =
            if revoked { TcbStatus::Revoked } else { verdict.status.with_current(current.status) };
        statuses.push(current.status);
        verdict = verdict.with_advisories(current);
    }
    statuses.push(verdict.status);
    if !enclave.status.is_absorbed() {
        statuses.push(enclave.status);
        if verdict.status == TcbStatus::UpToDate {
            verdict.status = enclave.status;
        }
    }
    statuses.sort_by_key(|status| status.name());
    statuses.dedup();
    (verdict, statuses)
}
