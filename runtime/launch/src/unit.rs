//! The systemd service of a host: what it may touch is what it needs.

use std::path::{Path, PathBuf};

/// The service's name.
pub const NAME: &str = "cocoon-host.service";
/// Where systemd looks for an administrator's services.
pub const FOLDER: &str = "/etc/systemd/system";

/// What the service is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unit {
    /// The `cocoon` executable.
    pub program: PathBuf,
    /// `host.toml`.
    pub config: PathBuf,
    /// The state folder: the one place that is written to, the cache of packages and weights disks in it.
    pub state: PathBuf,
    /// Guests have GPUs: their drivers are changed by writing to sysfs, which only root may.
    pub gpus: bool,
    /// The guest is emulated: QEMU writes the code that it executes.
    pub emulation: bool,
}

/// A path that systemd would read otherwise.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{path:?} cannot stand in a systemd service: it must be absolute, without spaces, quotes, %, $, \\ or control characters; move it"
)]
pub struct UnitError {
    /// The path.
    pub path: PathBuf,
}

impl Unit {
    /// The service's text.
    ///
    /// # Errors
    /// [`UnitError`].
    pub fn text(&self) -> Result<String, UnitError> {
        let (program, config, state) = (plain(&self.program)?, plain(&self.config)?, plain(&self.state)?);
        let who = if self.gpus { AS_ROOT } else { AS_USER };
        let code = if self.emulation { EMULATION } else { "MemoryDenyWriteExecute=yes\n" };
        Ok(format!(
            "{UNIT}\n[Service]\nType=exec\nExecStart={program} host up --config {config}\n\
             ReadWritePaths={state}\n# Programs and weights disks; home folders are out of reach.\n\
             Environment=XDG_CACHE_HOME={state}/cache\n{LIFE}\n{who}\n{HARDENING}{code}\n{DEVICES}\n[Install]\n\
             WantedBy=multi-user.target\n"
        ))
    }
}

const UNIT: &str = "\
[Unit]
Description=Cocoon host: launches confidential guests, relays sealed requests, is paid
After=network-online.target
Wants=network-online.target
# A host that keeps failing is for a person to look at: `cocoon host doctor`.
StartLimitIntervalSec=600
StartLimitBurst=10
";

const LIFE: &str = "\
# The host is told and ends its guests in order; what is left after that is killed with it.
KillMode=mixed
KillSignal=SIGTERM
# Answers under way, the guests side by side, then vouchers on the chain.
TimeoutStopSec=300
Restart=on-failure
RestartSec=5
OOMPolicy=stop
";

const AS_USER: &str = "\
# Make the user once: useradd --system --groups kvm --home-dir /nonexistent --shell /usr/sbin/nologin cocoon
User=cocoon
Group=cocoon
SupplementaryGroups=kvm
CapabilityBoundingSet=
AmbientCapabilities=
PrivateUsers=no
ProtectKernelTunables=yes
";

const AS_ROOT: &str = "\
# GPUs are taken from their driver and given to vfio-pci by writing to /sys, and NVIDIA's admin tool reads the whole
# configuration space, which the kernel allows with CAP_SYS_ADMIN. Everything else that root may is taken away.
User=root
CapabilityBoundingSet=CAP_SYS_ADMIN
ProtectKernelTunables=no
";

const EMULATION: &str = "\
# QEMU without KVM translates the guest's code and executes what it wrote.
MemoryDenyWriteExecute=no
";

const HARDENING: &str = "\
# Guests' memory stays in place: devices write to it, and it is never on a swap disk.
LimitMEMLOCK=infinity
MemorySwapMax=0
LimitCORE=0
LimitNOFILE=65536
UMask=0077
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
ProtectProc=default
ProtectClock=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectControlGroups=yes
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
KeyringMode=private
RemoveIPC=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_VSOCK AF_NETLINK
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
";

const DEVICES: &str = "\
# char-vfio are VFIO's groups, char-vfio-dev its devices for iommufd.
DevicePolicy=closed
DeviceAllow=/dev/kvm rw
DeviceAllow=/dev/sev rw
DeviceAllow=/dev/vhost-vsock rw
DeviceAllow=/dev/vfio/vfio rw
DeviceAllow=/dev/iommu rw
DeviceAllow=char-vfio rw
DeviceAllow=char-vfio-dev rw
";

