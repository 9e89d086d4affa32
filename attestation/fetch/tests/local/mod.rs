//! A local server that plays the vendors' services, and a clock that waits for nothing.

#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(unreachable_pub, reason = "a module of test helpers, shared by several test crates")]

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::{Future, pending, ready};
use std::path::Path;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{Method, Response, Uri};
use axum::routing::any;
use cocoon_attestation::nvidia::ocsp_document;
use cocoon_attestation::{
    Endorsements, Evidence, Exceptions, Genuine, Refusal, TrustAnchors, UnixTime, verify,
};
use cocoon_fetch::{Cache, Clock, Fetcher, Gathered, Limits, Service, Services};
use futures_util::{StreamExt, stream};
use serde_json::Value;

/// How a service answers.
#[derive(Clone)]
pub enum Reply {
    Good(Vec<u8>),
    /// With a header, and its value.
    Beside(&'static str, String, Vec<u8>),
    Status(u16),
    /// 429 with Retry-After.
    TooMany(&'static str),
    /// Says how long it is, or does not, and is so long.
    Flood(usize, bool),
    /// A header, the first byte, and then nothing.
    Hang,
    Redirect(&'static str),
}

impl Reply {
    fn response(self) -> Response<Body> {
        let response = Response::builder();
        let response = match self {
            Self::Good(body) => response.body(body.into()),
            Self::Beside(name, value, body) => response.header(name, value).body(body.into()),
            Self::Status(status) => response.status(status).body(Body::from("trouble")),
            Self::TooMany("") => response.status(429).body(Body::empty()),
            Self::TooMany(after) => response.status(429).header("Retry-After", after).body(Body::empty()),
            Self::Flood(length, true) => response.body(vec![b'x'; length].into()),
            Self::Flood(length, false) => {
                let parts =
                    stream::iter(vec![Ok::<_, Infallible>(Bytes::from_static(&[b'x'; 1024])); length / 1024]);
                response.body(Body::from_stream(parts))
            }
            Self::Hang => {
                let first = stream::once(ready(Ok::<_, Infallible>(Bytes::from_static(b"{"))));
                response.body(Body::from_stream(first.chain(stream::once(pending()))))
            }
            Self::Redirect(place) => response.status(302).header("Location", place).body(Body::empty()),
        };
        response.expect("a response")
    }
}

#[derive(Default)]
struct Shelf {
    /// By path and query; the last reply is given again and again.
    replies: BTreeMap<String, Vec<Reply>>,
    /// OCSP answers, found by what they answer.
    ocsp: Vec<Vec<u8>>,
    /// Requests, in their order.
    log: Vec<String>,
}

/// All services at one address.
#[derive(Clone)]
pub struct Local {
    shelf: Arc<Mutex<Shelf>>,
    pub url: String,
}

impl Local {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let shelf = Arc::new(Mutex::new(Shelf::default()));
        let router = axum::Router::new().fallback(any(serve)).with_state(Arc::clone(&shelf));
        tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { shelf, url }
    }

    /// From now on, these replies, one after the other.
    pub fn put(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        let replies = replies.into_iter().collect();
        self.shelf.lock().expect("no panic").replies.insert(path.to_owned(), replies);
    }

    pub fn put_ocsp(&self, answer: Vec<u8>) {
        self.shelf.lock().expect("no panic").ocsp.push(answer);
    }

    /// Requests since the last call.
    pub fn requests(&self) -> Vec<String> {
        std::mem::take(&mut self.shelf.lock().expect("no panic").log)
    }

    pub fn services(&self) -> Services {
        services(&self.url)
    }

    /// Intel's four documents, taken out of collateral, as Intel's services give them.
    pub fn put_intel(&self, collateral: &[u8]) {
        let json: Value = serde_json::from_slice(collateral).expect("JSON");
        let text = |name: &str| json[name].as_str().expect("a string").to_owned();
        let signed = |document: &str, wrapped: &str, header| {
            let (text, signature) = (text(document), text(&format!("{document}_signature")));
            let body = format!(r#"{{"{wrapped}":{text},"signature":"{signature}"}}"#);
            Reply::Beside(header, encoded(&json[format!("{document}_issuer_chain")]), body.into_bytes())
        };
        let crl = |name: &str| hex::decode(text(name)).expect("hex");
        self.put(TCB, [signed("tcb_info", "tcbInfo", "TCB-Info-Issuer-Chain")]);
        self.put(QE, [signed("qe_identity", "enclaveIdentity", "SGX-Enclave-Identity-Issuer-Chain")]);
        let chain = encoded(&json["pck_crl_issuer_chain"]);
        self.put(PCK_CRL, [Reply::Beside("SGX-PCK-CRL-Issuer-Chain", chain, crl("pck_crl"))]);
        self.put(ROOT_CRL, [Reply::Good(crl("root_ca_crl"))]);
    }
}

pub const TCB: &str = "/tdx/certification/v4/tcb?fmspc=53494d544458";
pub const QE: &str = "/tdx/certification/v4/qe/identity";
pub const PCK_CRL: &str = "/sgx/certification/v4/pckcrl?ca=platform&encoding=der";
pub const ROOT_CRL: &str = "/IntelSGXRootCA.der";

/// Percent-encoded, as Intel's headers are.
pub fn encoded(text: &Value) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~".contains(byte);
    let text = text.as_str().expect("a string").as_bytes();
    text.iter()
        .map(|byte| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

async fn serve(
    State(shelf): State<Arc<Mutex<Shelf>>>,
    method: Method,
    uri: Uri,
    headers: axum::http::HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let mut shelf = shelf.lock().expect("no panic");
    shelf.log.push(format!("{method} {uri}"));
    if method == Method::POST {
        assert_eq!(headers["content-type"], "application/ocsp-request");
        let answer = shelf.ocsp.iter().find(|answer| ocsp_document(&body, answer).is_ok());
        return answer.map_or(Reply::Status(404), |answer| Reply::Good(answer.clone())).response();
    }
    let Some(replies) = shelf.replies.get_mut(&uri.to_string()) else {
        return Reply::Status(404).response();
    };
    let reply = if replies.len() > 1 { replies.remove(0) } else { replies[0].clone() };
    reply.response()
}

pub fn services(url: &str) -> Services {
    let url: cocoon_fetch::ServiceUrl = url.parse().expect("loopback");
    Service::ALL.into_iter().fold(Services::default(), |all, service| all.with(service, url.clone()))
}

/// Nobody listens there.
pub fn nowhere() -> Services {
    services("http://127.0.0.1:1")
}

/// A clock that is set, and notes how long it was asked to wait.
pub struct TestClock {
    now: AtomicU64,
    slept: Mutex<Vec<u64>>,
}

impl TestClock {
    pub fn at(now: UnixTime) -> Arc<Self> {
        Arc::new(Self { now: now.0.into(), slept: Mutex::default() })
    }

    pub fn set(&self, now: UnixTime) {
        self.now.store(now.0, Ordering::SeqCst);
    }

    /// Seconds of each wait since the last call.
    pub fn slept(&self) -> Vec<u64> {
        std::mem::take(&mut self.slept.lock().expect("no panic"))
    }
}

impl Clock for TestClock {
    fn now(&self) -> UnixTime {
        UnixTime(self.now.load(Ordering::SeqCst))
    }

    fn sleep(&self, time: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        self.slept.lock().expect("no panic").push(time.as_secs());
        Box::pin(ready(()))
    }
}

/// Gathers and verifies as of `at`, with the rollback floor that came out.
pub struct Desk {
    pub evidence: Evidence,
    pub given: Endorsements,
    pub anchors: TrustAnchors,
    pub exceptions: Exceptions,
}

impl Desk {
    pub fn fetcher(&self, services: Services, cache: &Path, at: UnixTime) -> Fetcher {
        let fetcher = Fetcher::new(services, Cache::at(cache), Limits::default()).expect("a client");
        fetcher.with_clock(TestClock::at(at))
    }

    pub async fn run(
        &self,
        services: Services,
        cache: &Path,
        at: UnixTime,
    ) -> (Gathered, Result<Genuine, Refusal>) {
        self.run_with(&self.fetcher(services, cache, at), at).await
    }

    pub async fn run_with(&self, fetcher: &Fetcher, at: UnixTime) -> (Gathered, Result<Genuine, Refusal>) {
        let gathered = fetcher.gather(&self.evidence, &self.given, &self.anchors, at).await;
        assert!(gathered.unkept.is_empty(), "{:?}", gathered.unkept);
        let anchors = self.anchors.clone().with_evaluation_floor(gathered.floor);
        let result = verify(&self.evidence, &gathered.endorsements, &anchors, &self.exceptions, at);
        (gathered, result)
    }
}

/// `what: source`, one per line, for a comparison that says what differs.
pub fn told(gathered: &Gathered) -> Vec<String> {
    gathered.outcomes.iter().map(|outcome| format!("{}: {:?}", outcome.what, outcome.source)).collect()
}
