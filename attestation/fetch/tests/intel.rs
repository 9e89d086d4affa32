//! A TDX quote without collateral: everything is fetched, kept, and served within its dates.

mod local;

use std::path::{Path, PathBuf};
use std::time::Duration;

use cocoon_attestation::{
    Bundle, Endorsement, Endorsements, EvaluationMark, Evidence, Exceptions, RefusalKind, Tee, TrustAnchors,
    UnixTime, intel_needs, statement,
};
use cocoon_fetch::{Cache, FetchError, Fetcher, Limits, Source};
use cocoon_simulated_tee::{Documents, Emulator, SimulatedRoot};
use local::{Desk, Local, PCK_CRL, QE, ROOT_CRL, Reply, TCB, TestClock, nowhere, told};

#[path = "../../tests/kit/mod.rs"]
mod kit;

const NOW: UnixTime = UnixTime(1_795_000_000);
const DAY: u64 = 86_400;

fn later(days: u64) -> UnixTime {
    UnixTime(NOW.0 + days * DAY)
}

struct World {
    root: SimulatedRoot,
    local: Local,
    desk: Desk,
    cache: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let root = SimulatedRoot::create(NOW);
        let quote = Emulator::launch(&root, b"binary", &[]).quote(&[7; 64]);
        let local = Local::start().await;
        local.put_intel(&root.collateral(NOW));
        let desk = Desk {
            evidence: Evidence::detect(&quote).expect("a quote"),
            given: Endorsements::none(),
            anchors: TrustAnchors::hardware().with_simulated_root(root.root_der()).expect("a root"),
            exceptions: Exceptions::none(),
        };
        Self { root, local, desk, cache: tempfile::tempdir().expect("a folder") }
    }

    /// Both documents with this evaluation number, genuinely signed at `now`.
    fn collateral(&self, number: u32, now: UnixTime) -> Vec<u8> {
        let Documents { tcb_info, qe_identity, root_ca_crl, pck_crl } = self.root.documents(now);
        let numbered = |text: String| {
            let changed = text
                .replace(r#""tcbEvaluationDataNumber":1"#, &format!(r#""tcbEvaluationDataNumber":{number}"#));
            assert!(changed != text || number == 1);
            changed
        };
        let (tcb_info, qe_identity) = (numbered(tcb_info), numbered(qe_identity));
        self.root.endorse(&Documents { tcb_info, qe_identity, root_ca_crl, pck_crl })
    }

    fn files(&self) -> Vec<PathBuf> {
        let folder = |path: &Path| {
            let entries = std::fs::read_dir(path).into_iter().flatten();
            entries.map(|entry| entry.expect("an entry").path()).collect::<Vec<_>>()
        };
        let mut files = folder(&self.cache.path().join("intel"));
        files.sort();
        files
    }
}

fn all(source: &Source) -> Vec<String> {
    let what = [
        "TDX TCB info of 53494d544458",
        "TDX QE identity",
        "revocation list of the PCK platform CA",
        "revocation list of Intel's root",
    ];
    what.map(|what| format!("{what}: {source:?}")).to_vec()
}

#[tokio::test]
async fn everything_missing_is_fetched_once_and_verifies() {
    let world = World::new().await;
    let (gathered, result) = world.desk.run(world.local.services(), world.cache.path(), NOW).await;
    assert_eq!(told(&gathered), all(&Source::Fetched));
    let genuine = result.unwrap_or_else(|refusal| panic!("{refusal}"));
    assert!(genuine.simulated());
    let mut requests = world.local.requests();
    requests.sort();
    let mut expected = [TCB, QE, PCK_CRL, ROOT_CRL].map(|path| format!("GET {path}"));
    expected.sort();
    assert_eq!(requests, expected);

    let (gathered, result) = world.desk.run(world.local.services(), world.cache.path(), later(0)).await;
    assert_eq!(told(&gathered), all(&Source::Cached));
    assert!(result.is_ok());
    assert_eq!(world.local.requests(), Vec::<String>::new(), "the second run asks nobody");

    world.local.put_intel(&world.root.collateral(later(2)));
    let (gathered, result) = world.desk.run(world.local.services(), world.cache.path(), later(2)).await;
    assert_eq!(told(&gathered), all(&Source::Fetched), "after a day it asks again");
    assert!(result.is_ok());
}

