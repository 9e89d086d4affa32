//! What evidence is made of: the clock, quotes, collateral.

use super::{Look, probed};
use crate::doctor::report::{Check, Group, Tee};
use crate::plan::QuoteService;
use crate::root::Files;

const GROUP: Group = Group::Attestation;

/// Seconds that a clock may be off. Evidence is refused when it is ten minutes old; a Date header has whole seconds.
const GOOD: u64 = 5;
const BEARABLE: u64 = 60;

pub(super) fn clock(look: &Look<'_>) -> Check {
    const REMEDY: &str = "let the clock be set: systemctl enable --now systemd-timesyncd (or chrony)";
    let check = Check::new("clock.offset", GROUP, format!("within {BEARABLE} s of the network's time"), "");
    let kept =
        look.root.exists("/run/systemd/timesync/synchronized") || look.root.exists("/run/chrony/chronyd.pid");
    probed(
        check,
        &look.machine.network().clock,
        "check the network; the time is asked over HTTP",
        |check, ahead| {
            let off = ahead.unsigned_abs();
            let side = if *ahead < 0 { "behind" } else { "ahead" };
            let found = if off <= GOOD { "right".into() } else { format!("{} {side}", span(off)) };
            let check = Check { found, ..check };
            match (off, kept) {
                (0..=GOOD, true) => check.ok("a time service keeps it"),
                (0..=GOOD, false) => check.ok("it is right, though no time service was seen"),
                (..=BEARABLE, _) => check.warn("evidence and vouchers carry the time", REMEDY),
                _ => check
                    .fail("clients would refuse the guest's evidence as old, or as from the future", REMEDY),
            }
        },
    )
}

fn span(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}

pub(super) fn quotes(look: &Look<'_>) -> Check {
    const REMEDY: &str =
        "install Intel's tdx-qgs, set `port = 4050` in /etc/qgs.conf, systemctl enable --now qgsd";
    let service = &look.question.quote_service;
    let check = Check::new("quote.service", GROUP, format!("Intel's QGS on {service}"), "");
    if look.tee != Tee::Tdx {
        return check.not_applicable("only TDX needs a service to sign quotes");
    }
    match service {
        QuoteService::Unix(path) => match look.machine.connect(path) {
            Ok(()) => Check { found: path.display().to_string(), ..check }.ok("it listens"),
            Err(error) => Check { found: error.to_string(), ..check }.fail("nobody listens there", REMEDY),
        },
        QuoteService::Vsock { port, .. } => {
            let Some(pid) = process(look, "qgs") else {
                return Check { found: "no process qgs".into(), ..check }
                    .fail("without it the TD gets no quote", REMEDY);
            };
            let set = configured_port(look);
            let check = Check {
                found: format!("process {pid}, port {}", set.map_or("none".into(), |p| p.to_string())),
                ..check
            };
            match set == Some(*port) {
                true => check.ok("it runs, and its port is the one that QEMU will ask"),
                false => check.fail("it listens elsewhere", REMEDY),
            }
        }
    }
}

/// A process by its name.
fn process(look: &Look<'_>, name: &str) -> Option<u32> {
    let pids = look.root.names("/proc").ok()?;
    let mut pids = pids.iter().filter_map(|pid| pid.parse::<u32>().ok());
    pids.find(|pid| look.root.word(&format!("/proc/{pid}/comm")).is_some_and(|comm| comm == name))
}

/// `port = N` in /etc/qgs.conf; without it the service takes a unix socket.
fn configured_port(look: &Look<'_>) -> Option<u32> {
    let text = look.root.text("/etc/qgs.conf").ok()?;
    text.lines()
        .filter_map(|line| line.split_once('='))
        .find(|(key, _)| key.trim() == "port")?
        .1
        .trim()
        .parse()
        .ok()
}

pub(super) fn collateral(look: &Look<'_>) -> Check {
    let (expected, remedy) = match look.tee {
        Tee::Tdx => (
            "Intel's provisioning service or a cache of it (PCCS)",
            "let this machine reach api.trustedservices.intel.com over HTTPS, or configure a PCCS that does",
        ),
        Tee::Snp => (
            "AMD's key distribution service",
            "let this machine reach kdsintf.amd.com over HTTPS, or keep the chain in the host's cache",
        ),
        Tee::Emulation => {
            return Check::new("collateral.reach", GROUP, "", "")
                .not_applicable("a development network has its own root, which needs no vendor's service");
        }
    };
    let check = Check::new("collateral.reach", GROUP, expected, "");
    probed(check, &look.machine.network().collateral, remedy, |check, service| {
        Check { found: service.clone(), ..check }.ok("it answers")
    })
}
