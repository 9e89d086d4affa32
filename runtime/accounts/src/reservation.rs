//! Money set aside for one request, and its use as the answer streams.

use std::{sync::Arc, time::Duration};

use cocoon_contracts::{Address, Nanotons};
use tokio::time::{Instant, timeout_at};

use crate::{errors::ChargeError, payee::Hold, store::StoreError};

/// How often a database that is away is asked again while a stream waits.
const RETRY: Duration = Duration::from_millis(250);

/// The worst case of one request, set aside. Dropping it gives back what was not charged.
pub struct Reservation {
    hold: Box<dyn Hold>,
    channel: Address,
    amount: Nanotons,
    charged: Nanotons,
}

impl Reservation {
    pub(crate) fn new(hold: Box<dyn Hold>, channel: Address, amount: Nanotons) -> Self {
        Self { hold, channel, amount, charged: 0 }
    }

    /// The channel it is on.
    pub fn channel(&self) -> &Address {
        &self.channel
    }

    /// What this request was charged so far, in nanotons.
    pub fn charged(&self) -> Nanotons {
        self.charged
    }

    /// Charges this request up to `cumulative` nanotons, once the exposure allows it: at most one window may be
    /// owed beyond the vouchers, counted over all answers of the channel (see [`crate::AccountState::grant`]). Over it, this
    /// waits for a voucher, and no longer than `patience`; so it does for a shared database that is away.
    ///
    /// # Errors
    /// [`ChargeError`]; on all but [`ChargeError::Store`] nothing was charged. The stream must end.
    pub async fn charge(&mut self, cumulative: Nanotons, patience: Duration) -> Result<(), ChargeError> {
        if cumulative < self.charged {
            return Err(ChargeError::Backwards { charged: self.charged, wanted: cumulative });
        }
        if cumulative > self.amount {
            return Err(ChargeError::OverReservation { wanted: cumulative, reserved: self.amount });
        }
        if cumulative == self.charged {
            return Ok(());
        }
        self.charge_by(cumulative - self.charged, patience).await?;
        Ok(self.hold.keep_up().await?)
    }

    async fn charge_by(&mut self, by: Nanotons, patience: Duration) -> Result<(), ChargeError> {
        let (signal, deadline) = (self.hold.signal(), Instant::now() + patience);
        loop {
            // Registered before the look, so that a voucher in between is not missed.
            let mut changed = std::pin::pin!(Arc::clone(&signal).notified_owned());
            changed.as_mut().enable();
            let again = match self.hold.charge(by).await {
                Ok(true) => {
                    self.charged += by;
                    return Ok(());
                }
                Ok(false) => deadline,
                Err(ChargeError::Store(error)) if error.is_passing() && Instant::now() < deadline => {
                    tracing::debug!(%error, "a stream waits for the accounts");
                    deadline.min(Instant::now() + RETRY)
                }
                Err(error) => return Err(error),
            };
            if timeout_at(again, changed).await.is_err() && again == deadline {
                let (owed, voucher) = self.hold.cut().await?;
                return Err(ChargeError::VoucherRequired { owed, voucher, waited: patience });
            }
        }
    }

    /// Ends the reservation, and returns when what it charged is on the disk.
    ///
    /// # Errors
    /// [`StoreError`] when it is not; the charge stands in memory and goes with the next row.
    pub async fn finish(self) -> Result<(), StoreError> {
        self.hold.finish().await
    }
}
