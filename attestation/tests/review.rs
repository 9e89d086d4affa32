//! What a reviewer found: each was accepted and must not be, or was refused and is genuine.

mod common;
mod kit;
#[path = "kit/nvidia/mod.rs"]
mod nvidia;

use cocoon_attestation::snp::{KeyKind, Product};
use cocoon_attestation::statement::report_data;
use cocoon_attestation::{
    Bundle, Context, Endorsement, Endorsements, Evidence, Exceptions, Genuine, GpuRecord, KnownBlock,
    PlatformId, Platforms, Policy, Refusal, RefusalKind, SnpRules, TcbFloor, TcbFloors, Tee, UnixTime,
    verify,
};
use common::{NOW, Platform, collateral_of, context, policy};
use kit::amd::Guest;

#[test]
fn what_is_tolerated_behind_azures_paravisor_is_not_trusted_elsewhere() {
    let platform = Platform::new();
    let bundle = platform.bundle_of_td(|td| td.attributes &= !(1 << 28));
    let azure = Exceptions::none().with("profile:azure").expect("a known name");
    let evidence = Evidence::Bundle(bundle);
    let genuine = verify(&evidence, &Endorsements::none(), &platform.anchors(), &azure, NOW);
    let mut lenient = policy();
    lenient.exceptions.push("profile:azure".into());
    let refusal = lenient.appraise(genuine.expect("tolerated by name"), &context()).expect_err("not Azure's");
    assert_eq!(refusal.failed().collect::<Vec<_>>(), ["policy.attributes"]);
}

#[test]
fn what_ran_out_between_verification_and_appraisal_is_not_trusted() {
    let platform = Platform::new();
    let genuine = platform.verify(&platform.bundle()).expect("genuine");
    let now = UnixTime(genuine.platform().good_until.0 + 1);
    let beacon = KnownBlock { time: now, ..context().beacon.expect("a block") };
    let later = Context { now, beacon: Some(beacon), nonce: None };
    let refusal = policy().appraise(genuine, &later).expect_err("its collateral has run out");
    assert_eq!((refusal.check, refusal.kind), ("freshness", RefusalKind::Unavailable));
}

/// A guest under a cloud's key, which may hide its chip.
fn vlek_guest(chip: [u8; 64]) -> Genuine {
    let mut guest = Guest::new(Product::Genoa, KeyKind::Vlek, 5);
    let statement = common::statement().encode();
    guest.put(0x50, &report_data(&statement));
    guest.put(0x1a0, &chip);
    let (quote, endorsements, anchors) = guest.issue();
    let endorsements = endorsements.items().to_vec();
    let bundle = Bundle { statement, tee: Tee::Snp, quote, gpu: vec![], event_log: None, endorsements };
    let now = UnixTime(kit::amd::NOW);
    verify(&Evidence::Bundle(bundle), &Endorsements::none(), &anchors, &Exceptions::none(), now)
        .expect("genuine")
}

#[test]
fn a_machine_that_hides_its_name_is_not_taken_where_names_count() {
    let failed = |chip: [u8; 64], platforms: Platforms| -> Vec<&'static str> {
        let mut policy: Policy = policy();
        policy.platforms = platforms;
        let refusal: Refusal = policy.appraise(vlek_guest(chip), &context()).expect_err("no SNP image");
        refusal.failed().filter(|check| *check == "policy.platform").collect()
    };
    let id = |text: &str| vec![PlatformId::parse(text).expect("an id")];
    let chip = format!("chip:{}", "11".repeat(64));
    let bar = |text: &str| Platforms { only: None, bar: id(text) };
    assert_eq!(failed([0x11; 64], bar(&chip)), ["policy.platform"], "it is barred");
    assert_eq!(failed([0x22; 64], bar(&chip)), [""; 0], "another is barred");
    assert_eq!(failed([0; 64], bar(&chip)), ["policy.platform"], "it may be the barred one");
    assert_eq!(failed([0; 64], bar("ppid:11")), [""; 0], "no chip of AMD's is barred");
    assert_eq!(failed([0; 64], Platforms::default()), [""; 0], "names do not count");
    assert_eq!(failed([0; 64], Platforms { only: Some(id(&chip)), bar: vec![] }), ["policy.platform"]);
}

