//! What a profile knows of its channels: the books of clients, gateways and hosts, and vouchers from elsewhere.

use std::io::Read;

use cocoon_accounts::{PayeeBook, PayeeOptions, PayerBook, Store, StoreError, Unsettled};
use cocoon_contracts::channel::Terms;
use cocoon_contracts::voucher::SIGNED_VOUCHER_BYTES;
use cocoon_contracts::{Address, SignedVoucher, VerifiedVoucher};

use crate::error::{Explain, Failure, books_remedy};
use crate::wallet::Which;

/// The books of a profile, both sides of them.
pub(super) struct Books {
    pub(super) payer: PayerBook,
    pub(super) payee: PayeeBook,
}

/// Why there are no books to look into.
pub(super) enum NoBooks {
    /// The profile never had a channel.
    None,
    /// The process that tends them has them open.
    InUse,
}

impl Books {
    /// Opens the books if there are any; makes none.
    pub(super) fn look(which: &Which, network: i32) -> Result<Result<Self, NoBooks>, Failure> {
        let path = which.folder()?.join("accounts.redb");
        if !path.exists() {
            return Ok(Err(NoBooks::None));
        }
        match Store::open(&path) {
            Err(StoreError::Locked { .. }) => Ok(Err(NoBooks::InUse)),
            opened => Self::over(opened.map_err(Self::unopened)?, network).map(Ok),
        }
    }

    /// Opens the books, or makes them.
    pub(super) fn open(which: &Which, network: i32) -> Result<Self, Failure> {
        let store = Store::open(&which.folder()?.join("accounts.redb"));
        Self::over(store.map_err(Self::unopened)?, network)
    }

    const REMEDY: &str = "end the process that has them open: it tends its channels by itself";

    fn unopened(error: StoreError) -> Failure {
        Failure::new(format!("{}: {error}", Self::failed()), books_remedy(&error, Self::REMEDY))
    }

    fn failed() -> String {
        "the books cannot be opened".to_owned()
    }

    fn over(store: Store, network: i32) -> Result<Self, Failure> {
        // No answers are metered here: the window does not matter.
        let options = PayeeOptions { network, window: 0 };
        let payee = PayeeBook::open(store.clone(), options).explain(Self::failed, Self::REMEDY)?;
        let payer = PayerBook::open(store).explain(Self::failed, Self::REMEDY)?;
        Ok(Self { payer, payee })
    }

    /// The newest voucher that the books hold for a channel, if it is worth more than was paid.
    pub(super) async fn voucher(&self, channel: &Address) -> Result<Option<SignedVoucher>, Failure> {
        let all = self.unsettled().await?.into_iter();
        Ok(all.filter(|unsettled| unsettled.channel == *channel).map(|unsettled| unsettled.voucher).next())
    }

    /// The vouchers that are worth more than the chain has paid.
    pub(super) async fn unsettled(&self) -> Result<Vec<Unsettled>, Failure> {
        self.payee.unsettled().await.explain(Self::failed, Self::REMEDY)
    }

    /// The channels of which the profile is the payee.
    pub(super) async fn payee_channels(&self) -> Result<Vec<Address>, Failure> {
        let accounts = self.payee.accounts().await.explain(Self::failed, Self::REMEDY)?;
        Ok(accounts.into_iter().map(|account| account.address).collect())
    }
}

/// A voucher that was handed over as a file or as hexadecimal digits.
pub(super) fn parse_voucher(text: &str) -> Result<SignedVoucher, String> {
    let bytes = match digits(text.trim()) {
        Some(bytes) => bytes,
        None => {
            // Twice the length in digits, and a line's end.
            const MAX: u64 = 2 * SIGNED_VOUCHER_BYTES as u64 + 2;
            let mut content = Vec::new();
            let file = std::fs::File::open(text).map_err(|error| {
                format!("neither {} hexadecimal digits nor a file: {error}", 2 * SIGNED_VOUCHER_BYTES)
            })?;
            file.take(MAX + 1).read_to_end(&mut content).map_err(|error| error.to_string())?;
            let text = std::str::from_utf8(&content).map(str::trim).unwrap_or_default();
            digits(text).unwrap_or(content)
        }
    };
    SignedVoucher::decode(&bytes).map_err(|error| error.to_string())
}

fn digits(text: &str) -> Option<Vec<u8>> {
    (text.len() == 2 * SIGNED_VOUCHER_BYTES).then(|| hex::decode(text).ok()).flatten()
}

/// Checks a voucher against a channel's terms.
pub(super) fn verified(voucher: &SignedVoucher, terms: &Terms) -> Result<VerifiedVoucher, Failure> {
    voucher
        .verify_for(terms)
        .explain(|| "the voucher does not count".into(), "ask the payer for the one of this channel")
}

#[cfg(test)]
mod tests {
    use cocoon_contracts::{SigningKey, Voucher};

    use super::*;

    #[test]
    fn a_voucher_is_read_from_digits_and_from_files_of_either_form() {
        let key = SigningKey::from_seed(&[1; 32]);
        let voucher = Voucher { network: -7, channel: Address::ZERO, nonce: 1, cumulative: 5 }.sign(&key);
        let digits = hex::encode(voucher.encode());
        assert_eq!(parse_voucher(&digits).as_ref(), Ok(&voucher));
        let file = tempfile::NamedTempFile::new().expect("a file");
        let name = file.path().to_str().expect("UTF-8");
        for content in [voucher.encode(), digits.clone().into_bytes(), format!("{digits}\n").into_bytes()] {
            std::fs::write(name, content).expect("it is ours");
            assert_eq!(parse_voucher(name).as_ref(), Ok(&voucher));
        }
        for garbage in [&b""[..], b"x", &[0; 121], &[b'0'; 242], &[7; 100_000]] {
            std::fs::write(name, garbage).expect("it is ours");
            assert!(parse_voucher(name).is_err());
        }
        assert!(parse_voucher("no such file").is_err());
    }
}
