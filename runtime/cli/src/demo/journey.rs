//! The seven steps, shown as they happen.

use std::path::Path;
use std::time::{Duration, Instant};

use cocoon_accounts::PayerBook;
use cocoon_attestation::Verdict;
use cocoon_chain::{finish_close, start_close};
use cocoon_client::proxy::budget_for;
use cocoon_client::{Client, Finished, Peer};
use cocoon_contracts::Nanotons;
use cocoon_protocol::Prompt;

use super::Arguments;
use super::report::{Balance, Balances, Report, UsageReport};
use super::stage::{Stage, balance};
use crate::chat::show;
use crate::error::{Explain, Failure};
use crate::ui::{Screen, grouped, price_line, printable, shorten, ton, ton_change};
use crate::verify::BeaconFile;
use crate::wiring::{CLIENT, ClientSettings, Joined, explain_client};

/// The seed of the demo's answer: shown, so that a second run can be compared.
const SEED: u64 = 2026;
/// Both channels may be closed this fast here; a day and an hour are the products' defaults.
pub(super) const CHALLENGE_SECONDS: u32 = 1;

pub(super) async fn walk(
    screen: &Screen,
    arguments: &Arguments,
    model: &Path,
    image: Option<&Path>,
    keep: &Path,
) -> Result<Report, Failure> {
    screen.line(&screen.bold("Cocoon: a prompt travels the whole way"));
    screen.line(&screen.warn(
        "The TEE is SIMULATED: it really signs, under a root made for this run; no hardware protects this prompt.",
    ));
    let stage = start(screen, model, image, keep).await?;
    let joined = Joined::load(stage.state.path()).await?;
    let client = joined
        .client(None, ClientSettings { challenge_seconds: CHALLENGE_SECONDS, ..ClientSettings::default() })
        .await?;
    let client_before =
        client.wallet().balance().await.explain(|| "the client's balance cannot be read".into(), "")?;

    let verified_at = unix_seconds();
    let peer = verify(screen, &client).await?;
    keep_evidence(&joined, &peer, keep)?;
    let verdict = Verdict::from(peer.trusted());
    let receipt_key = *peer.trusted().receipt_key();
    open_channel(screen, &client).await?;
    let (answer, finished) = ask(screen, arguments, &client, &peer).await?;
    show_receipt(screen, &finished, &peer, keep)?;
    let voucher = finished.voucher.as_ref().map_or(0, |signed| signed.voucher.cumulative);
    show_payment(screen, &finished, voucher);

    let paid = settle(screen, stage, &joined, client, client_before).await?;
    show_balances(screen, &paid, finished.bill);
    show_farewell(screen, keep, model, verified_at);
    let usage = finished.receipt.receipt().usage;
    Ok(Report {
        verdict: verdict.verdict,
        simulated: verdict.simulated,
        answer,
        usage: UsageReport { prompt_tokens: usage.prompt_tokens, completion_tokens: usage.completion_tokens },
        receipt_verified: finished.receipt.signed().verify(&receipt_key).is_ok(),
        operator_settled_nanotons: paid.operator_settled,
        voucher_nanotons: voucher,
        settled_nanotons: paid.settled,
        network_fee_nanotons: paid.balances.treasury.after - paid.balances.treasury.before,
        chain_fees_nanotons: paid.balances.gone(),
        balances: paid.balances,
        ttft_ms: finished.timing.first_token.as_secs_f64() * 1e3,
        tokens_per_second: finished.timing.tokens_per_second(&usage),
        kept: keep.to_owned(),
    })
}

fn unix_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}

async fn start(screen: &Screen, model: &Path, image: Option<&Path>, keep: &Path) -> Result<Stage, Failure> {
    let started = Instant::now();
    screen.step(
        1,
        "Start",
        match image {
            None => "a ledger with the contracts, a gateway, a host, a guest: processes on this machine",
            Some(_) => "a ledger with the contracts, a gateway, a host; and a guest that QEMU boots",
        },
    );
    let stage = Stage::start(screen, model, image, keep).await?;
    screen.detail("ledger", &format!("{}  (embedded TON, toncenter v2)", stage.chain.ready.url));
    screen.detail("gateway", &stage.gateway.ready.url);
    let mode = if image.is_some() { "guest in an emulated VM" } else { "guest in process mode" };
    screen.detail("host", &format!("{}  ({mode}, {})", stage.host.ready.url, model.display()));
    if image.is_some() {
        show_boot(screen, stage.state.path()).await;
    }
    screen.detail("ready in", &format!("{:.1} s", started.elapsed().as_secs_f64()));
    Ok(stage)
}

/// How long each step of the boot took, as the host tells it.
async fn show_boot(screen: &Screen, state: &Path) {
    let status = cocoon_launch::control::status(&state.join("operator")).await;
    // Not worth a failure: the journey goes on.
    let Some(guest) = status.ok().and_then(|status| status.guests.into_iter().next()) else { return };
    let seconds = |millis: u64| format!("{}.{:02} s", millis / 1000, millis % 1000 / 10);
    let each: Vec<String> = guest
        .boot
        .iter()
        .map(|phase| format!("{} {}", printable(&phase.name), seconds(phase.millis)))
        .collect();
    screen.detail("boot", &each.join(", "));
}

