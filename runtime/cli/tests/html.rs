//! The page of `verify --html`, looked at in headless Chromium: its layout, not its pixels.
//!
//! `COCOON_BLESS=1` writes the coarse pictures in `tests/layout` anew; look at the page before committing them.

mod common;

use std::path::{Path, PathBuf};

use cocoon_attestation::Measurements;
use common::browser::{self, Picture};
use common::{Guest, cocoon, exit, registers, stdout, text};

const GOOD: [u8; 3] = [0x0b, 0x6b, 0x34];
const BAD: [u8; 3] = [0xb3, 0x19, 0x1e];
/// WCAG 2.2, 1.4.3: text of any size.
const CONTRAST: f64 = 4.5;

/// Runs `verify --html`; gives the exit code and the page. The bundle goes by a name that is always the same, so that lines
/// always break alike.
fn page(guest: &Guest, arguments: &[String]) -> (i32, PathBuf) {
    let status = std::process::Command::new(env!("CARGO_BIN_EXE_cocoon"))
        .current_dir(guest.path(""))
        .args(["verify", "bundle.cmw", "--html", "page.html"])
        .args(arguments)
        .stdout(std::process::Stdio::null())
        .status();
    (status.expect("it ran").code().expect("it was not killed"), guest.path("page.html"))
}

/// A guest whose MRTD is another than the policy's.
fn refused(guest: &Guest) -> Vec<String> {
    let mut other = [0xa0; 48];
    other[20] = 0xa1;
    let policy = guest.policy(&Measurements { mrtd: other, ..registers() });
    let policy = guest.write("other.toml", policy.to_toml().as_bytes());
    let beacon = guest.file("beacon.json");
    [guest.at(), vec!["--policy".into(), policy, "--beacon".into(), beacon]].concat()
}

