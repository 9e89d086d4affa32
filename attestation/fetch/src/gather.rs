//! From what is missing to what there is: cache, service, and what to say.

use std::mem::discriminant;
use std::sync::Arc;

use cocoon_attestation::{
    Bundle, Document, Endorsement, Endorsements, Evidence, Need, TrustAnchors, UnixTime,
    canonical_collateral, evaluation_mark, intel_needs, needs,
};

use crate::cache::Entry;
use crate::http::{Http, Listener, Request};
use crate::intel::Parts;
use crate::question::{Content, Question};
use crate::{Cache, CacheError, Clock, FetchError, Limits, Progress, Service, Services, SystemClock};

/// Needs that are seen only once others are met are met in the next round: VCEK, then its product's list; RIM, then its
/// signers' status.
const ROUNDS: usize = 3;
/// Most things that are asked for in one verification: a rack of GPUs has fewer.
const MAX_QUESTIONS: usize = 200;
/// An entry from further in the future than this was written by another clock.
const SKEW: u64 = 300;

/// Gets what verifications lack.
pub struct Fetcher {
    services: Services,
    cache: Cache,
    http: Http,
    clock: Arc<dyn Clock>,
    listener: Listener,
    offline: bool,
}

/// Everything that could be had.
#[derive(Debug)]
pub struct Gathered {
    /// What was given, what a bundle carries of the same kinds, and what was fetched: for the verifier.
    pub endorsements: Endorsements,
    /// For [`TrustAnchors::with_evaluation_floor`].
    pub floor: u32,
    /// One for each thing that was missing.
    pub outcomes: Vec<Outcome>,
    /// What could not be kept.
    pub unkept: Vec<CacheError>,
}

/// What became of one thing that was missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// What it is, for people.
    pub what: String,
    /// Whose; `None` if nobody gives it out.
    pub service: Option<Service>,
    /// Where it came from.
    pub source: Source,
}

/// Where something came from, or why it did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The service gave it just now.
    Fetched,
    /// The cache; it was fetched not long ago, and no request was made.
    Cached,
    /// The cache, and it is in date; the service has nothing better.
    Kept(FetchError),
    /// The cache, but it ran out at this time; the service has nothing better. The verifier will refuse it.
    Expired(UnixTime, FetchError),
    /// The service, but it is older than what was seen before. The verifier will refuse it.
    RolledBack(FetchError),
    /// Nowhere.
    Missing(FetchError),
}

impl Source {
    /// Why it is not simply fetched.
    pub fn trouble(&self) -> Option<&FetchError> {
        match self {
            Self::Fetched | Self::Cached => None,
            Self::Kept(why) | Self::Expired(_, why) | Self::RolledBack(why) | Self::Missing(why) => Some(why),
        }
    }
}

/// What a question came to.
struct Got {
    question: Question,
    content: Option<Content>,
    source: Source,
}

impl Fetcher {
    /// With the system's clock.
    ///
    /// # Errors
    /// If no HTTP client can be made.
    pub fn new(services: Services, cache: Cache, limits: Limits) -> Result<Self, FetchError> {
        let http = Http::new(limits)?;
        let (clock, listener) = (Arc::new(SystemClock), Arc::new(|_: &Progress| {}));
        Ok(Self { services, cache, http, clock, listener, offline: false })
    }

    /// Only the cache is used.
    #[must_use]
    pub fn offline(mut self, offline: bool) -> Self {
        self.offline = offline;
        self
    }

    /// With another clock.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Told of every request and every pause.
    #[must_use]
    pub fn with_listener(mut self, listener: impl Fn(&Progress) + Send + Sync + 'static) -> Self {
        self.listener = Arc::new(listener);
        self
    }

    /// Gets what is missing, or not in date at `at`, for a verification of this evidence as of `at`; `anchors` are those of
    /// the verification, and say whose signatures may raise a rollback mark. Never fails: what could not be had is an
    /// [`Outcome`], and the verifier says what that means.
    pub async fn gather(
        &self,
        evidence: &Evidence,
        given: &Endorsements,
        anchors: &TrustAnchors,
        at: UnixTime,
    ) -> Gathered {
        let mut gathered =
            Gathered { endorsements: given.clone(), floor: 0, outcomes: Vec::new(), unkept: Vec::new() };
        let (mut asked, mut left): (Vec<Need>, usize) = (Vec::new(), MAX_QUESTIONS);
        for _ in 0..ROUNDS {
            let mut wanted = needs(evidence, &gathered.endorsements, at);
            wanted.retain(|need| !asked.contains(need));
            wanted.truncate(left);
            if wanted.is_empty() {
                break;
            }
            left -= wanted.len();
            self.round(&wanted, evidence, at, &mut gathered).await;
            asked.extend(wanted);
        }
        self.marks(evidence, anchors, at, &mut gathered);
        gathered
    }

