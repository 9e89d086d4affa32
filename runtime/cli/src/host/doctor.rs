//! `cocoon host doctor`: looks at this machine and changes nothing.

mod reach;
mod told;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use cocoon_fetch::ServiceUrl;
use cocoon_launch::doctor::{
    Mark, Network, Probe, QemuSource, Question, Style, Tee, ThisMachine, examine, meant,
};
use cocoon_launch::gpu::{AdminTool, CcTool, NoTool, Selection};
use cocoon_launch::root::Root;

use crate::error::{EXIT_FAILURE, Failure};
use crate::network::state_path;
use crate::ui::{Screen, print};
use told::Told;

#[derive(clap::Args)]
#[command(after_help = "\
Every check says what was found, what is needed, and how to mend it; what blocks first comes first.
Nothing is changed and nothing is started. Exit code 0: guests can run with this TEE; 1: something failed.")]
pub(crate) struct Arguments {
    /// One JSON object instead of lines
    #[arg(long)]
    json: bool,
    /// The host's configuration [default: look at the machine as it is]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The TEE that guests shall have: tdx, snp or emulation [default: the configuration's, else what the CPU is made for]
    #[arg(long, value_name = "TEE")]
    tee: Option<Tee>,
    /// Ask nothing over the network: neither the vendor's service, nor the time, nor the chain
    #[arg(long)]
    offline: bool,
    /// A cache (PCCS) in place of Intel's provisioning service
    #[arg(long, value_name = "URL")]
    pccs: Option<ServiceUrl>,
    /// Folder of the network file, wallets and books [default: the configuration's, else cocoon/ in the user's state folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

pub(super) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let root = Root::machine();
    let told = arguments.config.as_deref().map(Told::load).transpose()?.unwrap_or_default();
    let (tee, _) = meant(&root, arguments.tee.or(told.tee()?));
    let state = state_path(arguments.state.or_else(|| told.state.clone()))?;
    let screen = Screen::new(arguments.json);
    let network = if arguments.offline {
        offline()
    } else {
        screen.progress("asking the network");
        reach::learn(tee, arguments.pccs.as_ref(), &state).await
    };
    let mut question = question(&told, tee)?;
    question.tee = arguments.tee.or(told.tee()?);
    question.state = state;
    let machine = ThisMachine::new(qemu(&told), tool(&told)?, network);
    screen.progress("looking at this machine");
    let report = examine(&root, &machine, &question);
    match arguments.json {
        true => print(&report.json())?,
        false => screen.raw(&report.text(&Paint(&screen))),
    }
    Ok(if report.verdict.ready { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) })
}

fn question(told: &Told, tee: Tee) -> Result<Question, Failure> {
    const DEFAULT: &str = "0.0.0.0:8083";
    let listen = told.listen.unwrap_or_else(|| DEFAULT.parse().expect("an address"));
    let mut question = Question::default();
    if !told.guest.is_empty() {
        let gpus = told.gpus();
        question.gpus = (!gpus.is_empty()).then_some(Selection::Only(gpus));
        question.memory = told.memory()?.unwrap_or(question.memory);
    }
    question.ports = told.ports(listen).collect::<Vec<SocketAddr>>();
    if let Some(service) = told.quote_service()? {
        question.quote_service = service;
    }
    let known = told.measured(tee)?;
    question.firmware = told.firmware(&known);
    question.known_firmware = known;
    Ok(question)
}

fn qemu(told: &Told) -> QemuSource {
    let named = |tool: &Option<PathBuf>, usual: &str| tool.clone().unwrap_or_else(|| usual.into());
    QemuSource::Programs {
        qemu: named(&told.tools.qemu, "qemu-system-x86_64"),
        swtpm: named(&told.tools.swtpm, "swtpm"),
    }
}

fn tool(told: &Told) -> Result<Box<dyn CcTool>, Failure> {
    match &told.tools.gpu_admin {
        None => Ok(Box::new(NoTool)),
        Some(path) => match AdminTool::at(path) {
            Ok(tool) => Ok(Box::new(tool)),
            Err(error) => Err(Failure::usage(error.to_string(), "")),
        },
    }
}

fn offline() -> Network {
    fn not_asked<T>() -> Probe<T> {
        Probe::NotAsked("--offline".into())
    }
    Network { clock: not_asked(), collateral: not_asked(), chain: not_asked(), wallet: not_asked() }
}

struct Paint<'s>(&'s Screen);

impl Style for Paint<'_> {
    fn paint(&self, mark: Mark, text: &str) -> String {
        match mark {
            Mark::Title => self.0.bold(text),
            Mark::Good => self.0.good(text),
            Mark::Warning => self.0.warn(text),
            Mark::Bad => self.0.bad(text),
            Mark::Dim => self.0.dim(text),
        }
    }

    fn columns(&self) -> Option<usize> {
        self.0.columns()
    }
}
