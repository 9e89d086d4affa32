//! `cocoon image lock`.

use std::path::Path;
use std::process::ExitCode;

use cocoon_image_build::{Error, Lock, Trust, check, update};
use serde::Serialize;

use super::{Source, explained};
use crate::error::{EXIT_FAILURE, Failure};
use crate::ui::{Screen, one_line};

#[derive(clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).args(["update", "check"]))]
pub(crate) struct Arguments {
    /// Resolve everything anew against the archive, show what changes, and write the lock
    #[arg(long)]
    update: bool,
    /// Say which pinned packages the archive no longer has; exit code 1 if there are any
    #[arg(long)]
    check: bool,
    /// With --update: show what would change and write nothing
    #[arg(long, requires = "update")]
    dry_run: bool,
    /// With --update: believe an index whose signature cannot be checked, because gpgv or Debian's keyring is missing; the
    /// lock says so
    #[arg(long, requires = "update")]
    unsigned: bool,
    /// With --update: take an index that is older than it says it may be
    #[arg(long, requires = "update")]
    stale: bool,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: Source,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Output {
    lock: String,
    /// Suites whose index was believed without its signature.
    unsigned: Vec<String>,
    /// Lines as for people.
    #[serde(skip_serializing_if = "Option::is_none")]
    changes: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gone: Option<Vec<String>>,
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let screen = Screen::new(arguments.json);
    if arguments.update { renew(&arguments, &screen).await } else { look(&arguments, &screen).await }
}

async fn renew(arguments: &Arguments, screen: &Screen) -> Result<ExitCode, Failure> {
    let path = arguments.source.lock_file().map_err(explained)?;
    let before = present(&path, screen)?;
    let store = arguments.source.store(false, arguments.json)?;
    let trust = Trust { unsigned: arguments.unsigned, stale: arguments.stale };
    let lock = update(&store, trust).await.map_err(explained)?;
    let changes = lock.changes_since(&before);
    if changes.is_empty() {
        screen.line("nothing changes: every package is the newest");
    }
    changes.lines().for_each(|line| screen.line(line));
    if !arguments.dry_run && lock != before {
        lock.write(&path).map_err(explained)?;
        screen
            .line(&format!("written: {}; look at what changed, then build and measure anew", path.display()));
    }
    warn_of_unsigned(&lock, screen);
    let changes = Some(changes.lines().map(str::to_owned).collect());
    finish(arguments, Output { changes, ..output(&lock) }, true)
}

/// The lock as it stands; an empty one where there is none, or none that can be read: renewing mends that.
fn present(path: &Path, screen: &Screen) -> Result<Lock, Failure> {
    match Lock::read(path) {
        Ok(lock) => Ok(lock),
        Err(error @ Error::Lock { .. }) => {
            screen.line(
                &screen.warn(&format!("{}; everything is resolved as new", one_line(&error.to_string()))),
            );
            Ok(Lock::new([].into()))
        }
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
            Ok(Lock::new([].into()))
        }
        Err(error) => Err(explained(error)),
    }
}

async fn look(arguments: &Arguments, screen: &Screen) -> Result<ExitCode, Failure> {
    let lock = arguments.source.read_lock().map_err(explained)?;
    let store = arguments.source.store(false, arguments.json)?;
    let gone = check(&store, &lock).await.map_err(explained)?;
    let total = lock.packages().count();
    screen.line(&format!("{} of {total} pinned packages are in the archive", total - gone.len()));
    let gone: Vec<_> = gone
        .iter()
        .map(|(group, package)| {
            format!("{} {} of {} (group {})", package.name, package.version, package.suite, group.word())
        })
        .collect();
    gone.iter().for_each(|line| screen.line(&format!("{} {line}", screen.bad("gone:"))));
    if !gone.is_empty() {
        screen.line("what to do: cocoon image lock --update");
    }
    warn_of_unsigned(&lock, screen);
    let good = gone.is_empty();
    finish(arguments, Output { gone: Some(gone), ..output(&lock) }, good)
}

fn output(lock: &Lock) -> Output {
    let unsigned = lock.unsigned().to_vec();
    Output { lock: lock.digest().to_string(), unsigned, changes: None, gone: None }
}

fn warn_of_unsigned(lock: &Lock, screen: &Screen) {
    for suite in lock.unsigned() {
        let what = format!("the index of {} was believed without its signature", one_line(suite));
        screen.line(
            &screen.warn(&format!("{what}: renew the lock where gpgv is, before anybody relies on it")),
        );
    }
}

fn finish(arguments: &Arguments, output: Output, good: bool) -> Result<ExitCode, Failure> {
    if arguments.json {
        crate::ui::print(&serde_json::to_string_pretty(&output).expect("strings are JSON"))?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) })
}
