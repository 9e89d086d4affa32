//! Which NVIDIA parts there are, by PCI device id (the PCI ID repository, vendor 10de), as far as they matter here.

use serde::Serialize;

/// A generation of GPUs with confidential computing. Older ones have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Generation {
    /// H100, H200 and their kin.
    Hopper,
    /// B200, B300, RTX PRO 6000 and their kin.
    Blackwell,
}

/// A part by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Product {
    /// As NVIDIA sells it.
    pub name: &'static str,
    /// Its generation.
    pub generation: Generation,
}

use Generation::{Blackwell, Hopper};

const PRODUCTS: &[(u16, &str, Generation)] = &[
    (0x2321, "H100 NVL", Hopper),
    (0x2322, "H800 PCIe", Hopper),
    (0x2324, "H800 SXM5", Hopper),
    (0x2329, "H20", Hopper),
    (0x2330, "H100 SXM5", Hopper),
    (0x2331, "H100 PCIe", Hopper),
    (0x2335, "H200 SXM", Hopper),
    (0x233b, "H200 NVL", Hopper),
    (0x2901, "B200", Blackwell),
    (0x2941, "GB200", Blackwell),
    (0x29bc, "B100", Blackwell),
    (0x2bb5, "RTX PRO 6000 Blackwell Server", Blackwell),
    (0x3182, "B300", Blackwell),
    (0x31c2, "GB300", Blackwell),
    (0x31c3, "GB300", Blackwell),
];

/// The part with a PCI device id, if it is one that can compute confidentially.
pub fn product(device_id: u16) -> Option<Product> {
    let (_, name, generation) = PRODUCTS.iter().find(|(id, ..)| *id == device_id)?;
    Some(Product { name, generation: *generation })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_listed_once_and_in_order() {
        assert!(PRODUCTS.is_sorted_by(|(a, ..), (b, ..)| a < b));
    }

    #[test]
    fn a_part_without_confidential_computing_has_no_name_here() {
        assert_eq!(product(0x2330).map(|p| (p.name, p.generation)), Some(("H100 SXM5", Hopper)));
        assert_eq!(product(0x20b2), None, "an A100");
    }
}
