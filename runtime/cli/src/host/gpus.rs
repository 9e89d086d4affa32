//! GPUs of configured guests: shared out before anything is touched, taken before the guests start, given back after they
//! end.

use std::path::{Path, PathBuf};

use cocoon_image::profile::Profile;
use cocoon_launch::config::{GuestConfig, HostConfig};
use cocoon_launch::control::Claim;
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

    /// Shares them out as the configuration says; each guest with its profile. With a claim, what a killed run left is given
    /// back first: the GPUs must be seen as they were. Without one (a dry run) nothing is touched, since a host may run.
    ///
    /// # Errors
    /// If a GPU cannot be had: in use, not there, another guest's, or without the tool that switches its mode; or a profile
    /// is of a machine with another number of GPUs, whose measurements would not hold.
    pub(super) fn of(
        config: &HostConfig,
        guests: &[(&GuestConfig, Profile)],
        claim: Option<&Claim>,
    ) -> Result<Self, Failure> {
        for (guest, profile) in guests {
            fits(guest, profile)?;
        }
        let mut wanted = Self {
            tool: tool(config)?,
            tool_path: config.tools.gpu_admin.clone().unwrap_or_else(|| USUAL_TOOL.into()),
            run_file: run_file(&super::host_folder(&config.state)),
            ..Self::none()
        };
        if claim.is_some() {
            wanted.restore()?;
        }
        let wishes: Vec<Wish<'_>> = guests
            .iter()
            .map(|(guest, profile)| Wish {
                guest: &guest.name,
                gpus: &guest.gpus,
                mmio64_mib: profile.pci_mmio64_mib,
            })
            .collect();
        let shared = gpu::share(&Root::machine(), wanted.tool.as_ref(), config.iommu, &wishes);
        let remedy = match wanted.run_file.exists() {
            true => "a host runs with them, or was killed: `cocoon host down` ends it and gives them back",
            false => "see `cocoon host doctor`",
        };
        wanted.shared = shared.explain(|| "the GPUs cannot be had".into(), remedy)?;
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

    /// Takes them from the host, which must be claimed. What was taken is given back if one cannot be had.
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
        Ok(Taken(Some(self)))
    }

    fn restore(&self) -> Result<(), Failure> {
        if self.run_file.as_os_str().is_empty() {
            return Ok(());
        }
        gpu::restore(&Root::machine(), self.tool.as_ref(), &self.run_file).map(drop).explain(
            || "the GPUs cannot be given back".into(),
            "mend what it names, then `cocoon host down --config FILE`: it gives back what is left",
        )
    }
}

fn tool(config: &HostConfig) -> Result<Box<dyn CcTool>, Failure> {
    Ok(match &config.tools.gpu_admin {
        None => Box::new(NoTool),
        Some(path) => Box::new(AdminTool::at(path).explain(|| "tools.gpu_admin".into(), "correct the path")?),
    })
}

/// What was found before the GPUs were taken, in the host's own folder.
fn run_file(folder: &Path) -> PathBuf {
    folder.join("gpus.json")
}

/// Gives back what a killed run of this folder's host left, if it left anything; says whether it did. `config` names the tool
/// that switches modes back.
///
/// # Errors
/// If a host runs with the folder, or a step fails: the next try goes on.
pub(super) fn give_back_left_over(folder: &Path, config: Option<&HostConfig>) -> Result<bool, Failure> {
    let run_file = run_file(folder);
    if !run_file.exists() {
        return Ok(false);
    }
    let _claim = Claim::take(folder)
        .map_err(|error| Failure::new(error.to_string(), "cocoon host status   says which host that is"))?;
    let tool = config.map_or_else(|| Ok(Box::new(NoTool) as Box<dyn CcTool>), tool)?;
    let left = Wanted { tool, run_file, ..Wanted::none() };
    left.restore().map(|()| true)
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

/// GPUs that the guests have. Dropping it gives them back, as far as that goes.
pub(super) struct Taken(Option<Wanted>);

impl Taken {
    /// Gives them back as they were found. The guests have ended.
    ///
    /// # Errors
    /// If a step fails; the next start tries again.
    pub(super) fn give_back(mut self) -> Result<(), Failure> {
        self.0.take().map_or(Ok(()), |wanted| wanted.restore())
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.0.take().map(|wanted| wanted.restore()) {
            tracing::error!(?error, "the GPUs are not given back; `cocoon host down` tries again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run that found no device that is there now: giving back is done when its file is gone.
    const LEFT: &str = r#"{"version":1,"before":[],"begun":[]}"#;

    fn config(state: &Path) -> HostConfig {
        let example = include_str!("../../../launch/host.toml");
        let text = example.replace("/var/lib/cocoon/state", state.to_str().expect("text"));
        let path = state.join("host.toml");
        std::fs::write(&path, text).expect("writable");
        HostConfig::load(&path).expect("the example is right")
    }

    #[test]
    fn what_a_host_holds_is_given_back_only_by_who_has_claimed_its_folder() {
        let at = tempfile::tempdir().expect("a folder");
        let config = config(at.path());
        let folder = super::super::host_folder(at.path());
        std::fs::create_dir_all(&folder).expect("writable");
        let left = run_file(&folder);
        std::fs::write(&left, LEFT).expect("writable");

        Wanted::of(&config, &[], None).expect("nothing is wanted");
        assert!(left.exists(), "a dry run touches nothing");

        let claim = Claim::take(&folder).expect("no host runs");
        let refused = give_back_left_over(&folder, Some(&config)).expect_err("a host runs");
        assert!(format!("{refused:?}").contains("another host runs"), "{refused:?}");
        assert!(left.exists());

        Wanted::of(&config, &[], Some(&claim)).expect("nothing is wanted");
        assert!(!left.exists(), "the next host gives back first");
        drop(claim);

        std::fs::write(&left, LEFT).expect("writable");
        assert!(give_back_left_over(&folder, Some(&config)).expect("given back"));
        assert!(!left.exists() && !give_back_left_over(&folder, None).expect("nothing is left"));
    }

    #[test]
    fn gpus_that_were_taken_are_given_back_on_every_way_out() {
        let at = tempfile::tempdir().expect("a folder");
        let run_file = run_file(at.path());
        let taken = || {
            std::fs::write(&run_file, LEFT).expect("writable");
            Wanted { run_file: run_file.clone(), ..Wanted::none() }.take().expect("no step fails")
        };
        drop(taken());
        assert!(!run_file.exists(), "an error on the way");
        taken().give_back().expect("given back");
        assert!(!run_file.exists());
    }
}
