//! Every rule about a machine behind Azure's paravisor has a good row and bad rows, each changing exactly one thing of a
//! look-alike that really signs.

mod common;
mod kit;

use cocoon_attestation::snp::{KeyKind, Product};
use cocoon_attestation::statement::report_data;
use cocoon_attestation::{
    Bundle, Claims, Endorsements, Evidence, Exceptions, Genuine, Refusal, RefusalKind, Tee, UnixTime,
    Verifier, canonical_azure,
};
use common::mutate::{Random, mutate};
use kit::amd::NOW;
use kit::azure::{Azure, Below, Change, old_form};
use serde_json::json;

use RefusalKind::{Malformed, Rejected, Signature};

const PROFILE: &[&str] = &["profile:azure"];

fn check(machine: &Azure, allow: &[&str], nonce: Option<[u8; 32]>) -> Result<Genuine, Refusal> {
    let (json, ..) = machine.issue();
    check_json(machine, &json, allow, nonce)
}

fn check_json(
    machine: &Azure,
    json: &[u8],
    allow: &[&str],
    nonce: Option<[u8; 32]>,
) -> Result<Genuine, Refusal> {
    let (_, endorsements, anchors) = machine.issue();
    let exceptions = Exceptions::parse(allow.iter().copied()).expect("known names");
    let verifier = Verifier::new(&anchors, &exceptions, UnixTime(NOW));
    let verifier = match nonce {
        Some(nonce) => verifier.with_nonce(nonce),
        None => verifier,
    };
    verifier.verify(&Evidence::detect(json)?, &endorsements)
}

#[test]
fn healthy_machines_are_genuine_in_both_forms_under_the_profile() {
    for (machine, name) in [(Azure::snp(), "azure-snp"), (Azure::tdx(), "azure-tdx")] {
        let (json, ..) = machine.issue();
        for form in [
            json.clone(),
            old_form(&json),
            canonical_azure(&json).expect("a form"),
            [b"\n ".to_vec(), json].concat(),
        ] {
            let genuine = check_json(&machine, &form, PROFILE, None)
                .unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
            assert_eq!(genuine.platform().name(), name);
            assert!(genuine.simulated(), "{name}");
            let Some(Claims::AzureSnp(_, vtpm) | Claims::AzureTdx(_, vtpm)) = genuine.claims() else {
                panic!("{name}")
            };
            assert_eq!(vtpm.pcrs[7], [7; 32]);
            assert_eq!((vtpm.vm.secure_boot, vtpm.vm.vm_unique_id.as_deref()), (Some(true), Some("0-1-2")));
            assert_eq!(
                genuine.claims().expect("a TD").report_data(),
                None,
                "the challenge is not 64 bytes long"
            );
        }
        let refusal = check(&machine, &[], None).expect_err(name);
        assert_eq!((refusal.check, refusal.platform), ("azure.profile", name));
        assert!(refusal.remedy.contains("profile:azure"), "{refusal}");
    }
}

#[test]
fn the_canonical_form_is_its_own() {
    for machine in [Azure::snp(), Azure::tdx()] {
        let (json, ..) = machine.issue();
        let canonical = canonical_azure(&json).expect("a form");
        assert_eq!(canonical_azure(&old_form(&json)).as_ref(), Ok(&canonical));
        assert_eq!(canonical_azure(&canonical).as_ref(), Ok(&canonical));
    }
}

