//! One or more endpoints of the same service, asked until one answers or the deadline has come.
//!
//! All decisions about retries are here: which endpoint is next, how long to wait, what an error means for the next
//! try. An endpoint that failed is asked after those that did not; one that asked for a pause gets it; one whose network
//! is not known yet is asked for that first, and nothing else is believed until it fits.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::fault::Fault;
use super::pace::{Backoff, Jitter, TokenBucket, process_jitter};
use super::transport::{Http, Lost, MAX_ANSWER_BYTES, Reply, Request, Transport};
use super::{ApiKey, ToncenterOptions};
use crate::ChainError;

/// How long one request may take, with its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// How often all endpoints are tried, at most.
const ROUNDS: u32 = 4;
/// How long an endpoint that failed is asked after the others.
const QUARANTINE: Duration = Duration::from_secs(30);
/// The pause of an endpoint that refuses for its limit without saying for how long.
const UNSAID_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause that an endpoint may ask for.
const MAX_PAUSE: Duration = Duration::from_secs(3600);
/// What public services allow without a key, and with the smallest one, per second.
const RATE_WITHOUT_KEY: u32 = 1;
const RATE_WITH_KEY: u32 = 10;

/// Reads a service's answer.
pub(crate) type Read<T> = fn(&Reply) -> Result<T, Fault>;

/// How to ask a service which network it is of.
#[derive(Clone)]
pub(crate) struct Probe {
    pub(crate) request: Request,
    pub(crate) read: Read<i32>,
}

struct Endpoint {
    root: String,
    limit: Option<TokenBucket>,
    state: Mutex<State>,
}

#[derive(Default, Clone, Copy)]
struct State {
    /// The network it says it is of.
    network: Option<i32>,
    /// Asked after the others until then.
    ails_until: Option<Instant>,
    /// Not asked until then.
    paused_until: Option<Instant>,
}

impl Endpoint {
    fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// The endpoints of one network.
pub(crate) struct Endpoints {
    transport: Box<dyn Transport>,
    list: Vec<Endpoint>,
    key: Option<ApiKey>,
    deadline: Duration,
    jitter: Jitter,
    probe: Probe,
    /// The network that is wanted.
    network: i32,
}

impl Endpoints {
    /// Endpoints of a network whose id is known. Nothing is asked yet, nor checked later.
    pub(crate) fn trusted(
        roots: Vec<String>,
        options: &ToncenterOptions,
        network: i32,
        probe: Probe,
    ) -> Result<Self, ChainError> {
        let this = Self::unchecked(roots, options, network, probe)?;
        this.list.iter().for_each(|endpoint| endpoint.set(|state| state.network = Some(network)));
        Ok(this)
    }

    /// Meets the endpoints: at least one must answer, and those that do must be of one network, and of the wanted one.
    pub(crate) async fn meet(
        roots: Vec<String>,
        options: &ToncenterOptions,
        probe: Probe,
    ) -> Result<Self, ChainError> {
        let mut this = Self::unchecked(roots, options, 0, probe)?;
        this.introduce(options.network).await?;
        Ok(this)
    }

    fn unchecked(
        roots: Vec<String>,
        options: &ToncenterOptions,
        network: i32,
        probe: Probe,
    ) -> Result<Self, ChainError> {
        let http = Http::new().map_err(|why| ChainError::Url { url: roots.join(", "), why })?;
        Ok(Self::over(Box::new(http), roots, options, network, probe))
    }

    pub(crate) fn over(
        transport: Box<dyn Transport>,
        roots: Vec<String>,
        options: &ToncenterOptions,
        network: i32,
        probe: Probe,
    ) -> Self {
        let list = roots
            .into_iter()
            .map(|root| Endpoint { limit: limit(&root, options), root, state: Mutex::default() })
            .collect();
        let (key, deadline) = (options.key.clone(), options.deadline);
        Self { transport, list, key, deadline, jitter: process_jitter(), probe, network }
    }

