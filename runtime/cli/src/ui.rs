//! How things look: colour and marks on a terminal, plain lines elsewhere.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use cocoon_attestation::{Check, Status};
use cocoon_protocol::{Coefficient, Price};

use crate::error::Failure;

/// Where a command writes for people. With `--json` it writes to nobody, and one object goes to standard output.
pub(crate) struct Screen {
    colour: bool,
    terminal: bool,
    silent: bool,
    /// A progress line stands there, to be wiped by the next output.
    pending: AtomicBool,
}

/// Below so many columns, lines are left to the terminal to break.
const NARROWEST: usize = 60;
/// Back to the line's beginning, and clears it.
const WIPE: &str = "\r\x1b[2K";
const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";
const YELLOW: &str = "33";

impl Screen {
    /// Colour only on a terminal, and never against `NO_COLOR` (no-color.org).
    pub(crate) fn new(silent: bool) -> Self {
        let terminal = std::io::stdout().is_terminal();
        let colour = terminal
            && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
            && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        Self { colour, terminal, silent, pending: AtomicBool::new(false) }
    }

    /// How wide the terminal is; `None` where nobody looks: there nothing is wrapped or cut.
    pub(crate) fn columns(&self) -> Option<usize> {
        let size = self.terminal.then(|| rustix::termios::tcgetwinsize(std::io::stdout()).ok()).flatten()?;
        (size.ws_col > 0).then(|| usize::from(size.ws_col).max(NARROWEST))
    }

    /// A terminal without room for what was found beside what it means.
    fn narrow(&self) -> bool {
        const WIDE: usize = 130;
        self.columns().is_some_and(|columns| columns < WIDE)
    }

    fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(crate) fn bold(&self, text: &str) -> String {
        self.paint(BOLD, text)
    }

    pub(crate) fn dim(&self, text: &str) -> String {
        self.paint(DIM, text)
    }

    pub(crate) fn warn(&self, text: &str) -> String {
        self.paint(YELLOW, text)
    }

    pub(crate) fn good(&self, text: &str) -> String {
        self.paint(GREEN, text)
    }

    pub(crate) fn bad(&self, text: &str) -> String {
        self.paint(RED, text)
    }

    /// One line. A reader that went away (`| head`) is no error of ours.
    pub(crate) fn line(&self, text: &str) {
        self.raw(text);
        self.raw("\n");
    }

    /// Text as it comes, flushed: a streaming answer.
    pub(crate) fn raw(&self, text: &str) {
        if !self.silent {
            let wipe = if self.pending.swap(false, Ordering::Relaxed) { WIPE } else { "" };
            let mut out = std::io::stdout().lock();
            let _ = write!(out, "{wipe}{text}").and_then(|()| out.flush());
        }
    }

    /// What is being waited for. On a terminal only; the next output takes its place.
    pub(crate) fn progress(&self, text: &str) {
        if self.terminal && !self.silent {
            let mut out = std::io::stdout().lock();
            let _ = write!(out, "{WIPE}   {}", self.dim(&format!("… {text}"))).and_then(|()| out.flush());
            self.pending.store(true, Ordering::Relaxed);
        }
    }

    /// A numbered step of the journey, with what it is about.
    pub(crate) fn step(&self, number: u8, name: &str, about: &str) {
        self.line("");
        self.line(&format!("{} {}", self.bold(&format!("{number}  {name:<9}")), self.dim(about)));
    }

    /// A detail under a step: a word and what it says.
    pub(crate) fn detail(&self, word: &str, text: &str) {
        self.line(&format!("   {} {text}", self.dim(&format!("{word:<10}"))));
    }

    /// One check of a verdict with its mark.
    pub(crate) fn check(&self, check: &Check) {
        let mark = match check.status {
            Status::Pass => self.good("✓"),
            Status::Fail => self.bad("✗"),
            Status::Skip => self.warn("–"),
            Status::NotApplicable => self.dim("·"),
        };
        let mut line = format!("   {mark} {:<22}", check.id);
        match check.status {
            Status::Pass if self.narrow() => line.push_str(&check.why),
            Status::Pass => line.push_str(&format!(
                "{:<56} {}",
                check.why,
                self.dim(&printable(&abridge(&check.got, 44)))
            )),
            Status::Skip => line.push_str(&self.dim(&format!("skipped: {}", check.why))),
            Status::NotApplicable => line.push_str(&self.dim(&format!("not applicable: {}", check.why))),
            Status::Fail => {
                let _ = write!(
                    line,
                    "{}\n       expected  {}\n       found     {}",
                    check.why,
                    printable(&check.expected),
                    printable(&check.got)
                );
            }
        }
        self.line(&line);
    }
}

/// Long digests keep their ends, so that a line stays a line.
pub(crate) fn shorten(text: &str) -> String {
    abridge(text, 72)
}

