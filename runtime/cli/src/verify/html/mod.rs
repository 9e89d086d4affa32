//! `--html`: one self-contained page that an auditor can send on. No script, nothing from elsewhere.

mod found;
mod judged;
mod writer;

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cocoon_attestation::{Inspection, inspect};
use ring::digest::{SHA256, digest};

use super::{Arguments, Inputs, Outcome};
use crate::error::{Explain, Failure};
use writer::Html;

const STYLE: &str = include_str!("style.css");

/// Writes the page, over an older one.
///
/// # Errors
/// If it cannot be written, or the name is that of something other than a file.
pub(super) fn write(
    path: &Path,
    arguments: &Arguments,
    inputs: &Inputs,
    outcome: &Outcome,
) -> Result<(), Failure> {
    if std::fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(Failure::usage(format!("{} is not a file", path.display()), "name a file for --html"));
    }
    let page = page(arguments, inputs, outcome);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Moved into place when it is whole: who opens it meanwhile sees the older one.
    let written = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new()
            .permissions(std::fs::Permissions::from_mode(0o666)) // less the umask, as for any file
            .tempfile_in(folder)?;
        file.write_all(page.as_bytes())?;
        file.persist(path)?;
        Ok(())
    };
    written().explain(|| format!("cannot write {}", path.display()), "check the folder and its owner")
}

fn page(arguments: &Arguments, inputs: &Inputs, outcome: &Outcome) -> String {
    let shown = outcome
        .evidence
        .as_ref()
        .map(|evidence| inspect(evidence, &outcome.endorsements))
        .unwrap_or_default();
    let mut html = Html::default();
    html.markup("<!DOCTYPE html>\n<html lang=\"en\">");
    html.element("head", "", |html| head(html, outcome));
    html.element("body", "", |html| {
        html.element("header", "", |html| judged::banner(html, outcome));
        html.element("main", "", |html| body(html, arguments, inputs, outcome, &shown));
        html.element("footer", "quiet", |html| {
            html.text(concat!(
                "cocoon verify ",
                env!("CARGO_PKG_VERSION"),
                ". This page is a report: it proves nothing by "
            ));
            html.text("itself. Verify the evidence yourself to know.");
        });
    });
    html.markup("</html>\n");
    html.finish()
}

/// The policy allows this very style and nothing else: no script, picture, font, form or frame.
fn head(html: &mut Html, outcome: &Outcome) {
    html.markup("<meta charset=\"utf-8\">");
    html.markup(
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-",
    );
    html.text(&STANDARD.encode(digest(&SHA256, STYLE.as_bytes())));
    html.markup("'; base-uri 'none'; form-action 'none'\">");
    html.markup("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">");
    html.markup("<meta name=\"referrer\" content=\"no-referrer\">");
    let simulated = if outcome.verdict.simulated { " (SIMULATED)" } else { "" };
    let word = outcome.verdict.verdict.to_uppercase();
    html.say("title", "", &format!("{word}{simulated}: {} evidence", outcome.verdict.platform));
    html.element("style", "", |html| html.markup(STYLE));
}

fn body(html: &mut Html, arguments: &Arguments, inputs: &Inputs, outcome: &Outcome, shown: &Inspection) {
    judged::facts(html, inputs, outcome, shown);
    judged::refusal(html, &outcome.verdict);
    judged::checks(html, &outcome.verdict);
    found::sections(html, "Registers", &shown.registers, &outcome.verdict);
    found::sections(html, "GPUs and switches", &shown.devices, &outcome.verdict);
    if let Some(statement) = &shown.statement {
        found::sections(html, "Statement", std::slice::from_ref(statement), &outcome.verdict);
    }
    found::event_log(html, shown.event_log.as_ref());
    found::certificates(html, &shown.certificates);
    found::sections(html, "Vendors' documents", &shown.documents, &outcome.verdict);
    found::unreadable(html, &shown.unreadable);
    html.say("h2", "", "Verify this yourself");
    html.say(
        "p",
        "",
        "With the same files, offline, on any machine. The time is named, so the verdict will be the same later:",
    );
    html.say("pre", "", &command_line(arguments, inputs));
}

/// The command that gives this verdict again: the time is always in it, this page never is.
fn command_line(arguments: &Arguments, inputs: &Inputs) -> String {
    let mut words = vec!["cocoon verify".to_owned(), quoted(&arguments.evidence.display().to_string())];
    let mut flag = |name: &str, value: &str| words.push(format!("--{name} {}", quoted(value)));
    let mut files = |name: &str, paths: &[PathBuf]| {
        paths.iter().for_each(|path| flag(name, &path.display().to_string()));
    };
    files("endorsements", &arguments.endorsements);
    files("policy", &arguments.policy);
    files("release", &arguments.release);
    files("beacon", arguments.beacon.as_slice());
    files("simulated-root", &arguments.simulated_root);
    files("receipt", arguments.receipt.as_slice());
    files("opening", arguments.opening.as_slice());
    flag("at", &inputs.context.now.to_string());
    arguments.allow.iter().for_each(|name| flag("allow", name));
    arguments.nonce.iter().for_each(|nonce| flag("nonce", &hex::encode(nonce)));
    arguments.report_data.iter().for_each(|data| flag("report-data", &hex::encode(data)));
    words.join(" \\\n    ")
}

/// A word as a shell reads it back.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:@+=,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_a_shell() {
        assert_eq!(quoted("a/b-1.bin"), "a/b-1.bin");
        assert_eq!(quoted("it's $HOME; rm"), r"'it'\''s $HOME; rm'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn the_style_cannot_end_its_own_element() {
        assert!(!STYLE.contains("</") && !STYLE.contains("url(") && !STYLE.contains("@import"));
    }
}