    pub(crate) fn network(&self) -> i32 {
        self.network
    }

    pub(crate) async fn introduce(&mut self, wanted: Option<i32>) -> Result<(), ChainError> {
        let deadline = Instant::now() + self.deadline;
        let mut backoff = Backoff::new();
        let mut network = wanted;
        for round in 1..=ROUNDS {
            let mut met = false;
            let mut last = None;
            for endpoint in &self.list {
                match self.once(endpoint, &self.probe.request, deadline, self.probe.read).await {
                    Ok(found) => {
                        endpoint.set(|state| state.network = Some(found));
                        let expected = *network.get_or_insert(found);
                        if expected != found {
                            return Err(Fault::Foreign { expected, found }
                                .explain(&endpoint.root, &self.probe.request));
                        }
                        met = true;
                    }
                    Err(fault) => {
                        self.note(endpoint, &fault);
                        last = Some((fault, endpoint));
                    }
                }
            }
            if met {
                self.network = network.expect("an endpoint said it");
                return Ok(());
            }
            let (fault, endpoint) = last.expect("there is an endpoint");
            if !fault.passes() || round == ROUNDS || !self.pause(&mut backoff, deadline).await {
                return Err(fault.explain(&endpoint.root, &self.probe.request));
            }
        }
        unreachable!("the last round returns")
    }

    /// Asks until there is an answer, a refusal that will stay, or the deadline.
    pub(crate) async fn read<T>(
        &self,
        request: &Request,
        read: impl Fn(&Reply) -> Result<T, Fault>,
    ) -> Result<T, ChainError> {
        self.ask(request, read, |fault, _in_doubt| Err(fault)).await
    }

    /// As [`Endpoints::read`], for messages. Once an answer was lost, the message may be on its way; a refusal then often
    /// means that it was carried out a moment ago. Calling that a failure would have the caller send other money.
    pub(crate) async fn send(
        &self,
        request: &Request,
        read: impl Fn(&Reply) -> Result<(), Fault>,
    ) -> Result<(), ChainError> {
        self.ask(request, read, |fault, in_doubt| match fault {
            Fault::Refused { .. } if in_doubt => Ok(()),
            fault => Err(fault),
        })
        .await
    }

    async fn ask<T>(
        &self,
        request: &Request,
        read: impl Fn(&Reply) -> Result<T, Fault>,
        settle: impl Fn(Fault, bool) -> Result<T, Fault>,
    ) -> Result<T, ChainError> {
        let deadline = Instant::now() + self.deadline;
        let mut backoff = Backoff::new();
        let mut in_doubt = false;
        let mut last: Option<(Fault, &Endpoint)> = None;
        for round in 1..=ROUNDS {
            for endpoint in self.in_order() {
                let fault = match self.attempt(endpoint, request, deadline, &read).await {
                    Ok(value) => {
                        endpoint.set(|state| state.ails_until = None);
                        return Ok(value);
                    }
                    Err(fault) => fault,
                };
                self.note(endpoint, &fault);
                in_doubt |= fault.leaves_doubt();
                if fault.is_final() {
                    return settle(fault, in_doubt).map_err(|fault| fault.explain(&endpoint.root, request));
                }
                // A limit says when to ask again; it is the best answer if nothing better comes.
                let keeps = matches!((&last, &fault), (Some((Fault::Busy { .. }, _)), Fault::Foreign { .. }));
                if !keeps {
                    last = Some((fault, endpoint));
                }
            }
            let passes = last.as_ref().is_some_and(|(fault, _)| fault.passes());
            if !passes || round == ROUNDS || !self.pause(&mut backoff, deadline).await {
                break;
            }
        }
        let (fault, endpoint) = last.expect("there is an endpoint, and it was tried");
        Err(fault.explain(&endpoint.root, request))
    }

