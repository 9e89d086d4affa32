//! Policies about SEV-SNP guests, Azure's paravisor and GPUs: a good row, and bad rows that each change one thing.

mod kit;
#[path = "kit/nvidia/mod.rs"]
mod nvidia;

use cocoon_attestation::snp::{KeyKind, Product};
use cocoon_attestation::statement::{
    Beacon, Freshness, Keys, ModelIdentity, SEAL_KEY, gpu_nonce, report_data,
};
use cocoon_attestation::{
    AzureReference, Bundle, Context, Endorsement, Endorsements, Evidence, Exceptions, Floor, Genuine,
    GpuRecord, GpuRules, ImageReference, KnownBlock, Measurements, Names, Pin, Policy, Refusal, RefusalKind,
    SnpReference, SnpRules, Statement, Switch, TcbFloor, TcbFloors, TdxRules, Tee, UnixTime, Verifier,
    verify,
};
use cocoon_simulated_tee::{AttestationKey, Draft, SimulatedRoot, Td};
use kit::amd::{Guest, NOW};
use kit::azure::Azure;
use nvidia::DevicePlan;

const WEIGHTS: [u8; 32] = [7; 32];
const CONFIGURATION: [u8; 32] = [3; 32];

fn statement() -> Statement {
    Statement {
        network: -239,
        keys: Keys { seal: vec![7; SEAL_KEY], receipt: [5; 32], tls: None },
        models: vec![ModelIdentity { name: "tiny".into(), weights: WEIGHTS }],
        configuration: CONFIGURATION,
        engine: [6; 32],
        kernels: vec![],
        gpu_evidence: vec![],
        freshness: Freshness { beacon: Beacon { seqno: 41, root_hash: [4; 32] }, nonce: None, serial: 3 },
    }
}

fn context(now: UnixTime) -> Context {
    let beacon = KnownBlock { seqno: 41, root_hash: [4; 32], time: UnixTime(now.0 - 60) };
    Context { now, beacon: Some(beacon), nonce: None }
}

fn base() -> Policy {
    let mut policy = Policy::new(-239, 3_600);
    policy.models.push(WEIGHTS);
    policy
}

fn refused(result: Result<impl Sized, Refusal>) -> (&'static str, RefusalKind) {
    let refusal = result.err().expect("must be refused");
    (refusal.check, refusal.kind)
}

/// An SNP guest's bundle, verified.
fn snp_guest() -> Genuine {
    let mut guest = Guest::new(Product::Genoa, KeyKind::Vcek, 5);
    let statement = statement().encode();
    guest.put(0x50, &report_data(&statement));
    let (report, endorsements, anchors) = guest.issue();
    let bundle = Bundle {
        statement,
        tee: Tee::Snp,
        quote: report,
        gpu: vec![],
        event_log: None,
        endorsements: endorsements.items().to_vec(),
    };
    let evidence = Evidence::detect(&bundle.encode()).expect("a bundle");
    let genuine = verify(&evidence, &Endorsements::none(), &anchors, &Exceptions::none(), UnixTime(NOW));
    genuine.expect("an honest guest, with all that is needed in the bundle")
}

fn snp_report() -> cocoon_attestation::snp::Report {
    match snp_guest().claims() {
        Some(cocoon_attestation::Claims::Snp(report)) => report.clone(),
        other => panic!("{other:?}"),
    }
}

/// Pinned to what the honest guest shows.
fn snp_policy() -> Policy {
    let report = snp_report();
    let tcb = report.reported_tcb;
    let floor = TcbFloor {
        fmc: tcb.fmc,
        boot_loader: tcb.boot_loader,
        tee: tcb.tee,
        snp: tcb.snp,
        microcode: tcb.microcode,
    };
    let reference = SnpReference {
        measurement: Pin::to(report.measurement),
        host_data: Pin::to(report.host_data),
        family_id: Pin::to(report.family_id),
        image_id: Pin::to(report.image_id),
        id_key_digest: Pin::to(report.id_key_digest),
        author_key_digest: Pin::to(report.author_key_digest),
        guest_svn: Floor::AtLeast(report.guest_svn.into()),
    };
    let mut policy = base();
    policy.snp = Some(SnpRules::with_floors(TcbFloors { genoa: Some(floor), ..TcbFloors::default() }));
    policy.images.push(ImageReference {
        name: "guest".into(),
        configuration: Some(CONFIGURATION),
        tdx: None,
        snp: Some(reference),
        azure: None,
    });
    policy
}

#[test]
fn an_snp_guest_that_the_policy_names_is_trusted() {
    let trusted = snp_policy().appraise(snp_guest(), &context(UnixTime(NOW))).expect("all of it is named");
    assert_eq!((trusted.platform().name(), trusted.platform().product), ("snp", "Genoa"));
    assert!(trusted.simulated());
    let policy = snp_policy();
    assert_eq!(Policy::from_toml(&policy.to_toml()), Ok(policy));
}