#[test]
fn collateral_may_have_the_line_ends_of_other_systems() {
    let platform = Platform::new();
    let bundle = platform.bundle();
    let text = String::from_utf8(collateral_of(&bundle).to_vec()).expect("JSON");
    let loose = text.replace("-----\\n", "-----\\r\\n").replace("pck_crl\":\"", "pck_crl\":\"\\n");
    assert_ne!(loose, text);
    let with = |text: &str| {
        let files = Endorsements::from_files([text.as_bytes().to_vec()]).expect("JSON");
        let evidence = Evidence::TdxQuote(bundle.quote.clone());
        verify(&evidence, &files, &platform.anchors(), &Exceptions::none(), NOW)
    };
    // Lines inside certificates end in CR LF too.
    let loose = loose.replace("\\r\\n", "\\n").replace("\\n", "\\r\\n");
    with(&text).expect("as it is");
    with(&loose).expect("the same certificates");
    assert_eq!(
        cocoon_attestation::canonical_collateral(loose.as_bytes()),
        cocoon_attestation::canonical_collateral(text.as_bytes())
    );
    let mut other = bundle.clone();
    other.endorsements = vec![Endorsement::IntelCollateral(loose.into_bytes())];
    platform.verify(&other).expect_err("a bundle has one form");
}

#[test]
fn a_certificate_may_have_words_before_it() {
    let platform = Platform::new();
    let bundle = platform.bundle();
    let text = String::from_utf8(collateral_of(&bundle).to_vec()).expect("JSON");
    let start = text.find("-----BEGIN").expect("a chain");
    let end = text.find("-----END CERTIFICATE-----").expect("its end") + 25;
    let pem = text[start..end].replace("\\n", "\r\n");
    let plain = Endorsement::sort(pem.as_bytes()).expect("PEM");
    let file = format!("subject=CN = SEV-VCEK\r\nissuer=CN = SEV-Genoa\r\n{pem}\r\n\0");
    assert_eq!(Endorsement::sort(file.as_bytes()).expect("PEM with words"), plain);
}

#[test]
fn evidence_may_be_hex_of_any_kind() {
    let platform = Platform::new();
    let (report, _, _) = Guest::new(Product::Turin, KeyKind::Vcek, 5).issue();
    let gpu = GpuRecord::decode(&nvidia::DevicePlan::gpu(0).record()).expect("a record").report;
    for binary in [platform.bundle().quote, report, gpu] {
        let expected = Evidence::detect(&binary).expect("binary");
        let hex = hex::encode(&binary);
        let lines: Vec<String> =
            hex.as_bytes().chunks(64).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
        for text in [
            hex.clone(),
            format!("{hex}\n"),
            format!("0x{hex}"),
            hex.to_uppercase(),
            lines.join("\n"),
            lines.join("\r\n"),
        ] {
            assert_eq!(Evidence::detect(text.as_bytes()).expect("hex"), expected, "{}", &text[..8]);
        }
        Evidence::detect(&hex.as_bytes()[1..]).expect_err("half a byte is missing");
    }
    let endless = vec![b'0'; 64 << 20];
    Evidence::detect(&endless).expect_err("too long");
}

#[test]
fn a_floor_for_turin_names_every_part() {
    let floor = TcbFloor { fmc: None, boot_loader: 1, tee: 0, snp: 4, microcode: 81 };
    let with = |fmc| {
        let mut policy = policy();
        let tcb = TcbFloors { turin: Some(TcbFloor { fmc, ..floor }), ..TcbFloors::default() };
        policy.snp = Some(SnpRules::with_floors(tcb));
        Policy::from_toml(&policy.to_toml()).map(drop)
    };
    with(Some(0)).expect("free, in so many words");
    with(None).expect_err("left out is not free");
}
