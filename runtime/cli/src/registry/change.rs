//! `cocoon registry propose`, `sign`, `send`, `cancel` and `activate`: how owners change the registry.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use cocoon_contracts::SigningKey;
use cocoon_contracts::registry::{Action, Approval, Change, MAX_APPROVAL_BYTES, Registry};

use super::diff::{self, differences};
use super::file::RegistryFile;
use super::{in_force, join, read, read_text, unix};
use crate::error::{Explain, Failure};
use crate::keys;
use crate::ui::Screen;
use crate::wiring::Joined;

/// How long signatures count if nothing else is said, in seconds: a week for owners to pass a file around.
const VALID_FOR: u32 = 7 * 24 * 3600;
/// How often the chain's clock is looked at while a delay passes.
const LOOK: Duration = Duration::from_millis(200);

#[derive(clap::Args)]
#[command(after_help = "\
FILE is TOML, as `cocoon registry show --toml` writes it. With the keys of enough owners at hand (on a development network the
one in the state folder) the proposal is sent at once; otherwise it is written to --out, goes from owner to owner
(`cocoon registry sign`), and is sent by anybody (`cocoon registry send`).")]
pub(crate) struct Propose {
    /// The content to announce
    #[arg(value_name = "FILE")]
    content: PathBuf,
    #[command(flatten)]
    keys: Keys,
    /// Where the proposal is written if signatures are missing
    #[arg(long, value_name = "FILE", default_value = "proposal.boc")]
    out: PathBuf,
    /// How long the signatures count
    #[arg(long, value_name = "SECONDS", default_value_t = VALID_FOR)]
    valid_for: u32,
}

#[derive(clap::Args)]
pub(crate) struct Sign {
    /// A proposal or cancellation; the signature is added to it
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    keys: Keys,
    /// What is in force, as `cocoon registry show --toml` wrote it elsewhere: then no chain is asked
    #[arg(long, value_name = "FILE")]
    against: Option<PathBuf>,
    /// Do not ask whether to sign
    #[arg(long)]
    yes: bool,
}

