//! Long work shown: bars on a terminal, plain lines elsewhere; both on standard error.

use std::io::IsTerminal as _;
use std::sync::Arc;

use cocoon_image_build::{Progress, Quiet, Task};
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use crate::ui::one_line;

/// What suits standard error.
pub(super) fn progress() -> Arc<dyn Progress> {
    if std::io::stderr().is_terminal() { Arc::new(Bars(MultiProgress::new())) } else { Arc::new(Lines) }
}

struct Bars(MultiProgress);

struct Bar(ProgressBar);

impl Progress for Bars {
    fn begin(&self, what: &str, total: u64) -> Box<dyn Task> {
        let style = ProgressStyle::with_template("   {msg:<48!} {bar:24} {percent:>3} %  {eta}");
        let bar = self.0.add(ProgressBar::new(total));
        bar.set_style(style.expect("a template that a test has read"));
        bar.set_message(one_line(what));
        Box::new(Bar(bar))
    }

    fn note(&self, text: &str) {
        // A terminal that went away is no error of ours.
        let _ = self.0.println(format!("   {}", one_line(text)));
    }
}

impl Task for Bar {
    fn advance(&self, bytes: u64) {
        self.0.inc(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

struct Lines;

impl Progress for Lines {
    fn begin(&self, what: &str, _total: u64) -> Box<dyn Task> {
        eprintln!("{}", one_line(what));
        Box::new(Quiet)
    }

    fn note(&self, text: &str) {
        eprintln!("{}", one_line(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_can_be_drawn() {
        let bars = Bars(MultiProgress::with_draw_target(indicatif::ProgressDrawTarget::hidden()));
        let task = bars.begin("libc6\n2.41", 10);
        task.advance(10);
        bars.note("done");
    }
}