/// At most about `limit` characters: two thirds of them from the beginning. Cuts between characters, never inside one.
pub(crate) fn abridge(text: &str, limit: usize) -> String {
    let length = text.chars().count();
    if length <= limit {
        return text.to_owned();
    }
    let head = limit * 2 / 3;
    let tail = limit.saturating_sub(head + 1);
    text.chars().take(head).chain(['…']).chain(text.chars().skip(length - tail)).collect()
}

/// Text from elsewhere, made safe for a terminal: it must not move the cursor, write the clipboard, or turn the line
/// around (bidirectional controls).
pub(crate) fn printable(text: &str) -> String {
    let turns = |c: char| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let harmful = |c: char| (c.is_control() && c != '\n' && c != '\t') || turns(c);
    text.chars().map(|c| if harmful(c) { '\u{fffd}' } else { c }).collect()
}

/// As [`printable`], and on one line: text from elsewhere must not write lines of its own below ours.
pub(crate) fn one_line(text: &str) -> String {
    printable(text).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Breaks a line at spaces into rows of at most `width` characters; a longer word is broken where it must be. At least one
/// row.
pub(crate) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(1);
    let (mut rows, mut row, mut length) = (Vec::new(), String::new(), 0);
    for word in text.split(' ') {
        let mut rest: Vec<char> = word.chars().collect();
        if length > 0 && length + 1 + rest.len() > width {
            rows.push(std::mem::take(&mut row));
            length = 0;
        } else if length > 0 {
            row.push(' ');
            length += 1;
        }
        while rest.len() > width {
            let tail = rest.split_off(width);
            rows.push(rest.into_iter().collect());
            rest = tail;
        }
        length += rest.len();
        row.extend(rest);
    }
    rows.push(row);
    rows
}

/// Writes what a command is for to standard output. A reader that went away is no error; a full disk is.
///
/// # Errors
/// If it cannot be written.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::new(
            format!("cannot write to standard output: {error}"),
            "look where it is redirected to",
        )),
        _ => Ok(()),
    }
}

/// Nanotons as TON, exactly, without trailing zeros: `14250` is `0.00001425`.
pub(crate) fn ton(nanotons: u64) -> String {
    cocoon_contracts::InTon(nanotons).to_string()
}

/// A price in TON; the class of cached tokens only where it differs from that of prompt tokens.
pub(crate) fn price_line(price: &Price) -> String {
    let (prompt, cached, completion) = (ton(price.prompt), ton(price.cached), ton(price.completion));
    let list = if price.cached == price.prompt {
        format!("{prompt} / {completion} TON per million prompt / completion tokens")
    } else {
        format!("{prompt} / {cached} / {completion} TON per million prompt / cached / completion tokens")
    };
    if price.coefficient == Coefficient::ONE { list } else { format!("{list}, times {}", price.coefficient) }
}

/// A difference of two balances with its sign.
pub(crate) fn ton_change(before: u64, after: u64) -> String {
    if after >= before { format!("+{}", ton(after - before)) } else { format!("−{}", ton(before - after)) }
}

/// `1 request`, `1,200 requests`.
pub(crate) fn counted(number: u64, what: &str) -> String {
    let many = if number == 1 { "" } else { "s" };
    format!("{} {what}{many}", grouped(number))
}

/// `1234567` is `1,234,567`.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ton_is_exact_and_short() {
        assert_eq!(ton(14_250), "0.00001425");
        assert_eq!(ton(1_000_000_000), "1");
        assert_eq!(ton(0), "0");
        assert_eq!(ton(u64::MAX), "18446744073.709551615");
        assert_eq!(ton_change(5, 3), "−0.000000002");
    }

    #[test]
    fn a_worker_cannot_steer_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc\u{9b}d"), "a\u{fffd}[2Jb\nc\u{fffd}d");
        assert_eq!(printable("a\u{202e}b"), "a\u{fffd}b");
    }

    #[test]
    fn text_from_elsewhere_writes_no_line_of_its_own() {
        assert_eq!(one_line("a\nverdict TRUSTED\t\r b"), "a verdict TRUSTED \u{fffd} b");
    }

    #[test]
    fn lines_are_wrapped_at_spaces_and_long_words_where_they_must_be() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("ab abcdefgh c", 4), ["ab", "abcd", "efgh", "c"]);
        assert_eq!(wrap("", 4), [""]);
        assert_eq!(wrap("a  b", usize::MAX), ["a  b"]);
        for width in 1..20 {
            assert!(
                wrap("some words of düfferent length", width).iter().all(|row| row.chars().count() <= width)
            );
        }
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(123), "123");
    }

    #[test]
    fn shortening_never_cuts_a_character() {
        let long = "ü".repeat(200);
        assert_eq!(shorten(&long).chars().count(), 72);
    }
}
