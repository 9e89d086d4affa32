//! Security versions of the firmware under a guest: TCB_VERSION in AMD 56860 (SEV-SNP Firmware ABI), 2.2.

/// Where the parts of a TCB_VERSION stand in its 8 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TcbLayout {
    /// Milan, Genoa: boot loader, TEE, four reserved bytes, SNP, microcode.
    Original,
    /// Turin: FMC, boot loader, TEE, SNP, three reserved bytes, microcode.
    Turin,
}

/// A TCB_VERSION taken apart: the security patch level of each part.
///
/// There is no order among versions: one part may be newer and another older. See [`TcbVersion::at_least`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcbVersion {
    /// The first mutable code; Turin and later.
    pub fmc: Option<u8>,
    /// Boot loader of the security processor.
    pub boot_loader: u8,
    /// Operating system of the security processor.
    pub tee: u8,
    /// SNP firmware.
    pub snp: u8,
    /// Lowest microcode of all cores.
    pub microcode: u8,
}

impl TcbVersion {
    /// Reads 8 bytes; the second part is how many of the reserved ones are not zero.
    pub(crate) fn read(bytes: [u8; 8], layout: TcbLayout) -> (Self, usize) {
        let [a, b, c, d, e, f, g, microcode] = bytes;
        let (version, reserved) = match layout {
            TcbLayout::Original => {
                (Self { fmc: None, boot_loader: a, tee: b, snp: g, microcode }, [c, d, e, f])
            }
            TcbLayout::Turin => {
                (Self { fmc: Some(a), boot_loader: b, tee: c, snp: d, microcode }, [e, f, g, 0])
            }
        };
        (version, reserved.iter().filter(|byte| **byte != 0).count())
    }

    /// Is every part at or above the floor's? A floor with an FMC is never met by a processor that has none.
    pub fn at_least(&self, floor: &Self) -> bool {
        self.parts().into_iter().zip(floor.parts()).all(|((_, own), (_, floor))| own >= floor)
    }

    /// The parts below the floor's, by name, each as (own, floor).
    pub fn below(&self, floor: &Self) -> Vec<(&'static str, Option<u8>, Option<u8>)> {
        let pairs = self.parts().into_iter().zip(floor.parts());
        pairs
            .filter(|((_, own), (_, floor))| own < floor)
            .map(|((name, own), (_, floor))| (name, own, floor))
            .collect()
    }

    /// All parts with their names; an absent one counts as lower than any.
    fn parts(&self) -> [(&'static str, Option<u8>); 5] {
        [
            ("FMC", self.fmc),
            ("boot loader", Some(self.boot_loader)),
            ("TEE", Some(self.tee)),
            ("SNP", Some(self.snp)),
            ("microcode", Some(self.microcode)),
        ]
    }
}

impl std::fmt::Display for TcbVersion {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let known = self.parts().into_iter().filter_map(|(name, level)| Some(format!("{name} {}", level?)));
        f.write_str(&known.collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURIN: TcbVersion = TcbVersion { fmc: Some(1), boot_loader: 2, tee: 3, snp: 4, microcode: 81 };

    #[test]
    fn each_layout_has_its_places() {
        let bytes = [1, 2, 3, 4, 0, 0, 0, 81];
        assert_eq!(TcbVersion::read(bytes, TcbLayout::Turin), (TURIN, 0));
        let original = TcbVersion { fmc: None, boot_loader: 1, tee: 2, snp: 0, microcode: 81 };
        assert_eq!(TcbVersion::read(bytes, TcbLayout::Original), (original, 2));
        for at in 4..7 {
            let mut changed = bytes;
            changed[at] = 1;
            assert_eq!(TcbVersion::read(changed, TcbLayout::Turin), (TURIN, 1), "byte {at} is reserved");
        }
    }

    #[test]
    fn a_floor_is_met_part_by_part() {
        assert!(TURIN.at_least(&TURIN) && TURIN.below(&TURIN).is_empty());
        let higher = [
            TcbVersion { fmc: Some(2), ..TURIN },
            TcbVersion { boot_loader: 3, microcode: 0, ..TURIN },
            TcbVersion { tee: 4, ..TURIN },
            TcbVersion { snp: 5, ..TURIN },
            TcbVersion { microcode: 82, snp: 0, ..TURIN },
        ];
        for floor in higher {
            assert!(!TURIN.at_least(&floor), "{floor}");
            assert_eq!(TURIN.below(&floor).len(), 1, "{floor}");
        }
        let without = TcbVersion { fmc: None, ..TURIN };
        assert!(TURIN.at_least(&without), "a floor that says nothing about the FMC");
        assert!(!without.at_least(&TURIN), "a processor without one");
    }
}