fn plain(path: &Path) -> Result<&str, UnitError> {
    let odd = |c: char| c.is_whitespace() || c.is_control() || "\"'%$\\;".contains(c);
    let text = path.to_str().filter(|text| path.is_absolute() && !text.chars().any(odd));
    text.ok_or_else(|| UnitError { path: path.to_path_buf() })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn unit(gpus: bool, emulation: bool) -> Unit {
        Unit {
            program: "/bin/true".into(),
            config: "/etc/cocoon/host.toml".into(),
            state: "/var/lib/cocoon/state".into(),
            gpus,
            emulation,
        }
    }

    /// Sections with their settings; every line is a comment, a section, or a setting.
    fn settings(text: &str) -> Vec<(String, String, String)> {
        let mut section = String::new();
        let mut found = Vec::new();
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                name.clone_into(&mut section);
                continue;
            }
            let (key, value) = line.split_once('=').expect(line);
            assert!(key.chars().all(|c| c.is_ascii_alphabetic()) && !section.is_empty(), "{line}");
            found.push((section.clone(), key.to_owned(), value.to_owned()));
        }
        found
    }

    #[test]
    fn the_service_may_touch_what_it_needs_and_nothing_else() {
        for (gpus, emulation) in [(false, false), (true, false), (false, true)] {
            let settings = settings(&unit(gpus, emulation).text().expect("good paths"));
            let value = |key: &str| {
                let mut all = settings.iter().filter(|(_, found, _)| found == key);
                let value = all.next().map(|(_, _, value)| value.as_str());
                assert!(all.next().is_none(), "{key} twice");
                value.unwrap_or_default()
            };
            for (key, good) in [
                ("NoNewPrivileges", "yes"),
                ("ProtectSystem", "strict"),
                ("ReadWritePaths", "/var/lib/cocoon/state"),
                ("DevicePolicy", "closed"),
                ("LimitMEMLOCK", "infinity"),
                ("KillMode", "mixed"),
                ("ExecStart", "/bin/true host up --config /etc/cocoon/host.toml"),
                ("Environment", "XDG_CACHE_HOME=/var/lib/cocoon/state/cache"),
                ("User", if gpus { "root" } else { "cocoon" }),
                ("CapabilityBoundingSet", if gpus { "CAP_SYS_ADMIN" } else { "" }),
                ("ProtectKernelTunables", if gpus { "no" } else { "yes" }),
                ("MemoryDenyWriteExecute", if emulation { "no" } else { "yes" }),
            ] {
                assert_eq!(value(key), good, "{key}");
            }
            let allowed: Vec<&str> = settings
                .iter()
                .filter(|(_, key, _)| key == "DeviceAllow")
                .map(|(_, _, v)| v.as_str())
                .collect();
            assert_eq!(allowed.len(), 7);
            assert!(allowed.iter().all(|device| device.ends_with(" rw")), "no device is made: {allowed:?}");
        }
    }

    #[test]
    fn systemd_understands_every_line() {
        for (gpus, emulation) in [(false, false), (true, true)] {
            let at = tempfile::tempdir().expect("a folder");
            let path = at.path().join(NAME);
            // The user is the operator's to make, and systemd looks whether it is there.
            let text = unit(gpus, emulation).text().expect("good paths").replace("cocoon\n", "root\n");
            std::fs::write(&path, text).expect("writable");
            let Ok(output) = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output()
            else {
                eprintln!(
                    "SKIPPED: systemd-analyze is not on this machine; the lines were read by ourselves alone"
                );
                return;
            };
            let said = String::from_utf8_lossy(&output.stderr);
            let ours: Vec<&str> = said.lines().filter(|line| line.contains(NAME)).collect();
            assert!(ours.is_empty(), "{ours:?}");
        }
    }

    #[test]
    fn systemd_would_say_so_if_a_line_were_wrong() {
        let at = tempfile::tempdir().expect("a folder");
        let path = at.path().join(NAME);
        let text =
            unit(false, false).text().expect("good paths").replace("NoNewPrivileges", "NoNewPrivilege");
        std::fs::write(&path, text).expect("writable");
        let Ok(output) = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output()
        else {
            eprintln!("SKIPPED: systemd-analyze is not on this machine");
            return;
        };
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("NoNewPrivilege"), "{said}");
    }

    #[test]
    fn paths_that_systemd_would_read_otherwise_are_refused() {
        for bad in ["state", "/a b", "/a%h", "/a$HOME", "/a\nUser=root", "/a\\x20", "/a;b", "/\"a"] {
            assert!(Unit { state: bad.into(), ..unit(false, false) }.text().is_err(), "{bad}");
            assert!(Unit { config: bad.into(), ..unit(false, false) }.text().is_err(), "{bad}");
        }
    }
}
