//! A bond of one's own: its key and the note of its address, in the folder of the part that it is for.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use cocoon_chain::ChainError;
use cocoon_contracts::bond::{Terms, platform_digest};
use cocoon_contracts::registry::PlatformId;
use cocoon_contracts::{Address, Nanotons, parse_address};
use cocoon_gateway::BondOptions;

use super::{DELAY, parse_stake};
use crate::error::{Explain, Failure};
use crate::keys;
use crate::network::role_folder;
use crate::ui::one_line;
use crate::wiring::Joined;

/// Signs statements and nothing else; never the wallet's key.
const KEY: &str = "bond.key";
/// The address of the bond that was backed.
const NOTE: &str = "bond.address";
/// Addresses that were noted, and not on the chain when another bond took their place.
const GIVEN_UP: &str = "bond.given-up";

/// Key and note of a part's bond.
pub(crate) struct OwnBond {
    part: String,
    folder: PathBuf,
}

impl OwnBond {
    /// That of `gateway` or `operator`.
    pub(crate) fn of(joined: &Joined, part: &str) -> Result<Self, Failure> {
        Ok(Self { part: part.to_owned(), folder: role_folder(&joined.state, part)? })
    }

    fn note(&self) -> Result<Option<Address>, Failure> {
        let path = self.folder.join(NOTE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).explain(|| format!("cannot read {}", path.display()), "check its owner");
            }
        };
        parse_address(text.trim())
            .map(Some)
            .explain(|| path.display().to_string(), "write the bond's address into it")
    }

    /// The bond that was backed.
    pub(crate) fn address(&self) -> Result<Address, Failure> {
        self.note()?.ok_or_else(|| {
            Failure::new(
                format!(
                    "no bond of the {} is known: there is no {}",
                    self.part,
                    self.folder.join(NOTE).display()
                ),
                "back one with `cocoon bond open --stake TON`, or name its address",
            )
        })
    }

    /// Backs a bond, or returns the one that is backed. What is noted is noted before the stake leaves: a crash in between
    /// finds the same bond again.
    pub(super) async fn back(
        &self,
        joined: &Joined,
        stake: Nanotons,
        delay_seconds: u32,
        platforms: &[PlatformId],
    ) -> Result<Address, Failure> {
        let key = keys::load_or_create(&self.folder.join(KEY))?;
        let wallet = joined.wallet(&self.part).await?;
        let terms = Terms {
            operator: wallet.address().clone(),
            operator_key: key.public(),
            treasury: joined.registry.content.treasury.clone(),
            network: joined.file.network,
            delay_seconds,
            salt: 0,
            platforms: platforms.iter().map(|id| platform_digest(&id.to_string())).collect(),
        };
        let address = terms.address();
        if let Some(noted) = self.note()?.filter(|noted| *noted != address) {
            self.give_up(joined, &noted).await?;
        }
        let path = self.folder.join(NOTE);
        std::fs::write(&path, format!("{address}\n"))
            .explain(|| format!("cannot write {}", path.display()), "check the disk")?;
        cocoon_chain::back_bond(&wallet, &terms, stake).await.explain(
            || format!("the bond {address} was not backed"),
            "see that the wallet has the stake and a little more; then run the same again",
        )?;
        Ok(address)
    }

    /// Lets another bond take the place of the noted one, if that is not on the chain: backing it failed, or its stake is
    /// gone. Its address is kept, since a message that was sent may yet arrive.
    async fn give_up(&self, joined: &Joined, noted: &Address) -> Result<(), Failure> {
        match cocoon_chain::read_bond(joined.chain.as_ref(), noted).await {
            Ok(_) => {
                return Err(Failure::new(
                    format!("the {} has a bond already, with other terms: {noted}", self.part),
                    "unbond and withdraw that one first; or add to its stake by a transfer of its TopUp message",
                ));
            }
            Err(ChainError::WrongAccount { .. }) => {}
            Err(error) => {
                return Err(error).explain(
                    || format!("the bond {noted} of the {} cannot be read", self.part),
                    "check that the chain runs; nothing was sent",
                );
            }
        }
        let path = self.folder.join(GIVEN_UP);
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        file.and_then(|mut file| writeln!(file, "{noted}"))
            .explain(|| format!("cannot write {}", path.display()), "check the disk")
    }

    /// The stake is home: the next bond may be another.
    pub(super) fn forget(&self) -> Result<(), Failure> {
        let path = self.folder.join(NOTE);
        std::fs::remove_file(&path)
            .explain(|| format!("cannot remove {}", path.display()), "remove it yourself")
    }
}

/// What a gateway is told of its bond.
#[derive(clap::Args)]
pub(crate) struct GatewayBond {
    /// Publish what is owed to hosts on this bond, epoch by epoch; `auto` for the one that this gateway backed
    #[arg(long, value_name = "ADDRESS|auto")]
    bond: Option<String>,
    /// Back a bond with so much first, if this gateway has none, and publish on it
    #[arg(long, value_name = "TON", value_parser = parse_stake)]
    stake: Option<Nanotons>,
    /// From one publication to the next
    #[arg(long, value_name = "SECONDS", default_value_t = 3600, value_parser = clap::value_parser!(u64).range(1..))]
    epoch: u64,
}

impl GatewayBond {
    /// Backs the bond if that was asked for; `None` when the gateway is to publish nothing.
    pub(crate) async fn options(&self, joined: &Joined) -> Result<Option<BondOptions>, Failure> {
        if self.bond.is_none() && self.stake.is_none() {
            return Ok(None);
        }
        let own = OwnBond::of(joined, "gateway")?;
        let named = self.bond.as_deref().filter(|bond| *bond != "auto");
        let address = match (named, self.stake, own.note()?) {
            (Some(named), None, _) => {
                parse_address(named).explain(|| "--bond".into(), "name the bond's address, or auto")?
            }
            (Some(named), Some(_), _) => {
                let what = format!("--stake backs a bond of this gateway's own, not {}", one_line(named));
                return Err(Failure::usage(what, "leave --stake or --bond away"));
            }
            (None, _, Some(noted)) if super::read(joined, &noted).await.is_ok() => noted,
            (None, Some(stake), _) => own.back(joined, stake, DELAY, &[]).await?,
            (None, None, _) => own.address()?,
        };
        let key = keys::load_or_create(&own.folder.join(KEY))?;
        Ok(Some(BondOptions { address, key, every: Duration::from_secs(self.epoch) }))
    }
}
