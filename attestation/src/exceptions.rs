//! What a verifier tolerates, by name. Nothing by default.

use std::str::FromStr;

use crate::UnixTime;

/// Every exception there is, with what naming it means. What has no name is never tolerated: debug, a revoked TCB, bad
/// signatures.
const KNOWN: [(&str, &str); 13] = [
    (
        "tcb:ConfigurationAndSWHardeningNeeded",
        "Intel: needs another BIOS setting, and software must defend itself",
    ),
    ("tcb:ConfigurationNeeded", "Intel: needs another BIOS setting to be safe"),
    ("tcb:OutOfDate", "Intel: firmware, TDX module or quoting enclave has known weaknesses"),
    ("tcb:OutOfDateConfigurationNeeded", "Intel: known weaknesses, and needs another BIOS setting"),
    ("tcb:SWHardeningNeeded", "Intel: up to date, but software must defend itself"),
    ("tcb:TDRelaunchAdvised", "Intel: the TDX module was updated after the guest was launched"),
    ("tcb:TDRelaunchAdvisedConfigurationNeeded", "Intel: the same, and needs another BIOS setting"),
    ("snp:milan", "AMD: EPYC 7003, whose endorsement keys are held to be extractable by software"),
    ("snp:no-alias-check", "AMD: firmware does not say that memory was checked for aliases (BadRAM)"),
    ("snp:vmpl1", "AMD: the report was asked for at VMPL 1; what runs at VMPL 0 is not ours"),
    ("snp:vmpl2", "AMD: the same at VMPL 2"),
    ("snp:vmpl3", "AMD: the same at VMPL 3"),
    (
        "profile:azure",
        "Azure: Microsoft's paravisor runs below the guest, and speaks for it through a virtual TPM",
    ),
];

/// Behind Azure's paravisor: tolerates SEPT_VE_DISABLE = 0 in a TD, and evidence through its virtual TPM.
pub(crate) const PROFILE_AZURE: &str = "profile:azure";

/// At most this many exceptions are kept.
const MAX_EXCEPTIONS: usize = 16;

/// Named exceptions, for example `tcb:OutOfDate` or, with its last day, `tcb:OutOfDate@2026-12-31`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Exceptions {
    entries: Vec<Exception>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Exception {
    name: &'static str,
    until: Option<UnixTime>,
}

/// A name that is not an exception this verifier knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not an exception; known are {known}, each with an optional last day as in NAME@2026-12-31; at most \
     {MAX_EXCEPTIONS}",
    known = KNOWN.map(|(name, _)| name).join(", ")
)]
pub struct UnknownException(pub String);

impl Exceptions {
    /// Tolerates nothing.
    pub fn none() -> Self {
        Self::default()
    }

    /// Every name there is, with what naming it means.
    pub fn known() -> &'static [(&'static str, &'static str)] {
        &KNOWN
    }

    /// Adds one exception by its name.
    ///
    /// # Errors
    /// If the name is not known, or too many are named.
    pub fn with(mut self, name: &str) -> Result<Self, UnknownException> {
        let unknown = || UnknownException(name.to_owned());
        let (wanted, until) = match name.split_once('@') {
            Some((wanted, day)) => (wanted, Some(UnixTime::end_of_day(day).ok_or_else(unknown)?)),
            None => (name, None),
        };
        let (name, _) = KNOWN.into_iter().find(|(known, _)| *known == wanted).ok_or_else(unknown)?;
        if self.entries.len() == MAX_EXCEPTIONS {
            return Err(unknown());
        }
        self.entries.push(Exception { name, until });
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
        let name = |e: &Exception| format!("{}{}", e.name, e.until.as_ref().map(day).unwrap_or_default());
        self.entries.iter().map(name).collect()
    }

    /// What both tolerate, each only as long as both do.
    pub(crate) fn both(&self, other: &Self) -> Self {
        let pairs = self.entries.iter().flat_map(|a| other.entries.iter().map(move |b| (a, b)));
        let entries = pairs
            .filter(|(a, b)| a.name == b.name)
            .map(|(a, b)| Exception { name: a.name, until: [a.until, b.until].into_iter().flatten().min() })
            .collect();
        Self { entries }
    }

    /// Was it named, and is its last day not over?
    pub(crate) fn in_force(&self, name: &str, now: UnixTime) -> bool {
        debug_assert!(KNOWN.iter().any(|(known, _)| *known == name), "{name} has no line in KNOWN");
        self.entries.iter().any(|e| e.name == name && e.until.is_none_or(|until| now <= until))
    }

    /// Is Intel's TCB status tolerated?
    pub(crate) fn tolerates_tcb(&self, status: &str, now: UnixTime) -> bool {
        let named = |e: &Exception| e.name.strip_prefix("tcb:") == Some(status);
        let in_force = |e: &Exception| named(e) && e.until.is_none_or(|until| now <= until);
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
        for (name, _) in KNOWN {
            let status = name.strip_prefix("tcb:").unwrap_or_default();
            assert!(!none.tolerates_tcb(status, UnixTime(0)) && !none.in_force(name, UnixTime(0)), "{name}");
        }
        assert!(!none.tolerates_tcb("Revoked", UnixTime(0)));
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
    fn every_known_name_is_taken_and_tolerates_itself_alone() {
        for (name, _) in KNOWN {
            let list = Exceptions::none().with(name).expect("a known name");
            for (other, _) in KNOWN {
                assert_eq!(list.in_force(other, UnixTime(0)), name == other, "{name}: {other}");
                if let Some(status) = other.strip_prefix("tcb:") {
                    assert_eq!(list.tolerates_tcb(status, UnixTime(0)), name == other, "{name}: {other}");
                }
            }
        }
        let told = UnknownException("x".into()).to_string();
        assert!(KNOWN.iter().all(|(name, _)| told.contains(name)), "{told}");
    }

    #[test]
    fn revoked_and_debug_have_no_name() {
        for name in [
            "tcb:Revoked",
            "tdx:debug",
            "snp:debug",
            "snp:vmpl0",
            "debug",
            "tcb:",
            "tcb:outofdate",
            "*",
            "tcb:*",
        ] {
            assert!(Exceptions::none().with(name).is_err(), "{name}");
        }
    }
}
