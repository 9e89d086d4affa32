//! The demo's other processes: this same binary, one part each, tied to us by a lifeline.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};

use crate::error::{Explain, Failure};

/// How long a part may take to say that it is ready: a guest that is emulated boots slowly on a busy machine.
const START: Duration = Duration::from_secs(300);
/// How long it may take to end in order: it settles on chain first.
const STOP: Duration = Duration::from_secs(30);
/// The hidden flag by which a part knows that its standard input is a lifeline and its first output line is read.
pub(crate) const LIFELINE_FLAG: &str = "--lifeline";

/// The first line on standard output of a part that was started with a lifeline.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Ready {
    /// Where it is reached.
    pub(crate) url: String,
    /// Its wallet, if it has one.
    #[serde(default)]
    pub(crate) wallet: String,
}

impl Ready {
    /// Announces readiness to a parent.
    pub(crate) fn announce(&self) {
        println!("{}", serde_json::to_string(self).expect("strings are JSON"));
    }
}

/// A running part. Dropping it kills the process; closing the lifeline ends it in order.
pub(crate) struct Part {
    name: &'static str,
    child: Child,
    lifeline: Option<ChildStdin>,
    log: PathBuf,
    /// What it announced.
    pub(crate) ready: Ready,
}

impl Part {
    /// Starts `cocoon ARGUMENTS --lifeline` and waits until it is ready.
    pub(crate) async fn start(name: &'static str, arguments: &[&str], logs: &Path) -> Result<Self, Failure> {
        let program = std::env::current_exe().explain(|| "cannot find this program's own file".into(), "")?;
        let log = logs.join(format!("{name}.log"));
        let log_file = std::fs::File::create(&log)
            .explain(|| format!("cannot write {}", log.display()), "check the disk")?;
        let mut child = Command::new(program)
            .args(arguments)
            .arg(LIFELINE_FLAG)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log_file)
            // A group of its own: Ctrl-C comes to us alone, and we end the parts in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .explain(|| format!("cannot start the {name}"), "check the limits of this machine (ulimit -u)")?;
        let lifeline = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().expect("it is piped")).lines();
        let line = tokio::time::timeout(START, output.next_line()).await;
        let ready = match line {
            Ok(Ok(Some(line))) => serde_json::from_str::<Ready>(&line).ok(),
            _ => None,
        };
        let Some(ready) = ready else {
            let _ = child.start_kill();
            let _ = child.wait().await;
            let remedy = format!("read its whole log: {}", log.display());
            return Err(Failure::new(format!("the {name} did not start: {}", last_words(&log)), remedy));
        };
        // Nothing more is read, but a full pipe must never stop the part.
        tokio::spawn(async move { while matches!(output.next_line().await, Ok(Some(_))) {} });
        Ok(Self { name, child, lifeline, log, ready })
    }

    /// Ends it in order and waits for it.
    pub(crate) async fn stop(mut self) -> Result<(), Failure> {
        drop(self.lifeline.take());
        match tokio::time::timeout(STOP, self.child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(_) => Err(Failure::new(
                format!("the {} ended with a failure: {}", self.name, last_words(&self.log)),
                format!("read its whole log: {}", self.log.display()),
            )),
            Err(_) => Err(Failure::new(
                format!("the {} did not end within {} s and was killed", self.name, STOP.as_secs()),
                format!("read its log: {}", self.log.display()),
            )),
        }
    }
}

/// The end of a log, for an error message.
fn last_words(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = &lines[lines.len().saturating_sub(3)..];
    if tail.is_empty() { "it said nothing".to_owned() } else { tail.join(" · ") }
}