#[test]
fn every_rule_about_snp_guests_has_bad_rows() {
    fn image(policy: &mut Policy) -> &mut SnpReference {
        policy.images[0].snp.as_mut().expect("SNP")
    }
    fn rules(policy: &mut Policy) -> &mut SnpRules {
        policy.snp.as_mut().expect("SNP")
    }
    fn floor(policy: &mut Policy) -> &mut TcbFloor {
        rules(policy).tcb.genoa.as_mut().expect("Genoa")
    }
    type Change = fn(&mut Policy);
    let rows: &[(&str, Change)] = &[
        ("policy.image", |p| p.images[0].snp = None),
        ("policy.measurement", |p| image(p).measurement = Pin::to([9; 48])),
        ("policy.measurement", |p| image(p).measurement = Pin::OneOf(vec![])),
        ("policy.host_data", |p| image(p).host_data = Pin::to([9; 32])),
        ("policy.family_id", |p| image(p).family_id = Pin::to([9; 16])),
        ("policy.image_id", |p| image(p).image_id = Pin::to([9; 16])),
        ("policy.id_key", |p| image(p).id_key_digest = Pin::to([9; 48])),
        ("policy.author_key", |p| image(p).author_key_digest = Pin::to([9; 48])),
        ("policy.guest_svn", |p| image(p).guest_svn = Floor::AtLeast(1 << 40)),
        ("policy.configuration", |p| p.images[0].configuration = Some([9; 32])),
        ("policy.configuration", |p| p.images[0].configuration = None),
        ("policy.tcb", |p| p.snp = None),
        ("policy.tcb", |p| rules(p).tcb = TcbFloors::default()),
        ("policy.tcb", |p| floor(p).boot_loader += 1),
        ("policy.tcb", |p| floor(p).tee += 1),
        ("policy.tcb", |p| floor(p).snp += 1),
        ("policy.tcb", |p| floor(p).microcode += 1),
        ("policy.tcb", |p| floor(p).fmc = Some(0)),
        ("policy.firmware", |p| rules(p).firmware = Floor::AtLeast(1 << 32)),
        ("policy.mitigations", |p| rules(p).mitigations = 1 << 63),
        ("policy.guest_policy", |p| rules(p).guest_policy.minimum_abi = Floor::AtLeast(1 << 16)),
        ("policy.guest_policy", |p| rules(p).guest_policy.page_swap_off = Switch::On),
        ("policy.guest_policy", |p| rules(p).guest_policy.ciphertext_hiding = Switch::On),
        ("policy.platform_info", |p| rules(p).platform_info.tio = Switch::On),
        ("policy.platform", |p| p.platforms.only = Some(vec![])),
        ("policy.model", |p| p.models.clear()),
    ];
    for (number, (check, change)) in rows.iter().enumerate() {
        let mut policy = snp_policy();
        change(&mut policy);
        let got = refused(policy.appraise(snp_guest(), &context(UnixTime(NOW))));
        assert_eq!(got, (*check, RefusalKind::Rejected), "row {number}");
    }
}

#[test]
fn an_snp_image_without_a_configuration_is_no_policy() {
    let mut policy = snp_policy();
    policy.images[0].configuration = None;
    assert!(Policy::from_toml(&policy.to_toml()).is_err());
}

/// Azure's evidence, verified by itself: it has no statement, so the image is compared and the rest refused.
fn azure(azure: &Azure) -> Genuine {
    let (json, endorsements, anchors) = azure.issue();
    let exceptions = Exceptions::none().with("profile:azure").expect("a known name");
    let evidence = Evidence::detect(&json).expect("Azure's JSON");
    Verifier::new(&anchors, &exceptions, UnixTime(NOW)).verify(&evidence, &endorsements).expect("honest")
}

#[test]
fn azures_registers_are_held_against_the_policy() {
    for kind in [Azure::snp(), Azure::tdx()] {
        let genuine = azure(&kind);
        let (snp, tdx, vtpm) = match genuine.claims() {
            Some(cocoon_attestation::Claims::AzureSnp(report, vtpm)) => (
                Some(SnpReference { host_data: Pin::Free, ..SnpReference::pinned(report.measurement) }),
                None,
                vtpm,
            ),
            Some(cocoon_attestation::Claims::AzureTdx(body, vtpm)) => {
                (None, Some((&body.registers()).into()), vtpm)
            }
            other => panic!("{other:?}"),
        };
        let pcrs = Box::new(vtpm.pcrs.map(Pin::to));
        let mut policy = base();
        policy.tdx = Some(TdxRules::by_vendor());
        let image = AzureReference { snp, tdx, pcrs };
        policy.images.push(ImageReference {
            name: "azure".into(),
            configuration: None,
            tdx: None,
            snp: None,
            azure: Some(image),
        });
        let failed = |policy: &Policy| -> Vec<&'static str> {
            let refusal = policy.appraise(azure(&kind), &context(UnixTime(NOW))).expect_err("no statement");
            refusal.failed().filter(|check| check.starts_with("policy.pcrs")).collect()
        };
        assert_eq!(failed(&policy), [""; 0], "every register is the pinned one");
        let azure = policy.images[0].azure.as_mut().expect("Azure");
        azure.pcrs[11] = Pin::to([0xee; 32]);
        assert_eq!(failed(&policy), ["policy.pcrs"]);
        policy.images[0].azure.as_mut().expect("Azure").pcrs[11] = Pin::Free;
        assert_eq!(failed(&policy), [""; 0]);
    }
}