#[tokio::test]
async fn what_is_at_hand_is_not_asked_for() {
    let mut world = World::new().await;
    world.desk.given = Endorsements::from_files([world.root.collateral(NOW)]).expect("collateral");
    let (gathered, result) = world.desk.run(world.local.services(), world.cache.path(), NOW).await;
    assert_eq!((gathered.outcomes.len(), gathered.floor), (0, 1));
    assert!(result.is_ok() && world.local.requests().is_empty());

    world.local.put_intel(&world.root.collateral(later(40)));
    let (gathered, result) = world.desk.run(world.local.services(), world.cache.path(), later(40)).await;
    assert_eq!(told(&gathered), all(&Source::Fetched), "it ran out: the fetched one takes its place");
    assert!(result.is_ok());
}

#[tokio::test]
async fn a_bundle_without_collateral_gets_it_and_one_with_it_needs_nothing() {
    let mut world = World::new().await;
    let statement = kit::statement();
    let quote = Emulator::launch(&world.root, b"binary", &[]).quote(&statement::report_data(&statement));
    let bare = Bundle { statement, tee: Tee::Tdx, quote, gpu: vec![], event_log: None, endorsements: vec![] };
    world.desk.evidence = Evidence::Bundle(bare.clone());
    let (gathered, result) = world.desk.run(world.local.services(), world.cache.path(), NOW).await;
    assert_eq!(told(&gathered), all(&Source::Fetched));
    assert!(result.is_ok());

    let whole =
        Bundle { endorsements: vec![Endorsement::IntelCollateral(world.root.collateral(NOW))], ..bare };
    world.desk.evidence = Evidence::Bundle(whole);
    let (gathered, result) = world.desk.run(nowhere(), world.cache.path(), NOW).await;
    assert!(gathered.outcomes.is_empty() && gathered.endorsements == Endorsements::none());
    assert!(result.is_ok());
}

#[tokio::test]
async fn a_bundle_is_completed_once_and_verifies_offline_from_then_on() {
    let mut world = World::new().await;
    let statement = kit::statement();
    let quote = Emulator::launch(&world.root, b"binary", &[]).quote(&statement::report_data(&statement));
    let bare = Bundle { statement, tee: Tee::Tdx, quote, gpu: vec![], event_log: None, endorsements: vec![] };
    let fetcher = world.desk.fetcher(world.local.services(), world.cache.path(), NOW);
    let (whole, outcomes) = fetcher.complete(bare.clone(), &world.desk.anchors, NOW).await;
    assert_eq!((outcomes.len(), whole.endorsements.len()), (4, 1));
    assert_eq!((&whole.statement, &whole.quote), (&bare.statement, &bare.quote));

    // As it goes over the wire, with nobody to ask.
    let sent = Bundle::decode(&whole.encode()).expect("a bundle");
    world.desk.evidence = Evidence::Bundle(sent.clone());
    let elsewhere = tempfile::tempdir().expect("a folder");
    let (gathered, result) = world.desk.run(nowhere(), elsewhere.path(), NOW).await;
    assert!(gathered.outcomes.is_empty() && result.is_ok());

    world.local.requests();
    let (again, outcomes) = fetcher.complete(sent.clone(), &world.desk.anchors, NOW).await;
    assert!(outcomes.is_empty() && again == sent && world.local.requests().is_empty(), "nothing is lacking");

    let alone = world.desk.fetcher(nowhere(), elsewhere.path(), NOW);
    let (same, outcomes) = alone.complete(bare.clone(), &world.desk.anchors, NOW).await;
    assert_eq!((same, outcomes.len()), (bare, 4), "what cannot be had is missing still, and that is said");
}

