//! GPUs of configured guests: shared out before anything is touched, taken before the guests start, given back after they
//! end.

use std::path::PathBuf;

use cocoon_image::profile::Profile;
use cocoon_launch::config::{GuestConfig, HostConfig};
use cocoon_launch::gpu::{self, AdminTool, CcTool, NoTool, Shared, Wish};
use cocoon_launch::plan::Gpus;
use cocoon_launch::root::Root;

use crate::error::{Explain, Failure};

/// The tool's name in a dry run where none is configured.
const USUAL_TOOL: &str = "nvidia_gpu_tools.py";

/// The GPUs of all guests of a host.
pub(super) struct Wanted {
    shared: Shared,
    tool: Box<dyn CcTool>,
    tool_path: PathBuf,
    /// What was found before, for giving back; may be there from a run that was killed.
    run_file: PathBuf,
}

impl Wanted {
    /// No guest has any.
    pub(super) fn none() -> Self {
        Self {
            shared: Shared { shares: Vec::new(), plan: None },
            tool: Box::new(NoTool),
            tool_path: USUAL_TOOL.into(),
            run_file: PathBuf::new(),
        }
    }

    /// Shares them out as the configuration says; each guest with its profile.
    ///
    /// # Errors
    /// If a GPU cannot be had: in use, not there, another guest's, or without the tool that switches its mode; or a profile
    /// is of a machine with another number of GPUs, whose measurements would not hold.
    pub(super) fn of(config: &HostConfig, guests: &[(&GuestConfig, Profile)]) -> Result<Self, Failure> {
        for (guest, profile) in guests {
            fits(guest, profile)?;
        }
        let tool: Box<dyn CcTool> = match &config.tools.gpu_admin {
            None => Box::new(NoTool),
            Some(path) => {
                Box::new(AdminTool::at(path).explain(|| "tools.gpu_admin".into(), "correct the path")?)
            }
        };
        let mut wanted = Self {
            tool,
            tool_path: config.tools.gpu_admin.clone().unwrap_or_else(|| USUAL_TOOL.into()),
            run_file: super::host_folder(&config.state).join("gpus.json"),
            ..Self::none()
        };
        // What a killed run left is given back first: the GPUs must be seen as they were.
        wanted.restore()?;
        let wishes: Vec<Wish<'_>> = guests
            .iter()
            .map(|(guest, profile)| Wish {
                guest: &guest.name,
                gpus: &guest.gpus,
                mmio64_mib: profile.pci_mmio64_mib,
            })
            .collect();
        let shared = gpu::share(&Root::machine(), wanted.tool.as_ref(), config.iommu, &wishes);
        wanted.shared = shared.explain(|| "the GPUs cannot be had".into(), "see `cocoon host doctor`")?;
        Ok(wanted)
    }

    /// What a guest's QEMU is given.
    pub(super) fn of_guest(&self, guest: &GuestConfig) -> Gpus {
        self.shared.gpus(&guest.name)
    }

    /// Who gets what, and each step.
    pub(super) fn describe(&self) -> String {
        self.shared.describe(&self.tool_path)
    }

    /// Takes them from the host. What was taken is given back if one cannot be had.
    ///
    /// # Errors
    /// If a step fails.
    pub(super) fn take(self) -> Result<Taken, Failure> {
        if let Some(plan) = &self.shared.plan {
            gpu::prepare(&Root::machine(), self.tool.as_ref(), plan, &self.run_file).explain(
                || "the GPUs cannot be taken".into(),
                "mend what it names; `cocoon host doctor` looks at the whole machine",
            )?;
        }
        Ok(Taken(self))
    }

    fn restore(&self) -> Result<(), Failure> {
        if self.run_file.as_os_str().is_empty() {
            return Ok(());
        }
        gpu::restore(&Root::machine(), self.tool.as_ref(), &self.run_file).map(drop).explain(
            || "the GPUs cannot be given back".into(),
            "mend what it names, then `cocoon host up` again: it gives them back first",
        )
    }
}

fn fits(guest: &GuestConfig, profile: &Profile) -> Result<(), Failure> {
    if usize::from(profile.gpus) == guest.gpus.len() {
        return Ok(());
    }
    let (name, has) = (&guest.name, guest.gpus.len());
    Err(Failure::usage(
        format!(
            "guest {name} has {has} GPUs, but its profile {} is of a machine with {}",
            profile.name, profile.gpus
        ),
        "name another profile or as many GPUs: the measurements hold for that machine alone",
    ))
}

/// GPUs that the guests have.
pub(super) struct Taken(Wanted);

impl Taken {
    /// Gives them back as they were found. The guests have ended.
    ///
    /// # Errors
    /// If a step fails; the next start tries again.
    pub(super) fn give_back(self) -> Result<(), Failure> {
        self.0.restore()
    }
}
