//! `cocoon host doctor`: looks at this machine and changes nothing.

mod reach;

use std::path::PathBuf;
use std::process::ExitCode;

use cocoon_fetch::ServiceUrl;
use cocoon_image_build::{Group, Lock, Store, Tools};
use cocoon_launch::config;
use cocoon_launch::doctor::{
    self, Mark, Network, Probe, Programs, Question, Style, Tee, ThisMachine, examine, meant,
};
use cocoon_launch::gpu::{AdminTool, CcTool, NoTool};
use cocoon_launch::root::Root;

use crate::error::{EXIT_FAILURE, Failure};
use crate::network::state_path;
use crate::ui::{Screen, print};

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
    let config = arguments.config.as_deref().map(super::load).transpose()?;
    let named = arguments.tee.or(config.as_ref().and_then(|config| config.tee.named()));
    let (tee, _) = meant(&root, named);
    let state = match (arguments.state, &config) {
        (None, Some(config)) => config.state.clone(),
        (named, _) => state_path(named)?,
    };
    let screen = Screen::new(arguments.json);
    let network = if arguments.offline {
        offline()
    } else {
        screen.progress("asking the network");
        reach::learn(tee, arguments.pccs.as_ref(), &state).await
    };
    let asked = config.as_ref().map_or_else(unconfigured, |config| doctor::question(&root, config, tee));
    let question = Question { tee: named, state, ..asked };
    let tools = config.map(|config| config.tools).unwrap_or_default();
    let machine = ThisMachine::new(programs(&tools), tool(&tools)?, network);
    screen.progress("looking at this machine");
    let report = examine(&root, &machine, &question);
    match arguments.json {
        true => print(&report.json())?,
        false => screen.raw(&report.text(&Paint(&screen))),
    }
    Ok(if report.verdict.ready { ExitCode::SUCCESS } else { ExitCode::from(EXIT_FAILURE) })
}

/// Without a configuration: whether `cocoon host up` could serve as it does by itself.
fn unconfigured() -> Question {
    Question { ports: vec!["0.0.0.0:8083".parse().expect("an address")], ..Question::default() }
}

/// What `cocoon host up` would run: looked for, not fetched.
fn programs(tools: &config::Tools) -> Programs {
    let pinned = Store::default_folder()
        .and_then(|cache| Tools::unpacked(Group::VmTools, &Lock::built_in(), &cache).ok().flatten());
    let tree = pinned.as_ref().map(|pinned| pinned.tree().root());
    Programs::choose(tools, tree, std::env::var_os("PATH").as_deref())
}

fn tool(tools: &config::Tools) -> Result<Box<dyn CcTool>, Failure> {
    match &tools.gpu_admin {
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
