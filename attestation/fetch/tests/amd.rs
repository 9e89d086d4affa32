//! An SNP report without its VCEK: certificate and revocation list come from AMD's key service.

mod local;

#[path = "../../tests/kit/mod.rs"]
mod kit;

use cocoon_attestation::snp::{KeyKind, Product, amd_needs};
use cocoon_attestation::{
    Endorsement, Endorsements, Evidence, Exceptions, RefusalKind, Status, TrustAnchors, UnixTime,
};
use cocoon_fetch::{FetchError, Source};
use kit::amd::{Guest, NOW};
use kit::azure::{Azure, Below};
use local::{Desk, Local, Reply, nowhere, told};

const AT: UnixTime = UnixTime(NOW);

/// A report, and what AMD has of it.
struct Machine {
    desk: Desk,
    report: Vec<u8>,
    vek: Vec<u8>,
    list: Vec<u8>,
}

impl Machine {
    /// ARK and ASK of a look-alike are not pinned, so they are given.
    fn of(mut guest: Guest) -> Self {
        if guest.crls.is_empty() {
            guest.crls.push(guest.crl());
        }
        let (report, all, anchors) = guest.issue();
        let desk = desk(Evidence::detect(&report).expect("a report"), &all, anchors);
        let (vek, list) = parts(&report, &all);
        Self { desk, report, vek, list }
    }

    fn path(&self, product: Product) -> String {
        amd_needs(&self.report).expect("a report").vcek_path(product).expect("a chip that is named")
    }
}

/// The look-alike's authorities alone are given.
fn desk(evidence: Evidence, all: &Endorsements, anchors: TrustAnchors) -> Desk {
    let mut given = Endorsements::none();
    for item in all.items() {
        if matches!(item, Endorsement::Certificate(der) if !is_vek(der)) {
            given.push(item.clone());
        }
    }
    let exceptions = Exceptions::parse(["snp:milan", "profile:azure"]).expect("known names");
    Desk { evidence, given, anchors, exceptions }
}

/// AMD's extensions, 1.3.6.1.4.1.3704.1.
fn is_vek(der: &[u8]) -> bool {
    der.windows(8).any(|window| window == [0x2b, 6, 1, 4, 1, 0x9c, 0x78, 1])
}

fn parts(report: &[u8], all: &Endorsements) -> (Vec<u8>, Vec<u8>) {
    let (mut vek, mut list) = (Vec::new(), Vec::new());
    for item in all.items() {
        match item {
            Endorsement::Certificate(der) if is_vek(der) => vek.clone_from(der),
            Endorsement::Crl(der) => list.clone_from(der),
            _ => {}
        }
    }
    assert!(!report.is_empty() && !vek.is_empty() && !list.is_empty());
    (vek, list)
}

fn status(result: &Result<cocoon_attestation::Genuine, cocoon_attestation::Refusal>, id: &str) -> Status {
    let genuine = result.as_ref().unwrap_or_else(|refusal| panic!("{refusal}"));
    genuine.checks().iter().find(|check| check.id == id).expect("a check").status
}

#[tokio::test]
async fn a_vcek_and_its_products_list_are_fetched_and_kept() {
    for product in Product::ALL {
        let machine = Machine::of(Guest::new(product, KeyKind::Vcek, 3));
        let (local, cache) = (Local::start().await, tempfile::tempdir().expect("a folder"));
        local.put(&machine.path(product), [Reply::Good(machine.vek.clone())]);
        local.put(&format!("/vcek/v1/{}/crl", product.name()), [Reply::Good(machine.list.clone())]);
        let (gathered, result) = machine.desk.run(local.services(), cache.path(), AT).await;
        assert!(gathered.outcomes.iter().all(|outcome| outcome.source == Source::Fetched));
        assert_eq!((gathered.outcomes.len(), local.requests().len()), (2, 2));
        assert_eq!(status(&result, "snp.crl"), Status::Pass);

        let (gathered, result) = machine.desk.run(local.services(), cache.path(), AT).await;
        assert!(gathered.outcomes.iter().all(|outcome| outcome.source == Source::Cached));
        assert!(local.requests().is_empty() && result.is_ok());

        // The list is asked for again after a day, the certificate never; then both serve while AMD is down.
        let next = UnixTime(NOW + 5 * 86_400);
        let (gathered, result) = machine.desk.run(nowhere(), cache.path(), next).await;
        assert_eq!(gathered.outcomes[0].source, Source::Cached);
        assert!(matches!(gathered.outcomes[1].source, Source::Kept(FetchError::Unreachable(_))));
        assert_eq!(status(&result, "snp.crl"), Status::Pass);

        let after = UnixTime(NOW + 31 * 86_400);
        let (gathered, result) = machine.desk.run(nowhere(), cache.path(), after).await;
        assert!(matches!(gathered.outcomes[1].source, Source::Expired(_, FetchError::Unreachable(_))));
        let refusal = result.expect_err("the list ran out");
        assert_eq!((refusal.check, refusal.kind), ("snp.crl", RefusalKind::Unavailable));
    }
}

