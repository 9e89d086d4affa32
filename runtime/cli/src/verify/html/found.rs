//! What the evidence says, as it stands there: registers, devices, event log, certificates.

use cocoon_attestation::inspect::{Certificate, EventLogView, EventView, Field, Section};
use cocoon_attestation::{Check, Status, Verdict};

use super::writer::Html;

/// Deepest list of certificates that is still indented.
const MAX_INDENT: usize = 6;
/// More tables than this of one kind are folded, each under its first values.
const UNFOLDED: usize = 4;

/// Tables of names and values; none if there is nothing. What the policy expects stands below what was found.
pub(super) fn sections(html: &mut Html, title: &'static str, sections: &[Section], verdict: &Verdict) {
    if sections.is_empty() {
        return;
    }
    html.say("h2", "", title);
    for section in sections {
        if sections.len() > UNFOLDED {
            html.element("details", "", |html| {
                let about: Vec<&str> =
                    section.fields.iter().take(3).map(|field| field.value.as_str()).collect();
                html.say("summary", "", &format!("{}: {}", section.title, about.join(", ")));
                table(html, section, verdict);
            });
        } else {
            table(html, section, verdict);
        }
    }
}

fn table(html: &mut Html, section: &Section, verdict: &Verdict) {
    html.element("table", "", |html| {
        html.say("caption", "", &section.title);
        html.markup(
            "<thead><tr><th scope=\"col\" class=\"name\">Name</th><th scope=\"col\">Value</th></tr></thead>",
        );
        html.element("tbody", "", |html| section.fields.iter().for_each(|field| row(html, field, verdict)));
    });
}

fn row(html: &mut Html, field: &Field, verdict: &Verdict) {
    let compared =
        |check: &&Check| Some(check.id) == field.check && matches!(check.status, Status::Pass | Status::Fail);
    html.element("tr", "", |html| {
        html.markup("<th scope=\"row\" class=\"name\">");
        html.say("b", "", &field.name);
        html.say("span", "quiet", field.meaning);
        html.markup("</th>");
        html.element("td", "", |html| {
            html.say("span", "value", &field.value);
            if let Some(check) = verdict.checks.iter().find(compared) {
                let (class, word) = match check.status {
                    Status::Pass => ("expected pass", "✓ accepted: "),
                    _ => ("expected fail", "✗ not accepted: "),
                };
                html.element("span", class, |html| {
                    html.text(word);
                    html.say("span", "value", &check.expected);
                });
            }
        });
    });
}

/// The event log, folded: it is long.
pub(super) fn event_log(html: &mut Html, log: Option<&EventLogView>) {
    let Some(log) = log else { return };
    html.say("h2", "", "Event log");
    html.say(
        "p",
        "quiet",
        "What was measured into the registers, event by event. It says as much as the last line of each event says, and only if \
         the check of the log passes.",
    );
    html.element("details", "", |html| {
        let banks = log.banks.join(", ");
        html.say("summary", "", &format!("{} events, with digests by {banks}", log.events.len()));
        html.element("table", "", |html| {
            html.markup("<thead><tr><th scope=\"col\" class=\"narrow\">Event</th><th scope=\"col\">What it says</th></tr></thead>");
            html.element("tbody", "", |html| log.events.iter().for_each(|event| event_row(html, event)));
        });
    });
}

fn event_row(html: &mut Html, event: &EventView) {
    html.element("tr", "", |html| {
        html.markup("<th scope=\"row\">");
        html.say("b", "", &event.index.to_string());
        html.say("span", "quiet", &format!(" {}", event.register));
        html.markup("</th>");
        html.element("td", "", |html| {
            html.say("span", "", &event.title);
            if !event.description.is_empty() {
                html.say("span", "expected value", &event.description);
            }
            html.element("span", "expected quiet", |html| {
                html.text(&format!("{}, {}: ", event.kind, event.origin));
                html.say("code", "", &event.digest);
            });
        });
    });
}

/// Certificates as a tree, each below its issuer.
pub(super) fn certificates(html: &mut Html, certificates: &[Certificate]) {
    if certificates.is_empty() {
        return;
    }
    html.say("h2", "", "Certificates");
    html.say("p", "quiet", "Each below the one whose name it names as issuer. Whether the signatures hold is said by the checks.");
    // The list is in the order of a walk: deeper ones follow what they hang from.
    html.markup("<ul class=\"tree\">");
    let mut open = 0;
    for (at, certificate) in certificates.iter().enumerate() {
        let depth = certificate.depth.min(MAX_INDENT);
        if at > 0 && depth > open {
            html.markup("<ul>");
            open += 1;
        } else if at > 0 {
            html.markup("</li>");
            while open > depth {
                html.markup("</ul></li>");
                open -= 1;
            }
        }
        html.markup("<li>");
        one(html, certificate);
    }
    html.markup("</li>");
    (0..open).for_each(|_| html.markup("</ul></li>"));
    html.markup("</ul>");
}

fn one(html: &mut Html, certificate: &Certificate) {
    html.say("span", "role", certificate.role.words());
    let (name, rest) = certificate.subject.split_once(", ").unwrap_or((&certificate.subject, ""));
    html.say("b", "", name);
    html.say("span", "quiet", &format!(" {rest}"));
    if certificate.pinned {
        html.say("span", "quiet", " built into the verifier");
    }
    let Certificate { not_before, not_after, key, serial, sha256, found_in, issuer, .. } = certificate;
    html.element("div", "quiet", |html| {
        html.text(&format!("{key}, valid {not_before} to {not_after}, from: {found_in}"));
        if certificate.parent.is_none() && issuer != &certificate.subject {
            html.text(&format!("; its issuer is not here: {issuer}"));
        }
        html.text("; serial ");
        html.say("code", "", serial);
        html.text("; SHA-256 ");
        html.say("code", "", sha256);
    });
}

/// What could not be read.
pub(super) fn unreadable(html: &mut Html, unreadable: &[String]) {
    if unreadable.is_empty() {
        return;
    }
    html.say("h2", "", "Could not be read");
    html.element("ul", "", |html| unreadable.iter().for_each(|text| html.say("li", "", text)));
}
