//! From bytes to the first proof: every platform's checks, in one list, in their fixed order.

use crate::check::{Checklist, Finding};
use crate::evidence::Cpu;
use crate::genuine::Proven;
use crate::nvidia::{self, Challenge};
use crate::platform::PlatformKind;
use crate::tdx::{self, Body, TdxCache};
use crate::{
    Bundle, Claims, Endorsements, Evidence, Exceptions, Genuine, Platform, PlatformId, Refusal, RefusalKind,
    Statement, TrustAnchors, UnixTime, azure, binding, eventlog, snp, statement,
};

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
        if let Evidence::RaTls(certificate, inner) = evidence {
            return self.verify(inner, endorsements)?.with_certificate(certificate);
        }
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

/// Stands in the list when a log was given that nothing is compared with: shown, so that nobody takes it for judged.
const STRAY_LOG: &str = "eventlog";

fn judge(evidence: &Evidence, bundle: Option<&Bundle>, given: &Given<'_>) -> Result<Genuine, Refusal> {
    let cpu = evidence.cpu();
    let with_gpus =
        matches!(evidence, Evidence::Nvidia(_)) || bundle.is_some_and(|bundle| !bundle.gpu.is_empty());
    let gpu_checks: &[&str] = if with_gpus { &nvidia::CHECKS } else { &[] };
    let logged = matches!(cpu, Some(Cpu::Tdx(_) | Cpu::Azure(_, azure::Kind::Tdx)));
    let stray_log = !logged && given.endorsements.event_logs().next().is_some();
    let strays: &[&str] = if stray_log { &[STRAY_LOG] } else { &[] };
    let ids = [cpu.map_or(&[][..], Cpu::checks), gpu_checks, strays, &binding::CHECKS].concat();
    let (mut list, mut simulated) = (Checklist::new(&ids), false);
    if stray_log {
        list.skip(
            STRAY_LOG,
            "an event log was given, and nothing in this evidence says what it must replay to",
        );
    }
    let facts = cpu.and_then(|cpu| verify_cpu(cpu, bundle.is_some(), given, &mut list, &mut simulated));
    let statement = binding::check(bundle, facts.as_ref().map(|(claims, _)| claims), &mut list);
    let gpus = match (evidence, bundle) {
        (Evidence::Nvidia(raw), _) => {
            let challenge = given.nonce.map_or(Challenge::Free, |nonce| Challenge::Exactly(*nonce));
            nvidia::verify(raw, challenge, given, &mut list, &mut simulated)
        }
        (_, Some(bundle)) if with_gpus => bundled_gpus(
            bundle,
            statement.as_ref().map(|(statement, _)| statement),
            given,
            &mut list,
            &mut simulated,
        ),
        _ => None,
    };
    let name = cpu.map_or(PlatformKind::Nvidia.name(), Cpu::name);
    let checks = list.outcome().map_err(|refusal| refusal.about(name, simulated))?;
    let (claims, platform) = facts.unzip();
    let platform = joined(platform, gpus.as_ref(), simulated);
    let gpus = gpus.map(|facts| facts.gpus).unwrap_or_default();
    Ok(Genuine { proven: Proven { checks, platform, claims, gpus, statement } })
}

/// `bundled`: the evidence comes with a statement.
fn verify_cpu(
    cpu: Cpu<'_>,
    bundled: bool,
    given: &Given<'_>,
    list: &mut Checklist,
    simulated: &mut bool,
) -> Option<(Claims, Platform)> {
    match cpu {
        Cpu::Tdx(quote) => {
            let facts = tdx::verify(quote, given, list, simulated);
            event_log(given.endorsements, facts.as_ref().map(|(body, _)| body), list);
            facts.map(|(body, platform)| (Claims::Tdx(body), platform))
        }
        Cpu::Sgx(quote) => tdx::verify_sgx(quote, given, list, simulated)
            .map(|(report, platform)| (Claims::Sgx(report), platform)),
        Cpu::Snp(report) => snp::verify(report, given, list, simulated)
            .map(|(report, platform)| (Claims::Snp(report), platform)),
        Cpu::Azure(json, kind) => {
            let facts = azure::verify(json, kind, bundled, given, list, simulated);
            if kind == azure::Kind::Tdx {
                let body = facts.as_ref().and_then(|(claims, _)| match claims {
                    Claims::AzureTdx(body, _) => Some(body),
                    _ => None,
                });
                event_log(given.endorsements, body, list);
            }
            facts
        }
    }
}

/// A bundle's GPUs answer the nonce that follows from the statement: their evidence is theirs for these keys.
fn bundled_gpus(
    bundle: &Bundle,
    statement: Option<&Statement>,
    given: &Given<'_>,
    list: &mut Checklist,
    simulated: &mut bool,
) -> Option<nvidia::Facts> {
    let nonce = |statement: &Statement| statement::gpu_nonce(&statement.keys, &statement.freshness);
    let challenge = statement.map_or(Challenge::Unknown, |statement| Challenge::Exactly(nonce(statement)));
    match nvidia::Evidence::of_records(&bundle.gpu) {
        Ok(evidence) => nvidia::verify(&evidence, challenge, given, list, simulated),
        Err(error) => {
            let finding = Finding {
                kind: RefusalKind::Malformed,
                expected: "GPU records in their deterministic encoding".into(),
                got: error.to_string(),
                likely: "The guest is of another version, or does not follow the format".into(),
                remedy: "Use a host whose guest is of a version this verifier knows".into(),
            };
            list.fail("gpu.format", finding);
            None
        }
    }
}

/// One platform of a CPU and its GPUs, or of GPUs by themselves; what runs out first counts.
fn joined(cpu: Option<Platform>, gpus: Option<&nvidia::Facts>, simulated: bool) -> Platform {
    let mut platform = cpu.unwrap_or_else(|| Platform {
        kind: PlatformKind::Nvidia,
        simulated,
        product: "",
        tcb_status: "UpToDate".into(),
        advisories: Vec::new(),
        evaluation_number: None,
        ids: Vec::new(),
        good_until: gpus.expect("no check failed, so there is a CPU or a GPU").good_until,
    });
    if let Some(facts) = gpus {
        platform.simulated |= simulated;
        platform.good_until = platform.good_until.min(facts.good_until);
        platform.ids.extend(facts.gpus.iter().map(|gpu| PlatformId::gpu(&gpu.serial)));
    }
    platform
}

/// The log that is shown must replay to the registers of the report that was signed.
fn event_log(endorsements: &Endorsements, body: Option<&Body>, list: &mut Checklist) {
    const ID: &str = "tdx.eventlog";
    let logs: Vec<&[u8]> = endorsements.event_logs().collect();
    match (&logs[..], body) {
        ([], _) => list.skip(ID, "no event log is shown: the registers count by themselves"),
        (_, None) => {} // not reached
        ([log], Some(body)) => match eventlog::judge(log, &body.rtmr) {
            Ok((got, why)) => list.pass(ID, eventlog::EXPECTED, got, why),
            Err(finding) => list.fail(ID, *finding),
        },
        (several, Some(_)) => list.fail(
            ID,
            Finding {
                kind: RefusalKind::Malformed,
                expected: "one event log".into(),
                got: format!("{} event logs", several.len()),
                likely: "Logs of several machines or boots lie together".into(),
                remedy: "Name the one that was read beside this quote".into(),
            },
        ),
    }
}
