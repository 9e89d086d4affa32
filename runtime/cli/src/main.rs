//! `cocoon`: one binary for clients, node operators and auditors.

mod access;
mod audit;
mod bond;
mod chain;
mod channel;
mod chat;
mod counter;
mod demo;
mod engine;
mod error;
mod fetch;
mod gateway;
mod host;
mod image;
mod keep;
mod keys;
mod lifeline;
mod model;
mod network;
mod part;
mod policy;
mod proxy;
mod registry;
mod start_block;
mod ui;
mod verify;
mod wallet;
mod wiring;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The open network for confidential AI: verify the machine, seal the prompt, check the receipt, pay what was used.
#[derive(Parser)]
#[command(name = "cocoon", version, propagate_version = true, arg_required_else_help = true)]
#[command(after_help = "\
First steps:
  cocoon demo                     one prompt the whole way, on this machine
  cocoon verify BUNDLE            check a worker's evidence, offline
  cocoon host doctor              what this machine lacks for confidential guests

A network of your own, each in its own terminal:
  cocoon chain                    a development TON ledger with the contracts
  cocoon gateway                  matches sealed requests to workers
  cocoon host up --process        runs a guest and earns
  cocoon chat                     asks
  cocoon proxy                    the same as a local OpenAI endpoint")]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    passphrase: keys::PassphraseOptions,
}

#[derive(Subcommand)]
enum Command {
    /// Walk a prompt the whole way, on this machine, and show each step
    Demo(demo::Arguments),
    /// Ask a worker, in a conversation or once
    Chat(chat::Arguments),
    /// Serve the OpenAI API on loopback; everything it forwards is verified, sealed and paid
    Proxy(proxy::Arguments),
    /// Check evidence, offline: a worker's bundle, a quote or report of TDX, SGX, SEV-SNP, Azure or NVIDIA GPUs
    Verify(Box<verify::Arguments>),
    /// Say what a policy accepts
    #[command(subcommand)]
    Policy(policy::Commands),
    /// Build the guest's image, predict what it measures, and explain what differs
    #[command(subcommand)]
    Image(image::Commands),
    /// Make one file of a model's folder
    #[command(subcommand)]
    Model(model::Commands),
    /// Run a development TON ledger and deploy the network's contracts on it
    Chain(chain::Arguments),
    /// Run a gateway, or look at one
    Gateway(gateway::Command),
    /// Look at the registry, and change it as an owner
    #[command(subcommand)]
    Registry(registry::Commands),
    /// Back a bond, watch it, take it home, or forfeit one that contradicted itself
    #[command(subcommand)]
    Bond(bond::Commands),
    /// Check what anybody can check of a gateway's money
    #[command(subcommand)]
    Audit(audit::Commands),
    /// Run guests on this machine and earn
    #[command(subcommand)]
    Host(host::Commands),
    /// Make a wallet, look at it, pay from it
    #[command(subcommand)]
    Wallet(wallet::Commands),
    /// Open, watch, settle and close payment channels
    #[command(subcommand)]
    Channel(channel::Commands),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging();
    cli.passphrase.install();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: the runtime cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let result = runtime.block_on(async {
        match cli.command {
            Command::Demo(arguments) => demo::run(arguments).await,
            Command::Chat(arguments) => chat::run(arguments).await,
            Command::Proxy(arguments) => proxy::run(arguments).await,
            Command::Verify(arguments) => verify::run(&arguments),
            Command::Policy(command) => policy::run(&command),
            Command::Model(command) => model::run(&command),
            Command::Chain(arguments) => chain::run(arguments).await,
            Command::Gateway(command) => gateway::run(command).await,
            Command::Registry(command) => registry::run(command).await,
            Command::Bond(command) => bond::run(command).await,
            Command::Audit(command) => audit::run(command).await,
            Command::Host(command) => host::run(command).await,
            Command::Image(command) => image::run(command).await,
            Command::Wallet(command) => wallet::run(command).await,
            Command::Channel(command) => channel::run(command).await,
        }
    });
    // A blocked read of standard input must not hold the exit.
    runtime.shutdown_background();
    match result {
        Ok(code) => code,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.exit)
        }
    }
}

/// Warnings by default; `COCOON_LOG=info` (or any filter of tracing-subscriber) for more. Prompts and answers cannot
/// be logged: their types have no text form.
fn start_logging() {
    use std::io::IsTerminal;
    let filter = tracing_subscriber::EnvFilter::try_from_env("COCOON_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
