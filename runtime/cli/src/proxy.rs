//! `cocoon proxy`: the local OpenAI endpoint.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use cocoon_client::Client;
use cocoon_client::proxy::{OnFinished, router};

use crate::counter;
use crate::error::{Explain, Failure};
use crate::lifeline::Shutdown;
use crate::network::{role_folder, state_folder};
use crate::part::Ready;
use crate::ui::{Screen, grouped};
use crate::wiring::{ChannelMoney, ClientSettings, Joined, PROXY, parse_profile};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Loopback address to serve on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:10000")]
    listen: SocketAddr,
    /// Folder of the network file, wallets and books [default: cocoon/ in the user's state folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The gateway to use [default: the first of the network file]
    #[arg(long, value_name = "URL")]
    gateway: Option<String>,
    /// Accept only what this policy accepts beside the registry's: the strictest wins
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Count tokens again with this model file, and report a worker whose count differs
    #[arg(long, value_name = "FILE")]
    recount: Option<PathBuf>,
    /// Keep evidence, receipt and opening of each answer in a folder of its own in here: an opening holds the prompt
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// Whose wallet and books to use; each profile is open in one process at a time
    #[arg(long, value_name = "NAME", default_value = PROXY, value_parser = parse_profile)]
    profile: String,
    #[command(flatten)]
    money: ChannelMoney,
    #[arg(long, hide = true)]
    lifeline: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    if !arguments.listen.ip().is_loopback() {
        return Err(Failure::usage(
            format!(
                "{} is not a loopback address: prompts would cross the network unsealed",
                arguments.listen
            ),
            "listen on 127.0.0.1; run a proxy on each machine that asks",
        ));
    }
    let mut shutdown = Shutdown::listen(arguments.lifeline)?;
    let joined = Joined::load(&state_folder(arguments.state)?).await?;
    let settings = ClientSettings {
        policy: arguments.policy,
        recount: arguments.recount,
        profile: arguments.profile.clone(),
        money: arguments.money.clone(),
        ..ClientSettings::default()
    };
    let folder = role_folder(&joined.state, &arguments.profile)?;
    let client = Arc::new(joined.client(arguments.gateway, settings).await?);
    let listener = tokio::net::TcpListener::bind(arguments.listen).await.explain(
        || format!("cannot listen on {}", arguments.listen),
        "another program has this port: end it, or choose another with --listen 127.0.0.1:PORT",
    )?;
    let address = listener.local_addr().explain(|| "the socket has no address".into(), "try again")?;
    let screen = Screen::new(arguments.lifeline);
    let url = format!("http://{address}");
    if arguments.lifeline {
        Ready { url: url.clone(), wallet: client.wallet().address().to_string() }.announce();
    }
    screen.line(&format!("{} {url}/v1 (OpenAI API)", screen.bold("cocoon proxy")));
    screen.detail("gateway", client.gateway().url());
    screen.detail("wallet", &client.wallet().address().to_string());
    screen.detail("try", &format!("curl {url}/v1/models"));
    let told = log_answers(Arc::clone(&client), folder, arguments.keep, screen);
    let server = axum::serve(listener, router(client, told));
    tokio::select! {
        result = server => result.explain(|| "the proxy's server ended".into(), "try again")?,
        () = shutdown.wait() => {}
    }
    Ok(ExitCode::SUCCESS)
}

/// One line for each answer: counts and costs, never content.
fn log_answers(client: Arc<Client>, folder: PathBuf, keep: Option<PathBuf>, screen: Screen) -> OnFinished {
    Arc::new(move |peer, finished| {
        if let Some(keep) = &keep {
            let folder = keep.join(hex::encode(finished.receipt.receipt().request_id));
            if let Err(failure) = crate::keep::papers(&folder, peer.bundle(), &finished.receipt) {
                eprintln!("warning: the papers of an answer were not kept: {}", failure.what);
            }
        }
        let usage = finished.receipt.receipt().usage;
        screen.line(&format!(
            "{} {} · {} + {} tokens · {} nanotons · receipt {}",
            screen.good("✓"),
            peer.model(),
            usage.prompt_tokens,
            usage.completion_tokens,
            grouped(finished.bill),
            &hex::encode(finished.receipt.receipt().request_id)[..8],
        ));
        if counter::report(&screen, &folder, peer, finished) {
            client.avoid(peer);
        }
    })
}
