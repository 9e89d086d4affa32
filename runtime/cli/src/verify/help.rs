//! The second half of `cocoon verify --help`.

use std::fmt::Write as _;

use cocoon_attestation::Exceptions;

/// What follows the list of flags.
pub(super) fn after() -> String {
    let known = Exceptions::known();
    let width = known.iter().map(|(name, _)| name.len()).max().unwrap_or_default();
    let mut exceptions = String::new();
    for (name, meaning) in known {
        let _ = write!(exceptions, "\n  {name:<width$}  {meaning}");
    }
    format!("{EVIDENCE}\n\n{CODES}\n\n{EXCEPTIONS}{exceptions}")
}

const EVIDENCE: &str = "\
Evidence: a worker's bundle (CMW); a TDX or SGX quote; an SEV-SNP report; Azure's vTPM evidence (JSON); reports of NVIDIA
GPUs and switches (SPDM, or the JSON of NVIDIA's tools). Each binary, or as a file of hex digits. It is told apart by its form.

Endorsements: Intel's collateral (JSON); certificates and CRLs (DER or PEM): VCEK, VLEK, a GPU's chain; NVIDIA's RIMs (XML);
OCSP responses (DER); an event log (CCEL). What is handed over is used in place of what a bundle carries of the same kind.

Without --policy the verdict can be `genuine`, never `trusted`: nothing was compared with expected measurements.";

const CODES: &str = "\
Exit codes:
  0  genuine or trusted
  1  our own fault, or the machine's
  2  a mistake in usage: a flag, a file that cannot be read
  3  rejected: a hard rule or the policy says no
  4  unverified: a signature or a certificate chain does not hold
  5  malformed: bytes that do not have the form they must have
  6  unavailable: something needed is missing, out of date or not supported";

const EXCEPTIONS: &str = "\
Exceptions for --allow, each with an optional last day as in NAME@2026-12-31. All that are named are repeated in the verdict:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exception_is_listed_with_its_meaning() {
        let text = after();
        for (name, meaning) in Exceptions::known() {
            assert!(text.lines().any(|line| line.contains(name) && line.ends_with(meaning)), "{name}");
        }
    }
}
