//! The verdict on a terminal: a checklist by group, then the word, then why not.

use std::fmt::Write as _;

use cocoon_attestation::{Check, Exceptions, Group, Reason, Status, Verdict};

use crate::ui::{Screen, abridge, one_line, wrap};

/// Columns of a check's id.
const ID: usize = 22;
/// Columns in front of a check's words: two of indent, the mark, the id, and a space after each.
const BEFORE: usize = 2 + 2 + ID + 1;
/// Columns in front of the words below the verdict.
const LABEL: usize = 13;
/// An abridged number of fewer columns says nothing.
const SHORTEST: usize = 14;
/// Nor does a phrase of fewer.
const SHORTEST_PHRASE: usize = 40;

/// Shows all of it. `compared`: a policy was given.
pub(super) fn verdict(screen: &Screen, verdict: &Verdict, compared: bool) {
    for group in Group::ALL {
        let mut checks = verdict.checks.iter().filter(|check| check.group() == group).peekable();
        if checks.peek().is_some() {
            screen.line(&screen.bold(group.name()));
            checks.for_each(|check| line(screen, check));
            screen.line("");
        }
    }
    let word = verdict.verdict.to_uppercase();
    let coloured = if verdict.exit_code() == 0 { screen.good(&word) } else { screen.bad(&word) };
    screen.line(&format!("{} {coloured} ({})", screen.bold("verdict"), verdict.platform));
    if verdict.simulated {
        screen.line(&format!("  {}", screen.warn("SIMULATED: no hardware vouches for this")));
    }
    for name in &verdict.exceptions {
        labelled(screen, "exception", &format!("{name}: {}", meaning(name)));
    }
    match &verdict.refusal {
        Some(reason) => refusal(screen, reason),
        None if !compared => {
            labelled(
                screen,
                "compared",
                "Nothing was compared with expected measurements: give --policy FILE for that.",
            );
        }
        None => {}
    }
}

/// What naming an exception means, whatever its last day.
pub(super) fn meaning(name: &str) -> &'static str {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    Exceptions::known().iter().find(|(known, _)| *known == name).map_or("", |(_, meaning)| meaning)
}

/// One check. On a terminal, words are wrapped and what was found is abridged to the columns that are left; elsewhere
/// nothing is cut.
fn line(screen: &Screen, check: &Check) {
    let mark = match check.status {
        Status::Pass => screen.good("✓"),
        Status::Fail => screen.bad("✗"),
        Status::Skip => screen.warn("–"),
        Status::NotApplicable => screen.dim("·"),
    };
    let why = one_line(&check.why);
    let words = match check.status {
        Status::Pass => why,
        Status::Fail => format!("fails: {why}"),
        Status::Skip => format!("skipped: {why}"),
        Status::NotApplicable => format!("not applicable: {why}"),
    };
    let room = screen.columns().map(|columns| columns.saturating_sub(BEFORE));
    let mut rows = wrap(&words, room.unwrap_or(usize::MAX));
    if check.status == Status::Pass && !check.got.is_empty() {
        let left = room.map(|room| room.saturating_sub(rows.last().map_or(0, |row| row.chars().count()) + 2));
        let found = one_line(&check.got);
        if let (Some(row), Some(found)) = (rows.last_mut(), fitted(&found, left)) {
            let _ = write!(row, "  {}", screen.dim(&found));
        }
    }
    let mut rows = rows.into_iter().map(|row| match check.status {
        Status::Pass | Status::Fail => row,
        Status::Skip | Status::NotApplicable => screen.dim(&row),
    });
    screen.line(&format!("  {mark} {:<ID$} {}", check.id, rows.next().unwrap_or_default()));
    rows.for_each(|row| screen.line(&format!("{:BEFORE$}{row}", "")));
}

/// The value in the columns that are left; `None` if they are too few for it to say anything.
fn fitted(value: &str, left: Option<usize>) -> Option<String> {
    let Some(left) = left else { return Some(value.to_owned()) };
    let whole = value.chars().count() <= left;
    let shortest = if value.contains(' ') { SHORTEST_PHRASE } else { SHORTEST };
    (whole || left >= shortest).then(|| abridge(value, left))
}

/// A word and what it says, wrapped under itself.
fn labelled(screen: &Screen, label: &str, text: &str) {
    let room = screen.columns().map_or(usize::MAX, |columns| columns.saturating_sub(LABEL));
    let mut label = label;
    for row in wrap(&one_line(text), room) {
        screen.line(&format!("  {} {row}", screen.dim(&format!("{label:<10}"))));
        label = "";
    }
}

fn refusal(screen: &Screen, reason: &Reason) {
    screen.line("");
    labelled(screen, "check", reason.check);
    let (expected, found) = (one_line(&reason.expected), one_line(&reason.got));
    match first_difference(&expected, &found) {
        Some(at) => side_by_side(screen, &expected, &found, at),
        None => {
            labelled(screen, "expected", &expected);
            labelled(screen, "found", &found);
        }
    }
    labelled(screen, "means", &reason.likely);
    labelled(screen, "what to do", &reason.remedy);
}

/// Two values row by row under each other, with a mark under the first character that differs.
fn side_by_side(screen: &Screen, expected: &str, found: &str, at: usize) {
    let room = screen.columns().map_or(usize::MAX, |columns| columns.saturating_sub(LABEL)).max(1);
    let rows = |text: &str| -> Vec<String> {
        let characters: Vec<char> = text.chars().collect();
        characters.chunks(room).map(|row| row.iter().collect()).collect()
    };
    let (expected, found) = (rows(expected), rows(found));
    for row in 0..expected.len().max(found.len()) {
        let part = |rows: &[String]| rows.get(row).cloned().unwrap_or_default();
        screen.line(&format!("  {} {}", screen.dim(&format!("{:<10}", "expected")), part(&expected)));
        screen.line(&format!("  {} {}", screen.dim(&format!("{:<10}", "found")), part(&found)));
        if at / room == row {
            screen.line(&format!("{:LABEL$}{:2$}{3}", "", "", at % room, screen.bad("^ differs from here")));
        }
    }
}

/// The character at which two hex values part, each of 16 digits or more at the same place in its text. Other texts are not
/// compared by characters: that they differ is plain to see.
pub(super) fn first_difference(expected: &str, found: &str) -> Option<usize> {
    let at = expected.chars().zip(found.chars()).position(|(a, b)| a != b)?;
    let in_hex = |text: &str| {
        let characters: Vec<char> = text.chars().collect();
        let hex = |c: &&char| c.is_ascii_hexdigit();
        let before = characters[..at].iter().rev().take_while(hex).count();
        let after = characters[at..].iter().take_while(hex).count();
        after > 0 && before + after >= 16
    };
    (in_hex(expected) && in_hex(found)).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_values_are_compared_and_sentences_are_not() {
        let a = "0123456789abcdef0123";
        assert_eq!(first_difference(a, "0123456789abcdef0124"), Some(19));
        assert_eq!(first_difference(&format!("{a} (policy, image)"), "f123456789abcdef0123"), Some(0));
        assert_eq!(first_difference(&format!("PCR5 {a}"), "PCR5 0123456789abcdee0123"), Some(20));
        assert_eq!(first_difference("one of these", "none of these"), None);
        assert_eq!(first_difference(a, a), None);
        assert_eq!(first_difference("-239", "-4242"), None);
    }

    #[test]
    fn every_exception_has_a_meaning_whatever_its_last_day() {
        assert!(Exceptions::known().iter().all(|(name, _)| !meaning(name).is_empty()));
        assert_eq!(meaning("snp:milan@2026-12-31"), meaning("snp:milan"));
    }
}
