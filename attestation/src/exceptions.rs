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

/// Profiles: platforms that differ in one thing, by name. `profile:azure` tolerates SEPT_VE_DISABLE = 0, which Azure's
/// paravisor needs.
const PROFILES: [&str; 1] = [PROFILE_AZURE];
/// TDX behind Azure's paravisor.
pub(crate) const PROFILE_AZURE: &str = "profile:azure";

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
    "{0:?} is not an exception; known are profile:azure and tcb:STATUS, each with an optional @YYYY-MM-DD, with STATUS one of OutOfDate, SWHardeningNeeded, \
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
        let status = match PROFILES.into_iter().find(|known| *known == status) {
            Some(profile) => profile,
            None => {
                let status = status.strip_prefix("tcb:").ok_or_else(unknown)?;
                TOLERABLE.into_iter().find(|known| *known == status).ok_or_else(unknown)?
            }
        };
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

    pub(crate) fn tolerates_tcb(&self, status: &str, now: UnixTime) -> bool {
        status == "UpToDate" || self.tolerates(status, now)
    }

    /// Is this exception named, and in force?
    pub(crate) fn tolerates(&self, name: &str, now: UnixTime) -> bool {
        let in_force = |e: &Exception| e.status == name && e.until.is_none_or(|until| now <= until);
        self.entries.iter().any(in_force)
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
    fn a_profile_is_no_tcb_status() {
        let list: Exceptions = "profile:azure@2026-12-31".parse().expect("a known name");
        assert!(list.tolerates(PROFILE_AZURE, UnixTime(0)) && !list.tolerates_tcb("OutOfDate", UnixTime(0)));
        assert!("tcb:profile:azure".parse::<Exceptions>().is_err());
    }

    #[test]
    fn revoked_and_debug_have_no_name() {
        for name in ["tcb:Revoked", "tdx:debug", "debug", "tcb:", "tcb:outofdate", "*", "tcb:*"] {
            assert!(Exceptions::none().with(name).is_err(), "{name}");
        }
    }
}
