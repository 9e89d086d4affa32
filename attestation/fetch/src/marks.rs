//! The rollback marks: per root, kind and family of platforms, the highest `tcbEvaluationDataNumber` whose signatures held.
//!
//! One text file, a mark per line: root (SHA-256 in hex), `tdx` or `sgx`, FMSPC, number, and the time of its publication in
//! Unix seconds. Marks only rise; a lock keeps two processes from taking each other's back.
//!
//! A mark says nothing about the time before it was published: old evidence verifies as of its own time.

use std::collections::BTreeMap;

use cocoon_attestation::{EvaluationMark, IntelNeeds, UnixTime};

use crate::Cache;
use crate::cache::{CacheError, read_bounded, replace};

const FILE: &str = "marks";
const LOCK: &str = "marks.lock";
/// Most marks. Intel has fewer than a hundred families; beyond that, those that are known keep theirs.
const MAX_MARKS: usize = 4096;

type Marks = BTreeMap<String, EvaluationMark>;

fn key(needs: &IntelNeeds) -> String {
    format!("{} {} {}", hex::encode(needs.root), needs.tee.name(), hex::encode(needs.fmspc))
}

/// Lines that cannot be read are dropped: they protect nothing, and would stay for ever.
fn parse(bytes: &[u8]) -> Marks {
    let text = String::from_utf8_lossy(bytes);
    let mark = |line: &str| {
        let (rest, from) = line.rsplit_once(' ')?;
        let (key, number) = rest.rsplit_once(' ')?;
        let mark = EvaluationMark { number: number.parse().ok()?, from: UnixTime(from.parse().ok()?) };
        Some((key.to_owned(), mark))
    };
    text.lines().filter_map(mark).take(MAX_MARKS).collect()
}

impl Cache {
    /// The highest number seen of the platforms that `needs` speaks of, for a verification as of `at`; 0 if there was none, or
    /// it was published later. It is for [`cocoon_attestation::TrustAnchors::with_evaluation_floor`].
    pub fn mark(&self, needs: &IntelNeeds, at: UnixTime) -> u32 {
        let mark = self.marks().get(&key(needs)).copied();
        mark.filter(|mark| mark.from <= at).map_or(0, |mark| mark.number)
    }

    /// Raises a mark; a lower number changes nothing. Call it with what [`cocoon_attestation::evaluation_mark`] gives alone: a
    /// mark that is too high locks its family out.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn raise_mark(&self, needs: &IntelNeeds, mark: EvaluationMark) -> Result<(), CacheError> {
        let key = key(needs);
        let raised = |known: Option<&EvaluationMark>| {
            known.is_none_or(|known| {
                mark.number > known.number || (mark.number == known.number && mark.from < known.from)
            })
        };
        if !raised(self.marks().get(&key)) {
            return Ok(());
        }
        let path = self.folder().join(LOCK);
        let failed = |source| CacheError { path: path.clone(), source };
        std::fs::create_dir_all(self.folder()).map_err(failed)?;
        let lock = std::fs::File::create(&path).map_err(failed)?;
        lock.lock().map_err(failed)?; // until `lock` is dropped
        let mut marks = self.marks();
        if raised(marks.get(&key)) && (marks.len() < MAX_MARKS || marks.contains_key(&key)) {
            marks.insert(key, mark);
        }
        let line =
            |(key, mark): (&String, &EvaluationMark)| format!("{key} {} {}\n", mark.number, mark.from.0);
        let text: String = marks.iter().map(line).collect();
        replace(self.folder(), FILE, text.as_bytes())
    }

    fn marks(&self) -> Marks {
        read_bounded(&self.folder().join(FILE)).map(|bytes| parse(&bytes)).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use cocoon_attestation::{IntelTee, PckCa};

    use super::*;

    fn needs(root: u8, fmspc: u8) -> IntelNeeds {
        IntelNeeds { fmspc: [fmspc; 6], ca: PckCa::Platform, tee: IntelTee::Tdx, root: [root; 32] }
    }

    const NOW: UnixTime = UnixTime(1_000);

    fn mark(number: u32) -> EvaluationMark {
        EvaluationMark { number, from: UnixTime(900) }
    }

    #[test]
    fn a_mark_only_rises_and_is_its_familys_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(folder.path().join("not there yet"));
        assert_eq!(cache.mark(&needs(1, 1), NOW), 0);
        for number in [17, 19, 18] {
            cache.raise_mark(&needs(1, 1), mark(number)).expect("it can be written");
        }
        cache.raise_mark(&needs(1, 2), mark(5)).expect("it can be written");
        let seen = |root, fmspc| cache.mark(&needs(root, fmspc), NOW);
        assert_eq!([seen(1, 1), seen(1, 2), seen(2, 1)], [19, 5, 0]);
    }

    #[test]
    fn a_mark_says_nothing_of_the_time_before_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(folder.path());
        for (number, from) in [(5, 900), (5, 800), (5, 950)] {
            let mark = EvaluationMark { number, from: UnixTime(from) };
            cache.raise_mark(&needs(1, 1), mark).expect("it can be written");
        }
        let at = |time| cache.mark(&needs(1, 1), UnixTime(time));
        assert_eq!([at(799), at(800), at(1_000)], [0, 5, 5], "the first publication counts");
    }

    #[test]
    fn a_damaged_line_takes_no_other_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(folder.path());
        cache.raise_mark(&needs(1, 1), mark(19)).expect("it can be written");
        let path = folder.path().join(FILE);
        let text = std::fs::read_to_string(&path).expect("the marks");
        std::fs::write(&path, format!("\u{fffd}x\n\nabc 99999999999999\n{text}")).expect("it can be written");
        assert_eq!(cache.mark(&needs(1, 1), NOW), 19);
        cache.raise_mark(&needs(1, 2), mark(3)).expect("it can be written");
        assert_eq!(std::fs::read_to_string(&path).expect("the marks").lines().count(), 2);
    }

    #[test]
    fn threads_do_not_take_each_others_marks_back() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(folder.path());
        std::thread::scope(|scope| {
            for fmspc in 0..8 {
                let cache = &cache;
                scope.spawn(move || {
                    for number in 1..=8 {
                        cache.raise_mark(&needs(1, fmspc), mark(number)).expect("it can be written");
                    }
                });
            }
        });
        assert!((0..8).all(|fmspc| cache.mark(&needs(1, fmspc), NOW) == 8));
    }
}
