//! The PTX that ships, made by `cargo run -p xtask -- kernels` and never by a build.

use sha2::{Digest as _, Sha256};

/// What PTX is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// A100.
    Sm80,
    /// H100, H200.
    Sm90,
    /// B200.
    Sm100,
}

/// All targets, the oldest first.
pub const TARGETS: [Target; 3] = [Target::Sm80, Target::Sm90, Target::Sm100];

impl Target {
    /// The newest target that runs on a device of this compute capability; `None` below 8.0.
    pub fn of(major: u32, minor: u32) -> Option<Self> {
        match (major, minor) {
            (10.., _) => Some(Self::Sm100),
            (9, _) => Some(Self::Sm90),
            (8, _) => Some(Self::Sm80),
            _ => None,
        }
    }
}

macro_rules! modules {
    ($($name:literal),* $(,)?) => {
        /// The modules, each named as its source in `kernels/cuda`.
        pub const MODULES: &[&str] = &[$($name),*];

        /// The PTX of one module: `matmul` of `kernels/cuda/matmul.cu`. `None` where there is no such module.
        pub fn ptx(module: &str, target: Target) -> Option<&'static str> {
            match (module, target) {
                $(
                    ($name, Target::Sm80) => Some(include_str!(concat!("../ptx/", $name, ".sm_80.ptx"))),
                    ($name, Target::Sm90) => Some(include_str!(concat!("../ptx/", $name, ".sm_90.ptx"))),
                    ($name, Target::Sm100) => Some(include_str!(concat!("../ptx/", $name, ".sm_100.ptx"))),
                )*
                _ => None,
            }
        }
    };
}
modules!(
    "attention",
    "canary",
    "draw",
    "embed",
    "likeliest",
    "matmul",
    "matmul_numbers",
    "quantise",
    "residual",
    "rms_norm",
    "rope_kv",
    "scrub",
    "scrub_check",
    "swiglu",
);

/// Which kernels these are: SHA-256("cocoon kernels v1" ‖ for each module in order, for each target from the oldest:
/// name ‖ 0 ‖ length of its PTX as `u64be` ‖ PTX). Receipts of answers from a GPU name it.
pub fn digest() -> [u8; 32] {
    let mut hash = Sha256::new().chain_update(b"cocoon kernels v1");
    for module in MODULES {
        for target in TARGETS {
            let text = ptx(module, target).expect("listed");
            hash.update(module.as_bytes());
            hash.update([0]);
            hash.update((text.len() as u64).to_be_bytes());
            hash.update(text.as_bytes());
        }
    }
    hash.finalize().into()
}

/// Bytes of each parameter of an entry, as its PTX declares them; `None` where there is no such entry.
pub fn params(module: &str, entry: &str, target: Target) -> Option<Vec<usize>> {
    let (_, rest) = ptx(module, target)?.split_once(&format!(".visible .entry {entry}("))?;
    let (list, _) = rest.split_once("\n)")?;
    let lines = list.lines().map(str::trim).filter(|line| line.starts_with(".param"));
    lines
        .map(|line| {
            if let Some((_, bytes)) = line.split_once('[') {
                return bytes.trim_end_matches([',', ']']).parse().ok();
            }
            let wide = line.split_whitespace().any(|word| word == ".u64" || word == ".b64");
            Some(if wide { 8 } else { 4 })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_gets_the_newest_ptx_that_it_can_run() {
        let targets =
            [(7, 5), (8, 0), (8, 9), (9, 0), (10, 0), (12, 1)].map(|(major, minor)| Target::of(major, minor));
        let (old, new) = (Some(Target::Sm80), Some(Target::Sm100));
        assert_eq!(targets, [None, old, old, Some(Target::Sm90), new, new]);
    }

    #[test]
    fn every_module_is_compiled_for_its_target() {
        for module in MODULES {
            for (target, name) in TARGETS.into_iter().zip(["sm_80", "sm_90", "sm_100"]) {
                let text = ptx(module, target).expect("listed");
                assert!(text.contains(&format!("\n.target {name}\n")), "{module} for {name}");
            }
        }
        assert_eq!(ptx("other", Target::Sm80), None);
    }
}