    /// The same bundle with what its verifiers would have to fetch, as of `at`: for whoever hands it out. Signed bytes stay as
    /// they are; what could not be had is missing still, and the outcomes say why.
    pub async fn complete(
        &self,
        mut bundle: Bundle,
        anchors: &TrustAnchors,
        at: UnixTime,
    ) -> (Bundle, Vec<Outcome>) {
        let evidence = Evidence::Bundle(bundle.clone());
        let gathered = self.gather(&evidence, &Endorsements::none(), anchors, at).await;
        for item in gathered.endorsements.items() {
            let item = match item {
                // Bundles carry collateral in one form only.
                Endorsement::IntelCollateral(json) => match canonical_collateral(json) {
                    Ok(json) => {
                        bundle.endorsements.retain(|old| !matches!(old, Endorsement::IntelCollateral(_)));
                        Endorsement::IntelCollateral(json)
                    }
                    Err(_) => continue, // no verifier would take it
                },
                other => other.clone(),
            };
            if !bundle.endorsements.contains(&item) {
                bundle.endorsements.push(item);
            }
        }
        (bundle, gathered.outcomes)
    }

    async fn round(&self, wanted: &[Need], evidence: &Evidence, at: UnixTime, gathered: &mut Gathered) {
        let mut questions = Vec::new();
        for need in wanted {
            match Question::of(need) {
                Ok(of_need) => questions.extend(of_need),
                Err(why) => gathered.outcomes.push(Outcome {
                    what: nobodys(need),
                    service: None,
                    source: Source::Missing(why),
                }),
            }
        }
        // One request at a time to each service; the services beside each other.
        let lanes = Service::ALL.map(|service| {
            let of_service = questions.iter().filter(|question| question.service() == service);
            self.lane(of_service.cloned().collect(), at)
        });
        let mut fetched = Vec::new();
        let mut answers = Vec::new();
        for (got, unkept) in futures_util::future::join_all(lanes).await {
            answers.extend(got);
            gathered.unkept.extend(unkept);
        }
        fetched.extend(collateral(&answers, &mut gathered.outcomes));
        for Got { question, content, source } in answers {
            let outcome = Outcome { what: question.what(), service: Some(question.service()), source };
            gathered.outcomes.push(outcome);
            fetched.extend(content.and_then(|content| question.endorsement(content)));
        }
        gathered.endorsements = merged(&gathered.endorsements, evidence, fetched);
    }

    /// Questions to one service. Once it cannot be reached, it is not asked again.
    async fn lane(&self, questions: Vec<Question>, at: UnixTime) -> (Vec<Got>, Vec<CacheError>) {
        let mut down = self.offline.then_some(FetchError::Offline);
        let (mut got, mut unkept) = (Vec::new(), Vec::new());
        for question in questions {
            let (content, source) = self.obtain(&question, at, &mut down, &mut unkept).await;
            got.push(Got { question, content, source });
        }
        (got, unkept)
    }

    async fn obtain(
        &self,
        question: &Question,
        at: UnixTime,
        down: &mut Option<FetchError>,
        unkept: &mut Vec<CacheError>,
    ) -> (Option<Content>, Source) {
        let mark = self.mark_of(question, at);
        let kept = self.cache.get(question).filter(|entry| !below(&entry.document, mark));
        let kept = match kept {
            Some(entry) if self.fresh(question, &entry, at) => return (Some(entry.content), Source::Cached),
            kept => kept,
        };
        let answer = match down {
            Some(why) => Err(why.clone()),
            None => self.ask(question).await,
        };
        let (why, answer) = match answer {
            Ok(entry) if below(&entry.document, mark) => {
                let got = entry.document.evaluation_number.unwrap_or(0);
                (FetchError::Rollback { got, mark }, Some(entry))
            }
            Ok(entry) => {
                if in_date(&entry.document, entry.fetched) {
                    let from = self.services.url(question.service()).to_string();
                    unkept.extend(self.cache.put(question, &entry, &from).err());
                }
                // What is served today may not be for the time that was asked about; what is kept may be.
                match kept.filter(|kept| in_date(&kept.document, at)) {
                    Some(kept) if !in_date(&entry.document, at) => {
                        return (Some(kept.content), Source::Cached);
                    }
                    _ => return (Some(entry.content), Source::Fetched),
                }
            }
            Err(why) => {
                if why.of_service() {
                    *down = Some(why.clone());
                }
                (why, None)
            }
        };
        match (kept, answer) {
            (Some(entry), _) if in_date(&entry.document, at) => (Some(entry.content), Source::Kept(why)),
            (_, Some(entry)) => (Some(entry.content), Source::RolledBack(why)),
            (Some(entry), None) => {
                let until = entry.document.until.unwrap_or(at);
                (Some(entry.content), Source::Expired(until, why))
            }
            (None, None) => (None, Source::Missing(why)),
        }
    }

