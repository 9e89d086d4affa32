//! The GPU's confidential-computing mode, through NVIDIA's admin tool (gpu-admin-tools, `nvidia_gpu_tools.py`).
//!
//! The mode is held by the GPU itself and is switched by register writes and a reset. That is NVIDIA's business: their
//! tool is called, and its answers are read.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::PciAddress;
use crate::external::{self, Ended, NoAnswer};

/// A GPU takes seconds to reset; eight in turn, with retries, a good deal longer than one.
const LIMIT: Duration = Duration::from_secs(180);

/// A mode that a GPU can be in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CcMode {
    /// As any other GPU.
    Off,
    /// Protected, for production.
    On,
    /// Protected in name, open to profilers: no evidence of such a GPU is accepted.
    Devtools,
}

impl fmt::Display for CcMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Devtools => "devtools",
        })
    }
}

/// Reads and sets the modes of a GPU or NVSwitch.
pub trait CcTool {
    /// The mode in which one GPU is protected by itself.
    ///
    /// # Errors
    /// If the tool cannot be asked, or its answer is not clear.
    fn cc_mode(&self, device: PciAddress) -> Result<CcMode, CcError>;
    /// Is protected PCIe on: the mode in which all GPUs and switches of a board are protected together?
    ///
    /// # Errors
    /// As [`Self::cc_mode`]; [`CcError::NotSupported`] from devices that have no such mode.
    fn ppcie_mode(&self, device: PciAddress) -> Result<bool, CcError>;
    /// Sets the mode and resets the device, so that it holds at once. The mode outlives a reboot.
    ///
    /// # Errors
    /// If the tool fails.
    fn set_cc_mode(&self, device: PciAddress, mode: CcMode) -> Result<(), CcError>;
    /// Sets protected PCIe and resets the device.
    ///
    /// # Errors
    /// If the tool fails.
    fn set_ppcie_mode(&self, device: PciAddress, on: bool) -> Result<(), CcError>;
}

/// Why a mode is not known or not set.
#[derive(Debug, thiserror::Error)]
pub enum CcError {
    /// No tool is configured.
    #[error(
        "the confidential-computing mode of a GPU is read and set by NVIDIA's admin tool, and none is configured: fetch \
         github.com/NVIDIA/gpu-admin-tools and name its nvidia_gpu_tools.py in the configuration"
    )]
    NotConfigured,
    /// The tool is not where the configuration says.
    #[error("there is no file {0}: correct the path of NVIDIA's admin tool in the configuration")]
    NotFound(PathBuf),
    /// It could not be run to its end.
    #[error("NVIDIA's admin tool gave no answer: {0}")]
    NoAnswer(#[from] NoAnswer),
    /// The device has no such mode.
    #[error("{device} has no such mode: {said}")]
    NotSupported {
        /// Which.
        device: PciAddress,
        /// The tool's own words.
        said: String,
    },
    /// It failed.
    #[error("NVIDIA's admin tool failed on {device} ({arguments}): {said}")]
    Failed {
        /// On which device.
        device: PciAddress,
        /// What it was asked.
        arguments: String,
        /// The end of what it said.
        said: String,
    },
    /// It ended well and said nothing that can be understood.
    #[error(
        "NVIDIA's admin tool said nothing about {question} of {device}; is it the tool of this GPU's generation? It said: {said}"
    )]
    Unclear {
        /// Which device.
        device: PciAddress,
        /// What it was asked about.
        question: &'static str,
        /// The end of what it said.
        said: String,
    },
}

/// No tool is configured: every question ends with [`CcError::NotConfigured`].
#[derive(Debug, Clone, Copy)]
pub struct NoTool;

impl CcTool for NoTool {
    fn cc_mode(&self, _: PciAddress) -> Result<CcMode, CcError> {
        Err(CcError::NotConfigured)
    }

    fn ppcie_mode(&self, _: PciAddress) -> Result<bool, CcError> {
        Err(CcError::NotConfigured)
    }

