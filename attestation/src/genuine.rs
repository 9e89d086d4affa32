//! The first proof: genuine hardware made this evidence.

use crate::check::{Checklist, Finding};
use crate::evidence::Cpu;
use crate::tdx::{self, Body, EnclaveReport, TdxCache};
use crate::{
    Bundle, Check, Endorsements, Evidence, Exceptions, Measurements, Platform, Refusal, RefusalKind,
    Statement, TrustAnchors, UnixTime, statement,
};

const BINDING_CHECKS: [&str; 2] = ["binding.report_data", "binding.gpu"];

/// Evidence that genuine hardware made, in date, with no hard rule broken. Made by [`Verifier::verify`] alone.
///
/// It is not yet trusted: what it measured is for [`crate::Policy::appraise`].
#[derive(Debug)]
pub struct Genuine {
    proven: Proven,
}

/// What was proven, for the appraisal.
#[derive(Debug)]
pub(crate) struct Proven {
    pub(crate) checks: Vec<Check>,
    pub(crate) platform: Platform,
    pub(crate) claims: Claims,
    /// With its digest.
    pub(crate) statement: Option<(Statement, [u8; 32])>,
}

/// What the hardware signed, by platform.
#[expect(clippy::large_enum_variant, reason = "one per verification; a box would cost more than the copy")]
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Claims {
    /// A TD report.
    Tdx(Body),
    /// An enclave's report.
    Sgx(EnclaveReport),
}

impl Claims {
    /// What the guest bound into the report.
    pub fn report_data(&self) -> Option<&[u8; 64]> {
        match self {
            Self::Tdx(body) => Some(&body.report_data),
            Self::Sgx(report) => Some(&report.report_data),
        }
    }

