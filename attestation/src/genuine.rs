//! The first proof: genuine hardware made this evidence.

use crate::azure::Vtpm;
use crate::check::{Checklist, Finding};
use crate::nvidia::Gpu;
use crate::ratls::{KeyBinding, RaTlsCertificate, RaTlsEvidence};
use crate::snp::Report;
use crate::tdx::{Body, EnclaveReport};
use crate::{Check, Measurements, Platform, Refusal, RefusalKind, Statement};

/// Evidence that genuine hardware made, in date, with no hard rule broken. Made by [`Verifier::verify`] alone.
///
/// It is not yet trusted: what it measured is for [`crate::Policy::appraise`].
#[derive(Debug)]
pub struct Genuine {
    pub(crate) proven: Proven,
}

/// What was proven, for the appraisal.
#[derive(Debug)]
pub(crate) struct Proven {
    pub(crate) checks: Vec<Check>,
    pub(crate) platform: Platform,
    /// GPUs by themselves have none.
    pub(crate) claims: Option<Claims>,
    pub(crate) gpus: Vec<Gpu>,
    /// With its digest.
    pub(crate) statement: Option<(Statement, [u8; 32])>,
}

/// What the hardware signed, by platform.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claims {
    /// A TD report.
    Tdx(Body),
    /// An enclave's report.
    Sgx(EnclaveReport),
    /// An SEV-SNP attestation report.
    Snp(Report),
    /// Azure: the report of the paravisor on SEV-SNP, and what its virtual TPM says about the guest.
    AzureSnp(Report, Box<Vtpm>),
    /// The same on TDX.
    AzureTdx(Body, Box<Vtpm>),
}

impl Claims {
    /// What the guest bound into the report.
    pub fn report_data(&self) -> Option<&[u8; 64]> {
        match self {
            Self::Tdx(body) => Some(&body.report_data),
            Self::Sgx(report) => Some(&report.report_data),
            Self::Snp(report) => Some(&report.report_data),
            Self::AzureSnp(_, vtpm) | Self::AzureTdx(_, vtpm) => vtpm.report_data.as_ref(),
        }
    }

    /// The registers of a TD.
    pub fn registers(&self) -> Option<Measurements> {
        match self {
            Self::Tdx(body) => Some(body.registers()),
            // The paravisor's registers say nothing about the guest.
            Self::Sgx(_) | Self::Snp(_) | Self::AzureSnp(..) | Self::AzureTdx(..) => None,
        }
    }
}

impl Genuine {
    /// All checks, in their fixed order.
    pub fn checks(&self) -> &[Check] {
        &self.proven.checks
    }

    /// True if a simulated root vouches for it. Say so wherever it is shown.
    pub fn simulated(&self) -> bool {
        self.proven.platform.simulated
    }

    /// The machine.
    pub fn platform(&self) -> &Platform {
        &self.proven.platform
    }

    /// What the CPU signed; GPUs by themselves have no such thing.
    pub fn claims(&self) -> Option<&Claims> {
        self.proven.claims.as_ref()
    }

    /// The GPUs and switches, in the order in which they are shown.
    pub fn gpus(&self) -> &[Gpu] {
        &self.proven.gpus
    }

    /// The statement bound into the report; a raw quote has none.
    pub fn statement(&self) -> Option<&Statement> {
        self.proven.statement.as_ref().map(|(statement, _)| statement)
    }

    /// The same proof, if the report carries this data: for raw quotes, whose statement the caller knows.
    ///
    /// # Errors
    /// A [`Refusal`] with the check `binding.expected`.
    pub fn with_report_data(self, expected: &[u8; 64]) -> Result<Self, Refusal> {
        const ID: &str = "binding.expected";
        let (mut list, got) = (Checklist::new(&[ID]), self.claims().and_then(Claims::report_data));
        list.require(got == Some(expected), ID, "the report carries the data that was asked for", || {
            Finding {
                kind: RefusalKind::Rejected,
                expected: hex::encode(expected),
                got: got.map_or("evidence without report data".to_owned(), hex::encode),
                likely: "The quote was made for something else, or answers another challenge".into(),
                remedy: "Compare what was hashed on both sides; ask for a new quote".into(),
            }
        });
        self.with(list)
    }

    /// The same proof, if the statement names this TLS key (DER SubjectPublicKeyInfo): for certificates that carry a bundle.
    ///
    /// # Errors
    /// A [`Refusal`] with the check `binding.tls_key`.
    pub fn with_tls_key(self, spki: &[u8]) -> Result<Self, Refusal> {
        const ID: &str = "binding.tls_key";
        let mut list = Checklist::new(&[ID]);
        let named = self.statement().and_then(|statement| statement.keys.tls.clone());
        let holds = named.as_deref() == Some(spki);
        list.require(holds, ID, "the peer's TLS key was born in this TEE", || Finding {
            kind: RefusalKind::Signature,
            expected: named.map_or("no TLS key: the statement names none".to_owned(), hex::encode),
            got: hex::encode(spki),
            likely: "Somebody put genuine evidence into a certificate of his own: a relay".into(),
            remedy: "Do not send anything over this connection; connect to the guest itself".into(),
        });
        self.with(list)
    }

    /// The same proof, if what the TEE bound names this certificate's key, by the rule of the certificate's scheme.
    pub(crate) fn with_certificate(self, certificate: &RaTlsCertificate) -> Result<Self, Refusal> {
        const ID: &str = "binding.tls_key";
        let RaTlsEvidence::Quote { scheme, binding, .. } = &certificate.evidence else {
            return self.with_tls_key(&certificate.spki);
        };
        let mut list = Checklist::new(&[ID]);
        let report_data = self.claims().and_then(Claims::report_data);
        let holds = report_data.is_some_and(|data| certificate.binds(data));
        let known = *binding != KeyBinding::Unknown;
        list.require(holds, ID, "the certificate's key was bound by the TEE", || Finding {
            kind: if known { RefusalKind::Signature } else { RefusalKind::Unavailable },
            expected: format!("report data that names the certificate's key, as {scheme} does"),
            got: report_data.map_or("no report data".to_owned(), hex::encode),
            likely: if known {
                "Somebody put a genuine quote into a certificate of his own: a relay".into()
            } else {
                "How this scheme binds the key depends on what is not in the certificate".into()
            },
            remedy: "Do not send anything over such a connection".into(),
        });
        self.with(list)
    }

    /// Adds checks that were made later.
    fn with(mut self, list: Checklist) -> Result<Self, Refusal> {
        let checks = std::mem::take(&mut self.proven.checks);
        let (platform, simulated) = (self.proven.platform.name(), self.proven.platform.simulated);
        match list.outcome() {
            Ok(more) => {
                self.proven.checks = [checks, more].concat();
                Ok(self)
            }
            Err(refusal) => Err(refusal.after(checks).about(platform, simulated)),
        }
    }

    pub(crate) fn into_proven(self) -> Proven {
        self.proven
    }
}
