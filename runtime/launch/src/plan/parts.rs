//! The small values of a plan: each is within its limits from the moment it exists.

use std::{fmt, num::NonZeroU16, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a value cannot be one of a plan's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct PartError(pub(super) String);

/// Most virtual CPUs of one guest.
pub const MAX_VCPUS: u16 = 512;
/// Least and most memory of one guest, in MiB.
pub const MIN_MEMORY: u64 = 256;
/// See [`MIN_MEMORY`].
pub const MAX_MEMORY: u64 = 16 * 1024 * 1024;
/// Most characters of a guest's name.
pub const MAX_NAME: usize = 32;

/// A guest's name on its host: lower-case letters, digits and `-`; it names folders and log lines.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GuestName(String);

impl GuestName {
    /// As text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for GuestName {
    type Err = PartError;

    fn from_str(text: &str) -> Result<Self, PartError> {
        let letters = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if text.is_empty() || text.len() > MAX_NAME || !text.chars().all(letters) || text.starts_with('-') {
            return Err(PartError(format!(
                "{text:?} is no guest's name; take 1 to {MAX_NAME} of a-z, 0-9 and -, not starting with -"
            )));
        }
        Ok(Self(text.to_owned()))
    }
}

/// A guest's address on the host's vsock: 3 to 4294967294. 0 to 2 are the hypervisor, loopback and the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Cid(u32);

impl TryFrom<u32> for Cid {
    type Error = PartError;

    fn try_from(cid: u32) -> Result<Self, PartError> {
        if !(3..u32::MAX).contains(&cid) {
            return Err(PartError(format!("{cid} is no guest's CID; take one from 3 to {}", u32::MAX - 1)));
        }
        Ok(Self(cid))
    }
}

impl From<Cid> for u32 {
    fn from(cid: Cid) -> Self {
        cid.0
    }
}

/// Virtual CPUs: 1 to [`MAX_VCPUS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u16", into = "u16")]
pub struct Vcpus(NonZeroU16);

impl TryFrom<u16> for Vcpus {
    type Error = PartError;

    fn try_from(count: u16) -> Result<Self, PartError> {
        let refused = || PartError(format!("{count} virtual CPUs; take 1 to {MAX_VCPUS}"));
        NonZeroU16::new(count).filter(|c| c.get() <= MAX_VCPUS).map(Self).ok_or_else(refused)
    }
}

impl From<Vcpus> for u16 {
    fn from(count: Vcpus) -> Self {
        count.0.get()
    }
}

/// A guest's memory in MiB: [`MIN_MEMORY`] to [`MAX_MEMORY`]. In text with a unit: `512 MiB`, `96 GiB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Memory(u64);

impl Memory {
    /// So many MiB.
    ///
    /// # Errors
    /// Outside [`MIN_MEMORY`] to [`MAX_MEMORY`].
    pub fn mib(mib: u64) -> Result<Self, PartError> {
        if !(MIN_MEMORY..=MAX_MEMORY).contains(&mib) {
            return Err(PartError(format!(
                "{mib} MiB of memory; take {MIN_MEMORY} MiB to {} GiB",
                MAX_MEMORY / 1024
            )));
        }
        Ok(Self(mib))
    }

    /// In MiB.
    pub fn as_mib(self) -> u64 {
        self.0
    }
}

impl FromStr for Memory {
    type Err = PartError;

    fn from_str(text: &str) -> Result<Self, PartError> {
        let refused =
            || PartError(format!("{text:?} is no amount of memory; write it as \"512 MiB\" or \"96 GiB\""));
        let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(refused)?;
        let (number, unit) = text.split_at(split);
        let number: u64 = number.parse().map_err(|_| refused())?;
        let factor = match unit.trim_start() {
            "MiB" => 1,
            "GiB" => 1024,
            _ => return Err(refused()),
        };
        Self::mib(number.checked_mul(factor).ok_or_else(refused)?)
    }
}

impl fmt::Display for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            gib if gib.is_multiple_of(1024) => write!(f, "{} GiB", gib / 1024),
            mib => write!(f, "{mib} MiB"),
        }
    }
}

impl fmt::Display for GuestName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Cid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for Vcpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Text both ways for serde, by the types' own.
macro_rules! text_both_ways {
    ($($name:ty),*) => {$(
        impl TryFrom<String> for $name {
            type Error = PartError;

            fn try_from(text: String) -> Result<Self, PartError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.to_string()
            }
        }
    )*};
}

text_both_ways!(GuestName, Memory);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_has_a_unit_and_limits() {
        assert_eq!("96 GiB".parse::<Memory>().expect("good").as_mib(), 96 * 1024);
        assert_eq!("512MiB".parse::<Memory>().expect("good").to_string(), "512 MiB");
        for bad in [
            "",
            "512",
            "512 MB",
            "255 MiB",
            "16385 GiB",
            "99999999999999999999 GiB",
            "18446744073709551615 GiB",
            "-1 GiB",
        ] {
            assert!(bad.parse::<Memory>().is_err(), "{bad}");
        }
    }

    #[test]
    fn cids_vcpus_and_names_are_within_their_limits() {
        for (cid, good) in [(0, false), (2, false), (3, true), (u32::MAX - 1, true), (u32::MAX, false)] {
            assert_eq!(Cid::try_from(cid).is_ok(), good, "{cid}");
        }
        for (count, good) in [(0, false), (1, true), (512, true), (513, false)] {
            assert_eq!(Vcpus::try_from(count).is_ok(), good, "{count}");
        }
        for (name, good) in [
            ("a", true),
            ("gpu-0", true),
            ("", false),
            ("-a", false),
            ("A", false),
            ("a/b", false),
            ("..", false),
        ] {
            assert_eq!(name.parse::<GuestName>().is_ok(), good, "{name}");
        }
        assert!("a".repeat(33).parse::<GuestName>().is_err());
    }
}
