//! `cocoon demo`: the whole network on this machine, one prompt through it, every step shown.

mod journey;
mod report;
mod stage;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::error::{EXIT_FAILURE, Failure};
use crate::lifeline::Shutdown;
use crate::ui::Screen;
use crate::wiring::model_file;

/// The prompt when none is given.
const PROMPT: &str = "Explain in two sentences why the sky is blue.";

#[derive(clap::Args)]
#[command(after_help = "\
The TEE is simulated: it signs real TDX quotes, under a root made for this run. Everything else is the product: the same
gateway, host, guest, verifier, engine and contracts, on an embedded TON ledger. With --vm the guest is booted by QEMU from
the development image, and its registers are those that firmware and kernel measured. Emulation is slow: a small model helps.")]
pub(crate) struct Arguments {
    /// What to ask
    #[arg(long, value_name = "TEXT", default_value = PROMPT)]
    prompt: String,
    /// The model: a GGUF of a family that the engine knows [default: the demo model, if ./scripts/demo fetched it]
    #[arg(long, value_name = "FILE")]
    model: Option<PathBuf>,
    /// Boot the guest in an emulated VM from the development image, instead of running it as a process
    #[arg(long)]
    vm: bool,
    /// The development image's folder, with --vm [default: where `cocoon image build` puts it]
    #[arg(long, value_name = "DIR", requires = "vm")]
    image: Option<PathBuf>,
    /// Most tokens of the answer
    #[arg(long, value_name = "N", default_value_t = 96, value_parser = clap::value_parser!(u32).range(1..=4096))]
    max_tokens: u32,
    /// Where to keep the evidence, receipt and logs of this run [default: demo/ in the state folder]
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Print nothing but one JSON object at the end
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let model = model_file(arguments.model.clone())?;
    let keep = match arguments.keep.clone() {
        Some(folder) => folder,
        None => crate::network::state_folder(None)?.join("demo"),
    };
    let screen = Screen::new(arguments.json);
    let mut shutdown = Shutdown::listen(false)?;
    let image = match arguments.vm {
        true => Some(crate::host::vm_tools::development_image(arguments.image.clone())?),
        false => None,
    };
    let journey = journey::walk(&screen, &arguments, &model, image.as_deref(), &keep);
    // Whatever ends the journey drops its parts, and each part ends when its lifeline does.
    let report = tokio::select! {
        report = journey => report?,
        () = shutdown.wait() => {
            screen.line("");
            return Err(Failure { exit: 130, ..Failure::new("interrupted: the parts were ended", "") });
        }
    };
    if arguments.json {
        println!("{}", serde_json::to_string_pretty(&report).expect("numbers and strings are JSON"));
    }
    Ok(if report.holds() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) })
}
