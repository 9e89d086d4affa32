//! How a part is told to end: an interrupt, a termination signal, or the end of its standard input when a parent
//! holds it as a lifeline. The last works even when the parent is killed, without signals or unsafe code.

use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Explain, Failure};

/// Completes when this process should shut down in order.
pub(crate) struct Shutdown {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    lifeline: bool,
}

impl Shutdown {
    /// Handlers are in place when this returns, so that no early signal is lost.
    pub(crate) fn listen(lifeline: bool) -> Result<Self, Failure> {
        let install = |kind| signal(kind).explain(|| "cannot install a signal handler".into(), "try again");
        Ok(Self {
            interrupt: install(SignalKind::interrupt())?,
            terminate: install(SignalKind::terminate())?,
            lifeline,
        })
    }

    /// Waits for the first of the signals.
    pub(crate) async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            () = stdin_ended(), if self.lifeline => {}
        }
    }
}

/// Reads and drops standard input until it ends. A thread of its own: a blocked read must not hold the runtime's exit.
async fn stdin_ended() {
    let (done, ended) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        use std::io::Read;
        let mut scratch = [0u8; 256];
        while matches!(std::io::stdin().lock().read(&mut scratch), Ok(1..)) {}
        let _ = done.send(());
    });
    let _ = ended.await;
}
