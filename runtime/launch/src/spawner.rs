//! Starts child processes from a thread that lives as long as this process.
//!
//! `PR_SET_PDEATHSIG` (prctl(2)), by which QEMU dies with its parent, means the *thread* that forked: one of a pool
//! that is let go while idle would take a running guest with it.

use std::{io, sync::OnceLock};

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

/// Starts `command`; its parent thread never ends before this process does.
pub(crate) async fn spawn(command: Command) -> io::Result<Child> {
    let orders = ORDERS.get_or_init(|| {
        let (orders, mut taken) = mpsc::unbounded_channel::<Order>();
        std::thread::spawn(move || {
            while let Some(Order { mut command, runtime, reply }) = taken.blocking_recv() {
                let _inside = runtime.enter();
                // A caller that went away drops the child, and kill_on_drop ends it.
                drop(reply.send(command.spawn()));
            }
        });
        orders
    });
    let (reply, answer) = oneshot::channel();
    let gone = || io::Error::other("the thread that starts processes is gone");
    orders.send(Order { command, runtime: Handle::current(), reply }).map_err(|_| gone())?;
    answer.await.map_err(|_| gone())?
}