#[tokio::test]
async fn the_cache_serves_while_the_services_are_down_within_the_dates() {
    let world = World::new().await;
    world.desk.run(world.local.services(), world.cache.path(), NOW).await.1.expect("genuine");

    let (gathered, result) = world.desk.run(nowhere(), world.cache.path(), later(29)).await;
    assert_eq!(gathered.outcomes.len(), 4);
    for outcome in &gathered.outcomes {
        assert!(matches!(outcome.source, Source::Kept(FetchError::Unreachable(_))), "{outcome:?}");
    }
    assert!(result.is_ok(), "in date for 30 days");

    let fetcher = world.desk.fetcher(world.local.services(), world.cache.path(), later(29)).offline(true);
    world.local.requests();
    let (gathered, result) = world.desk.run_with(&fetcher, later(29)).await;
    assert_eq!(told(&gathered), all(&Source::Kept(FetchError::Offline)));
    assert!(result.is_ok() && world.local.requests().is_empty(), "nobody was asked");

    let (gathered, result) = world.desk.run(nowhere(), world.cache.path(), later(31)).await;
    for outcome in &gathered.outcomes {
        let Source::Expired(until, FetchError::Unreachable(_)) = &outcome.source else {
            panic!("{outcome:?}")
        };
        assert_eq!(*until, later(30));
    }
    let refusal = result.expect_err("past its dates");
    assert_eq!((refusal.check, refusal.kind), ("tdx.validity", RefusalKind::Unavailable));
    for name in ["TCB info", "QE identity", "root CRL", "PCK CRL", &later(30).to_string()] {
        assert!(refusal.got.contains(name), "{name} in {}", refusal.got);
    }
}

#[tokio::test]
async fn without_cache_and_services_the_verdict_says_what_is_missing() {
    let world = World::new().await;
    let (gathered, result) = world.desk.run(nowhere(), world.cache.path(), NOW).await;
    for outcome in &gathered.outcomes {
        assert!(matches!(outcome.source, Source::Missing(FetchError::Unreachable(_))), "{outcome:?}");
    }
    let refusal = result.expect_err("no collateral");
    assert_eq!((refusal.check, refusal.kind), ("tdx.collateral", RefusalKind::Unavailable));
    assert!(world.files().is_empty(), "that something is not there is not kept");
    assert!(world.desk.run(world.local.services(), world.cache.path(), NOW).await.1.is_ok());
}

/// A fetcher whose waits can be read afterwards.
fn patient(world: &World, limits: Limits) -> (Fetcher, std::sync::Arc<TestClock>) {
    let clock = TestClock::at(NOW);
    let fetcher = Fetcher::new(world.local.services(), Cache::at(world.cache.path()), limits);
    (fetcher.expect("a client").with_clock(clock.clone()), clock)
}

#[tokio::test]
async fn a_service_in_trouble_is_asked_again_after_a_pause() {
    let world = World::new().await;
    let root_crl = hex::decode(
        serde_json::from_slice::<serde_json::Value>(&world.root.collateral(NOW)).expect("JSON")["root_ca_crl"]
            .as_str()
            .expect("hex"),
    )
    .expect("hex");
    let good = Reply::Good(root_crl);
    for (before, waits) in [
        (vec![Reply::TooMany("7")], vec![7]),
        (vec![Reply::TooMany("")], vec![2]),
        (vec![Reply::TooMany("Wed, 21 Oct 2026 07:28:00 GMT")], vec![2]),
        (vec![Reply::TooMany("0")], vec![2]),
        (vec![Reply::Status(500), Reply::Status(503), Reply::TooMany("1")], vec![2, 4, 8]),
    ] {
        std::fs::remove_file(world.cache.path().join("intel/rootcrl")).ok();
        world.local.put(ROOT_CRL, before.into_iter().chain([good.clone()]));
        let (fetcher, clock) = patient(&world, Limits::default());
        let (gathered, result) = world.desk.run_with(&fetcher, NOW).await;
        assert_eq!(gathered.outcomes[3].source, Source::Fetched);
        assert!(result.is_ok());
        assert_eq!(clock.slept(), waits);
    }
}

