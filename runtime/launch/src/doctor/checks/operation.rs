//! What a host needs to serve and to earn: disk, ports, chain, wallet.

use std::io::ErrorKind;

use super::{Look, gib, probed};
use crate::doctor::report::{Check, Group};

const GROUP: Group = Group::Operation;

pub(super) fn disk(look: &Look<'_>) -> Check {
    let (folder, needed) = (&look.question.state, look.question.disk);
    let check = Check::new("disk.free", GROUP, format!("{} in {}", gib(needed), folder.display()), "");
    match look.machine.free(folder) {
        Ok(free) if free >= needed => {
            Check { found: gib(free), ..check }.ok("enough for images, models and books")
        }
        Ok(free) => Check { found: gib(free), ..check }.fail(
            "images, models and books need room",
            "free some, or name a folder on another disk with --state",
        ),
        Err(error) => Check { found: error.to_string(), ..check }
            .fail("the folder cannot be looked at", "name another folder with --state"),
    }
}

pub(super) fn ports(look: &Look<'_>) -> Check {
    let ports = &look.question.ports;
    let names: Vec<String> = ports.iter().map(ToString::to_string).collect();
    let check = Check::new("ports.free", GROUP, "free ports", names.join(", "));
    if ports.is_empty() {
        return check.skipped("no address to serve on is given");
    }
    for address in ports {
        if let Err(error) = look.machine.listen(*address) {
            let found = format!("{address}: {error}");
            let (reason, remedy) = match error.kind() {
                ErrorKind::AddrInUse => (
                    "another program serves there",
                    format!(
                        "end it (`ss -ltnp 'sport = :{}'` names it), or choose another port",
                        address.port()
                    ),
                ),
                ErrorKind::PermissionDenied => {
                    ("this user may not serve there", "choose a port above 1023".into())
                }
                ErrorKind::AddrNotAvailable => {
                    ("this machine has no such address", "choose one that `ip address` shows".into())
                }
                _ => ("it cannot be served on", "choose another".into()),
            };
            return Check { found, ..check }.fail(reason, remedy);
        }
    }
    check.ok("free")
}

pub(super) fn chain(look: &Look<'_>) -> Check {
    let check = Check::new("chain.reach", GROUP, "the network's chain", "");
    let remedy =
        "check the chain's address in the network file; on a development network start `cocoon chain`";
    probed(check, &look.machine.network().chain, remedy, |check, chain| {
        Check { found: chain.clone(), ..check }.ok("it answers")
    })
}

pub(super) fn wallet(look: &Look<'_>) -> Check {
    let needed = look.question.balance;
    let check = Check::new("wallet.balance", GROUP, format!("{} TON for fees", ton(needed)), "");
    if let Some(blocker) = look.blocked_by(&["chain.reach"]) {
        return check.skipped(format!("{blocker} comes first"));
    }
    let remedy = "check the network and the wallet's key in the state folder";
    probed(check, &look.machine.network().wallet, remedy, |check, balance| {
        let check = Check { found: format!("{} TON", ton(*balance)), ..check };
        match *balance {
            0 => check.fail("without coins nothing can be settled", "send some TON to the operator's wallet"),
            some if some < needed => {
                check.warn("fees may use it up before it earns", "send some TON to the operator's wallet")
            }
            _ => check.ok("enough for fees"),
        }
    })
}

/// Nanotons as TON, without trailing zeros.
fn ton(nanotons: u64) -> String {
    let fraction = format!("{:09}", nanotons % 1_000_000_000);
    let fraction = fraction.trim_end_matches('0');
    let whole = nanotons / 1_000_000_000;
    if fraction.is_empty() { whole.to_string() } else { format!("{whole}.{fraction}") }
}
