//! `cocoon image tools`: where the pinned programs and files are, for operators and tests.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use cocoon_image_build::Toolbox;
use serde::Serialize;

use super::{Source, explained};
use crate::error::Failure;
use crate::ui::Screen;

#[derive(clap::Args)]
#[command(after_help = "\
QEMU, the software TPM and the firmware that the lock names are unpacked into the cache; nothing is installed. The programs
bring their own C library: start them through the loader of their tree, as cocoon host up --vm does.

The firmware of TDX and SNP comes from Debian's unstable, whose packages leave the archive when newer ones come. If they are
gone, that is said, and the exit code is 0 all the same.")]
pub(crate) struct Arguments {
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
    /// Print variables for a shell: eval "$(cocoon image tools --shell)"
    #[arg(long, conflicts_with = "json")]
    shell: bool,
    /// Also link kernel and firmware into this folder, by their plain names
    #[arg(long, value_name = "DIR")]
    link: Option<PathBuf>,
    /// Fetch nothing: everything must be in the cache
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    source: Source,
}

/// What `--json` prints, in this order.
#[derive(Serialize)]
struct Output<'a> {
    /// The tree with QEMU and swtpm.
    vm_tools: &'a Path,
    programs: Vec<Named<'a>>,
    kernel: &'a Path,
    firmware: &'a [PathBuf],
    /// Packages of unstable that have left the archive, in words.
    gone: &'a [String],
}

#[derive(Serialize)]
struct Named<'a> {
    name: &'a str,
    path: &'a Path,
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let lock = arguments.source.read_lock().map_err(explained)?;
    let store = arguments.source.store(arguments.offline, arguments.json)?;
    let tools = Toolbox::fetch(&lock, &store).await.map_err(explained)?;
    if let Some(folder) = &arguments.link {
        tools.link_into(folder).map_err(explained)?;
    }
    if arguments.json {
        let programs = tools.programs.iter().map(|own| Named { name: own.name(), path: own.path() });
        let Toolbox { vm_tools, kernel, firmware, gone, .. } = &tools;
        let output = Output { vm_tools, programs: programs.collect(), kernel, firmware, gone };
        crate::ui::print(&serde_json::to_string_pretty(&output).expect("paths of the cache are text"))?;
    } else if arguments.shell {
        crate::ui::print(&shell(&tools, arguments.link.as_deref())?)?;
    } else {
        show(&Screen::new(false), &tools);
    }
    if !arguments.json {
        for gone in &tools.gone {
            eprintln!("SKIPPED: {gone}: what needs the firmware of TDX and SNP proves nothing here");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Assignments with the names that the tests of this source tree look for.
fn shell(tools: &Toolbox, linked: Option<&Path>) -> Result<String, Failure> {
    let linked = linked.map(std::path::absolute).transpose().map_err(|error| {
        Failure::new(format!("where this runs cannot be told: {error}"), "go to a folder that exists")
    })?;
    let variables = [
        ("COCOON_QEMU_TREE", Some(tools.vm_tools.as_path())),
        ("COCOON_KERNEL", Some(&tools.kernel)),
        ("COCOON_OVMF", tools.plain_firmware()),
        ("COCOON_BOOT_FILES", linked.as_deref()),
    ];
    let lines = variables.iter().filter_map(|(name, path)| {
        Some(format!("export {name}={}", quoted(&(*path)?.display().to_string())))
    });
    Ok(lines.collect::<Vec<_>>().join("\n"))
}

/// As one word of a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn show(screen: &Screen, tools: &Toolbox) {
    for program in &tools.programs {
        screen.detail("program", &program.path().display().to_string());
    }
    screen.detail("kernel", &tools.kernel.display().to_string());
    for firmware in &tools.firmware {
        screen.detail("firmware", &firmware.display().to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_stays_one_word_whatever_is_in_it() {
        for path in ["/a b/c", "/it's", "/$(touch x)/`y`\"\\", "/new\nline"] {
            let script = format!("printf %s {}", quoted(path));
            let output = std::process::Command::new("sh").args(["-c", &script]).output().expect("a shell");
            assert_eq!(String::from_utf8_lossy(&output.stdout), path);
        }
    }
}
