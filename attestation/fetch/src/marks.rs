//! The rollback marks: per root, kind and family of platforms, the highest `tcbEvaluationDataNumber` whose signatures held.
//!
//! One text file, a mark per line: root (SHA-256 in hex), `tdx` or `sgx`, FMSPC, number. Marks only rise; a lock keeps two
//! processes from taking each other's back.

use std::collections::BTreeMap;

use cocoon_attestation::IntelNeeds;

use crate::cache::{CacheError, read_bounded, replace};
use crate::{Cache, cache};

const FILE: &str = "marks";
const LOCK: &str = "marks.lock";
/// Most marks. Intel has fewer than a hundred families; beyond that, those that are known keep theirs.
const MAX_MARKS: usize = 4096;

type Marks = BTreeMap<String, u32>;

fn key(needs: &IntelNeeds) -> String {
    format!("{} {} {}", hex::encode(needs.root), needs.tee.name(), hex::encode(needs.fmspc))
}

/// Lines that cannot be read are dropped: they protect nothing, and would stay for ever.
fn parse(bytes: &[u8]) -> Marks {
    let text = String::from_utf8_lossy(bytes);
    let mark = |line: &str| {
        let (key, number) = line.rsplit_once(' ')?;
        Some((key.to_owned(), number.parse().ok()?))
    };
    text.lines().filter_map(mark).take(MAX_MARKS).collect()
}

impl Cache {
    /// The highest number seen of the platforms that `needs` speaks of; 0 if there was none. It is for
    /// [`cocoon_attestation::TrustAnchors::with_evaluation_floor`].
    pub fn mark(&self, needs: &IntelNeeds) -> u32 {
        let marks = read_bounded(&self.folder().join(FILE)).map(|bytes| parse(&bytes)).unwrap_or_default();
        marks.get(&key(needs)).copied().unwrap_or(0)
    }

    /// Raises a mark; a lower number changes nothing. Call it with numbers whose signatures hold alone
    /// ([`cocoon_attestation::signed_evaluation_number`]): a mark that is too high locks its family out.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn raise_mark(&self, needs: &IntelNeeds, number: u32) -> Result<(), CacheError> {
        if self.mark(needs) >= number {
            return Ok(());
        }
        let path = self.folder().join(LOCK);
        let failed = |source| cache::CacheError { path: path.clone(), source };
        std::fs::create_dir_all(self.folder()).map_err(failed)?;
        let lock = std::fs::File::create(&path).map_err(failed)?;
        lock.lock().map_err(failed)?; // until `lock` is dropped
        let mut marks =
            read_bounded(&self.folder().join(FILE)).map(|bytes| parse(&bytes)).unwrap_or_default();
        if marks.len() < MAX_MARKS || marks.contains_key(&key(needs)) {
            let mark = marks.entry(key(needs)).or_default();
            *mark = number.max(*mark);
        }
        let text: String = marks.iter().map(|(key, number)| format!("{key} {number}\n")).collect();
        replace(self.folder(), FILE, text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use cocoon_attestation::{IntelTee, PckCa};

    use super::*;

    fn needs(root: u8, fmspc: u8) -> IntelNeeds {
        IntelNeeds { fmspc: [fmspc; 6], ca: PckCa::Platform, tee: IntelTee::Tdx, root: [root; 32] }
    }

    #[test]
    fn a_mark_only_rises_and_is_its_familys_own() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(folder.path().join("not there yet"));
        assert_eq!(cache.mark(&needs(1, 1)), 0);
        for number in [17, 19, 18] {
            cache.raise_mark(&needs(1, 1), number).expect("it can be written");
        }
        cache.raise_mark(&needs(1, 2), 5).expect("it can be written");
        assert_eq!(
            [cache.mark(&needs(1, 1)), cache.mark(&needs(1, 2)), cache.mark(&needs(2, 1))],
            [19, 5, 0]
        );
    }

    #[test]
    fn a_damaged_line_takes_no_other_with_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let cache = Cache::at(folder.path());
        cache.raise_mark(&needs(1, 1), 19).expect("it can be written");
        let path = folder.path().join(FILE);
        let text = std::fs::read_to_string(&path).expect("the marks");
        std::fs::write(&path, format!("\u{fffd}x\n\nabc 99999999999999\n{text}")).expect("it can be written");
        assert_eq!(cache.mark(&needs(1, 1)), 19);
        cache.raise_mark(&needs(1, 2), 3).expect("it can be written");
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
                        cache.raise_mark(&needs(1, fmspc), number).expect("it can be written");
                    }
                });
            }
        });
        assert!((0..8).all(|fmspc| cache.mark(&needs(1, fmspc)) == 8));
    }
}