#[derive(clap::Args)]
pub(crate) struct Send {
    /// The proposal or cancellation; several copies that were signed apart are put together
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Folder of the network file and of the wallet that pays [default: cocoon/ in the user's state folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

#[derive(clap::Args)]
pub(crate) struct Cancel {
    #[command(flatten)]
    keys: Keys,
    /// Where the cancellation is written if signatures are missing
    #[arg(long, value_name = "FILE", default_value = "cancellation.boc")]
    out: PathBuf,
    /// How long the signatures count
    #[arg(long, value_name = "SECONDS", default_value_t = VALID_FOR)]
    valid_for: u32,
}

#[derive(clap::Args)]
pub(crate) struct Activate {
    /// Folder of the network file and of the wallet that pays [default: cocoon/ in the user's state folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Wait until the delay has passed
    #[arg(long)]
    wait: bool,
}

#[derive(clap::Args)]
struct Keys {
    /// A file with an owner's key (64 hex digits, for its owner's eyes alone); may be repeated [default: owner/wallet.key in
    /// the state folder, if it is there]
    #[arg(long, value_name = "FILE")]
    key: Vec<PathBuf>,
    /// Folder of the network file and of the wallet that pays [default: cocoon/ in the user's state folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

impl Keys {
    /// The keys that are named; without a name the development owner's, if it is there.
    fn load(&self, state: &Path) -> Result<Vec<SigningKey>, Failure> {
        if self.key.is_empty() {
            let own = keys::load_existing(&state.join("owner/wallet.key"))?;
            return Ok(own.into_iter().collect());
        }
        let load = |path: &PathBuf| {
            keys::load_existing(path)?.ok_or_else(|| {
                Failure::usage(format!("there is no key {}", path.display()), "check the name after --key")
            })
        };
        self.key.iter().map(load).collect()
    }

    /// Signs with every key. A named key that owns nothing is an error; the default one is left out then.
    fn sign(&self, approval: &mut Approval, state: &Path) -> Result<(), Failure> {
        for key in self.load(state)? {
            match approval.sign(&key) {
                Err(_) if self.key.is_empty() => {}
                signed => signed.explain(|| "not signed".into(), "name an owner's key with --key")?,
            }
        }
        Ok(())
    }
}

pub(crate) async fn propose(arguments: Propose) -> Result<ExitCode, Failure> {
    let from = arguments.content.display().to_string();
    let change = RegistryFile::parse(&read_text(&arguments.content)?, &from)?;
    let joined = join(arguments.keys.state.clone()).await?;
    let registry = &joined.registry;
    if registry.proposal.is_some() {
        return Err(Failure::new(
            "a change is announced already",
            "look at it with `cocoon registry show`; then activate it, or cancel it",
        ));
    }
    let lines = differences(&in_force(registry), &change);
    if lines.is_empty() {
        return Err(Failure::new(
            format!("{from} says what is in force already"),
            "edit it first: there is nothing to announce",
        ));
    }
    let screen = Screen::new(false);
    screen.line(&screen.bold("would change"));
    diff::show(&screen, &lines);
    let until = valid_until(&joined, arguments.valid_for).await?;
    let mut approval =
        Approval::to_propose(joined.file.network, &joined.registry_address, registry, change, until)
            .explain(|| from, "mend what it names")?;
    arguments.keys.sign(&mut approval, &joined.state)?;
    finish(&screen, &joined, &approval, &arguments.out).await
}

pub(crate) async fn cancel(arguments: Cancel) -> Result<ExitCode, Failure> {
    let joined = join(arguments.keys.state.clone()).await?;
    let until = valid_until(&joined, arguments.valid_for).await?;
    let (network, address) = (joined.file.network, &joined.registry_address);
    let mut approval = Approval::to_cancel(network, address, &joined.registry, until)
        .explain(|| "no cancellation can be made".into(), "cocoon registry show   says what is announced")?;
    arguments.keys.sign(&mut approval, &joined.state)?;
    finish(&Screen::new(false), &joined, &approval, &arguments.out).await
}

/// Sends it if it is complete, or writes it for the next owner.
async fn finish(
    screen: &Screen,
    joined: &Joined,
    approval: &Approval,
    out: &Path,
) -> Result<ExitCode, Failure> {
    if approval.missing() == 0 {
        return deliver(screen, joined, approval).await;
    }
    save(out, approval)?;
    screen.line(&format!("written to {}: {} must sign", out.display(), more_owners(approval.missing())));
    screen.detail("valid", &format!("until {}", unix(approval.valid_until())));
    screen.detail("next", &format!("cocoon registry sign {}   by another owner", out.display()));
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn sign(arguments: Sign) -> Result<ExitCode, Failure> {
    let mut approval = load(&arguments.file)?;
    let state = crate::network::state_path(arguments.keys.state.clone())?;
    let before = match &arguments.against {
        Some(path) => RegistryFile::parse(&read_text(path)?, &path.display().to_string())?,
        None => {
            let joined = join(Some(state.clone())).await?;
            check(&joined, &joined.registry, &approval).await?;
            in_force(&joined.registry)
        }
    };
    let screen = Screen::new(false);
    describe(&screen, &approval, &before);
    if !arguments.yes {
        ask()?;
    }
    let signed_before = approval.signers().count();
    let owners = arguments.keys.load(&state)?;
    if owners.is_empty() {
        return Err(Failure::usage("no key is named", "name an owner's key with --key FILE"));
    }
    for key in owners {
        approval.sign(&key).explain(|| "not signed".into(), "name an owner's key with --key")?;
    }
    save(&arguments.file, &approval)?;
    let now = approval.missing();
    screen.line(&match (signed_before == approval.signers().count(), now) {
        (true, _) => "this owner had signed before".to_owned(),
        (false, 0) => "signed: enough owners have".to_owned(),
        (false, more) => format!("signed: {} must", more_owners(more)),
    });
    if now == 0 {
        screen.detail("next", &format!("cocoon registry send {}", arguments.file.display()));
    }
    Ok(ExitCode::SUCCESS)
}

/// `1 more owner`, `2 more owners`.
fn more_owners(number: u8) -> String {
    format!("{number} more owner{}", if number == 1 { "" } else { "s" })
}

/// What a signer must know.
fn describe(screen: &Screen, approval: &Approval, before: &Change) {
    let what = match approval.action() {
        Action::Propose => "a proposal to change",
        Action::Cancel => "a cancellation of what is announced by",
    };
    screen.line(&format!("{what} the registry {}", approval.registry()));
    screen.detail("valid", &format!("until {}", unix(approval.valid_until())));
    screen.detail("hash", &format!("{}: what owners sign", hex::encode(approval.hash())));
    let signers: Vec<String> = approval.signers().map(|number| number.to_string()).collect();
    screen.detail("signed by", &format!("owners [{}]; {} missing", signers.join(", "), approval.missing()));
    if let Some(change) = approval.change() {
        screen.line(&screen.bold("would change"));
        diff::show(screen, &differences(before, change));
    }
}

fn ask() -> Result<(), Failure> {
    let refused =
        |what: &str| Err(Failure::usage(what, "look at what it would change, then say so with --yes"));
    if !std::io::stdin().is_terminal() {
        return refused("not signed: nobody is there to be asked");
    }
    print!("sign this? [y/N] ");
    let mut answer = String::new();
    let read = std::io::stdout().flush().and_then(|()| std::io::stdin().read_line(&mut answer));
    match read {
        Ok(_) if answer.trim().eq_ignore_ascii_case("y") => Ok(()),
        _ => refused("not signed"),
    }
}

pub(crate) async fn send(arguments: Send) -> Result<ExitCode, Failure> {
    let mut files = arguments.files.iter();
    let mut approval = load(files.next().expect("the command line asks for at least one"))?;
    for file in files {
        let name = || file.display().to_string();
        approval.merge(&load(file)?).explain(name, "send files of one decision together")?;
    }
    let joined = join(arguments.state).await?;
    check(&joined, &joined.registry, &approval).await?;
    let screen = Screen::new(false);
    describe(&screen, &approval, &in_force(&joined.registry));
    deliver(&screen, &joined, &approval).await
}

async fn deliver(screen: &Screen, joined: &Joined, approval: &Approval) -> Result<ExitCode, Failure> {
    let address = &joined.registry_address;
    let wallet = joined.wallet("owner").await?;
    let remedy = "nothing has changed; `cocoon registry show` says how the registry is";
    match approval.action() {
        Action::Propose => {
            let after = cocoon_chain::propose(&wallet, address, approval).await;
            let after = after.explain(|| "the change was not announced".into(), remedy)?;
            let ready = after.proposal.as_ref().map_or(0, |proposal| proposal.ready_at);
            screen.line(&format!("announced: it may count from {} on", unix(ready)));
            screen.detail("next", "cocoon registry activate   by anybody, when that time has come");
        }
        Action::Cancel => {
            let after = cocoon_chain::cancel(&wallet, address, approval).await;
            let after = after.explain(|| "the change was not taken back".into(), remedy)?;
            screen.line(&format!("taken back: version {} stays in force", after.version));
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub(crate) async fn activate(arguments: Activate) -> Result<ExitCode, Failure> {
    let joined = join(arguments.state).await?;
    let proposal = joined.registry.proposal.as_ref().ok_or_else(|| {
        Failure::new(
            "nothing is announced: there is nothing to activate",
            "announce a change: cocoon registry propose FILE",
        )
    })?;
    if let Err(error) = &proposal.change {
        return Err(Failure::new(
            format!("what is announced cannot be read by any client: {error}"),
            "cancel it: cocoon registry cancel",
        ));
    }
    let ready = u64::from(proposal.ready_at);
    while time(&joined).await? < ready {
        if !arguments.wait {
            return Err(Failure::new(
                format!(
                    "the delay has not passed yet: the change may count from {} on",
                    unix(proposal.ready_at)
                ),
                "come back then, or say --wait",
            ));
        }
        tokio::time::sleep(LOOK).await;
    }
    let wallet = joined.wallet("owner").await?;
    let after = cocoon_chain::activate(&wallet, &joined.registry_address).await;
    let after =
        after.explain(|| "the change was not activated".into(), "look at it: cocoon registry show")?;
    Screen::new(false).line(&format!("version {} is in force", after.version));
    Ok(ExitCode::SUCCESS)
}

async fn time(joined: &Joined) -> Result<u64, Failure> {
    let head = joined.chain.head().await;
    Ok(head.explain(|| "the chain's time cannot be read".into(), "try again")?.time)
}

async fn valid_until(joined: &Joined, seconds: u32) -> Result<u32, Failure> {
    let until = time(joined).await?.saturating_add(seconds.into());
    Ok(u32::try_from(until).unwrap_or(u32::MAX))
}

/// Compares an approval with what the chain says now.
async fn check(joined: &Joined, registry: &Registry, approval: &Approval) -> Result<(), Failure> {
    let now = time(joined).await?;
    approval.check(joined.file.network, &joined.registry_address, registry, now).explain(
        || "this file does not fit the registry".into(),
        "make a new one with `cocoon registry propose` or `cancel`",
    )
}

fn load(path: &Path) -> Result<Approval, Failure> {
    Approval::from_bytes(&read(path, MAX_APPROVAL_BYTES)?).explain(
        || format!("{} is neither a proposal nor a cancellation", path.display()),
        "ask its sender for the file that `cocoon registry propose` or `cancel` wrote",
    )
}

/// Whole or not at all: the file holds other owners' signatures.
fn save(path: &Path, approval: &Approval) -> Result<(), Failure> {
    let bytes = approval.to_bytes().explain(|| "the approval cannot be written".into(), "report this")?;
    let staging = path.with_extension(format!("part-{}", std::process::id()));
    std::fs::write(&staging, bytes)
        .and_then(|()| std::fs::rename(&staging, path))
        .explain(|| format!("cannot write {}", path.display()), "check the folder and the disk")
}
