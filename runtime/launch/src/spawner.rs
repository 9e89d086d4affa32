//! Starts child processes from a thread that lives as long as this process.
//!
//! `PR_SET_PDEATHSIG` (prctl(2)), by which QEMU dies with its parent, means the *thread* that forked: one of a pool
//! that is let go while idle would take a running guest with it.
//!
//! Capabilities belong to a thread too, and children inherit them: this one gives up its own, so that a guest that breaks
//! out of QEMU is a user without privileges even where the host is root for its GPUs' sake. `no_new_privs` keeps
//! execve(2) from giving root's back (capabilities(7)). Device nodes open by their owner, which needs no capability.

use std::{io, sync::OnceLock};

use rustix::{
    process::{Resource, Rlimit, setrlimit},
    thread,
};
use tokio::{
    process::{Child, Command},
    runtime::Handle,
    sync::{mpsc, oneshot},
};

struct Order {
    command: Command,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Child>>,
}

static ORDERS: OnceLock<mpsc::UnboundedSender<Order>> = OnceLock::new();

/// For this thread and all that it starts, for ever.
fn give_up_privileges() -> rustix::io::Result<()> {
    // What CAP_IPC_LOCK would allow a root without the service's limits: VFIO pins the guest's memory.
    let unlimited = Rlimit { current: None, maximum: None };
    if let Err(error) = setrlimit(Resource::Memlock, unlimited) {
        tracing::debug!(%error, "the limit of locked memory stays as it is");
    }
    thread::set_no_new_privs(true)?;
    let none = thread::CapabilitySet::empty();
    let sets = thread::CapabilitySets { effective: none, permitted: none, inheritable: none };
    thread::set_capabilities(None, sets)
}

/// Starts `command` without capabilities; its parent thread never ends before this process does.
pub(crate) async fn spawn(command: Command) -> io::Result<Child> {
    let orders = ORDERS.get_or_init(|| {
        let (orders, mut taken) = mpsc::unbounded_channel::<Order>();
        std::thread::spawn(move || {
            let unprivileged = give_up_privileges();
            while let Some(Order { mut command, runtime, reply }) = taken.blocking_recv() {
                let _inside = runtime.enter();
                // A caller that went away drops the child, and kill_on_drop ends it.
                drop(reply.send(unprivileged.map_err(io::Error::from).and_then(|()| command.spawn())));
            }
        });
        orders
    });
    let (reply, answer) = oneshot::channel();
    let gone = || io::Error::other("the thread that starts processes is gone");
    orders.send(Order { command, runtime: Handle::current(), reply }).map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use super::*;

    #[tokio::test]
    async fn what_is_started_has_no_capability_and_gets_none_back() {
        let mut command = Command::new("/bin/cat");
        command.arg("/proc/self/status").stdout(Stdio::piped());
        let child = spawn(command).await.expect("a program of this system");
        let output = child.wait_with_output().await.expect("it ends");
        let text = String::from_utf8(output.stdout).expect("text");
        let value = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)).expect(key);
            line.trim().to_owned()
        };
        for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
            assert_eq!(value(set), "0000000000000000", "{set}");
        }
        assert_eq!(value("NoNewPrivs:"), "1");
    }
}
