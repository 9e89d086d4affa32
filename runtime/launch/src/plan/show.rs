//! A plan in words and as a command line that can be pasted into a shell.

use std::{fmt::Write, path::Path};

use super::{Iommu, LaunchPlan, PlanError, Snp, Tee};
use crate::program::Program;

impl LaunchPlan {
    /// What would be started and in which folder: a few lines in words, then the command, one option on a line.
    ///
    /// # Errors
    /// What [`LaunchPlan::check`] refuses.
    pub fn describe(&self, qemu: &Program, folder: &Path) -> Result<String, PlanError> {
        let mut out = String::new();
        let mut line = |text: String| writeln!(out, "{text}").expect("a string takes all");
        line(format!("# guest {}: {}, {} vCPUs, {}", self.name, self.kind(), self.vcpus, self.memory));
        for (what, path) in self.needed_files() {
            line(format!("#   {what:<18} {}", path.display()));
        }
        line(format!("#   {:<18} {}", "reached by", self.way()));
        if let Tee::Tdx { quote_service, .. } = &self.tee {
            line(format!("#   {:<18} {}", "quotes by", quote_service));
        }
        if let Tee::Tdx { gpus, .. } | Tee::Snp(Snp { gpus, .. }) = &self.tee {
            let by = if gpus.iommu == Iommu::Iommufd { "iommufd" } else { "VFIO's legacy groups" };
            for gpu in &gpus.devices {
                line(format!("#   {:<18} {} by {by}", "GPU", gpu.address));
            }
        }
        if let Tee::Emulation { .. } = &self.tee {
            line(
                "#   first the software TPM, its proxy and the TEE's emulator; nothing protects this guest"
                    .into(),
            );
        }
        line(format!("cd {}", quoted(&folder.to_string_lossy())));
        let mut command = quoted(&qemu.executable.to_string_lossy());
        for word in &qemu.before {
            write!(command, " {}", quoted(&word.to_string_lossy())).expect("a string takes all");
        }
        for option in self.options()? {
            write!(command, " \\\n  {}", option.flag).expect("a string takes all");
            if let Some(value) = option.value {
                write!(command, " {}", quoted(&value)).expect("a string takes all");
            }
        }
        line(command);
        Ok(out)
    }

    fn way(&self) -> String {
        match &self.tee {
            Tee::Tdx { cid, .. } | Tee::Snp(Snp { cid, .. }) => format!("vsock, CID {cid}"),
            Tee::Emulation { forward, .. } => format!("TCP {forward}, forwarded by QEMU"),
        }
    }
}

/// A word as a POSIX shell reads it back.
pub fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "%+,-./:=@_".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}