/// A TD with two GPUs, verified.
fn gpu_guest(gpus: usize) -> (Genuine, Measurements) {
    let now = nvidia::NOW;
    let (root, key) = (SimulatedRoot::create(now), AttestationKey::generate());
    let nonce = gpu_nonce(&statement().keys, &statement().freshness);
    let gpu: Vec<Vec<u8>> =
        (0..gpus).map(|seat| DevicePlan { nonce, ..DevicePlan::gpu(seat) }.record()).collect();
    let mut statement = statement();
    statement.gpu_evidence = gpu.iter().map(|record| GpuRecord::digest(record)).collect();
    let statement = statement.encode();
    let zero = [0; 48];
    let registers = Measurements {
        mrtd: [1; 48],
        rtmr: [[2; 48]; 4],
        mrconfigid: zero,
        mrowner: zero,
        mrownerconfig: zero,
    };
    let draft = Draft::honest(&Td::new(registers.clone()), &report_data(&statement), &key);
    let bundle = Bundle {
        quote: root.sign_quote(&draft, &key),
        statement,
        tee: Tee::Tdx,
        gpu,
        event_log: None,
        endorsements: vec![Endorsement::IntelCollateral(root.collateral(now))],
    };
    let anchors = nvidia::anchors().with_simulated_root(root.root_der()).expect("a root");
    let evidence = Evidence::detect(&bundle.encode()).expect("a bundle");
    let genuine =
        verify(&evidence, &Endorsements::none(), &anchors, &Exceptions::none(), now).expect("honest");
    (genuine, registers)
}

#[test]
fn gpus_are_held_against_the_policy() {
    let (genuine, registers) = gpu_guest(2);
    let first = genuine.gpus()[0].clone();
    let one = |name: &Option<String>| Names::OneOf(name.iter().cloned().collect());
    let rules = GpuRules {
        gpus: 2,
        switches: 0,
        architectures: Names::OneOf(vec![first.architecture.name().to_owned()]),
        drivers: one(&first.driver_version),
        vbios: one(&first.vbios_version),
        rims: Switch::Free,
        revocation: Switch::Free,
        protected_pcie: Switch::Free,
    };
    let mut policy = base();
    policy.tdx = Some(TdxRules::by_vendor());
    policy.images.push(ImageReference::on_tdx("guest", Some(CONFIGURATION), &registers));
    policy.gpu = Some(rules);
    assert_eq!(Policy::from_toml(&policy.to_toml()), Ok(policy.clone()));
    let context = context(nvidia::NOW);
    policy.appraise(genuine, &context).expect("two GPUs as named");

    type Change = fn(&mut Policy);
    fn gpu(policy: &mut Policy) -> &mut GpuRules {
        policy.gpu.as_mut().expect("GPUs")
    }
    let rows: &[Change] = &[
        |p| p.gpu = None,
        |p| gpu(p).gpus = 1,
        |p| gpu(p).switches = 1,
        |p| gpu(p).architectures = Names::OneOf(vec!["BLACKWELL".into()]),
        |p| gpu(p).drivers = Names::OneOf(vec![]),
        |p| gpu(p).vbios = Names::OneOf(vec!["0".into()]),
        |p| gpu(p).rims = Switch::On,
        |p| gpu(p).revocation = Switch::On,
        |p| gpu(p).protected_pcie = Switch::On,
    ];
    for (number, change) in rows.iter().enumerate() {
        let mut changed = policy.clone();
        change(&mut changed);
        let got = refused(changed.appraise(gpu_guest(2).0, &context));
        assert_eq!(got, ("policy.gpus", RefusalKind::Rejected), "row {number}");
    }
    let got = refused(policy.appraise(gpu_guest(0).0, &context));
    assert_eq!(got.0, "policy.gpus", "GPUs that are wanted and not shown");
    let mut barred = policy.clone();
    barred.platforms.bar = vec![gpu_guest(2).0.platform().ids[1].clone()];
    assert_eq!(refused(barred.appraise(gpu_guest(2).0, &context)).0, "policy.platform");
}

#[test]
fn a_policy_is_told_in_words() {
    let mut policy = snp_policy().named("registry");
    policy.exceptions.push("snp:vmpl1@2026-12-31".into());
    policy.platforms.bar.push(cocoon_attestation::PlatformId::parse("ppid:00ff").expect("an id"));
    let joined = policy.clone().with(base());
    let text: String = joined
        .explain()
        .into_iter()
        .map(|paragraph| format!("{}\n{}\n", paragraph.heading, paragraph.lines.join("\n")))
        .collect();
    for part in [
        "The registry",
        "Network: -239",
        "Exceptions: snp:vmpl1@2026-12-31",
        "SEV-SNP MEASUREMENT: ",
        "Milan: not accepted",
        "Barred: ppid:00ff",
        "None: nothing is accepted.",
        "a guest that shows a GPU is refused",
        "Debug is refused",
        "the strictest counts",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
}