    /// One try, after the endpoint's network was checked.
    async fn attempt<T>(
        &self,
        endpoint: &Endpoint,
        request: &Request,
        deadline: Instant,
        read: impl Fn(&Reply) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let found = match endpoint.state().network {
            Some(network) => network,
            None => {
                let found = self
                    .once(endpoint, &self.probe.request, deadline, self.probe.read)
                    .await
                    .map_err(Fault::before)?;
                endpoint.set(|state| state.network = Some(found));
                found
            }
        };
        if found != self.network {
            return Err(Fault::Foreign { expected: self.network, found });
        }
        self.once(endpoint, request, deadline, read).await
    }

    async fn once<T>(
        &self,
        endpoint: &Endpoint,
        request: &Request,
        deadline: Instant,
        read: impl Fn(&Reply) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let now = Instant::now();
        if let Some(until) = endpoint.state().paused_until.filter(|until| *until > now) {
            return Err(Fault::Busy { retry_after: Some(until - now) });
        }
        if let Some(limit) = &endpoint.limit {
            let wait = limit.take(now, deadline).map_err(Fault::NoTurn)?;
            tokio::time::sleep(wait).await;
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::Away("no time is left for it".into()));
        }
        let timeout = left.min(REQUEST_TIMEOUT);
        match self.transport.ask(&endpoint.root, request, self.key.as_ref(), timeout).await {
            Ok(reply) => read(&reply),
            Err(Lost::NotSent(why)) => Err(Fault::Away(why)),
            Err(Lost::NoAnswer(why)) => Err(Fault::Silent(why)),
            Err(Lost::TooLong) => Err(Fault::Nonsense(format!("more than {MAX_ANSWER_BYTES} bytes"))),
        }
    }

    /// The healthy ones as configured, then the others, longest failed first.
    fn in_order(&self) -> Vec<&Endpoint> {
        let now = Instant::now();
        let mut list: Vec<_> = self.list.iter().collect();
        list.sort_by_key(|endpoint| endpoint.state().ails_until.filter(|until| *until > now));
        list
    }

    fn note(&self, endpoint: &Endpoint, fault: &Fault) {
        let now = Instant::now();
        tracing::debug!(endpoint = endpoint.root, ?fault, "a TON endpoint failed");
        endpoint.set(|state| {
            if let Fault::Busy { retry_after } = fault {
                let until = now + retry_after.unwrap_or(UNSAID_PAUSE).min(MAX_PAUSE);
                state.paused_until = Some(state.paused_until.map_or(until, |known| known.max(until)));
            }
            if !fault.is_final() && !matches!(fault, Fault::NoTurn(_)) {
                state.ails_until = Some(now + QUARANTINE);
            }
        });
    }

    /// Waits before the next round, at least until one endpoint may be asked; false when that is after the deadline.
    async fn pause(&self, backoff: &mut Backoff, deadline: Instant) -> bool {
        let now = Instant::now();
        let free = self
            .list
            .iter()
            .map(|endpoint| endpoint.state().paused_until.unwrap_or(now))
            .min()
            .unwrap_or(now);
        let until = (now + backoff.next(&self.jitter)).max(free);
        if until >= deadline {
            return false;
        }
        tokio::time::sleep_until(until).await;
        true
    }
}

/// None for a service of this machine, unless one is configured.
fn limit(root: &str, options: &ToncenterOptions) -> Option<TokenBucket> {
    let host =
        reqwest::Url::parse(root).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    let here = host == "localhost"
        || host
            .trim_matches(['[', ']'])
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback());
    let unsaid = if options.key.is_some() { RATE_WITH_KEY } else { RATE_WITHOUT_KEY };
    match options.requests_per_second {
        Some(rate) => Some(TokenBucket::per_second(rate)),
        None if here => None,
        None => Some(TokenBucket::per_second(unsaid)),
    }
}

#[cfg(test)]
#[path = "endpoints_tests.rs"]
mod tests;
