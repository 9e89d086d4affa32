//! AMD's products, their processors and their pinned certificates.

use super::tcb::TcbLayout;

/// A line of processors with one root key (AMD 57230, VCEK Certificate and KDS Interface).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Product {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004 and 8004: Genoa, Bergamo, Siena.
    Genoa,
    /// EPYC 9005.
    Turin,
}

/// Which of the two endorsement keys signs (SIGNING_KEY in ATTESTATION_REPORT, AMD 56860, 7.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyKind {
    /// Versioned Chip Endorsement Key: derived from the chip's own secret.
    Vcek,
    /// Versioned Loaded Endorsement Key: given to a cloud by AMD, the same on many of its chips.
    Vlek,
}

impl KeyKind {
    /// `VCEK` or `VLEK`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Vcek => "VCEK",
            Self::Vlek => "VLEK",
        }
    }
}

/// AMD's own certificates for one product, in DER.
pub(crate) struct Pinned {
    /// ARK: signs itself and the two others.
    pub(crate) root: &'static [u8],
    /// ASK: signs VCEKs.
    pub(crate) ask: &'static [u8],
    /// ASVK: signs VLEKs.
    pub(crate) asvk: &'static [u8],
}

impl Product {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// The name in certificates and in the addresses of AMD's key service.
    pub fn name(self) -> &'static str {
        match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        }
    }

    /// The product of a processor by its combined family and model (CPUID Fn0000_0001_EAX).
    pub fn of_cpuid(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            // Genoa; Bergamo and Siena.
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            // Turin; Turin Dense.
            (0x1a, 0x00..=0x1f) => Some(Self::Turin),
            _ => None,
        }
    }

    /// Where the parts of its TCB versions stand.
    pub fn layout(self) -> TcbLayout {
        match self {
            Self::Milan | Self::Genoa => TcbLayout::Original,
            Self::Turin => TcbLayout::Turin,
        }
    }

    /// Length of the hardware id in bytes (hwID in AMD 57230, chapter 3).
    pub(crate) fn chip_id_length(self) -> usize {
        match self {
            Self::Milan | Self::Genoa => 64,
            Self::Turin => 8,
        }
    }

    /// What AMD published for it.
    pub(crate) fn pinned(self) -> Pinned {
        macro_rules! published {
            ($name:literal) => {
                Pinned {
                    root: include_bytes!(concat!("../../roots/amd/", $name, "-ark.der")),
                    ask: include_bytes!(concat!("../../roots/amd/", $name, "-ask.der")),
                    asvk: include_bytes!(concat!("../../roots/amd/", $name, "-asvk.der")),
                }
            };
        }
        match self {
            Self::Milan => published!("milan"),
            Self::Genoa => published!("genoa"),
            Self::Turin => published!("turin"),
        }
    }

    /// What an intermediate's common name says it signs: `SEV-Milan` signs VCEKs, `SEV-VLEK-Milan` VLEKs.
    pub(crate) fn of_intermediate(common_name: &str) -> Option<(Self, KeyKind)> {
        let name = common_name.strip_prefix("SEV-")?;
        let (name, kind) = match name.strip_prefix("VLEK-") {
            Some(rest) => (rest, KeyKind::Vlek),
            None => (name, KeyKind::Vcek),
        };
        Self::ALL.into_iter().find(|product| product.name() == name).map(|product| (product, kind))
    }

    /// The product that a VEK's productName extension names, with or without a stepping: `Milan`, `Milan-B0`.
    pub(crate) fn of_extension(product_name: &str) -> Option<Self> {
        let (name, stepping) = product_name.split_once('-').unwrap_or((product_name, "A0"));
        let sane = matches!(stepping.as_bytes(), [b'A'..=b'Z', b'0'..=b'9']);
        Self::ALL.into_iter().find(|product| sane && product.name() == name)
    }
}

impl Pinned {
    pub(crate) fn intermediate(&self, kind: KeyKind) -> &'static [u8] {
        match kind {
            KeyKind::Vcek => self.ask,
            KeyKind::Vlek => self.asvk,
        }
    }
}

/// Is this one of AMD's own roots?
pub(crate) fn is_root(der: &[u8]) -> bool {
    Product::ALL.into_iter().any(|product| product.pinned().root == der)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::sha256;
    use crate::x509::Certificate;

    /// As AMD's key service gives them: `/vcek/v1/{product}/cert_chain` and `/vlek/v1/{product}/cert_chain`.
    const DIGESTS: [[&str; 3]; 3] = [
        ["69d063b45344d26a", "67d303bd3905fd38", "c5e081f59b7efab1"],
        ["4c6598d19c18719c", "5464738c1546aed5", "197e610743a917d6"],
        ["1f084161a44bb6d9", "5b77ef5fe7a7a004", "104e10a8bd060a3c"],
    ];

    #[test]
    fn every_pinned_root_signs_itself_and_its_two_intermediates() {
        for (product, digests) in Product::ALL.into_iter().zip(DIGESTS) {
            let Pinned { root, ask, asvk } = product.pinned();
            for (der, digest) in [root, ask, asvk].into_iter().zip(digests) {
                assert_eq!(hex::encode(&sha256(&[der])[..8]), digest, "{}", product.name());
            }
            let root = Certificate::parse(root).expect("the ARK");
            assert_eq!(root.common_name(), format!("ARK-{}", product.name()));
            assert_eq!(root.issue(&root), Ok(()), "{} signs itself", product.name());
            for (der, kind) in [(ask, KeyKind::Vcek), (asvk, KeyKind::Vlek)] {
                let intermediate = Certificate::parse(der).expect("an intermediate");
                assert_eq!(root.issue(&intermediate), Ok(()));
                assert_eq!(Product::of_intermediate(&intermediate.common_name()), Some((product, kind)));
            }
        }
    }

    #[test]
    fn no_root_signs_another_products_intermediate() {
        for a in Product::ALL {
            let root = Certificate::parse(a.pinned().root).expect("the ARK");
            for b in Product::ALL.into_iter().filter(|b| *b != a) {
                assert!(root.issue(&Certificate::parse(b.pinned().ask).expect("an ASK")).is_err());
            }
        }
    }

    #[test]
    fn processors_belong_to_their_products() {
        for (family, model, product) in [
            (0x19, 0x01, Some(Product::Milan)),
            (0x19, 0x11, Some(Product::Genoa)),
            (0x19, 0xa0, Some(Product::Genoa)),
            (0x1a, 0x02, Some(Product::Turin)),
            (0x1a, 0x11, Some(Product::Turin)),
            (0x19, 0x20, None),
            (0x1a, 0x50, None),
            (0x17, 0x31, None),
            (0, 0, None),
        ] {
            assert_eq!(Product::of_cpuid(family, model), product, "{family:#x} {model:#x}");
        }
    }

    #[test]
    fn product_names_are_read_whole() {
        for (name, product) in [
            ("Milan", Some(Product::Milan)),
            ("Milan-B0", Some(Product::Milan)),
            ("Genoa", Some(Product::Genoa)),
            ("Turin-B1", Some(Product::Turin)),
            ("Milan-", None),
            ("Milan-B00", None),
            ("MilanX", None),
            ("milan", None),
            ("", None),
        ] {
            assert_eq!(Product::of_extension(name), product, "{name}");
        }
    }
}