    /// The registers of a TD.
    pub fn registers(&self) -> Option<Measurements> {
        match self {
            Self::Tdx(body) => Some(body.registers()),
            Self::Sgx(_) => None,
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

    /// What the hardware signed.
    pub fn claims(&self) -> &Claims {
        &self.proven.claims
    }

    /// The statement bound into the report; a raw quote has none.
    pub fn statement(&self) -> Option<&Statement> {
        self.proven.statement.as_ref().map(|(statement, _)| statement)
    }

    /// The same proof, if the report carries this data: for raw quotes, whose statement the caller knows.
    ///
    /// # Errors
    /// A [`Refusal`] with the check `binding.expected`.
    pub fn with_report_data(mut self, expected: &[u8; 64]) -> Result<Self, Refusal> {
        const ID: &str = "binding.expected";
        let (mut list, got) = (Checklist::new(&[ID]), self.proven.claims.report_data());
        list.require(got == Some(expected), ID, "the report carries the data that was asked for", || {
            Finding {
                kind: RefusalKind::Rejected,
                expected: hex::encode(expected),
                got: got.map_or("evidence without report data".to_owned(), hex::encode),
                likely: "The quote was made for something else, or answers another challenge".into(),
                remedy: "Compare what was hashed on both sides; ask for a new quote".into(),
            }
        });
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

/// Did genuine hardware make this evidence, is all of it in date, and is no hard rule broken?
///
/// As [`Verifier::verify`], with no challenge of one's own.
///
/// # Errors
/// A [`Refusal`] naming the first check that does not hold, with all the others beside it.
pub fn verify(
    evidence: &Evidence,
    endorsements: &Endorsements,
    anchors: &TrustAnchors,
    exceptions: &Exceptions,
    now: UnixTime,
) -> Result<Genuine, Refusal> {
    Verifier::new(anchors, exceptions, now).verify(evidence, endorsements)
}

/// What a relying party brings to a verification: roots, exceptions, its clock, its challenge.
#[derive(Debug, Clone)]
pub struct Verifier<'a> {
    anchors: &'a TrustAnchors,
    exceptions: &'a Exceptions,
    now: UnixTime,
    nonce: Option<[u8; 32]>,
    cache: Option<&'a TdxCache>,
}

/// What the platforms' modules are given.
#[derive(Clone, Copy)]
pub(crate) struct Given<'a> {
    pub(crate) anchors: &'a TrustAnchors,
    pub(crate) exceptions: &'a Exceptions,
    pub(crate) now: UnixTime,
    pub(crate) endorsements: &'a Endorsements,
    /// The challenge that raw GPU evidence must answer.
    pub(crate) nonce: Option<&'a [u8; 32]>,
    /// What was verified before.
    pub(crate) cache: Option<&'a TdxCache>,
}

impl<'a> Verifier<'a> {
    /// `now` is the caller's clock.
    pub fn new(anchors: &'a TrustAnchors, exceptions: &'a Exceptions, now: UnixTime) -> Self {
        Self { anchors, exceptions, now, nonce: None, cache: None }
    }

    /// Raw GPU evidence and Azure's vTPM quote must answer this challenge. (A bundle's is in its statement: see
    /// [`crate::Context`].)
    #[must_use]
    pub fn with_nonce(mut self, nonce: [u8; 32]) -> Self {
        self.nonce = Some(nonce);
        self
    }

    /// Uses, and adds to, what was verified before of Intel platforms: see [`crate::tdx::cache`] for why that is safe.
    #[must_use]
    pub fn with_cache(mut self, cache: &'a TdxCache) -> Self {
        self.cache = Some(cache);
        self
    }

    /// Did genuine hardware make this evidence, is all of it in date, and is no hard rule broken?
    ///
    /// `endorsements`, when given, are used in place of the bundle's own of the same kind.
    ///
    /// # Errors
    /// A [`Refusal`] naming the first check that does not hold, with all the others beside it.
    pub fn verify(&self, evidence: &Evidence, endorsements: &Endorsements) -> Result<Genuine, Refusal> {
        let bundle = evidence.bundle();
        let all = match bundle {
            Some(bundle) => endorsements
                .or_else(Endorsements::of_bundle(&bundle.endorsements, bundle.event_log.as_deref())),
            None => endorsements.clone(),
        };
        let given = Given {
            anchors: self.anchors,
            exceptions: self.exceptions,
            now: self.now,
            endorsements: &all,
            nonce: self.nonce.as_ref(),
            cache: self.cache,
        };
        judge(evidence, bundle, &given)
    }
}

fn judge(evidence: &Evidence, bundle: Option<&Bundle>, given: &Given<'_>) -> Result<Genuine, Refusal> {
    let cpu = evidence.cpu();
    let ids = [cpu.checks(), &BINDING_CHECKS].concat();
    let (mut list, mut simulated) = (Checklist::new(&ids), false);
    let facts = match cpu {
        Cpu::Tdx(quote) => {
            let facts = tdx::verify(quote, given, &mut list, &mut simulated);
            event_log(given.endorsements, &mut list);
            facts.map(|(body, platform)| (Claims::Tdx(body), platform))
        }
        Cpu::Sgx(quote) => tdx::verify_sgx(quote, given, &mut list, &mut simulated)
            .map(|(report, platform)| (Claims::Sgx(report), platform)),
    };
    let statement = binding(bundle, facts.as_ref().map(|(claims, _)| claims), &mut list);
    let checks = list.outcome().map_err(|refusal| refusal.about(cpu.name(), simulated))?;
    let (claims, platform) = facts.expect("no check failed, so every step was reached");
    Ok(Genuine { proven: Proven { checks, platform, claims, statement } })
}

fn unsupported(what: &str, got: String) -> Finding {
    Finding {
        kind: RefusalKind::Unavailable,
        expected: format!("no {what}"),
        got,
        likely: format!("This verifier cannot judge {what} yet, so it does not accept it"),
        remedy: "Use a version that supports it".into(),
    }
}

fn event_log(endorsements: &Endorsements, list: &mut Checklist) {
    match endorsements.event_logs().next() {
        Some(log) => list.fail("tdx.eventlog", unsupported("an event log", format!("{} bytes", log.len()))),
        None => list.skip("tdx.eventlog", "no event log is shown: the registers count by themselves"),
    }
}

/// The statement is the one whose digest is in the report, and the GPU evidence the one it names.
fn binding(
    bundle: Option<&Bundle>,
    claims: Option<&Claims>,
    list: &mut Checklist,
) -> Option<(Statement, [u8; 32])> {
    let Some(bundle) = bundle else {
        for id in BINDING_CHECKS {
            list.skip(id, "a raw quote carries no statement");
        }
        return None;
    };
    let got = claims?.report_data();
    let expected = statement::report_data(&bundle.statement);
    let bound = Some(&expected) == got;
    list.require(bound, "binding.report_data", "the keys and claims were born in this TD", || Finding {
        kind: RefusalKind::Signature,
        expected: hex::encode(expected),
        got: got.map_or("none".to_owned(), hex::encode),
        likely: "The statement is not the one this TD made: somebody put in another key or claim".into(),
        remedy: "Fetch the bundle again, from the guest's host if a gateway sent it".into(),
    });
    if !bound {
        return None;
    }
    let statement = decode(&bundle.statement, list)?;
    gpu(&statement, bundle, list);
    Some((statement, statement::digest(&bundle.statement)))
}

fn decode(bytes: &[u8], list: &mut Checklist) -> Option<Statement> {
    let malformed = |reason| Finding {
        kind: RefusalKind::Malformed,
        expected: "a statement in its deterministic encoding".into(),
        got: reason,
        likely: "The guest is of another version, or does not follow the format".into(),
        remedy: "Use a host whose guest is of a version this verifier knows".into(),
    };
    Statement::decode(bytes).map_err(|e| list.fail("binding.report_data", malformed(e.reason))).ok()
}

fn gpu(statement: &Statement, bundle: &Bundle, list: &mut Checklist) {
    if statement.gpu_evidence.is_empty() && bundle.gpu.is_empty() {
        list.skip("binding.gpu", "no GPU is claimed");
    } else {
        let got = format!("{} claimed, {} shown", statement.gpu_evidence.len(), bundle.gpu.len());
        list.fail("binding.gpu", unsupported("GPU evidence", got));
    }
}
