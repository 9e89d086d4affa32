//! Endpoints that come and go, over a network of the test's own and a clock that it turns.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::{BoxFuture, FutureExt as _};

use super::*;

type Script = Box<dyn FnMut(Duration) -> Result<Reply, Lost> + Send>;

/// Answers by root. The script hears how long the test has run.
#[derive(Clone)]
struct World {
    start: Instant,
    scripts: Arc<Mutex<HashMap<String, Script>>>,
    asked: Arc<Mutex<Vec<(Duration, String)>>>,
}

impl World {
    fn new() -> Self {
        Self { start: Instant::now(), scripts: Arc::default(), asked: Arc::default() }
    }

    fn endpoint(
        &self,
        root: &str,
        script: impl FnMut(Duration) -> Result<Reply, Lost> + Send + 'static,
    ) -> &Self {
        self.scripts.lock().unwrap().insert(root.to_owned(), Box::new(script));
        self
    }

    fn endpoints(&self, roots: &[&str], options: &ToncenterOptions, network: i32) -> Endpoints {
        let roots = roots.iter().map(|root| (*root).to_owned()).collect();
        let mut endpoints = Endpoints::over(Box::new(self.clone()), roots, options, network, probe());
        endpoints.jitter = Box::new(|| u64::MAX);
        endpoints
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|(_, root)| root.clone()).collect()
    }

    /// Milliseconds at which each request came.
    fn times(&self) -> Vec<u128> {
        self.asked.lock().unwrap().iter().map(|(time, _)| time.as_millis()).collect()
    }
}

impl Transport for World {
    fn ask<'a>(
        &'a self,
        root: &'a str,
        _request: &'a Request,
        _key: Option<&'a ApiKey>,
        timeout: Duration,
    ) -> BoxFuture<'a, Result<Reply, Lost>> {
        async move {
            let time = self.start.elapsed();
            self.asked.lock().unwrap().push((time, root.to_owned()));
            let outcome = self.scripts.lock().unwrap().get_mut(root).expect("a script")(time);
            if matches!(&outcome, Err(Lost::NoAnswer(why)) if why == "timeout") {
                tokio::time::sleep(timeout).await;
            }
            outcome
        }
        .boxed()
    }
}

const WANTED: i32 = -217;

fn probe() -> Probe {
    Probe {
        request: asks("network"),
        read: |reply| String::from_utf8_lossy(&reply.body).parse().map_err(Fault::nonsense),
    }
}

fn asks(name: &'static str) -> Request {
    Request { name, path: String::new(), body: None }
}

fn options() -> ToncenterOptions {
    ToncenterOptions { requests_per_second: Some(1000), ..ToncenterOptions::new("http://a") }
}

fn says(network: i32) -> Result<Reply, Lost> {
    Ok(Reply { status: 200, retry_after: None, body: network.to_string().into_bytes() })
}

fn status(status: u16, retry_after: Option<u64>) -> Result<Reply, Lost> {
    Ok(Reply { status, retry_after: retry_after.map(Duration::from_secs), body: b"words".to_vec() })
}

fn away() -> Result<Reply, Lost> {
    Err(Lost::NotSent("connection refused".into()))
}

fn value(reply: &Reply) -> Result<String, Fault> {
    let text = String::from_utf8_lossy(&reply.body).into_owned();
    if reply.status == 200 { Ok(text) } else { Err(Fault::of_code(reply, i64::from(reply.status), &text)) }
}

fn trusted(world: &World, roots: &[&str], options: &ToncenterOptions) -> Endpoints {
    let endpoints = world.endpoints(roots, options, WANTED);
    endpoints.list.iter().for_each(|endpoint| endpoint.set(|state| state.network = Some(WANTED)));
    endpoints
}

#[tokio::test(start_paused = true)]
async fn waits_double_between_rounds_and_end() {
    let world = World::new();
    world.endpoint("http://a", |_| away());
    let error = trusted(&world, &["http://a"], &options()).read(&asks("x"), value).await.unwrap_err();
    assert!(matches!(&error, ChainError::Unreachable { why, .. } if why == "connection refused"), "{error}");
    assert!(error.is_temporary());
    assert_eq!(world.times(), [0, 150, 450, 1050]);
}