fn number(value: &serde_json::Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

/// What holds of every page at every width in both schemes.
fn assert_sound(folder: &Path, page: &Path) {
    let mut grounds = Vec::new();
    for (width, dark) in [(1280, false), (360, false), (360, true), (1280, true)] {
        let seen = browser::layout(folder, page, width, dark);
        let here = format!("{} at {width}, dark {dark}: {seen:#}", page.display());
        assert_eq!(number(&seen["width"]), f64::from(width), "{here}");
        assert!(number(&seen["scroll"]) <= f64::from(width), "it scrolls sideways: {here}");
        assert_eq!(seen["sticking_out"], serde_json::json!([]), "{here}");
        assert!(number(&seen["contrast"]["least"]) >= CONTRAST, "{}: {here}", seen["contrast"]);
        assert_eq!((&seen["fetched"], &seen["scripts"]), (&0.into(), &0.into()), "{here}");
        assert_eq!((&seen["unscoped"], &seen["headless_tables"]), (&0.into(), &0.into()), "{here}");
        assert_eq!(seen["styled"], 1, "the style is allowed by the page's own policy: {here}");
        let headings = seen["headings"].as_array().expect("a list");
        assert_eq!(headings.iter().filter(|heading| heading["tag"] == "H1").count(), 1, "{here}");
        let left = number(&seen["banner"]["left"]);
        for (above, below) in headings.iter().skip(1).zip(headings.iter().skip(2)) {
            assert!(number(&below["top"]) >= number(&above["top"]) + 20.0, "{above} and {below}");
        }
        let straight = headings.iter().skip(1).all(|heading| (number(&heading["left"]) - left).abs() < 20.0);
        assert!(straight, "headings stand in one column: {here}");
        grounds.push(seen["ground"].as_str().expect("a colour").to_owned());
    }
    assert_eq!(grounds[0], grounds[1]);
    assert_eq!(grounds[2], grounds[3]);
    assert_ne!(grounds[0], grounds[2], "dark is another colour");
}

/// Compares a picture with the coarse one that was committed. Fonts differ, and so does where lines break: rows may be
/// moved down or up, and one cell in twelve may differ.
fn assert_looks_like(name: &str, picture: &Picture, columns: usize, rows: usize) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/layout").join(name);
    let seen = picture.coarse(columns, rows);
    if std::env::var_os("COCOON_BLESS").is_some() {
        std::fs::write(&file, &seen).expect("it can be written");
    }
    let expected =
        std::fs::read_to_string(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let cost = distance(&expected, &seen, columns / 2);
    assert!(12 * cost <= columns * rows, "{name}: differs by {cost}; expected\n{expected}\nseen\n{seen}");
}

/// Cells that differ, where a row too many or too few counts as `gap` of them.
fn distance(expected: &str, seen: &str, gap: usize) -> usize {
    let rows = |text: &str| text.lines().map(|line| line.chars().collect()).collect::<Vec<Vec<char>>>();
    let (expected, seen) = (rows(expected), rows(seen));
    let mut above: Vec<usize> = (0..=seen.len()).map(|count| count * gap).collect();
    for (at, row) in expected.iter().enumerate() {
        let mut here = vec![(at + 1) * gap];
        for (place, other) in seen.iter().enumerate() {
            let differing = row.iter().zip(other).filter(|(a, b)| a != b).count();
            let moved = gap + above[place + 1].min(here[place]);
            here.push((above[place] + differing).min(moved));
        }
        above = here;
    }
    above[seen.len()]
}

#[test]
fn a_coarse_picture_is_told_from_another() {
    let wide = include_str!("layout/trusted-1280.txt");
    assert_eq!(distance(wide, wide, 8), 0);
    let one_row_lower = format!("................\n{wide}");
    assert_eq!(distance(wide, &one_row_lower, 8), 8);
    let cells = wide.lines().count() * 16;
    for other in [
        wide.replace('#', "."),
        wide.replace('+', "."),
        wide.replace('.', "+"),
        "................\n".repeat(24),
    ] {
        assert!(12 * distance(wide, &other, 8) > cells, "{other}");
    }
}

#[test]
fn a_trusted_simulated_guest_is_green_and_called_simulated() {
    if !browser::present() {
        return;
    }
    let guest = Guest::new();
    let (code, file) = page(&guest, &guest.trusting());
    assert_eq!(code, 0);
    let folder = file.parent().expect("a folder");
    assert_sound(folder, &file);
    let wide = Picture::take(folder, &file, 1280, 960);
    assert_eq!(wide.pixel(122, 60), GOOD, "the banner");
    assert_ne!(wide.pixel(140, 150), wide.pixel(1, 1), "below it the word SIMULATED, on a ground of its own");
    assert_looks_like("trusted-1280.txt", &wide, 16, 24);
    let phone = Picture::take(folder, &file, 360, 800);
    assert_eq!((phone.width, phone.height), (360, 800));
    assert_eq!(phone.pixel(20, 30), GOOD);
    assert!(phone.ink(350..360, 0..800) == 0.0, "nothing touches the right edge");
    assert_looks_like("trusted-360.txt", &phone, 12, 24);
}

#[test]
fn a_refused_guest_is_red_with_expected_and_found_side_by_side() {
    if !browser::present() {
        return;
    }
    let guest = Guest::new();
    let (code, file) = page(&guest, &refused(&guest));
    assert_eq!(code, 3);
    let folder = file.parent().expect("a folder");
    assert_sound(folder, &file);
    let figures = |width| {
        let seen = browser::layout(folder, &file, width, false);
        let figures = seen["figures"].as_array().expect("a list").clone();
        assert_eq!(figures.len(), 2, "{seen:#}");
        [0, 1].map(|at| (number(&figures[at]["left"]), number(&figures[at]["top"])))
    };
    let [expected, found] = figures(1280);
    assert!(found.0 > expected.0 && found.1 == expected.1, "side by side: {expected:?}, {found:?}");
    let [expected, found] = figures(360);
    assert!(
        found.0 == expected.0 && found.1 > expected.1,
        "one below the other on a phone: {expected:?}, {found:?}"
    );
    let wide = Picture::take(folder, &file, 1280, 960);
    assert_eq!(wide.pixel(122, 60), BAD, "the banner");
    assert_looks_like("rejected-1280.txt", &wide, 16, 24);
}

#[test]
fn pages_of_real_evidence_are_sound() {
    let Some(vectors) = common::vectors() else { return };
    if !browser::present() {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    for case in common::cases(&vectors) {
        let id = case["id"].as_str().expect("a name");
        if !["log-gcp-cos113", "snp-debug-policy", "gpu-multi-8-ppcie", "gpu-hopper-rim"].contains(&id) {
            continue;
        }
        let file = folder.path().join(format!("{id}.html"));
        let arguments = common::case_arguments(&vectors, &case);
        let page = ["verify".to_owned(), "--html".into(), text(&file).to_owned()];
        let genuine = exit(&cocoon(&[&page[..], &arguments].concat())) == 0;
        assert_eq!(genuine, case["expect"] == "genuine", "{id}");
        assert_sound(folder.path(), &file);
    }
}

#[test]
fn the_page_holds_what_an_auditor_needs_and_nothing_from_elsewhere() {
    let guest = Guest::new();
    let (code, file) = page(&guest, &guest.trusting());
    assert_eq!(code, 0);
    let html = std::fs::read_to_string(&file).expect("the page");
    for needed in [
        "TRUSTED",
        "SIMULATED",
        "SHA-256",
        "2026-11-18T",
        "MRTD",
        "RTMR3",
        "✓ accepted: ",
        "Seal key",
        "PCK CA",
        "TCB signer",
        "TCB info",
        "nextUpdate",
        "Verify this yourself",
        "--policy",
        "--simulated-root",
        "tdx.tcb",
    ] {
        assert!(html.contains(needed), "{needed}");
    }
    for never in
        ["<script", "http://", "https://", "src=", "url(", "@import", "--html", "style=\"", "javascript:"]
    {
        assert!(!html.contains(never), "{never}");
    }
    assert!(!html.contains("Genuine hardware"), "a simulated platform is not called that");
    assert!(html.contains("default-src 'none'; style-src 'sha256-"));
}

#[test]
fn what_comes_from_elsewhere_is_text() {
    let guest = Guest::new();
    let name = guest.write("<img src=x onerror=alert(1)>&.cmw", b"garbage");
    let file = guest.file("page.html");
    let output = cocoon(&["verify", &name, "--html", &file]);
    assert_eq!(exit(&output), 5);
    let html = std::fs::read_to_string(&file).expect("the page");
    assert!(!html.contains("<img") && html.contains("&lt;img src=x"), "{html}");
}

#[test]
fn an_older_page_is_replaced_and_what_is_no_file_is_not() {
    let guest = Guest::new();
    let file = guest.write("page.html", b"older");
    let (code, _) = page(&guest, &guest.trusting());
    assert_eq!(code, 0);
    assert!(std::fs::read_to_string(&file).expect("the page").starts_with("<!DOCTYPE html>"));
    let left: Vec<_> = std::fs::read_dir(guest.path("")).expect("the folder").collect();
    assert!(
        left.iter().all(|entry| !entry
            .as_ref()
            .expect("a file")
            .file_name()
            .to_string_lossy()
            .starts_with(".tmp"))
    );

    let bundle = guest.file("bundle.cmw");
    let output = cocoon(&[&["verify", &bundle, "--html", "/dev/null"][..]].concat());
    assert_eq!(exit(&output), 2, "{}", stdout(&output));
    let output = cocoon(&["verify", &bundle, "--html", "/nowhere/page.html"]);
    assert_eq!(exit(&output), 1);
}
