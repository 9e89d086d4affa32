//! How far long work has come, for whoever wants to show it.

/// Shows work that takes time.
pub trait Progress: Send + Sync {
    /// Work begins: `what` names it (`fetching libc6`), `total` is its length in bytes. It ends when the task is dropped.
    fn begin(&self, what: &str, total: u64) -> Box<dyn Task>;
    /// Something worth a line of its own, as it happens.
    fn note(&self, text: &str);
}

/// One piece of work.
pub trait Task: Send + Sync {
    /// So many more bytes are done.
    fn advance(&self, bytes: u64);
}

/// Shows nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quiet;

impl Progress for Quiet {
    fn begin(&self, _what: &str, _total: u64) -> Box<dyn Task> {
        Box::new(Self)
    }

    fn note(&self, _text: &str) {}
}

impl Task for Quiet {
    fn advance(&self, _bytes: u64) {}
}
