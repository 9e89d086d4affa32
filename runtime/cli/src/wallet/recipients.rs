//! Who is paid: one account on the command line, or a list in a file.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::Path;

use cocoon_chain::{AccountStatus, Chain};
use cocoon_contracts::wallet::{MAX_COMMENT, Transfer, comment};
use cocoon_contracts::{Address, Nanotons, Recipient, friendly_on, parse_recipient};
use serde::{Deserialize, Serialize};

use super::parse_ton;
use crate::error::{Explain, Failure};
use crate::ui::Screen;

/// The longest list, in lines.
const MAX_RECIPIENTS: usize = 100_000;
/// The longest file, in bytes: so many lines, each with an address and an amount.
const MAX_FILE: u64 = 12 << 20;

/// One payment, as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Payment {
    /// Raw.
    pub(super) to: String,
    /// In nanotons.
    pub(super) amount: Nanotons,
    /// As the address says; the raw form does not.
    pub(super) bounce: Option<bool>,
}

impl Payment {
    fn new(address: &str, amount: &str, network: i32) -> Result<Self, String> {
        let Recipient { address, bounce } =
            parse_recipient(address, network).map_err(|error| error.to_string())?;
        let amount = parse_ton(amount).map_err(|why| format!("`{}`: {why}", short(amount)))?;
        if amount == 0 {
            return Err("nothing would be paid: the amount is 0".to_owned());
        }
        Ok(Self { to: address.to_string(), amount, bounce })
    }

    pub(super) fn address(&self) -> Address {
        self.to.parse().expect("it was written by an address")
    }
}

/// The payment on the command line.
pub(super) fn single(address: &str, amount: &str, network: i32) -> Result<Vec<Payment>, Failure> {
    Payment::new(address, amount, network).map(|payment| vec![payment]).map_err(|why| {
        Failure::usage(why, "give the recipient's address on this network, and an amount in TON")
    })
}

/// A list: `address,amount` on each line; empty lines and lines that begin with `#` are left out.
pub(super) fn list(path: &Path, network: i32) -> Result<Vec<Payment>, Failure> {
    let unreadable = || format!("cannot read the list {}", path.display());
    let mut text = String::new();
    let file = std::fs::File::open(path).explain(unreadable, "check the name")?;
    file.take(MAX_FILE + 1).read_to_string(&mut text).explain(unreadable, "it must be text")?;
    let wrong = |line: usize, why: String| {
        Failure::usage(
            format!("{}, line {line}: {why}", path.display()),
            "each line is ADDRESS,AMOUNT with the amount in TON; nothing was sent",
        )
    };
    if text.len() as u64 > MAX_FILE {
        return Err(wrong(0, "the list is too long".to_owned()));
    }
    let mut payments = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if payments.len() == MAX_RECIPIENTS {
            return Err(wrong(number, format!("more than {MAX_RECIPIENTS} recipients")));
        }
        let (address, amount) =
            line.split_once(',').ok_or_else(|| wrong(number, format!("`{}` has no comma", short(line))))?;
        let payment =
            Payment::new(address.trim(), amount.trim(), network).map_err(|why| wrong(number, why))?;
        payments.push(payment);
    }
    if payments.is_empty() {
        return Err(wrong(0, "nobody is on the list".to_owned()));
    }
    Ok(payments)
}

fn short(text: &str) -> String {
    crate::ui::abridge(&crate::ui::one_line(text), 60)
}

/// The sum of payments, which must be an amount.
pub(super) fn total(payments: &[Payment]) -> Result<Nanotons, Failure> {
    payments.iter().try_fold(0, |sum: Nanotons, payment| sum.checked_add(payment.amount)).ok_or_else(|| {
        Failure::usage("the amounts together are more than all the coins there are", "look at the list again")
    })
}

/// Refuses to pay an account without a contract by an address that bounces: the money would come straight back, and the
/// wallet's transaction would look like a payment. Each such account is asked for once.
pub(super) async fn check(payments: &[Payment], chain: &dyn Chain, screen: &Screen) -> Result<(), Failure> {
    let bouncing: BTreeSet<&str> =
        payments.iter().filter(|payment| payment.bounce == Some(true)).map(|payment| &*payment.to).collect();
    for (number, to) in bouncing.iter().enumerate() {
        screen.progress(&format!("looking at recipient {} of {}", number + 1, bouncing.len()));
        let to: Address = to.parse().expect("it was written by an address");
        let account = chain.account(&to).await.explain(
            || format!("the account {to} cannot be read"),
            "check that the chain runs; nothing was sent",
        )?;
        if account.status != AccountStatus::Active {
            let bounces = friendly_on(&to, true, chain.network());
            let stays = friendly_on(&to, false, chain.network());
            return Err(Failure::new(
                format!("{bounces} has no contract yet, and money to this form of its address comes back"),
                format!("nothing was sent; if the account is the right one, pay it as {stays}"),
            ));
        }
    }
    Ok(())
}

/// The transfers of payments. Where an address does not say whether money may bounce, the account does: a contract can
/// send it back, and to an account without one it must stick.
pub(super) async fn transfers(
    payments: &[Payment],
    comment_text: Option<&str>,
    chain: &dyn Chain,
) -> Result<Vec<Transfer>, Failure> {
    let body = comment_text.map(comment).transpose().map_err(|error| {
        Failure::usage(error.to_string(), format!("a comment has at most {MAX_COMMENT} bytes"))
    })?;
    let mut all = Vec::with_capacity(payments.len());
    for payment in payments {
        let to = payment.address();
        let bounce = match payment.bounce {
            Some(bounce) => bounce,
            None => {
                let account = chain.account(&to).await.explain(
                    || format!("the account {to} cannot be read"),
                    "check that the chain runs; nothing was sent",
                )?;
                account.status == AccountStatus::Active
            }
        };
        let (amount, body) = (payment.amount, body.clone());
        all.push(Transfer { to, amount, bounce, body, state_init: None });
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: &str = "0:527964d55cfa6eb731f4bfc07e9d025098097ef8505519e853986279bd8400d8";

    fn read(text: &str) -> Result<Vec<Payment>, Failure> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), text).expect("it is ours");
        list(file.path(), -217)
    }

    #[test]
    fn a_list_has_an_address_and_an_amount_on_each_line() {
        let payments =
            read(&format!("# payouts of May\n\n{RAW},1.5\n {RAW} , 0.000000001 \r\n")).expect("a list");
        let amounts: Vec<_> = payments.iter().map(|payment| payment.amount).collect();
        assert_eq!(amounts, [1_500_000_000, 1]);
        assert_eq!(total(&payments).expect("it fits"), 1_500_000_001);
    }

    #[test]
    fn a_mistake_in_a_list_is_named_by_its_line() {
        for (text, words) in [
            (format!("{RAW},1\n{RAW}"), "line 2"),
            (format!("{RAW},1\n{RAW},1.0000000001"), "line 2"),
            (format!("{RAW},0"), "line 1: nothing would be paid"),
            ("nobody,1".to_owned(), "line 1: `nobody` is not an address"),
            (format!("{RAW},1,thanks"), "line 1"),
            (String::new(), "nobody is on the list"),
        ] {
            let failure = read(&text).expect_err("it is refused");
            assert!(failure.what.contains(words), "{failure}");
        }
    }

    #[test]
    fn a_sum_beyond_all_coins_is_refused() {
        let payments =
            read(&format!("{RAW},18446744073\n{RAW},18446744073")).expect("each alone is an amount");
        assert!(total(&payments).is_err());
    }
}
