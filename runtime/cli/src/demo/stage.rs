//! The stage of the demo: ledger, gateway and host with its guest, each a process of its own.

use std::path::Path;

use cocoon_contracts::{Nanotons, parse_address};

use super::journey::CHALLENGE_SECONDS;
use crate::access::connect;
use crate::error::{Explain, Failure};
use crate::network::NetworkFile;
use crate::part::Part;
use crate::ui::Screen;

/// A running network in a folder of its own, gone with this value.
pub(super) struct Stage {
    pub(super) state: tempfile::TempDir,
    pub(super) chain: Part,
    pub(super) gateway: Part,
    pub(super) host: Part,
    /// Balances before any channel was opened.
    pub(super) gateway_before: Nanotons,
    pub(super) operator_before: Nanotons,
    pub(super) treasury_before: Nanotons,
}

impl Stage {
    /// Starts the parts in order, each on a free port.
    pub(super) async fn start(
        screen: &Screen,
        model: &Path,
        image: Option<&Path>,
        keep: &Path,
    ) -> Result<Self, Failure> {
        let logs = keep.join("logs");
        std::fs::create_dir_all(&logs).explain(
            || format!("cannot make the folder {}", logs.display()),
            "choose another with --keep DIR",
        )?;
        let state = tempfile::Builder::new()
            .prefix("cocoon-demo-")
            .tempdir()
            .explain(|| "cannot make a temporary folder".into(), "check the disk, or set TMPDIR")?;
        let folder = state
            .path()
            .to_str()
            .ok_or_else(|| Failure::usage("the temporary folder's name is not UTF-8", "set TMPDIR"))?;
        let model =
            model.to_str().ok_or_else(|| Failure::usage("the model's path is not UTF-8", "rename it"))?;
        let image = image.map(|image| {
            image.to_str().ok_or_else(|| Failure::usage("the image's path is not UTF-8", "rename it"))
        });
        let image = image.transpose()?;
        let from_image = image.map_or_else(Vec::new, |image| vec!["--image", image]);
        let common = ["--listen", "127.0.0.1:0", "--state", folder];
        screen.progress("the ledger starts, the contracts are deployed");
        let chain = Part::start(
            "chain",
            &[&["chain"], &common[..], &["--model", model], &from_image].concat(),
            &logs,
        )
        .await?;
        screen.progress("the gateway starts");
        let challenge = CHALLENGE_SECONDS.to_string();
        let challenge = ["--challenge-seconds", &challenge, "--min-challenge-seconds", &challenge];
        let gateway =
            Part::start("gateway", &[&["gateway"], &common[..], &challenge].concat(), &logs).await?;
        screen.progress(match image {
            None => "the host measures and starts its guest, which loads the model",
            Some(_) => "the host boots its guest: firmware, kernel, PID 1, and the model under emulation",
        });
        let gateway_before = balance(state.path(), &gateway.ready.wallet).await?;
        let treasury_before = balance(state.path(), &chain.ready.wallet).await?;
        let how = if image.is_some() { "--vm" } else { "--process" };
        let arguments =
            [&["host", "up", how], &common[..], &["--model", model], &from_image, &challenge[2..]].concat();
        let host = Part::start("host", &arguments, &logs).await?;
        let operator_before = balance(state.path(), &host.ready.wallet).await?;
        Ok(Self { state, chain, gateway, host, gateway_before, operator_before, treasury_before })
    }
}

/// What a wallet of the stage holds.
pub(super) async fn balance(state: &Path, wallet: &str) -> Result<Nanotons, Failure> {
    let file = NetworkFile::load(state)?;
    let chain = connect(state, &file).await?;
    let address = parse_address(wallet).explain(|| "a part announced no wallet".into(), "report this")?;
    let account = chain.account(&address).await;
    Ok(account.explain(|| "a balance cannot be read".into(), "look at the chain's log")?.balance)
}
