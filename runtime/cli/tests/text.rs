//! What people read: groups, marks, the refusal last, nothing cut in a pipe.

mod common;

use cocoon_attestation::Measurements;
use common::{Guest, cocoon, exit, registers, stdout};

fn run(guest: &Guest, arguments: &[String]) -> (i32, String) {
    let fixed = ["verify".to_owned(), guest.file("bundle.cmw")];
    let output = cocoon(&[&fixed[..], arguments].concat());
    (exit(&output), stdout(&output))
}

#[test]
fn checks_stand_in_their_groups_and_the_verdict_below() {
    let guest = Guest::new();
    let (code, text) = run(&guest, &guest.trusting());
    assert_eq!(code, 0, "{text}");
    let headings: Vec<&str> =
        text.lines().filter(|line| !line.is_empty() && !line.starts_with(' ')).collect();
    assert_eq!(headings, ["Hardware", "Freshness", "Software", "GPU", "Binding", "verdict TRUSTED (tdx)"]);
    let group_of = |id: &str| {
        let before = text.split(&format!(" {id} ")).next().expect("something");
        *headings.iter().rev().find(|heading| before.lines().any(|line| line == **heading)).expect("a group")
    };
    for (id, group) in [
        ("tdx.signature", "Hardware"),
        ("tdx.tcb", "Hardware"),
        ("tdx.crl", "Freshness"),
        ("freshness", "Freshness"),
        ("tdx.debug", "Software"),
        ("policy.mrtd", "Software"),
        ("policy.gpus", "GPU"),
        ("binding.report_data", "Binding"),
    ] {
        assert_eq!(group_of(id), group, "{id} in\n{text}");
    }
    assert!(text.contains("  ✓ tdx.signature "), "{text}");
    assert!(text.contains("  – tdx.eventlog "), "skipped: {text}");
    assert!(text.contains("  · binding.gpu "), "not applicable: {text}");
    assert!(text.contains("SIMULATED: no hardware vouches for this"), "{text}");
    assert!(!text.contains('\x1b') && !text.contains('…'), "a pipe gets no colour, and whole values: {text}");
    assert!(text.contains(&"b3".repeat(48)), "the whole register: {text}");
}

#[test]
fn the_refusal_comes_last_with_both_values_under_each_other() {
    let guest = Guest::new();
    let mut mrtd = [0xa0; 48];
    mrtd[20] = 0xa1;
    let other = guest.policy(&Measurements { mrtd, ..registers() });
    let other = guest.write("other.toml", other.to_toml().as_bytes());
    let mut arguments = guest.at();
    arguments.extend(["--policy".into(), other, "--beacon".into(), guest.file("beacon.json")]);
    arguments.extend(["--allow".into(), "tcb:OutOfDate".into()]);
    let (code, text) = run(&guest, &arguments);
    assert_eq!(code, 3, "{text}");
    assert!(text.contains("  ✗ policy.mrtd "), "{text}");
    let lines: Vec<&str> = text.lines().collect();
    let at = lines.iter().position(|line| line.starts_with("verdict REJECTED (tdx)")).expect("the verdict");
    let labels: Vec<&str> =
        lines[at + 1..].iter().map(|line| line.get(2..12).unwrap_or_default().trim()).collect();
    let simulated = labels.iter().position(|label| label.starts_with("SIMULATED")).expect("it is said");
    assert_eq!(
        labels[simulated + 1..],
        ["exception", "", "check", "expected", "found", "", "means", "what to do"],
        "{text}"
    );
    let line =
        |label: &str| lines.iter().find(|line| line.starts_with(&format!("  {label}"))).expect("a line");
    let (expected, found) = (line("expected"), line("found"));
    let differs =
        expected.chars().zip(found.chars()).skip(13).position(|(a, b)| a != b).expect("they differ") + 13;
    let mark = lines.iter().find(|line| line.trim_start().starts_with('^')).expect("a mark");
    assert_eq!(mark.find('^'), Some(differs), "{text}");
    assert_eq!(differs, 13 + 41, "the second digit of byte 20");
    assert!(
        line("exception").contains("firmware, TDX module or quoting enclave has known weaknesses"),
        "{text}"
    );
}

#[test]
fn without_a_policy_it_says_that_nothing_was_compared() {
    let guest = Guest::new();
    let (code, text) = run(&guest, &guest.at());
    assert_eq!(code, 0);
    assert!(text.contains("verdict GENUINE (tdx)"), "{text}");
    assert!(text.contains("Nothing was compared with expected measurements"), "{text}");
    let (_, trusted) = run(&guest, &guest.trusting());
    assert!(!trusted.contains("Nothing was compared"), "{trusted}");
}

#[test]
fn a_files_name_cannot_write_lines_of_its_own() {
    let guest = Guest::new();
    let file = guest.write("x\nverdict TRUSTED (tdx)\x1b[2K", b"nothing known");
    let output = cocoon(&["verify", &guest.file("bundle.cmw"), "--endorsements", &file]);
    let text = stdout(&output);
    assert_eq!(exit(&output), 5);
    assert!(
        !text.contains('\x1b') && !text.lines().any(|line| line.starts_with("verdict TRUSTED")),
        "{text}"
    );
}

#[test]
fn help_names_codes_forms_and_exceptions() {
    let output = cocoon(&["verify", "--help"]);
    let text = stdout(&output);
    assert_eq!(exit(&output), 0);
    for (name, _) in cocoon_attestation::Exceptions::known() {
        assert!(text.contains(name), "{name}");
    }
    for needed in ["  6  unavailable", "SEV-SNP report", "VCEK", "RIM", "--nonce", "--html", "OCSP"] {
        assert!(text.contains(needed), "{needed}");
    }
}

#[test]
fn a_policy_is_explained_with_all_that_is_joined_to_it() {
    let guest = Guest::new();
    let policy = guest.file("policy.toml");
    let output = cocoon(&["policy", "explain", &policy]);
    assert_eq!(exit(&output), 0);
    assert!(stdout(&output).contains("guest 0.1.0"), "{}", stdout(&output));
    let release = guest.write("release.toml", b"name = \"release 7\"\n");
    let output = cocoon(&["policy", "explain", &policy, "--release", &release]);
    assert!(stdout(&output).contains("release 7"), "{}", stdout(&output));
    for arguments in
        [&["policy", "explain"][..], &["policy", "explain", "/nowhere"], &["policy", "explain", &release]]
    {
        assert_eq!(exit(&cocoon(arguments)), 2, "{arguments:?}");
    }
}