#[tokio::test]
async fn a_report_that_does_not_name_its_processor_is_looked_up_among_both() {
    let machine = Machine::of(Guest::new(Product::Genoa, KeyKind::Vcek, 2));
    let (local, cache) = (Local::start().await, tempfile::tempdir().expect("a folder"));
    local.put(&machine.path(Product::Genoa), [Reply::Good(machine.vek.clone())]);
    local.put("/vcek/v1/Genoa/crl", [Reply::Good(machine.list.clone())]);
    let (gathered, result) = machine.desk.run(local.services(), cache.path(), AT).await;
    assert_eq!(
        told(&gathered),
        ["VCEK of the chip (Milan or Genoa): Fetched", "VCEK revocation list of Genoa: Fetched"]
    );
    let expected =
        [machine.path(Product::Milan), machine.path(Product::Genoa), "/vcek/v1/Genoa/crl".to_owned()];
    assert_eq!(local.requests(), expected.map(|path| format!("GET {path}")));
    assert_eq!(status(&result, "snp.crl"), Status::Pass);
}

#[tokio::test]
async fn another_chips_certificate_is_not_taken() {
    let machine = Machine::of(Guest::new(Product::Genoa, KeyKind::Vcek, 3));
    let mut other = Guest::new(Product::Genoa, KeyKind::Vcek, 3);
    other.extensions.set(&[4], vec![0x11; 64]);
    let other = Machine::of(other);
    let (local, cache) = (Local::start().await, tempfile::tempdir().expect("a folder"));
    local.put(&machine.path(Product::Genoa), [Reply::Good(other.vek)]);
    let (gathered, result) = machine.desk.run(local.services(), cache.path(), AT).await;
    assert!(
        matches!(gathered.outcomes[0].source, Source::Missing(FetchError::Unusable(_))),
        "{:?}",
        told(&gathered)
    );
    assert_eq!(result.expect_err("no VCEK").check, "snp.vek");
}

#[tokio::test]
async fn a_revocation_that_is_fetched_counts() {
    let mut guest = Guest::new(Product::Genoa, KeyKind::Vcek, 3);
    let mut list = guest.crl();
    list.revoked = vec![guest.ask.serial];
    guest.crls.push(list);
    let machine = Machine::of(guest);
    let (local, cache) = (Local::start().await, tempfile::tempdir().expect("a folder"));
    local.put(&machine.path(Product::Genoa), [Reply::Good(machine.vek.clone())]);
    local.put("/vcek/v1/Genoa/crl", [Reply::Good(machine.list.clone())]);
    let refusal = machine.desk.run(local.services(), cache.path(), AT).await.1.expect_err("revoked");
    assert_eq!((refusal.check, refusal.kind), ("snp.crl", RefusalKind::Rejected));
}

#[tokio::test]
async fn nobody_is_asked_for_what_nobody_gives_out() {
    let mut masked = Guest::new(Product::Genoa, KeyKind::Vcek, 3);
    masked.put(0x1a0, &[0; 64]);
    for (guest, word) in [(Guest::new(Product::Genoa, KeyKind::Vlek, 3), "cloud"), (masked, "which chip")] {
        let machine = Machine::of(guest);
        let (local, cache) = (Local::start().await, tempfile::tempdir().expect("a folder"));
        let (gathered, result) = machine.desk.run(local.services(), cache.path(), AT).await;
        let Source::Missing(why @ FetchError::NotOffered(_)) = &gathered.outcomes[0].source else {
            panic!("{:?}", told(&gathered))
        };
        assert!(why.to_string().contains(word), "{why}");
        assert_eq!(result.expect_err("no certificate").check, "snp.vek");
        assert!(local.requests().iter().all(|request| request.ends_with("/crl")));
    }
}

#[tokio::test]
async fn azures_evidence_gets_the_list_that_is_not_in_it() {
    let guest = Guest::new(Product::Genoa, KeyKind::Vcek, 3);
    let list = Machine::of(guest.clone()).list;
    let (json, all, anchors) = Azure::new(Below::Snp(Box::new(guest))).issue();
    let desk = desk(Evidence::detect(&json).expect("Azure's"), &all, anchors);
    let (local, cache) = (Local::start().await, tempfile::tempdir().expect("a folder"));
    local.put("/vcek/v1/Genoa/crl", [Reply::Good(list)]);
    let (gathered, result) = desk.run(local.services(), cache.path(), AT).await;
    assert_eq!(told(&gathered), ["VCEK revocation list of Genoa: Fetched"]);
    assert_eq!(status(&result, "snp.crl"), Status::Pass);
}
