//! Where a PCI device sits: domain, bus, device, function.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A PCI address as sysfs writes it: `0000:41:00.0`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct PciAddress {
    domain: u32,
    bus: u8,
    device: u8,
    function: u8,
}

/// Text that is no PCI address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no PCI address: write it as 0000:41:00.0 (lspci -D shows them)")]
pub struct InvalidAddress(String);

impl PciAddress {
    /// The device's folder in sysfs.
    pub fn folder(self) -> String {
        format!("/sys/bus/pci/devices/{self}")
    }

    /// Are both functions of one device in one slot?
    pub fn shares_slot(self, other: Self) -> bool {
        (self.domain, self.bus, self.device) == (other.domain, other.bus, other.device)
    }
}

impl FromStr for PciAddress {
    type Err = InvalidAddress;

    /// With or without the domain: `0000:41:00.0`, `41:00.0`.
    fn from_str(text: &str) -> Result<Self, InvalidAddress> {
        let invalid = || InvalidAddress(text.chars().take(40).collect());
        let hex = |part: &str, digits: std::ops::RangeInclusive<usize>| {
            let fits = digits.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
            fits.then(|| u32::from_str_radix(part, 16).ok()).flatten().ok_or_else(invalid)
        };
        let (rest, function) = text.rsplit_once('.').ok_or_else(invalid)?;
        let mut parts = rest.rsplit(':');
        let device = hex(parts.next().ok_or_else(invalid)?, 2..=2)?;
        let bus = hex(parts.next().ok_or_else(invalid)?, 2..=2)?;
        let domain = parts.next().map_or(Ok(0), |part| hex(part, 4..=8))?;
        let function = hex(function, 1..=1)?;
        if parts.next().is_some() || device > 31 || function > 7 {
            return Err(invalid());
        }
        let byte = |value| u8::try_from(value).map_err(|_| invalid());
        Ok(Self { domain, bus: byte(bus)?, device: byte(device)?, function: byte(function)? })
    }
}

impl TryFrom<String> for PciAddress {
    type Error = InvalidAddress;

    fn try_from(text: String) -> Result<Self, InvalidAddress> {
        text.parse()
    }
}

impl From<PciAddress> for String {
    fn from(address: PciAddress) -> Self {
        address.to_string()
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { domain, bus, device, function } = self;
        write!(f, "{domain:04x}:{bus:02x}:{device:02x}.{function:x}")
    }
}

impl fmt::Debug for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_address_without_a_domain_lies_in_the_first() {
        assert_eq!("41:00.0".parse(), "0000:41:00.0".parse::<PciAddress>());
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in [
            "",
            "41",
            "41:00",
            "0000:41:20.0",
            "0000:41:00.8",
            "0000:41:00.0:1",
            "0:41:00.0",
            "1:0000:41:00.0",
            "0000:4g:00.0",
            "+041:00.0",
            "41:00.0,x=1",
            "1é:00.0",
        ] {
            assert!(text.parse::<PciAddress>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_address_is_shown_as_sysfs_writes_it() {
        for (text, shown) in [("00AF:01:00.0", "00af:01:00.0"), ("c1:1f.7", "0000:c1:1f.7")] {
            assert_eq!(text.parse::<PciAddress>().expect("good").to_string(), shown);
        }
    }

    proptest! {
        #[test]
        fn an_address_reads_as_it_is_written(domain in 0..=0x1_0000_u32, bus: u8, device in 0..32_u8, function in 0..8_u8) {
            let address = PciAddress { domain, bus, device, function };
            prop_assert_eq!(address.to_string().parse(), Ok(address));
        }

        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,24}") {
            let _ = text.parse::<PciAddress>();
        }
    }
}