async fn verify(screen: &Screen, client: &Client) -> Result<Peer, Failure> {
    screen.step(
        2,
        "Verify",
        "is it genuine, and is it what the network's registry allows? No prompt before that",
    );
    let peer = client.find(None).await.map_err(|error| explain_client(&error))?;
    screen.detail(
        "evidence",
        &format!(
            "{} bytes from the gateway, which nobody has to believe",
            grouped(peer.bundle().len() as u64)
        ),
    );
    for check in peer.trusted().checks() {
        screen.check(check);
    }
    let verdict = Verdict::from(peer.trusted());
    let simulated = if verdict.simulated { screen.warn(" · SIMULATED") } else { String::new() };
    screen.detail("verdict", &format!("{}{simulated}", screen.good(&verdict.verdict.to_uppercase())));
    Ok(peer)
}

async fn open_channel(screen: &Screen, client: &Client) -> Result<(), Failure> {
    screen.progress("a payment channel is opened");
    let channel = client.channel().await.map_err(|error| explain_client(&error))?.clone();
    screen.step(3, "Seal", "only the attested guest can open this");
    screen.detail("channel", &format!("{} TON deposited in {}", ton(channel.deposit), channel.address));
    Ok(())
}

async fn ask(
    screen: &Screen,
    arguments: &Arguments,
    client: &Client,
    peer: &Peer,
) -> Result<(String, Box<Finished>), Failure> {
    let body = serde_json::json!({
        "model": peer.model(),
        "messages": [{"role": "user", "content": arguments.prompt}],
        "stream": true,
        "max_tokens": arguments.max_tokens,
        "seed": SEED,
    });
    let body = body.to_string().into_bytes();
    let (bytes, budget) = (body.len(), budget_for(&body, Some(arguments.max_tokens)));
    let answering = client.ask(peer, Prompt::new(body), budget).await;
    let mut answering = answering.map_err(|error| explain_client(&error))?;
    screen.detail("prompt", &printable(&arguments.prompt));
    screen.detail(
        "sealed",
        &format!(
            "{bytes} bytes in, {} bytes out: HPKE with X-Wing (X25519 + ML-KEM-768), padded",
            grouped(answering.sealed_bytes() as u64)
        ),
    );
    screen.detail("most it costs", &format!("{} nanotons", grouped(peer.price().worst_case(&budget))));
    screen.step(4, "Answer", "streamed in sealed frames, opened here");
    screen.raw("   ");
    let (answer, finished) =
        show(&mut answering, |piece| screen.raw(&printable(piece).replace('\n', "\n   "))).await?;
    screen.line("");
    let usage = finished.receipt.receipt().usage;
    screen.detail(
        "speed",
        &format!(
            "first token after {:.0} ms, then {:.0} tokens/s; {} sealed bytes",
            finished.timing.first_token.as_secs_f64() * 1e3,
            finished.timing.tokens_per_second(&usage),
            grouped(answering.received_bytes() as u64),
        ),
    );
    Ok((answer, finished))
}

fn show_receipt(screen: &Screen, finished: &Finished, peer: &Peer, keep: &Path) -> Result<(), Failure> {
    let receipt = finished.receipt.receipt();
    screen.step(5, "Receipt", "signed in the guest, with the key that its evidence attests");
    let yes = |text: String| screen.line(&format!("   {} {text}", screen.good("✓")));
    yes(format!("signed by the attested key {}", shorten(&hex::encode(peer.trusted().receipt_key()))));
    yes(format!("for this request {} and this guest's statement", hex::encode(receipt.request_id)));
    yes(format!("model weights {}", shorten(&hex::encode(receipt.model))));
    yes(format!(
        "{} prompt + {} completion tokens, as counted here",
        receipt.usage.prompt_tokens, receipt.usage.completion_tokens
    ));
    yes("its commitment opens to this prompt and this answer; only the client can show that".to_owned());
    crate::keep::receipt(keep, &finished.receipt)
}

fn show_payment(screen: &Screen, finished: &Finished, voucher: Nanotons) {
    let price = finished.receipt.receipt().price;
    screen.step(6, "Pay", "a voucher for exactly that, signed by the client");
    screen.detail("price", &price_line(&price));
    screen.detail("voucher", &format!("{} nanotons ({} TON), cumulative", grouped(voucher), ton(voucher)));
}

/// What settling moved.
struct Paid {
    settled: Nanotons,
    operator_settled: Nanotons,
    balances: Balances,
}

