//! One step of taking a device from the host or giving it back, as data.

use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::find::driver;
use super::{CcError, CcMode, CcTool, PciAddress, cc};
use crate::plan::quoted;
use crate::root::Files;

/// A step. Its text says what it writes and where.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Step {
    /// Take the device from its driver.
    Unbind {
        /// Which.
        device: PciAddress,
        /// The driver that has it.
        driver: String,
    },
    /// Set protected PCIe and reset.
    SetPpcieMode {
        /// Which.
        device: PciAddress,
        /// On or off.
        on: bool,
    },
    /// Set the confidential-computing mode and reset.
    SetCcMode {
        /// Which.
        device: PciAddress,
        /// To what.
        mode: CcMode,
    },
    /// Say which driver may have the device; `None` lets any.
    DriverOverride {
        /// Which.
        device: PciAddress,
        /// That driver alone.
        driver: Option<String>,
    },
    /// Let the driver that was named take the device.
    Bind {
        /// Which.
        device: PciAddress,
        /// The driver that must have it afterwards.
        driver: String,
    },
}

/// Why a step failed.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The kernel refused the write.
    #[error("cannot {step}: {source}; run as root, and look into the kernel's log")]
    Write {
        /// What was tried.
        step: Step,
        /// What the system said.
        source: std::io::Error,
    },
    /// The write went well and did not do it.
    #[error(
        "after `{step}` {device} is bound to {found}; look into the kernel's log, and whether the module of {driver} is loaded"
    )]
    NotBound {
        /// What was tried.
        step: Step,
        /// The device.
        device: PciAddress,
        /// What should have it.
        driver: String,
        /// What has it.
        found: String,
    },
    /// The mode was not set.
    #[error(transparent)]
    Mode(#[from] CcError),
}

impl Step {
    /// The device it is about.
    pub fn device(&self) -> PciAddress {
        match self {
            Self::Unbind { device, .. }
            | Self::SetPpcieMode { device, .. }
            | Self::SetCcMode { device, .. }
            | Self::DriverOverride { device, .. }
            | Self::Bind { device, .. } => *device,
        }
    }

    /// The file and the value, if it is a write to sysfs.
    pub fn write(&self) -> Option<(String, String)> {
        match self {
            Self::Unbind { device, .. } => {
                Some((format!("{}/driver/unbind", device.folder()), device.to_string()))
            }
            // A lone newline clears it (Documentation/ABI/testing/sysfs-bus-pci).
            Self::DriverOverride { device, driver } => Some((
                format!("{}/driver_override", device.folder()),
                driver.clone().unwrap_or_else(|| "\n".into()),
            )),
            Self::Bind { device, .. } => Some(("/sys/bus/pci/drivers_probe".into(), device.to_string())),
            Self::SetPpcieMode { .. } | Self::SetCcMode { .. } => None,
        }
    }

    /// The step as a line for a shell of root, with NVIDIA's admin tool at `tool`.
    pub fn shell(&self, tool: &Path) -> String {
        if let Some((path, value)) = self.write() {
            return format!("printf %s {} > {}", quoted(&value), quoted(&path));
        }
        let arguments = match self {
            Self::SetPpcieMode { on, .. } => cc::ppcie_arguments(*on),
            Self::SetCcMode { mode, .. } => cc::cc_arguments(*mode),
            _ => unreachable!("every other step is a write"),
        };
        let words = cc::command_line(tool, self.device(), &arguments);
        words.iter().map(|word| quoted(&word.to_string_lossy())).collect::<Vec<_>>().join(" ")
    }

    /// Does it, and looks whether it was done.
    ///
    /// # Errors
    /// If the kernel or the tool refuses, or the device is not where it should be afterwards.
    pub fn execute(&self, files: &dyn Files, modes: &dyn CcTool) -> Result<(), StepError> {
        if let Some((path, value)) = self.write() {
            files.write(&path, &value).map_err(|source| StepError::Write { step: self.clone(), source })?;
        }
        match self {
            Self::SetPpcieMode { device, on } => modes.set_ppcie_mode(*device, *on)?,
            Self::SetCcMode { device, mode } => modes.set_cc_mode(*device, *mode)?,
            Self::Bind { device, driver: wanted } => {
                let found = driver(files, *device);
                if found.as_ref() != Some(wanted) {
                    return Err(StepError::NotBound {
                        step: self.clone(),
                        device: *device,
                        driver: wanted.clone(),
                        found: found.unwrap_or_else(|| "no driver".into()),
                    });
                }
            }
            Self::Unbind { .. } | Self::DriverOverride { .. } => {}
        }
        Ok(())
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((path, value)) = self.write() {
            return write!(f, "write {value:?} to {path}");
        }
        match self {
            Self::SetPpcieMode { device, on } => {
                let mode = if *on { "on" } else { "off" };
                write!(f, "set protected PCIe of {device} to {mode} and reset it (NVIDIA's admin tool)")
            }
            Self::SetCcMode { device, mode } => {
                write!(f, "set the CC mode of {device} to {mode} and reset it (NVIDIA's admin tool)")
            }
            _ => unreachable!("every other step is a write"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_says_what_it_writes_and_where() {
        let device: PciAddress = "41:00.0".parse().expect("an address");
        let said = |step: Step| step.to_string();
        assert_eq!(
            said(Step::Unbind { device, driver: "nvidia".into() }),
            r#"write "0000:41:00.0" to /sys/bus/pci/devices/0000:41:00.0/driver/unbind"#
        );
        assert_eq!(
            said(Step::DriverOverride { device, driver: None }),
            r#"write "\n" to /sys/bus/pci/devices/0000:41:00.0/driver_override"#
        );
        assert_eq!(
            said(Step::Bind { device, driver: "vfio-pci".into() }),
            r#"write "0000:41:00.0" to /sys/bus/pci/drivers_probe"#
        );
        assert_eq!(
            said(Step::SetCcMode { device, mode: CcMode::On }),
            "set the CC mode of 0000:41:00.0 to on and reset it (NVIDIA's admin tool)"
        );
    }

    #[test]
    fn a_step_survives_the_run_file() {
        let device: PciAddress = "41:00.0".parse().expect("an address");
        let step = Step::DriverOverride { device, driver: Some("vfio-pci".into()) };
        let text = serde_json::to_string(&step).expect("it is JSON");
        assert_eq!(text, r#"{"step":"driver-override","device":"0000:41:00.0","driver":"vfio-pci"}"#);
        assert_eq!(serde_json::from_str::<Step>(&text).expect("it is a step"), step);
    }
}
