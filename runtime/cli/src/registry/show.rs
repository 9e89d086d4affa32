//! `cocoon registry show`.

use std::path::PathBuf;
use std::process::ExitCode;

use cocoon_contracts::Nanotons;
use cocoon_contracts::registry::{Change, Content, Proposal, Registry, Status};
use serde_json::{Value, json};

use super::diff::{self, differences};
use super::file::RegistryFile;
use super::{in_force, join, unix};
use crate::error::{Explain, Failure};
use crate::ui::{Screen, abridge, one_line, print, ton};

/// Below it, `show` warns: the largest registry pays 0.14 TON of rent a year at the prices of August 2026.
const LOW_BALANCE: Nanotons = 150_000_000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Folder of the network file [default: cocoon/ in the user's state folder]
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// One JSON object instead, digests whole
    #[arg(long, conflicts_with_all = ["toml", "proposed"])]
    json: bool,
    /// The content in force as `cocoon registry propose` reads it: edit it, and propose it
    #[arg(long)]
    toml: bool,
    /// With --toml: the announced content instead
    #[arg(long, requires = "toml")]
    proposed: bool,
}

pub(crate) async fn run(arguments: Arguments) -> Result<ExitCode, Failure> {
    let joined = join(arguments.state).await?;
    let registry = &joined.registry;
    if arguments.toml {
        let change = if arguments.proposed { announced(registry)?.clone() } else { in_force(registry) };
        let head = format!(
            "# Registry {} of network {}, version {}{}.\n# Prices are nanotons per million tokens. Edit, then: \
             cocoon registry propose FILE\n\n",
            joined.registry_address,
            joined.file.network,
            registry.version,
            if arguments.proposed { ", as announced" } else { "" }
        );
        print(&(head + RegistryFile::of(&change).to_toml()?.trim_end()))?;
        return Ok(ExitCode::SUCCESS);
    }
    let head = joined.chain.head().await;
    let now = head.explain(|| "the chain's time cannot be read".into(), "try again")?.time;
    let account = joined.chain.account(&joined.registry_address).await;
    let balance = account.explain(|| "the registry cannot be read".into(), "try again")?.balance;
    if arguments.json {
        print(&as_json(&joined.registry_address.to_string(), registry, now, balance).to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let screen = Screen::new(false);
    screen.line(&format!("{} {}", screen.bold("registry"), joined.registry_address));
    screen.detail("balance", &format!("{} TON for its rent{}", ton(balance), rent_warning(balance)));
    summary(&screen, registry);
    entries(&screen, &registry.content);
    if let Some(proposal) = &registry.proposal {
        proposed(&screen, registry, proposal, now);
    }
    Ok(ExitCode::SUCCESS)
}

/// What was announced, if anything was that can be read.
fn announced(registry: &Registry) -> Result<&Change, Failure> {
    let proposal = registry.proposal.as_ref();
    let proposal = proposal.ok_or_else(|| Failure::new("nothing is announced", "leave --proposed away"))?;
    proposal.change.as_ref().map_err(|error| {
        Failure::new(
            format!("what is announced cannot be read: {error}"),
            "cancel it: cocoon registry cancel",
        )
    })
}

/// What to say of a balance that does not last.
fn rent_warning(balance: Nanotons) -> &'static str {
    if balance < LOW_BALANCE { ": send it some, an account that owes rent is frozen" } else { "" }
}

fn as_json(address: &str, registry: &Registry, now: u64, balance: Nanotons) -> Value {
    let proposal = registry.proposal.as_ref().map(|proposal| {
        let change = proposal.change.as_ref();
        json!({
            "counts_from": proposal.ready_at,
            "counts_from_utc": unix(proposal.ready_at).to_string(),
            "can_be_activated": now >= u64::from(proposal.ready_at),
            "subject": hex::encode(proposal.subject),
            "unreadable": change.err().map(ToString::to_string),
            "changes": change.ok().map(|change| differences(&in_force(registry), change)),
            "content": change.ok().map(RegistryFile::of),
        })
    });
    json!({
        "address": address,
        "balance": balance,
        "version": registry.version,
        "delay_seconds": registry.delay,
        "announced_ever": registry.proposals,
        "content": RegistryFile::of(&in_force(registry)),
        "proposal": proposal,
    })
}

fn summary(screen: &Screen, registry: &Registry) {
    let (owners, content) = (&registry.owners, &registry.content);
    screen.detail("version", &registry.version.to_string());
    screen.detail("delay", &format!("{} s from announcement until a change may count", registry.delay));
    let (required, blocking) = (owners.required(), owners.blocking());
    let count = owners.keys().len();
    screen.detail("owners", &format!("{required} of {count} announce, {blocking} of {count} take back"));
    for key in owners.keys() {
        screen.detail("", &hex::encode(key));
    }
    let percent = f64::from(content.fee_bps) / 100.0;
    screen.detail("fee", &format!("{} basis points ({percent} %)", content.fee_bps));
    screen.detail("treasury", &content.treasury.to_string());
    let thousandths = |permille: u32| f64::from(permille) / 1000.0;
    let bounds = content.coefficients;
    let (min, max) = (thousandths(bounds.min_permille), thousandths(bounds.max_permille));
    screen.detail("prices", &format!("workers may ask {min} to {max} times the models' prices"));
    for (product, floor) in ["Milan", "Genoa", "Turin"].into_iter().zip(diff::floors(&content.snp)) {
        floor.iter().for_each(|floor| screen.detail(&format!("AMD {product}"), &format!("at least {floor}")));
    }
}

fn entries(screen: &Screen, content: &Content) {
    let mark = |status| match status {
        Status::Allowed => screen.good("allowed"),
        Status::Barred => screen.bad("barred "),
    };
    screen.line("");
    screen.line(&format!("{} ({})", screen.bold("images"), content.images.len()));
    for image in &content.images {
        screen.line(&format!("   {} {}", mark(image.status), one_line(&diff::image_name(image))));
        let registers = diff::registers(&image.measurements).into_iter();
        let short: Vec<String> =
            registers.map(|(name, digest)| format!("{name} {}", abridge(&digest, 16))).collect();
        screen.line(&format!("           {}", screen.dim(&short.join("  "))));
        if let Some(digest) = image.configuration {
            let digest = abridge(&hex::encode(digest), 16);
            screen.line(&format!("           {}", screen.dim(&format!("configuration {digest}"))));
        }
    }
    screen.line(&format!("{} ({})", screen.bold("models"), content.models.len()));
    for model in &content.models {
        let prices = &model.prices;
        let prices = [prices.prompt, prices.cached, prices.completion].map(ton).join(" / ");
        screen.line(&format!("   {} {}", mark(model.status), one_line(&model.name)));
        let weights = abridge(&hex::encode(model.weights), 16);
        let text = format!("weights {weights}  {prices} TON per million prompt / cached / completion tokens");
        screen.line(&format!("           {}", screen.dim(&text)));
    }
    screen.line(&format!("{} ({})", screen.bold("gateways"), content.gateways.len()));
    for gateway in &content.gateways {
        let name = one_line(&gateway.name);
        screen.line(&format!("   {} {name}  {}", mark(gateway.status), gateway.address));
    }
    screen.line(&format!("{} ({})", screen.bold("barred machines"), content.barred.len()));
    content.barred.iter().for_each(|id| screen.line(&format!("   {id}")));
}

fn proposed(screen: &Screen, registry: &Registry, proposal: &Proposal, now: u64) {
    let ready = u64::from(proposal.ready_at);
    let when = match ready.checked_sub(now) {
        Some(left) if left > 0 => format!("counts from {} on, in {left} s", unix(proposal.ready_at)),
        _ => format!("may count since {}: cocoon registry activate", unix(proposal.ready_at)),
    };
    screen.line("");
    screen.line(&format!("{} {when}", screen.bold("announced")));
    match &proposal.change {
        Ok(change) => diff::show(screen, &differences(&in_force(registry), change)),
        Err(error) => {
            let why = one_line(&error.to_string());
            screen.line(&screen.bad(&format!("   it cannot be read ({why}): a reason to cancel it")));
        }
    }
}