    fn set_cc_mode(&self, _: PciAddress, _: CcMode) -> Result<(), CcError> {
        Err(CcError::NotConfigured)
    }

    fn set_ppcie_mode(&self, _: PciAddress, _: bool) -> Result<(), CcError> {
        Err(CcError::NotConfigured)
    }
}

/// NVIDIA's admin tool at a path.
#[derive(Debug, Clone)]
pub struct AdminTool {
    path: PathBuf,
}

impl AdminTool {
    /// The tool's script (run by `python3`) or a program that stands for it.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn at(path: &Path) -> Result<Self, CcError> {
        match path.is_file() {
            true => Ok(Self { path: path.to_owned() }),
            false => Err(CcError::NotFound(path.to_owned())),
        }
    }

    fn ask(&self, device: PciAddress, arguments: &[String]) -> Result<String, CcError> {
        let line = command_line(&self.path, device, arguments);
        let (program, rest) = line.split_first().expect("the tool's path is in it");
        let Ended { code, said } = external::run(std::process::Command::new(program).args(rest), LIMIT)?;
        if code == Some(0) {
            return Ok(said);
        }
        let said = ending(&said);
        Err(match said.contains("not supported") {
            true => CcError::NotSupported { device, said },
            false => CcError::Failed { device, arguments: arguments.join(" "), said },
        })
    }
}

impl CcTool for AdminTool {
    fn cc_mode(&self, device: PciAddress) -> Result<CcMode, CcError> {
        let said = self.ask(device, &["--query-cc-mode".into()])?;
        let mode = match answer(&said, device, " CC mode is ") {
            Some("on") => Some(CcMode::On),
            Some("off") => Some(CcMode::Off),
            Some("devtools") => Some(CcMode::Devtools),
            _ => None,
        };
        mode.ok_or_else(|| CcError::Unclear { device, question: "the CC mode", said: ending(&said) })
    }

    fn ppcie_mode(&self, device: PciAddress) -> Result<bool, CcError> {
        let said = self.ask(device, &["--query-ppcie-mode".into()])?;
        match answer(&said, device, " PPCIe mode is ") {
            Some("on") => Ok(true),
            Some("off") => Ok(false),
            _ => Err(CcError::Unclear { device, question: "the PPCIe mode", said: ending(&said) }),
        }
    }

    fn set_cc_mode(&self, device: PciAddress, mode: CcMode) -> Result<(), CcError> {
        self.ask(device, &cc_arguments(mode)).map(drop)
    }

    fn set_ppcie_mode(&self, device: PciAddress, on: bool) -> Result<(), CcError> {
        self.ask(device, &ppcie_arguments(on)).map(drop)
    }
}

/// The tool and its arguments: how it is run for one device.
pub(super) fn command_line(tool: &Path, device: PciAddress, arguments: &[String]) -> Vec<OsString> {
    let mut line: Vec<OsString> = vec![tool.into()];
    if tool.extension().is_some_and(|ending| ending == "py") {
        line.insert(0, "python3".into());
    }
    line.push(format!("--gpu-bdf={device}").into());
    line.extend(arguments.iter().map(OsString::from));
    line
}

/// What sets the CC mode.
pub(super) fn cc_arguments(mode: CcMode) -> [String; 2] {
    [format!("--set-cc-mode={mode}"), "--reset-after-cc-mode-switch".into()]
}

/// What sets protected PCIe.
pub(super) fn ppcie_arguments(on: bool) -> [String; 2] {
    let mode = if on { "on" } else { "off" };
    [format!("--set-ppcie-mode={mode}"), "--reset-after-ppcie-mode-switch".into()]
}

