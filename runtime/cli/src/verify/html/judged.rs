//! What was judged: the verdict, what it rests on, why not, check by check.

use cocoon_attestation::{Check, Group, Inspection, Reason, Status, Verdict};
use ring::digest::{SHA256, digest};

use super::super::show::{first_difference, meaning};
use super::super::{Inputs, Outcome};
use super::writer::Html;

/// The word, in its colour.
pub(super) fn banner(html: &mut Html, outcome: &Outcome) {
    let verdict = &outcome.verdict;
    let class = if verdict.exit_code() == 0 { "banner banner-good" } else { "banner banner-bad" };
    html.element("div", class, |html| {
        html.element("h1", "", |html| {
            html.text(&verdict.verdict.to_uppercase());
            html.text(" · ");
            html.text(verdict.platform);
        });
        html.say("p", "", sentence(verdict.verdict, verdict.simulated));
    });
    if verdict.simulated {
        html.say(
            "p",
            "simulated",
            "SIMULATED: a root made for development vouches for this, no hardware does. Do not trust it with anything.",
        );
    }
}

/// What the word means.
fn sentence(verdict: &str, simulated: bool) -> &'static str {
    match verdict {
        "trusted" if simulated => {
            "A simulated platform made this evidence, all of it is in date, no hard rule is broken, and it is what the policy accepts."
        }
        "genuine" if simulated => {
            "A simulated platform made this evidence, all of it is in date, and no hard rule is broken. Nothing was compared with expected measurements."
        }
        "trusted" => {
            "Genuine hardware made this evidence, all of it is in date, no hard rule is broken, and it is what the policy accepts."
        }
        "genuine" => {
            "Genuine hardware made this evidence, all of it is in date, and no hard rule is broken. Nothing was compared with expected measurements."
        }
        "rejected" => "A hard rule or the policy says no.",
        "unverified" => {
            "A signature or a certificate chain does not hold: nobody vouches for what this evidence says."
        }
        "malformed" => "The bytes do not have the form they must have, so nothing in them can be believed.",
        _ => {
            "Something that is needed is missing, out of date or not supported, so this evidence cannot be judged."
        }
    }
}

/// Which evidence, when, with which exceptions; the receipt.
pub(super) fn facts(html: &mut Html, inputs: &Inputs, outcome: &Outcome, shown: &Inspection) {
    html.element("dl", "facts", |html| {
        let mut fact = |name: &'static str, class: &'static str, text: &str| {
            html.say("dt", "", name);
            html.say("dd", class, text);
        };
        fact("Evidence", "", &inputs.name);
        fact("SHA-256", "value", &hex::encode(digest(&SHA256, &inputs.file)));
        if !shown.form.is_empty() {
            fact("What it is", "", &shown.form);
        }
        fact("Verified at", "", &inputs.context.now.to_string());
        match outcome.verdict.exceptions.as_slice() {
            [] => fact("Exceptions", "", "none were named"),
            named => {
                named.iter().for_each(|name| fact("Exception", "", &format!("{name}: {}", meaning(name))));
            }
        }
        if let Some(checked) = &outcome.receipt {
            let word =
                checked.wrong.as_deref().map_or("VERIFIED".to_owned(), |why| format!("UNVERIFIED: {why}"));
            fact("Receipt", "", &format!("{word} · {}", checked.summary()));
        }
    });
}

/// Why not, with expected and found side by side.
pub(super) fn refusal(html: &mut Html, verdict: &Verdict) {
    let Some(reason) = &verdict.refusal else { return };
    html.say("h2", "", "Why not");
    html.element("section", "refusal", |html| {
        html.element("p", "", |html| {
            html.text("The check ");
            html.say("code", "", reason.check);
            html.text(" does not hold.");
        });
        compare(html, reason);
        html.element("dl", "", |html| {
            for (name, text) in [("What it means", &reason.likely), ("What to do", &reason.remedy)] {
                html.say("dt", "", name);
                html.say("dd", "", text);
            }
        });
    });
}

fn compare(html: &mut Html, Reason { expected, got, .. }: &Reason) {
    let differs = first_difference(expected, got);
    html.element("div", "compare", |html| {
        for (name, text) in [("Expected", expected), ("Found", got)] {
            html.element("figure", "", |html| {
                html.say("figcaption", "", name);
                html.element("div", "value", |html| marked(html, text, differs));
            });
        }
    });
}

/// The text, with the rest of its hex value marked from where it differs.
fn marked(html: &mut Html, text: &str, differs: Option<usize>) {
    let Some((start, _)) = differs.and_then(|at| text.char_indices().nth(at)) else { return html.text(text) };
    let (same, rest) = text.split_at(start);
    let end = rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len());
    html.text(same);
    html.say("mark", "", &rest[..end]);
    html.text(&rest[end..]);
}

/// All checks, a table for each group.
pub(super) fn checks(html: &mut Html, verdict: &Verdict) {
    html.say("h2", "", "Checks");
    for group in Group::ALL {
        let of_group: Vec<&Check> = verdict.checks.iter().filter(|check| check.group() == group).collect();
        if of_group.is_empty() {
            continue;
        }
        html.element("table", "", |html| {
            html.say("caption", "", group.name());
            html.markup("<thead><tr><th scope=\"col\" class=\"narrow\">Result</th><th scope=\"col\">Check</th></tr></thead>");
            html.element("tbody", "", |html| of_group.into_iter().for_each(|check| row(html, check)));
        });
    }
}

fn row(html: &mut Html, check: &Check) {
    let (class, word) = match check.status {
        Status::Pass => ("pass", "✓\u{a0}pass"),
        Status::Fail => ("fail", "✗\u{a0}fail"),
        Status::Skip => ("skip", "–\u{a0}skipped"),
        Status::NotApplicable => ("none", "·\u{a0}not applicable"),
    };
    html.element("tr", "", |html| {
        html.say("td", class, word);
        html.markup("<th scope=\"row\"><div class=\"check\">");
        html.say("code", "", check.id);
        html.element("div", "", |html| {
            html.text(&check.why);
            for (name, value) in [("expected ", &check.expected), ("found ", &check.got)] {
                if !value.is_empty() && (check.status == Status::Fail || name == "found ") {
                    html.element("span", "expected quiet", |html| {
                        html.text(name);
                        html.say("code", "", value);
                    });
                }
            }
        });
        html.markup("</div></th>");
    });
}