/// What is changed, how, what refuses it, and who is to blame for the first of these.
type Row = (&'static str, Change<Azure>, &'static [&'static str], RefusalKind);

/// On SNP.
const ROWS: &[Row] = &[
    // The JSON.
    ("version 3", |a| a.change_json = |j| j["version"] = json!(3), &["azure.format"], Malformed),
    ("a field that is not known", |a| a.change_json = |j| j["more"] = json!(1), &["azure.format"], Malformed),
    (
        "one in the TPM's quote",
        |a| a.change_json = |j| j["tpm_quote"]["more"] = json!(1),
        &["azure.format"],
        Malformed,
    ),
    (
        "hex that is none",
        |a| a.change_json = |j| j["tpm_quote"]["message"] = json!("0"),
        &["azure.format"],
        Malformed,
    ),
    (
        "base64 that is none",
        |a| a.change_json = |j| j["hcl_report"] = json!("+/+/"),
        &["azure.format"],
        Malformed,
    ),
    ("23 registers", |a| a.pcrs.truncate(23), &["azure.format"], Malformed),
    (
        "a certificate that is none",
        |a| a.change_json = |j| j["vcek"] = json!("AAAA"),
        &["azure.format"],
        Malformed,
    ),
    // The paravisor's report.
    ("another magic", |a| a.change_hcl = |r| r[0] = b'X', &["azure.hcl"], Malformed),
    ("version 3 of it", |a| a.change_hcl = |r| r[4] = 3, &["azure.hcl"], Malformed),
    ("another size", |a| a.change_hcl = |r| r[8] ^= 1, &["azure.hcl"], Malformed),
    ("another request", |a| a.change_hcl = |r| r[12] = 3, &["azure.hcl"], Malformed),
    ("a status", |a| a.change_hcl = |r| r[16] = 1, &["azure.hcl"], Malformed),
    ("a reserved byte", |a| a.change_hcl = |r| r[31] = 1, &["azure.hcl"], Malformed),
    ("another data size", |a| a.change_hcl = |r| r[1216] ^= 1, &["azure.hcl"], Malformed),
    ("another data version", |a| a.change_hcl = |r| r[1220] = 2, &["azure.hcl"], Malformed),
    ("the other kind", |a| a.change_hcl = |r| r[1224] = 4, &["azure.hcl"], Malformed),
    ("a kind that is not known", |a| a.change_hcl = |r| r[1224] = 3, &["azure.hcl"], Malformed),
    ("another hash", |a| a.change_hcl = |r| r[1228] = 2, &["azure.hcl"], Malformed),
    ("runtime data longer than all", |a| a.change_hcl = |r| r[1235] = 0xff, &["azure.hcl"], Malformed),
    ("bytes behind the runtime data", |a| a.change_hcl = |r| r.push(1), &["azure.hcl"], Malformed),
    ("cut", |a| a.change_hcl = |r| r.truncate(1235), &["azure.hcl"], Malformed),
    // The hardware.
    ("a debug guest below", |a| guest(a).put(10, &[0x0b]), &["snp.debug"], Rejected),
    ("a forged report below", |a| guest(a).forged_report = true, &["snp.signature"], Signature),
    ("VMPL 1 below", |a| guest(a).put(0x30, &[1]), &["snp.vmpl"], Rejected),
    // Binding.
    ("runtime data changed", |a| a.change_hcl = |r| in_user_data(r), &["azure.runtime_data"], Signature),
    ("something in the second half of the report data", second_half, &["azure.runtime_data"], Signature),
    (
        "no attestation key",
        |a| a.runtime["keys"][0]["kid"] = json!("AkPub"),
        &["azure.runtime_data"],
        Malformed,
    ),
    ("two of them", |a| a.runtime["keys"][1]["kid"] = json!("HCLAkPub"), &["azure.runtime_data"], Malformed),
    ("exponent 3", |a| a.runtime["keys"][0]["e"] = json!("Aw"), &["azure.runtime_data"], Malformed),
    ("a short modulus", |a| a.runtime["keys"][0]["n"] = json!("AQAB"), &["azure.runtime_data"], Malformed),
    ("an elliptic key", |a| a.runtime["keys"][0]["kty"] = json!("EC"), &["azure.runtime_data"], Malformed),
    // The TPM.
    ("another key's quote", |a| a.forged_quote = true, &["azure.tpm_signature"], Signature),
    ("not made by a TPM", |a| a.change_quote = |q| q[0] = 0, &["azure.tpm_quote"], Rejected),
    ("a certification", |a| a.change_quote = |q| q[5] = 0x17, &["azure.tpm_quote"], Rejected),
    ("bytes behind the quote", |a| a.change_quote = |q| q.push(0), &["azure.tpm_quote"], Malformed),
    ("a quote cut", |a| a.change_quote = |q| q.truncate(60), &["azure.tpm_quote"], Malformed),
    ("no selection", |a| a.selection = vec![0; 4], &["azure.tpm_quote"], Malformed),
    ("a huge count of selections", |a| a.selection[0] = 0xff, &["azure.tpm_quote"], Malformed),
    ("a register left out", |a| a.selection[9] = 0x7f, &["azure.pcrs"], Signature),
    ("another bank", |a| a.selection[5] = 0x04, &["azure.pcrs"], Signature),
    (
        "a register changed",
        |a| a.change_json = |j| j["tpm_quote"]["pcrs"][4] = json!("99".repeat(32)),
        &["azure.pcrs"],
        Signature,
    ),
];

fn guest(machine: &mut Azure) -> &mut kit::amd::Guest {
    match &mut machine.below {
        Below::Snp(guest) => guest,
        Below::Tdx => panic!("an SNP machine"),
    }
}

/// User data is zero in hex.
fn in_user_data(report: &mut [u8]) {
    let at = report.windows(8).position(|window| window == b"00000000").expect("user data");
    report[at] = b'1';
}

fn second_half(machine: &mut Azure) {
    let mut data = [1; 64];
    data[..32].copy_from_slice(&kit::azure::sha256(machine.runtime.to_string().as_bytes()));
    machine.report_data = Some(data);
}

#[test]
fn every_rule_refuses_what_breaks_it_and_nothing_else_does() {
    for (what, change, checks, kind) in ROWS {
        let mut machine = Azure::snp();
        change(&mut machine);
        let refusal = check(&machine, PROFILE, None).expect_err(what);
        let failed: Vec<_> = refusal.failed().collect();
        assert_eq!(failed, *checks, "{what}: {refusal}");
        assert_eq!((refusal.check, refusal.kind), (checks[0], *kind), "{what}: {refusal}");
    }
}

#[test]
fn a_td_report_must_be_the_quoted_one() {
    let rows: [(&str, Change<Vec<u8>>); 9] = [
        ("its type", |r| r[32] = 0),
        ("a reserved byte", |r| r[32 + 15] = 1),
        ("hash of the TCB", |r| r[32 + 32] ^= 1),
        ("hash of the TD", |r| r[32 + 80] ^= 1),
        ("report data", |r| r[32 + 128] ^= 1),
        ("TEE_TCB_SVN", |r| r[32 + 264] ^= 1),
        ("MRTD", |r| r[32 + 528] ^= 1),
        ("RTMR3", |r| r[32 + 911] ^= 1),
        ("MRSERVICETD", |r| r[32 + 912] ^= 1),
    ];
    for (what, change) in rows {
        let machine = Azure { change_hcl: change, ..Azure::tdx() };
        let refusal = check(&machine, PROFILE, None).expect_err(what);
        assert_eq!(refusal.failed().collect::<Vec<_>>(), ["azure.td_report"], "{what}: {refusal}");
    }
    let gap = Azure { change_hcl: |r| r[1100] = 1, ..Azure::tdx() };
    assert_eq!(check(&gap, PROFILE, None).expect_err("bytes behind it").check, "azure.hcl");
    for means_nothing in [|r: &mut Vec<u8>| r[32 + 16] ^= 1, |r: &mut Vec<u8>| r[32 + 255] ^= 1] {
        let machine = Azure { change_hcl: means_nothing, ..Azure::tdx() };
        assert!(check(&machine, PROFILE, None).is_ok(), "CPUSVN and MAC are for the processor alone");
    }
    let elsewhere = Azure { report_data: Some([9; 64]), ..Azure::tdx() };
    assert_eq!(check(&elsewhere, PROFILE, None).expect_err("another key").check, "azure.runtime_data");
}

#[test]
fn a_challenge_must_be_answered() {
    let mut machine = Azure::snp();
    assert_eq!(check(&machine, PROFILE, Some([7; 32])).expect_err("another challenge").check, "azure.nonce");
    machine.extra_data = vec![7; 32];
    assert!(check(&machine, PROFILE, Some([7; 32])).is_ok());
    machine.extra_data.push(0);
    assert_eq!(check(&machine, PROFILE, Some([7; 32])).expect_err("longer").check, "azure.nonce");
    machine.extra_data = vec![8; 64];
    let genuine = check(&machine, PROFILE, None).expect("64 bytes are a statement's digest");
    assert!(genuine.with_report_data(&[8; 64]).is_ok());
}

#[test]
fn bundles_of_snp_and_azure_bind_their_statement() {
    let statement = kit::statement();
    let report_data = report_data(&statement);
    let mut guest = kit::amd::Guest::new(Product::Genoa, KeyKind::Vcek, 5);
    guest.put(0x50, &report_data);
    let (report, of_guest, guest_anchors) = guest.issue();
    let machine = Azure { extra_data: report_data.to_vec(), ..Azure::snp() };
    let (json, of_machine, machine_anchors) = machine.issue();
    let canonical = canonical_azure(&json).expect("a form");
    let rows = [
        (Tee::Snp, report, &of_guest, &guest_anchors, "snp"),
        (Tee::Azure, canonical, &of_machine, &machine_anchors, "azure-snp"),
    ];
    let exceptions = Exceptions::parse(PROFILE.iter().copied()).expect("known names");
    for (tee, quote, endorsements, anchors, name) in rows {
        let bundle = Bundle {
            statement: statement.clone(),
            tee,
            quote,
            gpu: vec![],
            event_log: None,
            endorsements: endorsements.items().to_vec(),
        };
        let check = |bundle: &Bundle| {
            let evidence = Evidence::detect(&bundle.encode())?;
            let verifier = Verifier::new(anchors, &exceptions, UnixTime(NOW)).with_nonce([1; 32]);
            verifier.verify(&evidence, &Endorsements::none())
        };
        let genuine = check(&bundle).unwrap_or_else(|refusal| panic!("{name}: {refusal}"));
        assert_eq!((genuine.platform().name(), genuine.statement().is_some()), (name, true));
        let mut other = bundle.clone();
        *other.statement.last_mut().expect("a statement") ^= 1;
        assert_eq!(check(&other).expect_err("another statement").check, "binding.report_data", "{name}");
    }
    let loose = Bundle {
        statement,
        tee: Tee::Azure,
        quote: [&json[..], b"\n"].concat(),
        gpu: vec![],
        event_log: None,
        endorsements: of_machine.items().to_vec(),
    };
    let verifier = Verifier::new(&machine_anchors, &exceptions, UnixTime(NOW));
    let refusal = verifier.verify(&Evidence::Bundle(loose), &Endorsements::none()).expect_err("another form");
    assert_eq!(refusal.check, "azure.format");
}

#[test]
fn no_changed_byte_of_the_evidence_is_genuine() {
    for machine in [Azure::snp(), Azure::tdx()] {
        let (json, endorsements, anchors) = machine.issue();
        let canonical = canonical_azure(&json).expect("a form");
        let exceptions = Exceptions::parse(PROFILE.iter().copied()).expect("known names");
        let accepts = |json: &[u8]| {
            let verifier = Verifier::new(&anchors, &exceptions, UnixTime(NOW));
            Evidence::detect(json).is_ok_and(|evidence| verifier.verify(&evidence, &endorsements).is_ok())
        };
        assert!(accepts(&canonical));
        for at in 0..canonical.len() {
            let mut changed = canonical.clone();
            changed[at] ^= 1 << (at % 7);
            if accepts(&changed) {
                // Another way to write the same: version 2, the case of hex. Or bytes of a TDREPORT that mean nothing.
                let same = canonical_azure(&changed).expect("it was accepted");
                let different = same.iter().zip(&canonical).filter(|(a, b)| a != b).count();
                assert!(same == canonical || different <= 2 && same.len() == canonical.len(), "byte {at}");
                assert!(same == canonical || means_nothing(&same, &canonical), "byte {at}");
            }
        }
    }
}

/// Do they differ in a TDREPORT's CPUSVN and MAC alone, or in zero bytes of padding?
fn means_nothing(a: &[u8], b: &[u8]) -> bool {
    use base64::Engine;
    let report = |json: &[u8]| {
        let value: serde_json::Value = serde_json::from_slice(json).expect("JSON");
        base64::engine::general_purpose::URL_SAFE
            .decode(value["hcl_report"].as_str().expect("text"))
            .expect("base64url")
    };
    let (a, b) = (report(a), report(b));
    let judged = |at: usize| !(48..64).contains(&at) && !(256..288).contains(&at);
    a.len() == b.len() && (0..a.len()).all(|at| a[at] == b[at] || !judged(at))
}

#[test]
fn mutations_never_panic() {
    const SEED: u64 = 0x0c0c_00a2_12e0_d333;
    println!("seed {SEED:#x}");
    let mut random = Random(SEED);
    for machine in [Azure::snp(), Azure::tdx()] {
        let (json, ..) = machine.issue();
        for form in [old_form(&json), json] {
            for _ in 0..1_000 {
                let changed = mutate(&form, &mut random);
                let _ = check_detected(&machine, &changed);
            }
        }
    }
}

fn check_detected(machine: &Azure, json: &[u8]) -> Option<()> {
    // Detection and parsing are what sees peers' bytes first; the rest is covered by the tables.
    let evidence = Evidence::detect(json).ok()?;
    let anchors = cocoon_attestation::TrustAnchors::hardware();
    let exceptions = Exceptions::parse(PROFILE.iter().copied()).expect("known names");
    let verifier = Verifier::new(&anchors, &exceptions, UnixTime(NOW));
    let none = cocoon_attestation::Endorsements::none();
    let result = verifier.verify(&evidence, &none);
    assert!(result.is_err(), "{:?} has no root among the hardware's", machine.extra_data);
    Some(())
}
