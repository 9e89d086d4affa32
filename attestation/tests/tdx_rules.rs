//! Rules about an Intel platform, as tables: one good row, and bad rows that each differ in one thing and are signed as they
//! should be. Whatever dcap-qvl refuses of them is refused; the rows that it alone lets pass are marked.

mod common;

use cocoon_attestation::RefusalKind::{self, Malformed, Rejected, Signature};
use cocoon_attestation::{Bundle, Endorsement, Exceptions, Refusal, Verifier};
use cocoon_attestation::{Endorsements, Evidence, Genuine};
use cocoon_simulated_tee::{AttestationKey, Documents, Draft, Profile, Revoked, SimulatedRoot};
use common::{NOW, Platform};
use dcap_qvl::verify::QuoteVerifier;

/// What stands in a document, and what stands there instead.
type Change = (&'static str, &'static str);

fn endorsed(platform: &Platform, documents: &Documents) -> Endorsement {
    Endorsement::IntelCollateral(platform.root.endorse(documents))
}

fn verify(platform: &Platform, bundle: &Bundle, allow: &str) -> Result<Genuine, Refusal> {
    let exceptions: Exceptions = allow.parse().expect("known names");
    let evidence = Evidence::Bundle(bundle.clone());
    Verifier::new(&platform.anchors(), &exceptions, NOW).verify(&evidence, &Endorsements::none())
}

fn dcap_accepts(platform: &Platform, bundle: &Bundle) -> bool {
    let verifier = QuoteVerifier::new(platform.root.root_der().to_vec());
    let collateral = serde_json::from_slice(common::collateral_of(bundle));
    collateral.is_ok_and(|collateral| verifier.verify(&bundle.quote, &collateral, NOW.0).is_ok())
}

fn refused(what: &str, result: Result<Genuine, Refusal>, check: &str, kind: RefusalKind) {
    let refusal = result.err().unwrap_or_else(|| panic!("{what}: was accepted"));
    assert_eq!((refusal.check, refusal.kind), (check, kind), "{what}: {refusal}");
}

fn replaced(text: &str, (from, to): Change) -> String {
    assert!(text.contains(from), "{from} stands in {text}");
    text.replacen(from, to, 1)
}

/// The TCB info with one change.
fn with_tcb_info(platform: &Platform, bundle: Bundle, change: Change) -> Bundle {
    let mut documents = platform.root.documents(NOW);
    documents.tcb_info = replaced(&documents.tcb_info, change);
    Bundle { endorsements: vec![endorsed(platform, &documents)], ..bundle }
}

const ZEROS: &str = "000000000000000000000000000000000000000000";

