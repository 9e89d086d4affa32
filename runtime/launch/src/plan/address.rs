//! Where a PCI device is.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use super::PartError;

/// A PCI function, `0000:17:00.0`: domain, bus, device, function. The domain may be left out in text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PciAddress {
    domain: u16,
    bus: u8,
    device: u8,
    function: u8,
}

impl FromStr for PciAddress {
    type Err = PartError;

    fn from_str(text: &str) -> Result<Self, PartError> {
        let refused =
            || PartError(format!("{text:?} is no PCI address; write it as lspci -D does: 0000:17:00.0"));
        let hex = |part: &str, digits: usize| {
            let fits = part.len() == digits && part.bytes().all(|b| b.is_ascii_hexdigit());
            fits.then(|| u16::from_str_radix(part, 16).ok()).flatten().ok_or_else(refused)
        };
        let (domain, rest) = match text.split(':').count() {
            2 => (0, text),
            _ => text.split_once(':').ok_or_else(refused).and_then(|(d, rest)| Ok((hex(d, 4)?, rest)))?,
        };
        let (bus, rest) = rest.split_once(':').ok_or_else(refused)?;
        let (device, function) = rest.split_once('.').ok_or_else(refused)?;
        let small = |value: u16| u8::try_from(value).map_err(|_| refused());
        let address = Self {
            domain,
            bus: small(hex(bus, 2)?)?,
            device: small(hex(device, 2)?)?,
            function: small(hex(function, 1)?)?,
        };
        if address.device > 0x1f || address.function > 7 {
            return Err(refused());
        }
        Ok(address)
    }
}

impl fmt::Display for PciAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04x}:{:02x}:{:02x}.{:x}", self.domain, self.bus, self.device, self.function)
    }
}

impl TryFrom<String> for PciAddress {
    type Error = PartError;

    fn try_from(text: String) -> Result<Self, PartError> {
        text.parse()
    }
}

impl From<PciAddress> for String {
    fn from(address: PciAddress) -> Self {
        address.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pci_addresses_are_read_as_lspci_writes_them() {
        for (text, shown) in
            [("0000:17:00.0", "0000:17:00.0"), ("c1:1f.7", "0000:c1:1f.7"), ("00AF:01:00.0", "00af:01:00.0")]
        {
            assert_eq!(text.parse::<PciAddress>().expect("good").to_string(), shown);
        }
        for bad in [
            "",
            "17",
            "17:00",
            "17:00.8",
            "17:20.0",
            "0000:17:00.0:1",
            "0:17:00.0",
            "+017:17:00.0",
            "17:00.0,x=1",
            "1é:00.0",
        ] {
            assert!(bad.parse::<PciAddress>().is_err(), "{bad}");
        }
    }
}
