//! GPUs of configured guests: planned before anything is touched, taken before the guests start, given back after they end.

use std::path::PathBuf;

use cocoon_image::profile::Profile;
use cocoon_launch::config::{GuestConfig, HostConfig, TeeChoice};
use cocoon_launch::gpu::{self, AdminTool, CcTool, NoTool, Request, Selection};
use cocoon_launch::plan::{Gpu, Gpus, GuestName, Iommu};
use cocoon_launch::root::Root;

use crate::error::{Explain, Failure};

/// The GPUs of all guests of a host.
pub(super) struct Wanted {
    guests: Vec<Guest>,
    tool: Box<dyn CcTool>,
    iommu: Iommu,
    /// Run files of these guests may be there from a run that was killed.
    run_files: PathBuf,
}

struct Guest {
    name: GuestName,
    plan: gpu::Plan,
}

impl Wanted {
    /// No guest has any.
    pub(super) fn none() -> Self {
        Self {
            guests: Vec::new(),
            tool: Box::new(NoTool),
            iommu: Iommu::default(),
            run_files: PathBuf::new(),
        }
    }

    /// Plans for the guests of a configuration. Reads only.
    ///
    /// # Errors
    /// If a GPU cannot be had: in use, not there, shared with another device, or without the tool that switches its mode.
    pub(super) fn of(config: &HostConfig, tee: TeeChoice) -> Result<Self, Failure> {
        let tool: Box<dyn CcTool> = match &config.tools.gpu_admin {
            None => Box::new(NoTool),
            Some(path) => {
                Box::new(AdminTool::at(path).explain(|| "tools.gpu_admin".into(), "correct the path")?)
            }
        };
        let run_files = super::host_folder(&config.state);
        let mut wanted = Self { guests: Vec::new(), tool, iommu: config.iommu, run_files };
        // What a killed run left is given back first: the plan must see the GPUs as they were.
        for guest in &config.guests {
            wanted.restore(&guest.name)?;
        }
        for guest in config.guests.iter().filter(|guest| !guest.gpus.is_empty()) {
            let request = Request {
                selection: Selection::Only(guest.gpus.clone()),
                confidential: tee != TeeChoice::Emulation,
            };
            let plan = gpu::plan(&Root::machine(), wanted.tool.as_ref(), &request);
            let plan =
                plan.explain(|| format!("the GPUs of guest {}", guest.name), "see `cocoon host doctor`")?;
            wanted.guests.push(Guest { name: guest.name.clone(), plan });
        }
        Ok(wanted)
    }

    /// What a guest's QEMU is given.
    ///
    /// # Errors
    /// If the profile is of a machine with another number of GPUs: its measurements would not hold.
    pub(super) fn of_guest(&self, guest: &GuestConfig, profile: &Profile) -> Result<Gpus, Failure> {
        if usize::from(profile.gpus) != guest.gpus.len() {
            return Err(Failure::usage(
                format!(
                    "guest {} has {} GPUs, but its profile {} is of a machine with {}",
                    guest.name,
                    guest.gpus.len(),
                    profile.name,
                    profile.gpus
                ),
                "name another profile or as many GPUs: the measurements hold for that machine alone",
            ));
        }
        let planned = self.guests.iter().find(|planned| planned.name == guest.name);
        let devices = planned.map_or(&[][..], |planned| &planned.plan.devices);
        let devices = devices.iter().map(|device| Gpu {
            address: device.address,
            aperture_mib: u32::try_from(device.window() >> 20).unwrap_or(u32::MAX),
        });
        Ok(Gpus { devices: devices.collect(), iommu: self.iommu, mmio64_mib: profile.pci_mmio64_mib })
    }

    /// The steps, in words.
    pub(super) fn describe(&self) -> String {
        let mut out = String::new();
        for Guest { name, plan } in &self.guests {
            out += &format!("# GPUs of guest {name}: {}\n", plan.topology.about());
            for (number, step) in (1..).zip(&plan.steps) {
                out += &format!("#   {number}. {step}\n");
            }
        }
        out
    }

    /// Takes them from the host. What was taken is given back if one cannot be had.
    ///
    /// # Errors
    /// If a step fails.
    pub(super) fn take(self) -> Result<Taken, Failure> {
        let taken = Taken { wanted: self };
        for Guest { name, plan } in &taken.wanted.guests {
            let file = taken.wanted.run_file(name);
            let prepared = gpu::prepare(&Root::machine(), taken.wanted.tool.as_ref(), plan, &file);
            if let Err(error) = prepared {
                taken.restore_all()?;
                return Err(Failure::new(
                    format!("the GPUs of guest {name}: {error}"),
                    "mend what it names; `cocoon host doctor` looks at the whole machine",
                ));
            }
        }
        Ok(taken)
    }

    fn run_file(&self, guest: &GuestName) -> PathBuf {
        self.run_files.join(format!("gpus-{guest}.json"))
    }

    fn restore(&self, guest: &GuestName) -> Result<(), Failure> {
        let restored = gpu::restore(&Root::machine(), self.tool.as_ref(), &self.run_file(guest));
        restored.map(drop).explain(
            || format!("the GPUs of guest {guest} cannot be given back"),
            "mend what it names, then `cocoon host up` again: it gives them back first",
        )
    }
}

/// GPUs that the guests have.
pub(super) struct Taken {
    wanted: Wanted,
}

impl Taken {
    /// Gives them back as they were found. The guests have ended.
    ///
    /// # Errors
    /// If a step fails; the next start tries again.
    pub(super) fn give_back(self) -> Result<(), Failure> {
        self.restore_all()
    }

    fn restore_all(&self) -> Result<(), Failure> {
        self.wanted.guests.iter().try_for_each(|guest| self.wanted.restore(&guest.name))
    }
}