    /// In date at the time of the verification, and not so long ago that something newer must be there.
    fn fresh(&self, question: &Question, entry: &Entry, at: UnixTime) -> bool {
        let sane = entry.fetched.0 <= self.clock.now().0.saturating_add(SKEW);
        let until = entry.fetched.0.saturating_add(question.fresh_for());
        sane && in_date(&entry.document, at) && at.0 < until
    }

    async fn ask(&self, question: &Question) -> Result<Entry, FetchError> {
        let service = question.service();
        let (base, what) = (self.services.url(service), question.what());
        let mut result = Err(FetchError::NotFound);
        for path in question.paths() {
            let (body, limit) = (question.posted(), question.limit());
            let request = Request { service, what: &what, path: &path, body, limit };
            result = self.http.ask(base, &request, &*self.clock, &self.listener).await;
            if !matches!(result, Err(FetchError::NotFound)) {
                break;
            }
        }
        let content = question.content(result?)?;
        let document =
            question.document(&content).map_err(|error| FetchError::Unusable(error.to_string()))?;
        Ok(Entry { content, document, fetched: self.clock.now() })
    }

    /// The rollback mark that an answer is held against.
    fn mark_of(&self, question: &Question, at: UnixTime) -> u32 {
        match question {
            Question::TcbInfo(needs) | Question::QeIdentity(needs) => self.cache.mark(needs, at),
            _ => 0,
        }
    }

    /// Raises the mark of the evidence's platform by the collateral that will be used, if its signatures hold; then the floor
    /// is the mark.
    fn marks(&self, evidence: &Evidence, anchors: &TrustAnchors, at: UnixTime, gathered: &mut Gathered) {
        let Some(quote) = evidence.intel_quote() else { return };
        let Ok(needs) = intel_needs(&quote) else { return };
        let mut used = gathered.endorsements.items().iter().chain(carried(evidence));
        let collateral = used.find_map(|item| match item {
            Endorsement::IntelCollateral(json) => Some(json),
            _ => None,
        });
        let mark = collateral.and_then(|json| evaluation_mark(&quote, json, anchors));
        if let Some(mark) = mark {
            gathered.unkept.extend(self.cache.raise_mark(&needs, mark).err());
        }
        gathered.floor = self.cache.mark(&needs, at);
    }
}

fn in_date(document: &Document, at: UnixTime) -> bool {
    document.from <= at && document.until.is_none_or(|until| at <= until)
}

fn below(document: &Document, mark: u32) -> bool {
    document.evaluation_number.is_some_and(|number| number < mark)
}

/// What a need that becomes no question is about.
fn nobodys(need: &Need) -> String {
    match need {
        Need::Vek(needs) => format!("{} of the chip", needs.key.name()),
        _ => "a RIM".to_owned(),
    }
}

/// Intel's collateral, if all four parts are there.
fn collateral(answers: &[Got], outcomes: &mut Vec<Outcome>) -> Option<Endorsement> {
    let part = |is: fn(&Question) -> bool| {
        answers.iter().find(|got| is(&got.question)).and_then(|got| got.content.as_ref())
    };
    let parts = Parts {
        tcb_info: part(|question| matches!(question, Question::TcbInfo(_)))?,
        qe_identity: part(|question| matches!(question, Question::QeIdentity(_)))?,
        pck_crl: part(|question| matches!(question, Question::PckCrl(_)))?,
        root_crl: part(|question| matches!(question, Question::RootCrl))?,
    };
    match parts.collateral() {
        Ok(json) => Some(Endorsement::IntelCollateral(json)),
        Err(why) => {
            let (what, service) = ("Intel's collateral".to_owned(), Some(Service::IntelPcs));
            outcomes.push(Outcome { what, service, source: Source::Missing(why) });
            None
        }
    }
}

/// What a bundle brings itself.
fn carried(evidence: &Evidence) -> &[Endorsement] {
    match evidence {
        Evidence::Bundle(bundle) => &bundle.endorsements,
        _ => &[],
    }
}

/// The verifier takes a kind either from the bundle or from beside it: a kind of which something was fetched must be whole
/// beside it. Of Intel's collateral there is one, and the fetched one takes its place.
fn merged(given: &Endorsements, evidence: &Evidence, fetched: Vec<Endorsement>) -> Endorsements {
    let has_collateral = fetched.iter().any(|item| matches!(item, Endorsement::IntelCollateral(_)));
    let replaced = |item: &Endorsement| has_collateral && matches!(item, Endorsement::IntelCollateral(_));
    let mut all: Vec<Endorsement> = given.items().iter().filter(|item| !replaced(item)).cloned().collect();
    for item in fetched {
        let same = |other: &Endorsement| discriminant(other) == discriminant(&item);
        if !all.iter().any(same) {
            let own = carried(evidence).iter().filter(|other| same(other) && !replaced(other));
            all.extend(own.cloned());
        }
        if !all.contains(&item) {
            all.push(item);
        }
    }
    let mut merged = Endorsements::none();
    all.into_iter().for_each(|item| merged.push(item));
    merged
}