async fn settle(
    screen: &Screen,
    stage: Stage,
    joined: &Joined,
    client: Client,
    client_before: Nanotons,
) -> Result<Paid, Failure> {
    screen.step(
        7,
        "Settle",
        "gateway and operator cash their vouchers on chain; the payers close what is left",
    );
    let client_wallet = client.wallet().address().to_string();
    screen.progress("the gateway settles");
    drop(client); // its books are closed before others open them
    // Each settles as its lifeline ends. The gateway first: it hands the operator the last voucher.
    let Stage { state, chain, gateway, host, gateway_before, operator_before, treasury_before } = stage;
    let (gateway_wallet, operator_wallet) = (gateway.ready.wallet.clone(), host.ready.wallet.clone());
    gateway.stop().await?;
    screen.progress("the operator settles");
    host.stop().await?;
    screen.progress("the payers close their channels");
    let (settled, operator_settled) =
        tokio::try_join!(close_channels(joined, CLIENT), close_channels(joined, "gateway"))?;
    screen.detail(
        "settled",
        &format!(
            "{} nanotons to the gateway, {} to the operator",
            grouped(settled),
            grouped(operator_settled)
        ),
    );
    screen.detail("closed", "both channels: what was not spent went home");

    let party = |before, wallet: String| {
        let state = state.path();
        async move { Ok::<_, Failure>(Balance { before, after: balance(state, &wallet).await? }) }
    };
    let balances = Balances {
        client: party(client_before, client_wallet).await?,
        gateway: party(gateway_before, gateway_wallet).await?,
        operator: party(operator_before, operator_wallet).await?,
        treasury: party(treasury_before, chain.ready.wallet.clone()).await?,
    };
    chain.stop().await?;
    Ok(Paid { settled, operator_settled, balances })
}

/// Closes every channel that a role pays, as it could after its payee had vanished: start, wait, finish. Returns what the
/// channels had paid out.
async fn close_channels(joined: &Joined, role: &str) -> Result<Nanotons, Failure> {
    let look = "look at the chain's log";
    let wallet = joined.wallet(role).await?;
    let book =
        PayerBook::open(joined.store(role)?).explain(|| format!("the {role}'s books are damaged"), look)?;
    let mut paid = 0;
    for address in &book.channels() {
        let state =
            start_close(&wallet, address).await.explain(|| "a channel cannot be closed".into(), look)?;
        paid += state.paid;
        let deadline = state.deadline.map_or(0, u64::from);
        // The chain's clock decides, not ours.
        while joined.chain.head().await.explain(|| "the chain cannot be read".into(), look)?.time <= deadline
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        finish_close(&wallet, address).await.explain(|| "a channel cannot be closed".into(), look)?;
    }
    Ok(paid)
}

fn show_balances(screen: &Screen, paid: &Paid, bill: Nanotons) {
    screen.line("");
    screen.line(&screen.dim(&format!("   {:<10} {:>16} {:>16} {:>18}", "TON", "before", "after", "change")));
    for (name, balance) in paid.balances.all() {
        let change = ton_change(balance.before, balance.after);
        screen.line(&format!(
            "   {name:<10} {:>16} {:>16} {change:>18}",
            ton(balance.before),
            ton(balance.after)
        ));
    }
    screen.line("");
    screen.detail("answer", &format!("{} TON", ton(bill)));
    screen.detail(
        "chain fees",
        &format!("{} TON for opening, settling and closing two channels", ton(paid.balances.gone())),
    );
    screen.line(&screen.dim(
        "   One prompt costs less than the chain's fees: so channels stay open, and payees settle many answers at once.",
    ));
}

/// Keeps what an auditor needs, to verify it later and elsewhere.
fn keep_evidence(joined: &Joined, peer: &Peer, keep: &Path) -> Result<(), Failure> {
    crate::keep::write(keep, "bundle.cmw", peer.bundle())?;
    crate::keep::write(keep, "policy.toml", joined.policy()?.to_toml().as_bytes())?;
    let beacon = peer.beacon();
    let beacon =
        BeaconFile { seqno: beacon.seqno, root_hash: hex::encode(beacon.root_hash), time: beacon.time.0 };
    crate::keep::write(
        keep,
        "beacon.json",
        &serde_json::to_vec_pretty(&beacon).expect("numbers and strings are JSON"),
    )?;
    if let Some(root) = joined.file.simulated_root_der(&joined.state)? {
        crate::keep::write(keep, "simulated-root.der", &root)?;
    }
    Ok(())
}

fn show_farewell(screen: &Screen, keep: &Path, model: &Path, at: u64) {
    screen.line("");
    screen.line(&screen.bold("Check it yourself, offline"));
    let keep = keep.display();
    screen.line(&format!(
        "   cocoon verify {keep}/bundle.cmw --simulated-root {keep}/simulated-root.der \\\n     \
         --policy {keep}/policy.toml --beacon {keep}/beacon.json --at {at} \\\n     \
         --receipt {keep}/receipt.cbor --opening {keep}/opening.cbor"
    ));
    screen.line(&format!("   cocoon audit replay {keep}/receipt.cbor --model {}", model.display()));
}
