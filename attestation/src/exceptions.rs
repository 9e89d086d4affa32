//! What a verifier tolerates, by name. Nothing by default.

use std::str::FromStr;

use crate::UnixTime;

/// TCB states that may be tolerated. `Revoked` is not among them, and never will be.
const TOLERABLE: [&str; 8] = [
    "ConfigurationAndSWHardeningNeeded",
    "ConfigurationNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "SWHardeningNeeded",
    "TDRelaunchAdvised",
    "TDRelaunchAdvisedConfigurationNeeded",
    "UpToDate",
];

/// At most this many exceptions are kept.
const MAX_EXCEPTIONS: usize = 16;

/// Named exceptions, for example `tcb:OutOfDate` or, with an expiry, `tcb:OutOfDate@2026-12-31`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exceptions {
    entries: Vec<Exception>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Exception {
    status: &'static str,
    until: Option<UnixTime>,
}

/// A name that is not an exception this verifier knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an exception; known are tcb:STATUS[@YYYY-MM-DD] with STATUS one of OutOfDate, SWHardeningNeeded, \
         ConfigurationNeeded, ConfigurationAndSWHardeningNeeded, OutOfDateConfigurationNeeded, TDRelaunchAdvised, \
         TDRelaunchAdvisedConfigurationNeeded; at most 16"
)]
pub struct UnknownException(pub String);

impl Exceptions {
    /// Tolerates nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Adds one exception by its name.
    ///
    /// # Errors
    /// If the name is not known, or too many are named.
    pub fn with(mut self, name: &str) -> Result<Self, UnknownException> {
        let unknown = || UnknownException(name.to_owned());
        let (status, until) = match name.split_once('@') {
            Some((status, day)) => (status, Some(UnixTime::end_of_day(day).ok_or_else(unknown)?)),
            None => (name, None),
        };
        let status = status.strip_prefix("tcb:").ok_or_else(unknown)?;
        let status = TOLERABLE.into_iter().find(|known| *known == status).ok_or_else(unknown)?;
        if self.entries.len() == MAX_EXCEPTIONS {
            return Err(unknown());
        }
        self.entries.push(Exception { status, until });
        Ok(self)
    }

    /// Parses a list of names.
    ///
    /// # Errors
    /// At the first name that is not known.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, UnknownException> {
        names.into_iter().try_fold(Self::none(), Self::with)
    }

    /// Their names, as they are written.
    pub fn names(&self) -> Vec<String> {
        let day = |until: &UnixTime| format!("@{}", &until.to_string()[..10]);
        let name =
            |e: &Exception| format!("tcb:{}{}", e.status, e.until.as_ref().map(day).unwrap_or_default());
        self.entries.iter().map(name).collect()
    }

    /// What both tolerate, each only as long as both do.
    pub(crate) fn both(&self, other: &Self) -> Self {
        let pairs = self.entries.iter().flat_map(|a| other.entries.iter().map(move |b| (a, b)));
        let entries = pairs
            .filter(|(a, b)| a.status == b.status)
            .map(|(a, b)| Exception {
                status: a.status,
                until: [a.until, b.until].into_iter().flatten().min(),
            })
            .collect();
        Self { entries }
    }

    pub(crate) fn tolerates_tcb(&self, status: &str, now: UnixTime) -> bool {
        let in_force = |e: &Exception| e.status == status && e.until.is_none_or(|until| now <= until);
        status == "UpToDate" || self.entries.iter().any(in_force)
    }
}

/// Names separated by commas.
impl FromStr for Exceptions {
    type Err = UnknownException;

    fn from_str(text: &str) -> Result<Self, UnknownException> {
        Self::parse(text.split(',').map(str::trim).filter(|name| !name.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_up_to_date_is_tolerated_by_default() {
        let none = Exceptions::none();
        assert!(none.tolerates_tcb("UpToDate", UnixTime(0)));
        for status in TOLERABLE.into_iter().filter(|s| *s != "UpToDate").chain(["Revoked", ""]) {
            assert!(!none.tolerates_tcb(status, UnixTime(0)), "{status}");
        }
    }

    #[test]
    fn an_exception_ends_with_its_day() {
        let list: Exceptions = "tcb:OutOfDate@2026-12-31".parse().expect("a known name");
        let last = UnixTime::end_of_day("2026-12-31").expect("a day");
        assert!(list.tolerates_tcb("OutOfDate", last));
        assert!(!list.tolerates_tcb("OutOfDate", UnixTime(last.0 + 1)));
        assert!(!list.tolerates_tcb("SWHardeningNeeded", last));
    }

    #[test]
    fn revoked_and_debug_have_no_name() {
        for name in ["tcb:Revoked", "tdx:debug", "debug", "tcb:", "tcb:outofdate", "*", "tcb:*"] {
            assert!(Exceptions::none().with(name).is_err(), "{name}");
        }
    }
}