/// The word after `phrase` in the line about `device`: the tool writes log lines such as
/// `… INFO GPU 0000:41:00.0 H100-PCIE 0x2331 BAR0 0x… CC mode is on`.
fn answer<'s>(said: &'s str, device: PciAddress, phrase: &str) -> Option<&'s str> {
    let address = device.to_string();
    let line = said.lines().rfind(|line| line.contains(&address) && line.contains(phrase))?;
    let (_, rest) = line.rsplit_once(phrase)?;
    rest.split_whitespace().next().map(|word| word.trim_end_matches(['.', ',']))
}

/// The last lines of what a program said, on one line.
fn ending(said: &str) -> String {
    const LINES: usize = 3;
    const CHARACTERS: usize = 400;
    let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let last = lines.get(lines.len().saturating_sub(LINES)..).unwrap_or_default().join(" / ");
    let from = last.chars().count().saturating_sub(CHARACTERS);
    let last: String = last.chars().skip(from).filter(|c| !c.is_control()).collect();
    if last.is_empty() { "(nothing)".to_owned() } else { last }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device() -> PciAddress {
        "0000:41:00.0".parse().expect("an address")
    }

    /// A program that stands for the tool: what it prints, and how it ends.
    fn tool(script: &str) -> (tempfile::TempDir, AdminTool) {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("tool");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("it can be written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("it is ours");
        let tool = AdminTool::at(&path).expect("it is there");
        (folder, tool)
    }

    #[test]
    fn the_mode_is_read_from_the_line_about_this_gpu() {
        let (_folder, tool) = tool(
            "echo '2026-01-01 INFO GPU 0000:42:00.0 H100 0x2330 BAR0 0x1 CC mode is off' >&2\n\
             echo '2026-01-01 INFO GPU 0000:41:00.0 H100 0x2330 BAR0 0x2 PPCIe mode is off' >&2\n\
             echo '2026-01-01 INFO GPU 0000:41:00.0 H100 0x2330 BAR0 0x2 CC mode is on' >&2",
        );
        assert_eq!(tool.cc_mode(device()).expect("it is said"), CcMode::On);
        assert!(!tool.ppcie_mode(device()).expect("it is said"));
    }

    #[test]
    fn the_tool_is_asked_for_one_gpu_and_a_reset() {
        let (folder, tool) = tool("echo \"$@\" > \"$(dirname \"$0\")/asked\"");
        let asked = || std::fs::read_to_string(folder.path().join("asked")).expect("it was asked");
        tool.set_cc_mode(device(), CcMode::On).expect("it ends well");
        assert_eq!(asked(), "--gpu-bdf=0000:41:00.0 --set-cc-mode=on --reset-after-cc-mode-switch\n");
        tool.set_ppcie_mode(device(), false).expect("it ends well");
        assert_eq!(asked(), "--gpu-bdf=0000:41:00.0 --set-ppcie-mode=off --reset-after-ppcie-mode-switch\n");
    }

    #[test]
    fn a_device_without_the_mode_is_told_from_a_tool_that_failed() {
        let (_folder, unsupported) =
            tool("echo 'ERROR Querying PPCIe mode is not supported on GPU' >&2; exit 1");
        assert!(matches!(unsupported.ppcie_mode(device()), Err(CcError::NotSupported { .. })));
        let (_folder, broken) = tool("echo 'GpuError: device is in D3' >&2; exit 1");
        let error = broken.set_cc_mode(device(), CcMode::On).expect_err("it failed").to_string();
        assert!(error.contains("device is in D3") && error.contains("--set-cc-mode=on"), "{error}");
    }

    #[test]
    fn silence_is_not_taken_for_a_mode() {
        let (_folder, tool) = tool("echo 'INFO GPU 0000:42:00.0 CC mode is on'");
        assert!(matches!(tool.cc_mode(device()), Err(CcError::Unclear { .. })));
    }

    #[test]
    fn a_tool_that_is_not_there_is_named() {
        let error = AdminTool::at(Path::new("/no/tool.py")).expect_err("it is not there").to_string();
        assert!(error.contains("/no/tool.py"), "{error}");
    }
}
