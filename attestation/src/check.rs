//! The list of checks: every one is named, in a fixed order, and none is passed by being skipped.

use serde::Serialize;

use crate::{Refusal, RefusalKind};

/// What came out of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It holds.
    Pass,
    /// It does not hold.
    Fail,
    /// It could have been made and was not; `why` says what was missing. Never counts as passed.
    Skip,
    /// There is nothing in this evidence that it is about. For machines it is a skip: `why` tells them apart for people.
    #[serde(rename = "skip")]
    NotApplicable,
}

/// What a check is about, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// Is it genuine hardware, in a state that its vendor stands by?
    Hardware,
    /// Is it in date and recent?
    Freshness,
    /// What runs there, and is it accepted?
    Software,
    /// The GPUs.
    Gpu,
    /// Do the keys belong to it?
    Binding,
}

impl Group {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 5] = [Self::Hardware, Self::Freshness, Self::Software, Self::Gpu, Self::Binding];

    /// Its heading.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hardware => "Hardware",
            Self::Freshness => "Freshness",
            Self::Software => "Software",
            Self::Gpu => "GPU",
            Self::Binding => "Binding",
        }
    }
}

/// One check, as shown to people and machines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Check {
    /// Stable name, for example `tdx.tcb`.
    pub id: &'static str,
    /// What came out.
    pub status: Status,
    /// What must hold.
    pub expected: String,
    /// What was found.
    pub got: String,
    /// What it means.
    pub why: String,
}

impl Check {
    /// What it is about.
    pub fn group(&self) -> Group {
        let (family, name) = self.id.split_once('.').unwrap_or((self.id, ""));
        match (family, name) {
            ("freshness", _) | (_, "validity" | "crl" | "rollback" | "revocation" | "nonce") => {
                Group::Freshness
            }
            ("gpu", _) | ("policy", "gpus") => Group::Gpu,
            ("binding", _) => Group::Binding,
            ("policy", "platform") => Group::Hardware,
            ("policy" | "eventlog", _)
            | (_, "eventlog" | "debug" | "attributes" | "xfam" | "policy" | "pcrs") => Group::Software,
            _ => Group::Hardware,
        }
    }
}

/// Why a check failed, for the refusal.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) kind: RefusalKind,
    pub(crate) expected: String,
    pub(crate) got: String,
    pub(crate) likely: String,
    pub(crate) remedy: String,
}

/// Checks in their fixed order, filled in whatever order the work is done.
pub(crate) struct Checklist {
    entries: Vec<Entry>,
}

struct Entry {
    check: Check,
    made: bool,
    finding: Option<Finding>,
}

const NOT_REACHED: &str = "not reached: an earlier step failed";