#[tokio::test]
async fn patience_has_an_end() {
    let world = World::new().await;
    for (reply, waits, why) in [
        (Reply::Status(500), vec![2, 4, 8], FetchError::Status(500)),
        (Reply::TooMany(""), vec![2, 4, 8], FetchError::TooMany(None)),
        (Reply::TooMany("3600"), vec![], FetchError::TooMany(Some(Duration::from_secs(3600)))),
        (Reply::Status(403), vec![], FetchError::Status(403)),
        (Reply::Status(404), vec![], FetchError::NotFound),
    ] {
        world.local.put(ROOT_CRL, [reply]);
        let (fetcher, clock) = patient(&world, Limits::default());
        let (gathered, result) = world.desk.run_with(&fetcher, NOW).await;
        assert_eq!(gathered.outcomes[3].source, Source::Missing(why));
        assert_eq!(result.expect_err("no root CRL").kind, RefusalKind::Unavailable);
        assert_eq!(clock.slept(), waits);
    }
}

#[tokio::test]
async fn what_does_not_answer_the_question_is_neither_used_nor_kept() {
    let world = World::new().await;
    let json: serde_json::Value = serde_json::from_slice(&world.root.collateral(NOW)).expect("JSON");
    let chain = local::encoded(&json["tcb_info_issuer_chain"]);
    let body = |text: &str| format!(r#"{{"tcbInfo":{text},"signature":"{}"}}"#, "00".repeat(64)).into_bytes();
    let text = json["tcb_info"].as_str().expect("text");
    let pck_crl = hex::decode(json["pck_crl"].as_str().expect("hex")).expect("hex");
    let beside = |body: Vec<u8>| Reply::Beside("TCB-Info-Issuer-Chain", chain.clone(), body);
    type Test = fn(&FetchError) -> bool;
    let unusable: Test = |why| matches!(why, FetchError::Unusable(_));
    let too_long: Test = |why| *why == FetchError::TooLong(512 * 1024);
    let rows: Vec<(&str, &str, Reply, Test)> = vec![
        ("garbage", TCB, beside(b"<html>log in</html>".to_vec()), unusable),
        ("nothing", TCB, beside(vec![]), unusable),
        ("no chain", TCB, Reply::Good(body(text)), unusable),
        (
            "a chain that is none",
            TCB,
            Reply::Beside("TCB-Info-Issuer-Chain", "%zz".into(), body(text)),
            unusable,
        ),
        ("another family", TCB, beside(body(&text.replace("53494d544458", "00906ed50000"))), unusable),
        ("another kind", TCB, beside(body(&text.replace(r#""id":"TDX""#, r#""id":"SGX""#))), unusable),
        ("garbage", ROOT_CRL, Reply::Good(b"rubbish".to_vec()), unusable),
        ("another's list", ROOT_CRL, Reply::Good(pck_crl), unusable),
        ("too long, as it says", ROOT_CRL, Reply::Flood(600 * 1024, true), too_long),
        ("too long, without a word", ROOT_CRL, Reply::Flood(600 * 1024, false), too_long),
        ("elsewhere", ROOT_CRL, Reply::Redirect("http://127.0.0.1:9/IntelSGXRootCA.der"), |why| {
            *why == FetchError::Redirected("http://127.0.0.1:9/IntelSGXRootCA.der".into())
        }),
    ];
    for (name, path, reply, is) in rows {
        std::fs::remove_dir_all(world.cache.path().join("intel")).ok();
        world.local.put_intel(&world.root.collateral(NOW));
        world.local.put(path, [reply]);
        let (gathered, result) = world.desk.run(world.local.services(), world.cache.path(), NOW).await;
        let troubles: Vec<&FetchError> =
            gathered.outcomes.iter().filter_map(|o| o.source.trouble()).collect();
        assert!(matches!(troubles[..], [why] if is(why)), "{name}: {:?}", told(&gathered));
        assert!(!troubles[0].remedy().is_empty());
        assert_eq!(result.expect_err(name).kind, RefusalKind::Unavailable);
        assert_eq!(world.files().len(), 3, "{name}: the others are kept");
    }
}

#[tokio::test]
async fn a_service_that_never_ends_its_answer_is_left() {
    let world = World::new().await;
    world.desk.run(world.local.services(), world.cache.path(), NOW).await.1.expect("genuine");
    // The rest comes from the cache, so that no other request has so little time.
    std::fs::remove_file(world.cache.path().join("intel/rootcrl")).expect("it is there");
    world.local.put(ROOT_CRL, [Reply::Hang]);
    let limits = Limits { request: Duration::from_millis(100), ..Limits::default() };
    let (fetcher, clock) = patient(&world, limits);
    let (gathered, _) = world.desk.run_with(&fetcher, NOW).await;
    assert_eq!(
        gathered.outcomes[3].source,
        Source::Missing(FetchError::TimedOut(Duration::from_millis(100)))
    );
    assert_eq!(gathered.outcomes[0].source, Source::Cached);
    assert!(clock.slept().is_empty(), "a timeout was long enough");
}

#[tokio::test]
async fn a_service_that_is_down_is_asked_once() {
    let world = World::new().await;
    world.local.put(TCB, [Reply::TooMany("3600")]);
    let (gathered, _) = world.desk.run(world.local.services(), world.cache.path(), NOW).await;
    let too_many = Source::Missing(FetchError::TooMany(Some(Duration::from_secs(3600))));
    assert_eq!(
        gathered.outcomes.iter().filter(|outcome| outcome.source == too_many).count(),
        3,
        "of one service"
    );
    assert_eq!(world.local.requests().iter().filter(|request| !request.ends_with(ROOT_CRL)).count(), 1);
}

#[tokio::test]
async fn a_damaged_file_is_fetched_again() {
    let world = World::new().await;
    world.desk.run(world.local.services(), world.cache.path(), NOW).await.1.expect("genuine");
    world.local.requests();
    let files = world.files();
    assert_eq!(files.len(), 4);
    for path in &files {
        let whole = std::fs::read(path).expect("it is there");
        let step = (whole.len() / 24).max(1);
        let flipped = (0..whole.len()).step_by(step).map(|at| {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            bytes
        });
        let cut = [0, 1, whole.len() / 2, whole.len() - 1].map(|length| whole[..length].to_vec());
        for bytes in flipped.chain(cut).chain([[&whole[..], b"x"].concat()]) {
            std::fs::write(path, &bytes).expect("it can be written");
            let (gathered, result) = world.desk.run(world.local.services(), world.cache.path(), NOW).await;
            assert!(result.is_ok(), "{}", path.display());
            let requests = world.local.requests().len();
            let fetched = gathered.outcomes.iter().filter(|o| o.source == Source::Fetched).count();
            assert_eq!(requests, fetched);
            // The words for people, and the dates beside the document, may differ: nothing depends on them.
            assert!(
                requests == 1 || (requests == 0 && only_words_differ(&whole, &bytes)),
                "{}",
                path.display()
            );
        }
        std::fs::write(path, &whole).expect("it can be written");
    }
}

/// Everything but the description, the origin and the times of the first line is the same.
fn only_words_differ(a: &[u8], b: &[u8]) -> bool {
    let read = |bytes: &[u8]| {
        let end = bytes.iter().position(|byte| *byte == b'\n')?;
        let head: serde_json::Value = serde_json::from_slice(&bytes[..end]).ok()?;
        Some((head["chain"].clone(), head["sha256"].clone(), bytes[end..].to_vec()))
    };
    read(a).is_some() && read(a) == read(b)
}

#[tokio::test]
async fn older_numbers_than_were_seen_are_refused() {
    let world = World::new().await;
    world.local.put_intel(&world.collateral(17, NOW));
    let (gathered, result) = world.desk.run(world.local.services(), world.cache.path(), NOW).await;
    assert_eq!((gathered.floor, result.is_ok()), (17, true));

    // The service goes back: what is kept is used, and stays.
    let old = FetchError::Rollback { got: 16, mark: 17 };
    world.local.put_intel(&world.collateral(16, later(2)));
    let (gathered, result) = world.desk.run(world.local.services(), world.cache.path(), later(2)).await;
    assert_eq!(gathered.outcomes[0].source, Source::Kept(old.clone()));
    assert_eq!(gathered.outcomes[1].source, Source::Kept(old.clone()));
    assert_eq!((gathered.floor, result.expect("the kept one").platform().evaluation_number), (17, Some(17)));

    // Nothing is kept but the mark: the verdict names the rollback.
    std::fs::remove_dir_all(world.cache.path().join("intel")).expect("it is there");
    let (gathered, result) = world.desk.run(world.local.services(), world.cache.path(), later(2)).await;
    assert_eq!(gathered.outcomes[0].source, Source::RolledBack(old));
    let refusal = result.expect_err("a rollback");
    assert_eq!((refusal.check, refusal.kind), ("tdx.rollback", RefusalKind::Rejected));
    assert_eq!(world.files().len(), 2, "the lists alone are kept");

    world.local.put_intel(&world.collateral(18, later(2)));
    let (gathered, result) = world.desk.run(world.local.services(), world.cache.path(), later(2)).await;
    assert_eq!((gathered.floor, result.is_ok()), (18, true));
}

#[tokio::test]
async fn an_old_file_in_the_cache_is_no_way_around_the_mark() {
    let world = World::new().await;
    world.desk.run(world.local.services(), world.cache.path(), NOW).await.1.expect("genuine");
    let Evidence::TdxQuote(quote) = &world.desk.evidence else { panic!("a quote") };
    let cache = Cache::at(world.cache.path());
    let mark = EvaluationMark { number: 5, from: NOW };
    cache.raise_mark(&intel_needs(quote).expect("a quote"), mark).expect("it can be written");
    world.local.put_intel(&world.collateral(5, NOW));
    let (gathered, result) = world.desk.run(world.local.services(), world.cache.path(), NOW).await;
    assert_eq!(gathered.outcomes[0].source, Source::Fetched, "the one that is kept does not count");
    assert!(result.is_ok());
}

#[tokio::test]
async fn old_evidence_verifies_as_of_its_own_time_whatever_was_seen_since() {
    let mut world = World::new().await;
    world.local.put_intel(&world.collateral(17, later(100)));
    let (gathered, result) = world.desk.run(world.local.services(), world.cache.path(), later(100)).await;
    assert_eq!((gathered.floor, result.is_ok()), (17, true));
    world.desk.given = Endorsements::from_files([world.collateral(12, NOW)]).expect("collateral");
    let (gathered, result) = world.desk.run(nowhere(), world.cache.path(), later(5)).await;
    assert_eq!((gathered.floor, result.is_ok()), (0, true));
    assert!(gathered.outcomes.is_empty(), "what came with it is enough");
}

#[tokio::test]
async fn only_signatures_raise_a_mark() {
    let world = World::new().await;
    let genuine = world.collateral(3, NOW);
    let forged = String::from_utf8(world.collateral(3, NOW)).expect("text");
    let forged = forged.replace(r#"tcbEvaluationDataNumber\":3"#, r#"tcbEvaluationDataNumber\":4000000000"#);
    world.local.put_intel(forged.as_bytes());
    let (gathered, result) = world.desk.run(world.local.services(), world.cache.path(), NOW).await;
    assert_eq!(gathered.floor, 0);
    assert_eq!(result.expect_err("forged").kind, RefusalKind::Signature);

    // Nor do those of a root that nobody named.
    world.local.put_intel(&genuine);
    std::fs::remove_dir_all(world.cache.path().join("intel")).expect("it is there");
    let stranger = Desk {
        evidence: world.desk.evidence.clone(),
        given: Endorsements::none(),
        anchors: TrustAnchors::hardware(),
        exceptions: Exceptions::none(),
    };
    let (gathered, result) = stranger.run(world.local.services(), world.cache.path(), NOW).await;
    assert_eq!((gathered.floor, result.expect_err("unknown").check), (0, "tdx.root"));
    let (gathered, _) = world.desk.run(world.local.services(), world.cache.path(), NOW).await;
    assert_eq!(gathered.floor, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_at_once_share_one_cache() {
    let world = World::new().await;
    let fetchers: Vec<_> =
        (0..8).map(|_| world.desk.fetcher(world.local.services(), world.cache.path(), NOW)).collect();
    for _ in 0..4 {
        let runs = fetchers.iter().map(|fetcher| world.desk.run_with(fetcher, NOW));
        for (_, result) in futures_util::future::join_all(runs).await {
            assert!(result.is_ok());
        }
        for path in world.files() {
            let name = path.file_name().expect("a name").to_string_lossy();
            assert!(!name.starts_with('.'), "{name} was left over");
        }
        std::fs::remove_dir_all(world.cache.path().join("intel")).expect("it is there");
    }
}
