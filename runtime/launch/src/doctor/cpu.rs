//! The processor, as `/proc/cpuinfo` shows it.

use std::collections::BTreeSet;

use super::report::Tee;

/// The first processor of the machine.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Cpu {
    pub(super) vendor: String,
    pub(super) family: u32,
    pub(super) model: u32,
    pub(super) name: String,
    pub(super) flags: BTreeSet<String>,
}

/// Xeon models (family 6) with TDX, by Intel's processor numbering: Sapphire Rapids (chosen parts only), Emerald Rapids,
/// Granite Rapids, Granite Rapids-D, Sierra Forest, Clearwater Forest.
const TDX_MODELS: &[u32] = &[0x8f, 0xcf, 0xad, 0xae, 0xaf, 0xdd];
/// EPYC families and models with SEV-SNP, by AMD's processor numbering: Milan, Genoa, Bergamo and Siena, Turin.
const SNP_MODELS: &[(u32, std::ops::RangeInclusive<u32>)] =
    &[(0x19, 0x00..=0x01), (0x19, 0x10..=0x17), (0x19, 0xa0..=0xaf), (0x1a, 0x00..=0x11)];

impl Cpu {
    pub(super) fn parse(cpuinfo: &str) -> Self {
        let mut cpu = Self::default();
        for line in cpuinfo.lines().take_while(|line| !line.trim().is_empty()) {
            let Some((key, value)) = line.split_once(':') else { continue };
            let value = value.trim();
            match key.trim() {
                "vendor_id" => cpu.vendor = value.to_owned(),
                "cpu family" => cpu.family = value.parse().unwrap_or(0),
                "model" => cpu.model = value.parse().unwrap_or(0),
                "model name" => cpu.name = value.to_owned(),
                "flags" => cpu.flags = value.split_whitespace().map(str::to_owned).collect(),
                _ => {}
            }
        }
        cpu
    }

    pub(super) fn has(&self, flag: &str) -> bool {
        self.flags.contains(flag)
    }

    /// Is this a virtual machine? Then the CPU's TEE belongs to whoever runs it.
    pub(super) fn is_virtual(&self) -> bool {
        self.has("hypervisor")
    }

    /// The TEE that this CPU was made for.
    pub(super) fn made_for(&self) -> Option<Tee> {
        match self.vendor.as_str() {
            "GenuineIntel" if self.family == 6 && TDX_MODELS.contains(&self.model) => Some(Tee::Tdx),
            "AuthenticAMD" if self.has("sev_snp") => Some(Tee::Snp),
            "AuthenticAMD" => {
                let listed =
                    SNP_MODELS.iter().any(|(f, models)| *f == self.family && models.contains(&self.model));
                (listed && self.name.contains("EPYC")).then_some(Tee::Snp)
            }
            _ => None,
        }
    }

    /// For people.
    pub(super) fn about(&self) -> String {
        match self.name.as_str() {
            "" => "an unknown processor".into(),
            name => format!("{name} (family {:#x}, model {:#x})", self.family, self.model),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_processor_is_read_and_no_other() {
        let text = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 207\n\
                    model name\t: INTEL(R) XEON(R) PLATINUM 8592+\nflags\t\t: fpu tme\n\nprocessor\t: 1\nvendor_id\t: Other\n";
        let cpu = Cpu::parse(text);
        assert_eq!((cpu.vendor.as_str(), cpu.family, cpu.model), ("GenuineIntel", 6, 0xcf));
        assert!(cpu.has("tme") && !cpu.has("fp") && !cpu.is_virtual());
        assert_eq!(cpu.made_for(), Some(Tee::Tdx));
    }

    #[test]
    fn nonsense_is_a_processor_for_nothing() {
        for text in ["", ":", "model: x\ncpu family: 99999999999\nflags", "\n\n"] {
            assert_eq!(Cpu::parse(text).made_for(), None, "{text:?}");
        }
    }

    #[test]
    fn a_ryzen_is_not_taken_for_an_epyc_of_the_same_model() {
        let cpu = Cpu { vendor: "AuthenticAMD".into(), family: 0x1a, model: 0x11, ..Cpu::default() };
        assert_eq!(Cpu { name: "AMD EPYC 9755".into(), ..cpu.clone() }.made_for(), Some(Tee::Snp));
        assert_eq!(Cpu { name: "AMD Ryzen".into(), ..cpu }.made_for(), None);
    }
}
