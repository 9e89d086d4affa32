//! Which statements are current, and which requests were taken under each.

use crate::RequestError;
use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Remembers the last few statements that a guest issued, and per statement every request id it took.
///
/// Nothing is ever forgotten while it could be replayed: when a statement's ids reach the limit it takes no more
/// requests, and ids are dropped only together with their statement.
pub struct ReplayGuard {
    statements: usize,
    ids: usize,
    current: Mutex<VecDeque<Issued>>,
}

struct Issued {
    statement: [u8; 32],
    taken: HashSet<[u8; 16]>,
}

impl ReplayGuard {
    /// Remembers at most `statements` statements and `ids_per_statement` requests under each; both at least 1.
    pub fn new(statements: usize, ids_per_statement: usize) -> Self {
        Self { statements: statements.max(1), ids: ids_per_statement.max(1), current: Mutex::default() }
    }

    /// A statement was issued; the oldest is forgotten when there are too many. Issuing one again while it is current
    /// changes nothing. One that was forgotten must never be issued again, since its requests could then be replayed:
    /// that is what the serial number in every statement is for.
    pub fn issue(&self, statement: [u8; 32]) {
        let mut current = self.lock();
        if current.iter().any(|issued| issued.statement == statement) {
            return;
        }
        if current.len() == self.statements {
            current.pop_front();
        }
        current.push_back(Issued { statement, taken: HashSet::new() });
    }

    /// No request under any statement so far is taken: what they speak of has changed.
    pub fn forget(&self) {
        self.lock().clear();
    }

    /// Whether requests under this statement are taken at all.
    pub fn is_current(&self, statement: &[u8; 32]) -> bool {
        self.lock().iter().any(|issued| issued.statement == *statement)
    }

    /// Takes a request, once.
    pub(crate) fn take(&self, statement: &[u8; 32], request_id: [u8; 16]) -> Result<(), RequestError> {
        let mut current = self.lock();
        let issued = current.iter_mut().find(|issued| issued.statement == *statement);
        let issued = issued.ok_or(RequestError::StaleStatement)?;
        if issued.taken.contains(&request_id) {
            return Err(RequestError::Replayed);
        }
        if issued.taken.len() >= self.ids {
            return Err(RequestError::Exhausted);
        }
        issued.taken.insert(request_id);
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Issued>> {
        // No code under this lock can leave it half changed.
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_that_are_forgotten_take_nothing() {
        let guard = ReplayGuard::new(2, 10);
        guard.issue([1; 32]);
        guard.forget();
        assert!(!guard.is_current(&[1; 32]) && guard.take(&[1; 32], [1; 16]).is_err());
    }

    #[test]
    fn a_request_id_is_taken_once_per_statement() {
        let guard = ReplayGuard::new(2, 10);
        guard.issue([1; 32]);
        assert_eq!(guard.take(&[1; 32], [7; 16]), Ok(()));
        guard.issue([1; 32]);
        assert_eq!(guard.take(&[1; 32], [7; 16]), Err(RequestError::Replayed));
        assert_eq!(guard.take(&[2; 32], [7; 16]), Err(RequestError::StaleStatement));
    }

    #[test]
    fn a_full_guard_refuses_rather_than_forgets() {
        let guard = ReplayGuard::new(1, 2);
        guard.issue([1; 32]);
        assert_eq!(guard.take(&[1; 32], [1; 16]), Ok(()));
        assert_eq!(guard.take(&[1; 32], [2; 16]), Ok(()));
        assert_eq!(guard.take(&[1; 32], [3; 16]), Err(RequestError::Exhausted));
        assert_eq!(guard.take(&[1; 32], [1; 16]), Err(RequestError::Replayed));
    }

    #[test]
    fn ids_are_forgotten_only_with_their_statement() {
        let guard = ReplayGuard::new(2, 2);
        for statement in 1..=3 {
            guard.issue([statement; 32]);
        }
        assert!(!guard.is_current(&[1; 32]));
        assert_eq!(guard.take(&[1; 32], [1; 16]), Err(RequestError::StaleStatement));
        assert_eq!(guard.take(&[2; 32], [1; 16]), Ok(()));
        assert_eq!(guard.take(&[3; 32], [1; 16]), Ok(()));
    }
}
