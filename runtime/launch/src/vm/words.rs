//! Why a guest ended, in an operator's words, with what to do where it is known.

use std::{fmt, os::unix::process::ExitStatusExt, process::ExitStatus};

use crate::qmp::Ending;

/// What QEMU says when something of the machine is missing, and what to do about it.
const REMEDIES: [(&str, &str); 13] = [
    (
        "Could not access KVM kernel module",
        "enable virtualisation in the BIOS, load kvm_intel or kvm_amd, and be in group kvm",
    ),
    ("vm-type TDX not supported", "TDX is off on this host: `cocoon host doctor` says what is missing"),
    (
        "vm-type SEV-SNP not supported",
        "SEV-SNP is off on this host: `cocoon host doctor` says what is missing",
    ),
    ("KVM required", "a confidential guest needs KVM: `cocoon host doctor` says what is missing"),
    (
        "unable to set guest cid: Address already in use",
        "another VM has this CID: give the guest another `cid` in host.toml",
    ),
    ("/dev/vhost-vsock", "load the module vhost_vsock, and be in the group that owns the device"),
    (
        "Could not set up host forwarding rule",
        "the forwarded port is taken: give the guest another `port` in host.toml",
    ),
    (
        "/dev/iommu does not exist",
        "the kernel has no iommufd: use Linux 6.6 or later, or `iommu = \"legacy\"` in host.toml",
    ),
    ("no such host device", "the GPU is not at this address: `lspci -D` shows where it is"),
    ("is not bound to", "the GPU is not bound to vfio-pci: `cocoon host doctor` says who holds it"),
    (
        "Cannot allocate memory",
        "the host has too little free memory, or LimitMEMLOCK is too low: see `cocoon host unit`",
    ),
    (
        "cannot set up guest memory",
        "the host has too little free memory: give the guest less `memory` in host.toml",
    ),
    (
        "could not load PC BIOS",
        "the firmware is not there, or its length is no multiple of 64 KiB: build the image again",
    ),
];

/// How a guest ended. Displayed as a whole sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    status: Option<ExitStatus>,
    ending: Ending,
    said: Vec<String>,
}

impl Ended {
    pub(super) fn new(status: Option<ExitStatus>, ending: Ending, said: Vec<String>) -> Self {
        Self { status, ending, said }
    }

    /// Whether it ended because it was told to, by the host or from within.
    pub fn in_order(&self) -> bool {
        let cause = self.ending.shutdown.as_deref();
        let told = matches!(
            cause,
            Some("guest-shutdown" | "host-qmp-quit" | "host-signal" | "host-qmp-system-reset")
        );
        told && !self.ending.panicked && self.status.is_some_and(|status| status.success())
    }

    /// What to do, where QEMU's words are known.
    pub fn remedy(&self) -> Option<&'static str> {
        let known = |said: &String| REMEDIES.iter().find(|(words, _)| said.contains(words));
        self.said.iter().find_map(known).map(|(_, remedy)| *remedy)
    }

    fn why(&self) -> String {
        if self.ending.panicked {
            return "the guest's kernel panicked".to_owned();
        }
        match (self.ending.shutdown.as_deref(), self.status) {
            (Some("guest-shutdown"), _) => "the guest shut itself down".to_owned(),
            // With -no-reboot a guest that restarts ends; panic=-1 restarts at once.
            (Some("guest-reset"), _) => {
                "the guest restarted: a panic in it, or a part of the image that does not verify".to_owned()
            }
            (Some("guest-panic"), _) => "the guest's kernel panicked".to_owned(),
            (Some("host-qmp-quit" | "host-signal"), _) => "QEMU was told to end".to_owned(),
            (Some(other), _) => format!("QEMU ended the guest ({other})"),
            (None, Some(status)) => match (status.code(), status.signal()) {
                (Some(0), _) => "QEMU ended".to_owned(),
                (Some(code), _) => format!("QEMU ended with code {code}"),
                (None, Some(9)) => "QEMU was killed: by the host, or for want of memory".to_owned(),
                (None, signal) => format!("QEMU was ended by signal {}", signal.unwrap_or_default()),
            },
            (None, None) => "QEMU ended in a way that could not be observed".to_owned(),
        }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.why())?;
        if !self.said.is_empty() {
            write!(f, "; QEMU said: {}", self.said.join(" | "))?;
        }
        match self.remedy() {
            Some(remedy) => write!(f, "; {remedy}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(raw: i32, shutdown: Option<&str>, panicked: bool, said: &[&str]) -> Ended {
        let ending = Ending { shutdown: shutdown.map(str::to_owned), panicked };
        let said = said.iter().map(|&line| line.to_owned()).collect();
        Ended::new(Some(ExitStatus::from_raw(raw)), ending, said)
    }

    #[test]
    fn each_way_to_end_has_its_words() {
        for (end, words, in_order) in [
            (ended(0, Some("guest-shutdown"), false, &[]), "shut itself down", true),
            (ended(0, Some("host-qmp-quit"), false, &[]), "told to end", true),
            (ended(0, Some("guest-reset"), false, &[]), "does not verify", false),
            (ended(0, Some("guest-shutdown"), true, &[]), "panicked", false),
            (ended(0, None, false, &[]), "QEMU ended", false),
            (ended(1 << 8, None, false, &[]), "code 1", false),
            (ended(9, None, false, &[]), "killed", false),
            (ended(11, None, false, &[]), "signal 11", false),
        ] {
            assert!(end.to_string().contains(words), "{words}: {end}");
            assert_eq!(end.in_order(), in_order, "{end}");
        }
    }

    #[test]
    fn what_is_known_of_the_machine_comes_with_a_remedy() {
        let end = ended(
            1 << 8,
            None,
            false,
            &["warning: x", "vhost-vsock: unable to set guest cid: Address already in use"],
        );
        assert!(end.to_string().contains("give the guest another `cid`"), "{end}");
        assert_eq!(ended(1 << 8, None, false, &["something new"]).remedy(), None);
    }
}
