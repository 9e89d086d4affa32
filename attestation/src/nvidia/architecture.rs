//! Which kind of device it is: by the names in its certificates.

/// A generation of NVIDIA's devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Architecture {
    /// GPUs of the H100 and H200 family.
    Hopper,
    /// GPUs of the B100, B200, B300 and RTX PRO families.
    Blackwell,
    /// NVSwitches of the Hopper generation.
    Ls10,
}

impl Architecture {
    /// The word in NVIDIA's evidence: `HOPPER`, `BLACKWELL` or `LS10`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hopper => "HOPPER",
            Self::Blackwell => "BLACKWELL",
            Self::Ls10 => "LS10",
        }
    }

    /// True for a GPU, false for a switch.
    pub fn is_gpu(self) -> bool {
        self != Self::Ls10
    }

    /// By the word in NVIDIA's evidence.
    pub(super) fn by_name(name: &str) -> Option<Self> {
        [Self::Hopper, Self::Blackwell, Self::Ls10].into_iter().find(|known| known.name() == name)
    }

    /// By a chip's name: `GH100`, `GB` and three digits, or `LS_10`.
    pub(super) fn of_chip(chip: &str) -> Option<Self> {
        let family = |letters: &str| {
            chip.strip_prefix(letters)
                .is_some_and(|rest| rest.len() == 3 && rest.bytes().all(|byte| byte.is_ascii_digit()))
        };
        match chip {
            "LS_10" | "LS10" => Some(Self::Ls10),
            _ if family("GH") => Some(Self::Hopper),
            _ if family("GB") => Some(Self::Blackwell),
            _ => None,
        }
    }
}