#[test]
fn a_tcb_info_that_differs_in_one_thing_is_refused() {
    let platform = Platform::new();
    platform.verify(&platform.bundle()).expect("the good row");
    let rows: [(Change, &str, RefusalKind); 22] = [
        // Kind and version.
        (("\"id\":\"TDX\"", "\"id\":\"SGX\""), "tdx.tcb_info", Rejected),
        (("\"id\":\"TDX\",", ""), "tdx.tcb_info", Rejected),
        (("\"version\":3", "\"version\":2"), "tdx.tcb_info", Rejected),
        (("\"version\":3", "\"version\":4"), "tdx.tcb_info", Rejected),
        (("\"tcbType\":0", "\"tcbType\":1"), "tdx.tcb_info", Rejected),
        // Family.
        (("53494d544458", "53494d544459"), "tdx.platform", Rejected),
        (("\"pceId\":\"0000\"", "\"pceId\":\"0100\""), "tdx.platform", Rejected),
        // Components one above the platform's: the only level is missed.
        (("{\"svn\":3}", "{\"svn\":4}"), "tdx.tcb", Rejected),
        (("\"pcesvn\":11", "\"pcesvn\":12"), "tdx.tcb", Rejected),
        (
            (
                "\"tdxtcbcomponents\":[{\"svn\":5},{\"svn\":1},{\"svn\":2}",
                "\"tdxtcbcomponents\":[{\"svn\":5},{\"svn\":1},{\"svn\":3}",
            ),
            "tdx.tcb",
            Rejected,
        ),
        // The TDX module.
        (("\"id\":\"TDX_01\"", "\"id\":\"TDX_02\""), "tdx.module", Rejected),
        (("\"tdxModule\":", "\"tdxmodule\":"), "tdx.module", Rejected),
        (("\"tdxModuleIdentities\":", "\"tdxModuleidentities\":"), "tdx.module", Rejected),
        (("\"isvsvn\":5", "\"isvsvn\":9"), "tdx.tcb", Rejected),
        // Form.
        (("\"isvsvn\":5", "\"isvsvn\":2"), "tdx.tcb_info", Malformed),
        (("\"tcbStatus\":\"UpToDate\"", "\"tcbStatus\":\"Fine\""), "tdx.tcb_info", Malformed),
        (("\"tcbStatus\":\"UpToDate\"", "\"tcbStatus\":\"TDRelaunchAdvised\""), "tdx.tcb_info", Malformed),
        (("\"pceId\":\"0000\"", "\"pceId\":\"000000\""), "tdx.tcb_info", Malformed),
        (("\"tdxtcbcomponents\":[", "\"tdxtcbcomponents\":[{\"svn\":0},"), "tdx.tcb_info", Malformed),
        (("\"tdxtcbcomponents\":", "\"other\":"), "tdx.tcb_info", Rejected),
        (("\"version\":3", "\"version\":3,\"version\":3"), "tdx.tcb_info", Malformed),
        (("\"nextUpdate\":", "\"nextupdate\":"), "tdx.tcb_info", Malformed),
    ];
    let by_us_alone = [
        "\"version\":4",
        "\"tcbType\":1",
        "\"pceId\":\"0100\"",
        "\"pceId\":\"000000\"",
        "\"isvsvn\":2",
        "\"isvsvn\":9", // OutOfDate by the next level, which dcap-qvl leaves to others
    ];
    for (change, check, kind) in rows {
        let what = format!("{change:?}");
        let bundle = with_tcb_info(&platform, platform.bundle(), change);
        refused(&what, platform.verify(&bundle), check, kind);
        assert_eq!(dcap_accepts(&platform, &bundle), by_us_alone.contains(&change.1), "{what}");
    }
}

#[test]
fn a_module_that_the_issuer_did_not_sign_is_refused() {
    let platform = Platform::new();
    // MRSIGNERSEAM stands at 64, the module's attributes at 112.
    for at in [64, 111, 112, 119] {
        let bundle = platform.bundle_with_draft(|draft| draft.body[at] ^= 1);
        refused(&format!("byte {at}"), platform.verify(&bundle), "tdx.module", Rejected);
        assert!(!dcap_accepts(&platform, &bundle));
    }
    // Of version 0, `tdxModule` speaks, and components 0 and 1 count with the rest.
    let version_0 =
        |isv_svn: u8| platform.bundle_with_draft(|draft| (draft.body[0], draft.body[1]) = (isv_svn, 0));
    let with_level = |bundle| {
        let from = "\"tdxtcbcomponents\":[{\"svn\":5},{\"svn\":1}";
        with_tcb_info(&platform, bundle, (from, "\"tdxtcbcomponents\":[{\"svn\":5},{\"svn\":0}"))
    };
    platform.verify(&with_level(version_0(5))).expect("a module of version 0 at its level");
    refused("ISVSVN below", platform.verify(&with_level(version_0(4))), "tdx.tcb", Rejected);
    refused("component 1", platform.verify(&version_0(5)), "tdx.tcb", Rejected);
}

/// The statuses of the levels that this platform, its module and its quoting enclave meet.
fn statuses(platform: &Platform, level: &str, module: &str, qe: &str) -> Bundle {
    let mut documents = platform.root.documents(NOW);
    let put = |text: &mut String, pointer: &str, status: &str| {
        let mut document: serde_json::Value = serde_json::from_str(text).expect("JSON");
        *document.pointer_mut(pointer).expect("it is there") = status.into();
        *text = document.to_string();
    };
    put(&mut documents.tcb_info, "/tcbLevels/0/tcbStatus", level);
    put(&mut documents.tcb_info, "/tdxModuleIdentities/0/tcbLevels/0/tcbStatus", module);
    put(&mut documents.qe_identity, "/tcbLevels/0/tcbStatus", qe);
    Bundle { endorsements: vec![endorsed(platform, &documents)], ..platform.bundle() }
}

