//! `cocoon host unit`.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cocoon_launch::config::TeeChoice;
use cocoon_launch::unit::{FOLDER, NAME, Unit};

use super::load;
use crate::error::{Explain, Failure};
use crate::ui::{Screen, print};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The host's configuration
    #[arg(long, value_name = "FILE", default_value = "/etc/cocoon/host.toml")]
    config: PathBuf,
    /// Write the service where systemd finds it, in place of an earlier one; for root
    #[arg(long)]
    install: bool,
    #[arg(long, value_name = "DIR", hide = true, default_value = FOLDER)]
    folder: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let config = load(&arguments.config)?;
    let absolute = |path: &Path| {
        std::path::absolute(path)
            .explain(|| format!("cannot use the path {}", path.display()), "name it from / on")
    };
    let unit = Unit {
        program: std::env::current_exe()
            .explain(|| "this program's own path is not known".into(), "start it by its path")?,
        config: absolute(&arguments.config)?,
        state: config.state.clone(),
        gpus: config.guests.iter().any(|guest| !guest.gpus.is_empty()),
        emulation: config.tee == TeeChoice::Emulation,
    };
    let text = unit.text().map_err(|error| Failure::usage(error.to_string(), "move it, then try again"))?;
    if !arguments.install {
        print(text.trim_end())?;
        return Ok(ExitCode::SUCCESS);
    }
    let path = arguments.folder.join(NAME);
    install(&path, &text).explain(
        || format!("cannot write {}", path.display()),
        "run this as root, or pipe `cocoon host unit` to where you want it",
    )?;
    let screen = Screen::new(false);
    screen.line(&format!("{} {}", screen.bold("installed"), path.display()));
    if !unit.gpus {
        screen.detail(
            "user",
            "useradd --system --groups kvm --home-dir /nonexistent --shell /usr/sbin/nologin cocoon",
        );
        screen.detail("folder", &format!("install -d -m 700 -o cocoon -g cocoon {}", unit.state.display()));
    }
    screen.detail("next", &format!("systemctl daemon-reload && systemctl enable --now {NAME}"));
    Ok(ExitCode::SUCCESS)
}

/// Whole or not at all.
fn install(path: &Path, text: &str) -> std::io::Result<()> {
    let staging = path.with_extension(format!("service.{}", std::process::id()));
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(0o644).open(&staging)?;
    let written = std::io::Write::write_all(&mut file, text.as_bytes()).and_then(|()| file.sync_all());
    written
        .and_then(|()| std::fs::rename(&staging, path))
        .inspect_err(|_| drop(std::fs::remove_file(&staging)))
}
