//! Money set aside for one request, and its use as the answer streams.

use std::{sync::Arc, time::Duration};

use cocoon_contracts::{Address, Nanotons};

use crate::{
    errors::ChargeError,
    payee::{Account, Change, State},
    store::{Store, StoreError},
};

/// The worst case of one request, set aside. Dropping it gives back what was not charged.
pub struct Reservation {
    /// Keeps the store open until what was charged is written.
    _store: Store,
    account: Arc<Account>,
    amount: Nanotons,
    charged: Nanotons,
}

impl Reservation {
    pub(crate) fn new(store: Store, account: Arc<Account>, amount: Nanotons) -> Self {
        Self { _store: store, account, amount, charged: 0 }
    }

    /// The channel it is on.
    pub fn channel(&self) -> &Address {
        &self.account.address
    }

    /// What this request was charged so far, in nanotons.
    pub fn charged(&self) -> Nanotons {
        self.charged
    }

    /// Charges this request up to `cumulative` nanotons, once the exposure allows it: at most one window may be
    /// owed beyond the vouchers, counted over all answers of the channel. Over it, this waits for a voucher,
    /// and no longer than `patience`.
    ///
    /// So that a payer that pays for all it has seen always gets on, a charge that is larger than what is left
    /// of the window passes when no more than half a window is open. One charge is never larger than the window:
    /// at most one and a half windows are ever unpaid, whatever a worker says that one frame cost.
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
        let by = cumulative - self.charged;
        if by == 0 {
            return Ok(());
        }
        let account = Arc::clone(&self.account);
        if by > account.window {
            return Err(ChargeError::Jump { by, window: account.window });
        }
        let covered = tokio::time::timeout(patience, async {
            loop {
                // Registered before the look, so that a voucher in between is not missed.
                let mut changed = std::pin::pin!(account.changed.notified());
                changed.as_mut().enable();
                if self.charge_now(by)? {
                    return Ok::<_, ChargeError>(());
                }
                changed.await;
            }
        });
        let Ok(charged) = covered.await else {
            let mut state = account.lock();
            state.cut = true;
            let (owed, voucher) = (state.owed, state.covered());
            return Err(ChargeError::VoucherRequired { owed, voucher, waited: patience });
        };
        charged?;
        self.keep_up().await?;
        Ok(())
    }

    /// The look and the charge are one step: two answers of one channel cannot both take the last of the window.
    fn charge_now(&mut self, by: Nanotons) -> Result<bool, ChargeError> {
        let mut state = self.account.lock();
        if state.closing {
            return Err(ChargeError::Closing);
        }
        if !within_window(&state, by, self.account.window) {
            return Ok(false);
        }
        state.owed += by;
        state.reserved -= by;
        self.charged += by;
        Ok(true)
    }

    /// Writes `owed` when the disk is a window behind.
    async fn keep_up(&self) -> Result<(), StoreError> {
        let behind = {
            let state = self.account.lock();
            state.owed - state.stored_owed.min(state.owed)
        };
        if behind < self.account.window.max(1) {
            return Ok(());
        }
        self.account.write(Change::Owed).await
    }

    /// Ends the reservation, and returns when what it charged is on the disk.
    ///
    /// # Errors
    /// [`StoreError`] when it is not; the charge stands in memory and goes with the next row.
    pub async fn finish(self) -> Result<(), StoreError> {
        let account = Arc::clone(&self.account);
        if self.charged > 0 {
            account.write(Change::Owed).await?;
        }
        drop(self);
        Ok(())
    }
}

fn within_window(state: &State, by: Nanotons, window: Nanotons) -> bool {
    let open = state.uncovered();
    open <= window / 2 || open.saturating_add(by) <= window
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.account.release(self.amount - self.charged);
    }
}