#[test]
fn the_worst_of_platform_module_and_quoting_enclave_counts() {
    let platform = Platform::new();
    // Platform, module, quoting enclave; what must be named for it to be genuine.
    let rows: [([&str; 3], &str); 9] = [
        (["UpToDate", "UpToDate", "UpToDate"], ""),
        (["SWHardeningNeeded", "UpToDate", "UpToDate"], "tcb:SWHardeningNeeded"),
        (["UpToDate", "OutOfDate", "UpToDate"], "tcb:OutOfDate"),
        (["UpToDate", "UpToDate", "OutOfDate"], "tcb:OutOfDate"),
        (["SWHardeningNeeded", "OutOfDate", "UpToDate"], "tcb:OutOfDate"),
        (["ConfigurationNeeded", "OutOfDate", "UpToDate"], "tcb:OutOfDateConfigurationNeeded"),
        (["ConfigurationAndSWHardeningNeeded", "UpToDate", "OutOfDate"], "tcb:OutOfDateConfigurationNeeded"),
        (["UpToDate", "UpToDate", "ConfigurationNeeded"], "tcb:ConfigurationNeeded"),
        (
            ["OutOfDate", "UpToDate", "OutOfDateConfigurationNeeded"],
            "tcb:OutOfDate,tcb:OutOfDateConfigurationNeeded",
        ),
    ];
    for (status @ [levels, module, qe], allow) in rows {
        let bundle = statuses(&platform, levels, module, qe);
        let genuine =
            verify(&platform, &bundle, allow).unwrap_or_else(|refusal| panic!("{status:?}: {refusal}"));
        assert!(
            allow.is_empty() || allow.contains(&format!("tcb:{}", genuine.platform().tcb_status)),
            "{status:?}"
        );
        for missing in allow.split(',').filter(|name| !name.is_empty()) {
            let fewer: Vec<&str> = allow.split(',').filter(|name| *name != missing).collect();
            let result = verify(&platform, &bundle, &fewer.join(","));
            refused(&format!("{status:?}"), result, "tdx.tcb", Rejected);
        }
    }
    let every =
        "tcb:OutOfDate,tcb:OutOfDateConfigurationNeeded,tcb:ConfigurationNeeded,tcb:SWHardeningNeeded";
    for revoked in [
        ["Revoked", "UpToDate", "UpToDate"],
        ["UpToDate", "Revoked", "UpToDate"],
        ["UpToDate", "UpToDate", "Revoked"],
    ] {
        let bundle = statuses(&platform, revoked[0], revoked[1], revoked[2]);
        refused(&format!("{revoked:?}"), verify(&platform, &bundle, every), "tdx.tcb", Rejected);
        assert!(!dcap_accepts(&platform, &bundle));
    }
    // Statuses that Intel does not give to modules and quoting enclaves.
    let module = statuses(&platform, "UpToDate", "SWHardeningNeeded", "UpToDate");
    refused("a module", verify(&platform, &module, every), "tdx.tcb", Rejected);
    let qe = statuses(&platform, "UpToDate", "UpToDate", "SWHardeningNeeded");
    refused("an enclave", verify(&platform, &qe, every), "tdx.qe_identity", Rejected);
}

/// A TD 1.5: launched under `launch`, now under `current` (ISVSVN of the module).
fn td_15(platform: &Platform, launch: u8, current: u8) -> Bundle {
    platform.bundle_with_draft(|draft: &mut Draft| {
        draft.header[0] = 5;
        draft.body[0] = launch;
        let mut second: [u8; 16] = draft.body[..16].try_into().expect("sixteen bytes");
        second[0] = current;
        let mut body = [&3_u16.to_le_bytes()[..], &648_u32.to_le_bytes()].concat();
        body.extend(&draft.body);
        body.extend(second);
        body.resize(6 + 648, 0);
        draft.body = body;
    })
}

#[test]
fn a_module_updated_under_a_running_td_advises_a_relaunch() {
    let platform = Platform::new();
    platform.verify(&td_15(&platform, 5, 5)).expect("both are up to date");
    let updated = td_15(&platform, 2, 5);
    refused("launched before", platform.verify(&updated), "tdx.tcb", Rejected);
    let genuine = verify(&platform, &updated, "tcb:TDRelaunchAdvised").expect("tolerated by its name");
    assert_eq!(genuine.platform().tcb_status, "TDRelaunchAdvised");
    refused("by another name", verify(&platform, &updated, "tcb:OutOfDate"), "tdx.tcb", Rejected);
    let downgraded = td_15(&platform, 5, 2);
    refused("downgraded", platform.verify(&downgraded), "tdx.tcb", Rejected);
    verify(&platform, &downgraded, "tcb:OutOfDate").expect("tolerated by its name");
    refused(
        "below every level",
        verify(&platform, &td_15(&platform, 5, 1), "tcb:OutOfDate"),
        "tdx.tcb",
        Rejected,
    );
}

