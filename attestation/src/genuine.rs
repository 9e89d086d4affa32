//! The first proof: genuine hardware made this evidence.

use crate::check::{Checklist, Finding};
use crate::tdx::{self, Body, Facts, Source, Verifier};
use crate::{
    Bundle, Check, Endorsements, Evidence, Exceptions, Measurements, Refusal, RefusalKind, Statement,
    TrustAnchors, UnixTime, eventlog, statement,
};

const BINDING_CHECKS: [&str; 2] = ["binding.report_data", "binding.gpu"];

/// Evidence that genuine hardware made, in date, with no hard rule broken. Made by [`verify`] alone.
///
/// It is not yet trusted: what it measured is for [`crate::Policy::appraise`].
#[derive(Debug)]
pub struct Genuine {
    proven: Proven,
    body: Body,
}

/// What was proven, for the appraisal.
#[derive(Debug)]
pub(crate) struct Proven {
    pub(crate) checks: Vec<Check>,
    pub(crate) platform: Platform,
    pub(crate) registers: Measurements,
    /// With its digest.
    pub(crate) statement: Option<(Statement, [u8; 32])>,
}

/// What the vendor says about the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    pub(crate) simulated: bool,
    /// TCB status by Intel's name.
    pub tcb_status: String,
    /// Security advisories that apply.
    pub advisories: Vec<String>,
    /// The collateral's `tcbEvaluationDataNumber`: keep the highest seen as the next floor.
    pub evaluation_number: u32,
    /// Family, model, stepping, platform type and custom SKU.
    pub fmspc: [u8; 6],
    /// Provisioning id: names this very machine.
    pub ppid: Vec<u8>,
    /// When the first of the endorsements runs out.
    pub good_until: UnixTime,
}

impl Platform {
    /// The word in the verdict.
    pub fn name(&self) -> &'static str {
        "tdx"
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

    /// What was measured.
    pub fn registers(&self) -> &Measurements {
        &self.proven.registers
    }

    /// The TD report as signed.
    pub fn report(&self) -> &Body {
        &self.body
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
        let (mut list, got) = (Checklist::new(&[ID]), &self.body.report_data);
        list.require(expected == got, ID, "the report carries the data that was asked for", || Finding {
            kind: RefusalKind::Rejected,
            expected: hex::encode(expected),
            got: hex::encode(got),
            likely: "The quote was made for something else, or answers another challenge".into(),
            remedy: "Compare what was hashed on both sides; ask for a new quote".into(),
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

/// Did genuine hardware make this evidence, is all of it in date, and is no hard rule broken?
///
/// `endorsements`, when given, are used in place of the bundle's own. `now` is the caller's clock.
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
    let bundle = match evidence {
        Evidence::Bundle(bundle) => Some(bundle),
        Evidence::TdxQuote(_) => None,
    };
    let carried = bundle.map_or(&[][..], |bundle| &bundle.endorsements);
    let source = match endorsements.files.as_slice() {
        [] => Source { files: carried, canonical: true },
        files => Source { files, canonical: false },
    };
    let ids = [&tdx::CHECKS[..], &BINDING_CHECKS].concat();
    let (mut list, mut simulated) = (Checklist::new(&ids), false);
    let verifier = Verifier { anchors, exceptions, now };
    let facts = tdx::verify(evidence.quote(), &source, verifier, &mut list, &mut simulated);
    event_log(bundle, facts.as_ref(), &mut list);
    let statement = binding(bundle, facts.as_ref(), &mut list);
    let checks = list.outcome().map_err(|refusal| refusal.about("tdx", simulated))?;
    let Facts { body, platform } = facts.expect("no check failed, so every step was reached");
    let registers = registers(&body);
    Ok(Genuine { proven: Proven { checks, platform, registers, statement }, body })
}

fn registers(body: &Body) -> Measurements {
    Measurements {
        mrtd: body.mrtd,
        rtmr: body.rtmr,
        mrconfigid: body.mrconfigid,
        mrowner: body.mrowner,
        mrownerconfig: body.mrownerconfig,
    }
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

/// The log that is shown must replay to the registers of the report that was signed.
fn event_log(bundle: Option<&Bundle>, facts: Option<&Facts>, list: &mut Checklist) {
    const ID: &str = "tdx.eventlog";
    let Some(log) = bundle.and_then(|bundle| bundle.event_log.as_ref()) else {
        list.skip(ID, "no event log is shown: the registers count by themselves");
        return;
    };
    let Some(facts) = facts else { return };
    match eventlog::judge(log, &facts.body.rtmr) {
        Ok((got, why)) => list.pass(ID, eventlog::EXPECTED, got, why),
        Err(finding) => list.fail(ID, *finding),
    }
}

/// The statement is the one whose digest is in the report, and the GPU evidence the one it names.
fn binding(
    bundle: Option<&Bundle>,
    facts: Option<&Facts>,
    list: &mut Checklist,
) -> Option<(Statement, [u8; 32])> {
    let Some(bundle) = bundle else {
        for id in BINDING_CHECKS {
            list.skip(id, "a raw quote carries no statement");
        }
        return None;
    };
    let facts = facts?;
    let expected = statement::report_data(&bundle.statement);
    let bound = expected == facts.body.report_data;
    list.require(bound, "binding.report_data", "the keys and claims were born in this TD", || Finding {
        kind: RefusalKind::Signature,
        expected: hex::encode(expected),
        got: hex::encode(facts.body.report_data),
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