#[tokio::test(start_paused = true)]
async fn a_chain_that_is_down_for_an_hour_is_used_when_it_is_back() {
    let world = World::new();
    let hour = Duration::from_secs(3600);
    world.endpoint("http://a", move |time| if time < hour { away() } else { says(7) });
    let endpoints = trusted(&world, &["http://a"], &options());
    let mut failures = 0;
    let answer = loop {
        match endpoints.read(&asks("x"), value).await {
            Ok(answer) => break answer,
            Err(error) => {
                assert!(error.is_temporary(), "{error}");
                failures += 1;
                tokio::time::sleep(Duration::from_secs(10)).await;
            }
        }
    };
    assert_eq!(answer, "7");
    assert!(failures > 300, "{failures}");
    assert!(world.start.elapsed() < hour + Duration::from_secs(12), "{:?}", world.start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_does_not_exceed_the_deadline() {
    let world = World::new();
    world.endpoint("http://a", |_| Err(Lost::NoAnswer("timeout".into())));
    let options = ToncenterOptions { deadline: Duration::from_secs(25), ..options() };
    let error = trusted(&world, &["http://a"], &options).read(&asks("x"), value).await.unwrap_err();
    assert!(matches!(error, ChainError::Unreachable { .. }), "{error}");
    assert!(world.start.elapsed() <= Duration::from_secs(25), "{:?}", world.start.elapsed());
    assert_eq!(world.times(), [0, 10_150, 20_450]);
}

#[tokio::test(start_paused = true)]
async fn the_pause_that_a_service_asks_for_is_kept() {
    let world = World::new();
    world.endpoint("http://a", |time| if time.as_secs() < 7 { status(429, Some(7)) } else { says(7) });
    let endpoints = trusted(&world, &["http://a"], &options());
    assert_eq!(endpoints.read(&asks("x"), value).await.unwrap(), "7");
    assert_eq!(world.times(), [0, 7000]);
}

#[tokio::test(start_paused = true)]
async fn a_pause_past_the_deadline_is_said_and_the_endpoint_left_in_peace() {
    let world = World::new();
    world.endpoint("http://a", |_| status(503, Some(600)));
    let endpoints = trusted(&world, &["http://a"], &options());
    for passed in [0, 100] {
        tokio::time::sleep_until(world.start + Duration::from_secs(passed)).await;
        let error = endpoints.read(&asks("x"), value).await.unwrap_err();
        assert_eq!(error.retry_after(), Some(Duration::from_secs(600 - passed)), "{error}");
        assert!(error.is_temporary());
    }
    assert_eq!(world.asked().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_the_client_spreads_its_requests() {
    let world = World::new();
    world.endpoint("http://a.example", |_| says(7));
    let public = ToncenterOptions::new("http://a.example"); // no key: one a second
    let endpoints = trusted(&world, &["http://a.example"], &public);
    for _ in 0..4 {
        endpoints.read(&asks("x"), value).await.unwrap();
    }
    assert_eq!(world.times(), [0, 1000, 2000, 3000]);
    let request = asks("x");
    let crowd = futures_util::future::join_all((0..60).map(|_| endpoints.read(&request, value))).await;
    let late: Vec<_> = crowd.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert!(late.len() > 25 && late.iter().all(|error| error.retry_after().is_some()), "{late:?}");
}

#[test]
fn this_machine_is_not_limited_unless_told() {
    for (root, limited) in [
        ("http://127.0.0.1:1", false),
        ("http://[::1]:1", false),
        ("http://localhost", false),
        ("http://10.0.0.1", true),
    ] {
        assert_eq!(limit(root, &ToncenterOptions::new(root)).is_some(), limited, "{root}");
        assert!(limit(root, &options()).is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn the_next_endpoint_is_asked_at_once_and_the_ailing_one_later() {
    let world = World::new();
    world.endpoint("http://a", |time| if time.as_secs() < 60 { away() } else { says(1) });
    world.endpoint("http://b", |_| says(2));
    let endpoints = trusted(&world, &["http://a", "http://b"], &options());
    assert_eq!(endpoints.read(&asks("x"), value).await.unwrap(), "2");
    assert_eq!(endpoints.read(&asks("x"), value).await.unwrap(), "2");
    assert_eq!(world.asked(), ["http://a", "http://b", "http://b"]);
    assert_eq!(world.start.elapsed(), Duration::ZERO);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(endpoints.read(&asks("x"), value).await.unwrap(), "1");
}

#[tokio::test(start_paused = true)]
async fn nonsense_and_a_refused_key_send_to_another_endpoint_and_are_not_repeated() {
    let world = World::new();
    world.endpoint("http://a", |_| status(403, None));
    world.endpoint("http://b", |_| says(2));
    let endpoints = trusted(&world, &["http://a", "http://b"], &options());
    assert_eq!(endpoints.read(&asks("x"), value).await.unwrap(), "2");
    let alone = trusted(&world, &["http://a"], &options()).read(&asks("x"), value).await.unwrap_err();
    assert!(matches!(alone, ChainError::Refused { code: 403, .. }) && !alone.is_temporary(), "{alone}");
    world.endpoint("http://a", |_| Err(Lost::TooLong));
    let alone = trusted(&world, &["http://a"], &options()).read(&asks("x"), value).await.unwrap_err();
    assert!(matches!(&alone, ChainError::BadAnswer { why, .. } if why.contains("more than")), "{alone}");
    assert_eq!(world.asked().len(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_not_asked_of_others() {
    let world = World::new();
    world.endpoint("http://a", |_| status(422, None)).endpoint("http://b", |_| says(2));
    let error =
        trusted(&world, &["http://a", "http://b"], &options()).read(&asks("x"), value).await.unwrap_err();
    assert!(matches!(error, ChainError::Refused { code: 422, .. }) && !error.is_temporary(), "{error}");
    assert_eq!(world.asked(), ["http://a"]);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_of_another_network_is_never_believed() {
    let world = World::new();
    world.endpoint("http://a", |_| says(-239)).endpoint("http://b", |_| says(WANTED));
    for wanted in [None, Some(WANTED), Some(-239)] {
        let error =
            world.endpoints(&["http://a", "http://b"], &options(), 0).introduce(wanted).await.unwrap_err();
        assert!(
            matches!(error, ChainError::WrongNetwork { .. }) && !error.is_temporary(),
            "{wanted:?}: {error}"
        );
    }
    // One that was away when the others were met is asked before it is used.
    world.endpoint("http://a", |time| if time.as_secs() < 60 { away() } else { says(-239) });
    let mut endpoints = world.endpoints(&["http://a", "http://b"], &options(), 0);
    endpoints.introduce(None).await.unwrap();
    assert_eq!(endpoints.network(), WANTED);
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(endpoints.read(&asks("x"), value).await.unwrap(), WANTED.to_string());
    world.endpoint("http://b", |_| away());
    let error = endpoints.read(&asks("x"), value).await.unwrap_err();
    assert!(!matches!(error, ChainError::Url { .. }) && error.to_string().contains("http://"), "{error}");
    assert!(endpoints.read(&asks("x"), value).await.is_err(), "the foreign one was believed");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_may_have_left_is_not_called_refused() {
    // The first answer is lost, and by the second time the contract has taken the message already.
    for lost in [Err(Lost::NoAnswer("reset".into())), status(504, None)] {
        let world = World::new();
        let mut first = Some(lost);
        world.endpoint("http://a", move |_| first.take().unwrap_or_else(|| status(500, None)));
        let endpoints = trusted(&world, &["http://a"], &options());
        endpoints.send(&asks("sendBoc"), |reply| value(reply).map(drop)).await.unwrap();
        assert_eq!(world.asked().len(), 2);
    }
    // One that never left, or that was only limited, is refused as it is.
    for before in [away(), status(429, Some(1))] {
        let world = World::new();
        let mut first = Some(before);
        world.endpoint("http://a", move |_| first.take().unwrap_or_else(|| status(500, None)));
        let endpoints = trusted(&world, &["http://a"], &options());
        let error = endpoints.send(&asks("sendBoc"), |reply| value(reply).map(drop)).await.unwrap_err();
        assert!(matches!(error, ChainError::Refused { code: 500, .. }), "{error}");
    }
}