#[test]
fn a_revoked_authority_is_refused() {
    let platform = Platform::new();
    for (revoked, check) in
        [(Revoked::Platform, "tdx.crl"), (Revoked::PckCa, "tdx.crl"), (Revoked::TcbSigner, "tdx.tcb_info")]
    {
        let documents = platform.root.documents_revoking(revoked, NOW);
        let bundle = Bundle { endorsements: vec![endorsed(&platform, &documents)], ..platform.bundle() };
        refused(&format!("{revoked:?}"), platform.verify(&bundle), check, Rejected);
        assert!(!dcap_accepts(&platform, &bundle));
    }
}

/// Replaces bytes in the SGX extension, all of one length, so that the lengths around them stay.
fn in_extension(profile: &mut Profile, from: &[u8], to: &[u8]) {
    let at =
        profile.sgx_extension.windows(from.len()).position(|window| window == from).expect("it is there");
    profile.sgx_extension[at..at + to.len()].copy_from_slice(to);
}

#[test]
fn a_certificate_with_another_profile_is_refused() {
    /// 1.2.840.113741.1.13.1, with tag and length of a member under it.
    const MEMBER: [u8; 11] = [0x06, 0x0a, 0x2a, 0x86, 0x48, 0x86, 0xf8, 0x4d, 0x01, 0x0d, 0x01];
    let renumbered = |profile: &mut Profile, from: u8, to: u8| {
        in_extension(profile, &[&MEMBER[..], &[from]].concat(), &[&MEMBER[..], &[to]].concat());
    };
    type Row<'a> = (&'a str, &'a dyn Fn(&mut Profile), &'a str, RefusalKind);
    let rows: [Row<'_>; 10] = [
        ("PCK by another name", &|p| p.pck_name = "SIMULATED SGX TCB Signing", "tdx.chain", Signature),
        (
            "signer by another name",
            &|p| p.tcb_signer_name = "SIMULATED SGX PCK Certificate",
            "tdx.tcb_info",
            Signature,
        ),
        ("no PPID", &|p| renumbered(p, 1, 9), "tdx.chain", Malformed),
        ("no TCB", &|p| renumbered(p, 2, 9), "tdx.chain", Malformed),
        ("no PCEID", &|p| renumbered(p, 3, 9), "tdx.chain", Malformed),
        ("no FMSPC", &|p| renumbered(p, 4, 9), "tdx.chain", Malformed),
        ("no SGX type", &|p| renumbered(p, 5, 9), "tdx.chain", Malformed),
        ("PCEID twice", &|p| renumbered(p, 6, 3), "tdx.chain", Malformed),
        ("an unknown SGX type", &|p| in_extension(p, &[0x0a, 1, 1], &[0x0a, 1, 9]), "tdx.chain", Malformed),
        ("rubbish", &|p| p.sgx_extension.push(0), "tdx.chain", Malformed),
    ];
    for (what, change, check, kind) in rows {
        let platform =
            Platform { root: SimulatedRoot::create_with(NOW, change), key: AttestationKey::generate() };
        refused(what, platform.verify(&platform.bundle()), check, kind);
    }
    let added = |p: &mut Profile| renumbered(p, 7, 9);
    let platform = Platform { root: SimulatedRoot::create_with(NOW, added), key: AttestationKey::generate() };
    platform.verify(&platform.bundle()).expect("a member that Intel adds is passed over");
}

#[test]
fn the_azure_profile_tolerates_a_clear_sept_ve_disable_and_nothing_else() {
    let platform = Platform::new();
    let azure = platform.bundle_of_td(|td| td.attributes &= !(1 << 28));
    refused("unnamed", platform.verify(&azure), "tdx.attributes", Rejected);
    let genuine = verify(&platform, &azure, "profile:azure").expect("named");
    let check = genuine.checks().iter().find(|check| check.id == "tdx.attributes").expect("made");
    assert!(check.why.contains("profile:azure"), "{}", check.why);
    let debug = platform.bundle_of_td(|td| td.attributes = 1);
    refused("debug", verify(&platform, &debug, "profile:azure"), "tdx.debug", Rejected);
    assert_eq!(ZEROS.len(), 42);
}