impl Checklist {
    pub(crate) fn new(ids: &[&'static str]) -> Self {
        let entry = |&id| Entry {
            check: Check {
                id,
                status: Status::Skip,
                expected: String::new(),
                got: String::new(),
                why: NOT_REACHED.to_owned(),
            },
            made: false,
            finding: None,
        };
        Self { entries: ids.iter().map(entry).collect() }
    }

    fn entry(&mut self, id: &str) -> &mut Entry {
        self.entries
            .iter_mut()
            .find(|e| e.check.id == id)
            .expect("ids are constants of this crate's own lists")
    }

    pub(crate) fn pass(
        &mut self,
        id: &str,
        expected: impl Into<String>,
        got: impl Into<String>,
        why: impl Into<String>,
    ) {
        let entry = self.entry(id);
        if entry.finding.is_some() {
            return; // a failure is never taken back
        }
        entry.made = true;
        entry.check.status = Status::Pass;
        (entry.check.expected, entry.check.got, entry.check.why) = (expected.into(), got.into(), why.into());
    }

    /// Marks a check that could have been made and was not: `why` says what was missing.
    pub(crate) fn skip(&mut self, id: &str, why: impl Into<String>) {
        self.leave_out(id, Status::Skip, why.into());
    }

    /// Marks a check that this evidence has nothing for.
    pub(crate) fn not_applicable(&mut self, id: &str, why: impl Into<String>) {
        self.leave_out(id, Status::NotApplicable, why.into());
    }

    /// What was passed or failed before stays as it is.
    fn leave_out(&mut self, id: &str, status: Status, why: String) {
        let entry = self.entry(id);
        if !entry.made {
            entry.made = true;
            (entry.check.status, entry.check.why) = (status, why);
        }
    }

    pub(crate) fn fail(&mut self, id: &str, finding: Finding) {
        let entry = self.entry(id);
        entry.made = true;
        entry.check.status = Status::Fail;
        entry.check.expected = finding.expected.clone();
        entry.check.got = finding.got.clone();
        entry.check.why = finding.likely.clone();
        entry.finding = Some(finding);
    }

    /// Passes or fails by a condition.
    pub(crate) fn require(&mut self, holds: bool, id: &str, why: &str, finding: impl FnOnce() -> Finding) {
        let finding = finding();
        if holds { self.pass(id, finding.expected, finding.got, why) } else { self.fail(id, finding) }
    }

    /// Takes over the same checks made on several devices, each list under its device's name: a check fails here if it
    /// fails on one, and passes only if it passes on all.
    pub(crate) fn join(&mut self, parts: &[(String, Checklist)]) {
        let Some((_, first)) = parts.first() else { return };
        for id in first.entries.iter().map(|entry| entry.check.id) {
            let made: Vec<(&str, &Entry)> =
                parts.iter().map(|(name, part)| (&name[..], part.of(id))).collect();
            if let Some(finding) = joined_failure(&made) {
                self.fail(id, finding);
            } else if made.iter().all(|(_, entry)| entry.made) {
                let (check, all_pass) = joined(&made);
                if all_pass {
                    self.pass(id, check.expected, check.got, check.why);
                } else {
                    self.skip(id, check.why);
                }
            }
        }
    }

    fn of(&self, id: &str) -> &Entry {
        self.entries.iter().find(|e| e.check.id == id).expect("all parts have the same checks")
    }

    pub(crate) fn failed(&self) -> bool {
        self.entries.iter().any(|e| e.finding.is_some())
    }

    /// Ids of the checks that failed, in order.
    pub(crate) fn failures(&self) -> impl Iterator<Item = &'static str> + '_ {
        self.entries.iter().filter(|e| e.finding.is_some()).map(|e| e.check.id)
    }

    /// All checks if none failed and none was left out; else the first failure in the fixed order.
    pub(crate) fn outcome(self) -> Result<Vec<Check>, Refusal> {
        let first = self.entries.iter().find(|e| e.finding.is_some());
        let left_out = self.entries.iter().find(|e| !e.made);
        let (id, finding) = match (first, left_out) {
            (Some(entry), _) => (entry.check.id, entry.finding.clone().expect("found by it")),
            (None, Some(entry)) => (entry.check.id, never_made()),
            (None, None) => return Ok(self.entries.into_iter().map(|e| e.check).collect()),
        };
        let checks = self.entries.into_iter().map(|e| e.check).collect();
        Err(Refusal::new(id, finding, checks))
    }
}

/// The first failure, named by its device if there are several devices.
fn joined_failure(made: &[(&str, &Entry)]) -> Option<Finding> {
    let mut failures = made.iter().filter_map(|(name, entry)| Some((name, entry.finding.clone()?)));
    let (name, mut finding) = failures.next()?;
    if made.len() > 1 {
        let others = match failures.count() {
            0 => String::new(),
            count => format!(" (and {count} more)"),
        };
        finding.got = format!("{name}: {}{others}", finding.got);
    }
    Some(finding)
}

/// What is shown when no device failed: the words of the first that was not checked, or of the first at all.
fn joined(made: &[(&str, &Entry)]) -> (Check, bool) {
    let skipped = made.iter().find(|(_, entry)| entry.check.status == Status::Skip);
    let (name, entry) = skipped.unwrap_or(&made[0]);
    let mut check = entry.check.clone();
    let several = made.len() > 1;
    if several && skipped.is_some() {
        let all = made.iter().all(|(_, other)| other.check.status == Status::Skip);
        let which = if all { format!("all {}", made.len()) } else { (*name).to_owned() };
        check.why = format!("{which}: {}", check.why);
    } else if several && made.iter().all(|(_, other)| other.check.got == check.got) {
        check.got = format!("all {}: {}", made.len(), check.got);
    } else if several {
        check.got = format!("{name}: {}; {} more pass", check.got, made.len() - 1);
    }
    (check, skipped.is_none())
}

fn never_made() -> Finding {
    Finding {
        kind: RefusalKind::Unavailable,
        expected: "the check is made".into(),
        got: "it was not made".into(),
        likely: "an earlier step ended without a reason".into(),
        remedy: "report this as a fault of the verifier".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding() -> Finding {
        never_made()
    }

    #[test]
    fn a_check_that_was_not_made_is_never_passed() {
        let mut list = Checklist::new(&["a", "b"]);
        list.pass("a", "", "", "");
        assert_eq!(list.outcome().expect_err("b was not made").check, "b");
    }

    #[test]
    fn the_first_failure_in_order_is_reported_whatever_the_order_of_work() {
        let mut list = Checklist::new(&["a", "b", "c"]);
        list.fail("c", finding());
        list.fail("b", finding());
        list.pass("a", "", "", "");
        list.pass("c", "", "", "");
        let refusal = list.outcome().expect_err("two failed");
        assert_eq!(refusal.check, "b");
        assert_eq!(refusal.checks[2].status, Status::Fail, "a failure is not taken back");
    }
}
