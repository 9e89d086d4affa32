//! The report for people.

use super::report::{Check, Outcome, Report, TeeChoice};

/// What a piece of text is, for whoever paints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A heading.
    Title,
    /// ✓.
    Good,
    /// !.
    Warning,
    /// ✗.
    Bad,
    /// Beside the point.
    Dim,
}

/// Paints text.
pub trait Style {
    /// `text`, painted.
    fn paint(&self, mark: Mark, text: &str) -> String;
    /// How wide lines may be, in characters; `None` leaves them as they are.
    fn columns(&self) -> Option<usize> {
        None
    }
}

/// No paint.
#[derive(Debug, Clone, Copy)]
pub struct Plain;

impl Style for Plain {
    fn paint(&self, _: Mark, text: &str) -> String {
        text.to_owned()
    }
}

const INDENT: usize = 5;
const ID: usize = 22;

impl Report {
    /// Lines for a terminal: grouped, each check with its mark, remedies indented, the verdict last.
    pub fn text(&self, style: &dyn Style) -> String {
        let mut out = format!("{} {}\n", style.paint(Mark::Title, "cocoon host doctor"), self.subject());
        for checks in self.checks.chunk_by(|a, b| a.group == b.group) {
            let title = checks.first().map(|check| check.group.title()).unwrap_or_default();
            out.push_str(&format!("\n{}\n", style.paint(Mark::Title, title)));
            for check in checks.iter().filter(|check| check.result != Outcome::NotApplicable) {
                line(&mut out, style, check);
            }
            needless(&mut out, style, checks);
        }
        let mark = if self.verdict.ready { Mark::Good } else { Mark::Bad };
        let verdict = format!("verdict: {}", self.verdict.text);
        out.push_str(&format!("\n{} · next: {}\n", style.paint(mark, &verdict), self.verdict.next));
        out
    }

    fn subject(&self) -> String {
        match self.tee_choice {
            TeeChoice::Named => format!("for {}, as asked", self.tee),
            TeeChoice::Cpu => format!("for {}, which this CPU is made for", self.tee),
            TeeChoice::Neither => {
                "for development guests: this machine can run development guests (emulation) only".into()
            }
        }
    }
}

/// What is of no matter, on one line for each reason: it is not what people look for.
fn needless(out: &mut String, style: &dyn Style, checks: &[Check]) {
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for check in checks.iter().filter(|check| check.result == Outcome::NotApplicable) {
        match reasons.iter_mut().find(|(reason, _)| *reason == check.reason) {
            Some((_, ids)) => ids.push(check.id),
            None => reasons.push((&check.reason, vec![check.id])),
        }
    }
    for (reason, ids) in reasons {
        let said = format!("not applicable: {}; {}", ids.join(", "), printable(reason));
        let width = style.columns().map(|columns| columns.saturating_sub(INDENT).max(20));
        for (number, row) in wrap(&said, width).iter().enumerate() {
            let sign = if number == 0 { "–" } else { " " };
            out.push_str(&format!("  {}\n", style.paint(Mark::Dim, &format!("{sign} {row}"))));
        }
    }
}

fn line(out: &mut String, style: &dyn Style, check: &Check) {
    let (mark, sign) = match check.result {
        Outcome::Ok => (Mark::Good, "✓"),
        Outcome::Warn => (Mark::Warning, "!"),
        Outcome::Fail => (Mark::Bad, "✗"),
        Outcome::Skipped | Outcome::NotApplicable => (Mark::Dim, "–"),
    };
    let found = printable(&check.found);
    let reason = printable(&check.reason);
    let said = match check.result {
        Outcome::Ok if reason.is_empty() => found,
        Outcome::Ok => format!("{found}: {reason}"),
        Outcome::Warn => format!("{found}: {reason}"),
        Outcome::Fail => format!("{found} (needed: {}): {reason}", printable(&check.expected)),
        Outcome::Skipped | Outcome::NotApplicable => format!("skipped: {reason}"),
    };
    let width = style.columns().map(|columns| columns.saturating_sub(INDENT + ID).max(20));
    let rows = wrap(&said, width);
    let quiet = mark == Mark::Dim;
    for (number, row) in rows.iter().enumerate() {
        let row = if quiet { style.paint(Mark::Dim, row) } else { row.clone() };
        match number {
            0 => out.push_str(&format!("  {} {:<ID$}{row}\n", style.paint(mark, sign), check.id)),
            _ => out.push_str(&format!("    {:<ID$}{row}\n", "")),
        }
    }
    if let Some(remedy) = check.remedy.as_deref() {
        let width = style.columns().map(|columns| columns.saturating_sub(INDENT + 3).max(20));
        for (number, row) in wrap(&printable(remedy), width).iter().enumerate() {
            let arrow = if number == 0 { "→" } else { " " };
            out.push_str(&format!("      {arrow} {row}\n"));
        }
    }
}

/// Devices, programs and files are quoted: their text must not steer the terminal.
fn printable(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let clean: String = text
        .chars()
        .map(|c| {
            if c.is_whitespace() {
                ' '
            } else if c.is_control() || turns(c) {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect();
    clean.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

fn wrap(text: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width else { return vec![text.to_owned()] };
    let mut rows = vec![String::new()];
    for word in text.split(' ') {
        let row = rows.last_mut().expect("there is a row");
        if !row.is_empty() && row.chars().count() + 1 + word.chars().count() > width {
            rows.push(word.to_owned());
            continue;
        }
        if !row.is_empty() {
            row.push(' ');
        }
        row.push_str(word);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::super::report::{Group, Tee};
    use super::*;

    #[test]
    fn a_report_is_grouped_and_ends_with_the_verdict() {
        let checks = vec![
            Check::new("cpu.tee", Group::Processor, "a Xeon", "a\x1b[2J Xeon").ok("made for TDX"),
            Check::new("kernel.version", Group::Kernel, "at least 6.16", "6.8")
                .fail("too old", "install a newer one"),
            Check::new("kernel.tee", Group::Kernel, "Y", "").skipped("kernel.version comes first"),
            Check::new("gpu.group", Group::Gpus, "", "").not_applicable("no GPU"),
            Check::new("gpu.free", Group::Gpus, "", "").not_applicable("no GPU"),
        ];
        let report = Report::of(Tee::Tdx, TeeChoice::Cpu, checks);
        assert_eq!(
            report.text(&Plain),
            "cocoon host doctor for Intel TDX, which this CPU is made for\n\
             \nprocessor and BIOS\n\
             \x20 ✓ cpu.tee               a\u{fffd}[2J Xeon: made for TDX\n\
             \nkernel\n\
             \x20 ✗ kernel.version        6.8 (needed: at least 6.16): too old\n\
             \x20     → install a newer one\n\
             \x20 – kernel.tee            skipped: kernel.version comes first\n\
             \nGPUs\n\
             \x20 – not applicable: gpu.group, gpu.free; no GPU\n\
             \nverdict: not ready for confidential guests with Intel TDX: kernel.version failed · \
             next: mend kernel.version, then cocoon host doctor again\n"
        );
    }

    #[test]
    fn rows_are_no_wider_than_the_terminal_unless_a_word_is() {
        let rows = wrap("one two three four five", Some(9));
        assert_eq!(rows, ["one two", "three", "four five"]);
    }
}
